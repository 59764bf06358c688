//! A byte from one process to another: something has come so far.

use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::OrTell as _;

/// A pipe, made before the other process is forked.
pub(crate) struct Mark {
    read: OwnedFd,
    write: OwnedFd,
}

impl Mark {
    pub(crate) fn new() -> Result<Self, String> {
        let (read, write) =
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).or_tell("pipe")?;
        Ok(Self { read, write })
    }

    /// It has come so far.
    pub(crate) fn set(&self) -> Result<(), String> {
        rustix::io::write(&self.write, &[1])
            .or_tell("write")
            .map(drop)
    }

    /// Waits until it has.
    pub(crate) fn wait(&self, limit: Duration) -> Result<(), String> {
        let limit = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
        let mut wanted = [PollFd::new(self.read.as_fd(), PollFlags::POLLIN)];
        match poll(&mut wanted, limit).or_tell("poll")? {
            0 => Err("the other process did not come so far in time".to_owned()),
            _ => rustix::io::read(&self.read, &mut [0])
                .or_tell("read")
                .map(drop),
        }
    }
}
