//! The rules that a recording's requests would have needed under `default = "deny"`.
//!
//! Each word is put together on its own: the paths at which it was asked for become a few regions
//! (a directory with many touched names becomes `/dir/*` or `/dir/**`). Where many files are made,
//! what else was done to some of them is allowed for all: their names are seldom the same twice.
//! Then regions with the same words share a rule. No rule says `any`, and nothing is allowed that
//! was not asked for somewhere in its region. Requests that were refused are steered around.
//!
//! Nothing of a recording is trusted: names become globs of harmless characters, comments hold
//! escaped names, and what no policy can allow is left out.

mod cover;
mod head;
mod observed;
mod plan;
mod region;
mod settle;
mod text;

#[cfg(test)]
mod tests;

use head::Head;
use observed::{Needs, Seen};
use plan::{Draft, drafts, whole_view};

pub use observed::{Observed, Spans};

use crate::policy::{Mistakes, Policy, Users};

/// Why nothing is suggested.
#[derive(Debug, thiserror::Error)]
pub enum SuggestError {
    /// So many different requests do not fit memory.
    #[error("it holds more different requests than are kept in memory: record for a shorter time")]
    TooMany,
    /// A request that cannot be kept.
    #[error("a request cannot be kept")]
    Request,
    /// There is nothing to allow.
    #[error(
        "no request was allowed whose path is known: record while the guest works, under a policy that allows it"
    )]
    Nothing,
    /// The policy to begin with has mistakes.
    #[error("{0}")]
    From(#[from] Mistakes),
    /// A suggestion refuses what it was made for; a fault of this program.
    #[error(
        "the suggested policy would refuse {0} recorded requests; this is a fault of virtfs-mediator, please report it"
    )]
    Wrong(u64),
}

/// A policy to begin with: its settings and restricting rules are kept.
#[derive(Clone, Copy, Debug)]
pub struct From<'t> {
    /// The file's name, for messages.
    pub file: &'t str,
    /// What is in it.
    pub text: &'t str,
}

/// What is suggested.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suggestion {
    /// A policy file.
    pub text: String,
    /// How many rules it suggests, kept ones not counted.
    pub rules: usize,
    /// Requests that it allows, of those that were allowed.
    pub allowed: u64,
    /// No narrower rules were found than one for the whole view.
    pub is_coarse: bool,
}

/// Suggests a policy for what was observed.
///
/// # Errors
///
/// There is nothing to suggest, or `from` has mistakes.
pub fn suggest(
    observed: &Observed,
    from: Option<From<'_>>,
    users: &dyn Users,
) -> Result<Suggestion, SuggestError> {
    let head = Head::new(from, users)?;
    let (possible, impossible): (Vec<&Seen>, Vec<&Seen>) =
        observed.allowed().partition(|seen| head.can_allow(seen));
    let nameless = impossible
        .iter()
        .filter(|seen| seen.request.names.is_empty());
    let nameless = total(nameless.copied());
    if possible.is_empty() {
        return Err(SuggestError::Nothing);
    }
    let needs = Needs::of(possible.iter().copied());
    let drafts = drafts(&needs, &Needs::of(observed.refused()), &possible);
    let written = |drafts: &[Draft]| -> Result<(String, Policy), SuggestError> {
        let text = text::policy(&head, drafts);
        let policy = Policy::parse("the suggested policy", &text, users)?;
        match refuses(&policy, &possible) {
            0 => Ok((text, policy)),
            more => Err(SuggestError::Wrong(more)),
        }
    };
    let (rules, policy, count, is_coarse) = match written(&drafts) {
        Ok((rules, policy)) => (rules, policy, drafts.len(), false),
        Err(_fault) => {
            // Certain: no move can leave the whole view.
            let whole = whole_view(drafts);
            let (rules, policy) = written(&whole)?;
            (rules, policy, whole.len(), true)
        }
    };
    let too_much: Vec<&Seen> = observed
        .refused()
        .filter(|seen| policy.decide_request(&seen.request).is_ok())
        .collect();
    let told = text::Told {
        allowed: total(possible.iter().copied()),
        refused: total(observed.refused()),
        too_much: &too_much,
        impossible: total(impossible.iter().copied()) - nameless,
        nameless,
        replacing: needs.replacing,
        is_coarse,
        set_id: total(possible.iter().copied().filter(|seen| asks_set_id(seen))),
    };
    Ok(Suggestion {
        text: format!("{}{rules}", text::comment(&told)),
        rules: count,
        allowed: told.allowed,
        is_coarse,
    })
}

fn total<'s>(all: impl Iterator<Item = &'s Seen>) -> u64 {
    all.fold(0, |sum: u64, seen| sum.saturating_add(seen.count))
}

fn refuses(policy: &Policy, all: &[&Seen]) -> u64 {
    let refused = |seen: &&Seen| policy.decide_request(&seen.request).is_err();
    total(all.iter().copied().filter(refused))
}

/// Whether bits are asked for that `set_id` judges.
fn asks_set_id(seen: &Seen) -> bool {
    use crate::op::AnyAsk;
    let mode = match seen.request.ask {
        AnyAsk::Birth(birth) => Some(birth.mode),
        AnyAsk::Changes(changes) => changes.mode,
        AnyAsk::Nothing | AnyAsk::Open(_) | AnyAsk::Rename(_) | AnyAsk::Xattr(_) => None,
    };
    mode.is_some_and(crate::ids::Mode::has_set_id)
}
