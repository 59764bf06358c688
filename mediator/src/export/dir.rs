//! Open directories. Cookies are the backing file system's own (`d_off`) and opaque: a forged one
//! leads to some place in the same directory, or to EINVAL.

use std::mem::MaybeUninit;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{AtFlags, FileType, Mode as RawMode, OFlags, RawDirEntry, SeekFrom};
use rustix::io::Errno;

use super::fault::Call;
use super::handle::{Handle, Kind};
use super::node::Nodes;
use super::{Export, Fault, Pin, Submounts};
use crate::ids::{FileKind, HandleId, NodeId};
use crate::op::rows;
use crate::policy::Permit;
use crate::sys;

/// Bytes asked of getdents64(2) at once.
const BATCH: usize = 16 * 1024;

/// One entry of a directory.
#[derive(Clone, Copy, Debug)]
pub struct DirEntry<'a> {
    /// The name, one component; `.` and `..` too.
    pub name: &'a [u8],
    /// The inode number as the view shows it.
    pub ino: u64,
    /// Type, where the file system tells.
    pub kind: Option<FileKind>,
    /// Where to go on after this entry; opaque.
    pub cookie: u64,
}

/// What became of an entry that was handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handed {
    /// The client is told of it.
    Taken,
    /// The client is not told of it: hidden, or gone meanwhile.
    LeftOut,
    /// There is no room for it: it comes first next time.
    Full,
}

/// What was read of a directory and not yet handed over.
#[derive(Default)]
pub(super) struct Listing {
    entries: Vec<Kept>,
    names: Vec<u8>,
    next: usize,
    /// The cookie of the last entry that was taken: who comes with it goes on at `entries[next]`,
    /// behind what was left out since.
    position: u64,
    /// The directory is the root: what is above it is nobody's business.
    is_root: bool,
    own_ino: u64,
    device: u16,
}

struct Kept {
    start: usize,
    end: usize,
    ino: u64,
    kind: Option<FileKind>,
    cookie: u64,
}

impl Export {
    /// Opens a directory.
    ///
    /// # Errors
    ///
    /// ENOTDIR; ENFILE when the budget of descriptors is spent on handles.
    pub fn opendir(&self, _permit: Permit<rows::Opendir>, pin: &Pin) -> Result<HandleId, Fault> {
        if pin.kind != FileKind::Directory {
            return Err((Errno::NOTDIR, "openat").into());
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let fd = rustix::fs::openat(pin.fd(), c".", flags, RawMode::empty()).call("openat")?;
        let own_ino = self.stat(pin)?.ino;
        let device = self.with(|table| {
            let slot = table.slot(pin.node)?;
            Ok(table.nodes.device_of(slot))
        });
        let listing = Listing {
            is_root: pin.node == NodeId::ROOT,
            own_ino,
            device: device.call("opendir")?,
            ..Listing::default()
        };
        self.keep(Handle {
            fd: Arc::new(fd),
            node: pin.node,
            open: Kind::Directory(Mutex::new(listing)),
        })
    }

    /// Hands over a directory's entries from a cookie on, until there are no more or `each` says
    /// that it is full. `each` may look names up, but must not read the same handle.
    ///
    /// # Errors
    ///
    /// EBADF for a forged handle; ENOTDIR for a file's; EINVAL for a cookie that cannot be one.
    pub fn readdir(
        &self,
        _permit: &Permit<rows::Readdir>,
        handle: HandleId,
        cookie: u64,
        each: &mut dyn FnMut(DirEntry<'_>) -> Handed,
    ) -> Result<(), Fault> {
        let handle = self.handle(handle)?;
        let Kind::Directory(listing) = &handle.open else {
            return Err((Errno::NOTDIR, "getdents64").into());
        };
        let mut listing = listing.lock().unwrap_or_else(PoisonError::into_inner);
        // A rewind must see what changed since.
        if cookie == 0 || cookie != listing.position {
            seek(&handle, cookie)?;
            listing.clear(cookie);
        }
        loop {
            if listing.next == listing.entries.len() && !listing.fill(&handle)? {
                return Ok(());
            }
            while let Some(kept) = listing.entries.get(listing.next) {
                let name = listing.names.get(kept.start..kept.end).unwrap_or_default();
                let hidden = self.submounts == Submounts::Hide
                    && name != b"."
                    && name != b".."
                    && self.is_hidden_mount(&handle, name);
                let entry = DirEntry {
                    name,
                    ino: kept.ino,
                    kind: kept.kind,
                    cookie: kept.cookie,
                };
                let handed = if hidden { Handed::LeftOut } else { each(entry) };
                match handed {
                    Handed::Taken => listing.position = kept.cookie,
                    Handed::LeftOut => {}
                    Handed::Full => return Ok(()),
                }
                listing.next += 1;
            }
        }
    }

    fn is_hidden_mount(&self, dir: &Handle, name: &[u8]) -> bool {
        let Ok(name) = std::ffi::CString::new(name) else {
            return true;
        };
        sys::stat_at(dir.fd(), &name, AtFlags::empty()).is_ok_and(|st| st.stx_mnt_id != self.mount)
    }
}

fn seek(handle: &Handle, cookie: u64) -> Result<(), Fault> {
    if i64::try_from(cookie).is_err() {
        return Err((Errno::INVAL, "lseek").into());
    }
    rustix::fs::seek(handle.fd(), SeekFrom::Start(cookie))
        .map(|_| ())
        .call("lseek")
}

impl Listing {
    fn clear(&mut self, position: u64) {
        self.entries.clear();
        self.names.clear();
        self.next = 0;
        self.position = position;
    }

    /// Reads on; `false` at the end of the directory.
    fn fill(&mut self, handle: &Handle) -> Result<bool, Fault> {
        self.clear(self.position);
        let mut buffer = [MaybeUninit::uninit(); BATCH];
        sys::read_entries(handle.fd(), &mut buffer, &mut |entry| self.keep(entry))
            .call("getdents64")
    }

    fn keep(&mut self, entry: &RawDirEntry<'_>) {
        let name = entry.file_name().to_bytes();
        let start = self.names.len();
        self.names.extend_from_slice(name);
        let natural = || Nodes::natural(self.device, entry.ino()).unwrap_or(entry.ino());
        let ino = match name {
            b"." => self.own_ino,
            b".." if self.is_root => self.own_ino,
            _ => natural(),
        };
        self.entries.push(Kept {
            start,
            end: self.names.len(),
            ino,
            kind: kind(entry.file_type()),
            cookie: entry.next_entry_cookie(),
        });
    }
}

fn kind(kind: FileType) -> Option<FileKind> {
    Some(match kind {
        FileType::RegularFile => FileKind::Regular,
        FileType::Directory => FileKind::Directory,
        FileType::Symlink => FileKind::Symlink,
        FileType::Fifo => FileKind::Fifo,
        FileType::Socket => FileKind::Socket,
        FileType::CharacterDevice => FileKind::CharDevice,
        FileType::BlockDevice => FileKind::BlockDevice,
        FileType::Unknown => return None,
    })
}
