//! The budget of `O_PATH` descriptors: a ring with a hand (second chance), one entry a node.
//!
//! What is evicted can be had again by name. So a node whose name is gone keeps its descriptor,
//! and one with several names, whose known name may go while another stays, is evicted only when
//! nothing better is near the hand. Last of all goes one whose file has a name, but none that was
//! seen: who holds such files open to nothing (`O_PATH`) and removes the names that he knows them by would
//! use up the budget.

use std::os::fd::OwnedFd;
use std::sync::Arc;

/// No descriptor.
pub(super) const NONE: u32 = u32::MAX;

/// How far the hand looks for something cheap before it takes a node with several names.
const REACH: usize = 64;
/// The same before it takes one that is found again only if its file is.
const FAR: usize = 4 * REACH;

/// How dear a node's descriptor is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Worth {
    /// Its one name leads back to it.
    Plain,
    /// It has several names.
    Linked,
    /// No name that is known leads back to it, though it has one.
    Stray,
    /// No name leads back to it.
    Last,
}

struct Entry {
    fd: Arc<OwnedFd>,
    slot: u32,
    used: bool,
}

/// The ring. Entries are addressed by index; an index changes only when the entry at the end
/// takes the place of a removed one, which `remove` and `evict` tell.
#[derive(Default)]
pub(super) struct Descriptors {
    ring: Vec<Entry>,
    hand: usize,
}

/// An entry left the ring: whose it was, and who now lives at its index.
pub(super) struct Gone {
    pub(super) fd: Arc<OwnedFd>,
    pub(super) slot: u32,
    /// The node whose entry moved, and its new index.
    pub(super) moved: Option<(u32, u32)>,
}

impl Descriptors {
    pub(super) fn len(&self) -> usize {
        self.ring.len()
    }

    /// The descriptor, marked as used.
    pub(super) fn touch(&mut self, index: u32) -> Option<Arc<OwnedFd>> {
        let entry = self.ring.get_mut(usize::try_from(index).ok()?)?;
        entry.used = true;
        Some(entry.fd.clone())
    }

    /// Adds an entry; `None` when the ring cannot be addressed any more (never: descriptors are
    /// numbered by `int`).
    pub(super) fn insert(&mut self, slot: u32, fd: Arc<OwnedFd>) -> Option<u32> {
        let index = u32::try_from(self.ring.len()).ok().filter(|i| *i != NONE)?;
        self.ring.push(Entry {
            fd,
            slot,
            used: true,
        });
        Some(index)
    }

    pub(super) fn remove(&mut self, index: u32) -> Option<Gone> {
        let at = usize::try_from(index).ok()?;
        if at >= self.ring.len() {
            return None;
        }
        let entry = self.ring.swap_remove(at);
        let moved = self.ring.get(at).map(|entry| (entry.slot, index));
        Some(Gone {
            fd: entry.fd,
            slot: entry.slot,
            moved,
        })
    }

    /// Takes out the descriptor that is missed least; `None` if every one is some node's last.
    pub(super) fn evict(&mut self, worth: impl Fn(u32) -> Worth) -> Option<Gone> {
        let (mut linked, mut stray) = (None, None);
        for step in 0..self.ring.len().saturating_mul(2) {
            if self.hand >= self.ring.len() {
                self.hand = 0;
            }
            let at = self.hand;
            let entry = self.ring.get_mut(at)?;
            match worth(entry.slot) {
                Worth::Plain if !entry.used => return self.remove(u32::try_from(at).ok()?),
                Worth::Linked if !entry.used => linked = linked.or(Some(at)),
                Worth::Stray if !entry.used => stray = stray.or(Some(at)),
                Worth::Plain | Worth::Linked | Worth::Stray => entry.used = false,
                Worth::Last => {}
            }
            self.hand += 1;
            let dear = linked.filter(|_| step >= REACH);
            if let Some(at) = dear.or(stray.filter(|_| step >= FAR)) {
                return self.remove(u32::try_from(at).ok()?);
            }
        }
        self.remove(u32::try_from(linked.or(stray)?).ok()?)
    }
}
