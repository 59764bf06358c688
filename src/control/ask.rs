//! A question to a mediator. It may be broken into: its answer is bounded in time and size, and no
//! word of it reaches a terminal as it came.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;
use virtfs_mediator_core::control::protocol::ANSWER_MAX;
use virtfs_mediator_core::control::{Answer, Status};

use crate::control::rundir;
use crate::error::{Class, Error, Result};

/// How long a mediator may take for all of its answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// How much of what a mediator said is told in an error.
const TOLD: usize = 200;

/// The state of a view as its mediator tells it: to be shown, nothing of it has been checked.
///
/// # Errors
///
/// Mount: the mediator does not answer, or with something else than JSON.
pub(crate) fn shown_status(view: &str) -> Result<Value> {
    parse(&answer(view)?)
}

/// The same with the types that the protocol gives it; the numbers and words are as they came.
///
/// # Errors
///
/// Mount: as [`shown_status`], or the answer is not the protocol's.
pub(crate) fn status(view: &str) -> Result<Status> {
    match parse(&answer(view)?)? {
        Answer::Status(status) => Ok(status),
        Answer::Error(why) => Err(failed(&why)),
    }
}

fn parse<T: serde::de::DeserializeOwned>(answer: &[u8]) -> Result<T> {
    serde_json::from_slice(answer).map_err(|error| failed(&error))
}

fn answer(view: &str) -> Result<Vec<u8>> {
    let path = Path::new(rundir::RUN).join(view).join("control");
    UnixStream::connect(path)
        .and_then(|stream| ask(stream, Instant::now() + PATIENCE))
        .map_err(|error| failed(&error))
}

fn ask(mut stream: UnixStream, deadline: Instant) -> std::io::Result<Vec<u8>> {
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(b"{\"ask\":\"status\"}\n")?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(std::io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        let count = stream.read(&mut piece)?;
        if count == 0 {
            return Ok(answer);
        }
        answer.extend_from_slice(piece.get(..count).unwrap_or_default());
        if answer.len() > ANSWER_MAX {
            let why = format!("more than {ANSWER_MAX} bytes");
            return Err(std::io::Error::other(why));
        }
    }
}

/// The parser's words hold those of the mediator, and those may be meant for the terminal.
pub(crate) fn failed(why: &dyn std::fmt::Display) -> Error {
    let shown: String = why.to_string().escape_debug().take(TOLD).collect();
    Error::new(
        Class::Mount,
        format!("the mediator does not answer as it should: {shown}"),
        "`virtfs-mediator status VIEW` tells whether it lives; if it does, report this",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(with: &[u8]) -> std::io::Result<Vec<u8>> {
        let (here, mut there) = UnixStream::pair().unwrap();
        let with = with.to_owned();
        let answering = std::thread::spawn(move || {
            let mut question = Vec::new();
            there.read_to_end(&mut question).unwrap();
            // Who asks may have hung up.
            let _sent = there.write_all(&with);
            question
        });
        let answer = ask(here, Instant::now() + PATIENCE);
        assert_eq!(answering.join().unwrap(), b"{\"ask\":\"status\"}\n");
        answer
    }

    #[test]
    fn answer_is_taken_whole_and_never_longer_than_allowed() {
        assert_eq!(answered(b"{}\n").unwrap(), b"{}\n");
        let error = answered(&vec![b'['; ANSWER_MAX + 1]).unwrap_err();
        assert!(error.to_string().contains("more than"), "{error}");
    }

    #[test]
    fn answer_that_drips_is_given_up() {
        let (here, mut there) = UnixStream::pair().unwrap();
        let dripping = std::thread::spawn(move || while there.write_all(b"[").is_ok() {});
        let error = ask(here, Instant::now()).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
        dripping.join().unwrap();
    }

    #[test]
    fn words_of_a_hostile_answer_are_told_escaped_and_cut() {
        let hostile = format!("{{\"\\u001b]0;{}\":1}}", "x".repeat(500));
        let error = parse::<Answer>(hostile.as_bytes()).unwrap_err().to_string();
        assert!(!error.contains('\u{1b}'), "{error:?}");
        assert!(error.contains("\\u{1b}") && error.len() < 400, "{error:?}");
    }
}
