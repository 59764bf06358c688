//! Bytes on the control socket, in up to four pieces.
//!
//! Held: no panic and no hang; each connection is answered by lines of JSON no longer than
//! [`ANSWER_MAX`], the first an [`Answer`] that fits the question, further ones only where the
//! connection goes on: behind a first line that attaches a stepping console, the rest are orders.

use std::cell::RefCell;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Duration;

use virtfs_mediator_core::Cache;
use virtfs_mediator_core::control::protocol::{ANSWER_MAX, QUESTION_MAX};
use virtfs_mediator_core::control::{Answer, ControlServer, Facts, Line, Question, View};
use virtfs_mediator_core::ids::NodeId;
use virtfs_mediator_core::mediate::{KernelCaches, Verbosity};
use virtfs_mediator_core::policy::Policy;

use crate::input::Input;
use crate::scratch::Scratch;
use crate::view::{Setup, with_mediator};

/// Longer than the server waits for a question.
const PATIENCE: Duration = Duration::from_secs(10);

/// There is no client whose kernel could remember anything.
struct NoKernel;

impl KernelCaches for NoKernel {
    fn forget_names(&self) -> std::io::Result<bool> {
        Ok(true)
    }

    fn forget_name(&self, _: NodeId, _: &[u8]) -> std::io::Result<()> {
        Ok(())
    }

    fn wait_for_listings(&self, _: NodeId) -> std::io::Result<()> {
        Ok(())
    }

    fn forget_node(&self, _: NodeId) -> std::io::Result<()> {
        Ok(())
    }
}

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
        };
        let (stop, stopped) = mpsc::channel::<()>();
        with_mediator(&scratch, setup, move |mediator| {
            let view = View {
                facts,
                mediator,
                caches: Box::new(NoKernel),
            };
            let server = ControlServer::start(listener.into(), view);
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
        0..=247 => line + how * 4,
        // Around the longest; seldom, since it takes long.
        _ => QUESTION_MAX + how - 252,
    };
    let missing = wanted.saturating_sub(line);
    question.splice(0..0, std::iter::repeat_n(padding, missing));
    question
}

fn read(stream: &UnixStream) -> Vec<u8> {
    let mut answer = Vec::new();
    let mut stream = stream;
    match stream.read_to_end(&mut answer) {
        // What was not read of the question comes back so, after the answer.
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        read => drop(read.expect("no answer")),
    }
    answer
}

fn check(question: &[u8], answer: &[u8]) {
    let answer = answer
        .strip_suffix(b"\n")
        .expect("an answer without its newline");
    let mut lines = answer.split(|byte| *byte == b'\n');
    let first = lines.next().unwrap_or_default();
    assert!(first.len() < ANSWER_MAX, "an answer that is too long");
    let answer: Answer = serde_json::from_slice(first).expect("an answer that is none");
    let end = question.iter().position(|byte| *byte == b'\n');
    let asked = end
        .filter(|end| *end < QUESTION_MAX)
        .and_then(|end| question.get(..end));
    let asked: Option<Question> = asked.and_then(|line| serde_json::from_slice(line).ok());
    match (&answer, &asked) {
        (Answer::Status(status), Some(Question::Status {})) => {
            assert_eq!((status.view.as_str(), status.known_nodes), ("fuzz", 1));
        }
        (Answer::Reloaded { .. }, Some(Question::Reload { .. })) => {}
        (Answer::Begun { .. }, Some(Question::Watch { .. } | Question::Step { .. })) => {}
        // What was understood may still be refused, but for the one that nothing can refuse.
        (Answer::Error(_), Some(Question::Status {})) => panic!("a question was not understood"),
        (Answer::Error(_), _) => {}
        _ => panic!("an answer to another question: {answer:?}"),
    }
    for line in lines {
        assert!(
            matches!(answer, Answer::Begun { .. }),
            "an answer of several lines"
        );
        assert!(line.len() < ANSWER_MAX, "a line that is too long");
        serde_json::from_slice::<Line>(line).expect("a line that is none");
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
