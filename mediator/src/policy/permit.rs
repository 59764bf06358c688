//! The value without which nothing on the export can be called.

use rustix::io::Errno;

use crate::op::Operation;

/// Proof that the policy allowed one operation, and what it granted, in host ids. Only
/// [`crate::policy`] can make one.
#[must_use]
#[derive(Debug)]
pub struct Permit<O: Operation> {
    grant: O::Grant,
    rule: Option<u32>,
    logs: bool,
}

impl<O: Operation> Permit<O> {
    /// The one place that makes a permit; the module's privacy is the wall.
    pub(super) fn new(grant: O::Grant, rule: Option<u32>, logs: bool) -> Self {
        Self { grant, rule, logs }
    }

    /// A permit for the unit tests of the floors above, which have no policy to ask.
    #[cfg(test)]
    pub(crate) fn for_test(grant: O::Grant) -> Self {
        Self::new(grant, None, false)
    }

    /// What the export may do: arguments as the policy rewrote them, in host ids.
    #[must_use]
    pub fn grant(&self) -> O::Grant {
        self.grant
    }

    /// Which rule decided first: its index in the file; `None` for the default.
    #[must_use]
    pub fn rule(&self) -> Option<u32> {
        self.rule
    }

    /// The deciding rule says `log = "all"`.
    #[must_use]
    pub fn logs(&self) -> bool {
        self.logs
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
