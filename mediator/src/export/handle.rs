//! Open files and directories: a slab whose ids carry a generation, so that a forged or stale one
//! is refused.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex};

use rustix::io::Errno;

use super::dir::Listing;
use crate::ids::{HandleId, NodeId};
use crate::op::OpenAs;

/// An open file or directory.
pub(super) struct Handle {
    pub(super) fd: Arc<OwnedFd>,
    pub(super) node: NodeId,
    pub(super) open: Kind,
    /// It was opened because it appends: its writes do, whatever the client says of each.
    pub(super) append_only: bool,
}

/// What is open.
pub(super) enum Kind {
    /// A regular file. What it may be used for is checked here: the descriptor may allow more.
    File(OpenAs),
    /// A directory, with what was read of it and not yet handed over. Its lock is held over
    /// getdents64(2): it orders the readers of one handle and nothing else.
    Directory(Mutex<Listing>),
}

impl Handle {
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The file behind it, if it may be read. EISDIR for a directory, EBADF if not for reading.
    pub(super) fn readable(&self) -> Result<BorrowedFd<'_>, Errno> {
        match &self.open {
            Kind::File(open) if open.read => Ok(self.fd()),
            Kind::File(_) => Err(Errno::BADF),
            Kind::Directory(_) => Err(Errno::ISDIR),
        }
    }

    /// The file behind it, if it may be written.
    pub(super) fn writable(&self) -> Result<BorrowedFd<'_>, Errno> {
        match &self.open {
            Kind::File(open) if open.write => Ok(self.fd()),
            Kind::File(_) | Kind::Directory(_) => Err(Errno::BADF),
        }
    }
}

struct Slot {
    generation: u32,
    handle: Option<Arc<Handle>>,
}

/// The slab.
#[derive(Default)]
pub(super) struct Handles {
    slots: Vec<Slot>,
    free: Vec<u32>,
    open: usize,
}

impl Handles {
    pub(super) fn len(&self) -> usize {
        self.open
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Handle>> {
        self.slots.iter().filter_map(|slot| slot.handle.as_ref())
    }

    pub(super) fn get(&self, id: HandleId) -> Result<&Arc<Handle>, Errno> {
        let (index, generation) = split(id);
        self.slots
            .get(index)
            .filter(|slot| slot.generation == generation)
            .and_then(|slot| slot.handle.as_ref())
            .ok_or(Errno::BADF)
    }

    pub(super) fn insert(&mut self, handle: Arc<Handle>) -> Result<HandleId, Errno> {
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                let index = u32::try_from(self.slots.len()).map_err(|_full| Errno::NFILE)?;
                self.slots.push(Slot {
                    generation: 0,
                    handle: None,
                });
                index
            }
        };
        let slot = usize::try_from(index)
            .ok()
            .and_then(|index| self.slots.get_mut(index))
            .ok_or(Errno::NFILE)?;
        // Never 0, so that the id 0, which a forger tries first, names nothing.
        slot.generation = slot.generation.checked_add(1).unwrap_or(1);
        slot.handle = Some(handle);
        self.open += 1;
        Ok(HandleId(
            u64::from(slot.generation) << 32 | u64::from(index),
        ))
    }

    pub(super) fn remove(&mut self, id: HandleId) -> Option<Arc<Handle>> {
        let (index, generation) = split(id);
        let slot = self.slots.get_mut(index)?;
        if slot.generation != generation {
            return None;
        }
        let handle = slot.handle.take()?;
        self.open -= 1;
        self.free.push(u32::try_from(index).ok()?);
        Some(handle)
    }
}

fn split(id: HandleId) -> (usize, u32) {
    let index = usize::try_from(id.0 & 0xffff_ffff).unwrap_or(usize::MAX);
    (index, u32::try_from(id.0 >> 32).unwrap_or(0))
}
