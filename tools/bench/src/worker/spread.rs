//! Very many files, in directories of a thousand.

use std::ffi::CString;
use std::io::{Error, Result};
use std::time::{Duration, Instant};

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, openat, statat};

use super::data::step_over;
use super::metadata::open_directory;
use super::passes;
use super::threads::each_share;
use crate::task::{Sample, Task, file_name, spread_directory};

/// Names that are asked for in one pass.
const SAMPLE: usize = 2000;

/// Everything below the directory becomes known.
pub(super) fn walk(task: &Task) -> Result<Vec<Sample>> {
    let start = Instant::now();
    let entries = walk_below(&open_directory(&task.directory)?)?;
    Ok(vec![passes::sample("walk", entries, start.elapsed())])
}

fn walk_below(directory: &OwnedFd) -> Result<usize> {
    let mut entries = 0;
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if [c".", c".."].contains(&name) {
            continue;
        }
        let found = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
        entries += 1;
        if FileType::from_raw_mode(found.st_mode) == FileType::Directory {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            entries += walk_below(&openat(directory, name, flags, Mode::empty())?)?;
        }
    }
    Ok(entries)
}

/// Names from all over the tree, each pass others.
pub(super) fn sample(task: &Task, files: usize) -> Result<Vec<Sample>> {
    let directory = open_directory(&task.directory)?;
    let step = step_over(files);
    let paths: Vec<_> = (0..files.min(100_000))
        .map(|number| path(number * step % files))
        .collect::<Result<_>>()?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let stat = cycled(task, "stat", &paths, |path| {
        statat(&directory, path, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(())
    })?;
    let open = cycled(task, "open+close", &paths, |path| {
        openat(directory.as_fd(), path, flags, Mode::empty())?;
        Ok(())
    })?;
    Ok(vec![stat, open])
}

fn cycled(
    task: &Task,
    part: &str,
    paths: &[CString],
    call: impl Fn(&CString) -> Result<()> + Sync,
) -> Result<Sample> {
    let mut shares = paths.chunks(SAMPLE).cycle();
    let mut amount = 0;
    let mut time = Duration::ZERO;
    while amount == 0 || time < Duration::from_millis(task.floor_ms) {
        let share = shares.next().unwrap_or_default();
        time += each_share(share, task.threads, |paths| {
            paths.iter().try_for_each(&call)
        })?;
        amount += share.len();
    }
    Ok(passes::sample(part, amount, time))
}

fn path(number: usize) -> Result<CString> {
    let path = format!("{}/{}", spread_directory(number), file_name(number));
    CString::new(path).map_err(Error::other)
}
