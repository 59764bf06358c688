//! Reading directories. Cookies are the backing file system's own (`d_off`) and opaque: a forged one
//! leads to some place in the same directory, or to EINVAL.
//!
//! A directory is read through a handle, or, where the kernel was told that opening one decides
//! nothing, by its node alone: then a stream that stands where the reader goes on is taken from the
//! store, or the directory is opened and sought for this one call.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{AtFlags, FileType, RawDirEntry, SeekFrom};
use rustix::io::Errno;

use super::fault::Call;
use super::handle::{Handle, Kind};
use super::node::Nodes;
use super::stream::Stream;
use super::table::Table;
use super::{Covered, Export, Fault, Pin, Submounts};
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
    /// Type; unknown only of a name that is gone meanwhile.
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

/// Where a reader of a directory has come to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reached {
    /// The reply is full.
    Full,
    /// There are no more entries.
    End,
}

struct Kept {
    start: usize,
    end: usize,
    ino: u64,
    /// As the directory has it.
    raw: u64,
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
        let (fd, listing) = self.open_listing(pin)?;
        self.keep(Handle {
            fd,
            node: pin.node,
            open: Kind::Directory(Mutex::new(listing)),
            append_only: false,
        })
    }

    fn open_listing(&self, pin: &Pin) -> Result<(Arc<OwnedFd>, Listing), Fault> {
        if pin.kind != FileKind::Directory {
            return Err((Errno::NOTDIR, "openat").into());
        }
        let listing = self.with(|table| Listing::of(table, pin.node));
        let listing = listing.call("openat")?;
        let fd = sys::open_directory(pin.fd()).call("openat")?;
        Ok((Arc::new(fd), listing))
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
        self.hand_over(handle.fd(), &mut listing, cookie, each)
            .map(drop)
    }

    /// The same by the directory's node, which need not be open. Several readers of one directory
    /// go on each at its own place. `each` may read the same directory.
    ///
    /// # Errors
    ///
    /// ENOTDIR for a file; ESTALE if the node was forgotten; EINVAL for a cookie that cannot be one.
    pub fn readdir_node(
        &self,
        _permit: &Permit<rows::Readdir>,
        pin: &Pin,
        cookie: u64,
        each: &mut dyn FnMut(DirEntry<'_>) -> Handed,
    ) -> Result<(), Fault> {
        let (standing, ticket) = self.with(|table| table.take_stream(pin.node, cookie));
        let mut stream = match standing {
            Some(stream) => stream,
            None => self.open_stream(pin)?,
        };
        let mut any = false;
        let mut taken = |entry: DirEntry<'_>| {
            let handed = each(entry);
            any |= handed == Handed::Taken;
            handed
        };
        let fd = stream.fd.clone();
        let reached = self.hand_over(fd.as_fd(), &mut stream.listing, cookie, &mut taken)?;
        // An empty reply at the end is the last that a reader asks for.
        if any || reached == Reached::Full {
            self.with(|table| table.keep_stream(stream, ticket));
        }
        Ok(())
    }

    fn open_stream(&self, pin: &Pin) -> Result<Stream, Fault> {
        let (fd, listing) = self.open_listing(pin)?;
        let identity = self.inode(pin)?.0;
        Ok(Stream {
            node: pin.node,
            identity,
            fd,
            listing,
        })
    }

    /// Closes what readers of a directory by its node left standing: who goes on has it opened
    /// again.
    pub fn close_streams(&self, node: NodeId) {
        self.with(|table| table.close_streams(node));
    }

    fn hand_over(
        &self,
        dir: BorrowedFd<'_>,
        listing: &mut Listing,
        cookie: u64,
        each: &mut dyn FnMut(DirEntry<'_>) -> Handed,
    ) -> Result<Reached, Fault> {
        // A rewind must see what changed since.
        if cookie == 0 || cookie != listing.position {
            seek(dir, cookie)?;
            listing.clear(cookie);
        }
        let mut any = false;
        loop {
            if listing.next == listing.entries.len() {
                match listing.fill(dir) {
                    Ok(true) => {}
                    Ok(false) => return Ok(Reached::End),
                    // What was taken is told, or its lookups would never be given back: the error
                    // comes again for who goes on.
                    Err(_later) if any => return Ok(Reached::Full),
                    Err(fault) => return Err(fault),
                }
            }
            while let Some(kept) = listing.entries.get(listing.next) {
                let name = listing.names.get(kept.start..kept.end).unwrap_or_default();
                let hidden = self.may_be_covered(name, kept.raw) && self.is_hidden_mount(dir, name);
                let entry = DirEntry {
                    name,
                    ino: kept.ino,
                    kind: kept.kind.or_else(|| kind_at(dir, name)),
                    cookie: kept.cookie,
                };
                let handed = if hidden { Handed::LeftOut } else { each(entry) };
                match handed {
                    Handed::Taken => {
                        listing.position = kept.cookie;
                        any = true;
                    }
                    Handed::LeftOut => {}
                    Handed::Full => return Ok(Reached::Full),
                }
                listing.next += 1;
            }
        }
    }

    /// Whether a name could be one that a hidden mount covers: those alone are looked at again.
    fn may_be_covered(&self, name: &[u8], ino: u64) -> bool {
        let Submounts::Hide(covered) = &self.submounts else {
            return false;
        };
        let is = |covered: &Covered| covered.ino == ino || covered.name == name;
        name != b"." && name != b".." && covered.iter().any(is)
    }

    fn is_hidden_mount(&self, dir: BorrowedFd<'_>, name: &[u8]) -> bool {
        let Ok(name) = std::ffi::CString::new(name) else {
            return true;
        };
        sys::stat_at(dir, &name, AtFlags::empty()).is_ok_and(|st| st.stx_mnt_id != self.mount)
    }
}

/// The type of a name where the file system keeps none in its directories: neither the protocol's
/// library nor an entry that is not looked up can leave it open. `None` if it is gone.
fn kind_at(dir: BorrowedFd<'_>, name: &[u8]) -> Option<FileKind> {
    let name = std::ffi::CString::new(name).ok()?;
    let st = sys::stat_at(dir, &name, AtFlags::empty()).ok()?;
    FileKind::from_mode(u32::from(st.stx_mode))
}

fn seek(dir: BorrowedFd<'_>, cookie: u64) -> Result<(), Fault> {
    if i64::try_from(cookie).is_err() {
        return Err((Errno::INVAL, "lseek").into());
    }
    rustix::fs::seek(dir, SeekFrom::Start(cookie))
        .map(|_| ())
        .call("lseek")
}

impl Listing {
    /// Of a directory that is known, at its start.
    fn of(table: &Table, node: NodeId) -> Result<Self, Errno> {
        let slot = table.slot(node)?;
        let is_root = node == NodeId::ROOT;
        Ok(Self {
            entries: Vec::new(),
            names: Vec::new(),
            next: 0,
            position: 0,
            is_root,
            // As the view shows it: only the root's number is not its node's.
            own_ino: if is_root {
                table.nodes.identity(slot).ino
            } else {
                node.0
            },
            device: table.nodes.device_of(slot),
        })
    }

    /// The cookie with which a reader goes on here.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    fn clear(&mut self, position: u64) {
        self.entries.clear();
        self.names.clear();
        self.next = 0;
        self.position = position;
    }

    /// Reads on; `false` at the end of the directory.
    fn fill(&mut self, dir: BorrowedFd<'_>) -> Result<bool, Fault> {
        self.clear(self.position);
        let mut buffer = [MaybeUninit::uninit(); BATCH];
        sys::read_entries(dir, &mut buffer, &mut |entry| self.keep(entry)).call("getdents64")
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
            raw: entry.ino(),
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
