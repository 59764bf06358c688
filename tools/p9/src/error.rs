//! What can go wrong between a caller and the 9p server, one variant a layer.

use std::io;
use std::process::ExitStatus;
use std::time::Duration;

use nix::errno::Errno;

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Any failure of the client. [`Error::errno`] tells the server's answers from faults of the transport.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server answered Rlerror: a result like any other, of the message named.
    #[error("{message}: {errno}")]
    Remote {
        /// The request's name as the protocol writes it, `Tlopen` for one.
        message: &'static str,
        /// The errno that the server chose (9P2000.L carries Linux numbers).
        errno: Errno,
    },
    /// Twalk stopped at a component that is missing: the server names how far it came, and no errno.
    #[error("Twalk: {reached} of {wanted} components exist")]
    PartialWalk {
        /// Components that were walked.
        reached: usize,
        /// Components that were asked for.
        wanted: usize,
    },
    /// A request that Tflush cancelled: it got no reply.
    #[error("{0}: flushed, no reply")]
    Flushed(&'static str),
    /// All requests the ring can hold are in flight: finish one first.
    #[error("128 requests are in flight: finish one before the next is submitted")]
    Full,
    /// The device has no such mount tag, or its session is open already.
    #[error("no 9p device with mount tag {0:?} is free")]
    NoSuchTag(String),
    /// A bound of time was passed. QEMU or the file system behind it hangs.
    #[error("{step}: no answer within {limit:?}{output}")]
    Timeout {
        /// What was waited for.
        step: &'static str,
        /// The bound.
        limit: Duration,
        /// What QEMU had printed until then, or nothing.
        output: Output,
    },
    /// QEMU, or what it was started through, ended.
    #[error("QEMU ended ({}){output}", describe(*.status))]
    Ended {
        /// Its exit status; none if it only closed the qtest socket.
        status: Option<ExitStatus>,
        /// What it printed.
        output: Output,
    },
    /// The qtest socket was closed. Callers see [`Error::Ended`] in its place.
    #[error("the qtest socket was closed")]
    Closed,
    /// QEMU, or the wrapper, could not be started.
    #[error("cannot start {program:?}: {source}{hint}")]
    Spawn {
        /// The program that was to be run.
        program: String,
        /// The reason.
        source: io::Error,
        /// What to do, or nothing.
        hint: &'static str,
    },
    /// A system call of the client failed.
    #[error("{step}: {source}")]
    Io {
        /// What was being done.
        step: &'static str,
        /// The reason.
        source: io::Error,
    },
    /// The other side, or the caller, broke the protocol.
    #[error("protocol: {0}")]
    Protocol(String),
}

impl Error {
    /// The errno the server answered; `ENOENT` for a walk that stopped short, as Linux's client has it.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Error::Remote { errno, .. } => Some(*errno),
            Error::PartialWalk { .. } => Some(Errno::ENOENT),
            Error::Flushed(_)
            | Error::Full
            | Error::NoSuchTag(_)
            | Error::Timeout { .. }
            | Error::Ended { .. }
            | Error::Closed
            | Error::Spawn { .. }
            | Error::Io { .. }
            | Error::Protocol(_) => None,
        }
    }

    pub(crate) fn io(step: &'static str) -> impl FnOnce(io::Error) -> Error {
        move |source| Error::Io { step, source }
    }
}

/// What QEMU printed, shown on a line of its own where there is something.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Output(pub String);

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.trim() {
            "" => Ok(()),
            text => write!(
                f,
                "\n  it printed: {}",
                text.replace('\n', "\n              ")
            ),
        }
    }
}

fn describe(status: Option<ExitStatus>) -> String {
    status.map_or_else(
        || "it closed the qtest socket".to_owned(),
        |status| status.to_string(),
    )
}
