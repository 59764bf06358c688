//! What the seats around the mediator share: the product on a place, weaker arrangements beside
//! it, and a process in the attacker's seat.

pub(crate) mod actor;
pub(crate) mod control;
pub(crate) mod emulator;
pub(crate) mod guest;
pub(crate) mod liar;
pub(crate) mod mark;
pub(crate) mod process;
pub(crate) mod raw;
pub(crate) mod role;
pub(crate) mod start;
pub(crate) mod weaker;

use std::fmt::Display;

use virtfs_p9::Ids;

use crate::case::{Arrangement, Attempt, Verdict};

/// QEMU's user: numbers that no user of the host should have, and not the same number twice, so
/// that a mix-up shows.
pub(crate) const CLIENT: Ids = Ids {
    uid: 61_234,
    gid: 61_235,
};

/// Another local user.
pub(crate) const STRANGER: Ids = Ids {
    uid: 61_999,
    gid: 61_999,
};

/// What a case returns.
pub(crate) type Outcome = Result<Vec<Attempt>, String>;

/// An error with what was being done.
pub(crate) trait OrTell<T> {
    /// Puts `what` before the error.
    fn or_tell(self, what: &str) -> Result<T, String>;
}

impl<T, E: Display> OrTell<T> for Result<T, E> {
    fn or_tell(self, what: &str) -> Result<T, String> {
        self.map_err(|error| format!("{what}: {error}"))
    }
}

/// A try in a weaker arrangement.
pub(crate) fn weaker(
    arrangement: Arrangement,
    way: impl Into<String>,
    verdict: Verdict,
) -> Attempt {
    Attempt {
        arrangement,
        way: way.into(),
        verdict,
        told: None,
    }
}

/// A try on the product.
pub(crate) fn product(way: impl Into<String>, verdict: Verdict, told: Option<String>) -> Attempt {
    Attempt {
        arrangement: Arrangement::Product,
        way: way.into(),
        verdict,
        told,
    }
}

/// What came of one and the same attack, tried behind all walls and without some.
pub(crate) struct Tried {
    /// The attacker got what they wanted.
    pub(crate) got: bool,
    pub(crate) what: String,
    pub(crate) told: Option<String>,
}

impl Tried {
    pub(crate) fn weaker(self, arrangement: Arrangement, way: impl Into<String>) -> Attempt {
        weaker(arrangement, way, verdict(self.got, self.what))
    }

    pub(crate) fn product(self, way: impl Into<String>) -> Attempt {
        product(way, verdict(self.got, self.what), self.told)
    }
}

/// The verdict of a try that may have got what it wanted.
pub(crate) fn verdict(succeeded: bool, what: impl Into<String>) -> Verdict {
    if succeeded {
        Verdict::Succeeded(what.into())
    } else {
        Verdict::Refused(what.into())
    }
}

/// A try that could not be made is told as such, and the others go on.
pub(crate) fn or_untried(
    arrangement: Arrangement,
    way: &str,
    tried: Result<Attempt, String>,
) -> Attempt {
    tried.unwrap_or_else(|why| weaker(arrangement, way, Verdict::Untried(why)))
}
