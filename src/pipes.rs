//! Pipes between the processes of a start: one byte says that the writer got that far.

use std::os::fd::{AsFd, OwnedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout};

use crate::error::{Class, Error, Result};

/// A pipe that no exec inherits: the reading end, then the writing end.
pub(crate) fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|errno| Error::step(Class::Confinement, "pipe2", errno))
}

/// Waits for one byte: the writer got that far. Its content means nothing.
pub(crate) fn await_byte(end: &OwnedFd) -> std::result::Result<(), String> {
    const LIMIT_MS: u16 = 30_000;
    let mut fds = [PollFd::new(end.as_fd(), PollFlags::POLLIN)];
    match nix::poll::poll(&mut fds, PollTimeout::from(LIMIT_MS)) {
        Ok(0) => return Err("did not answer within 30 seconds".to_owned()),
        Ok(_) => {}
        Err(errno) => return Err(errno.to_string()),
    }
    match nix::unistd::read(end, &mut [0u8]) {
        Ok(1) => Ok(()),
        Ok(_) => Err("ended while starting".to_owned()),
        Err(errno) => Err(errno.to_string()),
    }
}
