//! Names and attributes: one directory, held open, and names in it.

use std::ffi::CString;
use std::io::{Error, ErrorKind, Result};
use std::path::Path;
use std::time::Duration;

use rustix::fd::{AsFd as _, BorrowedFd, OwnedFd};
use rustix::fs::{
    AtFlags, Dir, Gid, Mode, OFlags, Uid, fchmod, fchown, mkdirat, open, openat, renameat, statat,
    unlinkat,
};
use rustix::io::Errno;

use super::passes::{first_and_again, sample};
use super::threads::each_share;
use crate::task::{Sample, Task, file_name};

/// What every small file holds.
pub(crate) const SMALL: usize = 4096;

/// Owner and group that new files are given: neither the client's nor root's.
const OWNER: (u32, u32) = (1234, 4321);

pub(super) fn stat(task: &Task, names: usize) -> Result<Vec<Sample>> {
    let directory = open_directory(&task.directory)?;
    let names = c_names("", names)?;
    first_and_again(task, names.len(), || {
        each_share(&names, task.threads, |share| {
            for name in share {
                statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
            }
            Ok(())
        })
    })
}

pub(super) fn missing(task: &Task, names: usize) -> Result<Vec<Sample>> {
    let directory = open_directory(&task.directory)?;
    let names = c_names("missing-", names)?;
    first_and_again(task, names.len(), || {
        each_share(&names, task.threads, |share| {
            for name in share {
                match statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                    Err(Errno::NOENT) => {}
                    Err(errno) => return Err(errno.into()),
                    Ok(_) => return Err(Error::new(ErrorKind::AlreadyExists, "it is there")),
                }
            }
            Ok(())
        })
    })
}

pub(super) fn open_read_close(directory: BorrowedFd<'_>, names: &[CString]) -> Result<()> {
    let mut buffer = [0; SMALL];
    for name in names {
        let file = openat(
            directory,
            name,
            OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        let length = rustix::io::read(&file, &mut buffer)?;
        if length != SMALL {
            return Err(Error::new(ErrorKind::UnexpectedEof, "a short file"));
        }
    }
    Ok(())
}

pub(super) fn open_files(task: &Task, names: usize) -> Result<Vec<Sample>> {
    let directory = open_directory(&task.directory)?;
    let names = c_names("", names)?;
    first_and_again(task, names.len(), || {
        each_share(&names, task.threads, |share| {
            open_read_close(directory.as_fd(), share)
        })
    })
}

pub(super) fn create(task: &Task, count: usize) -> Result<Vec<Sample>> {
    // Where nothing is slow, more of it: the floor is for all three phases.
    let batches = if task.no_cache_of_its_own { 4 } else { 1 };
    let parent = open_directory(&task.directory)?;
    let names = c_names("", count)?;
    let renamed = c_names("new-", count)?;
    let pairs: Vec<_> = names.iter().zip(&renamed).collect();
    let mut times = [Duration::ZERO; 3];
    for batch in 0..batches {
        let batch = format!("batch-{batch}");
        mkdirat(&parent, &batch, Mode::from_raw_mode(0o777))?;
        let directory = openat(
            &parent,
            &batch,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        times[0] += each_share(&names, task.threads, |share| {
            create_share(&directory, share)
        })?;
        times[1] += each_share(&pairs, task.threads, |share| {
            for (old, new) in share {
                renameat(&directory, *old, &directory, *new)?;
            }
            Ok(())
        })?;
        times[2] += each_share(&renamed, task.threads, |share| {
            for name in share {
                unlinkat(&directory, name, AtFlags::empty())?;
            }
            Ok(())
        })?;
        unlinkat(&parent, &batch, AtFlags::REMOVEDIR)?;
    }
    let amount = batches * count;
    Ok(["create", "rename", "unlink"]
        .into_iter()
        .zip(times)
        .map(|(part, time)| sample(part, amount, time))
        .collect())
}

fn create_share(directory: &OwnedFd, names: &[CString]) -> Result<()> {
    let data = [b'x'; SMALL];
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    for name in names {
        let file = openat(directory, name, flags, Mode::from_raw_mode(0o600))?;
        fchown(
            &file,
            Some(Uid::from_raw(OWNER.0)),
            Some(Gid::from_raw(OWNER.1)),
        )?;
        fchmod(&file, Mode::from_raw_mode(0o640))?;
        if rustix::io::write(&file, &data)? != data.len() {
            return Err(Error::new(ErrorKind::WriteZero, "a short write"));
        }
    }
    Ok(())
}

pub(super) fn list(task: &Task) -> Result<Vec<Sample>> {
    let mut entries = 0;
    let mut samples = first_and_again(task, 1, || {
        let start = std::time::Instant::now();
        entries = list_once(&task.directory)?;
        Ok(start.elapsed())
    })?;
    for sample in &mut samples {
        sample.amount *= entries as f64;
    }
    Ok(samples)
}

fn list_once(path: &Path) -> Result<usize> {
    let directory = open_directory(path)?;
    let mut entries = 0;
    for entry in Dir::read_from(&directory)? {
        let entry = entry?;
        if [c".", c".."].contains(&entry.file_name()) {
            continue;
        }
        statat(&directory, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW)?;
        entries += 1;
    }
    Ok(entries)
}

pub(super) fn open_directory(path: &Path) -> Result<OwnedFd> {
    Ok(open(
        path,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}

/// Made before the clock starts.
fn c_names(prefix: &str, count: usize) -> Result<Vec<CString>> {
    (0..count)
        .map(|number| CString::new(prefix.to_owned() + &file_name(number)).map_err(Error::other))
        .collect()
}
