//! The table and the JSON.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::expected::{Difference, is_of_device_nodes};
use crate::judge::{Outcomes, Verdict};
use crate::outcome::{Case, Outcome};
use crate::place::Place;

/// How many of a suite's cases came to what.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    passed: usize,
    failed: usize,
    skipped: usize,
}

impl Count {
    fn add(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::Passed => self.passed += 1,
            Outcome::Failed(_) => self.failed += 1,
            Outcome::Skipped(_) => self.skipped += 1,
        }
    }
}

/// A row a place, a column a suite, of device nodes one besides: `passed/failed/skipped`.
pub(crate) fn table(outcomes: &Outcomes, expected: &[Difference]) -> String {
    let column = |case: &Case| {
        if is_of_device_nodes(expected, &case.name) {
            format!("{}, device nodes", case.suite())
        } else {
            case.suite().to_owned()
        }
    };
    let mut suites: Vec<String> = Vec::new();
    for case in outcomes.iter().flat_map(|(_, cases)| cases) {
        let suite = column(case);
        if !suites.contains(&suite) {
            suites.push(suite);
        }
    }
    let mut rows = vec![
        std::iter::once("passed/failed/skipped".to_owned())
            .chain(suites.iter().cloned())
            .collect::<Vec<_>>(),
    ];
    for (place, cases) in outcomes {
        let mut counts: BTreeMap<String, Count> = BTreeMap::new();
        for case in cases {
            counts.entry(column(case)).or_default().add(&case.outcome);
        }
        let cell = |suite: &String| match counts.get(suite) {
            Some(count) => format!("{}/{}/{}", count.passed, count.failed, count.skipped),
            None => "-".to_owned(),
        };
        rows.push(
            std::iter::once(place.to_string())
                .chain(suites.iter().map(cell))
                .collect(),
        );
    }
    let widths: Vec<usize> = (0..rows[0].len())
        .map(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or(0))
        .collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths);
        let cells = cells.map(|(cell, &width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[derive(Serialize)]
struct Json<'a> {
    kernel: String,
    passed: usize,
    failures: &'a [String],
    places: BTreeMap<String, &'a [Case]>,
}

/// What is read of it again.
#[derive(Deserialize)]
struct Found {
    places: BTreeMap<String, Vec<Case>>,
}

/// The outcomes that [`json`] has written, in the order of the table.
pub(crate) fn outcomes(text: &str) -> serde_json::Result<Outcomes> {
    let mut found: Found = serde_json::from_str(text)?;
    let all = Place::all().into_iter();
    Ok(all
        .filter_map(|place| Some((place, found.places.remove(&place.to_string())?)))
        .collect())
}

/// Everything that was found.
pub(crate) fn json(outcomes: &Outcomes, verdict: &Verdict) -> serde_json::Result<String> {
    let uname = rustix::system::uname();
    serde_json::to_string_pretty(&Json {
        kernel: uname.release().to_string_lossy().into_owned(),
        passed: verdict.passed,
        failures: &verdict.failures,
        places: outcomes
            .iter()
            .map(|(place, cases)| (place.to_string(), cases.as_slice()))
            .collect(),
    })
}
