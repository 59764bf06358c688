//! Programs that everybody has, at work in a directory.

use std::io::{Error, Result};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::passes::{first_and_again, sample};
use crate::task::{Sample, Task};

pub(super) fn repeatable(task: &Task, argv: &[String]) -> Result<Vec<Sample>> {
    first_and_again(task, 1, || timed(task, argv))
}

pub(super) fn once(task: &Task, argv: &[String], operations: usize) -> Result<Vec<Sample>> {
    Ok(vec![sample("once", operations, timed(task, argv)?)])
}

/// From the program's start to its end, which must be a success.
fn timed(task: &Task, argv: &[String]) -> Result<Duration> {
    let (program, arguments) = argv
        .split_first()
        .ok_or_else(|| Error::other("no program is named"))?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .current_dir(&task.directory)
        // The same for every user that a worker may be.
        .env("HOME", "/nonexistent")
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let start = Instant::now();
    let output = command
        .output()
        .map_err(|error| Error::other(format!("{program}: {error}")))?;
    let time = start.elapsed();
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let first = said.lines().next().unwrap_or("failed");
        return Err(Error::other(first.to_owned()));
    }
    Ok(time)
}
