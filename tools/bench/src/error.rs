//! What can go wrong, each a sentence for whoever runs the benchmark.

use std::io;
use std::path::Path;

/// Any failure of the benchmark.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A step of the host's file system or processes.
    #[error("{step}: {source}")]
    Io { step: String, source: io::Error },
    /// A contender that did not start, or ended under its work.
    #[error("{contender}: {what}")]
    Contender { contender: String, what: String },
    /// A workload that a contender's server refused.
    #[error("{contender}: {work}: {why}")]
    Refused {
        contender: String,
        work: String,
        why: String,
    },
    /// The 9p client, QEMU, or the server behind it.
    #[error("{contender}: {source}")]
    P9 {
        contender: String,
        source: virtfs_p9::Error,
    },
    /// Something that the command line asks for cannot be.
    #[error("{0}")]
    Usage(String),
    /// SIGINT, SIGTERM or SIGHUP.
    #[error("interrupted; everything is cleaned up")]
    Interrupted,
}

/// What most functions here return.
pub(crate) type Result<T> = std::result::Result<T, Error>;

/// Names the step of an I/O error.
pub(crate) fn step<E: Into<io::Error>>(step: impl Into<String>) -> impl FnOnce(E) -> Error {
    move |source| Error::Io {
        step: step.into(),
        source: source.into(),
    }
}

/// As [`step`], of a path.
pub(crate) fn at<'a, E: Into<io::Error>>(
    what: &'a str,
    path: &'a Path,
) -> impl FnOnce(E) -> Error + 'a {
    move |source| Error::Io {
        step: format!("{what} {}", path.display()),
        source: source.into(),
    }
}
