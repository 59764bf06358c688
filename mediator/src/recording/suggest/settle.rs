//! Regions that renames and links cannot leave.
//!
//! The policy refuses a move by which an allowing rule would begin to hold
//! ([`crate::policy::Policy::carries`]). So each word's regions must hold for the old name wherever
//! they hold for the new one; where they do not, they are made to.

use super::cover::{Avoid, Cover, REGIONS_MAX, WholeView};
use super::observed::{Move, Moved};
use super::region::{Region, absorb};

/// Each pass only adds; so many are never needed but for a file that was made to need them.
const PASSES_MAX: usize = 16;

/// Adds to one word's regions until no move is refused because of them.
pub(super) fn settle<'m>(
    regions: &mut Vec<Region>,
    moves: impl Iterator<Item = &'m Move> + Clone,
    whole_view: WholeView,
) {
    let nothing = Avoid::default();
    let cover = Cover {
        avoid: &nothing,
        whole_view,
    };
    for _ in 0..PASSES_MAX {
        let mut grew = false;
        for step in moves.clone() {
            grew |= keep(regions, step);
            if regions.len() > 2 * REGIONS_MAX {
                cover.fold(regions);
            }
        }
        if !grew {
            regions.sort();
            return;
        }
    }
    *regions = vec![Region::tree(b"/")];
}

/// Makes the regions hold for a move's old name as they do for its new one; whether they grew.
fn keep(regions: &mut Vec<Region>, step: &Move) -> bool {
    let Move { old, new, what } = step;
    let there = regions.iter().any(|region| region.covers(new));
    let here = regions.iter().any(|region| region.covers(old));
    let exact_is_missing = there && !here;
    if *what == Moved::File {
        return exact_is_missing && absorb(regions, Region::exact(old));
    }
    let is_tree = |path: &[u8]| regions.iter().any(|region| region.is_tree_of(path));
    if is_tree(new) {
        return !is_tree(old) && absorb(regions, Region::tree(old));
    }
    if regions.iter().any(|region| region.reaches_below(new)) {
        // Globs below the two would have to be the same; the whole of both is.
        let grew = absorb(regions, Region::tree(new));
        return absorb(regions, Region::tree(old)) || grew;
    }
    exact_is_missing && absorb(regions, Region::exact(old))
}
