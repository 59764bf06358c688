//! The process that keeps records: its walls, its sinks, and what happens when they fail it.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixDatagram;
use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::common::{
    CLIENT_UID, LIMIT, Running, assert_nothing_left, await_that, ours, shown, stderr,
};
use crate::process::Process;

use super::{entries_so_far, export, keepers_of, of, relays, start};

#[test]
fn sink_that_takes_nothing_costs_records_and_never_the_view() {
    let export = export();
    let file = export.beside("audit.log");
    let start = start(&export, &[&shown(&file)]);
    let script = "cd \"$1\"; echo ready; read l; i=0; \
                  while [ $i -lt 6000 ]; do true >dull; i=$((i+1)); \
                  [ $((i % 500)) -ne 0 ] || echo ...; done 2>/dev/null; \
                  echo flooded; read l; true 2>/dev/null >dull; exec sleep 1000";
    let mut command = start.command(["sh", "-c", script, "sh", &shown(export.path())]);
    let (from, go) = std::io::pipe().unwrap();
    command.stdin(from);
    let mut running = Running::spawn(command, start.name().to_owned());
    running.stdout.until("ready");
    running.look();
    let relay = relays(running.launcher)[0];
    relay.kill(Signal::SIGSTOP);
    nix::unistd::write(&go, b"go\n").unwrap();
    running.stdout.until("flooded");
    let view = start.name();
    let dropped = || {
        let output = ours(["status", "--json", view]);
        let told: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        told["mediator"]["status"]["audit_records_dropped"].as_u64()
    };
    await_that(LIMIT, "records are dropped and counted", || {
        dropped().is_some_and(|dropped| dropped > 0)
    });
    let dropped = dropped().unwrap();
    relay.kill(Signal::SIGCONT);
    await_that(LIMIT, "what is in the pipe is kept", || {
        of(&entries_so_far(&file), "refused").len() > 100
    });
    // The next refusal: what is missing is told before it.
    nix::unistd::write(&go, b"go\n").unwrap();
    await_that(LIMIT, "what is missing is told", || {
        let found = entries_so_far(&file);
        let missing: u64 = found.iter().filter_map(|one| one["records"].as_u64()).sum();
        let kept = of(&found, "refused").len();
        missing == dropped && kept + usize::try_from(missing).unwrap() == 6001
    });
    running.signal(Signal::SIGTERM);
    assert_eq!(running.end().code(), 143);
    assert_nothing_left(view);
}

#[test]
fn relay_holds_its_pipe_and_its_sinks_and_no_power() {
    let export = export();
    let file = export.beside("audit.log");
    let running = start(&export, &[&shown(&file)]).shell_ready("echo ready; exec sleep 1000");
    let relays = relays(running.launcher);
    let [relay] = relays.as_slice() else {
        panic!("not one relay: {relays:?}");
    };
    let stderr_of_launcher = fs::read_link(format!("/proc/{}/fd/2", running.launcher.pid)).unwrap();
    for (number, what) in relay.descriptors() {
        let fits = what.starts_with("pipe:[") || what == shown(&file);
        assert!(fits, "descriptor {number} is {what}");
        assert_ne!(
            what,
            shown(&stderr_of_launcher),
            "the caller's standard error"
        );
    }
    for (field, expected) in [
        ("CapEff", "0000000000000000"),
        ("CapPrm", "0000000000000000"),
        ("CapBnd", "0000000000000000"),
        ("NoNewPrivs", "1"),
        ("Seccomp", "2"),
    ] {
        assert_eq!(relay.field(field).as_deref(), Some(expected), "{field}");
    }
    let own = format!("/proc/{}/fd", relay.pid);
    let keepers = keepers_of(&file);
    assert!(keepers.iter().all(|fd| fd.starts_with(&own)), "{keepers:?}");
    assert_eq!(keepers.len(), 1);
}

/// The writing end of a mediator's records: the pipe that its relay reads.
fn records_of(mediator: Process, relay: Process) -> fs::File {
    let read = relay.descriptors();
    let written = mediator.descriptors();
    let shared = written
        .iter()
        .filter(|(number, _)| *number > 2)
        .find(|(_, what)| {
            read.iter()
                .any(|(number, pipe)| *number > 2 && pipe == what)
        });
    let (number, _) = shared.expect("mediator and relay share a pipe");
    let path = format!("/proc/{}/fd/{number}", mediator.pid);
    fs::OpenOptions::new().write(true).open(path).unwrap()
}

#[test]
fn what_a_broken_into_mediator_writes_speaks_for_its_own_view_and_reaches_no_terminal() {
    let export = export();
    let file = export.beside("audit.log");
    let start = start(&export, &[&shown(&file)]);
    let mut running = start.shell_ready("echo ready; exec sleep 1000");
    let relay = relays(running.launcher)[0];
    let mut hostile = records_of(running.family().mediator(), relay);
    let record = r#""event":"refused","operation":"unlink","path":"/made-up","uid":0,"gid":0,"pid":1,"why":"x","errno":"EACCES","errno_number":13}"#;
    let with = |field: &str| format!("{{{field},{record}\n");
    let forged = [
        with(r#""view":"theirs""#),
        with(r#""time":"1999-01-01T00:00:00.000000Z""#),
        with(r#""rule":"\u001b]0;title\u0007""#),
        with(r#""type":"unicorn""#),
        "\u{1b}[2J\n".to_owned(),
        "x".repeat(1 << 20) + "\n",
    ];
    for line in &forged {
        hostile.write_all(line.as_bytes()).unwrap();
    }
    hostile
        .write_all(format!("{{{record}\n").as_bytes())
        .unwrap();
    drop(hostile);
    await_that(LIMIT, "the lie about its own view is kept", || {
        of(&entries_so_far(&file), "refused").len() == 1
    });
    let found = entries_so_far(&file);
    assert!(
        found.iter().all(|one| one["view"] == start.name()),
        "{found:#?}"
    );
    let missing: u64 = found.iter().filter_map(|one| one["records"].as_u64()).sum();
    assert_eq!(missing, u64::try_from(forged.len()).unwrap(), "{found:#?}");
    let text = fs::read_to_string(&file).unwrap();
    for word in ["theirs", "1999", "title", "unicorn", "\u{1b}", "xxx"] {
        assert!(!text.contains(word), "{word:?} was let through: {text}");
    }
    running.signal(Signal::SIGTERM);
    let ended = running.end();
    assert_eq!(ended.told("it may be broken into"), 1, "{ended:?}");
}

#[test]
fn relay_that_is_killed_costs_records_and_not_the_view() {
    let export = export();
    let file = export.beside("audit.log");
    let start = start(&export, &[&shown(&file)]);
    let script = "cd \"$1\"; echo ready; read l; rm -f kept* 2>/dev/null; \
                  echo ok >told && cat told; exec sleep 1000";
    let mut command = start.command(["sh", "-c", script, "sh", &shown(export.path())]);
    let (from, go) = std::io::pipe().unwrap();
    command.stdin(from);
    let mut running = Running::spawn(command, start.name().to_owned());
    running.ready();
    let relay = relays(running.launcher)[0];
    relay.kill(Signal::SIGKILL);
    await_that(LIMIT, "the relay is gone", || !relay.alive());
    nix::unistd::write(&go, b"go\n").unwrap();
    running.stdout.until("ok");
    let output = ours(["metrics", start.name()]);
    let metrics = String::from_utf8(output.stdout).unwrap();
    let dropped = format!(
        "virtfs_audit_records_dropped_total{{view=\"{}\"}} ",
        start.name()
    );
    let dropped = metrics.lines().find_map(|line| line.strip_prefix(&dropped));
    assert!(dropped.is_some_and(|count| count != "0"), "{metrics}");
    running.signal(Signal::SIGTERM);
    let ended = running.end();
    assert_eq!(ended.told("nobody keeps audit records"), 1, "{ended:?}");
}

/// The program in a mount namespace whose /run is empty, but for what `script` puts there.
fn with_own_run(script: &str, words: Vec<String>, argv: &[&str]) -> std::process::Output {
    let script = format!("mount -t tmpfs none /run; {script}; exec \"$@\"");
    Command::new("unshare")
        .args([
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-ec",
            &script,
            "sh",
        ])
        .args(words)
        .args(argv)
        .current_dir("/")
        .output()
        .unwrap()
}

#[test]
fn full_disk_costs_records_is_told_once_and_stops_nothing() {
    let export = export();
    // Room for a few records.
    let setup = "mkdir /run/small; mount -t tmpfs -o size=4k none /run/small";
    let start = start(&export, &["/run/small/audit.log"]);
    let script = "cd \"$1\"; i=0; while [ $i -lt 50 ]; do true >dull; i=$((i+1)); done 2>/dev/null; \
                  echo done";
    let path = shown(export.path());
    let output = with_own_run(setup, start.run_words(), &["sh", "-c", script, "sh", &path]);
    assert_eq!(output.stdout, b"done\n", "{output:?}");
    let told = stderr(&output);
    assert_eq!(told.matches("an audit record is lost").count(), 1, "{told}");
    let lost = told
        .lines()
        .find(|line| line.contains("audit records are lost"));
    assert!(
        lost.is_some_and(|line| line.contains("/run/small/audit.log")),
        "{told}"
    );
}

#[test]
fn refusal_is_one_entry_of_journald() {
    let export = export();
    let socket = export.beside("journal");
    let journald = UnixDatagram::bind(&socket).unwrap();
    journald.set_read_timeout(Some(LIMIT)).unwrap();
    let setup = format!(
        "mkdir -p /run/systemd/journal; ln -s '{}' /run/systemd/journal/socket",
        shown(&socket)
    );
    let start = start(&export, &["journald"]);
    let path = shown(export.path());
    let argv = [
        "sh",
        "-c",
        "rm -f \"$1\"/kept* 2>/dev/null; true",
        "sh",
        &path,
    ];
    let output = with_own_run(&setup, start.run_words(), &argv);
    assert!(output.status.success(), "{output:?}");
    let mut datagram = [0; 64 * 1024];
    let length = journald.recv(&mut datagram).unwrap();
    let text = datagram[..length].escape_ascii().to_string();
    let field = |name: &str, value: &str| {
        let length = u64::try_from(value.len()).unwrap().to_le_bytes();
        let whole = [name.as_bytes(), b"\n", &length, value.as_bytes(), b"\n"].concat();
        whole.escape_ascii().to_string()
    };
    for (name, value) in [
        ("SYSLOG_IDENTIFIER", "virtfs-mediator"),
        ("PRIORITY", "4"),
        ("VIRTFS_VIEW", start.name()),
        ("VIRTFS_EVENT", "refused"),
        ("VIRTFS_OPERATION", "unlink"),
        ("VIRTFS_PATH", "/kept\\n{\\\"view\\\":\\\"x\\\"}\\x1b[2J"),
        ("VIRTFS_RULE", "keep"),
        ("VIRTFS_RULE_LINE", "2"),
        ("VIRTFS_ERRNO", "EACCES"),
    ] {
        assert!(text.contains(&field(name, value)), "{name}={value}: {text}");
    }
}

#[test]
fn sink_that_cannot_be_used_is_told_at_the_start() {
    let export = export();
    let link = export.beside("link");
    symlink(export.beside("file"), &link).unwrap();
    let inside = export.path().join("audit.log");
    let others = export.beside("others");
    fs::write(&others, "").unwrap();
    std::os::unix::fs::chown(&others, Some(CLIENT_UID), None).unwrap();
    for (sink, status, words) in [
        ("jurnald", 64, "no such sink"),
        (&shown(&link), 78, "symbolic link"),
        (&shown(&inside), 78, "which is shared"),
        (&shown(&others), 78, "belongs to user 61234"),
        ("/nonexistent/audit.log", 78, "No such file"),
    ] {
        let output = start(&export, &[sink]).output(["true"]);
        let told = stderr(&output);
        assert_eq!(output.status.code(), Some(status), "{sink}: {told}");
        assert!(
            told.contains("--audit") && told.contains(words),
            "{sink}: {told}"
        );
        assert_eq!(told.trim_end().lines().count(), 1, "{told}");
    }
    let start = start(&export, &["journald"]);
    let output = with_own_run("true", start.run_words(), &["true"]);
    let told = stderr(&output);
    assert_eq!(output.status.code(), Some(78), "{told}");
    assert!(told.contains("systemd-journald"), "{told}");
    assert_nothing_left(start.name());
}
