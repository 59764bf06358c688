//! A line for each contender of each row, the figures, and the targets.

use std::fmt::Write as _;

use super::{REFERENCE, called, rate, ratio, word};
use crate::figures::{Figure, Section};
use crate::record::Record;
use crate::results::{Group, Row};
use crate::stats::Summary;
use crate::targets;

/// Everything.
pub(crate) fn page(record: &Record) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "{}", record.machine.sentence());
    let _ = writeln!(out, "{}", record.machine.versions_sentence());
    let _ = writeln!(
        out,
        "rounds: {}; ratios of the best to native",
        record.rounds
    );
    for group in [Group::Mount, Group::P9] {
        let contenders = record.results.contenders(group, &record.contenders);
        for row in record.results.rows.iter().filter(|row| row.group == group) {
            heading(&mut out, &format!("{}: {}", word(group), row.title));
            for name in &contenders {
                line(&mut out, row, name);
            }
        }
    }
    for section in Section::ALL {
        figures(&mut out, record, section);
    }
    compared(&mut out, record);
    let _ = write!(out, "\n{}", targets::table(record));
    out
}

/// The two programs of `--against`: as they are if nothing is said, and mode by mode.
fn compared(out: &mut String, record: &Record) {
    let mut pairs: Vec<(String, &String)> = Vec::new();
    let default = record.other_default_view.as_ref();
    pairs.extend(default.map(|other| (record.default_view.clone(), other)));
    for other in &record.contenders {
        let view = other.replacen("other:", "view:", 1);
        let is_new = !pairs.iter().any(|pair| pair.0 == view && pair.1 == other);
        if view != *other && is_new && record.contenders.contains(&view) {
            pairs.push((view, other));
        }
    }
    for (view, other) in pairs {
        let _ = writeln!(
            out,
            "\n{:<58} {:>7} {:>7}",
            format!("times as fast is {view} as {other}"),
            "best",
            "median"
        );
        for row in &record.results.rows {
            let pair = row.summary(&view).zip(row.summary(other));
            if let Some((view, other)) = pair {
                let title = format!("{}: {}", word(row.group), row.title);
                let (best, median) = (view.best / other.best, view.median / other.median);
                let _ = writeln!(out, "  {title:<56} {:>7} {:>7}", ratio(best), ratio(median));
            }
        }
    }
}

fn heading(out: &mut String, title: &str) {
    let _ = writeln!(
        out,
        "\n{title:<42} {:>12} {:>12} {:>7} {:>7}",
        "best", "median", "spread", "ratio"
    );
}

fn line(out: &mut String, row: &Row, name: &str) {
    let shown = called(row.group, name);
    let Some(summary) = row.summary(name) else {
        let failure = row.cell(name).and_then(|cell| cell.failure.as_deref());
        if let Some(why) = failure {
            let _ = writeln!(out, "  {shown:<40} cannot: {why}");
        }
        return;
    };
    let to_reference = row
        .ratio(name, REFERENCE)
        .map_or_else(|| "-".to_owned(), ratio);
    let _ = writeln!(
        out,
        "  {shown:<40} {:>12} {:>12} {:>6.0}% {to_reference:>7}",
        rate(row, summary.best),
        rate(row, summary.median),
        summary.spread * 100.0,
    );
}

fn figures(out: &mut String, record: &Record, section: Section) {
    let found = record.figures.0.iter();
    let found: Vec<_> = found
        .filter(|figure| figure.section == section.word())
        .collect();
    if found.is_empty() {
        return;
    }
    let _ = writeln!(out, "\n{}", section.heading());
    for figure in found {
        let _ = writeln!(out, "  {}", figure_line(figure));
    }
}

fn figure_line(figure: &Figure) -> String {
    let summary = Summary::of(&figure.values);
    let (median, spread) = summary.map_or((0.0, 0.0), |s| (s.median, s.spread));
    let best = figure.best().unwrap_or(0.0);
    let Figure {
        title, of, unit, ..
    } = figure;
    let more = match &figure.detail {
        Some(detail) => detail.clone(),
        None if figure.values.len() > 1 && spread > 0.0 => {
            format!("median {median:.2}, spread {:.0}%", spread * 100.0)
        }
        None => String::new(),
    };
    format!("{of:<26} {title:<66} {best:>10.2} {unit:<6} {more}")
        .trim_end()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::Figures;
    use crate::machine::Machine;
    use crate::results::{Results, Unit};

    #[test]
    fn two_programs_are_compared_mode_by_mode() {
        let mut results = Results::default();
        let row = (Group::Mount, "stat", Unit::Operations);
        for (name, rates) in [
            ("view:auto/mediated", [30.0, 20.0]),
            ("other:auto/mediated", [10.0, 10.0]),
        ] {
            for rate in rates {
                results.add(row, name, rate);
            }
        }
        let names = [
            "view:auto/mediated",
            "view:none/mediated",
            "other:auto/mediated",
        ];
        let record = Record {
            machine: Machine::default(),
            rounds: 2,
            contenders: names.map(str::to_owned).into(),
            default_view: names[0].to_owned(),
            other_default_view: None,
            results,
            figures: Figures::default(),
        };
        let page = page(&record);
        assert_eq!(page.matches("times as fast").count(), 1, "{page}");
        let line = page
            .lines()
            .skip_while(|line| !line.starts_with("times as fast"))
            .nth(1);
        let words: Vec<_> = line.unwrap_or_default().split_whitespace().collect();
        assert_eq!(words, ["mount:", "stat", "3.00", "2.50"], "{page}");
    }
}
