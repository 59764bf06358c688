//! The differences that are known, from `expected.toml`.

use std::fs;
use std::path::Path;

use globset::GlobSet;
use serde::Deserialize;

use crate::cli::globs;
use crate::error::{Error, Result, at};
use crate::outcome::Outcome;
use crate::place::Place;

/// The outcome of a case that a race decides.
const VARIES: &str = "varies";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    difference: Vec<Text>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    /// Globs of cases.
    case: Vec<String>,
    /// Globs of places; every view if there are none.
    #[serde(default)]
    place: Vec<String>,
    /// `failed`, `skipped`, or `varies` where a race decides.
    outcome: String,
    /// The place that is no view of ours where the same case comes to the same; none if the difference
    /// is chosen.
    shown_on: Option<String>,
    /// Whether its cases are about device nodes.
    #[serde(default)]
    device_nodes: bool,
    reason: String,
}

/// One entry.
#[derive(Debug)]
pub(crate) struct Difference {
    cases: GlobSet,
    places: GlobSet,
    outcome: String,
    /// None where it is no rule of the kernel's but a choice.
    pub(crate) shown_on: Option<Place>,
    device_nodes: bool,
    /// How it is told of: its globs.
    pub(crate) title: String,
}

impl Difference {
    /// Whether the entry speaks of a case there.
    pub(crate) fn covers(&self, case: &str, place: Place) -> bool {
        self.cases.is_match(case) && self.places.is_match(place.to_string())
    }

    /// Whether it comes to what the entry says.
    pub(crate) fn is_met_by(&self, outcome: &Outcome) -> bool {
        self.varies() || self.outcome == outcome.word()
    }

    /// Whether it is no fault if it comes to the same as on the reference.
    pub(crate) fn varies(&self) -> bool {
        self.outcome == VARIES
    }
}

/// Whether a case is about device nodes, which no view makes, wherever it is run.
pub(crate) fn is_of_device_nodes(expected: &[Difference], case: &str) -> bool {
    expected
        .iter()
        .any(|entry| entry.device_nodes && entry.cases.is_match(case))
}

/// Every entry of the file.
pub(crate) fn read(path: &Path) -> Result<Vec<Difference>> {
    let text = fs::read_to_string(path).map_err(at("reading", path))?;
    parse(&text).map_err(|error| Error::Usage(format!("{}: {error}", path.display())))
}

/// The entries of a text.
pub(crate) fn parse(text: &str) -> Result<Vec<Difference>> {
    let file: File = toml::from_str(text).map_err(|error| Error::Usage(error.to_string()))?;
    let difference = |entry: Text| {
        let title = entry.case.join(", ");
        let wrong = |what: &str| Error::Usage(format!("difference {title}: {what}"));
        if entry.reason.trim().is_empty() {
            return Err(wrong("it has no reason"));
        }
        if !["failed", "skipped", VARIES].contains(&entry.outcome.as_str()) {
            return Err(wrong("outcome is `failed`, `skipped` or `varies`"));
        }
        let shown_on = match &entry.shown_on {
            None if entry.reason.starts_with("Chosen: ") => None,
            None => return Err(wrong("without shown_on its reason begins with `Chosen: `")),
            Some(name) => Some(
                Place::all()
                    .into_iter()
                    .find(|place| place.to_string() == *name && !place.is_view())
                    .ok_or_else(|| wrong("shown_on names no place, or a view"))?,
            ),
        };
        let everywhere = ["shared:*", "client:*", "guest:*"].map(str::to_owned);
        let places = if entry.place.is_empty() {
            globs(&everywhere)?
        } else {
            globs(&entry.place)?
        };
        Ok(Difference {
            cases: globs(&entry.case)?,
            places,
            outcome: entry.outcome,
            shown_on,
            device_nodes: entry.device_nodes,
            title,
        })
    };
    file.difference.into_iter().map(difference).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::place::Mode;

    #[test]
    fn shipped_file_is_read() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("expected.toml");
        assert!(!read(&path).unwrap().is_empty());
    }

    #[test]
    fn entry_covers_its_cases_and_places_alone() {
        let text = "[[difference]]\ncase = ['x/a*']\nplace = ['client:*']\noutcome = 'failed'\n\
                    shown_on = 'plain'\nreason = 'r'\n";
        let entry = parse(text).unwrap().remove(0);
        let (client, shared) = (Place::Client(Mode::DEFAULT), Place::Shared(Mode::DEFAULT));
        assert!(entry.covers("x/a/b", client) && !entry.covers("x/b", client));
        assert!(!entry.covers("x/a/b", shared));
        assert!(entry.is_met_by(&Outcome::Failed(String::new())));
        assert!(!entry.is_met_by(&Outcome::Passed));
    }

    #[test]
    fn entry_without_reason_or_evidence_is_refused() {
        let text = |outcome: &str, shown: &str, reason: &str| {
            format!(
                "[[difference]]\ncase = ['a']\noutcome = '{outcome}'\nshown_on = '{shown}'\n\
                 reason = '{reason}'\n"
            )
        };
        assert!(parse(&text("failed", "plain", "r")).is_ok());
        let chosen = text("failed", "plain", "Chosen: r").replace("shown_on = 'plain'\n", "");
        assert_eq!(parse(&chosen).unwrap()[0].shown_on, None);
        for (wrong, word) in [
            (text("failed", "plain", ""), "reason"),
            (text("slow", "plain", "r"), "outcome"),
            (text("failed", "shared:auto/auto", "r"), "shown_on"),
            (text("failed", "nowhere", "r"), "shown_on"),
            (
                text("failed", "plain", "r").replace("shown_on = 'plain'\n", ""),
                "Chosen",
            ),
        ] {
            let error = parse(&wrong).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
