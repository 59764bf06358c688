//! What a directory holds, and what a walk through it may list.

use std::collections::{HashMap, HashSet};

use crate::wire::Listed;

/// A directory as both sides know it.
#[derive(Debug, Default)]
pub(super) struct Directory {
    /// Names that are there, and when each came.
    now: HashMap<Vec<u8>, u64>,
    ever: HashSet<Vec<u8>>,
    clock: u64,
    /// When a name last went.
    last_removal: u64,
    /// On tmpfs (Linux 6.18), a listing whose rest was removed starts again at the first entry:
    /// d_first_child() stands in for "none" in offset_dir_lookup(), fs/libfs.c.
    may_start_again: bool,
}

impl Directory {
    pub(super) fn new(on_tmpfs: bool) -> Self {
        Self {
            may_start_again: on_tmpfs,
            ..Self::default()
        }
    }

    pub(super) fn add(&mut self, name: &[u8]) {
        self.clock += 1;
        self.now.insert(name.to_vec(), self.clock);
        self.ever.insert(name.to_vec());
    }

    pub(super) fn remove(&mut self, name: &[u8]) {
        self.clock += 1;
        self.last_removal = self.clock;
        self.now.remove(name);
    }

    pub(super) fn has(&self, name: &[u8]) -> bool {
        self.now.contains_key(name)
    }

    /// Changes so far.
    pub(super) fn clock(&self) -> u64 {
        self.clock
    }

    fn has_had(&self, name: &[u8]) -> bool {
        name == b"." || name == b".." || self.ever.contains(name)
    }

    /// Whether the name has been there since.
    fn stayed(&self, name: &[u8], since: u64) -> bool {
        let came = self.now.get(name);
        name == b"." || name == b".." || came.is_some_and(|came| *came <= since)
    }

    /// Whether names may be listed twice through no fault of the mediator's.
    fn may_have_started_again(&self, since: u64) -> bool {
        self.may_start_again && self.last_removal > since
    }

    fn that_stayed(&self, since: u64) -> impl Iterator<Item = &[u8]> {
        let dots = [&b"."[..], b".."];
        let names = self.now.iter().filter(move |(_, came)| **came <= since);
        dots.into_iter()
            .chain(names.map(|(name, _)| name.as_slice()))
    }
}

/// One walk from the start of a directory on, by one handle.
#[derive(Debug, Default)]
pub(super) struct Walk {
    /// The directory's clock when it began.
    since: u64,
    listed: Vec<Listed>,
    /// Somebody jumped: nothing is promised any more.
    is_broken: bool,
}

impl Walk {
    pub(super) fn start(directory: &Directory) -> Self {
        Self {
            since: directory.clock(),
            ..Self::default()
        }
    }

    /// Where the next page starts.
    pub(super) fn cookie(&self) -> u64 {
        self.listed.last().map_or(0, |last| last.cookie)
    }

    pub(super) fn break_off(&mut self) {
        self.is_broken = true;
    }

    /// Goes back to a place where this walk has been, and returns its cookie. In a directory that
    /// has not changed, the same must follow.
    pub(super) fn go_back(&mut self, which: usize, directory: &Directory) -> (u64, Vec<Listed>) {
        let at = which % (self.listed.len() + 1);
        let before = self.listed.split_off(at);
        let same = !self.is_broken && directory.clock() == self.since;
        self.is_broken |= !same;
        (self.cookie(), if same { before } else { Vec::new() })
    }

    /// Takes a page; `expected` is what the walk listed here before.
    pub(super) fn take(&mut self, page: &[Listed], expected: &[Listed], directory: &Directory) {
        for entry in page {
            let name = &entry.name;
            assert!(
                directory.has_had(name),
                "{} was never there",
                name.escape_ascii()
            );
            let again = self.listed.iter().any(|listed| listed.name == *name);
            let stayed = directory.stayed(name, self.since);
            let excused = self.is_broken || directory.may_have_started_again(self.since);
            let twice = again && stayed && !excused;
            assert!(!twice, "{} was listed twice", name.escape_ascii());
            self.listed.push(entry.clone());
        }
        for (one, other) in page.iter().zip(expected) {
            let same = one.name == other.name && one.cookie == other.cookie;
            assert!(
                same,
                "a place in the directory leads elsewhere the second time"
            );
        }
    }

    /// The walk came to the directory's end; `is_hidden` names are never listed.
    pub(super) fn end(&self, directory: &Directory, is_hidden: impl Fn(&[u8]) -> bool) {
        if self.is_broken {
            return;
        }
        let listed: HashSet<&[u8]> = self.listed.iter().map(|at| at.name.as_slice()).collect();
        for name in directory
            .that_stayed(self.since)
            .filter(|name| !is_hidden(name))
        {
            assert!(
                listed.contains(name),
                "{} was not listed",
                name.escape_ascii()
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(name: &[u8], cookie: u64) -> Listed {
        let name = name.to_vec();
        Listed {
            name,
            cookie,
            node: 0,
        }
    }

    fn directory() -> (Directory, Walk) {
        let mut directory = Directory::default();
        directory.add(b"a");
        let walk = Walk::start(&directory);
        (directory, walk)
    }

    #[test]
    #[should_panic(expected = "b was never there")]
    fn foreign_name_is_told() {
        let (directory, mut walk) = directory();
        walk.take(&[listed(b"b", 1)], &[], &directory);
    }

    #[test]
    #[should_panic(expected = "a was listed twice")]
    fn name_listed_twice_is_told() {
        let (directory, mut walk) = directory();
        walk.take(&[listed(b"a", 1), listed(b"a", 2)], &[], &directory);
    }

    #[test]
    #[should_panic(expected = "a was not listed")]
    fn name_that_is_lost_is_told() {
        let (mut directory, mut walk) = directory();
        directory.add(b"later");
        walk.take(&[listed(b".", 1), listed(b"..", 2)], &[], &directory);
        walk.end(&directory, |_| false);
    }

    #[test]
    #[should_panic(expected = "leads elsewhere")]
    fn place_that_leads_elsewhere_is_told() {
        let (directory, mut walk) = directory();
        walk.take(&[listed(b".", 1), listed(b"a", 2)], &[], &directory);
        let (cookie, expected) = walk.go_back(1, &directory);
        assert_eq!(cookie, 1);
        walk.take(&[listed(b"..", 3)], &expected, &directory);
    }

    #[test]
    fn nothing_is_promised_of_what_comes_and_goes() {
        let (mut directory, mut walk) = directory();
        walk.take(&[listed(b"a", 1)], &[], &directory);
        directory.remove(b"a");
        directory.add(b"a");
        walk.take(
            &[listed(b"a", 5), listed(b".", 6), listed(b"..", 7)],
            &[],
            &directory,
        );
        walk.end(&directory, |_| false);
    }
}
