//! File data that goes past the mediator: the same bytes on both sides, none of them counted by it,
//! and no open that is answered with EIO.

mod client;

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use rustix::fs::XattrFlags;
use serde_json::Value;
use virtfs_p9::{Ids, Launch, Machine, Qemu};

use crate::common::{
    CLIENT_GID, CLIENT_UID, Export, LIMIT, Running, Start, assert_nothing_left, await_that,
    metrics, ours, program, shown, stderr, stdout, within,
};
use client::{LARGE, expected, pattern, start};

/// As [`start`], up to the case's end.
#[track_caller]
fn done(export: &Export, how: &Start, case: &str) -> Running {
    let mut running = start(export, how, case);
    running.ready();
    recorded(how.name());
    running
}

fn recorded(view: &str) {
    await_that(LIMIT, "the launcher has recorded the view", || {
        ours(["status", view]).status.success()
    });
}

fn metric(view: &str, name: &str) -> f64 {
    metrics(view)[&format!("virtfs_{name}{{view=\"{view}\"}}")]
}

fn asked(view: &str, operation: &str) -> f64 {
    let prefix = format!("virtfs_requests_total{{view=\"{view}\",operation=\"{operation}\"");
    let found = metrics(view);
    let rows = found.iter().filter(|(name, _)| name.starts_with(&prefix));
    rows.map(|(_, value)| value).sum()
}

fn status(view: &str) -> Value {
    let output = ours(["status", view, "--json"]);
    assert!(output.status.success(), "{}", stderr(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn data(view: &str) -> Value {
    status(view)["mediator"]["status"]["data"].clone()
}

/// A file of the client's on the host.
fn put(export: &Export, name: &str, data: &[u8]) -> PathBuf {
    let path = export.path().join(name);
    fs::write(&path, data).unwrap();
    std::os::unix::fs::chown(&path, Some(CLIENT_UID), Some(CLIENT_GID)).unwrap();
    path
}

#[test]
fn data_of_a_large_file_goes_past_the_mediator_and_is_the_same_on_both_sides() {
    for (mode, cache) in [
        ("auto", "auto"),
        ("passthrough", "exclusive"),
        ("mediated", "none"),
    ] {
        let export = Export::new();
        put(&export, "large", &pattern(LARGE));
        let how = Start::new(&export)
            .option(format!("--data={mode}"))
            .option(format!("--cache={cache}"));
        let mut running = done(&export, &how, "everything");
        let result = fs::read(export.path().join("result")).unwrap();
        assert!(result == expected(), "{mode}: {} bytes", result.len());
        let view = how.name();
        let past = metric(view, "passthrough_opened_total");
        if mode == "mediated" {
            assert_eq!(past, 0.0);
            assert!(asked(view, "read") > 0.0 && asked(view, "write") > 0.0);
            assert_eq!(running.family().registrars, []);
        } else {
            assert!(past >= 4.0, "{past}");
            assert_eq!(asked(view, "read"), 0.0, "{mode}");
            // What is appended, and the result's own: a file is small when it is made.
            let own = if mode == "auto" { 2.0 } else { 1.0 };
            assert!(asked(view, "write") >= own);
            assert!(mode == "auto" || asked(view, "write") == own);
            // The two of `everything` are open no more.
            assert_eq!(metric(view, "passthrough_backing_ids"), 0.0);
        }
        running.signal(Signal::SIGTERM);
        running.end();
        assert_nothing_left(view);
    }
}

#[test]
fn small_files_are_registered_only_when_that_is_asked_for() {
    for (mode, past) in [("auto", 0.0), ("passthrough", 3.0)] {
        let export = Export::new();
        let small = put(&export, "small", b"original");
        let how = Start::new(&export).option(format!("--data={mode}"));
        let _running = done(&export, &how, "small");
        assert_eq!(fs::read(&small).unwrap(), b"changedl");
        assert_eq!(
            metric(how.name(), "passthrough_opened_total"),
            past,
            "{mode}"
        );
        assert_eq!(asked(how.name(), "write") == 0.0, past > 0.0, "{mode}");
    }
}

#[test]
fn programs_are_executed_on_either_way() {
    // The kernel opens what is executed with the registrar's credentials, under its Landlock.
    for mode in ["auto", "passthrough", "mediated"] {
        let export = Export::new();
        let shell = fs::read("/bin/sh").unwrap();
        assert!(shell.len() >= 64 << 10, "too small to go past by `auto`");
        let path = put(&export, "shell", &shell);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let view = Start::new(&export)
            .option("--shared")
            .option(format!("--data={mode}"))
            .mount();
        let output = within(&view.name, [shown(&path).as_str(), "-c", "echo ran"]);
        assert_eq!(stdout(&output), "ran", "{mode}: {output:?}");
        let past = metric(&view.name, "passthrough_opened_total");
        assert_eq!(past > 0.0, mode != "mediated", "{mode}: {past}");
    }
}

#[test]
fn program_that_runs_in_a_shared_view_is_not_cut() {
    for cache in ["auto", "none", "exclusive"] {
        let export = Export::new();
        let shell = fs::read("/bin/sh").unwrap();
        let path = put(&export, "program", &shell);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let how = Start::new(&export)
            .option("--shared")
            .option(format!("--cache={cache}"));
        let _running = done(&export, &how, "cut-a-program");
        assert!(fs::read(&path).unwrap() == shell, "{cache}: it was cut");
    }
}

#[test]
fn set_id_bits_and_file_capabilities_go_with_a_write_on_either_way() {
    for (mode, cache) in [
        ("passthrough", "auto"),
        ("passthrough", "exclusive"),
        ("auto", "auto"),
        ("mediated", "auto"),
    ] {
        let export = Export::new();
        let path = put(&export, "large", &pattern(LARGE));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o6755)).unwrap();
        // CAP_NET_RAW, permitted and effective (linux/capability.h, VFS_CAP_REVISION_2).
        let mut capability = [0; 20];
        capability[..8].copy_from_slice(&[1, 0, 0, 2, 0, 0x20, 0, 0]);
        let name = "security.capability";
        rustix::fs::setxattr(&path, name, &capability, XattrFlags::empty()).unwrap();
        let how = Start::new(&export)
            .option(format!("--data={mode}"))
            .option(format!("--cache={cache}"));
        let running = start(&export, &how, "write-one");
        let seen = running.stdout.until("ready");
        let modes: Vec<&str> = seen
            .iter()
            .filter_map(|line| line.strip_prefix("mode "))
            .collect();
        assert_eq!(modes, ["6755", "755", "755"], "{mode}, {cache}");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o755);
        let left = rustix::fs::getxattr(&path, name, &mut [0_u8; 64]);
        assert_eq!(left, Err(rustix::io::Errno::NODATA), "{mode}, {cache}");
        recorded(how.name());
        assert_eq!(asked(how.name(), "write") == 0.0, mode != "mediated");
    }
}

fn ask(running: &mut Running, stdin: &mut std::process::ChildStdin) -> String {
    stdin.write_all(b"\n").unwrap();
    running.stdout.until_part("again ")
}

#[test]
fn reload_tells_of_files_that_go_past_a_policy_and_the_next_open_of_them_is_refused() {
    let export = Export::new();
    put(&export, "large", &pattern(LARGE));
    let how = Start::new(&export);
    let mut running = start(&export, &how, "hold");
    running.stdout.until("held");
    recorded(how.name());
    let mut stdin = running.stdin();
    assert_eq!(ask(&mut running, &mut stdin), "again ok read 1");
    assert_eq!(data(how.name())["open"], 1);
    let policy = export.beside("strict.toml");
    fs::write(&policy, "default = \"allow\"\nstrict = true\n").unwrap();
    let output = ours(["reload", how.name(), "--policy", &shown(&policy)]);
    assert!(output.status.success(), "{}", stderr(&output));
    let told = stdout(&output);
    assert!(
        told.ends_with("whatever this policy says of it: 1\n  /large"),
        "{told}"
    );
    // EBUSY: it could not be judged. The one that is open goes on.
    assert_eq!(ask(&mut running, &mut stdin), "again 16 read 1");
    fs::write(&policy, "default = \"deny\"\n").unwrap();
    assert!(ours(["reload", how.name()]).status.success());
    assert_eq!(ask(&mut running, &mut stdin), "again 13 read 1");
    fs::write(&policy, "default = \"allow\"\n").unwrap();
    assert!(ours(["reload", how.name()]).status.success());
    assert_eq!(ask(&mut running, &mut stdin), "again ok read 1");
    assert_eq!(asked(how.name(), "read"), 0.0);
}

#[test]
fn policy_that_judges_data_keeps_it_with_the_mediator() {
    for (policy, past) in [
        ("default = \"allow\"\n", true),
        ("default = \"allow\"\nstrict = true\n", false),
        (
            "default = \"allow\"\nlimit = { file_size = 9000000 }\n",
            false,
        ),
        (
            "default = \"allow\"\n[[rule]]\npath = \"/large\"\ndo = \"read\"\naction = \"allow\"\nlog = \"all\"\n",
            false,
        ),
        (
            "default = \"allow\"\n[[rule]]\npath = \"/other\"\ndo = \"read\"\naction = \"deny\"\nwhen = { offset = { min = 1 } }\n",
            true,
        ),
    ] {
        let export = Export::new();
        put(&export, "large", &pattern(LARGE));
        let file = export.beside("policy.toml");
        fs::write(&file, policy).unwrap();
        let how = Start::new(&export).option(format!("--policy={}", shown(&file)));
        let running = done(&export, &how, "write-one");
        let opened = metric(how.name(), "passthrough_opened_total");
        assert_eq!(opened > 0.0, past, "{policy}");
        assert_eq!(asked(how.name(), "write") == 0.0, past, "{policy}");
        let strict = policy.contains("strict");
        assert_eq!(running.family().registrars.is_empty(), strict, "{policy}");
    }
}

#[test]
fn passthrough_and_a_strict_policy_are_refused_together() {
    let export = Export::new();
    let file = export.beside("policy.toml");
    fs::write(&file, "default = \"allow\"\nstrict = true\n").unwrap();
    let how = Start::new(&export)
        .option("--data=passthrough")
        .option(format!("--policy={}", shown(&file)));
    let output = how.output(["true"]);
    assert_eq!(output.status.code(), Some(78), "{output:?}");
    assert!(stderr(&output).contains("strict = true"), "{output:?}");
    assert_nothing_left(how.name());
}

#[test]
fn registrar_holds_sys_admin_alone_and_the_mediators_ids_for_files() {
    let export = Export::new();
    let how = Start::new(&export).option("--mediator-user=61300:61301");
    let running = how.shell_ready("echo ready; exec sleep 1000");
    let registrar = running.family().registrar();
    for (field, value) in [
        // Real, effective, saved and file system's: backing I/O has the last.
        ("Uid", "0\t61300\t0\t61300"),
        ("Gid", "61301\t61301\t61301\t61301"),
        ("Groups", ""),
        // CAP_SYS_ADMIN is 21.
        ("CapEff", "0000000000200000"),
        ("CapPrm", "0000000000200000"),
        ("CapBnd", "0000000000200000"),
        ("CapInh", "0000000000000000"),
        ("CapAmb", "0000000000000000"),
        ("NoNewPrivs", "1"),
        ("Seccomp", "2"),
    ] {
        let found = registrar.field(field).unwrap_or_default();
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(words(&found), words(value), "{field}");
    }
    let fds: Vec<String> = fs::read_dir(format!("/proc/{}/fd", registrar.pid))
        .unwrap()
        .map(|entry| shown(&fs::read_link(entry.unwrap().path()).unwrap()))
        .filter(|what| !what.starts_with("pipe:["))
        .collect();
    assert_eq!(fds.len(), 2, "{fds:?}");
    assert!(fds.contains(&"/dev/fuse".to_owned()), "{fds:?}");
    let none = Start::new(&export).option("--data=mediated");
    let running = none.shell_ready("echo ready; exec sleep 1000");
    assert_eq!(running.family().registrars, []);
}

#[test]
fn view_goes_on_mediated_without_its_registrar_and_says_so_once() {
    for signal in [Signal::SIGKILL, Signal::SIGSTOP] {
        let export = Export::new();
        put(&export, "large", &pattern(LARGE));
        put(&export, "other", &pattern(LARGE));
        let how = Start::new(&export);
        let mut running = start(&export, &how, "reopen");
        running.stdout.until("held");
        running.look();
        recorded(how.name());
        assert_eq!(data(how.name())["passthrough"], true);
        running.family().registrar().kill(signal);
        let mut stdin = running.stdin();
        stdin.write_all(b"\n").unwrap();
        running.stdout.until("ready");
        assert!(asked(how.name(), "read") > 0.0, "the other file's");
        let told = data(how.name());
        assert_eq!(told["passthrough"], false);
        let why = told["why_not"].as_str().unwrap();
        assert!(why.contains("the registrar is gone"), "{why}");
        running.signal(Signal::SIGTERM);
        running.family().assert_gone();
        let ended = running.end();
        assert_eq!(ended.told("mediated from now on"), 1, "{ended:?}");
        assert_nothing_left(how.name());
    }
}

#[test]
fn opens_in_mixed_modes_never_fail_while_policies_and_watchers_come_and_go() {
    for mode in ["auto", "passthrough"] {
        let export = Export::new();
        put(&export, "large", &pattern(200_000));
        put(&export, "other", &pattern(200_000));
        let (plain, judging) = (export.beside("plain.toml"), export.beside("judging.toml"));
        fs::write(&plain, "default = \"allow\"\n").unwrap();
        // Judges the data of neither file.
        let rule = "[[rule]]\npath = \"/x/**\"\ndo = \"read\"\naction = \"deny\"\nwhen = { offset = { min = 1 } }\n";
        fs::write(&judging, format!("default = \"allow\"\n{rule}")).unwrap();
        let how = Start::new(&export)
            .option(format!("--data={mode}"))
            .option(format!("--policy={}", shown(&plain)));
        let mut running = start(&export, &how, "race");
        running.stdout.until("held");
        recorded(how.name());
        for round in 0..12 {
            let policy = if round % 2 == 0 { &judging } else { &plain };
            let mut watcher = Command::new(program())
                .args(["trace", how.name(), "--op", "open"])
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            // It watches once it tells of something.
            let mut first = [0];
            watcher
                .stdout
                .as_mut()
                .unwrap()
                .read_exact(&mut first)
                .unwrap();
            let output = ours(["reload", how.name(), "--policy", &shown(policy)]);
            assert!(output.status.success(), "{}", stderr(&output));
            watcher.kill().unwrap();
            watcher.wait().unwrap();
        }
        let opened = metric(how.name(), "passthrough_opened_total");
        running.stdin().write_all(b"\n").unwrap();
        let seen = running.stdout.until("ready");
        assert_eq!(
            seen.iter().filter(|line| line.ends_with(" rounds")).count(),
            4,
            "{seen:?}"
        );
        assert!(opened > 0.0);
        assert!(asked(how.name(), "read") > 0.0, "some opens were watched");
        await_that(LIMIT, "all are closed", || {
            metric(how.name(), "passthrough_backing_ids") == 0.0
        });
    }
}

/// Two file systems on each other are one too many for the kernel.
#[test]
fn export_whose_files_cannot_be_registered_is_mediated_or_refused_if_that_is_asked_for() {
    let export = Export::new();
    for (mode, code, told) in [
        ("passthrough", 71, "stacked too deep"),
        ("auto", 0, "mediated from now on"),
    ] {
        let how = Start::new(&export).option(format!("--data={mode}"));
        let layers = export.beside(mode);
        let place = shown(export.path());
        let script = format!(
            "set -e; mkdir {0}; cd {0}; mkdir l u v w x one\n\
             mount -t overlay o -o lowerdir=l,upperdir=u,workdir=w one\n\
             head -c 100000 /dev/zero >one/large; mount -t overlay o -o \
             lowerdir=l:one,upperdir=v,workdir=x {place}\n\
             cd /; exec {1} cat {place}/large",
            shown(&layers),
            how.run_words().join(" "),
        );
        // The mounts go with their namespace.
        let output = Command::new("unshare")
            .args(["--mount", "sh", "-c", &script])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert_eq!(
            output.status.code(),
            Some(code),
            "{mode}: {}",
            stderr(&output)
        );
        assert!(
            stderr(&output).contains(told),
            "{mode}: {}",
            stderr(&output)
        );
        assert_eq!(output.stdout.len(), if code == 0 { 100_000 } else { 0 });
        assert_nothing_left(how.name());
    }
}

#[test]
fn guest_reads_and_writes_128k_past_the_mediator() {
    let export = Export::new();
    put(&export, "large", &pattern(LARGE));
    let how = Start::new(&export);
    let client = Ids {
        uid: CLIENT_UID,
        gid: CLIENT_GID,
    };
    let qemu = Qemu::new().export(virtfs_p9::Export::local("share", export.path()));
    let launch = Launch::new().wrapper(how.run_words(), client);
    let machine = Machine::boot(&qemu, &launch).unwrap();
    let mut session = machine.session("share").unwrap();
    let mut user = session.user(client).unwrap();
    assert_eq!(user.read_all("large").unwrap(), pattern(LARGE));
    recorded(how.name());
    assert_eq!(asked(how.name(), "read"), 0.0);
    assert!(metric(how.name(), "passthrough_opened_total") > 0.0);
    drop(session);
    machine.stop().unwrap();
    assert_nothing_left(how.name());
}
