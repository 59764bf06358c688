//! The README's tables.

use std::fmt::Write as _;

use super::{REFERENCE, called, rate, ratio};
use crate::figures::Section;
use crate::record::Record;
use crate::results::{Group, Row};
use crate::targets;

/// All of them.
pub(crate) fn page(record: &Record) -> String {
    let mut out = provenance(record);
    let _ = write!(out, "\n{}\n", targets::markdown(record));
    out.push_str("<details><summary>Every workload</summary>\n\n");
    for group in [Group::Mount, Group::P9] {
        let contenders = record.results.contenders(group, &record.contenders);
        let rows: Vec<_> = record
            .results
            .rows
            .iter()
            .filter(|row| row.group == group)
            .collect();
        if !rows.is_empty() {
            table(&mut out, group, &contenders, &rows);
        }
    }
    requests(&mut out, record);
    out.push_str("\n</details>\n");
    out
}

/// Lines between which a document has the tables.
const MARKS: [&str; 2] = [
    "<!-- tools/bench: begin -->\n",
    "<!-- tools/bench: end -->\n",
];

/// A document with its tables replaced; none if it has no place for them.
pub(crate) fn replaced(document: &str, tables: &str) -> Option<String> {
    let [begin, end] = MARKS;
    let (before, rest) = document.split_once(begin)?;
    let (_, after) = rest.split_once(end)?;
    Some([before, begin, tables, end, after].concat())
}

/// Where it was measured, and what ratios are of.
fn provenance(record: &Record) -> String {
    format!(
        "{}.\n{}.\nBest of {} rounds, in parts of the first column, which is absolute; in brackets the \
         spread of the rounds.\n",
        record.machine.sentence(),
        record.machine.versions_sentence(),
        record.rounds
    )
}

/// What each request of 9p becomes.
fn requests(out: &mut String, record: &Record) {
    let figures = record.figures.0.iter();
    let found = figures.filter(|figure| {
        figure.section == Section::Requests.word() && figure.of == record.default_view
    });
    let mut found = found.peekable();
    if found.peek().is_none() {
        return;
    }
    out.push_str("| 9p request | FUSE requests | of which |\n| --- | --- | --- |\n");
    for figure in found {
        let count = figure.best().unwrap_or(0.0);
        let detail = figure.detail.as_deref().unwrap_or_default();
        let _ = writeln!(out, "| {} | {count:.2} | {detail} |", figure.title);
    }
}

fn table(out: &mut String, group: Group, contenders: &[&str], rows: &[&Row]) {
    let names: Vec<_> = contenders.iter().map(|name| called(group, name)).collect();
    let _ = writeln!(out, "| workload | {} |", names.join(" | "));
    let _ = writeln!(out, "| --- |{}", " --- |".repeat(names.len()));
    for row in rows {
        let cells: Vec<_> = contenders.iter().map(|name| cell(row, name)).collect();
        let _ = writeln!(out, "| {} | {} |", row.title, cells.join(" | "));
    }
    out.push('\n');
}

fn cell(row: &Row, name: &str) -> String {
    let Some(summary) = row.summary(name) else {
        let failed = row.cell(name).is_some_and(|cell| cell.failure.is_some());
        return if failed { "cannot" } else { "" }.to_owned();
    };
    let spread = format!("({:.0} %)", summary.spread * 100.0);
    match row.ratio(name, REFERENCE) {
        Some(parts) if name != REFERENCE => format!("{} {spread}", ratio(parts)),
        _ => format!("{} {spread}", rate(row, summary.best)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::Figures;
    use crate::machine::Machine;
    use crate::results::{Results, Unit};

    #[test]
    fn tables_are_replaced_between_their_marks_alone() {
        let document = "a\n<!-- tools/bench: begin -->\nold\n<!-- tools/bench: end -->\nz\n";
        let expected = "a\n<!-- tools/bench: begin -->\nnew\n<!-- tools/bench: end -->\nz\n";
        assert_eq!(replaced(document, "new\n").as_deref(), Some(expected));
        assert_eq!(replaced("a\n", "new\n"), None);
    }

    #[test]
    fn table_has_absolute_reference_ratios_and_failures() {
        let mut results = Results::default();
        let row = (Group::Mount, "stat", Unit::Operations);
        for rate in [500_000.0, 1_000_000.0] {
            results.add(row, "native", rate);
        }
        results.add(row, "view:auto/mediated", 50_000.0);
        results.fail(row, "bindfs", "no");
        let names = ["native", "view:auto/mediated", "bindfs"].map(str::to_owned);
        let record = Record {
            machine: Machine::default(),
            rounds: 2,
            contenders: names.into(),
            default_view: String::new(),
            other_default_view: None,
            results,
            figures: Figures::default(),
        };
        let page = page(&record);
        assert!(
            page.contains(
                "| workload | native | view:auto/mediated | bindfs |\n\
                 | --- | --- | --- | --- |\n\
                 | stat | 1.00 us (67 %) | 0.050 (0 %) | cannot |\n"
            ),
            "{page}"
        );
    }
}
