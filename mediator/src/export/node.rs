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
use super::slab::{Slab, shrink};
use crate::ids::{FileKind, NodeId};
use crate::policy::Standing;
use crate::weak;

/// Names up to this length are kept in the record.
pub(super) const INLINE: usize = 51;
const SYNTHETIC: u64 = 1 << 63;
/// The device part of numbers that come from a counter.
const COUNTED: u64 = SYNTHETIC | 0x7fff << 48;
const INO_BITS: u64 = 1 << 48;

/// The slot of the root.
pub(super) const ROOT: u32 = 0;

/// The recorded name does not lead to the node any more.
pub(super) const GONE: u8 = 1;
/// Not a directory, and has several names.
pub(super) const LINKED: u8 = 2;
/// Lies on another mount than the root.
const SUBMOUNT: u8 = 4;
/// Made through this view, and not yet both owned and moded.
const BIRTH: u8 = 8;
const BIRTH_OWNED: u8 = 16;
const BIRTH_MODED: u8 = 32;
/// [`GONE`], and the file has a name all the same.
const ELSEWHERE: u8 = 64;

/// One known inode.
#[derive(Clone, Copy)]
pub(super) struct Record {
    /// 0 for none: the slot is free.
    pub(super) id: u64,
    ino: u64,
    birth: u64,
    lookups: u64,
    /// What was decided about it by the names that it has had since [`Record::since`].
    standing: Standing,
    since: u64,
    pub(super) parent: u32,
    /// Records that have this one as a parent, by any of their names.
    pub(super) children: u32,
    descriptor: u32,
    handles: u32,
    device: u16,
    pub(super) flags: u8,
    kind: u8,
    pub(super) name_len: u8,
    pub(super) name: [u8; INLINE],
}

impl Record {
    fn worth(&self) -> Worth {
        let is = |flag| self.flags & flag != 0;
        if is(GONE) && self.handles > 0 {
            Worth::Plain
        } else if is(ELSEWHERE) {
            Worth::Stray
        } else if is(GONE) {
            Worth::Last
        } else if is(LINKED) {
            Worth::Linked
        } else {
            Worth::Plain
        }
    }
}

/// A further name: parent and component.
pub(super) type Further = (u32, Box<[u8]>);

/// Slab and indices.
pub(super) struct Nodes {
    slab: Slab,
    /// By node id.
    index: HashMap<u64, u32>,
    /// Identities whose node id does not follow from them: the root's, and collisions.
    odd: HashMap<(u16, u64), u32>,
    /// Names longer than the record has room for.
    pub(super) long: HashMap<u32, Box<[u8]>>,
    /// Further names of hard links: parent and name.
    pub(super) further: HashMap<u32, Vec<Further>>,
    /// Mount and device, by the small number of both together.
    devices: Vec<(u64, u64)>,
    counter: u64,
    /// Goes on with every change of a name.
    clock: u64,
    /// When a directory with known nodes below it last changed its name, and so all theirs.
    moved: u64,
    /// Slots that a name left: they may be needed by nobody now.
    left: Vec<u32>,
    /// How many records are [`Worth::Last`].
    nameless: usize,
}

impl Nodes {
    pub(super) fn new(root: &Identity) -> Self {
        let mut nodes = Self {
            slab: Slab::default(),
            index: HashMap::new(),
            odd: HashMap::new(),
            long: HashMap::new(),
            further: HashMap::new(),
            devices: vec![(root.mount, root.dev)],
            counter: 0,
            clock: 0,
            moved: 0,
            left: Vec::new(),
            nameless: 0,
        };
        let slot = nodes.push(Record {
            id: NodeId::ROOT.0,
            ino: root.ino,
            birth: root.birth,
            lookups: 1,
            standing: Standing::NONE,
            since: 0,
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
        self.slab.len()
    }

    pub(super) fn at(&self, slot: u32) -> &Record {
        self.slab.at(slot)
    }

    pub(super) fn at_mut(&mut self, slot: u32) -> &mut Record {
        self.slab.at_mut(slot)
    }

    fn push(&mut self, record: Record) -> u32 {
        self.slab.push(record)
    }

    fn vacate(&mut self, slot: u32) {
        self.slab.vacate(slot);
        shrink(&mut self.index);
        shrink(&mut self.odd);
        shrink(&mut self.long);
        shrink(&mut self.further);
    }

    /// Whether so much was forgotten that the memory is worth giving back to the system.
    pub(super) fn gave_up_much(&mut self) -> bool {
        self.slab.gave_up_much()
    }

    pub(super) fn slot(&self, node: NodeId) -> Option<u32> {
        self.index.get(&node.0).copied()
    }

    pub(super) fn id(&self, slot: u32) -> NodeId {
        NodeId(self.at(slot).id)
    }

    /// Every node's id.
    pub(super) fn ids(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.index.keys().copied().map(NodeId)
    }

    pub(super) fn identity(&self, slot: u32) -> Identity {
        let record = self.at(slot);
        let (mount, dev) = self.devices[usize::from(record.device)];
        Identity {
            mount,
            dev,
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
        self.change(slot, |record| {
            record.handles = if opened {
                record.handles.saturating_add(1)
            } else {
                record.handles.saturating_sub(1)
            };
        });
    }

    /// How dear its descriptor is; an open handle serves as well as any.
    pub(super) fn worth(&self, slot: u32) -> Worth {
        self.at(slot).worth()
    }

    /// How many have neither a name nor an open handle.
    pub(super) fn nameless(&self) -> usize {
        self.nameless
    }

    /// The names that lead to the node are gone, or there is one again.
    pub(super) fn set_gone(&mut self, slot: u32, gone: bool) {
        self.change(slot, |record| {
            record.flags &= !(GONE | ELSEWHERE);
            if gone {
                record.flags |= GONE;
            }
        });
    }

    /// Changes what [`Record::worth`] follows from.
    fn change(&mut self, slot: u32, change: impl FnOnce(&mut Record)) {
        let record = self.slab.at_mut(slot);
        let before = record.worth();
        change(record);
        let after = record.worth();
        if before == Worth::Last {
            self.nameless -= 1;
        }
        if after == Worth::Last {
            self.nameless += 1;
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

    /// When it is, on the clock of changed names.
    pub(super) fn now(&self) -> u64 {
        self.clock
    }

    /// What was decided about a node by the names that it has now.
    pub(super) fn standing(&self, slot: u32) -> Standing {
        let record = self.at(slot);
        if record.since >= self.moved {
            record.standing
        } else {
            Standing::NONE
        }
    }

    /// Remembers what was decided by the names that a node had at `then`, if it still has them.
    pub(super) fn remember(&mut self, slot: u32, then: u64, standing: Standing) {
        let moved = self.moved;
        let record = self.at_mut(slot);
        if standing.is_none() || then < moved || then < record.since {
            return;
        }
        record.standing = if record.since >= moved {
            record.standing.and(standing)
        } else {
            standing
        };
        record.since = then;
    }

    /// A node's names changed: what was decided by them counts no more, nor about what is below it.
    pub(super) fn renamed(&mut self, slot: u32) {
        self.clock += 1;
        let now = self.clock;
        let record = self.at_mut(slot);
        record.standing = Standing::NONE;
        record.since = now;
        if record.children > 0 {
            self.moved = now;
        }
    }

    pub(super) fn set_linked(&mut self, slot: u32, nlink: u32) {
        let nlink = if self.kind(slot) == FileKind::Directory {
            0
        } else {
            nlink
        };
        self.change(slot, |record| {
            record.flags &= !(LINKED | ELSEWHERE);
            if nlink > 1 {
                record.flags |= LINKED;
            }
            if nlink > 0 && record.flags & GONE != 0 {
                record.flags |= ELSEWHERE;
            }
        });
    }

    /// The node id that follows from an identity; `None` if none does.
    pub(super) fn natural(device: u16, ino: u64) -> Option<u64> {
        if device == 0 && ino > NodeId::ROOT.0 && ino < SYNTHETIC {
            Some(ino)
        } else if ino < INO_BITS && device < NodeId::NO_DEVICE {
            Some(SYNTHETIC | u64::from(device) << 48 | ino)
        } else {
            None
        }
    }

    /// The small number of a device on a mount.
    pub(super) fn device(&mut self, identity: &Identity) -> Result<u16, Errno> {
        let at = match self.place(identity) {
            Some(at) => at,
            None => {
                self.devices.push((identity.mount, identity.dev));
                self.devices.len() - 1
            }
        };
        u16::try_from(at).map_err(|_many| {
            self.devices.truncate(usize::from(u16::MAX) + 1);
            Errno::OVERFLOW
        })
    }

    fn place(&self, identity: &Identity) -> Option<usize> {
        let wanted = (identity.mount, identity.dev);
        self.devices.iter().position(|known| *known == wanted)
    }

    pub(super) fn device_of(&self, slot: u32) -> u16 {
        self.at(slot).device
    }

    /// The node of an inode, if it is known.
    pub(super) fn find(&self, identity: &Identity) -> Option<u32> {
        let device = u16::try_from(self.place(identity)?).ok()?;
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
        let device = self.device(&seen.identity)?;
        let natural = Self::natural(device, seen.identity.ino);
        let free = natural.filter(|id| !self.index.contains_key(id));
        let id = free.unwrap_or_else(|| {
            self.counter += 1;
            COUNTED | self.counter
        });
        // No verdict on an earlier node of that id is taken for one on this.
        self.clock += 1;
        let slot = self.push(Record {
            id,
            ino: seen.identity.ino,
            birth: seen.identity.birth,
            lookups: 0,
            standing: Standing::NONE,
            since: self.clock,
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
        record.lookups = if weak::stands(weak::Wall::Arithmetic) {
            record.lookups.saturating_sub(count)
        } else {
            record.lookups.wrapping_sub(count)
        };
    }

    /// A name below `parent` is gone, while its node stays.
    pub(super) fn leave(&mut self, parent: u32) {
        self.at_mut(parent).children -= 1;
        self.left.push(parent);
    }

    /// What names left since this was asked last.
    pub(super) fn take_left(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.left)
    }

    /// Whether there is a record in the slot that nobody needs.
    pub(super) fn is_unused(&self, slot: u32) -> bool {
        if slot == ROOT || !self.slab.is_used(slot) {
            return false;
        }
        let record = self.at(slot);
        record.lookups == 0 && record.children == 0 && record.handles == 0
    }

    /// Drops a record that nobody needs any more; the slots that hung on it are returned, since
    /// they may be next, with the index of its descriptor.
    pub(super) fn remove_unused(&mut self, slot: u32) -> Option<(Vec<u32>, u32)> {
        if !self.is_unused(slot) {
            return None;
        }
        let record = *self.at(slot);
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
        if record.worth() == Worth::Last {
            self.nameless -= 1;
        }
        self.long.remove(&slot);
        self.index.remove(&record.id);
        let odd = (record.device, record.ino);
        if self.odd.get(&odd) == Some(&slot) {
            self.odd.remove(&odd);
        }
        self.vacate(slot);
        Some((parents, record.descriptor))
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
    use super::super::slab::CHUNK;
    use super::*;

    #[test]
    fn record_stays_within_its_budget() {
        // With 16 to 33 bytes of index (a load of 44 to 87 %) below the 200 bytes we promise.
        assert!(size_of::<Record>() <= 120, "{}", size_of::<Record>());
    }

    #[test]
    fn natural_ids_of_two_devices_never_meet() {
        assert_eq!(Nodes::natural(0, 12), Some(12));
        assert_ne!(Nodes::natural(1, 12), Nodes::natural(2, 12));
        assert_ne!(Nodes::natural(0, 1), Some(NodeId::ROOT.0));
        assert_eq!(Nodes::natural(1, 1 << 60), None);
        assert_eq!(Nodes::natural(0, u64::MAX), None);
        // The one that stands for no node.
        assert_eq!(Nodes::natural(NodeId::NO_DEVICE, 12), None);
        assert_ne!(Nodes::natural(0, 12), Some(NodeId::unseen(12).0));
        assert_ne!(NodeId::unseen(12).0 & COUNTED, COUNTED);
    }

    #[test]
    fn memory_of_forgotten_nodes_is_given_up_and_their_slots_are_used_again() {
        const MANY: u64 = 100_000;
        let mut nodes = Nodes::new(&seen(9, 2, 1).identity);
        let mut round = |birth: u64| {
            let mut slots = Vec::new();
            for ino in 10..10 + MANY {
                let name = format!("name{ino}");
                let seen = seen(9, ino, birth);
                slots.push(nodes.enter(&seen, false, ROOT, name.as_bytes()).unwrap());
            }
            assert_eq!(nodes.len() as u64, MANY + 1);
            let most = slots.iter().max().copied();
            assert!(
                u64::from(most.unwrap()) < MANY + CHUNK as u64,
                "no slot is lost"
            );
            // In another order than they came, so that chunks are emptied bit by bit.
            slots.sort_by_key(|slot| slot.wrapping_mul(2_654_435_761));
            let mut gave = 0;
            for slot in slots {
                assert!(nodes.slab.is_used(slot));
                assert!(nodes.remove_unused(slot).is_some());
                assert!(nodes.remove_unused(slot).is_none(), "only once");
                gave += u32::from(nodes.gave_up_much());
            }
            assert_eq!(nodes.len(), 1);
            assert_eq!(nodes.slab.capacity(), CHUNK, "the root's");
            assert!(
                nodes.index.capacity() <= 4 * CHUNK,
                "{}",
                nodes.index.capacity()
            );
            assert!((2..20).contains(&gave), "{gave}");
        };
        round(1);
        round(2);
    }

    /// An inode as it might be; ext4 uses a number again after seconds only, tmpfs never.
    fn seen(dev: u64, ino: u64, birth: u64) -> Seen {
        let zero = crate::ids::Timestamp::default();
        Seen {
            identity: Identity {
                mount: 1,
                dev,
                ino,
                birth,
            },
            attr: crate::export::Attr {
                ino,
                kind: FileKind::Regular,
                mode: crate::ids::Mode::new(0o644),
                nlink: 1,
                owner: crate::ids::HostOwner {
                    uid: crate::ids::HostUid(0),
                    gid: crate::ids::HostGid(0),
                },
                rdev: 0,
                size: 0,
                blocks: 0,
                blksize: 4096,
                atime: zero,
                mtime: zero,
                ctime: zero,
                btime: zero,
            },
        }
    }

    #[test]
    fn inode_number_used_again_is_another_node() {
        let mut nodes = Nodes::new(&seen(9, 2, 1).identity);
        let (old, new) = (seen(9, 77, 10), seen(9, 77, 20));
        let first = nodes.enter(&old, false, ROOT, b"a").unwrap();
        nodes.count_lookup(first);
        let second = nodes.enter(&new, false, ROOT, b"b").unwrap();
        nodes.count_lookup(second);
        assert_eq!(nodes.id(first), NodeId(77));
        assert_ne!(nodes.id(second), nodes.id(first));
        assert_eq!(nodes.find(&old.identity), Some(first));
        assert_eq!(nodes.find(&new.identity), Some(second));
        nodes.forget(first, 1);
        assert!(nodes.remove_unused(first).is_some());
        assert_eq!(nodes.find(&old.identity), None);
        assert_eq!(nodes.find(&new.identity), Some(second));
        nodes.forget(second, 1);
        assert!(nodes.remove_unused(second).is_some());
        let third = nodes.enter(&new, false, ROOT, b"b").unwrap();
        assert_eq!(nodes.id(third), NodeId(77), "the number is free again");
    }

    #[test]
    fn same_number_on_two_devices_is_two_nodes() {
        let mut nodes = Nodes::new(&seen(9, 2, 1).identity);
        let here = nodes.enter(&seen(9, 77, 10), false, ROOT, b"a").unwrap();
        let there = nodes.enter(&seen(8, 77, 10), true, ROOT, b"b").unwrap();
        assert_ne!(nodes.id(here), nodes.id(there));
        assert!(nodes.is_submount(there) && !nodes.is_submount(here));
        // A directory that is bound to another place is another node there.
        let mut bound = seen(9, 77, 10);
        bound.identity.mount = 2;
        let bound = nodes.enter(&bound, true, ROOT, b"d").unwrap();
        assert_ne!(nodes.id(bound), nodes.id(here));
        // An inode of another device with the root's number is not the root.
        let other = nodes.enter(&seen(8, 2, 1), true, ROOT, b"c").unwrap();
        assert_ne!(other, ROOT);
    }
}
