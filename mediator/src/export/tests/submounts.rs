//! What lies on other mounts. A mount needs a mount namespace of its own, so that nothing of it
//! can be left behind: each test runs itself again inside one.

use std::process::Command;

use super::*;
use crate::export::Covered;

/// Runs one ignored test of this binary in a new mount namespace.
fn in_mount_namespace(test: &str) {
    let status = Command::new("unshare")
        .args(["--mount", "--propagation", "private"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "--ignored", "--quiet", test])
        .status()
        .expect("unshare, of the package util-linux");
    assert!(status.success(), "{test}");
}

fn world_with_a_mount(submounts: Submounts) -> World {
    let w = World::with(64, submounts);
    std::fs::create_dir(w.path("mounted")).unwrap();
    std::fs::create_dir(w.path("plain")).unwrap();
    let mount = Command::new("mount")
        .args(["-t", "tmpfs", "none"])
        .arg(w.path("mounted"))
        .status();
    assert!(mount.unwrap().success());
    std::fs::write(w.path("mounted/file"), "").unwrap();
    std::fs::create_dir(w.path("mounted/dir")).unwrap();
    w
}

fn unmount(w: &World) {
    rustix::mount::unmount(w.path("mounted"), rustix::mount::UnmountFlags::DETACH).unwrap();
}

#[test]
fn submount_is_hidden_unless_followed() {
    in_mount_namespace("export::tests::submounts::hidden_inner");
}

#[test]
fn followed_submount_has_unique_inode_numbers() {
    in_mount_namespace("export::tests::submounts::followed_inner");
}

#[test]
#[ignore = "run by submount_is_hidden_unless_followed in a mount namespace"]
fn hidden_inner() {
    let covered = Covered {
        ino: 0,
        name: b"mounted".to_vec(),
    };
    for submounts in [Submounts::Hide(vec![covered]), Submounts::Refuse] {
        let w = world_with_a_mount(submounts.clone());
        let root = w.root();
        assert_eq!(errno(w.lookup(&root, "mounted")), Errno::NOENT);
        assert!(w.lookup(&root, "plain").is_ok());
        assert!(w.export.is_taken_unseen(&root, &name("mounted")));
        assert!(!w.export.is_taken_unseen(&root, &name("plain")));
        let listed = w.list(&root).iter().any(|(name, ..)| name == "mounted");
        // With Refuse there can be none: a listing does not look.
        assert_eq!(listed, submounts == Submounts::Refuse);
        unmount(&w);
    }
}

#[test]
#[ignore = "run by followed_submount_has_unique_inode_numbers in a mount namespace"]
fn followed_inner() {
    let w = world_with_a_mount(Submounts::Follow);
    let mounted = w.walk("mounted");
    assert!(w.export.is_submount(&mounted));
    assert!(!w.export.is_submount(&w.walk("plain")));
    let (file, dir) = (w.walk("mounted/file"), w.walk("mounted/dir"));
    for pin in [&mounted, &file, &dir] {
        assert!(pin.node().0 >> 63 == 1, "{pin:?}");
        assert_eq!(w.export.stat(pin).unwrap().ino, pin.node().0);
    }
    let listed = w.list(&mounted);
    for pin in [&file, &dir] {
        assert!(listed.iter().any(|(_, ino, _)| *ino == pin.node().0));
    }
    let (entry, _handle) = w.create(&mounted, "made", 0o4755);
    assert_eq!(entry.attr.mode.bits(), 0o4755);
    let linked = w.export.link(allow(), &file, &w.root(), &name("across"));
    assert_eq!(errno(linked), Errno::XDEV);
    let up = w.export.lookup_parent(allow(), &mounted).unwrap();
    assert_eq!(up.node, NodeId::ROOT);
    unmount(&w);
}
