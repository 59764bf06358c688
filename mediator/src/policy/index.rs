//! Which rules can hold at a path: found by the names that their globs begin with, so that a
//! thousand rules about other places cost nothing.
//!
//! A tree of names. A rule stands at the node of each of its globs' leading literal components;
//! without paths, or with a glob that begins with a wildcard, at the root. What can hold at a path
//! therefore stands at the nodes on the way to it, and what can hold below it at those or below its
//! own. Each node's rules are in the file's order, so that the first that holds at all is the
//! earliest of each node's first.

use std::collections::BTreeMap;

use super::model::Rule;

/// Rules by place; they are known by their index in the file.
#[derive(Clone, Debug, Default)]
pub(super) struct Index {
    /// In preorder, the root first: what is below a node follows it.
    nodes: Vec<Node>,
}

#[derive(Clone, Debug)]
struct Node {
    /// In ascending order, each once.
    rules: Vec<u32>,
    /// By name, in ascending order, with their places in `nodes`.
    children: Vec<(Box<[u8]>, usize)>,
    /// The place behind the last node below.
    end: usize,
    /// A rule whose way must be open stands strictly below.
    opens_below: bool,
}

/// A node that is still growing.
#[derive(Default)]
struct Bud {
    rules: Vec<u32>,
    opens: bool,
    children: BTreeMap<Vec<u8>, Bud>,
}

impl Index {
    pub(super) fn new(rules: &[Rule]) -> Self {
        let mut root = Bud::default();
        for (at, rule) in (0..).zip(rules) {
            if rule.paths.is_empty() {
                root.add(at, false);
            }
            for glob in &rule.paths {
                let mut bud = &mut root;
                for name in glob.leading_names() {
                    bud = bud.children.entry(name).or_default();
                }
                bud.add(at, rule.opens());
            }
        }
        let mut nodes = Vec::new();
        let _opens = root.unfold(&mut nodes);
        Self { nodes }
    }

    /// Rules that can hold anywhere.
    pub(super) fn anywhere(&self) -> &[u32] {
        self.nodes.first().map_or(&[], |root| &root.rules)
    }

    /// All rules that can hold at a path, node by node, the root first.
    pub(super) fn at<'i>(&'i self, path: &'i [u8]) -> impl Iterator<Item = &'i [u32]> {
        self.way(path).map(|(_, node)| node.rules.as_slice())
    }

    /// Whether a rule whose way must be open stands below a path, by its leading names.
    pub(super) fn opens_below(&self, path: &[u8]) -> bool {
        self.own(path).is_some_and(|node| node.opens_below)
    }

    /// All rules that can hold at one of two paths; with `below`, also at what is below them.
    pub(super) fn at_both<'i>(
        &'i self,
        one: &'i [u8],
        other: &'i [u8],
        reach: Reach,
    ) -> impl Iterator<Item = &'i [u32]> {
        let places = |path| self.way(path).map(|(place, _)| place);
        let shared = places(one).zip(places(other));
        let shared = shared.take_while(|(one, other)| one == other).count();
        let below = move |path| {
            let own = self.own(path).filter(|_| reach == Reach::Tree);
            // What is below follows in preorder.
            let first = self.way(path).last().map_or(0, |(place, _)| place + 1);
            let nodes = own.and_then(|own| self.nodes.get(first..own.end));
            nodes.unwrap_or_default().iter()
        };
        let on_the_way = self.way(one).chain(self.way(other).skip(shared));
        let nodes = on_the_way.map(|(_, node)| node);
        let nodes = nodes.chain(below(one)).chain(below(other));
        nodes.map(|node| node.rules.as_slice())
    }

    /// The nodes on the way to a path, as far as there are any.
    fn way<'i>(&'i self, path: &'i [u8]) -> impl Iterator<Item = (usize, &'i Node)> {
        let mut names = names(path);
        let root = self.nodes.first().map(|root| (0, root));
        std::iter::successors(root, move |(_, node)| {
            let name = names.next()?;
            let found = node.children.binary_search_by(|(its, _)| (**its).cmp(name));
            let (_, place) = node.children.get(found.ok()?)?;
            Some((*place, self.nodes.get(*place)?))
        })
    }

    /// The node of all of a path's names.
    fn own<'i>(&'i self, path: &'i [u8]) -> Option<&'i Node> {
        let (_, node) = self.way(path).nth(names(path).count())?;
        Some(node)
    }
}

/// How far a question reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// The name itself.
    Name,
    /// The name and all that is below.
    Tree,
}

impl Bud {
    fn add(&mut self, rule: u32, opens: bool) {
        if self.rules.last() != Some(&rule) {
            self.rules.push(rule);
        }
        self.opens |= opens;
    }

    /// Appends itself and all below; tells whether a way must be open to it. As deep as a glob has
    /// components.
    fn unfold(self, nodes: &mut Vec<Node>) -> bool {
        let place = nodes.len();
        nodes.push(Node {
            rules: self.rules,
            children: Vec::new(),
            end: 0,
            opens_below: false,
        });
        let mut children = Vec::new();
        let mut opens_below = false;
        for (name, bud) in self.children {
            children.push((name.into_boxed_slice(), nodes.len()));
            opens_below |= bud.unfold(nodes);
        }
        let end = nodes.len();
        if let Some(node) = nodes.get_mut(place) {
            node.children = children;
            node.end = end;
            node.opens_below = opens_below;
        }
        self.opens || opens_below
    }
}

/// The earliest rule for which `holds`, of lists that are each in ascending order.
pub(super) fn earliest<'i>(
    lists: impl Iterator<Item = &'i [u32]>,
    mut holds: impl FnMut(u32) -> bool,
) -> Option<u32> {
    let mut found: Option<u32> = None;
    for list in lists {
        let earlier = |rule: &u32| found.is_none_or(|found| *rule < found);
        let mut candidates = list.iter().copied().take_while(earlier);
        let first = candidates.find(|rule| holds(*rule));
        found = first.or(found);
    }
    found
}

fn names(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let within = path.strip_prefix(b"/").unwrap_or(path);
    let names = within.split(|byte| *byte == b'/');
    // The root has none.
    names.filter(move |_| !within.is_empty())
}

#[cfg(test)]
mod tests {
    use super::super::Policy;
    use super::super::tests::Nobody;
    use super::*;

    fn policy(paths: &[&str]) -> Policy {
        let mut text = String::from("default = \"deny\"\n");
        for path in paths {
            text.push_str(&format!(
                "[[rule]]\npath = {path}\ndo = \"any\"\naction = \"allow\"\n"
            ));
        }
        Policy::parse("t", &text, &Nobody).unwrap()
    }

    fn at(policy: &Policy, path: &str) -> Vec<u32> {
        let mut all: Vec<u32> = policy
            .index
            .at(path.as_bytes())
            .flatten()
            .copied()
            .collect();
        all.sort_unstable();
        all
    }

    #[test]
    fn rule_is_found_at_and_below_its_leading_names_only() {
        let policy = policy(&[
            "\"/a/b/**\"",
            "\"/a/*/c\"",
            "\"/**/x\"",
            "[\"/d\", \"/e/[f]\"]",
            "\"/\"",
            "'/a\\x2fb'",
        ]);
        assert_eq!(policy.index.anywhere(), [2, 4]);
        assert_eq!(at(&policy, "/"), [2, 4]);
        assert_eq!(at(&policy, "/a"), [1, 2, 4]);
        assert_eq!(at(&policy, "/a/b/c/d"), [0, 1, 2, 4]);
        assert_eq!(at(&policy, "/ab"), [2, 4]);
        assert_eq!(at(&policy, "/d"), [2, 3, 4]);
        assert_eq!(at(&policy, "/e/f"), [2, 3, 4]);
        let opens = |path: &str| policy.index.opens_below(path.as_bytes());
        assert!(opens("/") && opens("/a") && !opens("/a/b") && !opens("/d"));
        // `[f]` is no name: its rule stands at `/e` itself.
        assert!(!opens("/e"));
        let both: Vec<u32> = policy
            .index
            .at_both(b"/e", b"/q", Reach::Tree)
            .flatten()
            .copied()
            .collect();
        assert!(both.contains(&3) && !both.contains(&0), "{both:?}");
        assert_eq!(both.iter().filter(|rule| **rule == 2).count(), 1);
    }

    #[test]
    fn earliest_of_many_places_decides() {
        let lists: [&[u32]; 3] = [&[3, 5, 9], &[1, 4], &[0, 2]];
        let first = |wanted: &[u32]| earliest(lists.into_iter(), |rule| wanted.contains(&rule));
        assert_eq!(first(&[9, 4, 2]), Some(2));
        assert_eq!(first(&[9, 4]), Some(4));
        assert_eq!(first(&[9]), Some(9));
        assert_eq!(first(&[]), None);
    }
}
