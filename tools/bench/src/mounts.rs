//! Workloads of system calls on a mount: a fresh mount for each, contender after contender.

use std::fs;
use std::path::{Path, PathBuf};

use crate::contender::Contender;
use crate::error::{Result, at};
use crate::place::{Place, set_mode};
use crate::results::{Group, Unit};
use crate::seat::Seat;
use crate::task::{Sample, Task, Work, file_name};
use crate::worker::SMALL;

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    /// Files in the directory of small files.
    pub(crate) names: usize,
    /// Files created in one measurement.
    pub(crate) created: usize,
    /// The least time of a measurement that can be repeated.
    pub(crate) floor_ms: u64,
}

/// The directory that a workload works in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ground {
    /// Small files, made once, changed by nobody.
    Small,
    /// Empty, new each time.
    Empty,
}

/// One measurement on a fresh mount; its parts are rows.
#[derive(Debug)]
pub(crate) struct Workload {
    /// What it is called together.
    pub(crate) name: &'static str,
    work: Work,
    threads: usize,
    ground: Ground,
    /// Part and row.
    rows: Vec<(&'static str, String)>,
    unit: Unit,
}

impl Workload {
    /// Titles of its rows.
    pub(crate) fn titles(&self) -> impl Iterator<Item = &str> {
        self.rows.iter().map(|(_, title)| title.as_str())
    }
}

/// All of them.
pub(crate) fn all(size: Size) -> Vec<Workload> {
    let names = size.names;
    let twice = |first: &str, again: &str| vec![("first", first.into()), ("again", again.into())];
    let mut all = Vec::new();
    for threads in [1, 4] {
        let mut add = |name, work, ground, rows: Vec<(&'static str, String)>| {
            let rows = rows
                .into_iter()
                .map(|(part, title)| (part, on_threads(title, threads)))
                .collect();
            all.push(Workload {
                name,
                work,
                threads,
                ground,
                rows,
                unit: Unit::Operations,
            });
        };
        add(
            "stat",
            Work::Stat { names },
            Ground::Small,
            twice("stat, first time", "stat, again"),
        );
        add(
            "missing",
            Work::Missing { names },
            Ground::Small,
            twice("missing name, first time", "missing name, again"),
        );
        add(
            "open",
            Work::Open { names },
            Ground::Small,
            twice(
                "open+read+close 4k, first time",
                "open+read+close 4k, again",
            ),
        );
        let created = vec![
            ("create", "create+chown+chmod+write+close".to_owned()),
            ("rename", "rename".to_owned()),
            ("unlink", "unlink".to_owned()),
        ];
        add(
            "create",
            Work::Create {
                names: size.created,
            },
            Ground::Empty,
            created,
        );
        if threads == 1 {
            let titles = twice("readdir+lstat, new directory", "readdir+lstat, again");
            add("list", Work::List, Ground::Small, titles);
        }
    }
    all
}

fn on_threads(title: String, threads: usize) -> String {
    if threads == 1 {
        title
    } else {
        format!("{title}, {threads} threads")
    }
}

/// Makes what the workloads find.
pub(crate) fn prepare(place: &Place, size: Size) -> Result<()> {
    let small = place.export().join("small");
    make_open(&small)?;
    for number in 0..size.names {
        let path = small.join(file_name(number));
        fs::write(&path, [b's'; SMALL]).map_err(at("writing", &path))?;
    }
    Ok(())
}

/// Measures one contender once: a rate for each row.
pub(crate) fn turn(
    workload: &Workload,
    contender: &Contender,
    place: &Place,
    size: Size,
) -> Result<Vec<(String, Unit, f64)>> {
    let ground = Path::new(match workload.ground {
        Ground::Small => "small",
        Ground::Empty => "empty",
    });
    if workload.ground == Ground::Empty {
        make_open(&place.export().join(ground))?;
    }
    let mut seat = Seat::take(contender, place)?;
    let task = Task {
        work: workload.work.clone(),
        directory: seat.directory().join(ground),
        threads: workload.threads,
        floor_ms: size.floor_ms,
        no_cache_of_its_own: *contender == Contender::Native,
    };
    let samples = seat.perform(&task)?;
    seat.leave()?;
    if workload.ground == Ground::Empty {
        let path = place.export().join(ground);
        fs::remove_dir_all(&path).map_err(at("removing", &path))?;
    }
    Ok(rates(workload, &samples))
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

/// Where a row belongs.
pub(crate) const GROUP: Group = Group::Mount;

/// A directory that the client may write.
fn make_open(path: &PathBuf) -> Result<()> {
    fs::create_dir(path).map_err(at("making", path))?;
    set_mode(path, 0o777)
}
