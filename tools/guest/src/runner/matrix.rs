//! Runs a column of the matrix, resumed behind a probe that broke the guest.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::Error;
use super::boot::{self, End, Limits};
use super::column::{Column, Setup};
use super::hostview;
use crate::record::Record;

/// Outcomes by probe and column; a probe that a column does not have is `absent`.
#[derive(Debug, Default)]
pub struct Results {
    /// In the order in which they were first seen.
    pub names: Vec<String>,
    /// Each column's runs, in the order asked for.
    pub columns: Vec<Run>,
    known: HashSet<String>,
    outcomes: HashMap<(Column, String), String>,
}

/// One column's run.
#[derive(Debug, Clone)]
pub struct Run {
    /// Which.
    pub column: Column,
    /// All its boots together.
    pub time: Duration,
    /// Probes that ended the guest or its server.
    pub broken: Vec<String>,
}

impl Results {
    /// Adds one outcome.
    pub fn add(&mut self, column: Column, name: &str, outcome: &str) {
        if self.known.insert(name.to_owned()) {
            self.names.push(name.to_owned());
        }
        self.outcomes
            .insert((column, name.to_owned()), outcome.to_owned());
    }

    /// Adds those of other columns.
    pub fn append(&mut self, other: Self) {
        let fresh = other.names.into_iter();
        self.names
            .extend(fresh.filter(|name| self.known.insert(name.clone())));
        self.columns.extend(other.columns);
        self.outcomes.extend(other.outcomes);
    }

    /// The outcome of a probe in a column.
    #[must_use]
    pub fn outcome(&self, probe: &str, column: Column) -> &str {
        self.outcomes
            .get(&(column, probe.to_owned()))
            .map_or("absent", String::as_str)
    }

    /// Whether the column was run.
    #[must_use]
    pub fn has(&self, column: Column) -> bool {
        self.columns.iter().any(|run| run.column == column)
    }
}

/// Where a column's console output lies.
#[must_use]
pub fn console(kept: &Path, column: Column) -> PathBuf {
    kept.join(format!("{}.console", column.name()))
}

/// A guest that breaks more often than this tells nothing more.
const BOOTS: usize = 8;

/// Runs one column and adds its outcomes. `kept` is a directory that outlasts the run: the
/// console is written there.
///
/// # Errors
/// A guest that does not come up, or the host's own failures.
pub fn run_column(
    results: &mut Results,
    setup: &Setup<'_>,
    column: Column,
    limits: Limits,
    kept: &Path,
) -> Result<(), Error> {
    let started = Instant::now();
    let export = setup.workspace.export(column.name())?;
    let console = console(kept, column);
    let _ = std::fs::remove_file(&console);
    let mut broken = Vec::new();
    let mut after: Option<String> = None;
    let failed = |what: String| Error::Guest {
        column: column.name(),
        what,
        console: console.clone(),
    };
    let mut reported = false;
    for boot in 1.. {
        let plan = setup.plan(column, &export, after.as_deref())?;
        let end = boot::run(plan, limits, &console, |record| {
            if let Record::Probe(name, outcome) = record {
                results.add(column, name, outcome);
                reported = true;
            }
        })?;
        match end {
            End::Complete if reported => break,
            End::Complete => return Err(failed("no probe ran".into())),
            End::Broken {
                what,
                during: Some(probe),
            } if boot < BOOTS => {
                results.add(column, &probe, &format!("BROKEN {what}"));
                broken.push(probe.clone());
                after = Some(probe);
            }
            End::Broken { what, .. } => return Err(failed(what)),
        }
    }
    for (name, seen) in hostview::record(&export)? {
        results.add(column, &name, &seen);
    }
    results.columns.push(Run {
        column,
        time: started.elapsed(),
        broken,
    });
    Ok(())
}
