//! How often each operation was asked, and how it ended.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::op::Op;

/// One operation's counts since the view started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Performed.
    pub done: u64,
    /// Refused by the policy or the floor.
    pub refused: u64,
    /// Failed for any other reason: what the export answered, or arguments that make no sense.
    pub failed: u64,
}

#[derive(Debug, Default)]
struct Cell {
    done: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Done,
    Refused,
    Failed,
}

/// The counts of all operations, in the order of [`Op::ALL`].
#[derive(Debug)]
pub struct Counters {
    cells: Vec<Cell>,
}

impl Default for Counters {
    fn default() -> Self {
        let cells = Op::ALL.iter().map(|_op| Cell::default()).collect();
        Self { cells }
    }
}

impl Counters {
    /// Relaxed: the counts order nothing, they are only read.
    pub(super) fn add(&self, op: Op, end: End) {
        let Some(cell) = self.cells.get(op as usize) else {
            return;
        };
        match end {
            End::Done => &cell.done,
            End::Refused => &cell.refused,
            End::Failed => &cell.failed,
        }
        .fetch_add(1, Ordering::Relaxed);
    }

    /// Every operation with its count, in the order of the table.
    pub fn read(&self) -> impl Iterator<Item = (Op, Count)> + '_ {
        let read = |cell: &Cell| Count {
            done: cell.done.load(Ordering::Relaxed),
            refused: cell.refused.load(Ordering::Relaxed),
            failed: cell.failed.load(Ordering::Relaxed),
        };
        Op::ALL.iter().copied().zip(self.cells.iter().map(read))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn count_of_each_operation_lands_in_its_own_row() {
        let counters = Counters::default();
        for op in Op::ALL {
            counters.add(*op, End::Refused);
            let count = counters.read().find(|(row, _)| row == op).unwrap().1;
            assert_eq!((count.done, count.refused, count.failed), (0, 1, 0));
        }
    }
}
