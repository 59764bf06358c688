//! The thread that answers. One connection at a time, each bounded in size and time: a caller that
//! says nothing, drips, or never reads is dropped.

use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::net::{Shutdown, shutdown};

use super::protocol::{Answer, OpCount, QUESTION_MAX, Question, Status};
use crate::mediate::Mediator;

/// How long one connection may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is told of a view besides its counters.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The view's name.
    pub view: String,
    /// `auto`, `none` or `exclusive`.
    pub cache: &'static str,
    /// `client` or `shared`.
    pub mode: &'static str,
    /// Number of rules.
    pub rules: usize,
}

/// The answering thread.
#[derive(Debug)]
pub struct ControlServer {
    listener: OwnedFd,
    thread: JoinHandle<()>,
}

impl ControlServer {
    /// Starts to answer on a listening UNIX stream socket.
    ///
    /// # Errors
    ///
    /// The descriptor could not be duplicated or the thread not be started.
    pub fn start(listener: OwnedFd, facts: Facts, mediator: Arc<Mediator>) -> io::Result<Self> {
        let accepting = UnixListener::from(listener.try_clone()?);
        accepting.set_nonblocking(false)?;
        let thread = std::thread::Builder::new()
            .name("control".to_owned())
            .spawn(move || answer_all(&accepting, &facts, &mediator))?;
        Ok(Self { listener, thread })
    }

    /// Stops to listen and waits for the thread.
    pub fn stop(self) {
        // Wakes the accept with EINVAL (unix_shutdown, net/unix/af_unix.c). If it fails, the thread
        // is left to end with the process.
        if shutdown(&self.listener, Shutdown::Both).is_ok() {
            // A panic aborts the process, so there is nothing to learn from the result.
            let _panicked = self.thread.join();
        }
    }
}

fn answer_all(listener: &UnixListener, facts: &Facts, mediator: &Mediator) {
    let started = Instant::now();
    loop {
        match listener.accept() {
            Ok((connection, _)) => {
                let status = || status(facts, started.elapsed(), mediator);
                if let Err(error) = answer_one(connection, status) {
                    tracing::debug!(%error, "control connection dropped");
                }
            }
            Err(error) if is_passing(&error) => {
                tracing::warn!(%error, "control connection not accepted");
                // Out of descriptors or memory: the queue stays readable, so don't spin on it.
                std::thread::sleep(Duration::from_millis(100));
            }
            // EINVAL: told to stop.
            Err(_) => return,
        }
    }
}

fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::EMFILE
                | libc::ENFILE
                | libc::ENOMEM
                | libc::ENOBUFS
                | libc::ECONNABORTED
                | libc::EINTR
        )
    )
}

fn answer_one(mut connection: UnixStream, status: impl FnOnce() -> Status) -> io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let answer = match read_line(&mut connection, deadline)? {
        None => Answer::Error(format!(
            "a question is one line of at most {QUESTION_MAX} bytes"
        )),
        Some(line) => match serde_json::from_slice(&line) {
            Ok(Question::Status {}) => Answer::Status(status()),
            Err(error) => Answer::Error(format!("not a question: {error}")),
        },
    };
    let mut line = serde_json::to_vec(&answer)?;
    line.push(b'\n');
    connection.set_write_timeout(Some(PATIENCE))?;
    connection.write_all(&line)
}

/// One line without its newline; `None` if it is too long or the connection ended before.
fn read_line(connection: &mut UnixStream, deadline: Instant) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let mut piece = [0; 512];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        connection.set_read_timeout(Some(left))?;
        let count = connection.read(&mut piece)?;
        let read = piece.get(..count).unwrap_or_default();
        if let Some(end) = read.iter().position(|byte| *byte == b'\n') {
            line.extend_from_slice(read.get(..end).unwrap_or_default());
            return Ok((line.len() < QUESTION_MAX).then_some(line));
        }
        line.extend_from_slice(read);
        if count == 0 || line.len() >= QUESTION_MAX {
            return Ok(None);
        }
    }
}

fn status(facts: &Facts, uptime: Duration, mediator: &Mediator) -> Status {
    let counters = mediator.counters();
    let asked = counters
        .read()
        .zip(counters.latencies())
        .filter(|((_, count), _)| *count != Default::default());
    let operations = asked.map(|((op, count), latency)| OpCount {
        operation: op.raw_name().to_owned(),
        done: count.done,
        refused: count.refused,
        failed: count.failed,
        nanoseconds: latency.nanoseconds,
        buckets: latency.buckets.to_vec(),
    });
    let descriptors = mediator.descriptors();
    let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    Status {
        view: facts.view.clone(),
        cache: facts.cache.to_owned(),
        mode: facts.mode.to_owned(),
        readonly: mediator.is_readonly(),
        rules: count(facts.rules),
        uptime_seconds: uptime.as_secs(),
        known_nodes: count(mediator.known_nodes()),
        open_handles: count(mediator.open_handles()),
        descriptors: count(descriptors.held),
        descriptor_budget: count(descriptors.budget),
        audit_records_written: mediator.records_written(),
        audit_records_dropped: mediator.records_dropped(),
        operations: operations.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::protocol::ANSWER_MAX;
    use crate::mediate::BUCKETS;
    use crate::op::Op;

    fn some_status() -> Status {
        Status {
            view: "v".to_owned(),
            cache: "auto".to_owned(),
            mode: "client".to_owned(),
            readonly: false,
            rules: 0,
            uptime_seconds: 0,
            known_nodes: 1,
            open_handles: 0,
            descriptors: 0,
            descriptor_budget: 64,
            audit_records_written: 0,
            audit_records_dropped: 0,
            operations: Vec::new(),
        }
    }

    fn ask(question: &[u8]) -> Answer {
        let (mut here, there) = UnixStream::pair().unwrap();
        here.write_all(question).unwrap();
        here.shutdown(std::net::Shutdown::Write).unwrap();
        answer_one(there, some_status).unwrap();
        let mut answer = String::new();
        here.read_to_string(&mut answer).unwrap();
        serde_json::from_str(&answer).unwrap()
    }

    #[test]
    fn status_asked_is_answered() {
        assert_eq!(
            ask(b"{\"ask\":\"status\"}\n"),
            Answer::Status(some_status())
        );
    }

    #[test]
    fn answer_at_its_largest_fits_the_limit() {
        let all = u64::MAX;
        let operations = Op::ALL.iter().map(|op| OpCount {
            operation: op.raw_name().to_owned(),
            done: all,
            refused: all,
            failed: all,
            nanoseconds: all,
            buckets: vec![all; BUCKETS],
        });
        let status = Status {
            operations: operations.collect(),
            ..some_status()
        };
        let line = serde_json::to_vec(&Answer::Status(status)).unwrap();
        assert!(line.len() < ANSWER_MAX / 2, "{}", line.len());
    }

    #[test]
    fn garbage_is_answered_with_an_error() {
        let too_long = vec![b'['; QUESTION_MAX];
        for garbage in [
            &b"\n"[..],
            b"\xff\xfe\n",
            b"{\"ask\":\"status\"}",
            b"",
            &too_long,
        ] {
            assert!(matches!(ask(garbage), Answer::Error(_)), "{garbage:?}");
        }
    }
}
