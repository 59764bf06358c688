//! For people at a terminal.

use std::fmt::Write as _;

use super::{Column, cell, closing, plain};
use crate::judge::{Judged, Outcome};

/// The table: a line for each case, below it what there is in other arrangements.
pub(crate) fn table(all: &[Judged]) -> String {
    const LABEL: usize = 22;
    let columns = [
        Column::RootInChroot,
        Column::UidWithCapabilities,
        Column::ProxyHelper,
        Column::Product,
    ];
    let cells = |judged: &Judged, column| match cell(judged, column).as_slice() {
        [] => "-".to_owned(),
        lines => plain(&lines.join("; ")),
    };
    let widths = columns.map(|column| {
        let cells = all
            .iter()
            .map(|judged| cells(judged, column).chars().count());
        cells
            .chain([column.title().len()])
            .max()
            .unwrap_or_default()
    });
    let mut text = format!("{:>3} {:4} {:LABEL$}", "row", "seat", "attack");
    for (column, width) in columns.iter().zip(widths) {
        let _infallible = write!(text, "  {:width$}", column.title());
    }
    let mut text = text.trim_end().to_owned();
    for judged in all {
        let case = judged.case;
        let seat = format!("{:?}", case.seat);
        let mut line = format!("{:>3} {seat:4} {:LABEL$}", case.row, case.id);
        for (column, width) in columns.iter().zip(widths) {
            let _infallible = write!(line, "  {:width$}", cells(judged, *column));
        }
        let _infallible = write!(text, "\n{}", line.trim_end());
        for other in cell(judged, Column::Others) {
            let _infallible = write!(text, "\n{:9}{}", "", plain(&other));
        }
        match &judged.outcome {
            Outcome::Passed => {}
            Outcome::Failed(why) => {
                let _infallible = write!(text, "\n{:9}FAILED: {}", "", plain(why));
            }
            Outcome::NotHere => {
                let _infallible = write!(text, "\n{:9}not on this kernel (ENOSYS)", "");
            }
        }
    }
    format!("{text}\n\n{}\n", closing(all))
}

/// One line as soon as a case is over.
pub(crate) fn progress(judged: &Judged) -> String {
    let case = judged.case;
    let outcome = match &judged.outcome {
        Outcome::Passed => "passed".to_owned(),
        Outcome::Failed(why) => format!("FAILED: {}", plain(why)),
        Outcome::NotHere => "not on this kernel".to_owned(),
    };
    format!(
        "{:>3} {:?} {}: {outcome}, {} attempts, {:.1} s",
        case.row,
        case.seat,
        case.id,
        judged.attempts.len(),
        judged.took.as_secs_f64()
    )
}

#[cfg(test)]
mod tests {
    use super::super::samples::{HOSTILE, attempt, judged, refused, succeeded};
    use super::*;
    use crate::case::{Arrangement, Verdict};

    #[test]
    fn table_has_a_line_for_each_case_and_other_arrangement() {
        let table = table(&[judged(vec![
            attempt(Arrangement::RootInChroot, "", succeeded("x")),
            attempt(
                Arrangement::Walls("seccomp alone"),
                "",
                refused("killed (SIGSYS)"),
            ),
            attempt(Arrangement::Product, "", refused("EPERM")),
        ])]);
        let lines: Vec<&str> = table.lines().collect();
        assert!(lines[1].starts_with(" 12 M    sample"), "{table}");
        assert!(
            lines[1].contains("succeeds") && lines[1].ends_with("refused (EPERM)"),
            "{table}"
        );
        assert_eq!(lines[2].trim(), "seccomp alone: killed (SIGSYS)");
        assert_eq!(lines.last(), Some(&"attacks: 1 passed, 0 failed"));
    }

    #[test]
    fn hostile_text_does_not_reach_the_terminal() {
        let untried = Verdict::Untried(HOSTILE.to_owned());
        let judged = judged(vec![attempt(Arrangement::Product, HOSTILE, untried)]);
        for text in [table(&[judged]), plain(HOSTILE)] {
            let obeyed = |one: char| one != '\n' && one.is_control();
            assert!(!text.contains(obeyed), "{text:?}");
        }
    }
}
