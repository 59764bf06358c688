//! A process that its parent may end.

use std::os::fd::OwnedFd;

use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use rustix::process::{PidfdFlags, Signal};

use crate::control::rundir;
use crate::error::{Class, Error, Result};
use crate::keep::init;

/// A child, held by a descriptor: a parent whose seccomp list has no `kill` and no `pidfd_open` can
/// signal those that it holds, and nobody else.
#[derive(Debug)]
pub(crate) struct Child {
    pid: Pid,
    pidfd: OwnedFd,
}

impl Child {
    /// Takes hold of a child that was not waited for yet.
    ///
    /// # Errors
    ///
    /// Confinement: the errno of pidfd_open(2).
    pub(crate) fn hold(pid: Pid) -> Result<Self> {
        let failed = |errno| Error::step(Class::Confinement, "pidfd_open", errno);
        let raw = rustix::process::Pid::from_raw(pid.as_raw())
            .ok_or_else(|| failed(rustix::io::Errno::SRCH))?;
        let pidfd = rustix::process::pidfd_open(raw, PidfdFlags::empty()).map_err(failed)?;
        Ok(Self { pid, pidfd })
    }

    /// Its number in the parent's pid namespace.
    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// Waits until it has ended, at most `limit_ms` milliseconds; it is not reaped.
    pub(crate) fn await_end(&self, limit_ms: u16) {
        let _ended = rundir::await_end(&self.pidfd, limit_ms);
    }

    /// Kills it and waits until it is gone; its exit status, unless it was reaped before. Of a pid
    /// namespace's init: until the kernel has ended all in that namespace.
    pub(crate) fn end(&self) -> Option<u8> {
        rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL).ok()?;
        let (_pid, status) = waitpid(self.pid, None).ok().and_then(init::ended)?;
        Some(status)
    }
}
