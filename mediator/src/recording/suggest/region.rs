//! Parts of a view that a glob names.

use crate::policy::glob_of;

/// The deepest path that is written out; what lies deeper is a tree. A glob has at most 62
/// components.
pub(super) const DEPTH_MAX: usize = 60;

/// A part of the view. Paths are `/a/b`; the root is `/`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Region {
    /// This path alone.
    Exact(Vec<u8>),
    /// All that lies directly in this directory, and not the directory.
    Children(Vec<u8>),
    /// This path and all below.
    Tree(Vec<u8>),
}

/// The directory that a path lies in; `None` for the root.
pub(super) fn parent(path: &[u8]) -> Option<&[u8]> {
    if path == b"/" {
        return None;
    }
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) if at > 0 => path.get(..at),
        Some(_) | None => Some(b"/"),
    }
}

/// Whether `path` lies below `top`, at any depth.
pub(super) fn is_below(path: &[u8], top: &[u8]) -> bool {
    if top == b"/" {
        return path != b"/";
    }
    path.strip_prefix(top)
        .is_some_and(|rest| rest.first() == Some(&b'/'))
}

/// A path's components.
pub(super) fn components(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/')
        .filter(|component| !component.is_empty())
}

/// A path and a name in it.
pub(super) fn join(path: &[u8], name: &[u8]) -> Vec<u8> {
    let top: &[u8] = if path == b"/" { b"" } else { path };
    [top, b"/", name].concat()
}

impl Region {
    /// The path that it is written with.
    pub(super) fn base(&self) -> &[u8] {
        match self {
            Self::Exact(path) | Self::Children(path) | Self::Tree(path) => path,
        }
    }

    /// A region for one path; for one that is too deep to be written out, the tree it lies in.
    pub(super) fn exact(path: &[u8]) -> Self {
        match clipped(path) {
            None => Self::Exact(path.to_vec()),
            Some(tree) => Self::Tree(tree),
        }
    }

    /// A region for a path and all below.
    pub(super) fn tree(path: &[u8]) -> Self {
        Self::Tree(clipped(path).unwrap_or_else(|| path.to_vec()))
    }

    /// Whether a path is in it.
    pub(super) fn covers(&self, path: &[u8]) -> bool {
        match self {
            Self::Exact(exact) => exact == path,
            Self::Children(top) => parent(path) == Some(top),
            Self::Tree(top) => top == path || is_below(path, top),
        }
    }

    /// Whether something strictly below a path is in it.
    pub(super) fn reaches_below(&self, path: &[u8]) -> bool {
        match self {
            Self::Exact(exact) => is_below(exact, path),
            Self::Children(top) => top == path || is_below(top, path),
            Self::Tree(top) => top == path || is_below(top, path) || is_below(path, top),
        }
    }

    /// Whether it is a tree that holds a path.
    pub(super) fn is_tree_of(&self, path: &[u8]) -> bool {
        matches!(self, Self::Tree(_)) && self.covers(path)
    }

    /// Whether all of `other` is in it.
    pub(super) fn holds(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tree(_), other) => self.covers(other.base()),
            (Self::Children(_), Self::Exact(path)) => self.covers(path),
            (_, other) => self == other,
        }
    }

    /// The glob of a policy's `path`, printable, without a quote.
    pub(super) fn glob(&self) -> String {
        let base = self.base();
        let mut text = String::new();
        for component in components(base) {
            text.push('/');
            text.push_str(&glob_of(component));
        }
        match self {
            Self::Exact(_) if text.is_empty() => text.push('/'),
            Self::Exact(_) => {}
            Self::Children(_) => text.push_str("/*"),
            Self::Tree(_) => text.push_str("/**"),
        }
        text
    }
}

/// A path's first components, if it has more than can be written out.
fn clipped(path: &[u8]) -> Option<Vec<u8>> {
    components(path).nth(DEPTH_MAX)?;
    let kept: Vec<&[u8]> = components(path).take(DEPTH_MAX).collect();
    Some([b"/".as_slice(), &kept.join(&b'/')].concat())
}

/// Adds a region and drops those that it makes needless; whether something changed.
pub(super) fn absorb(regions: &mut Vec<Region>, region: Region) -> bool {
    if regions.iter().any(|known| known.holds(&region)) {
        return false;
    }
    regions.retain(|known| !region.holds(known));
    regions.push(region);
    true
}
