//! The suites: what is run, and how what it said is read.

mod fsx;
mod history;
mod packages;
mod pjdfstest;
mod programs;
mod projects;
mod sqlite;
mod stress;
mod trees;

use std::process::Output;

use crate::error::Result;
use crate::outcome::{Case, Outcome};
use crate::place::{Mode, Place};
use crate::seat::Seat;

/// How much of a suite is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    Short,
    Full,
}

impl Extent {
    /// Of a run of this length, what is done in one place: the whole of it is for views of which nothing
    /// is said. Other modes, other mirrors and what they are compared with have the short form, as
    /// guests, which are emulated: a view that fails for its length alone is told all the same.
    pub(crate) fn at(self, place: Place) -> Self {
        match (self, place.mode()) {
            (Self::Full, Some(Mode::DEFAULT)) => Self::Full,
            _ => Self::Short,
        }
    }
}

/// One suite.
pub(crate) struct Suite {
    /// What its cases' names begin with.
    pub(crate) name: &'static str,
    pub(crate) run: fn(&Seat<'_>, Extent) -> Result<Vec<Case>>,
    /// In which modes of a view besides the default it is run.
    modes: Modes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Modes {
    /// Where the mode makes a difference to what it does.
    Every,
    /// With each cache and each way of data at least once, but not with all that are slow.
    Telling,
    /// In none: it takes minutes, and does what others do.
    None,
}

/// All of them, in the order in which they run; the last compares what the others left.
pub(crate) const ALL: [Suite; 9] = [
    Suite {
        name: "pjdfstest",
        run: pjdfstest::run,
        modes: Modes::Every,
    },
    Suite {
        name: "fsx",
        run: fsx::run,
        modes: Modes::Every,
    },
    Suite {
        name: "stress-ng",
        run: stress::run,
        modes: Modes::Telling,
    },
    Suite {
        name: "programs",
        run: programs::run,
        modes: Modes::Telling,
    },
    Suite {
        name: "git",
        run: history::run,
        modes: Modes::Telling,
    },
    Suite {
        name: "build",
        run: projects::run,
        modes: Modes::None,
    },
    Suite {
        name: "sqlite",
        run: sqlite::run,
        modes: Modes::Telling,
    },
    Suite {
        name: "dpkg",
        run: packages::run,
        modes: Modes::Telling,
    },
    Suite {
        name: "tree",
        run: trees::run,
        modes: Modes::Every,
    },
];

impl Suite {
    /// Whether it is run there, where these are all places.
    pub(crate) fn goes_to(&self, place: Place, extent: Extent, places: &[Place]) -> bool {
        match place {
            // Its compilers are emulated.
            Place::GuestRaw | Place::GuestView => return self.name != "build",
            // They show the rules that differences are listed with.
            Place::GuestPlain => return self.name == "pjdfstest",
            Place::Plain | Place::PlainUser => {
                return ["pjdfstest", "stress-ng"].contains(&self.name);
            }
            Place::Ext4
            | Place::Ext4User
            | Place::Shared(_)
            | Place::Client(_)
            | Place::Bindfs
            | Place::PassthroughHp => {}
        }
        let Some(mode) = place.mode() else {
            // What is compared with no view there is left out there.
            return extent == Extent::Full
                || places.iter().any(|view| {
                    view.is_view()
                        && view.reference() == place.reference()
                        && self.goes_to(*view, extent, places)
                });
        };
        match (extent, self.modes) {
            (_, Modes::Every) => true,
            (Extent::Full, Modes::Telling) => mode.is_telling(),
            (Extent::Full, Modes::None) => mode == Mode::DEFAULT,
            (Extent::Short, Modes::Telling | Modes::None) => {
                place == Place::Shared(Mode::DEFAULT)
                    || (place == Place::Client(Mode::DEFAULT) && self.name == "sqlite")
            }
        }
    }
}

/// What a program said last, on one line.
fn last_words(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    let last = lines[lines.len().saturating_sub(6)..].join(" | ");
    let status = output.status;
    format!("{status}: {last}")
}

/// A case that passes if a script does.
fn scripted(
    seat: &Seat<'_>,
    suite: &str,
    case: &str,
    script: &str,
    arguments: &[&str],
    seconds: u64,
) -> Result<Case> {
    let output = seat.shell(script, arguments, seconds)?;
    let outcome = Outcome::of(output.status.success(), || last_words(&output));
    Ok(Case::new(suite, case, outcome))
}
