//! Bytes on the control socket, in up to four pieces.
//!
//! Held: no panic and no hang; each connection is answered by one line of JSON that is an
//! [`Answer`] and no longer than [`ANSWER_MAX`]; the status is told to the one question that asks
//! for it, and nothing else is.

use std::cell::RefCell;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Duration;

use virtfs_mediator_core::Cache;
use virtfs_mediator_core::control::protocol::{ANSWER_MAX, QUESTION_MAX};
use virtfs_mediator_core::control::{Answer, ControlServer, Facts, Question};
use virtfs_mediator_core::mediate::Verbosity;
use virtfs_mediator_core::policy::Policy;

use crate::input::Input;
use crate::scratch::Scratch;
use crate::view::{Setup, with_mediator};

/// Longer than the server waits for a question.
const PATIENCE: Duration = Duration::from_secs(10);

struct Server {
    /// Holds the socket; gone with the thread.
    _scratch: Scratch,
    socket: PathBuf,
    /// Dropped, it lets the server end.
    _stop: mpsc::Sender<()>,
}

thread_local! {
    static SERVER: RefCell<Option<Server>> = const { RefCell::new(None) };
}

/// Runs one input.
///
/// # Panics
///
/// With what was found.
pub fn run(data: &[u8]) {
    SERVER.with_borrow_mut(|server| server.get_or_insert_with(Server::start).run(data));
}

impl Server {
    fn start() -> Self {
        let scratch = Scratch::new();
        let socket = scratch.path().join("control");
        let listener = UnixListener::bind(&socket).expect("the control socket");
        let setup = Setup {
            policy: Policy::parity(),
            cache: Cache::Auto,
            verbosity: Verbosity::Refusals,
            max_descriptors: 48,
        };
        let facts = Facts {
            view: "fuzz".to_owned(),
            cache: "auto",
            mode: "client",
            rules: 0,
        };
        let (stop, stopped) = mpsc::channel::<()>();
        with_mediator(&scratch, setup, move |mediator| {
            let server = ControlServer::start(listener.into(), facts, mediator);
            let server = server.expect("the control server");
            // Never a word: it waits for the other end to be dropped.
            let _dropped = stopped.recv();
            server.stop();
        });
        Self {
            _scratch: scratch,
            socket,
            _stop: stop,
        }
    }

    fn run(&self, data: &[u8]) {
        let mut input = Input::new(data);
        // Anywhere in the longest question.
        let mut cuts = [(); 3].map(|()| usize::from(input.byte()) * 17);
        cuts.sort_unstable();
        let question = question(&mut input);
        let mut stream = UnixStream::connect(&self.socket).expect("connect");
        stream
            .set_read_timeout(Some(PATIENCE))
            .expect("SO_RCVTIMEO");
        let mut sent = 0;
        for end in cuts.into_iter().chain([question.len()]) {
            let end = end.min(question.len());
            let piece = question.get(sent..end).unwrap_or_default();
            sent = end;
            match stream.write_all(piece) {
                // It has read enough and gone: its answer is there all the same.
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::BrokenPipe | ErrorKind::ConnectionReset
                    ) =>
                {
                    break;
                }
                written => written.expect("write"),
            }
        }
        let _gone_already = stream.shutdown(Shutdown::Write);
        check(&question, &read(&stream));
    }
}

/// A long question need not be a long input: its first line can be padded in front.
fn question(input: &mut Input<'_>) -> Vec<u8> {
    let (padding, how) = (input.byte(), usize::from(input.byte()));
    let mut question = input.all().to_vec();
    let line = question.iter().position(|byte| *byte == b'\n');
    let line = line.unwrap_or(question.len());
    let wanted = match how {
        0..=127 => line + how * 4,
        // Around the longest.
        _ => QUESTION_MAX + how - 192,
    };
    let missing = wanted.saturating_sub(line);
    question.splice(0..0, std::iter::repeat_n(padding, missing));
    question
}

fn read(stream: &UnixStream) -> Vec<u8> {
    let mut answer = Vec::new();
    let limit = u64::try_from(ANSWER_MAX).unwrap_or(u64::MAX) + 1;
    match stream.take(limit).read_to_end(&mut answer) {
        // What was not read of the question comes back so, after the answer.
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        read => drop(read.expect("no answer")),
    }
    answer
}

fn check(question: &[u8], answer: &[u8]) {
    assert!(answer.len() <= ANSWER_MAX, "an answer that is too long");
    let line = answer
        .strip_suffix(b"\n")
        .expect("an answer without its newline");
    assert!(!line.contains(&b'\n'), "an answer of several lines");
    let answer: Answer = serde_json::from_slice(line).expect("an answer that is none");
    let end = question.iter().position(|byte| *byte == b'\n');
    let asked = end
        .filter(|end| *end < QUESTION_MAX)
        .and_then(|end| question.get(..end));
    let asks = asked.is_some_and(|line| serde_json::from_slice::<Question>(line).is_ok());
    match answer {
        Answer::Status(status) => {
            assert!(asks, "the status was told to who did not ask for it");
            assert_eq!((status.view.as_str(), status.known_nodes), ("fuzz", 1));
        }
        Answer::Error(_) => assert!(!asks, "a question was not understood"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "without its newline")]
    fn half_an_answer_is_told() {
        check(b"", b"{\"error\":\"x\"}");
    }

    #[test]
    #[should_panic(expected = "was not understood")]
    fn refused_question_is_told() {
        check(b"{\"ask\":\"status\"}\n", b"{\"error\":\"x\"}\n");
    }
}
