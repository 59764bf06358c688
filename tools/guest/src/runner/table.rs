//! What a run prints and writes.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use super::column::Column;
use super::matrix::Results;

#[derive(Serialize)]
struct Document<'a> {
    columns: Vec<Summary>,
    probes: Vec<Row<'a>>,
}

#[derive(Serialize)]
struct Row<'a> {
    name: &'a str,
    outcomes: BTreeMap<&'static str, &'a str>,
}

/// What a column comes to.
#[derive(Debug, Serialize)]
pub struct Summary {
    column: &'static str,
    seconds: f64,
    probes: usize,
    ok: usize,
    as_root: Option<usize>,
    host_as_root: Option<usize>,
    host: usize,
    broken: Vec<String>,
}

fn summaries(results: &Results) -> Vec<Summary> {
    let (host, guest): (Vec<_>, Vec<_>) = results
        .names
        .iter()
        .partition(|name| name.starts_with("host/"));
    let equal = |names: &[&String], column| {
        let same =
            |name: &&&String| results.outcome(name, column) == results.outcome(name, Column::Root);
        results
            .has(Column::Root)
            .then(|| names.iter().filter(same).count())
    };
    results
        .columns
        .iter()
        .map(|run| Summary {
            column: run.column.name(),
            seconds: (run.time.as_secs_f64() * 10.0).round() / 10.0,
            probes: guest.len(),
            ok: guest
                .iter()
                .filter(|name| results.outcome(name, run.column).starts_with("ok"))
                .count(),
            as_root: equal(&guest, run.column),
            host_as_root: equal(&host, run.column),
            host: host.len(),
            broken: run.broken.clone(),
        })
        .collect()
}

/// The whole matrix as JSON.
///
/// # Errors
/// What serde_json meets; there is nothing in it that it cannot write.
pub fn json(results: &Results) -> serde_json::Result<String> {
    let probes = results
        .names
        .iter()
        .map(|name| Row {
            name,
            outcomes: results
                .columns
                .iter()
                .map(|run| (run.column.name(), results.outcome(name, run.column)))
                .collect(),
        })
        .collect();
    serde_json::to_string_pretty(&Document {
        columns: summaries(results),
        probes,
    })
}

/// For a terminal: the probes whose columns differ (with `all`, every probe), then the sums.
#[must_use]
pub fn text(results: &Results, all: bool) -> String {
    let mut out = String::new();
    for name in &results.names {
        let outcomes: Vec<_> = results
            .columns
            .iter()
            .map(|run| (run.column.name(), results.outcome(name, run.column)))
            .collect();
        let differ = outcomes.windows(2).any(|pair| pair[0].1 != pair[1].1);
        if !differ && !all {
            continue;
        }
        let _ = writeln!(out, "{name}");
        for (column, outcome) in outcomes {
            let _ = writeln!(out, "    {column:<10} {outcome}");
        }
    }
    let _ = writeln!(
        out,
        "{:<10} {:>7} {:>6} {:>6} {:>12} {:>14}",
        "column", "seconds", "probes", "ok", "same as root", "host: as root"
    );
    for sum in summaries(results) {
        let of = |count: Option<usize>| count.map_or("-".to_owned(), |count| count.to_string());
        let _ = writeln!(
            out,
            "{:<10} {:>7.1} {:>6} {:>6} {:>12} {:>14}",
            sum.column,
            sum.seconds,
            sum.probes,
            sum.ok,
            of(sum.as_root),
            format!("{}/{}", of(sum.host_as_root), sum.host)
        );
        for probe in sum.broken {
            let _ = writeln!(out, "           {probe} ended the guest or its server");
        }
    }
    out
}
