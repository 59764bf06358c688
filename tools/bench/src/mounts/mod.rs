//! Workloads of system calls on a mount: a fresh mount for each, contender after contender.

mod ground;
mod list;

use crate::contender::Contender;
use crate::error::Result;
use crate::place::Place;
use crate::results::{Group, Unit};
use crate::seat::Seat;
use crate::task::{Sample, Task, Work};

use ground::Ground;
pub(crate) use ground::{make_open, prepare, small_files};
pub(crate) use list::all;

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    /// Files in the directory of small files.
    pub(crate) names: usize,
    /// Files created in one measurement.
    pub(crate) created: usize,
    /// Files of the trees.
    pub(crate) tree: usize,
    /// Transactions of the database.
    pub(crate) transactions: usize,
    /// Octets of the large files.
    pub(crate) large: usize,
    /// The least time of a measurement that can be repeated.
    pub(crate) floor_ms: u64,
}

impl Size {
    /// Octets of the file that is read and written by 9p.
    pub(crate) fn large_9p(self) -> u64 {
        self.large as u64 / 4
    }

    /// What `--quick` takes.
    pub(crate) const QUICK: Self = Self {
        names: 10_000,
        created: 3_000,
        tree: 5_000,
        transactions: 100,
        large: 128 << 20,
        floor_ms: 200,
    };

    /// What is taken otherwise.
    pub(crate) const FULL: Self = Self {
        names: 10_000,
        created: 6_000,
        tree: 20_000,
        transactions: 200,
        large: 256 << 20,
        floor_ms: 300,
    };

    /// What the crate's own test takes: each way once, nothing for its time.
    pub(crate) const TINY: Self = Self {
        names: 40,
        created: 20,
        tree: 30,
        transactions: 3,
        large: 8 << 20,
        floor_ms: 1,
    };
}

/// One measurement on a fresh mount; its parts are rows.
#[derive(Debug)]
pub(crate) struct Workload {
    /// What it is called together, for `--only`.
    pub(crate) names: [&'static str; 2],
    work: Work,
    threads: usize,
    ground: Ground,
    /// Part and row.
    rows: Vec<(&'static str, String)>,
    unit: Unit,
}

impl Workload {
    /// By one thread.
    pub(crate) fn is_simple(&self) -> bool {
        self.threads == 1
    }

    /// What its rates count.
    pub(crate) fn unit(&self) -> Unit {
        self.unit
    }

    /// Titles of its rows.
    pub(crate) fn titles(&self) -> impl Iterator<Item = &str> {
        self.rows.iter().map(|(_, title)| title.as_str())
    }
}

/// Where a row belongs.
pub(crate) const GROUP: Group = Group::Mount;

/// Measures one contender once: a rate for each row.
pub(crate) fn turn(
    workload: &Workload,
    contender: &Contender,
    place: &Place,
    size: Size,
) -> Result<Vec<(String, Unit, f64)>> {
    let ground = workload.ground;
    ground.lay(place, size)?;
    let mut seat = Seat::take(contender, place)?;
    let task = Task {
        work: workload.work.clone(),
        directory: seat.directory().join(ground.directory()),
        threads: workload.threads,
        floor_ms: size.floor_ms,
        no_cache_of_its_own: *contender == Contender::Native,
    };
    let samples = seat.perform(&task);
    seat.leave()?;
    ground.clear(place)?;
    Ok(rates(workload, &samples?))
}

fn rates(workload: &Workload, samples: &[Sample]) -> Vec<(String, Unit, f64)> {
    let row = |part: &str| workload.rows.iter().find(|(name, _)| *name == part);
    samples
        .iter()
        .filter_map(|sample| {
            let (_, title) = row(&sample.part)?;
            Some((title.clone(), workload.unit, sample.rate()))
        })
        .collect()
}
