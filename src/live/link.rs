//! A connection to a view's control socket.

use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use virtfs_mediator_core::control::protocol::ANSWER_MAX;
use virtfs_mediator_core::control::{Answer, Line, Question};

use crate::control::rundir;
use crate::error::{Class, Error, Result};

/// How long a mediator may take for an answer that needs nobody else.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);

/// A connection. Lines longer than [`ANSWER_MAX`] end it.
pub(crate) struct Link {
    view: String,
    to: UnixStream,
    from: BufReader<UnixStream>,
}

impl Link {
    /// Connects to a view that was found to run.
    pub(crate) fn to(view: &str) -> Result<Self> {
        let path = Path::new(rundir::RUN).join(view).join("control");
        let open = || {
            let to = UnixStream::connect(path)?;
            to.set_write_timeout(Some(PATIENCE))?;
            let from = BufReader::new(to.try_clone()?);
            std::io::Result::Ok((to, from))
        };
        let (to, from) = open().map_err(|error| silent(view, &error))?;
        let view = view.to_owned();
        Ok(Self { view, to, from })
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    ///
    /// Mount: no answer, or one that is none. Configuration: the mediator's own refusal.
    pub(crate) fn ask(&mut self, question: &Question, patience: Duration) -> Result<Answer> {
        self.send(question)?;
        self.wait(Some(patience))?;
        match self.line()? {
            Some(Answer::Error(why)) => Err(Error::new(
                Class::Configuration,
                format!("view '{}': {}", self.view, printable(&why)),
                "",
            )),
            Some(answer) => Ok(answer),
            None => Err(silent(&self.view, &"it closed the connection")),
        }
    }

    /// How long [`Link::next`] may wait; `None`: for ever.
    pub(crate) fn wait(&self, patience: Option<Duration>) -> Result<()> {
        self.to
            .set_read_timeout(patience)
            .map_err(|error| silent(&self.view, &error))
    }

    /// The next line of a connection that goes on; `None` at its end.
    pub(crate) fn next(&mut self) -> Result<Option<Line>> {
        self.line()
    }

    /// Sends one line.
    pub(crate) fn send<T: Serialize>(&mut self, value: &T) -> Result<()> {
        let sent = serde_json::to_vec(value)
            .map_err(std::io::Error::from)
            .and_then(|mut line| {
                line.push(b'\n');
                self.to.write_all(&line)
            });
        sent.map_err(|error| silent(&self.view, &error))
    }

    /// Another hold on the sending side.
    pub(crate) fn sender(&self) -> Result<UnixStream> {
        self.to
            .try_clone()
            .map_err(|error| silent(&self.view, &error))
    }

    fn line<T: DeserializeOwned>(&mut self) -> Result<Option<T>> {
        let mut line = Vec::new();
        let limit = u64::try_from(ANSWER_MAX).unwrap_or(u64::MAX);
        let read = self.from.by_ref().take(limit).read_until(b'\n', &mut line);
        match read {
            // A view that ends may reset the connection.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(None),
            Err(error) => return Err(silent(&self.view, &error)),
            Ok(0) => return Ok(None),
            Ok(_) => {}
        }
        if line.last() != Some(&b'\n') {
            return Err(silent(&self.view, &"its answer is cut off or too long"));
        }
        let parsed = serde_json::from_slice(&line);
        parsed
            .map(Some)
            .map_err(|error| silent(&self.view, &format!("not an answer: {error}")))
    }
}

fn silent(view: &str, why: &dyn std::fmt::Display) -> Error {
    Error::new(
        Class::Mount,
        format!("the mediator of view '{view}' does not answer: {why}"),
        "",
    )
}

/// Text of a mediator's, fit for a terminal: newlines stay, other controls are escaped.
pub(crate) fn printable(text: &str) -> String {
    let lines = text.lines().map(|line| line.escape_debug().to_string());
    // escape_debug escapes quotes too, which are harmless.
    let lines = lines.map(|line| line.replace("\\\"", "\"").replace("\\'", "'"));
    lines.collect::<Vec<_>>().join("\n")
}
