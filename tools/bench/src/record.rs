//! All that a run found: what JSON holds and what every report is made of.

use serde::{Deserialize, Serialize};

use crate::figures::Figures;
use crate::machine::Machine;
use crate::results::Results;

/// A run.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) machine: Machine,
    pub(crate) rounds: u32,
    /// In the order of the tables.
    pub(crate) contenders: Vec<String>,
    /// Of those, the view with nothing said.
    pub(crate) default_view: String,
    /// The same of the program of `--against`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) other_default_view: Option<String>,
    pub(crate) results: Results,
    pub(crate) figures: Figures,
}
