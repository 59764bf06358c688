//! For the README.

use std::fmt::Write as _;

use super::{Column, cell, plain};
use crate::judge::{Judged, Outcome};

/// The table, one row for each case.
pub(crate) fn table(all: &[Judged]) -> String {
    let mut text = "| # | attack | seat |".to_owned();
    for column in Column::ALL {
        let _infallible = write!(text, " {} |", column.title());
    }
    text.push_str("\n| --- | --- | --- | --- | --- | --- | --- | --- |\n");
    for judged in all {
        let case = judged.case;
        let _infallible = write!(
            text,
            "| {} | {} | {:?} |",
            case.row,
            escaped(case.what),
            case.seat
        );
        for column in Column::ALL {
            let lines: Vec<String> = cell(judged, column)
                .iter()
                .map(|line| escaped(line))
                .collect();
            let mut cell = lines.join("<br>");
            if cell.is_empty() {
                "—".clone_into(&mut cell);
            }
            if column == Column::Product {
                match judged.outcome {
                    Outcome::Passed => {}
                    Outcome::Failed(_) => cell.push_str("<br>**not proved**"),
                    Outcome::NotHere => cell.push_str("<br>(not on this kernel)"),
                }
            }
            let _infallible = write!(text, " {cell} |");
        }
        text.push('\n');
    }
    text
}

/// Text that is nothing but text in a cell of a Markdown table.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for one in plain(text).chars() {
        match one {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '\\' | '|' | '`' | '*' | '_' | '[' | ']' | '~' | '#' | '!' => {
                escaped.push('\\');
                escaped.push(one);
            }
            _ => escaped.push(one),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::super::samples::{HOSTILE, attempt, judged, refused, succeeded};
    use super::*;
    use crate::case::Arrangement;

    #[test]
    fn rows_have_a_cell_for_each_column() {
        let table = table(&[judged(vec![
            attempt(Arrangement::RootInChroot, "", succeeded("x")),
            attempt(Arrangement::Other("one"), "", succeeded("x")),
            attempt(Arrangement::Walls("two"), "", refused("EPERM")),
            attempt(Arrangement::Product, "", refused("EACCES")),
        ])]);
        assert_eq!(
            table.lines().nth(2),
            Some(
                "| 12 | a \\| b | M | succeeds | — | — | one: succeeds<br>two: refused (EPERM) \
                 | refused (EACCES) |"
            )
        );
    }

    #[test]
    fn proof_that_failed_shows() {
        let table = table(&[judged(vec![attempt(
            Arrangement::Product,
            "",
            refused("EPERM"),
        )])]);
        assert!(table.contains("**not proved**"), "{table}");
    }

    #[test]
    fn hostile_text_stays_in_its_cell() {
        let escaped = escaped(HOSTILE);
        assert!(!escaped.contains(['\n', '\x1b', '<', '>']), "{escaped}");
        for mark in ['|', '`', '*', '[', ']'] {
            let bare = escaped.replace(&format!("\\{mark}"), "");
            assert!(!bare.contains(mark), "{escaped}");
        }
    }
}
