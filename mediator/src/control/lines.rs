//! Lines over a connection, bounded in size and time: both ends take the other for one that may be
//! broken into.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde::Serialize;

/// Reads one line after the other.
#[derive(Debug)]
pub struct Lines {
    connection: UnixStream,
    /// Read, and not yet handed out.
    rest: Vec<u8>,
    max: usize,
}

impl Lines {
    /// Lines of at most `max` bytes, newline included.
    #[must_use]
    pub fn new(connection: UnixStream, max: usize) -> Self {
        let rest = Vec::new();
        Self {
            connection,
            rest,
            max,
        }
    }

    /// One line without its newline; `None` if it is too long or the connection ended before. All
    /// of it must come within `patience`; without, it may take for ever.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::TimedOut`] or `WouldBlock` if it took too long; what recv(2) says.
    pub fn next(&mut self, patience: Option<Duration>) -> io::Result<Option<Vec<u8>>> {
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
    #[must_use]
    pub fn connection(&self) -> &UnixStream {
        &self.connection
    }
}

/// So much is handed to the kernel at once: a longer write waits for room several times, each as
/// long as the timeout says (unix_stream_sendmsg, net/unix/af_unix.c).
const PIECE: usize = 4096;

/// Sends one line; a caller that has not read all of it within `patience` is an error.
///
/// # Errors
///
/// What send(2) says, and [`io::ErrorKind::TimedOut`] or `WouldBlock` if it took too long.
pub fn send<T: Serialize>(
    mut connection: &UnixStream,
    value: &T,
    patience: Duration,
) -> io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    let deadline = Instant::now() + patience;
    let mut rest = line.as_slice();
    while !rest.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        connection.set_write_timeout(Some(left))?;
        let piece = rest.get(..PIECE).unwrap_or(rest);
        match connection.write(piece) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => rest = rest.get(count..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(bytes: &[u8]) -> Lines {
        let (here, mut there) = UnixStream::pair().unwrap();
        let bytes = bytes.to_owned();
        // Who reads may have had enough.
        std::thread::spawn(move || there.write_all(&bytes));
        Lines::new(here, 8)
    }

    #[test]
    fn line_is_taken_whole_and_never_longer_than_allowed() {
        let second = Some(Duration::from_secs(10));
        let mut lines = from(b"one\n\n1234567\n12345678\n");
        for line in [&b"one"[..], b"", b"1234567"] {
            assert_eq!(lines.next(second).unwrap().unwrap(), line);
        }
        assert_eq!(lines.next(second).unwrap(), None);
        assert_eq!(from(b"123456789").next(second).unwrap(), None);
        assert_eq!(from(b"cut").next(second).unwrap(), None);
    }

    #[test]
    fn line_that_drips_is_given_up() {
        let (here, mut there) = UnixStream::pair().unwrap();
        let dripping = std::thread::spawn(move || while there.write_all(b"[").is_ok() {});
        let mut lines = Lines::new(here, usize::MAX);
        let error = lines.next(Some(Duration::from_millis(20))).unwrap_err();
        assert!(matches!(
            error.kind(),
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock
        ));
        drop(lines);
        dripping.join().unwrap();
    }

    #[test]
    fn line_that_is_read_by_drips_is_given_up() {
        let (here, mut there) = UnixStream::pair().unwrap();
        // Always a little more room, never an end.
        let dripping = std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while there.read(&mut piece).is_ok_and(|count| count > 0) {
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let long = "x".repeat(8 << 20);
        let began = Instant::now();
        let error = send(&here, &long, Duration::from_millis(100)).unwrap_err();
        assert!(matches!(
            error.kind(),
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock
        ));
        // By drips the whole would take forty seconds.
        assert!(began.elapsed() < Duration::from_secs(20));
        here.shutdown(std::net::Shutdown::Both).unwrap();
        dripping.join().unwrap();
    }
}
