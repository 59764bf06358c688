//! The rules that a recording's requests would have needed under `default = "deny"`.
//!
//! Each word is put together on its own: the paths at which it was asked for become a few regions
//! (a directory with many touched names becomes `/dir/*` or `/dir/**`), and words with the same
//! regions share a rule. So there are never more rules than words, no rule says `any`, and what a
//! rule allows was asked for. Requests that were refused are steered around.
//!
//! Nothing of a recording is trusted: names become globs of harmless characters, comments hold
//! escaped names, and what no policy can allow is left out.

mod cover;
mod head;
mod observed;
mod region;
mod settle;
mod text;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use cover::{Avoid, Cover, WholeView};
use head::Head;
use observed::{Needs, Seen};
use region::Region;
use settle::settle;

pub use observed::{Observed, Spans};

use crate::op::{Word, Words};
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

/// One rule to come.
#[derive(Debug)]
struct Draft {
    words: Words,
    regions: Vec<Region>,
    /// Requests that need one of the words.
    requests: u64,
    /// Paths at which they do.
    paths: usize,
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
        Ok((text, policy))
    };
    let (mut rules, mut policy) = written(&drafts)?;
    let mut count = drafts.len();
    let is_coarse = refuses(&policy, &possible) > 0;
    if is_coarse {
        // Certain: no move can leave the whole view.
        let whole = whole_view(drafts);
        count = whole.len();
        (rules, policy) = written(&whole)?;
    }
    match refuses(&policy, &possible) {
        0 => {}
        more => return Err(SuggestError::Wrong(more)),
    }
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

fn drafts(needs: &Needs, refused: &Needs, possible: &[&Seen]) -> Vec<Draft> {
    let mut by_word: BTreeMap<u16, Vec<Region>> = BTreeMap::new();
    for (word, paths) in &needs.by_word {
        let none = BTreeMap::new();
        let refused = refused.by_word.get(word).unwrap_or(&none);
        let avoid: BTreeSet<Vec<u8>> = refused
            .keys()
            .filter(|path| !paths.contains_key(*path))
            .cloned()
            .collect();
        let avoid = Avoid::new(avoid);
        let cover = Cover {
            avoid: &avoid,
            whole_view: whole_view_of(*word),
        };
        by_word.insert(*word, cover.regions(paths.keys().map(Vec::as_slice)));
    }
    drop_free_looks(needs, &mut by_word);
    for (word, regions) in &mut by_word {
        settle(regions, needs.moves.iter(), whole_view_of(*word));
    }
    let mut shared: BTreeMap<Vec<Region>, u16> = BTreeMap::new();
    for (word, regions) in by_word {
        if !regions.is_empty() {
            *shared.entry(regions).or_default() |= word;
        }
    }
    let mut drafts: Vec<Draft> = shared
        .into_iter()
        .map(|(regions, words)| draft(needs, Words(words), regions, possible))
        .collect();
    // In the order of the words: looking comes before changing.
    drafts.sort_by_key(|draft| draft.words.0.trailing_zeros());
    drafts
}

fn draft(needs: &Needs, words: Words, regions: Vec<Region>, possible: &[&Seen]) -> Draft {
    let asked = needs.by_word.iter();
    let asked = asked.filter(|(word, _)| words.0 & **word != 0);
    let paths: BTreeSet<&Vec<u8>> = asked.flat_map(|(_, at)| at.keys()).collect();
    let meets = |seen: &&Seen| seen.request.needed_words().meets(words);
    Draft {
        words,
        regions,
        requests: total(possible.iter().copied().filter(meets)),
        paths: paths.len(),
    }
}

fn whole_view_of(word: u16) -> WholeView {
    if Words(word).meets(Words::CHANGE) {
        WholeView::Last
    } else {
        WholeView::May
    }
}

/// The way to something allowed is open by itself: a directory above it needs no glob of its own.
fn drop_free_looks(needs: &Needs, by_word: &mut BTreeMap<u16, Vec<Region>>) {
    let look = Word::Look as u16;
    let others: Vec<Region> = by_word.values().flatten().cloned().collect();
    let Some((looks, at)) = by_word.get_mut(&look).zip(needs.by_word.get(&look)) else {
        return;
    };
    looks.retain(|region| {
        let Region::Exact(path) = region else {
            return true;
        };
        let only_directories = at.get(path).is_some_and(|need| !need.other_than_directory);
        // Of regions that are kept, or below those that are: the deepest of a chain stays.
        let leads = others.iter().any(|other| other.reaches_below(path));
        !(only_directories && leads)
    });
}

/// The same words, each on the whole view.
fn whole_view(drafts: Vec<Draft>) -> Vec<Draft> {
    let words = drafts.iter().fold(0, |words, draft| words | draft.words.0);
    let first = drafts.into_iter().next();
    let whole = first.map(|draft| Draft {
        words: Words(words),
        regions: vec![Region::tree(b"/")],
        ..draft
    });
    whole.into_iter().collect()
}
