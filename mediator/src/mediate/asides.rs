//! What a permit lets the client believe although it is not so: changes that are told as done and
//! are not (`pretend`), and refusals that are only told (`mode = "observe"`).

use std::sync::atomic::{AtomicU64, Ordering};

use super::audit::Record;
use super::funnel::{Case, Mediator, Trail};
use crate::op::{Op, Operation};
use crate::policy::Permit;

/// One operation's counts since the view started. Each request is also in
/// [`super::Count::done`] or [`super::Count::failed`], as it ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Aside {
    /// Told as done, at least in part, without being so.
    pub pretended: u64,
    /// Let through although the rules refuse it.
    pub would_refuse: u64,
}

#[derive(Debug, Default)]
struct Cell {
    pretended: AtomicU64,
    would_refuse: AtomicU64,
}

/// The counts of all operations, in the order of [`Op::ALL`].
#[derive(Debug)]
pub struct Asides {
    cells: Vec<Cell>,
}

impl Default for Asides {
    fn default() -> Self {
        let cells = Op::ALL.iter().map(|_op| Cell::default()).collect();
        Self { cells }
    }
}

impl Asides {
    /// Every operation with its counts, in the order of the table.
    pub fn read(&self) -> impl Iterator<Item = (Op, Aside)> + '_ {
        let read = |cell: &Cell| Aside {
            pretended: cell.pretended.load(Ordering::Relaxed),
            would_refuse: cell.would_refuse.load(Ordering::Relaxed),
        };
        Op::ALL.iter().copied().zip(self.cells.iter().map(read))
    }

    fn add(&self, op: Op, aside: Aside) {
        if let Some(cell) = self.cells.get(op as usize) {
            cell.pretended.fetch_add(aside.pretended, Ordering::Relaxed);
            cell.would_refuse
                .fetch_add(aside.would_refuse, Ordering::Relaxed);
        }
    }
}

impl Mediator {
    /// How often each operation was pretended, and how often let through for observation alone.
    #[must_use]
    pub fn asides(&self) -> &Asides {
        &self.asides
    }

    /// Counts and tells what is not as the client will believe. A package manager's thousand
    /// pretended chowns are counted; they are told only if the rule says `log = "all"`.
    pub(super) fn note_asides<O: Operation>(
        &self,
        trail: &Trail,
        case: &Case<'_>,
        permit: &Permit<O>,
    ) {
        let (pretended, observed) = (!permit.pretended().is_empty(), permit.observed());
        if !pretended && observed.is_none() {
            return;
        }
        let aside = Aside {
            pretended: u64::from(pretended),
            would_refuse: u64::from(observed.is_some()),
        };
        self.asides.add(O::OP, aside);
        if let Some(refusal) = observed {
            self.audit.put(Record::Observed {
                judged: self.decided(O::OP, trail, case, refusal.rule),
                why: refusal.why,
                errno: refusal.errno,
            });
        }
        if pretended && (permit.logs() || self.audit.is_verbose()) {
            let decided = self.decided(O::OP, trail, case, permit.rule());
            self.audit.put(Record::Pretended(decided));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aside_of_each_operation_lands_in_its_own_row() {
        let asides = Asides::default();
        let one = Aside {
            pretended: 1,
            would_refuse: 2,
        };
        for op in Op::ALL {
            asides.add(*op, one);
            let row = asides.read().find(|(row, _)| row == op);
            assert_eq!(row, Some((*op, one)));
        }
    }
}
