//! A domain's life and its views: where they are, what a guest does there, and every end.

use std::fs;
use std::path::Path;

use virtfs_p9::{Ids, Machine, SetAttr};

use super::domain::{Domain, on_host, path};
use super::lab::{Lab, is_view_at};
use crate::common::{Export, LIMIT, await_that, holds_within};
use crate::host_namespace::rounds;

const ALICE: Ids = Ids {
    uid: 1234,
    gid: 4321,
};

/// A file that a guest's user makes has its owner, on the host.
#[track_caller]
fn owns_files(machine: &Machine, export: &Export, name: &str) {
    let mut session = machine.session("share").unwrap();
    let mut alice = session.user(ALICE).unwrap();
    alice.write_all(name, 0o640, b"hello").unwrap();
    let mut root = session.user(Ids::ROOT).unwrap();
    assert_eq!(on_host(export, name), (1234, 4321, 0o100_640));
    root.setattr(name, &SetAttr::owner(7, 8)).unwrap();
    root.setattr(name, &SetAttr::mode(0o6755)).unwrap();
    assert_eq!(on_host(export, name), (7, 8, 0o106_755));
}

/// Every process of the host, by its own mountinfo, that has a view over the export: none but this.
#[track_caller]
fn seen_by_qemu_alone(domain: &Domain<'_>, export: &Export) {
    let qemu = domain.qemu();
    let place = path(export);
    let mut lookers = 0;
    let mut seen = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(mounts) = fs::read_to_string(entry.path().join("mountinfo")) else {
            continue;
        };
        lookers += 1;
        if mounts.lines().any(|line| is_view_at(line, &place)) {
            let status = fs::read_to_string(entry.path().join("status")).unwrap_or_default();
            let pids = status.lines().find(|line| line.starts_with("NSpid:"));
            seen.push(pids.unwrap_or_default().to_owned());
        }
    }
    let [one] = seen.as_slice() else {
        panic!("not one process has the view: {seen:?}");
    };
    assert_eq!(
        one.split_whitespace().last(),
        Some(qemu.to_string().as_str())
    );
    // The whole host was looked at: its first process, libvirtd, the service, the mediator.
    assert!(lookers > 8, "{lookers}");
    assert_eq!(domain.lab.who_sees_view_at(export.path()).len(), 1);
}

/// QEMU's share is its view's mount by a descriptor that it inherited: no path is looked up again.
#[track_caller]
fn given_by_descriptor(domain: &Domain<'_>, export: &Export) {
    let (lab, qemu) = (domain.lab, domain.qemu());
    let read = |file: &str| fs::read_to_string(lab.proc(qemu, file)).unwrap();
    let words = read("cmdline");
    let share = words
        .split('\0')
        .find(|word| word.starts_with("local,"))
        .unwrap();
    let (before, fd) = share.rsplit_once("path=/proc/self/fd/").unwrap();
    assert!(before.contains("security_model=passthrough,"), "{share}");
    let info = read(&format!("fdinfo/{fd}"));
    let mount = info
        .lines()
        .find_map(|line| line.strip_prefix("mnt_id:"))
        .unwrap();
    let mounts = read("mountinfo");
    let line = mounts
        .lines()
        .find(|line| line.starts_with(&format!("{} ", mount.trim())))
        .unwrap();
    assert!(is_view_at(line, &path(export)), "{line}");
}

/// Nothing of a domain that has ended is left; libvirtd and the service run on.
#[track_caller]
pub(super) fn nothing_left(domain: &Domain<'_>, export: &Export) {
    let lab = domain.lab;
    await_that(LIMIT, "all processes of the domain end", || {
        lab.processes()
            .iter()
            .all(|(_, name)| ["virtlogd", "libvirtd", "virtfs-mediator"].contains(&name.as_str()))
            && lab.processes().len() == 3
    });
    assert_eq!(lab.who_sees_view_at(export.path()), []);
    for directory in [
        "/run/virtfs-mediator",
        "/run/virtfs-mediator-libvirt/armed",
        "/run/virtfs-mediator-libvirt/attached",
    ] {
        let left = fs::read_dir(lab.path(directory)).into_iter().flatten();
        let left: Vec<_> = left.map(|entry| entry.unwrap().path()).collect();
        assert!(left.is_empty(), "{left:?}");
    }
    assert_eq!(lab.cgroups(), Vec::<std::path::PathBuf>::new());
}

#[test]
fn view_is_in_qemus_namespace_alone_and_its_owners_are_the_hosts() {
    let (lab, export) = (Lab::new(), Export::new());
    let domain = Domain::driven(&lab, &export).enabled();
    let machine = domain.boot();
    let ids = domain.ids();
    assert_eq!(machine.qemu().ids, ids);
    let status = fs::read_to_string(lab.proc(domain.qemu(), "status")).unwrap();
    for line in ["CapEff:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"] {
        assert!(status.contains(line), "{status}");
    }
    // It has become the emulator itself.
    let program = fs::read_link(lab.proc(domain.qemu(), "exe")).unwrap();
    assert_eq!(program, Path::new(super::lab::QEMU));
    seen_by_qemu_alone(&domain, &export);
    given_by_descriptor(&domain, &export);
    owns_files(&machine, &export, "file");
    assert!(lab.ours_ok(&["list"]).contains(&domain.view()));
    let told = lab.ours_ok(&["libvirt", "status", &domain.name]);
    assert!(told.contains("enabled, paused"), "{told}");
    assert!(told.contains(", running"), "{told}");

    domain.destroy();
    drop(machine);
    nothing_left(&domain, &export);
    assert_eq!(on_host(&export, "file"), (7, 8, 0o106_755));
}

#[test]
fn reset_of_the_machine_keeps_the_view() {
    let (lab, export) = (Lab::new(), Export::new());
    let domain = Domain::driven(&lab, &export).enabled();
    let machine = domain.boot();
    let qemu = domain.qemu();
    lab.virsh(&["reset", &domain.name]);
    assert_eq!(domain.qemu(), qemu);
    seen_by_qemu_alone(&domain, &export);
    drop(machine);
    domain.destroy();
    // The next start is a new QEMU with a new view.
    let machine = domain.boot();
    owns_files(&machine, &export, "after");
    assert_ne!(domain.qemu(), qemu);
    domain.destroy();
    drop(machine);
    nothing_left(&domain, &export);
}

#[test]
fn crash_of_qemu_ends_the_view() {
    let (lab, export) = (Lab::new(), Export::new());
    let domain = Domain::driven(&lab, &export).enabled();
    let machine = domain.boot();
    owns_files(&machine, &export, "file");
    lab.kill("KILL", domain.qemu());
    await_that(LIMIT, "libvirt notices", || domain.state() == "shut off");
    drop(machine);
    nothing_left(&domain, &export);
    let machine = domain.boot();
    owns_files(&machine, &export, "again");
}

/// The mediator of a view of the lab, as the lab numbers it.
#[track_caller]
fn mediator(lab: &Lab, view: &str) -> i32 {
    let state = lab.read(&format!("/run/virtfs-mediator/{view}/state.json"));
    let state: serde_json::Value = serde_json::from_str(&state).unwrap();
    let warden = state["warden"].as_i64().unwrap();
    let children = fs::read_to_string(lab.path(&format!("/proc/{warden}/task/{warden}/children")));
    children.unwrap().trim().parse().unwrap()
}

#[test]
fn crash_of_the_mediator_uncovers_nothing() {
    let (lab, export) = (Lab::new(), Export::new());
    fs::write(export.path().join("canary"), "").unwrap();
    let domain = Domain::driven(&lab, &export).enabled();
    let machine = domain.boot();
    let mut session = machine.session("share").unwrap();
    let mut root = session.user(Ids::ROOT).unwrap();
    root.write_all("file", 0o640, b"hello").unwrap();
    let mediator = mediator(&lab, &domain.view());
    lab.kill("KILL", mediator);
    lab.await_gone(mediator);
    assert!(root.write_all("other", 0o640, b"hello").is_err());
    // QEMU runs on, and what it sees in the export's place is a dead mount, not the export.
    assert_eq!(domain.state(), "paused");
    let qemu = domain.qemu();
    let ids = domain.ids();
    let output = lab.run([
        "nsenter",
        &format!("--target={qemu}"),
        "--mount",
        "--",
        "setpriv",
        &format!("--reuid={}", ids.uid),
        &format!("--regid={}", ids.gid),
        "--clear-groups",
        "--",
        "stat",
        &format!("{}/canary", path(&export)),
    ]);
    let told = crate::common::stderr(&output);
    assert!(told.contains("not connected"), "{output:?}");
    domain.destroy();
    drop((session, machine));
    nothing_left(&domain, &export);
}

#[test]
fn crash_of_libvirtd_leaves_domain_and_view_alone() {
    let (lab, export) = (Lab::new(), Export::new());
    let domain = Domain::driven(&lab, &export).enabled();
    let machine = domain.boot();
    let qemu = domain.qemu();
    lab.crash_libvirtd();
    seen_by_qemu_alone(&domain, &export);
    owns_files(&machine, &export, "while-it-is-gone");
    lab.start_libvirtd();
    let known = holds_within(LIMIT, || {
        domain.state() == "paused" && domain.qemu() == qemu
    });
    assert!(known, "{}", lab.libvirtd_log());
    // A command that needs the monitor: it has connected again, and not given up.
    lab.virsh(&["qemu-monitor-command", &domain.name, "--hmp", "info status"]);
    seen_by_qemu_alone(&domain, &export);
    domain.destroy();
    drop(machine);
    nothing_left(&domain, &export);
}

#[test]
fn crash_of_the_service_leaves_views_alone_and_the_next_start_waits_for_it() {
    let (lab, export) = (Lab::new(), Export::new());
    let domain = Domain::driven(&lab, &export).enabled();
    let machine = domain.boot();
    lab.crash_service();
    seen_by_qemu_alone(&domain, &export);
    owns_files(&machine, &export, "file");
    domain.destroy();
    drop(machine);
    let told = domain.start_fails();
    assert!(told.contains(super::lab::SOCKET), "{told}");
    lab.start_service();
    let machine = domain.boot();
    owns_files(&machine, &export, "later");
}

#[test]
fn two_domains_at_once_reach_each_its_own_view() {
    let lab = Lab::new();
    let (first, second) = (Export::new(), Export::new());
    let one = Domain::driven(&lab, &first).enabled();
    let other = Domain::driven(&lab, &second).enabled();
    assert_ne!(one.ids().uid, other.ids().uid);
    let (one_machine, other_machine) = (one.boot(), other.boot());
    seen_by_qemu_alone(&one, &first);
    seen_by_qemu_alone(&other, &second);
    owns_files(&one_machine, &first, "of-one");
    owns_files(&other_machine, &second, "of-other");
    assert!(!second.path().join("of-one").exists());
    assert!(!first.path().join("of-other").exists());
    one.destroy();
    drop(one_machine);
    seen_by_qemu_alone(&other, &second);
    other.destroy();
    drop(other_machine);
    nothing_left(&other, &second);
    nothing_left(&one, &first);
}

#[test]
fn starts_and_ends_leave_nothing() {
    let (lab, export) = (Lab::new(), Export::new());
    let domain = Domain::plain(&lab, &export).enabled();
    let mounts = || fs::read_to_string(lab.path("/proc/1/mountinfo")).unwrap();
    let of_libvirtd = || {
        let pid = lab.daemon("libvirtd").unwrap();
        let mounts = fs::read_to_string(lab.proc(pid, "mountinfo")).unwrap();
        let open = fs::read_dir(lab.proc(pid, "fd")).unwrap().count();
        (mounts, open)
    };
    domain.start();
    domain.destroy();
    nothing_left(&domain, &export);
    let (lab_before, daemon_before) = (mounts(), of_libvirtd());
    let runs = || lab.ok(["find", "/run", "-name", "*virtfs*"]);
    let run_before = runs();
    for round in 0..rounds(20) {
        domain.start();
        if round % 2 == 0 {
            domain.destroy();
        } else {
            lab.kill("KILL", domain.qemu());
            await_that(LIMIT, "libvirt notices", || domain.state() == "shut off");
        }
        nothing_left(&domain, &export);
    }
    assert_eq!(mounts(), lab_before);
    let (mounts_after, open_after) = of_libvirtd();
    assert_eq!(mounts_after, daemon_before.0);
    assert!(open_after <= daemon_before.1 + 4, "{open_after}");
    assert_eq!(runs(), run_before);
}

#[test]
fn domain_without_us_is_untouched() {
    let (lab, export) = (Lab::new(), Export::new());
    let ours = Domain::plain(&lab, &export).enabled();
    let domain = Domain::plain(&lab, &export);
    lab.crash_service();
    domain.start();
    let status = fs::read_to_string(lab.proc(domain.qemu(), "status")).unwrap();
    let shared = nix::unistd::User::from_name("libvirt-qemu")
        .unwrap()
        .unwrap();
    assert!(
        status.contains(&format!("Uid:\t{}", shared.uid)),
        "{status}"
    );
    assert_eq!(lab.who_sees_view_at(export.path()), []);
    domain.destroy();
    let told = lab.ours_ok(&["libvirt", "status"]);
    assert!(
        told.contains(&ours.name) && !told.contains(&domain.name),
        "{told}"
    );
}
