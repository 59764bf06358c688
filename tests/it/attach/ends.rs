//! Ends: whatever dies first, the original is never uncovered, and nothing is left.

use nix::sys::signal::Signal;

use crate::attach::lab::{Domain, Kept, Lab};
use crate::attach::peers::{Peer, Start};
use crate::common::{Export, LIMIT, await_that, code, shown, stderr, stdout};

/// A lab with a peer that uses its view; what it wrote there.
fn started<'a>(lab: &Lab, domain: &Domain<'a>) -> (Peer, Kept, String) {
    lab.arm(domain);
    let mut peer = Start::of(domain).spawn(lab);
    peer.ready();
    let file = shown(&domain.exports[0].path().join("file"));
    peer.does(&format!("echo original >{file}"));
    let kept = lab.view(&format!("{}-0", domain.name));
    (peer, kept, file)
}

/// The peer gets the error of a dead connection, and never the original.
#[track_caller]
fn sees_the_dead_view(peer: &mut Peer, export: &Export, file: &str) {
    let mut last = Vec::new();
    await_that(LIMIT, "the connection is gone", || {
        last = peer.run(&format!("LC_ALL=C cat {file} 2>&1")).1;
        assert!(!last.iter().any(|line| line == "original"), "{last:?}");
        last.join("\n").contains("not connected")
    });
    assert!(peer.sees_view(export.path()), "the dead view covers it");
    let (status, seen) = peer.run(&format!("LC_ALL=C ls {} 2>&1", shown(export.path())));
    assert!(
        status != 0 && seen.join("\n").contains("not connected"),
        "{seen:?}"
    );
}

#[test]
fn peer_that_ends_ends_all() {
    let (lab, export) = (Lab::serving(), Export::new());
    let domain = Domain::new("ends", [&export]);
    let (mut peer, kept, _) = started(&lab, &domain);
    let (status, told) = peer.end();
    assert_eq!((status, told.as_str()), (0, ""));
    kept.assert_gone();
    lab.logged("ended with their client: ends-0");
    lab.assert_nothing_left("ends-0");
}

#[test]
fn peer_that_is_killed_while_the_mediator_hangs_ends_all() {
    let (lab, export) = (Lab::serving(), Export::new());
    let domain = Domain::new("hangs", [&export]);
    let (mut peer, kept, _) = started(&lab, &domain);
    kept.mediator.kill(Signal::SIGSTOP);
    await_that(LIMIT, "the mediator stops", || {
        kept.mediator.state() == Some('T')
    });
    peer.kill();
    kept.assert_gone();
    lab.assert_nothing_left("hangs-0");
}

#[test]
fn killed_mediator_leaves_a_dead_view_over_the_original() {
    let (lab, export) = (Lab::serving(), Export::new());
    let domain = Domain::new("dead", [&export]);
    let (mut peer, kept, file) = started(&lab, &domain);
    kept.mediator.kill(Signal::SIGKILL);
    lab.logged("view dead-0: its mediator ended (signal 9)");
    kept.assert_gone();
    sees_the_dead_view(&mut peer, &export, &file);
    lab.assert_nothing_left("dead-0");
    // The original is as it was, for root.
    assert_eq!(
        std::fs::read(export.path().join("file")).unwrap(),
        b"original\n"
    );
}

#[test]
fn killed_keeper_leaves_a_dead_view_and_its_name_is_free_again() {
    let (lab, export) = (Lab::serving(), Export::new());
    let domain = Domain::new("keeper", [&export]);
    let (mut peer, kept, file) = started(&lab, &domain);
    kept.keeper.kill(Signal::SIGKILL);
    kept.assert_gone();
    sees_the_dead_view(&mut peer, &export, &file);
    // Nobody was left to remove its directory: the next command does.
    assert_eq!(stdout(&lab.ours(&["list", "--json"])), "[]");
    lab.assert_nothing_left("keeper-0");
    peer.kill();
    let (_peer, _, _) = started(&lab, &domain);
}

#[test]
fn unmount_is_refused_unless_forced_and_uncovers_nothing() {
    let (lab, export) = (Lab::serving(), Export::new());
    let domain = Domain::new("force", [&export]);
    let (mut peer, kept, file) = started(&lab, &domain);
    let refused = lab.ours(&["unmount", "force-0"]);
    assert_eq!(code(refused.status), 74);
    let told = stderr(&refused);
    let pid = peer.process.pid.to_string();
    assert!(told.contains(&pid) && told.contains("ENOTCONN"), "{told}");
    peer.does(&format!("cat {file}"));
    let forced = lab.ours(&["unmount", "--force", "force-0"]);
    assert!(forced.status.success(), "{}", stderr(&forced));
    kept.assert_gone();
    sees_the_dead_view(&mut peer, &export, &file);
    lab.assert_nothing_left("force-0");
}

#[test]
fn command_that_enters_is_the_client_in_the_peers_namespace() {
    let (lab, export) = (Lab::serving(), Export::new());
    let domain = Domain::new("enter", [&export]);
    let (mut peer, _kept, file) = started(&lab, &domain);
    let script =
        format!("readlink /proc/self/ns/mnt; id -u; chown 7:8 {file} && stat -c %u {file}");
    let entered = lab.ours(&["enter", "enter-0", "--", "sh", "-c", &script]);
    assert!(entered.status.success(), "{}", stderr(&entered));
    let namespace = peer.process.namespace("mnt");
    assert_eq!(stdout(&entered), format!("{namespace}\n{}\n7", domain.uid));
    peer.kill();
    await_that(LIMIT, "the view ends", || {
        !lab.ours(&["enter", "enter-0", "--", "true"])
            .status
            .success()
    });
}

/// Twenty starts leave no process, directory or mount.
#[test]
fn starts_one_after_the_other_leave_nothing() {
    let (lab, export) = (Lab::serving(), Export::new());
    let domain = Domain::new("again", [&export]);
    let mut last = None;
    for _ in 0..20 {
        let (mut peer, kept, _) = started(&lab, &domain);
        peer.kill();
        // The next start does not wait until this one's view has ended.
        last = Some(kept);
        let ended = lab.hook("again", "release", "end", &domain.xml());
        assert!(ended.status.success(), "{}", stderr(&ended));
    }
    last.unwrap().assert_gone();
    lab.assert_nothing_left("again-0");
    assert_eq!(stdout(&lab.ours(&["list", "--json"])), "[]");
    let records = lab.path("/run/virtfs-mediator-libvirt");
    for kind in ["armed", "attached"] {
        assert_eq!(std::fs::read_dir(records.join(kind)).unwrap().count(), 0);
    }
}

/// QEMU's user may run set-user-id programs like everybody; what it runs may not take the view off.
#[test]
fn setuid_fusermount_does_not_uncover_the_original() {
    let (lab, export) = (Lab::serving(), Export::new());
    let domain = Domain::new("fusermount", [&export]);
    let (mut peer, _kept, _file) = started(&lab, &domain);
    let place = shown(export.path());
    let (status, seen) = peer.run(&format!("fusermount3 -uz {place} 2>&1"));
    assert_ne!(status, 0, "{seen:?}");
    assert!(peer.sees_view(export.path()));
    // The attack is one: by a process that has not given up such programs it succeeds.
    let namespace = format!("--mount=/proc/{}/ns/mnt", peer.process.pid);
    let ids = [
        format!("--reuid={}", domain.uid),
        format!("--regid={}", domain.gid),
    ];
    let output = std::process::Command::new("nsenter")
        .args([
            &namespace,
            "--",
            "setpriv",
            &ids[0],
            &ids[1],
            "--clear-groups",
            "--",
        ])
        .args(["fusermount3", "-uz", &place])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(!peer.sees_view(export.path()));
}
