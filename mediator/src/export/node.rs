//! Known inodes: a slab of fixed-size records without pointers, found by node id or by identity.
//!
//! A node id is the inode number where that is unique (the root's device), so that numbers are
//! stable; elsewhere a number with the highest bit set, made from device and inode. Only where
//! that fails too (an inode number used again while the kernel still knows the old inode) is a
//! number given out that was never seen before.
//!
//! A record lives while the kernel knows the node, a handle is open, or another record hangs below
//! it: so a path can always be told.

use std::collections::HashMap;

use rustix::io::Errno;

use super::attr::{Identity, Seen};
use super::descriptor::{NONE, Worth};
use crate::ids::{FileKind, NodeId};

/// Names up to this length are kept in the record.
const INLINE: usize = 51;
const CHUNK: usize = 1024;
const SYNTHETIC: u64 = 1 << 63;
/// The device part of numbers that come from a counter.
const COUNTED: u64 = SYNTHETIC | 0x7fff << 48;
const INO_BITS: u64 = 1 << 48;

/// The slot of the root.
pub(super) const ROOT: u32 = 0;

/// The recorded name does not lead to the node any more.
const GONE: u8 = 1;
/// Not a directory, and has several names.
const LINKED: u8 = 2;
/// Lies on another mount than the root.
const SUBMOUNT: u8 = 4;
/// Made through this view, and not yet both owned and moded.
const BIRTH: u8 = 8;
const BIRTH_OWNED: u8 = 16;
const BIRTH_MODED: u8 = 32;

/// One known inode.
#[derive(Clone, Copy)]
struct Record {
    id: u64,
    ino: u64,
    birth: u64,
    lookups: u64,
    parent: u32,
    /// Records that have this one as a parent, by any of their names.
    children: u32,
    descriptor: u32,
    handles: u32,
    device: u16,
    flags: u8,
    kind: u8,
    name_len: u8,
    name: [u8; INLINE],
}

/// Slab and indices.
pub(super) struct Nodes {
    chunks: Vec<Vec<Record>>,
    free: Vec<u32>,
    len: usize,
    /// By node id.
    index: HashMap<u64, u32>,
    /// Identities whose node id does not follow from them: the root's, and collisions.
    odd: HashMap<(u16, u64), u32>,
    /// Names longer than the record has room for.
    long: HashMap<u32, Box<[u8]>>,
    /// Further names of hard links: parent and name.
    further: HashMap<u32, Vec<(u32, Box<[u8]>)>>,
    devices: Vec<u64>,
    counter: u64,
}

impl Nodes {
    pub(super) fn new(root: &Identity) -> Self {
        let mut nodes = Self {
            chunks: Vec::new(),
            free: Vec::new(),
            len: 0,
            index: HashMap::new(),
            odd: HashMap::new(),
            long: HashMap::new(),
            further: HashMap::new(),
            devices: vec![root.dev],
            counter: 0,
        };
        let slot = nodes.push(Record {
            id: NodeId::ROOT.0,
            ino: root.ino,
            birth: root.birth,
            lookups: 1,
            parent: ROOT,
            children: 0,
            descriptor: NONE,
            handles: 0,
            device: 0,
            flags: 0,
            kind: kind_to_u8(FileKind::Directory),
            name_len: 0,
            name: [0; INLINE],
        });
        nodes.index.insert(NodeId::ROOT.0, slot);
        nodes.odd.insert((0, root.ino), slot);
        nodes
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    fn at(&self, slot: u32) -> &Record {
        &self.chunks[slot as usize / CHUNK][slot as usize % CHUNK]
    }

    fn at_mut(&mut self, slot: u32) -> &mut Record {
        &mut self.chunks[slot as usize / CHUNK][slot as usize % CHUNK]
    }

    fn push(&mut self, record: Record) -> u32 {
        self.len += 1;
        if let Some(slot) = self.free.pop() {
            *self.at_mut(slot) = record;
            return slot;
        }
        if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK) {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        let slot = (self.chunks.len() - 1) * CHUNK + self.chunks.last().map_or(0, Vec::len);
        if let Some(chunk) = self.chunks.last_mut() {
            chunk.push(record);
        }
        // 2^32 records are 400 GB: memory ends before the numbers do.
        u32::try_from(slot).unwrap_or(NONE)
    }

    pub(super) fn slot(&self, node: NodeId) -> Option<u32> {
        self.index.get(&node.0).copied()
    }

    pub(super) fn id(&self, slot: u32) -> NodeId {
        NodeId(self.at(slot).id)
    }

    pub(super) fn identity(&self, slot: u32) -> Identity {
        let record = self.at(slot);
        Identity {
            dev: self.devices[usize::from(record.device)],
            ino: record.ino,
            birth: record.birth,
        }
    }

    pub(super) fn kind(&self, slot: u32) -> FileKind {
        kind_from_u8(self.at(slot).kind)
    }

    pub(super) fn parent(&self, slot: u32) -> u32 {
        self.at(slot).parent
    }

    pub(super) fn descriptor(&self, slot: u32) -> u32 {
        self.at(slot).descriptor
    }

    pub(super) fn set_descriptor(&mut self, slot: u32, index: u32) {
        self.at_mut(slot).descriptor = index;
    }

    pub(super) fn count_handle(&mut self, slot: u32, opened: bool) {
        let record = self.at_mut(slot);
        record.handles = if opened {
            record.handles.saturating_add(1)
        } else {
            record.handles.saturating_sub(1)
        };
    }

    pub(super) fn worth(&self, slot: u32) -> Worth {
        let flags = self.at(slot).flags;
        if flags & GONE != 0 {
            Worth::Last
        } else if flags & LINKED != 0 {
            Worth::Linked
        } else {
            Worth::Plain
        }
    }

    pub(super) fn is_submount(&self, slot: u32) -> bool {
        self.at(slot).flags & SUBMOUNT != 0
    }

    pub(super) fn is_birth(&self, slot: u32) -> bool {
        self.at(slot).flags & BIRTH != 0
    }

    pub(super) fn set_birth(&mut self, slot: u32) {
        let flags = &mut self.at_mut(slot).flags;
        *flags = *flags & !(BIRTH_OWNED | BIRTH_MODED) | BIRTH;
    }

    /// What a new file was given; once both, it is a file like any other.
    pub(super) fn note_changes(&mut self, slot: u32, owned: bool, moded: bool) {
        let flags = &mut self.at_mut(slot).flags;
        if owned {
            *flags |= BIRTH_OWNED;
        }
        if moded {
            *flags |= BIRTH_MODED;
        }
        if *flags & BIRTH_OWNED != 0 && *flags & BIRTH_MODED != 0 {
            *flags &= !BIRTH;
        }
    }

    pub(super) fn set_linked(&mut self, slot: u32, nlink: u32) {
        let linked = nlink > 1 && self.kind(slot) != FileKind::Directory;
        let flags = &mut self.at_mut(slot).flags;
        *flags = if linked {
            *flags | LINKED
        } else {
            *flags & !LINKED
        };
    }

    /// The node id that follows from an identity; `None` if none does.
    pub(super) fn natural(device: u16, ino: u64) -> Option<u64> {
        if device == 0 && ino > NodeId::ROOT.0 && ino < SYNTHETIC {
            Some(ino)
        } else if ino < INO_BITS && device < 0x7fff {
            Some(SYNTHETIC | u64::from(device) << 48 | ino)
        } else {
            None
        }
    }

    /// The small number of a device.
    pub(super) fn device(&mut self, dev: u64) -> Result<u16, Errno> {
        let at = match self.devices.iter().position(|known| *known == dev) {
            Some(at) => at,
            None => {
                self.devices.push(dev);
                self.devices.len() - 1
            }
        };
        u16::try_from(at).map_err(|_many| {
            self.devices.truncate(usize::from(u16::MAX) + 1);
            Errno::OVERFLOW
        })
    }

    pub(super) fn device_of(&self, slot: u32) -> u16 {
        self.at(slot).device
    }

    /// The node of an inode, if it is known.
    pub(super) fn find(&self, identity: &Identity) -> Option<u32> {
        let device = self.devices.iter().position(|dev| *dev == identity.dev)?;
        let device = u16::try_from(device).ok()?;
        let is_it = |slot: &u32| {
            let record = self.at(*slot);
            record.device == device && record.ino == identity.ino && record.birth == identity.birth
        };
        let odd = self.odd.get(&(device, identity.ino)).copied();
        odd.filter(is_it).or_else(|| {
            let natural = Self::natural(device, identity.ino)?;
            self.index.get(&natural).copied().filter(is_it)
        })
    }

    /// The inode is known by this name from now on: entered if it is new. Not yet counted.
    ///
    /// ESTALE if the name would hang a directory below itself: the table's names are older than a
    /// move that the host made, and the client looks again from the top.
    pub(super) fn enter(
        &mut self,
        seen: &Seen,
        submount: bool,
        parent: u32,
        name: &[u8],
    ) -> Result<u32, Errno> {
        if let Some(slot) = self.find(&seen.identity) {
            self.set_linked(slot, seen.attr.nlink);
            self.name_again(slot, parent, name)?;
            return Ok(slot);
        }
        let device = self.device(seen.identity.dev)?;
        let natural = Self::natural(device, seen.identity.ino);
        let free = natural.filter(|id| !self.index.contains_key(id));
        let id = free.unwrap_or_else(|| {
            self.counter += 1;
            COUNTED | self.counter
        });
        let slot = self.push(Record {
            id,
            ino: seen.identity.ino,
            birth: seen.identity.birth,
            lookups: 0,
            parent,
            children: 0,
            descriptor: NONE,
            handles: 0,
            device,
            flags: if submount { SUBMOUNT } else { 0 },
            kind: kind_to_u8(seen.attr.kind),
            name_len: 0,
            name: [0; INLINE],
        });
        self.index.insert(id, slot);
        if free.is_none() {
            self.odd.insert((device, seen.identity.ino), slot);
        }
        self.at_mut(parent).children += 1;
        self.store_name(slot, name);
        self.set_linked(slot, seen.attr.nlink);
        Ok(slot)
    }

    pub(super) fn count_lookup(&mut self, slot: u32) {
        let record = self.at_mut(slot);
        record.lookups = record.lookups.saturating_add(1);
    }

    pub(super) fn forget(&mut self, slot: u32, count: u64) {
        let record = self.at_mut(slot);
        record.lookups = record.lookups.saturating_sub(count);
    }

    /// Drops a record that nobody needs any more; the slots that hung on it are returned, since
    /// they may be next, with the index of its descriptor.
    pub(super) fn remove_unused(&mut self, slot: u32) -> Option<(Vec<u32>, u32)> {
        let record = *self.at(slot);
        let used = record.lookups > 0 || record.children > 0 || record.handles > 0;
        if slot == ROOT || record.id == 0 || used {
            return None;
        }
        let mut parents = vec![record.parent];
        parents.extend(
            self.further
                .remove(&slot)
                .into_iter()
                .flatten()
                .map(|(parent, _name)| parent),
        );
        for parent in &parents {
            self.at_mut(*parent).children -= 1;
        }
        self.long.remove(&slot);
        self.index.remove(&record.id);
        let odd = (record.device, record.ino);
        if self.odd.get(&odd) == Some(&slot) {
            self.odd.remove(&odd);
        }
        self.at_mut(slot).id = 0;
        self.free.push(slot);
        self.len -= 1;
        Some((parents, record.descriptor))
    }

    fn store_name(&mut self, slot: u32, name: &[u8]) {
        let record = self.at_mut(slot);
        record.flags &= !GONE;
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

    /// Whether `slot` is `ancestor` or hangs below it.
    fn is_below(&self, mut slot: u32, ancestor: u32) -> bool {
        while slot != ancestor && slot != ROOT {
            slot = self.at(slot).parent;
        }
        slot == ancestor
    }

    fn name_again(&mut self, slot: u32, parent: u32, name: &[u8]) -> Result<(), Errno> {
        if slot == ROOT {
            return Ok(());
        }
        let flags = self.at(slot).flags;
        if self.is_named(slot, parent, name) {
            self.at_mut(slot).flags &= !GONE;
        } else if flags & LINKED != 0 && flags & GONE == 0 {
            let further = self.further.entry(slot).or_default();
            if !further.iter().any(|(p, n)| *p == parent && **n == *name) {
                further.push((parent, name.into()));
                self.at_mut(parent).children += 1;
            }
        } else {
            self.rename(slot, parent, name)?;
            // It has this one name only: what else was known of it is over.
            for (parent, _name) in self.further.remove(&slot).unwrap_or_default() {
                self.at_mut(parent).children -= 1;
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
        self.at_mut(old).children -= 1;
        self.store_name(slot, name);
        Ok(())
    }

    /// Takes a name away. A node without any keeps its last one to be judged and told by, and is
    /// no longer sought there.
    pub(super) fn drop_name(&mut self, slot: u32, parent: u32, name: &[u8]) {
        if let Some(further) = self.further.get_mut(&slot) {
            if let Some(at) = further
                .iter()
                .position(|(p, n)| *p == parent && **n == *name)
            {
                further.swap_remove(at);
                self.at_mut(parent).children -= 1;
                return;
            }
        }
        if !self.is_named(slot, parent, name) {
            return;
        }
        match self.further.get_mut(&slot).and_then(Vec::pop) {
            // A non-directory cannot be above another node: this rename cannot fail.
            Some((parent, name)) => {
                if self.rename(slot, parent, &name).is_ok() {
                    self.at_mut(parent).children -= 1;
                }
            }
            None => self.at_mut(slot).flags |= GONE,
        }
    }

    /// A view's rename: `from` becomes `to`. A move that the table's older names contradict leaves
    /// the node without a name.
    pub(super) fn move_name(&mut self, slot: u32, from: (u32, &[u8]), to: (u32, &[u8])) {
        if self.is_named(slot, from.0, from.1) {
            if self.rename(slot, to.0, to.1).is_err() {
                self.at_mut(slot).flags |= GONE;
            }
            return;
        }
        self.drop_name(slot, from.0, from.1);
        if self.name_again(slot, to.0, to.1).is_err() {
            self.at_mut(slot).flags |= GONE;
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
        let path = |(parent, name): &(u32, Box<[u8]>)| {
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

fn kind_to_u8(kind: FileKind) -> u8 {
    u8::try_from(kind.bits() >> 12).unwrap_or(0)
}

fn kind_from_u8(kind: u8) -> FileKind {
    FileKind::from_mode(u32::from(kind) << 12).unwrap_or(FileKind::Socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_stays_within_its_budget() {
        // With 16 to 33 bytes of index (a load of 44 to 87 %) below the 200 bytes we promise.
        assert!(size_of::<Record>() <= 104, "{}", size_of::<Record>());
    }

    #[test]
    fn natural_ids_of_two_devices_never_meet() {
        assert_eq!(Nodes::natural(0, 12), Some(12));
        assert_ne!(Nodes::natural(1, 12), Nodes::natural(2, 12));
        assert_ne!(Nodes::natural(0, 1), Some(NodeId::ROOT.0));
        assert_eq!(Nodes::natural(1, 1 << 60), None);
        assert_eq!(Nodes::natural(0, u64::MAX), None);
    }
}
