//! How often each operation was asked, how it ended, and how long it took.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::histogram::{BUCKETS, Histogram};
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

impl Count {
    /// All that were asked.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.done
            .saturating_add(self.refused)
            .saturating_add(self.failed)
    }
}

/// How long one operation took, whatever came of it: from the mediator's first look at a request to
/// its result, so without the kernel's way to it and back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    /// The sum in nanoseconds.
    pub nanoseconds: u64,
    /// Requests by duration, see [`super::bound_micros`]; not cumulative.
    pub buckets: [u64; BUCKETS],
}

/// Aligned to a cache line of its own: two workers with different operations do not meet.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Cell {
    done: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
    took: Histogram,
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
    pub(super) fn add(&self, op: Op, end: End, took: Duration) {
        let Some(cell) = self.cells.get(op as usize) else {
            return;
        };
        match end {
            End::Done => &cell.done,
            End::Refused => &cell.refused,
            End::Failed => &cell.failed,
        }
        .fetch_add(1, Ordering::Relaxed);
        cell.took.add(took);
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

    /// How long each operation took, in the order of the table.
    pub fn latencies(&self) -> impl Iterator<Item = Latency> + '_ {
        self.cells.iter().map(|cell| Latency {
            nanoseconds: cell.took.nanoseconds(),
            buckets: cell.took.buckets(),
        })
    }
}

/// How many decisions there were, by how they came about.
#[derive(Debug, Default)]
pub struct Verdicts {
    judged: AtomicU64,
    remembered: AtomicU64,
}

impl Verdicts {
    /// Those for which the rules were looked at.
    #[must_use]
    pub fn judged(&self) -> u64 {
        self.judged.load(Ordering::Relaxed)
    }

    /// Those by what was remembered with the file.
    #[must_use]
    pub fn remembered(&self) -> u64 {
        self.remembered.load(Ordering::Relaxed)
    }

    pub(super) fn count_judged(&self) {
        self.judged.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_remembered(&self) {
        self.remembered.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {

    use super::*;

    #[test]
    fn count_of_each_operation_lands_in_its_own_row() {
        let counters = Counters::default();
        for op in Op::ALL {
            counters.add(*op, End::Refused, Duration::from_micros(3));
            let (row, latency) = counters
                .read()
                .zip(counters.latencies())
                .find(|((row, _), _)| row == op)
                .unwrap();
            let (count, expected) = (row.1, (0, 1, 0));
            assert_eq!((count.done, count.refused, count.failed), expected);
            assert_eq!((latency.nanoseconds, latency.buckets[2]), (3_000, 1));
            assert_eq!(latency.buckets.iter().sum::<u64>(), count.total());
        }
    }

    #[test]
    fn counts_of_several_threads_are_all_there() {
        let counters = Counters::default();
        std::thread::scope(|scope| {
            for end in [End::Done, End::Refused, End::Failed] {
                let counters = &counters;
                scope.spawn(move || {
                    for _ in 0..1_000 {
                        counters.add(Op::Lookup, end, Duration::from_micros(1));
                    }
                });
            }
        });
        let count = counters.read().next().unwrap().1;
        assert_eq!(
            (count.done, count.refused, count.failed),
            (1000, 1000, 1000)
        );
        assert_eq!(counters.latencies().next().unwrap().buckets[0], 3_000);
    }
}
