//! What was found, how it is told, and the exit status that it makes.

use serde::Serialize;

use crate::doctor::catalogue::{Level, Problem};
use crate::error::Class;

/// One finding, as `--json` tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Finding {
    check: &'static str,
    level: &'static str,
    found: String,
    cure: String,
}

/// All findings, in the order in which the checks are made.
#[derive(Debug, Default)]
pub(super) struct Findings {
    findings: Vec<Finding>,
    failed: Vec<Class>,
}

impl Findings {
    /// The check of `problem` found nothing wrong; `found` is what it saw.
    pub(super) fn ok(&mut self, problem: Problem, found: impl Into<String>) {
        self.push(problem, Level::Ok, found.into(), String::new());
    }

    /// The problem is there; `cure` is what an administrator does about it.
    pub(super) fn tell(
        &mut self,
        problem: Problem,
        found: impl Into<String>,
        cure: impl Into<String>,
    ) {
        let row = problem.row();
        if row.level == Level::Fail {
            self.failed.push(class_of(row.check));
        }
        self.push(problem, row.level, found.into(), cure.into());
    }

    /// The check could not be made, which says nothing about the host.
    pub(super) fn untried(&mut self, problem: Problem, why: &str) {
        let found = format!("not tried: {why}");
        self.push(problem, Level::Note, found, String::new());
    }

    fn push(&mut self, problem: Problem, level: Level, found: String, cure: String) {
        let check = problem.row().check;
        let level = level.word();
        self.findings.push(Finding {
            check,
            level,
            found,
            cure,
        });
    }

    /// 0, or the status of the first class that failed, in the order of a start: a wall, the
    /// mount, what was configured, and last that it was not root who asked.
    pub(super) fn status(&self) -> u8 {
        const ORDER: [Class; 4] = [
            Class::Confinement,
            Class::Mount,
            Class::Configuration,
            Class::Privilege,
        ];
        let first = ORDER.iter().find(|class| self.failed.contains(class));
        first.map_or(0, |class| class.status())
    }

    /// For people: a line for each finding, a line for each cure, and a sum.
    pub(super) fn text(&self) -> String {
        let width = |finding: &Finding| finding.check.len();
        let width = self.findings.iter().map(width).max().unwrap_or_default();
        let mut lines = Vec::new();
        for finding in &self.findings {
            let (level, check) = (finding.level, finding.check);
            let (found, cure) = (plain(&finding.found), plain(&finding.cure));
            lines.push(format!("{level:4}  {check:width$}  {found}"));
            if !cure.is_empty() {
                lines.push(format!("{:4}  {:width$}  -> {cure}", "", ""));
            }
        }
        let count = |level: Level| {
            let same = |finding: &&Finding| finding.level == level.word();
            self.findings.iter().filter(same).count()
        };
        lines.push(format!(
            "{} ok, {} notes, {} warnings, {} failures",
            count(Level::Ok),
            count(Level::Note),
            count(Level::Warn),
            count(Level::Fail)
        ));
        lines.join("\n")
    }

    /// For programs: an array of objects.
    pub(super) fn json(&self) -> String {
        serde_json::to_string_pretty(&self.findings).unwrap_or_default()
    }
}

/// A file's name may hold a newline or what a terminal obeys.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            plain.extend(character.escape_default());
        } else {
            plain.push(character);
        }
    }
    plain
}

/// The class that a failed check belongs to, by its group.
fn class_of(check: &str) -> Class {
    match check.split('.').next() {
        Some("root") => Class::Privilege,
        Some("kernel") => Class::Confinement,
        Some("fuse") => Class::Mount,
        _ => Class::Configuration,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_is_that_of_the_first_class_that_failed() {
        let mut findings = Findings::default();
        findings.ok(Problem::Seccomp, "works");
        findings.tell(Problem::NoLandlock, "none", "boot with it");
        assert_eq!(findings.status(), 0);
        findings.tell(Problem::NotRoot, "uid 1", "sudo");
        assert_eq!(findings.status(), 77);
        findings.tell(Problem::Unfit, "export /", "another");
        assert_eq!(findings.status(), 78);
        findings.tell(Problem::FuseDevice, "missing", "modprobe");
        assert_eq!(findings.status(), 74);
        findings.tell(Problem::Seccomp, "missing", "another kernel");
        assert_eq!(findings.status(), 71);
    }

    #[test]
    fn control_characters_of_names_are_escaped() {
        assert_eq!(plain("a\nb\u{1b}[31m ä"), "a\\nb\\u{1b}[31m ä");
    }

    #[test]
    fn text_has_a_line_for_each_finding_and_cure() {
        let mut findings = Findings::default();
        findings.ok(Problem::Pidfd, "works");
        findings.untried(Problem::Reach, "needs root");
        findings.tell(Problem::NotRoot, "uid 1", "sudo");
        let text = findings.text();
        assert_eq!(
            text.lines().collect::<Vec<_>>(),
            [
                "ok    kernel.pidfd  works",
                "note  export.reach  not tried: needs root",
                "FAIL  root          uid 1",
                "                    -> sudo",
                "1 ok, 1 notes, 0 warnings, 1 failures",
            ]
        );
    }
}
