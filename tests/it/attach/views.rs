//! Views that are laid as they should be.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use virtfs_p9::{Ids, Launch, Machine, Qemu, SetAttr, smoke};

use crate::attach::lab::{Domain, Lab, WRAPPER};
use crate::attach::peers::{Peer, Start};
use crate::common::{Export, LIMIT, await_that, shown, stdout};
use crate::process::Process;

#[test]
fn peer_owns_files_through_its_view_and_nobody_else_sees_it() {
    let (lab, export) = (Lab::serving(), Export::new());
    let domain = Domain::new("web", [&export]);
    lab.arm(&domain);
    let mut peer = Start::of(&domain).spawn(&lab);
    peer.ready();
    lab.logged("laid into the mount namespace");
    assert!(peer.sees_view(export.path()));
    lab.assert_unseen();
    let file = export.path().join("file");
    let shown = shown(&file);
    peer.does(&format!("echo hello >{shown}"));
    peer.does(&format!("chown 1234:4321 {shown}"));
    peer.does(&format!("chmod 2750 {shown}"));
    let meta = fs::metadata(&file).unwrap();
    assert_eq!(
        (meta.uid(), meta.gid(), meta.mode()),
        (1234, 4321, 0o102_750)
    );
    assert_eq!(fs::read(&file).unwrap(), b"hello\n");
    // Exactly one process is in its namespace, and that is where its view's link leads.
    let link = fs::read_link(lab.path("/run/virtfs-mediator/web-0/ns")).unwrap();
    assert_eq!(
        link.to_str().unwrap(),
        format!("/proc/{}/ns/mnt", peer.process.pid)
    );
    for other in lab.view("web-0").all() {
        assert_ne!(other.namespace("mnt"), peer.process.namespace("mnt"));
    }
    // Once is enough for a start.
    assert!(!lab.is_armed("web"));
}

/// From before the view is asked for until after it has ended, every process's mounts are looked at
/// all the time.
#[test]
fn view_is_at_no_moment_in_any_other_namespace() {
    let (lab, export) = (Lab::serving(), Export::new());
    let domain = Domain::new("watched", [&export]);
    lab.arm(&domain);
    // Other virtual machines start all the time: each new namespace is a copy of the lab's.
    let mut others = lab
        .command("sh")
        .args(["-c", OTHERS])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut peer = Start::of(&domain).spawn(&lab);
    let its = format!(" {} ", export.path().display());
    let mut seen_by_peer = 0;
    let mut looks = 0;
    let mut look = |wanted: &mut dyn FnMut(u32) -> bool| {
        await_that(LIMIT, "the view comes and goes", || {
            looks += 1;
            for entry in fs::read_dir("/proc").unwrap().flatten() {
                let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else {
                    continue;
                };
                let text = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
                let sees = text
                    .lines()
                    .any(|line| line.contains(&its) && line.contains("fuse.virtfs-mediator"));
                if !sees {
                    continue;
                }
                if pid == peer.process.pid {
                    seen_by_peer += 1;
                    continue;
                }
                // The keeper's child is in the peer's namespace while it lays the view there.
                let parent = Process::find(pid).and_then(|one| one.field("PPid"));
                let name = Process::find(pid).and_then(|one| one.field("Name"));
                assert!(
                    Process::find(pid).is_none() || name.as_deref() == Some("virtfs-mediator"),
                    "process {pid} ({name:?}, child of {parent:?}) sees the view: {text}"
                );
                let own = fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
                let theirs = fs::read_link(format!("/proc/{}/ns/mnt", peer.process.pid)).ok();
                assert!(own.is_none() || own == theirs, "process {pid}: {text}");
            }
            wanted(seen_by_peer)
        });
    };
    look(&mut |seen| seen > 3);
    peer.ready();
    let kept = lab.view("watched-0");
    peer.kill();
    // Zombies have no mounts.
    kept.assert_gone();
    lab.assert_nothing_left("watched-0");
    drop(others.stdin.take());
    let output = others.wait_with_output().unwrap();
    let made = stdout(&output);
    assert!(made.lines().count() > 3, "{made}");
    assert!(made.lines().all(|line| line == "0"), "{made}");
}

/// Makes one mount namespace after the other, and tells how many views it is born with, until its
/// standard input ends.
const OTHERS: &str = "\
exec 3<&0 </dev/null
(read -r end <&3; kill $$) &
trap 'exit 0' TERM
while :; do unshare -m --propagation slave grep -c fuse.virtfs-mediator /proc/self/mountinfo; done";

#[test]
fn several_views_of_a_domain_end_together() {
    let lab = Lab::serving();
    let exports = [Export::new(), Export::new(), Export::new()];
    let domain = Domain::new("three", &exports);
    lab.arm(&domain);
    let mut peer = Start::of(&domain).spawn(&lab);
    peer.ready();
    for (at, export) in exports.iter().enumerate() {
        let file = export.path().join("file");
        peer.does(&format!(
            "echo {at} >{0} && chown {at}:77 {0}",
            shown(&file)
        ));
        let meta = fs::metadata(&file).unwrap();
        assert_eq!(meta.uid(), u32::try_from(at).unwrap());
    }
    let kept: Vec<_> = (0..3).map(|at| lab.view(&format!("three-{at}"))).collect();
    assert_eq!(kept[0].keeper, kept[2].keeper);
    peer.kill();
    for (at, kept) in kept.iter().enumerate() {
        kept.assert_gone();
        lab.assert_nothing_left(&format!("three-{at}"));
    }
}

#[test]
fn stock_qemu_owns_files_through_the_wrapper() {
    let (lab, export) = (Lab::serving(), Export::new());
    let mut domain = Domain::new("vm", [&export]);
    domain.emulator = "/usr/bin/qemu-system-x86_64";
    lab.arm(&domain);
    let ids = Ids {
        uid: domain.uid,
        gid: domain.gid,
    };
    let mut wrapper: Vec<String> = vec![
        "nsenter".into(),
        format!("--mount=/proc/{}/ns/mnt", lab.inside.pid),
        "--".into(),
        "sh".into(),
    ];
    wrapper.extend(Start::of(&domain).words());
    let qemu = Qemu::new()
        .program(WRAPPER)
        .export(virtfs_p9::Export::local("share", export.path()))
        .arg("-sandbox")
        .arg("on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
    let machine = Machine::boot(&qemu, &Launch::new().wrapper(wrapper, ids)).unwrap();
    let mut session = machine.session("share").unwrap();
    let mut told = Vec::new();
    let expected = smoke::run(&mut session, |outcome| told.push(outcome.to_string())).unwrap();
    assert!(expected, "{}", told.join("\n"));
    let mut alice = session
        .user(Ids {
            uid: 1234,
            gid: 4321,
        })
        .unwrap();
    alice.write_all("file", 0o640, b"hello").unwrap();
    let mut root = session.user(Ids::ROOT).unwrap();
    root.setattr("file", &SetAttr::mode(0o6755)).unwrap();
    let meta = fs::metadata(export.path().join("file")).unwrap();
    assert_eq!(
        (meta.uid(), meta.gid(), meta.mode()),
        (1234, 4321, 0o106_755)
    );
    let program = fs::read_link(format!("/proc/{}/exe", machine.qemu().pid)).unwrap();
    assert_eq!(program.to_str(), Some("/usr/bin/qemu-system-x86_64"));
    let told = lab.ours(&["status", "vm-0"]);
    let told = stdout(&told);
    assert!(
        told.contains(&format!("client {}", machine.qemu().pid)),
        "{told}"
    );
    assert!(!told.contains("DOWN"), "{told}");
    let kept = lab.view("vm-0");
    drop(session);
    machine.stop().unwrap();
    kept.assert_gone();
    lab.assert_nothing_left("vm-0");
}

#[test]
fn service_that_ends_or_crashes_leaves_views_alone() {
    let (mut lab, export) = (Lab::serving(), Export::new());
    let domain = Domain::new("kept", [&export]);
    lab.arm(&domain);
    let mut peer = Start::of(&domain).spawn(&lab);
    peer.ready();
    let file = shown(&export.path().join("file"));
    lab.stop_serving();
    peer.does(&format!("echo 1 >{file} && chown 1:1 {file}"));
    lab.serve();
    peer.does(&format!("chown 2:2 {file}"));
    lab.crash_service();
    peer.does(&format!("chown 3:3 {file}"));
    assert_eq!(fs::metadata(&file).unwrap().uid(), 3);
    // The next one takes the place of the dead one's socket, and the next start its turn.
    lab.serve();
    let other = Export::new();
    let mut second = Domain::new("next", [&other]);
    (second.uid, second.gid) = (61_311, 61_312);
    lab.arm(&second);
    let mut next = Start::of(&second).spawn(&lab);
    next.ready();
    assert!(next.sees_view(other.path()) && !next.sees_view(export.path()));
    assert!(peer.sees_view(export.path()) && !peer.sees_view(other.path()));
}

/// The wall between two domains is that their QEMUs are different users.
#[test]
fn peer_does_not_reach_anothers_view_through_proc() {
    let lab = Lab::serving();
    let (one, other) = (Export::new(), Export::new());
    let first = Domain::new("one", [&one]);
    let mut second = Domain::new("other", [&other]);
    (second.uid, second.gid) = (61_311, 61_312);
    lab.arm(&first);
    lab.arm(&second);
    let mut a = Start::of(&first).spawn(&lab);
    let mut b = Start::of(&second).spawn(&lab);
    a.ready();
    b.ready();
    // With the wrapper of its own accord, while a third is about to start, it gets nothing either.
    let mut third = Domain::new("third", [&other]);
    (third.uid, third.gid) = (61_321, 61_322);
    lab.arm(&third);
    let asks = format!(
        "{WRAPPER} -fsdev local,security_model=passthrough,path={} 2>&1",
        shown(other.path())
    );
    let (status, seen) = a.run(&asks);
    let told = seen.join("\n");
    assert!(
        status == 78 && told.contains("no domain with its user"),
        "{told}"
    );
    assert!(lab.is_armed("third"));
    b.does(&format!("echo secret >{}/secret", shown(other.path())));
    let through = format!("/proc/{}/root{}", b.process.pid, shown(other.path()));
    let (status, seen) = a.run(&format!("ls {through} 2>&1"));
    assert_ne!(status, 0, "{seen:?}");
    assert!(seen.join("\n").contains("Permission denied"), "{seen:?}");
    // A sibling of the same user gets through: that it has none is what the hook sees to.
    let mut sibling = Start::of(&second);
    (sibling.pid_file, sibling.shares) = (None, Vec::new());
    sibling.through = vec!["sh", "-c", "'ls $0 && echo reached >&2 && exit 3'"];
    let mut command = sibling.command(&lab);
    command.arg(&through);
    let (status, told) = Peer::of(command).end();
    assert_eq!((status, told.as_str()), (3, "reached"));
}

/// What the host mounts later comes into the peer's namespace as before, and never over the view.
#[test]
fn mount_of_the_hosts_over_the_export_stays_below_the_view() {
    let (lab, export) = (Lab::serving(), Export::new());
    let domain = Domain::new("below", [&export]);
    lab.arm(&domain);
    let mut peer = Start::of(&domain).spawn(&lab);
    peer.ready();
    let place = shown(export.path());
    let mounted = lab
        .command("mount")
        .args(["-t", "tmpfs", "late", &place])
        .status()
        .unwrap();
    assert!(mounted.success());
    let mountinfo = fs::read_to_string(format!("/proc/{}/mountinfo", peer.process.pid)).unwrap();
    assert!(mountinfo.contains(" late "), "{mountinfo}");
    peer.does(&format!("echo x >{place}/file && chown 5:6 {place}/file"));
    assert_eq!(fs::metadata(export.path().join("file")).unwrap().uid(), 5);
    // Nobody of ours keeps what the host unmounts: the keeper's namespace holds an empty root, the
    // mediator's the export.
    let kept = lab.view("below-0");
    for process in [kept.keeper, kept.mediator] {
        let text = fs::read_to_string(format!("/proc/{}/mountinfo", process.pid)).unwrap();
        assert_eq!(text.lines().count(), 1, "{process:?}: {text}");
    }
    assert_eq!(
        kept.registrar.namespace("mnt"),
        kept.keeper.namespace("mnt")
    );
    assert_eq!(kept.warden.namespace("mnt"), kept.mediator.namespace("mnt"));
}

/// What the domain's file says of its views holds as the command line's does.
#[test]
fn policy_and_audit_file_of_a_domain_hold() {
    let (lab, export) = (Lab::serving(), Export::new());
    let domain = Domain::new("ruled", [&export]);
    fs::write(
        lab.path("/etc/virtfs-mediator/ruled.toml"),
        "default = \"allow\"\n[[rule]]\nname = \"no-secrets\"\npath = \"/secret\"\naction = \"deny\"\n",
    )
    .unwrap();
    let file = domain.file().replace(
        "client =",
        "audit = [\"/run/ruled.audit\"]\nrequire_confinement = true\nclient =",
    ) + "policy = \"/etc/virtfs-mediator/ruled.toml\"\ncache = \"none\"\ndata = \"passthrough\"\n";
    fs::write(lab.path("/etc/virtfs-mediator/libvirt/ruled.toml"), file).unwrap();
    let armed = lab.hook("ruled", "prepare", "begin", &domain.xml());
    assert!(armed.status.success(), "{}", crate::common::stderr(&armed));
    let mut peer = Start::of(&domain).spawn(&lab);
    peer.ready();
    let place = shown(export.path());
    peer.does(&format!("echo x >{place}/open"));
    let (status, seen) = peer.run(&format!("echo x >{place}/secret"));
    assert_ne!(status, 0, "{seen:?}");
    let audit = lab.path("/run/ruled.audit");
    await_that(LIMIT, "the refusal is on record", || {
        fs::read_to_string(&audit)
            .is_ok_and(|text| text.contains("\"no-secrets\"") && text.contains("\"ruled-0\""))
    });
    // And root's other commands work on it.
    let metrics = lab.ours(&["metrics", "ruled-0"]);
    assert!(
        stdout(&metrics).contains("virtfs_requests_total"),
        "{}",
        stdout(&metrics)
    );
    let status = stdout(&lab.ours(&["status", "ruled-0"]));
    assert!(
        status.contains("cache: none") && status.contains("asked: passthrough"),
        "{status}"
    );
}
