//! As a service: what the manager is told and when, what the client has of its words, and a start
//! that takes its export from the policy. The units themselves run in `tools/package --check`.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;

use crate::common::{
    CLIENT_GID, CLIENT_UID, Export, LIMIT, Running, Start, assert_nothing_left, ours, program,
    shown, stderr, stdout, unique_name,
};

/// A service manager's end of sd_notify(3).
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Manager {
    /// Beside the export.
    fn new(export: &Export) -> Self {
        let path = export.beside("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        Self { socket, path }
    }

    /// The next message's lines; it must come.
    #[track_caller]
    fn told(&self) -> Vec<String> {
        let mut message = [0; 4096];
        let length = self.socket.recv(&mut message).unwrap();
        let text = std::str::from_utf8(&message[..length]).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    /// Nothing (more) was told.
    #[track_caller]
    fn told_nothing(&self) {
        self.socket.set_nonblocking(true).unwrap();
        let mut message = [0; 4096];
        let error = self.socket.recv(&mut message).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    }
}

/// A policy beside the export, with more lines after those that every view here needs.
fn policy(export: &Export, more: &str) -> String {
    let file = export.beside("policy.toml");
    let client = format!("client = {{ user = {CLIENT_UID}, group = {CLIENT_GID} }}");
    fs::write(&file, format!("default = \"allow\"\n{client}\n{more}\n")).unwrap();
    shown(&file)
}

fn names_its_export(export: &Export) -> String {
    policy(export, &format!("export = {:?}", shown(export.path())))
}

/// `mount --foreground` of the policy's own export, with a manager.
fn service(name: &str, policy: &str, manager: &Manager) -> Command {
    let mut command = Command::new(program());
    command
        .args(["mount", "--foreground", "--name", name, "--policy", policy])
        .env("NOTIFY_SOCKET", &manager.path)
        .current_dir("/")
        .stdin(Stdio::null());
    command
}

#[test]
fn service_is_ready_when_its_view_answers_and_says_that_it_stops() {
    let export = Export::new();
    let (manager, name) = (Manager::new(&export), unique_name());
    let command = service(&name, &names_its_export(&export), &manager);
    let mut running = Running::spawn(command, name.clone());
    let path = shown(export.path());
    let status = format!("STATUS=serving {name} ({path}) for {CLIENT_UID}:{CLIENT_GID}");
    assert_eq!(manager.told(), ["READY=1".to_owned(), status]);
    // What is ready can be used.
    let touched = ours(["enter", &name, "--", "touch", &format!("{path}/x")]);
    assert!(touched.status.success(), "{}", stderr(&touched));
    running.look();
    running.signal(Signal::SIGTERM);
    assert_eq!(manager.told(), ["STOPPING=1", "STATUS=ending"]);
    assert_eq!(running.end().code(), 0);
    manager.told_nothing();
    assert_nothing_left(&name);
}

#[test]
fn service_whose_mediator_dies_says_so() {
    let export = Export::new();
    let (manager, name) = (Manager::new(&export), unique_name());
    let command = service(&name, &names_its_export(&export), &manager);
    let mut running = Running::spawn(command, name.clone());
    assert_eq!(manager.told()[0], "READY=1");
    running.look();
    running.family().mediators[0].kill(Signal::SIGKILL);
    let status = format!("STATUS=view {name}: its mediator ended (signal 9)");
    assert_eq!(manager.told(), [status]);
    assert_eq!(running.end().code(), 74);
}

#[test]
fn service_that_cannot_start_says_why_in_one_line() {
    let export = Export::new();
    let (manager, name) = (Manager::new(&export), unique_name());
    let file = policy(&export, "nonsense = 1");
    let output = service(&name, &file, &manager).output().unwrap();
    assert_eq!(output.status.code(), Some(78), "{output:?}");
    let told = manager.told();
    assert_eq!(told.len(), 1, "{told:?}");
    let wanted = format!("STATUS={file}:3:1: unknown key `nonsense`");
    assert!(told[0].starts_with(&wanted), "{told:?}");
    manager.told_nothing();
}

#[test]
fn view_in_the_background_speaks_for_no_service() {
    let export = Export::new();
    let (manager, name) = (Manager::new(&export), unique_name());
    let output = Command::new(program())
        .args(["mount", "--name", &name, "--policy"])
        .arg(names_its_export(&export))
        .env("NOTIFY_SOCKET", &manager.path)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    manager.told_nothing();
    assert!(ours(["unmount", &name]).status.success());
}

#[test]
fn client_has_the_callers_environment_without_the_managers_words() {
    let export = Export::new();
    let manager = Manager::new(&export);
    let start = Start::new(&export)
        .environment("NOTIFY_SOCKET", &shown(&manager.path))
        .environment("WATCHDOG_USEC", "1000000")
        .environment("LISTEN_FDS", "1")
        .environment("VIRTFS_TEST", "a=b");
    let output = start.output(["env"]);
    assert!(output.status.success(), "{output:?}");
    let told = stdout(&output);
    let has = |start: &str| told.lines().any(|line| line.starts_with(start));
    assert!(has("VIRTFS_TEST=a=b") && has("PATH="), "{told}");
    assert!(
        !has("NOTIFY_SOCKET") && !has("WATCHDOG_") && !has("LISTEN_"),
        "{told}"
    );
    assert_eq!(manager.told()[0], "READY=1");
}

#[test]
fn run_shares_the_export_that_its_policy_names() {
    let export = Export::unique();
    let policy = names_its_export(&export);
    let file = shown(&export.path().join("x"));
    let output = ours(["run", "--policy", &policy, "--", "touch", &file]);
    assert!(output.status.success(), "{output:?}");
    assert!(Path::new(&file).exists());
}

#[test]
fn start_without_any_export_is_refused() {
    let export = Export::new();
    let nameless = policy(&export, "");
    let missing = policy_of_missing(&export);
    let (mount, run) = (["mount"].as_slice(), ["run", "--", "true"].as_slice());
    for words in [mount, run] {
        let with_policy = |file: &str| {
            let (command, rest) = words.split_first().unwrap();
            let mut all = vec![*command, "--policy", file];
            all.extend(rest);
            ours(all)
        };
        let cases = [
            (ours(words), 64, "no export: neither EXPORT nor a policy"),
            (with_policy(&nameless), 78, "names no export"),
            (with_policy(&missing), 78, "/nowhere: No such file"),
        ];
        for (output, status, wanted) in cases {
            let told = stderr(&output);
            assert_eq!(output.status.code(), Some(status), "{told}");
            assert!(told.contains(wanted), "'{wanted}' is not in: {told}");
            assert_eq!(told.trim_end().lines().count(), 1, "{told}");
        }
    }
}

/// A policy whose export is not there.
fn policy_of_missing(export: &Export) -> String {
    let file = export.beside("missing.toml");
    let client = format!("client = {{ user = {CLIENT_UID} }}");
    fs::write(
        &file,
        format!("default = \"allow\"\nexport = \"/nowhere\"\n{client}\n"),
    )
    .unwrap();
    shown(&file)
}
