//! What is recorded of a request.

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::policy::{Request, check_path};

/// What a recording is of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// The view's name.
    pub view: String,
    /// The shared directory.
    pub export: String,
    /// The policy file that judged; empty for none.
    pub policy: String,
    /// The program that recorded, with its version.
    pub program: String,
    /// When it began: seconds since 1970-01-01 UTC.
    pub started: u64,
}

/// One request, or several that are alike.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// When the first of them came: milliseconds since the recording began.
    pub at: u64,
    /// How many there are; at least 1.
    pub count: u64,
    /// The request. Its requester's thread id is not kept: no rule can ask for it.
    pub request: Request,
    /// How it was answered.
    pub outcome: Outcome,
}

/// How a request was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Outcome {
    /// Allowed, and done.
    Done,
    /// Allowed, and the export answered with this errno.
    Failed(u16),
    /// Refused by the policy.
    Refused {
        /// What the client was told.
        errno: u16,
        /// The rule that decided: its index in the file; `None` for no rule.
        rule: Option<u32>,
    },
}

impl Outcome {
    /// The outcome of an act that ended with this result.
    #[must_use]
    pub fn of_act(result: Result<(), Errno>) -> Self {
        match result {
            Ok(()) => Self::Done,
            Err(errno) => Self::Failed(number(errno)),
        }
    }

    /// The outcome of a refusal.
    #[must_use]
    pub fn of_refusal(errno: Errno, rule: Option<u32>) -> Self {
        let errno = number(errno);
        Self::Refused { errno, rule }
    }

    /// Whether the policy allowed it.
    #[must_use]
    pub fn is_allowed(self) -> bool {
        match self {
            Self::Done | Self::Failed(_) => true,
            Self::Refused { .. } => false,
        }
    }

    /// The errno that the client was told.
    #[must_use]
    pub fn errno(self) -> Option<Errno> {
        match self {
            Self::Done => None,
            Self::Failed(errno) | Self::Refused { errno, .. } => {
                Some(Errno::from_raw_os_error(i32::from(errno)))
            }
        }
    }
}

/// Errnos are small; the kernel's own end at 4095.
fn number(errno: Errno) -> u16 {
    u16::try_from(errno.raw_os_error()).unwrap_or_default()
}

/// The most names that one request may have: hard links are known by the dozen, not by the million.
const NAMES_MAX: usize = 1 << 16;

impl Entry {
    /// One request that was just answered.
    #[must_use]
    pub fn new(at: u64, request: Request, outcome: Outcome) -> Self {
        Self {
            at,
            count: 1,
            request,
            outcome,
        }
    }

    /// What cannot be, if there is something: a file can hold anything.
    pub(super) fn fault(&self) -> Option<&'static str> {
        let Request {
            op,
            words,
            names,
            second,
            xattr,
            ..
        } = &self.request;
        let path = |path: &Vec<u8>| check_path(path).is_ok();
        if self.count == 0 {
            Some("a request that came never")
        } else if words.0 & !op.words().0 != 0 {
            Some("a word that is not the operation's")
        } else if names.len() > NAMES_MAX {
            Some("more names than a file can have")
        } else if !names.iter().chain(second).all(path) {
            Some("a path that cannot be one")
        } else if xattr.as_ref().is_some_and(|(name, _)| name.len() > 255) {
            Some("an attribute's name that cannot be one")
        } else {
            self.errno_fault()
        }
    }

    fn errno_fault(&self) -> Option<&'static str> {
        match self.outcome {
            Outcome::Done => None,
            Outcome::Failed(errno) | Outcome::Refused { errno, .. } => {
                let known = (1..4096).contains(&errno);
                (!known).then_some("a number that is no errno")
            }
        }
    }
}
