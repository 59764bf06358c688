//! Lines over a connection, bounded in size and time.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde::Serialize;

/// Reads one line after the other.
#[derive(Debug)]
pub(super) struct Lines {
    connection: UnixStream,
    /// Read, and not yet handed out.
    rest: Vec<u8>,
    max: usize,
}

impl Lines {
    /// Lines of at most `max` bytes, newline included.
    pub(super) fn new(connection: UnixStream, max: usize) -> Self {
        let rest = Vec::new();
        Self {
            connection,
            rest,
            max,
        }
    }

    /// One line without its newline; `None` if it is too long or the connection ended before.
    /// Without `patience` it may take for ever.
    pub(super) fn next(&mut self, patience: Option<Duration>) -> io::Result<Option<Vec<u8>>> {
        let deadline = patience.map(|patience| Instant::now() + patience);
        let mut seen = 0;
        loop {
            let fresh = self.rest.get(seen..).unwrap_or_default();
            if let Some(end) = fresh.iter().position(|byte| *byte == b'\n') {
                let mut line: Vec<u8> = self.rest.drain(..=seen + end).collect();
                line.pop();
                return Ok((line.len() < self.max).then_some(line));
            }
            seen = self.rest.len();
            if seen >= self.max {
                return Ok(None);
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.connection.set_read_timeout(left)?;
            let mut piece = [0; 4096];
            let count = self.connection.read(&mut piece)?;
            if count == 0 {
                return Ok(None);
            }
            self.rest
                .extend_from_slice(piece.get(..count).unwrap_or_default());
        }
    }

    /// The connection, to answer on.
    pub(super) fn connection(&self) -> &UnixStream {
        &self.connection
    }
}

/// Sends one line; a caller that does not read within `patience` is an error.
pub(super) fn send<T: Serialize>(
    mut connection: &UnixStream,
    value: &T,
    patience: Duration,
) -> io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    connection.set_write_timeout(Some(patience))?;
    connection.write_all(&line)
}
