//! What only a view has: its growth with what it knows, its memory, its start, its idle cost, and
//! how many requests of FUSE a request of 9p becomes.

mod clients;
mod known;
mod requests;
mod rules;
mod start;
mod status;

use serde::{Deserialize, Serialize};

use crate::contender::{Cache, Contender, View};
use crate::driver::Interrupt;
use crate::error::Result;
use crate::mounts::Size;
use crate::place::Place;
use crate::seat::Seat;
use crate::task::{Sample, Task, Work};

/// A number, measured once a round.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Figure {
    pub(crate) section: String,
    pub(crate) title: String,
    /// Which contender.
    pub(crate) of: String,
    pub(crate) unit: String,
    pub(crate) values: Vec<f64>,
    /// What the number is made of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) detail: Option<String>,
}

impl Figure {
    /// The lowest: of times and counts alike.
    pub(crate) fn best(&self) -> Option<f64> {
        self.values.iter().copied().min_by(f64::total_cmp)
    }
}

/// All of them, in the order they were first measured.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Figures(pub(crate) Vec<Figure>);

impl Figures {
    fn add(
        &mut self,
        section: Section,
        title: &str,
        of: &str,
        (value, unit): (f64, &str),
    ) -> &mut Figure {
        let found = self.0.iter().position(|figure| {
            figure.section == section.word() && figure.title == title && figure.of == of
        });
        let index = found.unwrap_or_else(|| {
            self.0.push(Figure {
                section: section.word().to_owned(),
                title: title.to_owned(),
                of: of.to_owned(),
                unit: unit.to_owned(),
                values: Vec::new(),
                detail: None,
            });
            self.0.len() - 1
        });
        self.0[index].values.push(value);
        &mut self.0[index]
    }

    /// The best of one, of a contender whose name begins so.
    pub(crate) fn best(&self, section: Section, title: &str, of: &str) -> Option<f64> {
        let found = self.0.iter().find(|figure| {
            figure.section == section.word() && figure.title == title && figure.of.starts_with(of)
        });
        found.and_then(Figure::best)
    }
}

/// The kinds of figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Section {
    Requests,
    Start,
    Known,
    Rules,
    Clients,
}

impl Section {
    pub(crate) const ALL: [Self; 5] = [
        Self::Requests,
        Self::Start,
        Self::Known,
        Self::Rules,
        Self::Clients,
    ];

    /// For `--only`, and in JSON.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Start => "start",
            Self::Known => "known",
            Self::Rules => "rules",
            Self::Clients => "clients",
        }
    }

    /// What it is about.
    pub(crate) fn heading(self) -> &'static str {
        match self {
            Self::Requests => "FUSE requests for one 9p request",
            Self::Start => "a view's start, and what it costs when nothing happens",
            Self::Known => "growth with the number of known files, cache none",
            Self::Rules => "growth with the number of rules, cache none",
            Self::Clients => "growth with the number of clients at once, cache none",
        }
    }
}

/// How much is measured.
#[derive(Debug, Clone)]
pub(crate) struct Extent {
    /// Files in the directory `few`.
    pub(crate) few: usize,
    /// Numbers of files to be known.
    pub(crate) known: Vec<usize>,
    /// The least time of a measurement.
    pub(crate) floor_ms: u64,
    /// How long nothing happens, in milliseconds.
    pub(crate) idle_ms: u64,
}

/// Where the figures of a round are measured.
pub(crate) struct Round<'a> {
    pub(crate) place: &'a Place,
    pub(crate) size: Size,
    pub(crate) extent: &'a Extent,
    pub(crate) interrupt: &'a Interrupt,
    pub(crate) figures: &'a mut Figures,
}

/// What the sections find.
pub(crate) fn prepare(sections: &[Section], place: &Place, extent: &Extent) -> Result<()> {
    if sections.contains(&Section::Known) {
        known::prepare(place, extent)?;
    }
    if sections.contains(&Section::Rules) {
        rules::prepare(place)?;
    }
    if !sections.is_empty() {
        crate::mounts::small_files(&place.export().join("few"), extent.few)?;
    }
    Ok(())
}

/// How often views that are compared with each other take turns in a round.
const TURNS: usize = 5;

/// Measures the sections once, for each view in turn.
pub(crate) fn round(sections: &[Section], views: &[View], round: &mut Round<'_>) -> Result<()> {
    for section in sections {
        for view in views {
            round.interrupt.check()?;
            match section {
                Section::Requests => requests::measure(view, round),
                Section::Start => start::measure(view, round),
                Section::Known => known::measure(view, round),
                Section::Rules => rules::measure(view, round),
                Section::Clients => clients::measure(view, round),
            }
            .map_err(|error| round.interrupt.check().err().unwrap_or(error))?;
        }
    }
    Ok(())
}

/// The same view, asked every time.
fn without_cache(view: &View) -> View {
    View {
        cache: Cache::None,
        ..view.clone()
    }
}

/// A seat on a view.
fn seat(view: &View, place: &Place, options: &[String]) -> Result<Seat> {
    Seat::take_with(&Contender::View(view.clone()), place, options)
}

/// A task in a directory of the export.
fn task(seat: &Seat, directory: &str, work: Work, threads: usize, floor_ms: u64) -> Task {
    Task {
        work,
        directory: seat.directory().join(directory),
        threads,
        floor_ms,
        no_cache_of_its_own: false,
    }
}

/// Microseconds an operation.
fn microseconds(sample: &Sample) -> f64 {
    1e6 / sample.rate()
}

/// A number with its thousands apart.
pub(crate) fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_set_apart() {
        let shown = [1, 999, 1000, 12_345, 1_000_000].map(thousands);
        assert_eq!(shown, ["1", "999", "1,000", "12,345", "1,000,000"]);
    }

    #[test]
    fn figures_of_rounds_gather_and_the_lowest_is_best() {
        let mut figures = Figures::default();
        for value in [3.0, 2.0, 4.0] {
            figures.add(Section::Start, "start", "view:auto/mediated", (value, "ms"));
        }
        assert_eq!(figures.0.len(), 1);
        assert_eq!(figures.best(Section::Start, "start", "view"), Some(2.0));
        assert_eq!(figures.best(Section::Known, "start", "view"), None);
    }
}
