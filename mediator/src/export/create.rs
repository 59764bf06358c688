//! New inodes. Each belongs to its owner before anyone is told of it, and what cannot be finished
//! is taken away again.
//!
//! The mode goes into the creating call, not into a chmod after it, so that a directory's default
//! ACL is handed down as on any file system (acl(5)); only the set-id bits, which chown(2) clears,
//! are added afterwards.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::fs::{AtFlags, FileType, Mode as RawMode, OFlags};
use rustix::io::Errno;

use super::attr::Seen;
use super::fault::Call;
use super::handle::{Handle, Kind};
use super::{Entry, Export, Fault, Pin};
use crate::ids::{FileKind, HandleId, Mode, NodeId};
use crate::name::Name;
use crate::op::{Birth, OpenAs, rows};
use crate::policy::Permit;
use crate::sys::{self, FdName};

impl Export {
    /// Makes a regular file and opens it.
    ///
    /// # Errors
    ///
    /// EEXIST; ENFILE when the budget of descriptors is spent on handles; EINVAL unless a regular
    /// file is granted.
    pub fn create(
        &self,
        permit: Permit<rows::Create>,
        parent: &Pin,
        name: &Name,
    ) -> Result<(Entry, HandleId), Fault> {
        let birth = permit.grant();
        if birth.kind != FileKind::Regular {
            return Err((Errno::INVAL, "openat").into());
        }
        let group = self.group(parent, &birth)?;
        // Before there is a file to take away again, which others see come and go.
        self.with(|table| table.room_for_handle()).call("open")?;
        let fd = Arc::new(self.make_file(parent, name, &birth, group)?);
        let entry = self.enter_made(parent, name, &fd)?;
        let handle = Handle {
            fd: Arc::clone(&fd),
            node: entry.node,
            open: Kind::File(birth.open),
            append_only: permit.append_only(),
        };
        let handle = self.keep(handle).inspect_err(|_fault| {
            self.take_back(parent, name, fd.as_fd(), AtFlags::empty());
            self.forget(entry.node, 1);
        })?;
        Ok((entry, handle))
    }

    /// The group that a new inode must be given; `None` if it has its parent's (set-group-id).
    fn group(&self, parent: &Pin, birth: &Birth) -> Result<Option<u32>, Fault> {
        let gid = Some(birth.owner.gid.0);
        if birth.owner_is_forced {
            return Ok(gid);
        }
        let hands_down = self.stat(parent)?.mode.bits() & Mode::SET_GID != 0;
        Ok(gid.filter(|_| !hands_down))
    }

    /// A regular file that has no name before it has its owner, where the file system can.
    fn make_file(
        &self,
        parent: &Pin,
        name: &Name,
        birth: &Birth,
        group: Option<u32>,
    ) -> Result<OwnedFd, Fault> {
        if self.no_tmpfile.load(Ordering::Relaxed) {
            return self.make_file_by_name(parent, name, birth, group);
        }
        let flags = OFlags::TMPFILE | OFlags::RDWR | extra_flags(birth.open);
        let open = || rustix::fs::openat(parent.fd(), c".", flags, raw(birth.mode));
        let fd = match self.with_room(open) {
            Ok(fd) => fd,
            // open(2): EOPNOTSUPP from the file system, EISDIR from a kernel without the flag.
            Err(Errno::OPNOTSUPP | Errno::ISDIR) => {
                // Another mount's says nothing of the others.
                if !self.is_submount(parent) {
                    self.no_tmpfile.store(true, Ordering::Relaxed);
                }
                return self.make_file_by_name(parent, name, birth, group);
            }
            Err(errno) => return Err((errno, "openat").into()),
        };
        self.give(fd.as_fd(), birth, group)?;
        self.name_inode(fd.as_fd(), parent, name)?;
        Ok(fd)
    }

    fn make_file_by_name(
        &self,
        parent: &Pin,
        name: &Name,
        birth: &Birth,
        group: Option<u32>,
    ) -> Result<OwnedFd, Fault> {
        let flags = OFlags::CREATE
            | OFlags::EXCL
            | OFlags::NOFOLLOW
            | OFlags::RDWR
            | extra_flags(birth.open);
        // It has a name before it has its owner: set-id bits come with the owner.
        let mode = raw(birth.mode).difference(RawMode::SUID | RawMode::SGID);
        let open = || rustix::fs::openat(parent.fd(), name.as_c_str(), flags, mode);
        let fd = self.with_room(open).call("openat")?;
        self.give(fd.as_fd(), birth, group).inspect_err(|_fault| {
            self.take_back(parent, name, fd.as_fd(), AtFlags::empty());
        })?;
        Ok(fd)
    }

    /// Links an inode by its descriptor's name in `/proc/self/fd`: `AT_EMPTY_PATH` needs
    /// CAP_DAC_READ_SEARCH on older kernels.
    pub(super) fn name_inode(
        &self,
        fd: BorrowedFd<'_>,
        parent: &Pin,
        name: &Name,
    ) -> Result<(), Fault> {
        let number = FdName::new(fd);
        let (proc, flags) = (self.proc_fd(), AtFlags::SYMLINK_FOLLOW);
        let link =
            || rustix::fs::linkat(proc, number.as_c_str(), parent.fd(), name.as_c_str(), flags);
        self.with_room(link).call("linkat")
    }

    /// Owner before mode: chown(2) clears the set-id bits of all but directories, and a file must
    /// never be set-id for an owner that is not its own.
    fn give(&self, fd: BorrowedFd<'_>, birth: &Birth, group: Option<u32>) -> Result<(), Fault> {
        sys::chown(fd, Some(birth.owner.uid.0), group).call("fchownat")?;
        if !birth.mode.has_set_id() || birth.kind == FileKind::Symlink {
            return Ok(());
        }
        let seen = Seen::new(&sys::stat(fd).call("statx")?).call("statx")?;
        let set_id = birth.mode.bits() & (Mode::SET_UID | Mode::SET_GID);
        let mode = RawMode::from_bits_truncate(seen.attr.mode.bits() | set_id);
        let name = FdName::new(fd);
        rustix::fs::chmodat(self.proc_fd(), name.as_c_str(), mode, AtFlags::empty())
            .call("fchmodat")
    }

    /// Removes a name that was just made, if it still is that inode's.
    fn take_back(&self, parent: &Pin, name: &Name, fd: BorrowedFd<'_>, flags: AtFlags) {
        let mine = sys::stat(fd).and_then(|st| Seen::new(&st));
        let there = sys::stat_at(parent.fd(), name.as_c_str(), AtFlags::empty());
        let there = there.and_then(|st| Seen::new(&st));
        if let (Ok(mine), Ok(there)) = (mine, there)
            && mine.identity == there.identity
        {
            // The fault that led here is what is told; nothing better can be done with this.
            let _ = rustix::fs::unlinkat(parent.fd(), name.as_c_str(), flags);
        }
    }

    /// A file that was made, by its descriptor: its name may be another's by now.
    fn enter_made(&self, parent: &Pin, name: &Name, fd: &OwnedFd) -> Result<Entry, Fault> {
        let seen = Seen::new(&sys::stat(fd.as_fd()).call("statx")?).call("statx")?;
        let submount = seen.identity.mount != self.mount;
        let entry = self.enter_seen(parent, name, &seen, submount, None);
        let entry = entry.inspect_err(|_fault| {
            self.take_back(parent, name, fd.as_fd(), AtFlags::empty());
        })?;
        self.mark_birth(&entry);
        Ok(entry)
    }

    /// Takes away a file whose creation cannot be finished, and its lookup.
    pub fn unmake(&self, parent: &Pin, name: &Name, node: NodeId) {
        if let Ok(pin) = self.pin(node) {
            self.take_back(parent, name, pin.fd(), AtFlags::empty());
        }
        self.forget(node, 1);
    }

    fn mark_birth(&self, entry: &Entry) {
        self.with(|table| {
            if let Ok(slot) = table.slot(entry.node) {
                table.nodes.set_birth(slot);
            }
        });
    }

    /// Makes a directory.
    ///
    /// # Errors
    ///
    /// EEXIST; EINVAL unless a directory is granted; what mkdirat(2) says.
    pub fn mkdir(
        &self,
        permit: Permit<rows::Mkdir>,
        parent: &Pin,
        name: &Name,
    ) -> Result<Entry, Fault> {
        let birth = permit.grant();
        if birth.kind != FileKind::Directory {
            return Err((Errno::INVAL, "mkdirat").into());
        }
        let group = self.group(parent, &birth)?;
        let make = || rustix::fs::mkdirat(parent.fd(), name.as_c_str(), raw(birth.mode));
        self.with_room(make).call("mkdirat")?;
        self.finish(parent, name, &birth, group)
    }

    /// Makes a FIFO, a socket or an empty regular file.
    ///
    /// # Errors
    ///
    /// EPERM for a device, which no policy may grant; EEXIST; what mknodat(2) says.
    pub fn mknod(
        &self,
        permit: Permit<rows::Mknod>,
        parent: &Pin,
        name: &Name,
    ) -> Result<Entry, Fault> {
        let birth = permit.grant();
        let group = self.group(parent, &birth)?;
        let kind = match birth.kind {
            FileKind::Regular => {
                let fd = self.make_file(parent, name, &birth, group)?;
                return self.enter_made(parent, name, &fd);
            }
            FileKind::Fifo => FileType::Fifo,
            FileKind::Socket => FileType::Socket,
            FileKind::CharDevice | FileKind::BlockDevice => {
                return Err((Errno::PERM, "mknodat").into());
            }
            FileKind::Directory | FileKind::Symlink => {
                return Err((Errno::INVAL, "mknodat").into());
            }
        };
        let make = || rustix::fs::mknodat(parent.fd(), name.as_c_str(), kind, raw(birth.mode), 0);
        self.with_room(make).call("mknodat")?;
        self.finish(parent, name, &birth, group)
    }

    /// Makes a symbolic link with any content but NUL.
    ///
    /// # Errors
    ///
    /// EEXIST; ENOENT for an empty target, EINVAL for one with NUL, ENAMETOOLONG beyond 4095
    /// bytes.
    pub fn symlink(
        &self,
        permit: Permit<rows::Symlink>,
        parent: &Pin,
        name: &Name,
        target: &[u8],
    ) -> Result<Entry, Fault> {
        let birth = permit.grant();
        if birth.kind != FileKind::Symlink {
            return Err((Errno::INVAL, "symlinkat").into());
        }
        let group = self.group(parent, &birth)?;
        let make = || rustix::fs::symlinkat(target, parent.fd(), name.as_c_str());
        self.with_room(make).call("symlinkat")?;
        self.finish(parent, name, &birth, group)
    }

    /// Gives what was just made by name to its owner. That it is what was made, and not what the
    /// host put in its place, shows in its kind and in its owner: this process.
    fn finish(
        &self,
        parent: &Pin,
        name: &Name,
        birth: &Birth,
        group: Option<u32>,
    ) -> Result<Entry, Fault> {
        let child = self.child(parent, name)?;
        let attr = child.attr();
        let mine = attr.owner.uid.0 == rustix::process::geteuid().as_raw();
        if attr.kind != birth.kind || !mine {
            return Err((Errno::STALE, "openat").into());
        }
        let flags = if birth.kind == FileKind::Directory {
            AtFlags::REMOVEDIR
        } else {
            AtFlags::empty()
        };
        let given = self.give(child.fd.as_fd(), birth, group).and_then(|()| {
            let st = sys::stat(child.fd.as_fd()).call("statx")?;
            Seen::new(&st).call("statx")
        });
        let seen = given.inspect_err(|_fault| {
            self.take_back(parent, name, child.fd.as_fd(), flags);
        })?;
        let fd = Arc::new(child.fd);
        let entry = self.enter_seen(parent, name, &seen, child.submount, Some(Arc::clone(&fd)));
        let entry = entry.inspect_err(|_fault| self.take_back(parent, name, fd.as_fd(), flags))?;
        self.mark_birth(&entry);
        Ok(entry)
    }
}

fn raw(mode: Mode) -> RawMode {
    RawMode::from_bits_truncate(mode.bits())
}

/// What of a client's wishes reaches the backing file, beside access mode and truncation.
/// `O_DIRECT` never does: alignment rules of the host's file system would show through. `O_APPEND` is
/// each write's own matter.
pub(super) fn extra_flags(open: OpenAs) -> OFlags {
    let mut flags = OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
    flags.set(OFlags::SYNC, open.sync);
    flags.set(OFlags::NOATIME, open.no_atime);
    flags
}
