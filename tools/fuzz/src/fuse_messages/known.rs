//! What this side has been told: the kernel's half of the accounts.

use std::collections::{HashMap, HashSet};

use crate::input::Input;
use crate::wire::ROOT;

/// An open file or directory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opened {
    pub(super) handle: u64,
    pub(super) node: u64,
}

/// Nodes and handles as the answers told them.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Lookups by node, to be given back with FORGET.
    lookups: HashMap<u64, u64>,
    /// Node ids in the order in which they were first told, forgotten ones too.
    told: Vec<u64>,
    ever: HashSet<u64>,
    kinds: HashMap<u64, u32>,
    pub(super) open: Vec<Opened>,
    closed: Vec<u64>,
    /// Bytes of the extended attribute that was set last.
    pub(super) value_size: u32,
    /// Raw bytes were sent: they may have looked up and opened anything.
    is_partial: bool,
}

impl Known {
    /// A node was told with its type; each time counts.
    pub(super) fn tell(&mut self, node: u64, mode: u32) {
        if self.ever.insert(node) {
            self.told.push(node);
        }
        *self.lookups.entry(node).or_default() += 1;
        let kind = mode & 0o170_000;
        let before = *self.kinds.entry(node).or_insert(kind);
        let same = self.is_partial || before == kind;
        assert!(same, "node {node} became another type of file");
    }

    pub(super) fn forget(&mut self, node: u64, count: u64) {
        if let Some(lookups) = self.lookups.get_mut(&node) {
            *lookups = lookups.saturating_sub(count);
            if *lookups == 0 {
                self.lookups.remove(&node);
                // Nothing says that the id is not given out again.
                self.kinds.remove(&node);
            }
        }
    }

    pub(super) fn opened(&mut self, opened: Opened) {
        let again = self.open.iter().any(|other| other.handle == opened.handle);
        assert!(!again, "handle {:#x} was given out twice", opened.handle);
        self.open.push(opened);
    }

    pub(super) fn release(&mut self, handle: u64) {
        if let Some(at) = self.open.iter().position(|other| other.handle == handle) {
            self.open.swap_remove(at);
            self.closed.push(handle);
        }
    }

    /// From now on, something may have been told that is not known here.
    pub(super) fn is_partial_from_now_on(&mut self) {
        self.is_partial = true;
    }

    pub(super) fn is_partial(&self) -> bool {
        self.is_partial
    }

    /// Whether the node was ever told, as far as is known.
    pub(super) fn may_have_been_told(&self, node: u64) -> bool {
        self.is_partial || node == ROOT || self.ever.contains(&node)
    }

    /// Whether the handle is open, as far as is known.
    pub(super) fn may_be_open(&self, handle: u64) -> bool {
        self.is_partial || self.by_handle(handle).is_some()
    }

    pub(super) fn by_handle(&self, handle: u64) -> Option<Opened> {
        self.open.iter().find(|open| open.handle == handle).copied()
    }

    /// All that must be given back.
    pub(super) fn lookups(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.lookups.iter().map(|(node, count)| (*node, *count))
    }

    /// A node: mostly one that was told, sometimes a forged one.
    pub(super) fn pick_node(&self, input: &mut Input<'_>) -> u64 {
        let last = self.told.last().copied().unwrap_or(ROOT);
        match input.byte() {
            0..=15 => ROOT,
            told @ 16..=207 if !self.told.is_empty() => {
                self.told[usize::from(told - 16) % self.told.len()]
            }
            16..=207 => ROOT,
            208..=213 => 0,
            214..=219 => u64::MAX,
            220..=225 => 1 << 63,
            226..=231 => last.wrapping_add(1),
            // The first id that the mediator would count out.
            232..=237 => 0xffff_0000_0000_0001,
            238..=243 => last | 1 << 63,
            244..=255 => input.raw_u64(),
        }
    }

    /// A handle: mostly one that is open, sometimes a closed or forged one.
    pub(super) fn pick_handle(&self, input: &mut Input<'_>) -> u64 {
        let last = self.open.last().map_or(0, |open| open.handle);
        match input.byte() {
            open @ 0..=207 if !self.open.is_empty() => {
                self.open[usize::from(open) % self.open.len()].handle
            }
            0..=207 => 0,
            208..=219 => self.closed.last().copied().unwrap_or(u64::MAX),
            220..=225 => last.wrapping_add(1),
            226..=231 => last.wrapping_add(1 << 32),
            232..=237 => u64::MAX,
            238..=243 => last & 0xffff_ffff,
            244..=255 => input.raw_u64(),
        }
    }
}
