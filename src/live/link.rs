//! A connection to a view's control socket.

use std::fmt::Write as _;
use std::io::{self, ErrorKind};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with, sockopt,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use virtfs_mediator_core::control::lines::{Lines, send};
use virtfs_mediator_core::control::protocol::ANSWER_MAX;
use virtfs_mediator_core::control::{Answer, Line, Question, Status};

use crate::control::rundir;
use crate::error::{Class, Error, Result};

/// How long a mediator may take for all of an answer that needs nobody else.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);
/// How much of what a mediator said is told in an error.
const TOLD: usize = 400;

/// A connection to a mediator, which may be broken into: what it says is bounded in size and time,
/// and no word of it reaches a terminal as it came.
pub(crate) struct Link {
    view: String,
    lines: Lines,
}

impl Link {
    /// Connects to a view that was found to run.
    ///
    /// # Errors
    ///
    /// Mount: nobody listens.
    pub(crate) fn to(view: &str) -> Result<Self> {
        let path = Path::new(rundir::RUN).join(view).join("control");
        let stream = connected(&path, PATIENCE).map_err(|error| failed(view, &error))?;
        Ok(Self {
            view: view.to_owned(),
            lines: Lines::new(stream, ANSWER_MAX),
        })
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    ///
    /// Mount: no answer, or one that is none. Configuration: the mediator's own refusal.
    pub(crate) fn ask(&mut self, question: &Question, patience: Duration) -> Result<Answer> {
        self.send(question)?;
        match self.line(Some(patience))? {
            Some(Answer::Error(why)) => Err(Error::new(
                Class::Configuration,
                format!("view '{}': {}", self.view, printable(&why)),
                "",
            )),
            Some(answer) => Ok(answer),
            None => Err(failed(&self.view, &"no answer")),
        }
    }

    /// The next line of a connection that goes on; `None` at its end.
    ///
    /// # Errors
    ///
    /// Mount: it is none.
    pub(crate) fn next(&mut self) -> Result<Option<Line>> {
        self.line(None)
    }

    /// Sends one line.
    ///
    /// # Errors
    ///
    /// Mount: nobody reads it.
    pub(crate) fn send<T: Serialize>(&self, value: &T) -> Result<()> {
        send(self.lines.connection(), value, PATIENCE).map_err(|error| failed(&self.view, &error))
    }

    /// The connection, for another to send on.
    pub(crate) fn connection(&self) -> Result<UnixStream> {
        let other = self.lines.connection().try_clone();
        other.map_err(|error| failed(&self.view, &error))
    }

    fn line<T: DeserializeOwned>(&mut self, patience: Option<Duration>) -> Result<Option<T>> {
        let line = match self.lines.next(patience) {
            // A view that ends may reset the connection.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => None,
            other => other.map_err(|error| failed(&self.view, &error))?,
        };
        line.map(|line| parse(&self.view, &line)).transpose()
    }
}

/// The state of a view as its mediator tells it; numbers and words are as they came.
///
/// # Errors
///
/// Mount: the mediator does not answer, or the answer is not the protocol's.
pub(crate) fn status(view: &str) -> Result<Status> {
    match Link::to(view)?.ask(&Question::Status {}, PATIENCE)? {
        Answer::Status(status) => Ok(status),
        other @ (Answer::Reloaded { .. } | Answer::Begun { .. } | Answer::Error(_)) => {
            Err(failed(view, &format!("{other:?}")))
        }
    }
}

/// Connects, within `patience`: a mediator that takes no connection any more leaves a full queue,
/// at which connect(2) waits as long as a send may (unix_stream_connect, net/unix/af_unix.c).
fn connected(path: &Path, patience: Duration) -> io::Result<UnixStream> {
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(patience))?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket.into())
}

fn parse<T: DeserializeOwned>(view: &str, line: &[u8]) -> Result<T> {
    serde_json::from_slice(line).map_err(|error| failed(view, &error))
}

/// The parser's words hold those of the mediator, and those may be meant for the terminal.
pub(crate) fn failed(view: &str, why: &dyn std::fmt::Display) -> Error {
    let shown: String = why.to_string().escape_debug().take(TOLD).collect();
    Error::new(
        Class::Mount,
        format!("the mediator of view '{view}' does not answer as it should: {shown}"),
        "`virtfs-mediator status VIEW` tells whether it lives; if it does, report this",
    )
}

/// Text of a mediator's, fit for a terminal: newlines stay, other controls are escaped. A further
/// line is indented, so that it cannot pass for one of ours.
pub(crate) fn printable(text: &str) -> String {
    let harmless = |letter: char| match letter {
        '\n' => "\n  ".to_owned(),
        '"' | '\'' | '\\' => letter.to_string(),
        other => other.escape_debug().to_string(),
    };
    text.chars().map(harmless).take(16 * 1024).collect()
}

/// JSON with words of a mediator's, in ASCII: of what a terminal may obey or hide behind, JSON itself
/// escapes only what is below a space.
pub(crate) fn json<T: Serialize>(value: &T) -> serde_json::Result<String> {
    let text = serde_json::to_string(value)?;
    let mut plain = String::with_capacity(text.len());
    for letter in text.chars() {
        if matches!(letter, ' '..='~') {
            plain.push(letter);
            continue;
        }
        // Only strings hold other letters; there each may be written so.
        for unit in letter.encode_utf16(&mut [0; 2]) {
            // Writing to a String cannot fail.
            let _infallible = write!(plain, "\\u{unit:04x}");
        }
    }
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_hostile_answer_are_told_escaped_and_cut() {
        let hostile = format!("{{\"\\u001b]0;{}\":1}}", "x".repeat(500));
        let parsed = parse::<Answer>("v", hostile.as_bytes());
        let error = parsed.unwrap_err().to_string();
        assert!(!error.contains('\u{1b}'), "{error:?}");
        assert!(error.contains("\\u{1b}") && error.len() < 700, "{error:?}");
        assert_eq!(printable("a\x1b[2J\n\"b\""), "a\\u{1b}[2J\n  \"b\"");
    }

    #[test]
    fn json_of_hostile_words_is_ascii_and_says_the_same() {
        let hostile = ["\u{9b}31m", "\u{7f}", "\u{202e}\u{1f600}", "\x1b[0m\n\"\\"];
        let text = json(&hostile).unwrap();
        assert!(
            text.bytes().all(|byte| matches!(byte, b' '..=b'~')),
            "{text}"
        );
        assert_eq!(serde_json::from_str::<Vec<String>>(&text).unwrap(), hostile);
    }

    #[test]
    fn connection_that_nobody_takes_is_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        // The queue of a listener that had room for one more.
        rustix::net::listen(&listener, 0).unwrap();
        let patience = Duration::from_millis(50);
        let mut waiting = Vec::new();
        let error = loop {
            match connected(&path, patience) {
                Ok(stream) => waiting.push(stream),
                Err(error) => break error,
            }
            assert!(waiting.len() < 10);
        };
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
    }
}
