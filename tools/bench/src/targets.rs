//! The targets that the project has set itself, and whether a run met them.

use std::fmt::Write as _;

use crate::figures::Section;
use crate::record::Record;
use crate::results::{Group, Row, Unit};
use crate::stats::geometric_mean;

/// What a run says of a target.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Outcome {
    Met(String),
    Missed(String),
    /// No row or contender that it needs was measured.
    NotMeasured,
}

impl Outcome {
    fn of(met: bool, figure: String) -> Self {
        if met {
            Self::Met(figure)
        } else {
            Self::Missed(figure)
        }
    }

    fn words(&self) -> (&'static str, &str) {
        match self {
            Self::Met(figure) => ("met", figure),
            Self::Missed(figure) => ("MISSED", figure),
            Self::NotMeasured => ("not measured", ""),
        }
    }
}

/// A target: what it says, and how it is judged for one mode of the view.
pub(crate) struct Target {
    pub(crate) title: &'static str,
    pub(crate) wanted: &'static str,
    judge: fn(&Record, &str) -> Outcome,
}

/// All of them, in the order of the project's list.
pub(crate) const TARGETS: &[Target] = &[
    Target {
        title: "file data through the view, each workload",
        wanted: "at least 0.95 of native",
        judge: |record, view| {
            let rows = mounts(record).filter(|row| row.unit == Unit::Octets);
            lowest(rows, view, &["native"], 0.95)
        },
    },
    Target {
        title: "metadata, each workload",
        wanted: "ahead of bindfs and passthrough_hp",
        judge: |record, view| {
            let rows = mounts(record)
                .filter(|row| row.unit == Unit::Operations && !row.title.starts_with("sqlite"));
            lowest(rows, view, &["bindfs", "passthrough_hp"], 1.0)
        },
    },
    Target {
        title: "cached stat, cached readdir+lstat",
        wanted: "at least 0.9 of native",
        judge: |record, view| {
            let wanted = ["stat, again", "readdir+lstat, again"];
            let rows = mounts(record).filter(|row| wanted.contains(&row.title.as_str()));
            lowest(rows, view, &["native"], 0.9)
        },
    },
    Target {
        title: "9p, each workload at every depth",
        wanted: "at least the proxy helper's rate",
        judge: |record, view| lowest(p9(record, "", ""), view, &["proxy"], 1.0),
    },
    Target {
        title: "9p at depth 32, geometric mean",
        wanted: "at least twice the proxy helper's",
        judge: |record, view| {
            let rows = p9(record, "", ", depth 32");
            let ratios: Vec<_> = rows.filter_map(|row| row.ratio(view, "proxy")).collect();
            geometric_mean(&ratios).map_or(Outcome::NotMeasured, |mean| {
                Outcome::of(mean >= 2.0, format!("{mean:.2}"))
            })
        },
    },
    Target {
        title: "9p getattr, 4k read, 4k write at depth 32",
        wanted: "ahead of QEMU as root",
        judge: |record, view| {
            let rows = ["getattr", "read 4k", "write 4k"]
                .into_iter()
                .flat_map(|title| p9(record, title, ", depth 32"));
            lowest(rows, view, &["native"], 1.0)
        },
    },
    Target {
        title: "9p 128k read and write at every depth",
        wanted: "at least 1.0 of QEMU as root",
        judge: |record, view| {
            let rows = ["read 128k", "write 128k"]
                .into_iter()
                .flat_map(|title| p9(record, title, ""));
            lowest(rows, view, &["native"], 1.0)
        },
    },
    Target {
        title: "9p walk+open+read+clunk at depth 32",
        wanted: "at least 0.8 of QEMU as root",
        judge: |record, view| {
            let rows = p9(record, "walk+open+read+clunk", ", depth 32");
            lowest(rows, view, &["native"], 0.8)
        },
    },
    Target {
        title: "9p create, unlink at depth 32",
        wanted: "at least 0.6 of QEMU as root",
        judge: |record, view| lowest(changes(record, ", depth 32"), view, &["native"], 0.6),
    },
    Target {
        title: "9p create, unlink at depth 1",
        wanted: "at least the proxy helper's rate",
        judge: |record, view| lowest(changes(record, ", depth 1"), view, &["proxy"], 1.0),
    },
    Target {
        title: "tar x",
        wanted: "at most 0.6 of bindfs's time",
        judge: |record, view| {
            let row = mounts(record).find(|row| row.title.starts_with("tar x"));
            let ratio = row.and_then(|row| row.ratio("bindfs", view));
            ratio.map_or(Outcome::NotMeasured, |ratio| {
                Outcome::of(ratio <= 0.6, format!("{ratio:.2}"))
            })
        },
    },
    Target {
        title: "1,000 rules, refusals on record",
        wanted: "under 3 % more of the mediator's instructions a request",
        judge: |record, view| {
            let program = program_of(view);
            let more = |what: &str| {
                let cost = |rules: &str| {
                    let title = format!("stat, {rules}: the mediator's {what}");
                    record.figures.best(Section::Rules, &title, program)
                };
                let (with, without) = (cost("1,000 rules, refusals on record"), cost("0 rules"));
                let ratio = with.zip(without).map(|(with, without)| with / without);
                ratio.map(|ratio| ((ratio - 1.0) * 100.0, what.to_owned()))
            };
            // Not every machine counts them.
            let more = more("instructions").or_else(|| more("CPU time"));
            more.map_or(Outcome::NotMeasured, |(more, what)| {
                Outcome::of(more < 3.0, format!("{more:+.1} % {what}"))
            })
        },
    },
    Target {
        title: "a stat with very many known files",
        wanted: "as with 1,000 (within 10 %)",
        judge: |record, view| {
            let program = program_of(view);
            let stat = |files: &str| {
                let title = format!("stat, {files} files known");
                record.figures.best(Section::Known, &title, program)
            };
            let many = most_known(|files| stat(files).map(|time| (files, time)));
            many.zip(stat("1,000"))
                .map_or(Outcome::NotMeasured, |((files, many), few)| {
                    let ratio = many / few;
                    Outcome::of(ratio <= 1.1, format!("{ratio:.2} times, {files} files"))
                })
        },
    },
    Target {
        title: "memory",
        wanted: "at most 200 octets a known inode",
        judge: |record, view| {
            let program = program_of(view);
            let weight = most_known(|files| {
                let title = format!("memory an inode, {files} files known");
                record.figures.best(Section::Known, &title, program)
            });
            weight.map_or(Outcome::NotMeasured, |octets| {
                Outcome::of(octets <= 200.0, format!("{octets:.0} octets"))
            })
        },
    },
    Target {
        title: "a view's start to its client's first answer",
        wanted: "under 50 ms",
        judge: |record, view| {
            let title = "start to the client's first answer";
            let time = record.figures.best(Section::Start, title, program_of(view));
            time.map_or(Outcome::NotMeasured, |time| {
                Outcome::of(time < 50.0, format!("{time:.1} ms"))
            })
        },
    },
    Target {
        title: "an idle view",
        wanted: "no wake-ups",
        judge: |record, view| {
            let program = program_of(view);
            let found = record.figures.0.iter().find(|figure| {
                figure.title.starts_with("context switches") && figure.of.starts_with(program)
            });
            found
                .and_then(|figure| Some((figure.best()?, &figure.title)))
                .map_or(Outcome::NotMeasured, |(switches, title)| {
                    Outcome::of(switches == 0.0, format!("{switches} {title}"))
                })
        },
    },
    Target {
        title: "a 9p create",
        wanted: "at most 8 requests of FUSE",
        judge: |record, view| requests(record, view, "walk+create", 8.0),
    },
    Target {
        title: "a 9p getattr of a known file",
        wanted: "no request of FUSE",
        // One may come in a second, where what is known is known for a second.
        judge: |record, view| requests(record, view, "getattr of a known file", 0.05),
    },
];

fn requests(record: &Record, view: &str, title: &str, most: f64) -> Outcome {
    let found = record
        .figures
        .best(Section::Requests, title, program_of(view));
    found.map_or(Outcome::NotMeasured, |count| {
        Outcome::of(count <= most, format!("{count:.2}"))
    })
}

/// The value with the most known files that was measured.
fn most_known<T>(of: impl Fn(&'static str) -> Option<T>) -> Option<T> {
    ["1,000,000", "100,000"].into_iter().find_map(of)
}

fn program_of(view: &str) -> &str {
    view.split(':').next().unwrap_or(view)
}

fn mounts(record: &Record) -> impl Iterator<Item = &Row> {
    let rows = record.results.rows.iter();
    rows.filter(|row| row.group == Group::Mount)
}

/// 9p rows that begin and end so.
fn p9<'a>(record: &'a Record, begin: &'a str, end: &'a str) -> impl Iterator<Item = &'a Row> {
    let rows = record.results.rows.iter();
    rows.filter(move |row| {
        row.group == Group::P9 && row.title.starts_with(begin) && row.title.ends_with(end)
    })
}

fn changes<'a>(record: &'a Record, end: &'a str) -> impl Iterator<Item = &'a Row> {
    p9(record, "create", end).chain(p9(record, "unlink", end))
}

/// The row with the lowest ratio to any of the others must reach `least`.
fn lowest<'a>(
    rows: impl Iterator<Item = &'a Row>,
    view: &str,
    others: &[&str],
    least: f64,
) -> Outcome {
    let ratios = rows.flat_map(|row| {
        others
            .iter()
            .filter_map(move |other| Some((row.ratio(view, other)?, row, *other)))
    });
    let (mut count, mut good) = (0, 0);
    let mut worst: Option<(f64, &Row, &str)> = None;
    for found in ratios {
        count += 1;
        good += usize::from(found.0 >= least);
        if worst.is_none_or(|worst| found.0 < worst.0) {
            worst = Some(found);
        }
    }
    worst.map_or(Outcome::NotMeasured, |(ratio, row, other)| {
        let figure = format!(
            "{good} of {count}; least {ratio:.2} of {other}: {}",
            row.title
        );
        Outcome::of(good == count, figure)
    })
}

/// The modes that targets are judged for: as started without options, and `exclusive`.
fn judged(record: &Record) -> Vec<&str> {
    let exclusive = record.default_view.replace(":auto/", ":exclusive/");
    let all = record.contenders.iter().map(String::as_str);
    all.filter(|name| *name == record.default_view || *name == exclusive)
        .collect()
}

/// A line for each target, a column for each mode.
pub(crate) fn markdown(record: &Record) -> String {
    let views = judged(record);
    let mut out = format!("| target | {} |\n", views.join(" | "));
    let _ = writeln!(out, "| --- |{}", " --- |".repeat(views.len()));
    for target in TARGETS {
        let cells: Vec<_> = views
            .iter()
            .map(|view| {
                let outcome = (target.judge)(record, view);
                let (word, figure) = outcome.words();
                [word, figure].join(": ").trim_end_matches(": ").to_owned()
            })
            .collect();
        let (title, wanted) = (target.title, target.wanted);
        let _ = writeln!(out, "| {title}: {wanted} | {} |", cells.join(" | "));
    }
    out
}

/// Each target with its outcome.
pub(crate) fn table(record: &Record) -> String {
    let mut out = String::new();
    for view in judged(record) {
        let _ = writeln!(out, "targets, {view}:");
        let mut unknown = 0;
        for target in TARGETS {
            let outcome = (target.judge)(record, view);
            if outcome == Outcome::NotMeasured {
                unknown += 1;
                continue;
            }
            let (word, figure) = outcome.words();
            let (title, wanted) = (target.title, target.wanted);
            let _ = writeln!(out, "  {word:<7} {title}: {wanted}: {figure}");
        }
        if unknown > 0 {
            let _ = writeln!(out, "  not measured: {unknown} of {}", TARGETS.len());
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::Figures;
    use crate::machine::Machine;
    use crate::results::Results;

    const VIEW: &str = "view:auto/passthrough";

    type Cells = [(&'static str, f64)];

    fn record(rows: &[(Group, &str, Unit, &Cells)]) -> Record {
        let mut results = Results::default();
        for (group, title, unit, cells) in rows {
            for (contender, rate) in *cells {
                results.add((*group, title, *unit), contender, *rate);
            }
        }
        Record {
            machine: Machine::default(),
            rounds: 1,
            contenders: vec![VIEW.to_owned()],
            default_view: VIEW.to_owned(),
            other_default_view: None,
            results,
            figures: Figures::default(),
        }
    }

    fn outcome(record: &Record, title: &str) -> Outcome {
        let target = TARGETS.iter().find(|target| target.title == title).unwrap();
        (target.judge)(record, VIEW)
    }

    #[test]
    fn lowest_ratio_decides_and_is_named() {
        let data = |title, rate| {
            let cells: &Cells = &[("native", 100.0), (VIEW, 99.0)];
            let slow: &Cells = &[("native", 100.0), (VIEW, 50.0)];
            let cells = if rate < 90.0 { slow } else { cells };
            (Group::Mount, title, Unit::Octets, cells)
        };
        let good = record(&[data("read 4k", 99.0)]);
        let title = "file data through the view, each workload";
        assert!(matches!(outcome(&good, title), Outcome::Met(_)));
        let bad = record(&[data("read 4k", 99.0), data("mmap", 50.0)]);
        let Outcome::Missed(figure) = outcome(&bad, title) else {
            panic!("half of native is not enough")
        };
        assert_eq!(figure, "1 of 2; least 0.50 of native: mmap");
    }

    #[test]
    fn markdown_has_a_line_for_each_target() {
        let cells: &Cells = &[("native", 10.0), (VIEW, 9.0)];
        let record = record(&[(Group::Mount, "stat, again", Unit::Operations, cells)]);
        let table = markdown(&record);
        assert_eq!(table.lines().count(), TARGETS.len() + 2);
        let line = "| cached stat, cached readdir+lstat: at least 0.9 of native | \
                    met: 1 of 1; least 0.90 of native: stat, again |";
        assert!(table.contains(line), "{table}");
    }

    #[test]
    fn depth_1_is_not_taken_for_depth_128() {
        let cells: &Cells = &[("proxy", 10.0), (VIEW, 20.0)];
        let slow: &Cells = &[("proxy", 10.0), (VIEW, 5.0)];
        let record = record(&[
            (Group::P9, "unlink, depth 1", Unit::Operations, cells),
            (Group::P9, "unlink, depth 128", Unit::Operations, slow),
        ]);
        let title = "9p create, unlink at depth 1";
        assert!(matches!(outcome(&record, title), Outcome::Met(_)));
    }

    #[test]
    fn nothing_measured_is_neither_met_nor_missed() {
        let record = record(&[]);
        for target in TARGETS {
            let outcome = (target.judge)(&record, VIEW);
            assert_eq!(outcome, Outcome::NotMeasured, "{}", target.title);
        }
    }
}
