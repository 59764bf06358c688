//! What is told of the cases: as text, as JSON, as Markdown.

pub(crate) mod json;
pub(crate) mod markdown;
pub(crate) mod summary;
pub(crate) mod text;

use crate::case::{Arrangement, Attempt, Verdict};
use crate::judge::{Judged, Outcome, name};

/// The columns of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Column {
    RootInChroot,
    UidWithCapabilities,
    ProxyHelper,
    /// Any other arrangement, and the product's walls one by one.
    Others,
    Product,
}

impl Column {
    const ALL: [Self; 5] = [
        Self::RootInChroot,
        Self::UidWithCapabilities,
        Self::ProxyHelper,
        Self::Others,
        Self::Product,
    ];

    fn title(self) -> &'static str {
        match self {
            Self::RootInChroot => "root in a chroot",
            Self::UidWithCapabilities => "uid + the mail's capabilities",
            Self::ProxyHelper => "proxy helper's set",
            Self::Others => "other weaker arrangement",
            Self::Product => "virtfs-mediator",
        }
    }

    fn of(arrangement: &Arrangement) -> Self {
        match arrangement {
            Arrangement::RootInChroot => Self::RootInChroot,
            Arrangement::UidWithCapabilities => Self::UidWithCapabilities,
            Arrangement::ProxyHelper => Self::ProxyHelper,
            Arrangement::Other(_) | Arrangement::Walls(_) => Self::Others,
            Arrangement::Product => Self::Product,
        }
    }
}

/// A verdict in a word or two.
fn short(attempt: &Attempt) -> String {
    match &attempt.verdict {
        Verdict::Succeeded(_) => "succeeds".to_owned(),
        Verdict::Untried(_) => "not tried".to_owned(),
        Verdict::Refused(how) => {
            let first = how.split([':', ' ', ',']).next().unwrap_or_default();
            let is_errno = first.len() > 2
                && first.starts_with('E')
                && first
                    .bytes()
                    .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit());
            if how.starts_with("killed (") {
                how.clone()
            } else if how.starts_with("the start ends") {
                "refused to start".to_owned()
            } else if is_errno {
                format!("refused ({first})")
            } else {
                "refused".to_owned()
            }
        }
    }
}

/// The lines of a cell: one for all ways that ended alike; others with their names.
fn cell(judged: &Judged, column: Column) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let ours = |attempt: &&Attempt| Column::of(&attempt.arrangement) == column;
    let attempts: Vec<&Attempt> = judged.attempts.iter().filter(ours).collect();
    let alike = |attempt: &Attempt| {
        attempts
            .iter()
            .filter(|other| name(other) == name(attempt))
            .all(|other| short(other) == short(attempt))
    };
    for attempt in &attempts {
        let mut line = short(attempt);
        if !attempt.way.is_empty() && !alike(attempt) {
            line = format!("{}: {line}", attempt.way);
        }
        if column == Column::Others {
            line = format!("{}: {line}", name(attempt));
        }
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    lines
}

/// How many passed, failed, and were not to be had on this kernel.
fn counts(all: &[Judged]) -> (usize, usize, usize) {
    let count =
        |wanted: fn(&Outcome) -> bool| all.iter().filter(|one| wanted(&one.outcome)).count();
    (
        count(|outcome| *outcome == Outcome::Passed),
        count(|outcome| matches!(outcome, Outcome::Failed(_))),
        count(|outcome| *outcome == Outcome::NotHere),
    )
}

/// The closing line.
pub(crate) fn closing(all: &[Judged]) -> String {
    let (passed, failed, not_here) = counts(all);
    let rest = if not_here == 0 {
        String::new()
    } else {
        format!(", {not_here} not on this kernel")
    };
    format!("attacks: {passed} passed, {failed} failed{rest}")
}

/// Whether none failed.
pub(crate) fn all_passed(all: &[Judged]) -> bool {
    counts(all).1 == 0
}

/// Text that others chose, without anything that a terminal obeys or that hides what follows:
/// control characters, line and paragraph separators, invisible and direction marks.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for one in text.chars() {
        let hides = matches!(
            one,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e0fff}'
        );
        if one.is_control() || hides {
            plain.extend(one.escape_unicode());
        } else {
            plain.push(one);
        }
    }
    plain
}

#[cfg(test)]
pub(super) mod samples {
    use std::time::Duration;

    use super::*;
    use crate::case::{Case, Seat};

    pub(crate) static CASE: Case = Case {
        row: 12,
        id: "sample",
        seat: Seat::M,
        what: "a | b",
        stopped_by: "walls",
        run: |_| Ok(Vec::new()),
    };

    pub(crate) fn attempt(arrangement: Arrangement, way: &str, verdict: Verdict) -> Attempt {
        let told = (arrangement == Arrangement::Product).then(|| "told".to_owned());
        Attempt {
            arrangement,
            way: way.to_owned(),
            verdict,
            told,
        }
    }

    pub(crate) fn judged(attempts: Vec<Attempt>) -> Judged {
        let outcome = crate::judge::judge(&Ok(attempts.clone()));
        Judged {
            case: &CASE,
            attempts,
            outcome,
            took: Duration::from_millis(1),
        }
    }

    pub(crate) fn refused(how: &str) -> Verdict {
        Verdict::Refused(how.to_owned())
    }

    pub(crate) fn succeeded(how: &str) -> Verdict {
        Verdict::Succeeded(how.to_owned())
    }

    /// What a hostile file name could bring into a report.
    pub(crate) const HOSTILE: &str = "x|y`<b>\n\x1b]0;t\x07[l](u)*\u{202e}&";
}

#[cfg(test)]
mod tests {
    use super::samples::{attempt, judged, refused, succeeded};
    use super::*;

    #[test]
    fn verdicts_are_short() {
        let told = |verdict| short(&attempt(Arrangement::RootInChroot, "", verdict));
        assert_eq!(told(succeeded("the canary's secret")), "succeeds");
        assert_eq!(told(refused("EPERM")), "refused (EPERM)");
        assert_eq!(told(refused("ENOENT: 20 opened")), "refused (ENOENT)");
        assert_eq!(told(refused("killed (SIGSYS)")), "killed (SIGSYS)");
        assert_eq!(told(refused("Every time")), "refused");
        assert_eq!(told(Verdict::Untried("no".to_owned())), "not tried");
    }

    #[test]
    fn ways_are_named_where_they_differ() {
        let walls = Arrangement::Walls("w");
        let judged = judged(vec![
            attempt(Arrangement::RootInChroot, "one", succeeded("")),
            attempt(Arrangement::RootInChroot, "two", succeeded("")),
            attempt(walls.clone(), "one", succeeded("")),
            attempt(walls, "two", refused("EPERM")),
        ]);
        assert_eq!(cell(&judged, Column::RootInChroot), ["succeeds"]);
        assert_eq!(
            cell(&judged, Column::Others),
            ["w: one: succeeds", "w: two: refused (EPERM)"]
        );
        assert!(cell(&judged, Column::Product).is_empty());
    }

    #[test]
    fn closing_line_counts() {
        let good = || {
            judged(vec![
                attempt(Arrangement::RootInChroot, "", succeeded("")),
                attempt(Arrangement::Product, "", refused("EPERM")),
            ])
        };
        let bad = || judged(Vec::new());
        let absent = || {
            judged(vec![
                attempt(Arrangement::RootInChroot, "", refused("ENOSYS")),
                attempt(Arrangement::Product, "", refused("killed (SIGSYS)")),
            ])
        };
        assert_eq!(closing(&[good(), good()]), "attacks: 2 passed, 0 failed");
        assert!(all_passed(&[good(), absent()]));
        assert!(!all_passed(&[good(), bad()]));
        assert_eq!(
            closing(&[good(), bad(), absent()]),
            "attacks: 1 passed, 1 failed, 1 not on this kernel"
        );
    }

    #[test]
    fn hostile_text_is_escaped() {
        let plain = plain(samples::HOSTILE);
        assert!(
            !plain
                .chars()
                .any(|one| one.is_control() || one == '\u{202e}'),
            "{plain}"
        );
        assert!(
            plain.contains("\\u{1b}") && plain.contains("\\u{202e}"),
            "{plain}"
        );
    }
}
