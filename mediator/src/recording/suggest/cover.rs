//! From paths to the few regions that hold them.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::region::{self, DEPTH_MAX, Region, absorb, components, join};

/// A directory with more touched names than this is named as a whole; the view's top only with
/// more than [`REGIONS_MAX`], since naming it names everything.
const CHILDREN_MAX: usize = 4;
/// The most globs of one word; a list that is longer is read by nobody.
pub(super) const REGIONS_MAX: usize = 16;
/// Beyond this many, refused requests are no longer steered around.
const STEERED_MAX: usize = 512;

/// The most nodes of a tree of paths; beyond, what is new is not told apart from its directory.
const NODES_MAX: usize = 1_000_000;

/// Paths as a tree.
#[derive(Debug, Default)]
struct Node {
    touched: bool,
    /// Something deeper than is written out was touched.
    deep: bool,
    children: BTreeMap<Vec<u8>, Node>,
}

/// What a generalisation should not reach: paths at which the word was refused.
#[derive(Debug, Default)]
pub(super) struct Avoid {
    paths: BTreeSet<Vec<u8>>,
    /// The directories that they lie in.
    parents: HashSet<Vec<u8>>,
}

impl Avoid {
    pub(super) fn new(paths: BTreeSet<Vec<u8>>) -> Self {
        let parents = paths.iter().filter_map(|path| region::parent(path));
        let parents = parents.map(<[u8]>::to_vec).collect();
        Self { paths, parents }
    }

    /// Whether one of them is in a region.
    pub(super) fn is_in(&self, region: &Region) -> bool {
        match region {
            Region::Exact(path) => self.paths.contains(path),
            Region::Children(top) => self.is_child_of(top),
            Region::Tree(top) => self.is_in_tree(top),
        }
    }

    fn is_in_tree(&self, top: &[u8]) -> bool {
        let below = if top == b"/" {
            b"/".to_vec()
        } else {
            [top, b"/"].concat()
        };
        let mut from = self.paths.range(below.clone()..);
        self.paths.contains(top) || from.next().is_some_and(|path| path.starts_with(&below))
    }

    fn is_child_of(&self, top: &[u8]) -> bool {
        self.parents.contains(top)
    }
}

/// How one word's paths are put together.
pub(super) struct Cover<'a> {
    /// What to leave out if it can be.
    pub(super) avoid: &'a Avoid,
    /// Whether the whole view may be named where it is not the only way.
    pub(super) whole_view: WholeView,
}

/// Whether a word may be given on `/**` because many names at the top were touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WholeView {
    /// It changes nothing.
    May,
    /// Only if there is no other way.
    Last,
}

impl Cover<'_> {
    /// The regions that hold all of `paths`, at most [`REGIONS_MAX`].
    pub(super) fn regions<'p>(&self, paths: impl Iterator<Item = &'p [u8]>) -> Vec<Region> {
        let mut root = Node::default();
        let mut room = NODES_MAX;
        for path in paths {
            root.touch(path, &mut room);
        }
        let mut found = Vec::new();
        self.gather(&root, b"/", &mut found);
        if found.len() > STEERED_MAX {
            found.clear();
            let nothing = Avoid::default();
            let anywhere = Cover {
                avoid: &nothing,
                ..*self
            };
            anywhere.gather(&root, b"/", &mut found);
        }
        if found.len() > STEERED_MAX {
            return vec![Region::tree(b"/")];
        }
        self.fold(&mut found);
        found.sort();
        found
    }

    fn gather(&self, node: &Node, path: &[u8], out: &mut Vec<Region>) {
        if node.deep {
            out.push(Region::tree(path));
            return;
        }
        let mut inside = Vec::new();
        for (name, child) in &node.children {
            self.gather(child, &join(path, name), &mut inside);
        }
        let few = if path == b"/" {
            REGIONS_MAX
        } else {
            CHILDREN_MAX
        };
        let many = node.children.len() > few || inside.len() > few;
        let flat = node
            .children
            .values()
            .all(|child| child.children.is_empty() && !child.deep);
        if many && flat && !self.avoid.is_child_of(path) {
            inside = vec![Region::Children(path.to_vec())];
        } else if many && !flat && self.may_be_tree(path) {
            out.push(Region::tree(path));
            return;
        }
        if node.touched {
            out.push(Region::exact(path));
        }
        out.append(&mut inside);
    }

    fn may_be_tree(&self, path: &[u8]) -> bool {
        let is_view = path == b"/" && self.whole_view == WholeView::Last;
        !is_view && !self.avoid.is_in_tree(path)
    }

    /// Makes few regions of many: the deepest directory that holds several is named as a whole,
    /// first those without anything to avoid.
    pub(super) fn fold(&self, regions: &mut Vec<Region>) {
        while regions.len() > REGIONS_MAX {
            let mut within: BTreeMap<&[u8], usize> = BTreeMap::new();
            for region in regions.iter() {
                let mut at = region.base();
                while let Some(up) = region::parent(at) {
                    *within.entry(up).or_default() += 1;
                    at = up;
                }
            }
            let shared = within.iter().filter(|(_, count)| **count > 1);
            let best = shared.min_by_key(|(path, count)| {
                let depth = components(path).count();
                let avoided = !self.may_be_tree(path);
                (avoided, std::cmp::Reverse((depth, **count)))
            });
            let top = best.map_or_else(|| b"/".to_vec(), |(path, _)| path.to_vec());
            if top == b"/" && self.folds_names_at_the_top(regions) {
                continue;
            }
            if !absorb(regions, Region::tree(&top)) {
                // Not reached: a directory that holds two regions is in neither.
                *regions = vec![Region::tree(b"/")];
            }
        }
    }
}

impl Cover<'_> {
    /// Before the whole view is named, its top's own names are, without what is below them;
    /// whether that made fewer regions.
    fn folds_names_at_the_top(&self, regions: &mut Vec<Region>) -> bool {
        let names = Region::Children(b"/".to_vec());
        let held = regions.iter().filter(|region| names.holds(region));
        held.count() > 1 && !self.avoid.is_child_of(b"/") && absorb(regions, names)
    }
}

impl Node {
    /// Adds a path, for which there is room for so many nodes.
    fn touch(&mut self, path: &[u8], room: &mut usize) {
        let mut node = self;
        for (depth, component) in components(path).enumerate() {
            let is_new = !node.children.contains_key(component);
            if depth == DEPTH_MAX || (is_new && *room == 0) {
                node.deep = true;
                return;
            }
            *room -= usize::from(is_new);
            node = node.children.entry(component.to_vec()).or_default();
        }
        node.touched = true;
    }
}
