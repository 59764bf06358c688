//! What can go wrong before and around a view, in sentences that say what to do.

use std::fmt;
use std::process::ExitCode;

/// The class of a failure: it decides the exit status, so that scripts can tell them apart.
/// The numbers are those of sysexits.h where it has one; `run` passes the client's own status on,
/// which is why ours are not 1 and 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// The command line: 64 (`EX_USAGE`).
    Usage,
    /// A policy, an export, a name: 78 (`EX_CONFIG`).
    Configuration,
    /// Not root: 77 (`EX_NOPERM`).
    Privilege,
    /// The view could not be mounted or ended without being asked to: 74 (`EX_IOERR`).
    Mount,
    /// A wall could not be built: 71 (`EX_OSERR`).
    Confinement,
    /// The client could not be started: 127 if it was not found, 126 otherwise, as in a shell.
    ClientNotFound,
    /// See [`Class::ClientNotFound`].
    ClientNotStarted,
}

impl Class {
    /// The exit status of this class.
    pub(crate) const fn status(self) -> u8 {
        match self {
            Self::Usage => 64,
            Self::Configuration => 78,
            Self::Privilege => 77,
            Self::Mount => 74,
            Self::Confinement => 71,
            Self::ClientNotFound => 127,
            Self::ClientNotStarted => 126,
        }
    }
}

/// One sentence and what to do about it.
#[derive(Debug)]
pub(crate) struct Error {
    class: Class,
    what: String,
    cure: String,
}

impl Error {
    /// `what` went wrong; `cure` says what to do (may be empty where nothing can be done).
    pub(crate) fn new(class: Class, what: impl Into<String>, cure: impl Into<String>) -> Self {
        Self {
            class,
            what: what.into(),
            cure: cure.into(),
        }
    }

    /// A system call of a privileged step failed: `call` is shown as strace would.
    pub(crate) fn step(class: Class, call: impl fmt::Display, errno: impl fmt::Display) -> Self {
        Self::new(class, format!("{call}: {errno}"), "")
    }

    /// Says what to do, where the step itself could not know.
    pub(crate) fn cure(mut self, cure: impl Into<String>) -> Self {
        self.cure = cure.into();
        self
    }

    /// What went wrong.
    pub(crate) fn what(&self) -> &str {
        &self.what
    }

    /// What to do about it; may be empty.
    pub(crate) fn advice(&self) -> &str {
        &self.cure
    }

    /// The class that decides the exit status.
    pub(crate) const fn class(&self) -> Class {
        self.class
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.cure.is_empty() {
            f.write_str(&self.what)
        } else {
            write!(f, "{}: {}", self.what, self.cure)
        }
    }
}

impl std::error::Error for Error {}

impl From<&Error> for ExitCode {
    fn from(error: &Error) -> Self {
        Self::from(error.class.status())
    }
}

/// The result of everything in this crate.
pub(crate) type Result<T> = std::result::Result<T, Error>;
