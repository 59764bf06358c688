//! Opens and creations, and the ways that data goes from there.

use fuser::{BackingId, FileHandle, FopenFlags, Generation, ReplyCreate, ReplyOpen};

use super::adapter::Inner;
use super::convert::entry_attr;
use crate::backing::Way;
use crate::ids::HandleId;
use crate::mediate::{Opened, ShownEntry};

/// Borrows a backing id for an answer. fuser's type would close it when it is dropped, which takes a
/// capability that this process does not have; the registrar closes it. So it never is dropped.
struct Lent(Option<BackingId>);

impl Drop for Lent {
    fn drop(&mut self) {
        let _id = self.0.take().map(BackingId::into_raw);
    }
}

macro_rules! lend {
    ($reply:expr, $id:expr) => {{
        #[allow(unsafe_code, reason = "fuser has no other way to name a backing id")]
        // SAFETY: the number is an id of this connection that its registrar has handed out
        // (`Backings::enter`) and that is closed only after the open file's RELEASE, which follows
        // the answer; `Lent` keeps fuser from closing it.
        Lent(Some(unsafe { $reply.wrap_backing($id) }))
    }};
}

impl Inner {
    pub(super) fn opened(&self, opened: Opened, reply: ReplyOpen) {
        let (fh, flags) = (FileHandle(opened.handle.0), self.flags(opened));
        match id(opened.way) {
            None => reply.opened(fh, flags),
            Some(id) => {
                let lent = lend!(reply, id);
                if let Some(backing) = &lent.0 {
                    reply.opened_passthrough(fh, flags, backing);
                }
            }
        }
    }

    pub(super) fn created(&self, entry: &ShownEntry, opened: Opened, reply: ReplyCreate) {
        let (fh, flags) = (FileHandle(opened.handle.0), self.flags(opened));
        let (ttl, attr) = (self.attr_ttl(&entry.shown), entry_attr(entry));
        let generation = Generation(entry.generation);
        match id(opened.way) {
            None => reply.created(&ttl, &attr, generation, fh, flags),
            Some(id) => {
                let lent = lend!(reply, id);
                if let Some(backing) = &lent.0 {
                    reply.created_passthrough(&ttl, &attr, generation, fh, flags, backing);
                }
            }
        }
    }

    /// Closes a file; the kernel forgets what writes past us have made stale: times that mapped
    /// pages changed, and pages that an earlier, cached open left. While the handle is still
    /// counted, no page is being read into the cache, so nothing is waited for.
    pub(super) fn close_file(&self, handle: HandleId) {
        if let Some(node) = self.mediator().outdated_by(handle)
            && let Some(notifier) = self.notifier()
        {
            // From a negative offset on: attributes alone (fuse_reverse_inval_inode).
            let from = if self.keeps_data() { 0 } else { -1 };
            // It may have been forgotten, and the connection may be gone.
            let _unknown = notifier.inval_inode(fuser::INodeNo(node.0), from, 0);
        }
        self.mediator().release(handle);
    }

    fn flags(&self, opened: Opened) -> FopenFlags {
        let mut flags = self.open_flags(opened.open);
        if opened.append_only {
            // No shared mapping, then (fuse_file_mmap, fs/fuse/file.c): its pages would be written to
            // where they are.
            flags -= FopenFlags::FOPEN_KEEP_CACHE;
            flags |= FopenFlags::FOPEN_DIRECT_IO;
        }
        match opened.way {
            Way::Cached => flags,
            // The kernel's pages are not used: nothing of them is to be kept.
            Way::Passthrough(_) => flags - FopenFlags::FOPEN_KEEP_CACHE,
            Way::Watched(_) => (flags - FopenFlags::FOPEN_KEEP_CACHE) | FopenFlags::FOPEN_DIRECT_IO,
        }
    }
}

fn id(way: Way) -> Option<u32> {
    match way {
        Way::Cached => None,
        Way::Passthrough(id) | Way::Watched(id) => Some(id),
    }
}
