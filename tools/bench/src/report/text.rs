//! A line for each contender of each row.

use std::fmt::Write as _;

use crate::results::{Group, Results, Row, Unit};

/// Everything, with spread.
pub(crate) fn table(results: &Results, order: &[String]) -> String {
    let mut out = String::new();
    for group in [Group::Mount, Group::P9] {
        let contenders = results.contenders(group, order);
        for row in results.rows.iter().filter(|row| row.group == group) {
            let _ = writeln!(out, "\n{}: {}", heading(group), row.title);
            let _ = writeln!(
                out,
                "  {:<32} {:>12} {:>12} {:>7} {:>9}",
                "", "best", "median", "spread", "ratio"
            );
            for name in &contenders {
                line(&mut out, row, name);
            }
        }
    }
    out
}

fn heading(group: Group) -> &'static str {
    match group {
        Group::Mount => "mount",
        Group::P9 => "9p",
    }
}

fn line(out: &mut String, row: &Row, name: &str) {
    let Some(summary) = row.summary(name) else {
        let failure = row.cell(name).and_then(|cell| cell.failure.as_deref());
        if let Some(why) = failure {
            let _ = writeln!(out, "  {name:<32} cannot: {why}");
        }
        return;
    };
    let ratio = row
        .ratio(name, "native")
        .map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
    let _ = writeln!(
        out,
        "  {:<32} {:>12} {:>12} {:>6.0}% {:>9}",
        name,
        rate(row, summary.best),
        rate(row, summary.median),
        summary.spread * 100.0,
        ratio
    );
}

/// A rate in the row's own way of telling it.
pub(crate) fn rate(row: &Row, rate: f64) -> String {
    match (row.group, row.unit) {
        (Group::Mount, Unit::Operations) => format!("{:.2} us", 1e6 / rate),
        (Group::Mount, Unit::Whole) => format!("{:.3} s", 1.0 / rate),
        (Group::Mount | Group::P9, Unit::Octets) => {
            format!("{:.0} MiB/s", rate / f64::from(1 << 20))
        }
        (Group::P9, Unit::Operations | Unit::Whole) => format!("{:.1} k/s", rate / 1e3),
    }
}
