//! What is told of a decision to those who watch: a trace, a recording, the stepping console.

use serde::{Deserialize, Serialize};

use crate::policy::{Permit, Refusal, Request};

/// What was decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Verdict {
    /// Allowed.
    Allowed {
        /// The rule that decided: its index in the file; `None` for the default.
        rule: Option<u32>,
    },
    /// Told as done without being so, as a rule says.
    Pretended {
        /// The rule.
        rule: Option<u32>,
    },
    /// Allowed since the policy only observes; it would be refused.
    Observed {
        /// What the client would be told.
        errno: i32,
        /// The rule that would decide.
        rule: Option<u32>,
        /// Why, in words.
        why: String,
    },
    /// Refused.
    Refused {
        /// What the client is told.
        errno: i32,
        /// The rule that decided; `None` for the default, the floor, `readonly` or the id map.
        rule: Option<u32>,
        /// Why, in words.
        why: String,
    },
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Ended {
    /// Performed.
    Done,
    /// Refused by the policy or by hand.
    Refused,
    /// The export's own answer, an errno.
    Failed(i32),
}

/// A request with what was decided about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decision {
    /// All its facts.
    pub request: Request,
    /// What was decided.
    pub verdict: Verdict,
    /// Whether the stepping console decided.
    pub by_hand: bool,
    /// Which policy decided: 0 for the first, one more with each reload.
    pub epoch: u64,
}

/// A decision and how the request ended that it was made for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// Microseconds from the start of the view to the request.
    pub at_us: u64,
    /// The decision.
    pub decision: Decision,
    /// How the request ended. One request may have several decisions (`create` of what is there
    /// already, both ways of an exchange, each name of a listing).
    pub ended: Ended,
    /// Microseconds from the request to its end, time that it was held included.
    pub took_us: u64,
}

impl Verdict {
    /// The verdict in a decision.
    pub(super) fn of<O: crate::op::Operation>(decided: &Result<Permit<O>, Refusal>) -> Self {
        match decided {
            Ok(permit) => match permit.observed() {
                Some(refusal) => Self::Observed {
                    errno: refusal.errno.raw_os_error(),
                    rule: refusal.rule,
                    why: refusal.why.to_owned(),
                },
                None if permit.pretended().is_empty() => Self::Allowed {
                    rule: permit.rule(),
                },
                None => Self::Pretended {
                    rule: permit.rule(),
                },
            },
            Err(refusal) => Self::Refused {
                errno: refusal.errno.raw_os_error(),
                rule: refusal.rule,
                why: refusal.why.to_owned(),
            },
        }
    }

    /// Whether it is a refusal, or would be if the policy did not only observe.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        matches!(self, Self::Refused { .. } | Self::Observed { .. })
    }

    /// The rule that decided.
    #[must_use]
    pub fn rule(&self) -> Option<u32> {
        match self {
            Self::Allowed { rule }
            | Self::Pretended { rule }
            | Self::Observed { rule, .. }
            | Self::Refused { rule, .. } => *rule,
        }
    }
}
