//! The self-test of a start: a descriptor that has no name in the plan ends it.
//!
//! close_range(2) has closed all others by then. This looks again, with what the kernel tells, in
//! case the plan itself names the wrong numbers or something was opened since.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};

use crate::error::{Class, Error, Result};

/// What a descriptor has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A directory that is not procfs's.
    Directory,
    /// A directory of procfs.
    ProcDirectory,
    /// `/dev/fuse`: character device 10:229.
    Fuse,
    /// A socket.
    Socket,
    /// A pipe.
    Pipe,
}

/// A descriptor that may be open, and what it is called in an error.
#[derive(Debug)]
pub(super) struct Named {
    name: &'static str,
    number: RawFd,
    kind: Kind,
}

impl Named {
    pub(super) fn new(name: &'static str, fd: &impl AsRawFd, kind: Kind) -> Self {
        Self {
            name,
            number: fd.as_raw_fd(),
            kind,
        }
    }

    pub(super) fn number(&self) -> RawFd {
        self.number
    }
}

/// Makes the table of descriptors as large as the budget, once.
///
/// Where threads share it, the kernel waits for an RCU grace period whenever it doubles the table
/// (`expand_fdtable` in fs/file.c): ten milliseconds and more, in the middle of a client's request. It
/// never shrinks. 8 octets a descriptor: half a mebibyte for the whole budget.
pub(super) fn make_room(any: &OwnedFd, budget: u64) {
    let last = i32::try_from(budget.saturating_sub(1)).unwrap_or(i32::MAX);
    // Without that much memory it grows when it must.
    let _closed_again = rustix::io::fcntl_dupfd_cloexec(any, last);
}

/// Nothing is open but `named` and the three standard descriptors, and each is what it should be.
///
/// `proc_fd` is the process's own `/proc/self/fd`.
///
/// # Errors
///
/// Confinement: names the descriptor and what it is.
pub(super) fn only(named: &[Named], proc_fd: &OwnedFd) -> Result<()> {
    let standard = [
        Named::new("standard input", &0, Kind::Pipe),
        Named::new("standard output", &1, Kind::Pipe),
        Named::new("the log", &2, Kind::Pipe),
    ];
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let listed = rustix::fs::openat(proc_fd, ".", flags, Mode::empty())
        .map_err(|errno| failed("openat(/proc/self/fd)", errno))?;
    let own = listed.as_raw_fd();
    let entries = Dir::new(listed).map_err(|errno| failed("fdopendir(/proc/self/fd)", errno))?;
    for entry in entries {
        let entry = entry.map_err(|errno| failed("getdents64(/proc/self/fd)", errno))?;
        let Some(number) = number(entry.file_name().to_bytes()) else {
            continue;
        };
        if number == own {
            continue;
        }
        let shown = || {
            rustix::fs::readlinkat(proc_fd, number.to_string(), Vec::new())
                .map_or_else(|_| "?".to_owned(), |to| format!("{to:?}"))
        };
        let known = standard
            .iter()
            .chain(named)
            .find(|one| one.number == number);
        let Some(known) = known else {
            return Err(Error::new(
                Class::Confinement,
                format!("descriptor {number} ({}) is open and has no name", shown()),
                "this is a fault of virtfs-mediator: report it with the command line",
            ));
        };
        if !is(proc_fd, number, known.kind)? {
            return Err(Error::new(
                Class::Confinement,
                format!(
                    "descriptor {number} should be {}, but is {}",
                    known.name,
                    shown()
                ),
                "this is a fault of virtfs-mediator: report it with the command line",
            ));
        }
    }
    Ok(())
}

/// `.` and `..` are no numbers.
fn number(name: &[u8]) -> Option<RawFd> {
    std::str::from_utf8(name).ok()?.parse().ok()
}

/// Looked at through its name in `/proc/self/fd`, so that no descriptor is taken on trust.
fn is(proc_fd: &OwnedFd, number: RawFd, kind: Kind) -> Result<bool> {
    let name = number.to_string();
    let stat = rustix::fs::statat(proc_fd, &name, AtFlags::empty())
        .map_err(|errno| failed("fstatat(/proc/self/fd)", errno))?;
    let is_type = |wanted| FileType::from_raw_mode(stat.st_mode) == wanted;
    let is_procfs = || {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        rustix::fs::openat(proc_fd, &name, flags, Mode::empty())
            .and_then(rustix::fs::fstatfs)
            .map(|stat| stat.f_type == rustix::fs::PROC_SUPER_MAGIC)
            .map_err(|errno| failed("fstatfs", errno))
    };
    Ok(match kind {
        Kind::Directory => is_type(FileType::Directory) && !is_procfs()?,
        Kind::ProcDirectory => is_type(FileType::Directory) && is_procfs()?,
        Kind::Fuse => is_type(FileType::CharacterDevice) && is_fuse(&stat),
        Kind::Socket => is_type(FileType::Socket),
        Kind::Pipe => is_type(FileType::Fifo),
    })
}

fn is_fuse(stat: &Stat) -> bool {
    // Documentation/admin-guide/devices.txt.
    (
        rustix::fs::major(stat.st_rdev),
        rustix::fs::minor(stat.st_rdev),
    ) == (10, 229)
}

fn failed(call: &'static str, errno: rustix::io::Errno) -> Error {
    Error::step(Class::Confinement, call, errno)
}
