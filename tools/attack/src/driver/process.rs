//! Processes of ours: what they print goes to files, every wait has an end, and they end with us.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::OrTell as _;

/// Polls until a condition holds; tells whether it did in time.
pub(crate) fn holds_within(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A child with a directory for what it prints and whatever else belongs to it.
pub(crate) struct Spawned {
    child: Child,
    dir: TempDir,
}

/// A directory that other users may search.
pub(crate) fn scratch() -> Result<TempDir, String> {
    let dir = tempfile::Builder::new()
        .prefix("virtfs-attack-run-")
        .tempdir()
        .or_tell("a scratch directory")?;
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).or_tell("chmod")?;
    Ok(dir)
}

/// How a child ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Spawned {
    /// Starts a command whose standard input is nothing, or what `command` says already if
    /// `keeps_input`.
    pub(crate) fn start(
        mut command: Command,
        dir: TempDir,
        keeps_input: bool,
    ) -> Result<Self, String> {
        let file = |name: &str| File::create(dir.path().join(name)).or_tell("an output file");
        command.stdout(file("out")?).stderr(file("err")?);
        if !keeps_input {
            command.stdin(Stdio::null());
        }
        let program = PathBuf::from(command.get_program());
        let child = command
            .spawn()
            .map_err(|error| format!("{}: {error}: install what has it", program.display()))?;
        Ok(Self { child, dir })
    }

    /// Starts a command and waits for its end.
    pub(crate) fn ended(command: Command, limit: Duration) -> Result<Ended, String> {
        let mut spawned = Self::start(command, scratch()?, false)?;
        let status = spawned
            .wait(limit)
            .ok_or_else(|| format!("it did not end within {limit:?}: {}", spawned.err()))?;
        Ok(Ended {
            status,
            out: spawned.out(),
            err: spawned.err(),
        })
    }

    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap_or(i32::MAX)
    }

    fn text(&self, name: &str) -> String {
        let bytes = fs::read(self.dir.path().join(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    pub(crate) fn out(&self) -> String {
        self.text("out")
    }

    pub(crate) fn err(&self) -> String {
        self.text("err")
    }

    /// The status, if the child ended in time.
    pub(crate) fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        let mut status = None;
        holds_within(limit, || {
            status = self.child.try_wait().ok().flatten();
            status.is_some()
        });
        status
    }

    /// SIGTERM, and SIGKILL after a while; to this child alone, which is not reaped before.
    pub(crate) fn stop(&mut self) {
        for (signal, grace) in [(Signal::SIGTERM, 8), (Signal::SIGKILL, 4)] {
            if self.wait(Duration::ZERO).is_some() {
                return;
            }
            let _may_be_gone = kill(Pid::from_raw(self.pid()), signal);
            let _status = self.wait(Duration::from_secs(grace));
        }
    }
}

impl Drop for Spawned {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The children of a process.
pub(crate) fn children(pid: i32) -> Vec<i32> {
    let mut found = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten()
    {
        let text = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        found.extend(
            text.split_whitespace()
                .filter_map(|word| word.parse::<i32>().ok()),
        );
    }
    found
}
