//! Runs QEMU for a moment: without privilege, without a terminal, with a time limit.

use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::poll::{PollFd, PollFlags, PollTimeout};
use rustix::fs::MemfdFlags;
use rustix::process::{PidfdFlags, Signal};

use crate::identity::Ids;

/// How long it may take to start and end.
const LIMIT_MS: u16 = 10_000;
/// How much of what it says is read.
const MAX_TEXT: u64 = 1 << 20;

/// What it said, on either stream, and whether its status was 0.
pub(super) struct Said {
    pub(super) text: String,
    pub(super) ended_well: bool,
}

impl Said {
    /// Whether it names one of these in what it did not like: it may fail for another reason.
    pub(super) fn blames(&self, words: &[&str]) -> bool {
        let line = self.last_line();
        words.iter().any(|word| line.contains(word))
    }

    /// Where QEMU tells what it did not like.
    pub(super) fn last_line(&self) -> &str {
        let said = |line: &&str| !line.trim().is_empty();
        self.text
            .lines()
            .rev()
            .find(said)
            .unwrap_or("it says nothing")
            .trim()
    }
}

/// Runs it with `quit` on its standard input, as a user if one is given (root only), whose
/// supplementary groups are left out.
pub(super) fn run(program: &Path, arguments: &[&str], user: Option<&Ids>) -> Result<Said, String> {
    let told = |error: &dyn std::fmt::Display| error.to_string();
    let mut output = memory("output")?;
    let mut input = memory("input")?;
    input
        .write_all(b"quit\n")
        .and_then(|()| input.rewind())
        .map_err(|error| told(&error))?;
    let copy = |file: &File| {
        file.try_clone()
            .map(Stdio::from)
            .map_err(|error| told(&error))
    };
    let mut command = Command::new(program);
    command
        .args(arguments)
        .current_dir("/")
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("LC_ALL", "C")
        .stdin(Stdio::from(input))
        .stdout(copy(&output)?)
        .stderr(copy(&output)?)
        // So that a script around it can be ended with it.
        .process_group(0);
    if let Some(ids) = user {
        command.uid(ids.uid).gid(ids.gid);
    }
    let mut child = command.spawn().map_err(|error| told(&error))?;
    let status = wait(&mut child)?;
    let mut text = Vec::new();
    output
        .rewind()
        .and_then(|()| (&output).take(MAX_TEXT).read_to_end(&mut text))
        .map_err(|error| told(&error))?;
    Ok(Said {
        text: String::from_utf8_lossy(&text).into_owned(),
        ended_well: status.success(),
    })
}

fn wait(child: &mut Child) -> Result<std::process::ExitStatus, String> {
    let pid = rustix::process::Pid::from_child(child);
    let ended = rustix::process::pidfd_open(pid, PidfdFlags::empty()).map(|fd| {
        let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
        nix::poll::poll(&mut fds, PollTimeout::from(LIMIT_MS)) != Ok(0)
    });
    // Without pidfds, there is nothing to wait with but patience.
    let hangs = ended == Ok(false);
    if hangs {
        let _may_have_ended = rustix::process::kill_process_group(pid, Signal::KILL);
    }
    let status = child.wait().map_err(|error| error.to_string())?;
    if hangs {
        return Err("it did not end within ten seconds".to_owned());
    }
    Ok(status)
}

/// A file that is nowhere: no pipe can fill up, and no thread is needed to empty it.
fn memory(name: &str) -> Result<File, String> {
    rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC)
        .map(File::from)
        .map_err(|errno| format!("memfd_create: {errno}"))
}
