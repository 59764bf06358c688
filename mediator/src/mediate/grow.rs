//! What requests add to areas whose totals are limited: charged with the permit in hand, before it
//! is done.

use std::sync::Arc;

use rustix::io::Errno;

use super::funnel::{Act, Case, Mediator, Stop, Trail};
use super::ledger::{Move, Receipt, Used};
use crate::export::Statfs;
use crate::op::Operation;
use crate::policy::{Area, Permit, Policy, Refusal};

impl Mediator {
    /// Does what a permit allows once what it adds at most is charged. Nothing is charged where no
    /// total is limited, nor under `mode = "observe"`.
    ///
    /// # Errors
    ///
    /// EDQUOT if there is no room, or it is not counted yet how much there is.
    pub(super) fn grow<O: Operation, T>(
        &self,
        (trail, case): (&Trail, &Case<'_>),
        permit: Permit<O>,
        used: Used,
        act: impl FnOnce(Permit<O>) -> Act<T>,
    ) -> Act<T> {
        let receipt = self.charge((trail, case), &permit, used)?;
        let done = act(permit);
        // Any other failure may have done a part, as a truncation whose chown then fails.
        if let (Err(Stop::Failed(Errno::EXIST)), Some(receipt)) = (&done, receipt) {
            receipt.refund();
        }
        done
    }

    fn charge<O: Operation>(
        &self,
        (trail, case): (&Trail, &Case<'_>),
        permit: &Permit<O>,
        used: Used,
    ) -> Act<Option<Receipt>> {
        if permit.areas().is_empty() || used == Used::default() {
            return Ok(None);
        }
        let in_force = Arc::clone(&trail.policy.borrow());
        if in_force.observes() {
            return Ok(None);
        }
        let charged = in_force.ledger.charge(&self.export, permit.areas(), used);
        charged
            .map(Some)
            .map_err(|area| self.refuse_growth((trail, case), O::OP, area))
    }

    fn refuse_growth(
        &self,
        (trail, case): (&Trail, &Case<'_>),
        op: crate::op::Op,
        area: &Area,
    ) -> Stop {
        let refusal = Refusal {
            errno: Errno::DQUOT,
            rule: area.rule(),
            why: "there is no more room under `total` or `entries`, or it is still being counted",
        };
        self.refuse(op, trail, case, refusal)
    }

    /// A rename or link where totals are limited.
    pub(super) fn moving<O: Operation>(trail: &Trail, permit: &Permit<O>) -> Option<Move> {
        (!permit.areas().is_empty()).then(|| trail.policy.borrow().ledger.begin_move())
    }

    /// The file system's totals, as far as the view's own limit leaves them.
    pub(super) fn within_view(&self, mut fs: Statfs) -> Statfs {
        let in_force = self.policy.load();
        let Some((place, area)) = view_area(&in_force) else {
            return fs;
        };
        // Not counted yet: nothing can be added.
        let used = in_force.ledger.used(place);
        let left =
            |limit: u64, used: Option<u64>| used.map_or(0, |used| limit.saturating_sub(used));
        let totals = area.totals();
        if let Some(limit) = totals.bytes {
            let block = u64::from(fs.frsize.max(1));
            let free = left(limit, used.map(|used| used.bytes)) / block;
            fs.blocks = fs.blocks.min(limit / block);
            fs.bfree = fs.bfree.min(free);
            fs.bavail = fs.bavail.min(free);
        }
        if let Some(limit) = totals.entries {
            fs.files = fs.files.min(limit);
            fs.ffree = fs.ffree.min(left(limit, used.map(|used| used.entries)));
        }
        fs
    }
}

fn view_area(policy: &Policy) -> Option<(usize, &Area)> {
    if policy.observes() {
        return None;
    }
    let mut areas = policy.areas().iter().enumerate();
    areas.find(|(_, area)| area.is_view())
}
