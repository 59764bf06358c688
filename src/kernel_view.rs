//! What the kernel tells by descriptor: signals, and facts about descriptors.

use std::os::fd::AsRawFd;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::error::{Class, Error, Result};

/// Blocks signals and makes them readable from a descriptor. Called before a fork, so that none is
/// lost between; children inherit the mask.
///
/// # Errors
///
/// Confinement: the errno of signalfd(2).
pub(crate) fn signals(wanted: impl IntoIterator<Item = Signal>) -> Result<SignalFd> {
    let set: SigSet = wanted.into_iter().collect();
    set.thread_block()
        .and_then(|()| SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK))
        .map_err(|errno| Error::step(Class::Confinement, "signalfd", errno))
}

/// One field of a descriptor's `/proc/self/fdinfo` (proc_pid_fdinfo(5)), such as `mnt_id` or
/// `Pid`; `None` if there is no such field.
pub(crate) fn fdinfo(fd: &impl AsRawFd, field: &str) -> Option<String> {
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).ok()?;
    text.lines().find_map(|line| {
        let value = line.strip_prefix(field)?.strip_prefix(':')?;
        Some(value.trim().to_owned())
    })
}
