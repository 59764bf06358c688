//! What the tests share: an export, a started program, and what `/proc` says of its processes.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead as _, BufReader, Read};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::process::{Family, Process};

/// The client of every test: numbers that no user of the host should have.
pub(crate) const CLIENT_UID: u32 = 61_234;
/// Another number than the user's, so that a mix-up shows.
pub(crate) const CLIENT_GID: u32 = 61_235;
/// Where views are found.
pub(crate) const RUN: &str = "/run/virtfs-mediator";
/// How long anything may take that is not timed by the test itself. Generous: machines are shared.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);
/// How long an end may take. A second is promised; the rest is for a loaded machine, on which one of three
/// seconds was too little.
pub(crate) const END_LIMIT: Duration = Duration::from_secs(15);

/// The program under test.
pub(crate) fn program() -> &'static str {
    env!("CARGO_BIN_EXE_virtfs-mediator")
}

/// Fails with a sentence where a test could only pretend.
pub(crate) fn needs_root() {
    assert!(
        nix::unistd::geteuid().is_root(),
        "these tests mount views and start programs as other users: run them as root (sudo)"
    );
    assert!(
        Path::new("/dev/fuse").exists(),
        "/dev/fuse is missing: load the module (modprobe fuse), or give this container the device"
    );
}

/// A name that no other test, nor another run of the tests, uses.
pub(crate) fn unique_name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("it-{}-{number}", std::process::id())
}

/// Polls until a condition holds; tells whether it did within `limit`. The last look begins when
/// the time is over, so that a look that takes long on a loaded machine is not the only one.
pub(crate) fn holds_within(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    loop {
        let last = Instant::now() >= end;
        if condition() {
            return true;
        }
        if last {
            return false;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// As [`holds_within`], and fails with a sentence.
#[track_caller]
pub(crate) fn await_that(limit: Duration, what: &str, condition: impl FnMut() -> bool) {
    assert!(
        holds_within(limit, condition),
        "not within {limit:?}: {what}"
    );
}

/// A directory to share, which the client may search and write; removed when dropped.
pub(crate) struct Export {
    _directory: TempDir,
    path: PathBuf,
}

impl Export {
    pub(crate) fn new() -> Self {
        Self::called("export")
    }

    /// For a start that names no view: it has the directory's name, which no other test's may be.
    pub(crate) fn unique() -> Self {
        Self::called(&unique_name())
    }

    fn called(name: &str) -> Self {
        needs_root();
        let directory = tempfile::Builder::new()
            .prefix("virtfs-it-")
            .tempdir()
            .unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let path = directory.path().canonicalize().unwrap().join(name);
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
        Self {
            _directory: directory,
            path,
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A place beside the export, in no view.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.path.with_file_name(name)
    }
}

impl Drop for Export {
    /// What a test has mounted below, in a mount namespace of its own, would keep the directory there,
    /// or be emptied with it.
    fn drop(&mut self) {
        let mounts = fs::read_to_string("/proc/thread-self/mountinfo").unwrap_or_default();
        let points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
        let mut own: Vec<&str> = points
            .filter(|point| Path::new(point).starts_with(self.beside("")))
            .collect();
        own.sort_unstable();
        for point in own.into_iter().rev() {
            let _may_be_covered =
                rustix::mount::unmount(point, rustix::mount::UnmountFlags::DETACH);
        }
    }
}

/// Lines of a pipe, read as they come.
pub(crate) struct Lines(Receiver<String>);

impl Lines {
    pub(crate) fn of(pipe: impl Read + Send + 'static) -> Self {
        let (tx, rx) = channel();
        thread::spawn(move || {
            for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
                if tx
                    .send(String::from_utf8_lossy(&line).into_owned())
                    .is_err()
                {
                    return;
                }
            }
        });
        Self(rx)
    }

    /// The next line; `None` once every writer is gone.
    #[track_caller]
    pub(crate) fn next(&self) -> Option<String> {
        match self.0.recv_timeout(LIMIT) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("no line within {LIMIT:?}"),
        }
    }

    /// Lines up to one that is `wanted`, which must come.
    #[track_caller]
    pub(crate) fn until(&self, wanted: &str) -> Vec<String> {
        match self.until_or_end(wanted) {
            Ok(seen) => seen,
            Err(seen) => panic!("the pipe ended before '{wanted}': {seen:?}"),
        }
    }

    /// Lines up to one that is `wanted`; as an error if it does not come.
    #[track_caller]
    pub(crate) fn until_or_end(&self, wanted: &str) -> Result<Vec<String>, Vec<String>> {
        let mut seen = Vec::new();
        while let Some(line) = self.next() {
            if line == wanted {
                return Ok(seen);
            }
            seen.push(line);
        }
        Err(seen)
    }

    /// The first line from here on that holds `part`, which must come.
    #[track_caller]
    pub(crate) fn until_part(&self, part: &str) -> String {
        self.until_seen(part).pop().unwrap()
    }

    /// Lines up to the first that holds `part`, with it.
    #[track_caller]
    pub(crate) fn until_seen(&self, part: &str) -> Vec<String> {
        let mut seen = Vec::new();
        while let Some(line) = self.next() {
            let last = line.contains(part);
            seen.push(line);
            if last {
                return seen;
            }
        }
        panic!("the pipe ended before '{part}': {seen:#?}")
    }

    /// A line that is there already.
    pub(crate) fn try_next(&self) -> Option<String> {
        self.0.try_recv().ok()
    }

    /// All that is left, up to the end of the pipe.
    #[track_caller]
    pub(crate) fn rest(&self) -> Vec<String> {
        std::iter::from_fn(|| self.next()).collect()
    }
}

/// How to start `run` or `mount`.
pub(crate) struct Start {
    options: Vec<String>,
    exports: Vec<String>,
    directory: PathBuf,
    environment: Vec<(String, String)>,
    name: String,
}

impl Start {
    /// One export, under a unique name.
    pub(crate) fn new(export: &Export) -> Self {
        let name = unique_name();
        Self {
            options: vec!["--name".into(), name.clone()],
            exports: vec![shown(export.path())],
            directory: "/".into(),
            environment: Vec::new(),
            name,
        }
    }

    /// Several exports; their names are derived.
    pub(crate) fn several(exports: &[&Export]) -> Self {
        Self {
            options: Vec::new(),
            exports: exports.iter().map(|export| shown(export.path())).collect(),
            directory: "/".into(),
            environment: Vec::new(),
            name: String::new(),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn option(mut self, option: impl Into<String>) -> Self {
        self.options.push(option.into());
        self
    }

    pub(crate) fn directory(mut self, directory: &Path) -> Self {
        self.directory = directory.into();
        self
    }

    pub(crate) fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// The words up to `--`, for a program that starts ours.
    pub(crate) fn run_words(&self) -> Vec<String> {
        let mut words = vec![program().to_owned(), "run".into()];
        words.extend(["--client".into(), format!("{CLIENT_UID}:{CLIENT_GID}")]);
        words.extend(self.options.iter().cloned());
        words.extend(self.exports.iter().cloned());
        words.push("--".into());
        words
    }

    /// `run -- COMMAND`, not spawned.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, argv: impl IntoIterator<Item = S>) -> Command {
        let words = self.run_words();
        let mut command = Command::new(&words[0]);
        command
            .args(&words[1..])
            .args(argv)
            .current_dir(&self.directory)
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::null());
        command
    }

    /// `run -- COMMAND`, waited for.
    pub(crate) fn output<S: AsRef<OsStr>>(&self, argv: impl IntoIterator<Item = S>) -> Output {
        self.command(argv).output().unwrap()
    }

    /// `run -- sh -c SCRIPT`, running.
    pub(crate) fn shell(&self, script: &str) -> Running {
        Running::spawn(self.command(["sh", "-c", script]), self.name.clone())
    }

    /// As [`Start::shell`], up to the line `ready` that the script prints.
    pub(crate) fn shell_ready(&self, script: &str) -> Running {
        let mut running = self.shell(script);
        running.ready();
        running
    }

    /// `mount`: a view without a client.
    pub(crate) fn mount(&self) -> View {
        let output = Command::new(program())
            .arg("mount")
            .args(["--client", &format!("{CLIENT_UID}:{CLIENT_GID}")])
            .args(&self.options)
            .args(&self.exports)
            .current_dir(&self.directory)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        View::of(&self.name)
    }
}

/// A launcher that runs.
pub(crate) struct Running {
    child: Child,
    pub(crate) launcher: Process,
    pub(crate) name: String,
    pub(crate) stdout: Lines,
    stderr: Lines,
    family: Option<Family>,
}

impl Running {
    pub(crate) fn spawn(mut command: Command, name: String) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let launcher = Process::of_child(&child);
        let stdout = Lines::of(child.stdout.take().unwrap());
        let stderr = Lines::of(child.stderr.take().unwrap());
        Self {
            child,
            launcher,
            name,
            stdout,
            stderr,
            family: None,
        }
    }

    /// The client's standard input, if it was asked for as a pipe; once.
    pub(crate) fn stdin(&mut self) -> std::process::ChildStdin {
        self.child.stdin.take().unwrap()
    }

    /// Waits until the client says so, and looks at its processes.
    #[track_caller]
    pub(crate) fn ready(&mut self) {
        self.stdout.until("ready");
        self.look();
    }

    /// Looks (again) at the processes.
    #[track_caller]
    pub(crate) fn look(&mut self) {
        self.family = Some(Family::of_keeper(self.launcher));
    }

    #[track_caller]
    pub(crate) fn family(&self) -> &Family {
        self.family.as_ref().expect("look() comes first")
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.launcher.kill(signal);
    }

    /// Waits for the launcher's end, and until nobody holds its pipes any more.
    #[track_caller]
    pub(crate) fn end(&mut self) -> Ended {
        let stdout = self.stdout.rest();
        let stderr = self.stderr.rest();
        let mut status = None;
        await_that(LIMIT, "the launcher ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        Ended {
            status: status.unwrap(),
            stdout,
            stderr,
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            if self.family.is_none() && self.launcher.alive() {
                self.family = Some(Family::below(self.launcher));
            }
            let _may_be_gone = self.child.kill();
            let _status = self.child.wait();
        }
        if let Some(family) = &self.family {
            family.kill_rest();
        }
    }
}

/// How a launcher ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<String>,
    pub(crate) stderr: Vec<String>,
}

impl Ended {
    /// The exit status; 128+N if a signal ended the launcher itself.
    pub(crate) fn code(&self) -> i32 {
        code(self.status)
    }

    /// How many lines of stderr hold a text.
    pub(crate) fn told(&self, text: &str) -> usize {
        self.stderr
            .iter()
            .filter(|line| line.contains(text))
            .count()
    }
}

/// The exit status as a shell tells it.
pub(crate) fn code(status: ExitStatus) -> i32 {
    status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal))
        .unwrap()
}

/// A view without a client of its own.
pub(crate) struct View {
    pub(crate) name: String,
    pub(crate) family: Family,
}

impl View {
    /// A view that was started somehow.
    pub(crate) fn of(name: &str) -> Self {
        Self {
            family: Family::of_view(name),
            name: name.to_owned(),
        }
    }
}

impl Drop for View {
    fn drop(&mut self) {
        if self.family.keeper.alive() {
            let _may_fail = ours(["unmount", "--force", &self.name]);
            self.family.kill_rest();
        }
    }
}

/// Our program, waited for.
pub(crate) fn ours<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Output {
    Command::new(program())
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// Each sample by its name and labels.
pub(crate) fn samples(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), value.parse().unwrap())
        })
        .collect()
}

/// What a view's `metrics` tell.
pub(crate) fn metrics(view: &str) -> BTreeMap<String, f64> {
    let output = ours(["metrics", view]);
    assert!(output.status.success(), "{}", stderr(&output));
    samples(&stdout(&output))
}

/// A program in a view's mount namespace, as root or as `--reuid` says.
pub(crate) fn within<S: AsRef<OsStr>>(view: &str, argv: impl IntoIterator<Item = S>) -> Output {
    Command::new("nsenter")
        .arg(format!("--mount={RUN}/{view}/ns"))
        .arg("--")
        .args(argv)
        .current_dir("/")
        .stdin(Stdio::null())
        .env("LC_ALL", "C")
        .output()
        .unwrap()
}

/// As [`within`], as another user without any group but one.
pub(crate) fn within_as(view: &str, uid: u32, gid: u32, argv: &[&str]) -> Output {
    let mut words = vec![
        "setpriv".to_owned(),
        format!("--reuid={uid}"),
        format!("--regid={gid}"),
        "--clear-groups".to_owned(),
        "--".to_owned(),
    ];
    words.extend(argv.iter().map(|word| (*word).to_owned()));
    within(view, words)
}

/// What a command said, for a failing assertion and for a look at it.
pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Standard output without the last newline.
pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout)
        .trim_end()
        .to_owned()
}

/// The host's mounts.
pub(crate) fn host_mounts() -> String {
    fs::read_to_string("/proc/1/mountinfo").unwrap()
}

/// A path as an argument.
pub(crate) fn shown(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// Nothing of a view is left: no directory below /run, no mount that the host sees.
#[track_caller]
pub(crate) fn assert_nothing_left(view: &str) {
    let directory = Path::new(RUN).join(view);
    await_that(END_LIMIT, "the view's directory below /run goes", || {
        !directory.exists()
    });
    assert!(!host_mounts().contains("fuse.virtfs-mediator"));
}
