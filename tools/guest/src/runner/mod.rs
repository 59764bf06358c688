//! The host's half: boots the guest once per column, collects what it reports and compares.

pub mod boot;
pub mod column;
pub mod demo;
pub mod expect;
pub mod hostview;
pub mod interrupt;
pub mod matrix;
pub mod onlibvirt;
pub mod plainfuse;
pub mod table;
pub mod workspace;

use std::path::PathBuf;

/// What goes wrong on the host's side, in words that say what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The runner starts QEMU as another user and mounts.
    #[error("this needs root: run it with sudo")]
    NotRoot,
    /// A program that a column needs.
    #[error("{program} is missing: apt-get install {package}")]
    Missing {
        /// Its name.
        program: String,
        /// The Debian package that ships it.
        package: &'static str,
    },
    /// A user that nobody knows.
    #[error("{0} is no user: give NAME, UID or UID:GID")]
    NoUser(String),
    /// The guest did not report what it had to.
    #[error("column {column}: {what}; the console is in {console}")]
    Guest {
        /// Which column.
        column: &'static str,
        /// What was missing.
        what: String,
        /// Where its console output lies.
        console: PathBuf,
    },
    /// A file of expectations that cannot be used.
    #[error("{path}: {what}")]
    Expectations {
        /// The file.
        path: PathBuf,
        /// The mistake.
        what: String,
    },
    /// Ctrl-C or SIGTERM.
    #[error("interrupted")]
    Interrupted,
    /// A call that failed, with what it was about.
    #[error("{what}: {source}")]
    Io {
        /// The call and its subject.
        what: String,
        /// Why.
        source: std::io::Error,
    },
    /// The lab with libvirt in it.
    #[error("libvirt: {0}")]
    Libvirt(String),
    /// A mistake in a built-in script.
    #[error("the probes: {0}")]
    Script(String),
}

impl Error {
    /// Wraps an I/O error with what was being done.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}
