//! What `limit` counts: the bytes and names below some paths.
//!
//! Which requests add to which area follows from names alone, so that whoever counts a tree and
//! whoever judges a request mean the same. The counting itself is not the policy's: it is done
//! with a permit in hand, by [`crate::mediate`].

use super::model::Policy;
use super::paths::Glob;

/// Limits on what is below some paths; at least one of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// The sizes of all regular files together, in bytes.
    pub bytes: Option<u64>,
    /// How many names there may be.
    pub entries: Option<u64>,
}

impl Totals {
    pub(super) fn is_none(self) -> bool {
        self == Self::default()
    }
}

/// One `limit` with `total` or `entries`.
#[derive(Clone, Debug)]
pub struct Area {
    pub(super) paths: Vec<Glob>,
    pub(super) totals: Totals,
    pub(super) rule: Option<u32>,
}

impl Area {
    /// Its limits.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// The rule, by its index in the file; `None`: the view's own limit.
    #[must_use]
    pub fn rule(&self) -> Option<u32> {
        self.rule
    }

    /// Whether it is all of the view.
    #[must_use]
    pub fn is_view(&self) -> bool {
        self.paths.is_empty()
    }

    /// Whether a path is in it.
    #[must_use]
    pub fn holds(&self, path: &[u8]) -> bool {
        self.is_view() || self.paths.iter().any(|glob| glob.matches(path))
    }

    /// Whether something below a path can be in it.
    #[must_use]
    pub fn reaches_below(&self, path: &[u8]) -> bool {
        let reaches = |glob: &Glob| glob.reaches_below(glob.after(path));
        self.is_view() || self.paths.iter().any(reaches)
    }
}

/// Some of a policy's areas, by their places in [`Policy::areas`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Areas(u32);

/// As many as [`Areas`] has room for.
pub(super) const AREAS_MAX: usize = 32;

impl Areas {
    /// Whether it is none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether the area at a place is one of them.
    #[must_use]
    pub fn contains(self, place: usize) -> bool {
        place < AREAS_MAX && self.0 & (1 << place) != 0
    }

    /// One of them, for tests of what is charged.
    #[cfg(test)]
    pub(crate) fn for_test(place: usize) -> Self {
        Self(1 << place)
    }

    pub(super) fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl Policy {
    /// What is counted, the view's own limit first.
    #[must_use]
    pub fn areas(&self) -> &[Area] {
        &self.areas
    }

    pub(super) fn areas_at(&self, path: Option<&[u8]>) -> Areas {
        let holds = |area: &Area| area.is_view() || path.is_some_and(|path| area.holds(path));
        let places = (0..AREAS_MAX).zip(&self.areas);
        let held = places.filter(|(_, area)| holds(area));
        Areas(held.fold(0, |bits, (place, _)| bits | 1 << place))
    }

    pub(super) fn work_out_areas(&self) -> Vec<Area> {
        let view = Area {
            paths: Vec::new(),
            totals: self.totals,
            rule: None,
        };
        let rules = (0..).zip(&self.rules).map(|(index, rule)| Area {
            paths: rule.paths.clone(),
            totals: rule.totals,
            rule: Some(index),
        });
        let areas = std::iter::once(view).chain(rules);
        areas.filter(|area| !area.totals.is_none()).collect()
    }
}
