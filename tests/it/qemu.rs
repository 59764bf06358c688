//! Stock QEMU as an ordinary user on a view, driven without a guest.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use virtfs_p9::{Ids, Launch, Machine, Qemu, SetAttr, smoke};

use crate::common::{CLIENT_GID, CLIENT_UID, Export, Start, assert_nothing_left};
use crate::host_namespace::rounds;

const CLIENT: Ids = Ids {
    uid: CLIENT_UID,
    gid: CLIENT_GID,
};
const ALICE: Ids = Ids {
    uid: 1234,
    gid: 4321,
};

pub(crate) fn boot(export: &Export, start: &Start) -> Machine {
    let qemu = Qemu::new().export(virtfs_p9::Export::local("share", export.path()));
    Machine::boot(&qemu, &Launch::new().wrapper(start.run_words(), CLIENT)).unwrap()
}

#[test]
fn smoke_round_through_the_view_has_no_surprises() {
    let export = Export::new();
    let start = Start::new(&export);
    let machine = boot(&export, &start);
    assert_eq!(machine.qemu().ids, CLIENT);
    let status = fs::read_to_string(format!("/proc/{}/status", machine.qemu().pid)).unwrap();
    assert!(status.contains("CapEff:\t0000000000000000"), "{status}");
    let mut session = machine.session("share").unwrap();
    let mut told = Vec::new();
    let expected = smoke::run(&mut session, |outcome| told.push(outcome.to_string())).unwrap();
    assert!(expected, "{}", told.join("\n"));
    drop(session);
    assert_eq!(fs::read_dir(export.path()).unwrap().count(), 0);
    machine.stop().unwrap();
    assert_nothing_left(start.name());
}

#[test]
fn owners_and_modes_that_a_guest_gives_are_the_hosts() {
    let export = Export::new();
    let start = Start::new(&export);
    let machine = boot(&export, &start);
    let mut session = machine.session("share").unwrap();
    let on_host = |name: &str| {
        let meta = fs::symlink_metadata(export.path().join(name)).unwrap();
        (meta.uid(), meta.gid(), meta.mode())
    };
    let mut alice = session.user(ALICE).unwrap();
    alice.write_all("file", 0o640, b"hello").unwrap();
    alice.mkdir("directory", 0o750).unwrap();
    alice.symlink("link", "/etc/passwd").unwrap();
    assert_eq!(on_host("file"), (1234, 4321, 0o100_640));
    assert_eq!(on_host("directory"), (1234, 4321, 0o040_750));
    assert_eq!(on_host("link"), (1234, 4321, 0o120_777));
    let mut root = session.user(Ids::ROOT).unwrap();
    root.setattr("file", &SetAttr::owner(0, 0)).unwrap();
    root.setattr("file", &SetAttr::mode(0o6755)).unwrap();
    assert_eq!(on_host("file"), (0, 0, 0o106_755));
    assert_eq!(fs::read(export.path().join("file")).unwrap(), b"hello");
}

#[test]
fn starts_and_stops_of_qemu_leave_nothing() {
    let export = Export::new();
    for round in 0..rounds(20) {
        let start = Start::new(&export);
        let machine = boot(&export, &start);
        let mut session = machine.session("share").unwrap();
        session
            .user(ALICE)
            .unwrap()
            .write_all("file", 0o600, round.to_string().as_bytes())
            .unwrap();
        drop(session);
        machine.stop().unwrap();
        assert_nothing_left(start.name());
    }
}

/// QEMU's own filter on top of ours, and a root directory of its own: the 9p server works the same.
#[test]
fn qemu_with_its_sandbox_in_an_isolated_root_has_no_surprises() {
    let export = Export::new();
    // Where QEMU and the test meet: besides /usr and the view, all that QEMU sees.
    let meeting = export.beside("meeting");
    fs::create_dir(&meeting).unwrap();
    let start = Start::new(&export)
        .option("--isolate")
        .option("--require-confinement")
        .option(format!("--bind={}", crate::common::shown(&meeting)));
    let sandbox = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny";
    let qemu = Qemu::new()
        .export(virtfs_p9::Export::local("share", export.path()))
        .arg("-sandbox")
        .arg(sandbox);
    let launch = Launch::new()
        .wrapper(start.run_words(), CLIENT)
        .scratch_in(&meeting);
    let machine = Machine::boot(&qemu, &launch).unwrap();
    let status = fs::read_to_string(format!("/proc/{}/status", machine.qemu().pid)).unwrap();
    assert!(status.contains("Seccomp:\t2"), "{status}");
    let root = fs::read_dir(format!("/proc/{}/root/etc", machine.qemu().pid)).unwrap();
    assert!(root.count() <= 5, "the host's /etc is not QEMU's");
    let mut session = machine.session("share").unwrap();
    let mut told = Vec::new();
    let expected = smoke::run(&mut session, |outcome| told.push(outcome.to_string())).unwrap();
    assert!(expected, "{}", told.join("\n"));
    drop(session);
    machine.stop().unwrap();
    assert_nothing_left(start.name());
}
