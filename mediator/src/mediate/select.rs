//! Which decisions a breakpoint stops at and a trace shows.

use serde::{Deserialize, Serialize};

use super::event::Decision;
use crate::policy::{Mistakes, Policy, Users};

/// What is looked for; what is left out counts for every decision.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Selector {
    /// `path`, `do` and `when` of a rule, in the policy's own words: `path = "/site/**"\ndo = "owner"`.
    /// Users by number.
    pub rule: Option<String>,
    /// Refusals only.
    pub refused: bool,
    /// What this rule decided, by its index in the file.
    pub decided_by: Option<u32>,
}

/// A [`Selector`] that was understood.
#[derive(Debug)]
pub struct Selection {
    rule: Option<Policy>,
    refused: bool,
    decided_by: Option<u32>,
}

impl Selector {
    /// Understands it.
    ///
    /// # Errors
    ///
    /// The mistakes in `rule`.
    pub fn compile(&self, users: &dyn Users) -> Result<Selection, Mistakes> {
        let rule = match &self.rule {
            None => None,
            Some(rule) => {
                let text = format!("default = \"allow\"\n[[rule]]\naction = \"deny\"\n{rule}\n");
                Some(Policy::parse("selection", &text, users)?)
            }
        };
        Ok(Selection {
            rule,
            refused: self.refused,
            decided_by: self.decided_by,
        })
    }
}

impl Selection {
    /// Whether a decision is one that is looked for.
    #[must_use]
    pub fn takes(&self, decision: &Decision) -> bool {
        (!self.refused || decision.verdict.is_refused())
            && self
                .decided_by
                .is_none_or(|rule| decision.verdict.rule() == Some(rule))
            && self
                .rule
                .as_ref()
                .is_none_or(|rule| rule.selects(&decision.request))
    }
}
