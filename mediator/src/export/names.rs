//! The names of known inodes: one in the record, those of further hard links beside it.
//!
//! A name is what a lookup showed last. The view's own changes are followed; what the host changed
//! behind its back is found out when the name is used, since the inode it leads to is checked.

use rustix::io::Errno;

use super::node::{Further, GONE, INLINE, LINKED, Nodes, ROOT};

impl Nodes {
    pub(super) fn store_name(&mut self, slot: u32, name: &[u8]) {
        self.set_gone(slot, false);
        let record = self.at_mut(slot);
        if name.len() <= INLINE {
            record.name[..name.len()].copy_from_slice(name);
            record.name_len = u8::try_from(name.len()).unwrap_or(0);
            self.long.remove(&slot);
        } else {
            record.name_len = u8::MAX;
            self.long.insert(slot, name.into());
        }
    }

    fn name(&self, slot: u32) -> &[u8] {
        let record = self.at(slot);
        record
            .name
            .get(..usize::from(record.name_len))
            .or_else(|| self.long.get(&slot).map(|name| &**name))
            .unwrap_or_default()
    }

    fn is_named(&self, slot: u32, parent: u32, name: &[u8]) -> bool {
        self.at(slot).parent == parent && self.name(slot) == name
    }

    /// Whether a name is one of a node's, and not gone.
    pub(super) fn has_name(&self, slot: u32, parent: u32, name: &[u8]) -> bool {
        let first = self.at(slot).flags & GONE == 0 && self.is_named(slot, parent, name);
        let further = self.further.get(&slot);
        first || further.is_some_and(|further| further.iter().any(named(parent, name)))
    }

    /// Whether `slot` is `ancestor` or hangs below it.
    fn is_below(&self, mut slot: u32, ancestor: u32) -> bool {
        while slot != ancestor && slot != ROOT {
            slot = self.at(slot).parent;
        }
        slot == ancestor
    }

    pub(super) fn name_again(&mut self, slot: u32, parent: u32, name: &[u8]) -> Result<(), Errno> {
        if slot == ROOT {
            return Ok(());
        }
        let flags = self.at(slot).flags;
        if self.is_named(slot, parent, name) {
            self.set_gone(slot, false);
        } else if flags & LINKED != 0 && flags & GONE == 0 {
            let further = self.further.entry(slot).or_default();
            if !further.iter().any(named(parent, name)) {
                further.push((parent, name.into()));
                self.at_mut(parent).children += 1;
                self.renamed(slot);
            }
        } else {
            self.rename(slot, parent, name)?;
            // It has this one name only: what else was known of it is over.
            for (parent, _name) in self.further.remove(&slot).unwrap_or_default() {
                self.leave(parent);
            }
        }
        Ok(())
    }

    /// Replaces the first name. ESTALE if it would hang the node below itself.
    fn rename(&mut self, slot: u32, parent: u32, name: &[u8]) -> Result<(), Errno> {
        if self.is_below(parent, slot) {
            return Err(Errno::STALE);
        }
        let old = self.at(slot).parent;
        self.at_mut(parent).children += 1;
        self.at_mut(slot).parent = parent;
        self.leave(old);
        self.store_name(slot, name);
        self.renamed(slot);
        Ok(())
    }

    /// Takes a name away. A node without any keeps its last one to be judged and told by, and is
    /// no longer sought there.
    pub(super) fn drop_name(&mut self, slot: u32, parent: u32, name: &[u8]) {
        if let Some(further) = self.further.get_mut(&slot)
            && let Some(at) = further.iter().position(named(parent, name))
        {
            further.swap_remove(at);
            self.leave(parent);
            self.renamed(slot);
            return;
        }
        if !self.is_named(slot, parent, name) {
            return;
        }
        match self.further.get_mut(&slot).and_then(Vec::pop) {
            // A non-directory cannot be above another node: this rename cannot fail.
            Some((parent, name)) => {
                if self.rename(slot, parent, &name).is_ok() {
                    self.leave(parent);
                }
            }
            None => self.set_gone(slot, true),
        }
    }

    /// A view's rename: `from` becomes `to`. A move that the table's older names contradict leaves
    /// the node without a name.
    pub(super) fn move_name(&mut self, slot: u32, from: (u32, &[u8]), to: (u32, &[u8])) {
        if self.is_named(slot, from.0, from.1) {
            if self.rename(slot, to.0, to.1).is_err() {
                self.set_gone(slot, true);
            }
            return;
        }
        self.drop_name(slot, from.0, from.1);
        if self.name_again(slot, to.0, to.1).is_err() {
            self.set_gone(slot, true);
        }
    }

    /// The parent and name number `which` of a node, the first being 0; a name that is gone is
    /// left out, not skipped.
    pub(super) fn nth_name(&self, slot: u32, which: usize) -> Option<(u32, &[u8])> {
        match which.checked_sub(1) {
            None => Some((self.at(slot).parent, self.name(slot)))
                .filter(|_| self.at(slot).flags & GONE == 0),
            Some(at) => {
                let (parent, name) = self.further.get(&slot)?.get(at)?;
                Some((*parent, name))
            }
        }
    }

    /// How many names there are to try.
    pub(super) fn names(&self, slot: u32) -> usize {
        1 + self.further.get(&slot).map_or(0, Vec::len)
    }

    /// Appends `/a/b`; `/` for the root.
    pub(super) fn write_path(&self, slot: u32, out: &mut Vec<u8>) {
        if slot == ROOT {
            out.push(b'/');
            return;
        }
        let mut above = Vec::new();
        let mut at = slot;
        while at != ROOT {
            above.push(at);
            at = self.at(at).parent;
        }
        for slot in above.iter().rev() {
            out.push(b'/');
            out.extend_from_slice(self.name(*slot));
        }
    }

    /// The further names as paths.
    pub(super) fn other_names(&self, slot: u32) -> Vec<Vec<u8>> {
        let further = self.further.get(&slot).map(Vec::as_slice);
        let path = |(parent, name): &Further| {
            let mut path = Vec::new();
            self.write_path(*parent, &mut path);
            if path.last() != Some(&b'/') {
                path.push(b'/');
            }
            path.extend_from_slice(name);
            path
        };
        further.unwrap_or_default().iter().map(path).collect()
    }
}

/// Whether a further name is this one.
fn named(parent: u32, name: &[u8]) -> impl Fn(&Further) -> bool {
    move |(its, further)| *its == parent && **further == *name
}
