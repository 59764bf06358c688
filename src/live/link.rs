//! A connection to a view's control socket.

use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

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
        let stream = UnixStream::connect(path).map_err(|error| failed(view, &error))?;
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

/// Text of a mediator's, fit for a terminal: newlines stay, other controls are escaped.
pub(crate) fn printable(text: &str) -> String {
    let harmless = |letter: char| match letter {
        '"' | '\'' | '\\' | '\n' => letter.to_string(),
        other => other.escape_debug().to_string(),
    };
    text.chars().map(harmless).take(16 * 1024).collect()
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
        assert_eq!(printable("a\x1b[2J\n\"b\""), "a\\u{1b}[2J\n\"b\"");
    }
}
