//! What went wrong at the export.

use rustix::io::Errno;

/// A system call on the export failed, or was not made because it could not be right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{call}: {errno}")]
pub struct Fault {
    /// What the client is told.
    pub errno: Errno,
    /// The call that failed, for the log; the name of a check where no call was made.
    pub call: &'static str,
}

impl From<(Errno, &'static str)> for Fault {
    fn from((errno, call): (Errno, &'static str)) -> Self {
        Self { errno, call }
    }
}

/// Names the call of an error: `openat(..).call("openat")?`.
pub(super) trait Call<T> {
    fn call(self, call: &'static str) -> Result<T, Fault>;
}

impl<T> Call<T> for Result<T, Errno> {
    fn call(self, call: &'static str) -> Result<T, Fault> {
        self.map_err(|errno| Fault { errno, call })
    }
}
