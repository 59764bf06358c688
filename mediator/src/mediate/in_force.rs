//! The policy that judges requests, with the books of what it limits.

use std::ops::Deref;
use std::sync::Arc;

use super::ledger::{Ledger, Move};
use crate::export::Export;
use crate::policy::Policy;

/// A policy in force.
#[derive(Debug)]
pub(super) struct InForce {
    policy: Policy,
    /// Of its areas alone: a permit of this policy speaks of them by number.
    pub(super) ledger: Arc<Ledger>,
}

impl InForce {
    /// A view's first policy.
    pub(super) fn new(policy: Policy, export: &Export) -> Self {
        let ledger = Ledger::open(policy.areas(), export);
        Self { policy, ledger }
    }

    /// One that takes another's place. What requests of that one still add goes on its books, not
    /// on these: what is counted before they have ended does not count (see [`Settling`]).
    pub(super) fn instead(policy: Policy) -> (Self, Settling) {
        let ledger = Ledger::unsettled(policy.areas());
        let settling = Settling {
            ledger: Arc::clone(&ledger),
            _moving: ledger.begin_move(),
        };
        (Self { policy, ledger }, settling)
    }
}

impl Deref for InForce {
    type Target = Policy;

    fn deref(&self) -> &Policy {
        &self.policy
    }
}

/// Requests of the policy before may still be going on.
#[must_use]
pub(super) struct Settling {
    ledger: Arc<Ledger>,
    _moving: Move,
}

impl Settling {
    /// They have ended: what is limited can be counted.
    pub(super) fn over(self, export: &Export) {
        let ledger = Arc::clone(&self.ledger);
        drop(self);
        ledger.settle_down(export);
    }
}
