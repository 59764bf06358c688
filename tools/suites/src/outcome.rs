//! What became of a suite's cases.

use serde::{Deserialize, Serialize};

/// What became of one case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Outcome {
    Passed,
    /// With what it said.
    Failed(String),
    /// With its reason.
    Skipped(String),
}

impl Outcome {
    /// `passed`, `failed` or `skipped`.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed(_) => "failed",
            Self::Skipped(_) => "skipped",
        }
    }

    /// What it said.
    pub(crate) fn why(&self) -> &str {
        match self {
            Self::Passed => "",
            Self::Failed(why) | Self::Skipped(why) => why,
        }
    }

    /// Passed if so, else failed with what was said.
    pub(crate) fn of(passed: bool, said: impl FnOnce() -> String) -> Self {
        if passed {
            Self::Passed
        } else {
            Self::Failed(said())
        }
    }
}

/// A case and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Case {
    /// `SUITE/CASE`.
    pub(crate) name: String,
    pub(crate) outcome: Outcome,
}

impl Case {
    /// One of a suite.
    pub(crate) fn new(suite: &str, case: &str, outcome: Outcome) -> Self {
        Self {
            name: format!("{suite}/{case}"),
            outcome,
        }
    }

    /// The part before the first `/`.
    pub(crate) fn suite(&self) -> &str {
        self.name.split('/').next().unwrap_or_default()
    }
}
