//! The value without which nothing on the export can be called.

use rustix::io::Errno;

use super::areas::Areas;
use super::engine::Allowed;
use super::standing::Standing;
use crate::op::{Operation, Words};

/// Proof that the policy allowed one operation, and what it granted, in host ids. Only
/// [`crate::policy`] can make one.
#[must_use]
#[derive(Debug)]
pub struct Permit<O: Operation> {
    grant: O::Grant,
    trace: Trace,
}

/// How a decision came about, and what else is to be told of it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Trace {
    rule: Option<u32>,
    logs: bool,
    pretended: Words,
    observed: Option<Refusal>,
    areas: Areas,
    standing: Standing,
    append_only: bool,
}

impl Trace {
    pub(super) fn of(allowed: &Allowed, logs: bool) -> Self {
        Self {
            rule: allowed.rule,
            logs,
            pretended: allowed.pretended,
            observed: allowed.observed,
            areas: allowed.areas,
            standing: allowed.standing,
            append_only: allowed.append_only,
        }
    }
}

impl<O: Operation> Permit<O> {
    /// The one place that makes a permit; the module's privacy is the wall.
    pub(super) fn new(grant: O::Grant, trace: Trace) -> Self {
        Self { grant, trace }
    }

    /// As [`Permit::for_test`], of an open that must append.
    #[cfg(test)]
    pub(crate) fn for_test_append_only(grant: O::Grant) -> Self {
        let trace = Trace {
            append_only: true,
            ..Trace::default()
        };
        Self::new(grant, trace)
    }

    /// A permit for the unit tests of the floors above, which have no policy to ask.
    #[cfg(test)]
    pub(crate) fn for_test(grant: O::Grant) -> Self {
        Self::new(grant, Trace::default())
    }

    /// What the export may do: arguments as the policy rewrote them, in host ids.
    #[must_use]
    pub fn grant(&self) -> O::Grant {
        self.grant
    }

    /// Which rule decided first: its index in the file; `None` for the default.
    #[must_use]
    pub fn rule(&self) -> Option<u32> {
        self.trace.rule
    }

    /// The deciding rule says `log = "all"`.
    #[must_use]
    pub fn logs(&self) -> bool {
        self.trace.logs
    }

    /// The words that are told as done and are not: the grant holds nothing of them.
    #[must_use]
    pub fn pretended(&self) -> Words {
        self.trace.pretended
    }

    /// The areas whose totals are limited and that this may add to: before it is done, what it adds
    /// must be charged there.
    #[must_use]
    pub fn areas(&self) -> Areas {
        self.trace.areas
    }

    /// What of the verdict may be remembered with the file, and given to
    /// [`crate::policy::Policy::decide_again`].
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.trace.standing
    }

    /// An open is allowed because it appends: it may do nothing else to what is there, whatever
    /// becomes of the flag (`F_SETFL` of fcntl(2)).
    #[must_use]
    pub fn append_only(&self) -> bool {
        self.trace.append_only
    }

    /// What would have been refused if the policy's rules were enforced (`mode = "observe"`).
    #[must_use]
    pub fn observed(&self) -> Option<Refusal> {
        self.trace.observed
    }
}

/// The policy said no.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What the client is told. Never ENOSYS, EIO or ENOTCONN: those mean faults.
    pub errno: Errno,
    /// Which rule decided: its index in the file; `None` for the default, the floor, `readonly` or
    /// the id map.
    pub rule: Option<u32>,
    /// Why, in words for the log and the stepping console.
    pub why: &'static str,
}
