//! Starting QEMU as others and through others, its end, and what is left.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use virtfs_p9::{Errno, Error, Export, Ids, Launch, Machine, ProxyHelper, Qemu, smoke};

use crate::common::{ALICE, Bench, alive, exists, export, needs_root, refused};

const NOBODY: Ids = Ids {
    uid: 65534,
    gid: 65534,
};

#[test]
fn smoke_round_as_root_has_no_surprises() {
    let mut bench = Bench::new();
    let mut told = Vec::new();
    let expected =
        smoke::run(&mut bench.session, |outcome| told.push(outcome.to_string())).unwrap();
    assert!(expected, "{}", told.join("\n"));
    assert_eq!(fs::read_dir(bench.host("")).unwrap().count(), 0);
}

#[test]
fn qemu_as_another_user_cannot_give_ownership_away() {
    let mut bench = Bench::with(&Launch::new().user(NOBODY));
    assert_eq!(bench.machine.qemu().ids, NOBODY);
    let status = fs::read_to_string(format!("/proc/{}/status", bench.machine.qemu().pid)).unwrap();
    assert!(status.contains("CapEff:\t0000000000000000"), "{status}");
    assert!(
        status.lines().any(|line| line.trim_end() == "Groups:"),
        "{status}"
    );
    refused(
        bench.session.user(ALICE).unwrap().mkdir("d", 0o700),
        Errno::EPERM,
    );
    bench
        .session
        .user(NOBODY)
        .unwrap()
        .mkdir("e", 0o700)
        .unwrap();
    assert_eq!(bench.host_owner("e"), (0o040_700, NOBODY));
    let mut surprises = 0;
    smoke::run(&mut bench.session, |outcome| {
        surprises += usize::from(!outcome.is_expected())
    })
    .unwrap();
    assert!(surprises > 5, "{surprises}");
}

#[test]
fn wrapper_is_given_the_command_line_and_runs_qemu() {
    let wrapper = [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "--",
    ];
    let mut bench = Bench::with(&Launch::new().wrapper(wrapper, NOBODY));
    assert_eq!(bench.machine.qemu().ids, NOBODY);
    bench
        .session
        .user(NOBODY)
        .unwrap()
        .mkdir("d", 0o700)
        .unwrap();
    assert_eq!(bench.host_owner("d"), (0o040_700, NOBODY));
}

#[test]
fn wrapper_that_stays_the_parent_is_the_one_that_is_ended() {
    // A shell that passes SIGTERM on, in namespaces of its own, as a launcher would be.
    let script = r#""$@" & child=$!; trap 'kill $child' TERM; wait $child; wait $child; exit 42"#;
    let wrapper = ["unshare", "--mount", "sh", "-c", script, "wrapper"];
    let bench = Bench::with(&Launch::new().wrapper(wrapper, Ids::ROOT));
    let pid = bench.machine.qemu().pid;
    assert_ne!(u32::try_from(pid).unwrap(), bench.machine.child_pid());
    assert_eq!(bench.machine.stop().unwrap().code(), Some(42));
    assert!(!alive(u32::try_from(pid).unwrap()));
}

#[test]
fn a_wrong_export_is_told_in_qemus_words_and_leaves_nothing() {
    needs_root();
    let scratch = export();
    let launch = Launch::new().scratch_in(scratch.path());
    let error = Machine::boot(
        &Qemu::new().export(Export::local("share", "/none/such")),
        &launch,
    )
    .unwrap_err();
    let text = error.to_string();
    assert!(
        matches!(
            error,
            Error::Ended {
                status: Some(_),
                ..
            }
        ) && text.contains("/none/such"),
        "{text}"
    );
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0);
}

#[test]
fn missing_qemu_is_told_with_what_installs_it() {
    let error =
        Machine::boot(&Qemu::new().program("qemu-system-none"), &Launch::new()).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("apt-get install qemu-system-x86"),
        "{error}"
    );
}

#[test]
fn a_program_that_never_connects_is_a_timeout_with_its_words() {
    let launch = Launch::new().limit(Duration::from_secs(3));
    let launch = launch.wrapper(
        ["sh", "-c", "echo not today; exec sleep 100", "sh"],
        Ids::ROOT,
    );
    let error = Machine::boot(&Qemu::new(), &launch).unwrap_err();
    assert!(
        matches!(error, Error::Timeout { .. }) && error.to_string().contains("not today"),
        "{error}"
    );
}

#[test]
fn dropping_the_machine_ends_qemu_and_removes_all() {
    let bench = Bench::new();
    let (pid, scratch) = (
        bench.machine.child_pid(),
        bench.machine.scratch().path().to_owned(),
    );
    assert!(alive(pid) && exists(&scratch));
    assert_eq!(
        fs::metadata(&scratch).unwrap().permissions().mode() & 0o7777,
        0o700
    );
    let Bench {
        mut session,
        machine,
        ..
    } = bench;
    drop(machine);
    assert!(!alive(pid) && !exists(&scratch));
    // A session that outlives its machine says so.
    let error = session.attach(0).unwrap_err();
    assert!(
        matches!(
            error,
            Error::Ended {
                status: Some(_),
                ..
            }
        ),
        "{error:?}"
    );
}

#[test]
fn qemu_killed_while_requests_fly_is_told() {
    let mut bench = Bench::new();
    let root = bench.session.attach(0).unwrap();
    let ticket = bench
        .session
        .submit(&virtfs_p9::message::Tgetattr {
            fid: root,
            request_mask: 1,
        })
        .unwrap();
    let pid = nix::unistd::Pid::from_raw(i32::try_from(bench.machine.child_pid()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    assert!(
        bench
            .machine
            .wait(Duration::from_secs(30))
            .unwrap()
            .is_some()
    );
    let error = bench.session.finish(ticket).unwrap_err();
    assert!(error.to_string().contains("signal: 9"), "{error}");
}

#[test]
fn proxy_helper_serves_as_qemu_7_2_has_it() {
    needs_root();
    let directory = export();
    let helper = ProxyHelper::start(directory.path(), NOBODY).unwrap();
    let qemu = Qemu::new().export(Export::proxy("share", helper.socket()));
    let machine = Machine::boot(&qemu, &Launch::new().user(NOBODY)).unwrap();
    let mut session = machine.session("share").unwrap();
    session
        .user(ALICE)
        .unwrap()
        .write_all("file", 0o640, b"x")
        .unwrap();
    let seen = fs::symlink_metadata(directory.path().join("file")).unwrap();
    use std::os::unix::fs::MetadataExt;
    assert_eq!(
        (seen.mode(), seen.uid(), seen.gid()),
        (0o100_640, ALICE.uid, ALICE.gid)
    );
}
