//! Several exports, several views, and the commands that look at them; clients that go to the
//! background.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::common::{
    CLIENT_GID, CLIENT_UID, Export, LIMIT, RUN, Running, Start, View, assert_nothing_left,
    await_that, ours, program, shown, stderr, stdout,
};
use crate::process::{Family, Process};

fn json(arguments: &[&str]) -> Value {
    let output = ours(arguments);
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What `list --json` says of a view.
fn listed(name: &str) -> Option<Value> {
    let Value::Array(rows) = json(&["list", "--json"]) else {
        panic!("list --json is no array");
    };
    rows.into_iter().find(|row| row["view"] == name)
}

#[test]
fn several_exports_are_one_client_and_a_mediator_each() {
    let (one, two) = (Export::unique(), Export::unique());
    let (first, second) = (shown(one.path()), shown(two.path()));
    let script = format!("echo a >{first}/x; echo b >{second}/x; echo ready; exec sleep 1000");
    let mut running = Start::several(&[&one, &two]).shell_ready(&script);
    let family = running.family().clone();
    assert_eq!((family.wardens.len(), family.mediators.len()), (2, 2));
    assert_ne!(
        family.mediators[0].namespace("mnt"),
        family.mediators[1].namespace("mnt")
    );
    for (export, content) in [(&one, "a\n"), (&two, "b\n")] {
        let file = export.path().join("x");
        assert_eq!(fs::read_to_string(&file).unwrap(), content);
        let meta = fs::symlink_metadata(&file).unwrap();
        assert_eq!((meta.uid(), meta.gid()), (CLIENT_UID, CLIENT_GID));
    }
    // One that is lost ends the other.
    family.mediators[1].kill(nix::sys::signal::Signal::SIGKILL);
    family.assert_gone();
    assert_eq!(running.end().code(), 74);
}

#[test]
fn several_views_do_not_know_of_each_other() {
    let (one, two) = (Export::new(), Export::new());
    let first = Start::new(&one).mount();
    let second = Start::new(&two).mount();
    assert!(ours(["unmount", &first.name]).status.success());
    assert!(second.family.mediator().alive());
    let output = ours(["enter", &second.name, "--", "ls", &shown(two.path())]);
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn list_and_status_tell_what_runs() {
    let export = Export::new();
    let mut running = Start::new(&export).shell_ready("echo ready; exec sleep 1000");
    let (name, family) = (running.name.clone(), running.family().clone());
    let mut row = Value::Null;
    await_that(LIMIT, "the view is listed", || {
        row = listed(&name).unwrap_or_default();
        !row.is_null()
    });
    assert_eq!(row["export"], shown(export.path()));
    assert_eq!(row["keeper"], family.keeper.pid);
    assert_eq!(row["client_uid"], CLIENT_UID);
    assert_eq!(row["clients"], serde_json::json!([family.client().pid]));
    let status = json(&["status", &name, "--json"]);
    let processes = &status["processes"];
    assert_eq!(processes["mediator"]["pid"], family.mediator().pid);
    assert_eq!(processes["init"]["pid"], family.init.pid);
    // Answered by the mediator itself.
    assert!(
        status["mediator"].is_object() && status["mediator"]["error"].is_null(),
        "{status}"
    );
    for arguments in [&["list"][..], &["status", &name]] {
        let output = ours(arguments);
        assert!(
            output.status.success() && stdout(&output).contains(&name),
            "{output:?}"
        );
    }
    running.signal(nix::sys::signal::Signal::SIGTERM);
    running.end();
    assert_nothing_left(&name);
    assert!(listed(&name).is_none());
}

/// `| head -1` is no fault of the command; a full disk is told.
#[test]
fn command_whose_output_nobody_reads_ends_quietly() {
    let export = Export::new();
    let view = Start::new(&export).mount();
    for arguments in [
        &["list"][..],
        &["list", "--json"],
        &["status", &view.name],
        &["status", "--json", &view.name],
        &["metrics", &view.name],
        &["policy", "init", "readonly"],
        &["--help"],
    ] {
        let into = |stdout: std::process::Stdio| {
            let mut command = Command::new(program());
            command.args(arguments).stdout(stdout).output().unwrap()
        };
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = into(writer.into());
        assert_eq!(
            (output.status.code(), stderr(&output)),
            (Some(0), String::new()),
            "{arguments:?}"
        );
        if arguments == ["--help"] {
            continue;
        }
        let full = fs::OpenOptions::new().write(true).open("/dev/full");
        let output = into(full.unwrap().into());
        assert_eq!(output.status.code(), Some(74), "{arguments:?}: {output:?}");
        let told = stderr(&output);
        assert!(
            told.contains("write(standard output)") && told.contains("No space left"),
            "{arguments:?}: {told}"
        );
    }
}

#[test]
fn status_of_a_mediator_that_hangs_still_tells_the_walls() {
    let export = Export::new();
    let view = Start::new(&export).mount();
    let mediator = view.family.mediator();
    mediator.kill(nix::sys::signal::Signal::SIGSTOP);
    let threads = format!("/proc/{}/task", mediator.pid);
    await_that(Duration::from_secs(10), "every thread has stopped", || {
        let mut threads = fs::read_dir(&threads)
            .unwrap()
            .map(|thread| thread.unwrap().path());
        threads.all(|thread| {
            let stat = fs::read_to_string(thread.join("stat")).unwrap();
            stat.rsplit_once(") ")
                .is_some_and(|(_, state)| state.starts_with('T'))
        })
    });
    let status = json(&["status", &view.name, "--json"]);
    assert_eq!(status["processes"]["keeper"]["pid"], view.family.keeper.pid);
    assert!(status["mediator"]["error"].is_string(), "{status}");
    assert!(ours(["unmount", "--force", &view.name]).status.success());
    view.family.assert_gone();
}

#[test]
fn directory_of_a_view_is_roots_alone() {
    let export = Export::new();
    let view = Start::new(&export).mount();
    for path in [RUN.to_owned(), format!("{RUN}/{}", view.name)] {
        let meta = fs::symlink_metadata(&path).unwrap();
        assert_eq!((meta.uid(), meta.mode() & 0o7777), (0, 0o700), "{path}");
    }
    let target = fs::read_link(format!("{RUN}/{}/ns", view.name)).unwrap();
    assert_eq!(
        shown(&target),
        format!("/proc/{}/ns/mnt", view.family.keeper.pid)
    );
}

#[test]
fn enter_runs_as_the_client_in_its_namespaces() {
    let export = Export::new();
    let view = Start::new(&export).mount();
    let file = shown(&export.path().join("made"));
    let script = format!(
        "id -u; id -g; readlink /proc/self/ns/pid /proc/self/ns/mnt; grep CapEff /proc/self/status; echo x >{file}; exit 9"
    );
    let output = ours(["enter", &view.name, "--", "sh", "-c", &script]);
    assert_eq!(output.status.code(), Some(9), "{output:?}");
    let expected = [
        CLIENT_UID.to_string(),
        CLIENT_GID.to_string(),
        view.family.init.namespace("pid"),
        view.family.init.namespace("mnt"),
        "CapEff:\t0000000000000000".to_owned(),
    ];
    assert_eq!(stdout(&output).lines().collect::<Vec<_>>(), expected);
    let meta = fs::symlink_metadata(&file).unwrap();
    assert_eq!((meta.uid(), meta.gid()), (CLIENT_UID, CLIENT_GID));
    // The view is still there.
    assert!(view.family.mediator().alive());
}

#[test]
fn entered_command_keeps_the_view_and_is_ended_with_it() {
    let export = Export::new();
    let view = Start::new(&export).mount();
    let mut command = Command::new(program());
    command.args([
        "enter",
        &view.name,
        "--",
        "sh",
        "-c",
        "echo ready; exec sleep 1000",
    ]);
    let mut entered = Running::spawn(command, view.name.clone());
    entered.stdout.until("ready");
    let refused = ours(["unmount", &view.name]);
    assert_eq!(refused.status.code(), Some(74), "{refused:?}");
    assert!(ours(["unmount", "--force", &view.name]).status.success());
    view.family.assert_gone();
    assert_eq!(entered.end().code(), 137);
    assert_nothing_left(&view.name);
}

#[test]
fn signal_that_enter_gets_is_handed_on_to_its_command() {
    let export = Export::new();
    let view = Start::new(&export).mount();
    let enter = |script: &str| {
        let mut command = Command::new(program());
        command.args(["enter", &view.name, "--", "sh", "-c", script]);
        let entered = Running::spawn(command, view.name.clone());
        entered.stdout.until("ready");
        entered
    };
    let mut handles =
        enter("trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.05; done");
    handles.signal(Signal::SIGTERM);
    let ended = handles.end();
    assert_eq!((ended.code(), ended.stdout), (3, vec!["bye".to_owned()]));
    let mut ends = enter("echo ready; exec sleep 1000");
    ends.signal(Signal::SIGHUP);
    assert_eq!(ends.end().code(), 129);
    // Nobody is left who would be in the way.
    assert!(ours(["unmount", &view.name]).status.success());
}

#[test]
fn client_that_goes_to_the_background_keeps_the_view() {
    let export = Export::new();
    let start = Start::new(&export);
    let fifo = export.beside("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::from_bits_truncate(0o666)).unwrap();
    std::os::unix::fs::chown(&fifo, Some(CLIENT_UID), Some(CLIENT_GID)).unwrap();
    let script = format!(
        "setsid sh -c 'read line; echo $line >{0}/told' <>{1} >/dev/null 2>&1 & exit 0",
        shown(export.path()),
        shown(&fifo)
    );
    // Standard error is the mediator's for its log as long as it lives; output is not held.
    let output = start
        .command(["sh", "-c", &script])
        .stderr(std::process::Stdio::null())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let view = View {
        family: Family::of_view(start.name()),
        name: start.name().to_owned(),
    };
    assert!(listed(&view.name).is_some());
    fs::write(&fifo, "words\n").unwrap();
    view.family.assert_gone();
    assert_eq!(
        fs::read_to_string(export.path().join("told")).unwrap(),
        "words\n"
    );
    assert_nothing_left(&view.name);
}

#[test]
fn pidfile_holds_the_hosts_number_and_goes_with_the_client() {
    let export = Export::new();
    let pidfile = export.beside("client.pid");
    let mut running = Start::new(&export)
        .option(format!("--pidfile={}", pidfile.display()))
        .shell_ready("echo ready; exec sleep 1000");
    let expected = format!("{}\n", running.family().client().pid);
    await_that(LIMIT, "the pidfile holds the client's pid", || {
        fs::read_to_string(&pidfile).is_ok_and(|text| text == expected)
    });
    running.signal(nix::sys::signal::Signal::SIGTERM);
    running.end();
    assert!(!pidfile.exists());
}

#[test]
fn log_that_nobody_reads_ends_nothing() {
    let export = Export::new();
    let start = Start::new(&export).option("--debug");
    let file = shown(&export.path().join("x"));
    let script = format!("for i in 1 2 3; do echo $i >{file}; rm {file}; done; exit 5");
    let mut child = start
        .command(["sh", "-c", &script])
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stderr.take());
    assert_eq!(child.wait().unwrap().code(), Some(5));
    assert_nothing_left(start.name());
}

#[test]
fn what_a_killed_keeper_left_is_removed_by_the_next_command() {
    let export = Export::new();
    let name = crate::common::unique_name();
    let directory = format!("{RUN}/{name}");
    // As the kernel leaves it if launcher, keeper and init are killed at once.
    fs::create_dir_all(&directory).unwrap();
    let gone = Process::find(std::process::id().try_into().unwrap()).unwrap();
    fs::write(
        format!("{directory}/state.json"),
        serde_json::json!({
            "view": name, "export": export.path(), "at": export.path(), "policy": null,
            "client_uid": 1, "client_gid": 1, "client_groups": [], "command": [],
            "shared": false, "keeper": { "pid": gone.pid, "started": 1 },
            "init": null, "warden": null,
        })
        .to_string(),
    )
    .unwrap();
    assert!(listed(&name).is_none());
    assert!(!std::path::Path::new(&directory).exists());
}

#[test]
fn what_is_left_of_a_view_without_its_record_is_no_view() {
    use std::os::unix::net::UnixListener;
    let export = Export::new();
    let take = |start: &Start| {
        let mut running = start.shell_ready("echo ready; exec sleep 1000");
        running.signal(Signal::SIGTERM);
        running.end();
        assert_nothing_left(start.name());
    };
    // A keeper that was killed behind its last file, and a launcher before it had a record.
    let start = Start::new(&export);
    let directory = format!("{RUN}/{}", start.name());
    fs::create_dir_all(&directory).unwrap();
    take(&start);
    fs::create_dir_all(&directory).unwrap();
    drop(UnixListener::bind(format!("{directory}/control")).unwrap());
    take(&start);
    // Whoever is being started listens.
    fs::create_dir_all(&directory).unwrap();
    let listening = UnixListener::bind(format!("{directory}/control")).unwrap();
    let output = start.command(["true"]).output().unwrap();
    assert!(stderr(&output).contains("is already running"), "{output:?}");
    drop(listening);
    take(&start);
}
