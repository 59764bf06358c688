//! Passthrough: which open files the client's kernel reads and writes by itself, on the export's
//! own file, which a registrar has made known to it (Documentation/filesystems/fuse-passthrough).
//!
//! All opens of an inode must agree, or the kernel answers the odd one with EIO
//! (`fuse_file_io_open`, fs/fuse/iomode.c): while one goes past this process, another may be
//! mediated only as [`Way::Watched`]; while one is cached, none may go past. So each inode's open
//! files are counted here. A count may be higher than the kernel's for a moment (an answer on its
//! way, a RELEASE not yet read), never lower.

pub mod protocol;
mod registrar;

use std::collections::HashMap;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::io::Errno;

use crate::ids::{HandleId, NodeId};
use registrar::{Failed, Registrar};

/// Which way file data is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataMode {
    /// Past this process, for files that are large enough when they are opened to be worth the
    /// registration.
    Auto,
    /// Past this process wherever the policy allows it.
    Passthrough,
    /// Through this process.
    Mediated,
}

impl DataMode {
    /// As the command line calls it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Passthrough => "passthrough",
            Self::Mediated => "mediated",
        }
    }
}

/// The size in bytes from which on [`DataMode::Auto`] has a file registered.
pub const WORTH_IT: u64 = 64 << 10;

/// How one open file's data goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Through this process, with the kernel's page cache.
    Cached,
    /// Past this process, by a backing id.
    Passthrough(u32),
    /// The inode's data goes past this process, but reads and writes of this open file are
    /// requests, neither cached nor read ahead (`FOPEN_DIRECT_IO` overrides `FOPEN_PASSTHROUGH`,
    /// fs/fuse/file.c). Its mappings are the backing file's all the same.
    Watched(u32),
}

/// What is wanted for one open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Past this process.
    Passthrough,
    /// Past this process if the inode is already, else not.
    Either,
    /// Through this process, since somebody watches, or the file is opened to append.
    Watched,
    /// Through this process, since the policy judges each read and write.
    Judged,
}

/// The wish cannot be met while the inode's data goes past this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Busy;

/// The open files of one inode.
#[derive(Debug, Default)]
struct Open {
    cached: u32,
    /// Passthrough and watched ones.
    past: u32,
    /// While `past` is not 0.
    id: u32,
}

#[derive(Debug, Default)]
struct Table {
    nodes: HashMap<NodeId, Open>,
    handles: HashMap<HandleId, Kept>,
}

/// One open file.
#[derive(Clone, Copy, Debug)]
struct Kept {
    node: NodeId,
    way: Way,
    writes: bool,
}

/// Passthrough of one view.
#[derive(Debug)]
pub struct Backings {
    mode: DataMode,
    registrar: Option<Registrar>,
    /// The kernel has agreed to passthrough.
    agreed: AtomicBool,
    /// Why nothing more is registered, once that is so.
    why_not: Mutex<Option<String>>,
    table: Mutex<Table>,
    registrations: AtomicU64,
    opened: AtomicU64,
}

/// What is told of passthrough.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataUse {
    /// What was asked for.
    pub asked: DataMode,
    /// Whether files are registered.
    pub in_force: bool,
    /// Why not, if something else than that was asked for.
    pub why_not: Option<String>,
    /// Backing ids that are held.
    pub ids: usize,
    /// Open files whose data goes past this process.
    pub open: usize,
    /// How many have been opened.
    pub opened: u64,
    /// How many files have been registered.
    pub registrations: u64,
}

impl Backings {
    /// Without a registrar (its end of a `SOCK_SEQPACKET` pair), all data is mediated.
    #[must_use]
    pub fn new(mode: DataMode, registrar: Option<OwnedFd>) -> Self {
        let why_not = match (mode, &registrar) {
            (DataMode::Mediated, _) | (_, Some(_)) => None,
            (_, None) => Some("the policy judges every read and write (`strict`)".to_owned()),
        };
        Self {
            mode,
            registrar: registrar.map(Registrar::new),
            agreed: AtomicBool::new(false),
            why_not: Mutex::new(why_not),
            table: Mutex::default(),
            registrations: AtomicU64::new(0),
            opened: AtomicU64::new(0),
        }
    }

    /// Whether the kernel should be asked to agree.
    #[must_use]
    pub fn can_register(&self) -> bool {
        self.registrar.is_some()
    }

    /// What the kernel said at the start of the connection. Before the first open.
    pub fn kernel_agreed(&self, agreed: bool) {
        if agreed {
            self.agreed.store(true, Ordering::SeqCst);
        } else if let Some(registrar) = &self.registrar {
            self.give_up(
                "this kernel's FUSE has no passthrough (Linux 6.9, CONFIG_FUSE_PASSTHROUGH)",
            );
            registrar.dismiss();
        }
    }

    /// Whether open files have to be counted: some may go past this process.
    #[must_use]
    pub fn counts(&self) -> bool {
        self.agreed.load(Ordering::Relaxed)
    }

    /// Registers a file and lets go of it again: [`DataUse::why_not`] tells what came of it.
    pub fn try_out(&self, file: BorrowedFd<'_>) {
        if self.counts()
            && let Some(id) = self.register(file)
        {
            self.close(id);
        }
    }

    /// Whether an inode's data goes past this process.
    #[must_use]
    pub fn is_past(&self, node: NodeId) -> bool {
        self.table()
            .nodes
            .get(&node)
            .is_some_and(|open| open.past > 0)
    }

    /// The inodes whose data goes past this process.
    #[must_use]
    pub fn past(&self) -> Vec<NodeId> {
        let table = self.table();
        let past = table.nodes.iter().filter(|(_, open)| open.past > 0);
        past.map(|(node, _)| *node).collect()
    }

    /// What was asked for.
    #[must_use]
    pub fn mode(&self) -> DataMode {
        self.mode
    }

    /// What is told.
    #[must_use]
    pub fn usage(&self) -> DataUse {
        let why_not = self.why_not().clone();
        let table = self.table();
        DataUse {
            asked: self.mode,
            in_force: self.counts() && why_not.is_none(),
            why_not,
            ids: table.nodes.values().filter(|open| open.past > 0).count(),
            open: table
                .handles
                .values()
                .filter(|kept| kept.way != Way::Cached)
                .count(),
            opened: self.opened.load(Ordering::Relaxed),
            registrations: self.registrations.load(Ordering::Relaxed),
        }
    }

    /// Enters an open file, and tells its way.
    ///
    /// # Errors
    ///
    /// [`Busy`]: it is not entered, and must not be opened.
    pub fn enter(
        &self,
        (node, handle): (NodeId, HandleId),
        wish: Wish,
        file: BorrowedFd<'_>,
        writes: bool,
    ) -> Result<Way, Busy> {
        let kept = |way| Kept { node, way, writes };
        if let Some(way) = self.table().settle(handle, wish, None, kept) {
            return self.entered(way?);
        }
        // Without the lock, since it is a conversation: another open of the same inode may be
        // quicker, and is joined then.
        let fresh = self.register(file);
        let mut table = self.table();
        let way = table.settle(handle, Wish::Passthrough, Some(fresh), kept);
        drop(table);
        if let Some(id) = fresh
            && way != Some(Ok(Way::Passthrough(id)))
        {
            self.close(id);
        }
        self.entered(way.unwrap_or(Ok(Way::Cached))?)
    }

    fn entered(&self, way: Way) -> Result<Way, Busy> {
        if way != Way::Cached {
            self.opened.fetch_add(1, Ordering::Relaxed);
        }
        Ok(way)
    }

    /// Whether the kernel remembers of an open file's inode what it may have changed behind its own
    /// back: mappings' times, and pages from before. Asked before [`Backings::leave`], while no
    /// other open file of the inode can be cached.
    #[must_use]
    pub fn went_past_for_writing(&self, handle: HandleId) -> Option<NodeId> {
        let table = self.table();
        let kept = table.handles.get(&handle)?;
        (kept.writes && kept.way != Way::Cached).then_some(kept.node)
    }

    /// An open file was closed.
    pub fn leave(&self, handle: HandleId) {
        let last = self.table().leave(handle);
        if let Some(id) = last {
            self.close(id);
        }
    }

    fn register(&self, file: BorrowedFd<'_>) -> Option<u32> {
        let registrar = self.registrar.as_ref()?;
        match registrar.open(file) {
            Ok(id) => {
                self.registrations.fetch_add(1, Ordering::Relaxed);
                Some(id)
            }
            Err(Failed::Gone(None)) => None,
            Err(Failed::Gone(Some(errno))) => {
                self.give_up(&format!("the registrar is gone ({errno})"));
                None
            }
            // The file system is stacked too deep, or no file of it can be registered by us: the
            // next one will be no better.
            Err(Failed::Refused(errno @ (Errno::LOOP | Errno::PERM | Errno::OPNOTSUPP))) => {
                let why = if errno == Errno::LOOP {
                    "file systems are stacked too deep below the export (overlayfs on overlayfs)"
                } else {
                    "the kernel does not register the export's files"
                };
                self.give_up(&format!("{why}: {errno}"));
                registrar.dismiss();
                None
            }
            // This one alone, or for now: another device, no room for more ids.
            Err(Failed::Refused(errno)) => {
                tracing::debug!(%errno, "a file was not registered");
                None
            }
        }
    }

    fn close(&self, id: u32) {
        if let Some(registrar) = &self.registrar {
            registrar.close(id);
        }
    }

    /// Told once: new opens are mediated from now on.
    fn give_up(&self, why: &str) {
        let mut told = self.why_not();
        if told.is_none() {
            tracing::warn!("file data is mediated from now on: {why}");
            *told = Some(why.to_owned());
        }
    }

    fn why_not(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.why_not.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn table(&self) -> std::sync::MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// Enters an open file by what others of its inode do; `None` if it needs an id, and whether
    /// there is one (`fresh`) is not known yet.
    fn settle(
        &mut self,
        handle: HandleId,
        wish: Wish,
        fresh: Option<Option<u32>>,
        kept: impl Fn(Way) -> Kept,
    ) -> Option<Result<Way, Busy>> {
        let node = kept(Way::Cached).node;
        let others = self.nodes.get(&node);
        let (past, cached) = others.map_or((None, false), |open| {
            ((open.past > 0).then_some(open.id), open.cached > 0)
        });
        let way = match (wish, past) {
            (Wish::Passthrough | Wish::Either, Some(id)) => Way::Passthrough(id),
            (Wish::Watched, Some(id)) => Way::Watched(id),
            (Wish::Judged, Some(_)) => return Some(Err(Busy)),
            (Wish::Passthrough, None) if !cached => match fresh? {
                Some(id) => Way::Passthrough(id),
                None => Way::Cached,
            },
            (_, None) => Way::Cached,
        };
        let open = self.nodes.entry(node).or_default();
        match way {
            Way::Cached => open.cached += 1,
            Way::Passthrough(id) | Way::Watched(id) => {
                open.past += 1;
                open.id = id;
            }
        }
        self.handles.insert(handle, kept(way));
        Some(Ok(way))
    }

    /// The id that nobody needs any more.
    fn leave(&mut self, handle: HandleId) -> Option<u32> {
        let kept = self.handles.remove(&handle)?;
        let open = self.nodes.get_mut(&kept.node)?;
        let unused = match kept.way {
            Way::Cached => {
                open.cached = open.cached.saturating_sub(1);
                None
            }
            Way::Passthrough(id) | Way::Watched(id) => {
                open.past = open.past.saturating_sub(1);
                (open.past == 0).then_some(id)
            }
        };
        if open.cached == 0 && open.past == 0 {
            self.nodes.remove(&kept.node);
        }
        unused
    }
}

#[cfg(test)]
pub(crate) mod tests;
