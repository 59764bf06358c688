//! What can go wrong, each a sentence for whoever runs the suites.

use std::io;
use std::path::Path;

/// Any failure of the runner itself; what a suite finds is no error.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A step of the host's file system or processes.
    #[error("{step}: {source}")]
    Io { step: String, source: io::Error },
    /// A file system that did not start or end, or a program that said what nobody understands.
    #[error("{who}: {what}")]
    Other { who: String, what: String },
    /// Something that the command line or a file asks for cannot be.
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
