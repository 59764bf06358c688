//! Acts on the export, by descriptor, and only with a permit.
//!
//! Every name that reaches the kernel is one component under a descriptor, never followed. The
//! one exception are names in the process's own `/proc/self/fd` (a descriptor's number), by which
//! an inode that an `O_PATH` descriptor names is opened, chmodded, linked, or asked for extended
//! attributes: so check and use share one inode, and unlinked inodes stay usable.
//!
//! The working directory is that directory too, since the calls for extended attributes take no
//! directory descriptor before Linux 6.13; a descriptor's number is the only relative path that
//! is ever used, and no absolute one is.
//!
//! Owners, modes and names are the host's here. What is allowed is not known here at all: a
//! [`crate::policy::Permit`] says what to do. The umask is taken to be 0.

mod attr;
mod closing;
mod count;
mod create;
mod descriptor;
mod dir;
mod fault;
mod handle;
mod io;
mod known;
mod link;
mod lookup;
mod names;
mod node;
mod room;
mod setattr;
mod slab;
mod spelling;
mod stream;
mod table;
#[cfg(test)]
mod tests;
mod xattr;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use crate::ids::{FileKind, NodeId};
use crate::sys::{self, ProcName};

pub use attr::{Attr, Inode, Statfs};
pub use count::{Counted, Tree, Walk};
pub use dir::{DirEntry, Handed};
pub use fault::Fault;
pub use lookup::{Child, Entry, Glance, Pin};
pub(crate) use spelling::SPELLING;
pub use table::DescriptorUse;

use attr::Seen;
use fault::Call;
use room::Leaving;
use table::Table;

/// What to do with what lies on another mount than the export's root. Mounts are those that were
/// there at the start: what is mounted later is in no copy of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Submounts {
    /// There were none.
    Refuse,
    /// As if they were not there: ENOENT, and left out of listings.
    Hide(Vec<Covered>),
    /// Served as the rest.
    Follow,
}

/// What a mount covers: by which a listing knows names that it must look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Covered {
    /// The inode number below the mount, as the directory lists it.
    pub ino: u64,
    /// The name at the start.
    pub name: Vec<u8>,
}

/// Descriptors besides those of nodes and handles, at most.
const FEW: usize = 64;

/// What an export is made of.
#[derive(Debug)]
pub struct Settings {
    /// `O_PATH` descriptor of the exported directory.
    pub root: OwnedFd,
    /// `O_PATH` descriptor of the process's own `/proc/self/fd`.
    pub proc_fd: OwnedFd,
    /// How many descriptors may be open, in number; below 48 counts as 48. Must stay below the
    /// process's `RLIMIT_NOFILE` by what else is open.
    pub max_descriptors: usize,
    /// What lies on other mounts.
    pub submounts: Submounts,
    /// Rules go by name, so that names are good only as their directory spells them.
    pub exact_names: bool,
}

/// One exported directory.
pub struct Export {
    table: Mutex<Table>,
    root: Arc<OwnedFd>,
    proc_fd: OwnedFd,
    /// Where numbers of descriptors begin that no node's or handle's has.
    free_numbers: i32,
    mount: u64,
    submounts: Submounts,
    exact_names: AtomicBool,
    /// The file system said that it has no `O_TMPFILE`.
    no_tmpfile: AtomicBool,
    closes_silently: bool,
    leaving: Leaving,
}

impl std::fmt::Debug for Export {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Export")
            .field("root", &self.root)
            .finish_non_exhaustive()
    }
}

impl Export {
    /// Opens an export and makes `proc_fd` the process's working directory.
    ///
    /// # Errors
    ///
    /// ENOTDIR if the root is no directory; what statx(2) and fchdir(2) say.
    pub fn open(settings: Settings) -> Result<Self, Fault> {
        let st = sys::stat(settings.root.as_fd()).call("statx")?;
        let seen = Seen::new(&st).call("statx")?;
        if seen.attr.kind != FileKind::Directory {
            return Err((rustix::io::Errno::NOTDIR, "statx").into());
        }
        rustix::process::fchdir(&settings.proc_fd).call("fchdir")?;
        sys::keep_little_memory();
        // What lies on other mounts may be of another kind.
        let closes_silently =
            settings.submounts != Submounts::Follow && closing::is_silent(settings.root.as_fd());
        let root = Arc::new(settings.root);
        Ok(Self {
            table: Mutex::new(Table::new(
                root.clone(),
                &seen.identity,
                settings.max_descriptors,
            )),
            root,
            proc_fd: settings.proc_fd,
            free_numbers: i32::try_from(settings.max_descriptors + FEW).unwrap_or(i32::MAX),
            mount: seen.identity.mount,
            submounts: settings.submounts,
            exact_names: AtomicBool::new(settings.exact_names),
            no_tmpfile: AtomicBool::new(false),
            closes_silently,
            leaving: Leaving::default(),
        })
    }

    /// Whether [`Export::flush`] has nothing to tell, whatever was written.
    #[must_use]
    pub fn closes_silently(&self) -> bool {
        self.closes_silently
    }

    /// How many inodes are known.
    #[must_use]
    pub fn known_nodes(&self) -> usize {
        self.with(|table| table.nodes.len())
    }

    /// How many files and directories are open.
    #[must_use]
    pub fn open_handles(&self) -> usize {
        self.with(|table| table.open_handles())
    }

    /// How many descriptors are held for nodes and open handles, and how many may be.
    #[must_use]
    pub fn descriptors(&self) -> DescriptorUse {
        self.with(|table| table.descriptor_use())
    }

    /// Looks into the table, and drops what nobody needs afterwards. The lock is never held over a
    /// system call: what the table gave up is closed after it.
    fn with<R>(&self, look: impl FnOnce(&mut Table) -> R) -> R {
        let (result, dead, gave_up_much) = {
            let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
            let result = look(&mut table);
            table.sweep();
            (result, table.take_dead(), table.nodes.gave_up_much())
        };
        drop(dead);
        if gave_up_much {
            sys::give_memory_back();
        }
        result
    }

    /// Whether something on that mount is not to be seen.
    fn hides(&self, identity: &attr::Identity) -> bool {
        identity.mount != self.mount && self.submounts != Submounts::Follow
    }

    fn proc_fd(&self) -> BorrowedFd<'_> {
        self.proc_fd.as_fd()
    }

    /// The name of a node's descriptor in [`Export::proc_fd`], the working directory.
    fn proc_name(&self, pin: &Pin) -> ProcName {
        ProcName::of(pin.fd(), self.free_numbers)
    }

    /// Attributes of an inode as the view shows them under `node`.
    fn shown(node: NodeId, mut attr: Attr) -> Attr {
        if node != NodeId::ROOT {
            attr.ino = node.0;
        }
        attr
    }
}
