//! From words at paths to rules.

use std::collections::{BTreeMap, BTreeSet};

use super::cover::{Avoid, Cover, WholeView};
use super::observed::{Needs, Seen};
use super::region::{self, Region, absorb};
use super::settle::settle;
use super::total;
use crate::op::{Word, Words};

/// More rules than this are put together by word, of which there are thirteen.
const RULES_MAX: usize = 30;

/// One rule to come.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) words: Words,
    pub(super) regions: Vec<Region>,
    /// Requests that need one of the words there.
    pub(super) requests: u64,
    /// Paths at which they do.
    pub(super) paths: usize,
}

/// A word's regions and what it should not reach.
#[derive(Debug, Default)]
struct Spread {
    regions: Vec<Region>,
    avoid: Avoid,
}

/// By word, one bit each.
type Spreads = BTreeMap<u16, Spread>;

/// The rules for what is needed, steering around what was refused.
pub(super) fn drafts(needs: &Needs, refused: &Needs, possible: &[&Seen]) -> Vec<Draft> {
    let mut spreads = spreads(needs, refused);
    widen_drawn_names(needs, &mut spreads);
    share_what_is_made(needs, &mut spreads);
    drop_free_looks(needs, &mut spreads);
    let mut rules = by_region(&spreads);
    if rules.len() > RULES_MAX {
        rules = by_word(&spreads);
    }
    for (words, regions) in &mut rules {
        let whole_view = whole_view_of(words.0);
        settle(regions, needs.moves.iter(), whole_view);
    }
    drop_needless(&mut rules);
    // Rules that only look come first, then in the order of their paths.
    rules.sort_by_key(|(words, regions)| {
        let first = regions.first().cloned();
        (words.meets(Words::CHANGE), first)
    });
    rules
        .into_iter()
        .map(|(words, regions)| draft(needs, words, regions, possible))
        .collect()
}

fn spreads(needs: &Needs, refused: &Needs) -> Spreads {
    let none = BTreeMap::new();
    let spread = |(word, paths): (&u16, &BTreeMap<Vec<u8>, _>)| {
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
        let regions = cover.regions(paths.keys().map(Vec::as_slice));
        (*word, Spread { regions, avoid })
    };
    needs.by_word.iter().map(spread).collect()
}

/// What was made and went again under a name that was drawn by lot (mktemp(3)) has another name
/// tomorrow: it may be made anywhere in its directory.
fn widen_drawn_names(needs: &Needs, spreads: &mut Spreads) {
    let none = BTreeMap::new();
    let at = |word: Word| needs.by_word.get(&(word as u16)).unwrap_or(&none);
    let Some(made) = spreads.get_mut(&(Word::Make as u16)) else {
        return;
    };
    for path in at(Word::Make).keys() {
        let went = at(Word::Remove).contains_key(path) || at(Word::Rename).contains_key(path);
        let top = region::parent(path).filter(|top| *top != b"/");
        let Some(top) = top.filter(|_| went && is_drawn(path)) else {
            continue;
        };
        let place = Region::Children(top.to_vec());
        if !made.avoid.is_in(&place) {
            absorb(&mut made.regions, place);
        }
    }
}

/// Whether a path ends as mktemp(3) makes names: with six letters and digits or more, both small
/// and capital or with digits among letters, behind whatever separates them.
fn is_drawn(path: &[u8]) -> bool {
    let end = path.rsplit(|byte| !byte.is_ascii_alphanumeric()).next();
    let end = end.unwrap_or_default();
    let has = |kind: fn(&u8) -> bool| end.iter().any(kind);
    let kinds = [
        has(u8::is_ascii_lowercase),
        has(u8::is_ascii_uppercase),
        has(u8::is_ascii_digit),
    ];
    end.len() >= 6 && kinds.into_iter().filter(|kind| *kind).count() >= 2
}

/// Files that are made by the dozen have names of the day: what was done to some of them (a new
/// name, a mode, removal) is done to others tomorrow.
fn share_what_is_made(needs: &Needs, spreads: &mut Spreads) {
    let make = Word::Make as u16;
    let Some(made) = spreads.get(&make) else {
        return;
    };
    let places: Vec<Region> = made
        .regions
        .iter()
        .filter(|region| match region {
            Region::Tree(top) => top != b"/",
            Region::Children(_) => true,
            Region::Exact(_) => false,
        })
        .cloned()
        .collect();
    for (word, spread) in spreads.iter_mut().filter(|(word, _)| **word != make) {
        let Some(paths) = needs.by_word.get(word) else {
            continue;
        };
        for place in &places {
            let touched = paths.keys().any(|path| place.covers(path));
            if touched && !spread.avoid.is_in(place) {
                absorb(&mut spread.regions, place.clone());
            }
        }
    }
}

/// The way to something allowed is open by itself: a directory above it needs no glob of its own.
fn drop_free_looks(needs: &Needs, spreads: &mut Spreads) {
    let look = Word::Look as u16;
    let all = spreads.values().flat_map(|spread| &spread.regions);
    let all: Vec<Region> = all.cloned().collect();
    let Some((looks, at)) = spreads.get_mut(&look).zip(needs.by_word.get(&look)) else {
        return;
    };
    looks.regions.retain(|region| {
        let Region::Exact(path) = region else {
            return true;
        };
        let only_directories = at.get(path).is_some_and(|need| !need.other_than_directory);
        // Of a chain of directories the deepest stays, so that the others lead to something.
        let leads = all.iter().any(|other| other.reaches_below(path));
        !(only_directories && leads)
    });
}

type Rules = Vec<(Words, Vec<Region>)>;

/// Regions with the same words share a rule: it reads as what may be done where.
fn by_region(spreads: &Spreads) -> Rules {
    let mut words_of: BTreeMap<&Region, u16> = BTreeMap::new();
    for (word, spread) in spreads {
        for region in &spread.regions {
            *words_of.entry(region).or_default() |= word;
        }
    }
    let mut rules: BTreeMap<u16, Vec<Region>> = BTreeMap::new();
    for (region, words) in words_of {
        rules.entry(words).or_default().push(region.clone());
    }
    let rules = rules.into_iter();
    rules
        .map(|(words, regions)| (Words(words), regions))
        .collect()
}

/// Words with the same regions share a rule: never more rules than words.
fn by_word(spreads: &Spreads) -> Rules {
    let mut rules: BTreeMap<&Vec<Region>, u16> = BTreeMap::new();
    for (word, spread) in spreads
        .iter()
        .filter(|(_, spread)| !spread.regions.is_empty())
    {
        *rules.entry(&spread.regions).or_default() |= word;
    }
    let rules = rules.into_iter();
    rules
        .map(|(regions, words)| (Words(words), regions.clone()))
        .collect()
}

/// Drops rules all of which others allow too: they would be mistakes, since they never decide.
fn drop_needless(rules: &mut Rules) {
    for at in (0..rules.len()).rev() {
        let needless = rules.get(at).is_some_and(|(words, regions)| {
            let others = || (0..).zip(rules.iter()).filter(|(other, _)| *other != at);
            let allowed = |word: u16, region: &Region| {
                others().any(|(_, (words, regions))| {
                    words.0 & word != 0 && regions.iter().any(|other| other.holds(region))
                })
            };
            let bits = (0..16).map(|bit| 1u16 << bit);
            let mut asked = bits.filter(|bit| words.0 & bit != 0);
            asked.all(|word| regions.iter().all(|region| allowed(word, region)))
        });
        if needless {
            rules.remove(at);
        }
    }
}

fn draft(needs: &Needs, words: Words, regions: Vec<Region>, possible: &[&Seen]) -> Draft {
    let is_here = |path: &Vec<u8>| regions.iter().any(|region| region.covers(path));
    let asked = needs.by_word.iter();
    let asked = asked.filter(|(word, _)| words.0 & **word != 0);
    let paths: BTreeSet<&Vec<u8>> = asked
        .flat_map(|(_, at)| at.keys())
        .filter(|path| is_here(path))
        .collect();
    let meets = |seen: &&Seen| {
        let request = &seen.request;
        request.needed_words().meets(words)
            && request.names.iter().chain(&request.second).any(is_here)
    };
    let requests = total(possible.iter().copied().filter(meets));
    Draft {
        words,
        requests,
        paths: paths.len(),
        regions,
    }
}

fn whole_view_of(words: u16) -> WholeView {
    if Words(words).meets(Words::CHANGE) {
        WholeView::Last
    } else {
        WholeView::May
    }
}

/// The same words, each on the whole view.
pub(super) fn whole_view(drafts: Vec<Draft>) -> Vec<Draft> {
    let words = drafts.iter().fold(0, |words, draft| words | draft.words.0);
    let first = drafts.into_iter().next();
    let whole = first.map(|draft| Draft {
        words: Words(words),
        regions: vec![Region::tree(b"/")],
        ..draft
    });
    whole.into_iter().collect()
}
