//! Attributes: reading and changing them.

use rustix::fs::{AtFlags, Mode as RawMode, OFlags, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};
use rustix::io::Errno;

use super::fault::Call;
use super::{Attr, Export, Fault, Pin, Statfs};
use crate::ids::{FileKind, HandleId, Mode};
use crate::op::{Changes, SetTime, Word, Words, rows};
use crate::policy::Permit;
use crate::sys;

impl Export {
    /// Attributes of a node.
    ///
    /// # Errors
    ///
    /// What statx(2) says.
    pub fn getattr(&self, _permit: Permit<rows::Getattr>, pin: &Pin) -> Result<Attr, Fault> {
        self.stat_once(pin)
    }

    /// Takes set-id bits and file capabilities away, as a write does: by a change of owner that
    /// changes none (chown(2); notify_change, fs/attr.c), since an attribute of `security.*` cannot
    /// be removed from inside a user namespace.
    ///
    /// # Errors
    ///
    /// What fchownat(2) says.
    pub fn drop_privileges(&self, _permit: Permit<rows::Write>, pin: &Pin) -> Result<(), Fault> {
        sys::chown(pin.fd(), None, None).call("fchownat")
    }

    /// Changes the owner to what it is: the time of change moves, set-id bits and file capabilities of
    /// a file go. Not if a new owner is pretended.
    ///
    /// # Errors
    ///
    /// What fchownat(2) says.
    pub fn touch(&self, permit: Permit<rows::Setattr>, pin: &Pin) -> Result<Attr, Fault> {
        if permit.pretended().is_empty() {
            sys::chown(pin.fd(), None, None).call("fchownat")?;
        }
        self.stat(pin)
    }

    /// Changes size, owner, mode and times, in that order: truncation and chown(2) clear the
    /// set-id bits, and each of them changes times. Returns what came of it.
    ///
    /// # Errors
    ///
    /// EOPNOTSUPP for the mode of a symbolic link; EISDIR and EINVAL for the size of what is no
    /// regular file; EFBIG for a size beyond what files can have; EBADF for a forged handle.
    pub fn setattr(
        &self,
        permit: Permit<rows::Setattr>,
        pin: &Pin,
        handle: Option<HandleId>,
    ) -> Result<Attr, Fault> {
        let (changes, pretended) = (permit.grant(), permit.pretended());
        if let Some(size) = changes.size {
            self.truncate(pin, handle, size)?;
        }
        let owned = changes.uid.is_some() || changes.gid.is_some();
        if owned {
            let (uid, gid) = (changes.uid.map(|id| id.0), changes.gid.map(|id| id.0));
            sys::chown(pin.fd(), uid, gid).call("fchownat")?;
        }
        if let Some(mode) = changes.mode {
            self.chmod(pin, mode)?;
        }
        set_times(pin, &changes)?;
        // A new file's owner that was pretended counts as given: the client asks no more.
        let owned = owned || pretended.meets(Words::of(Word::Owner));
        let moded = changes.mode.is_some() || pretended.meets(Words::of(Word::Mode));
        if owned || moded {
            self.with(|table| {
                if let Ok(slot) = table.slot(pin.node) {
                    table.nodes.note_changes(slot, owned, moded);
                }
            });
        }
        self.stat(pin)
    }

    fn truncate(&self, pin: &Pin, handle: Option<HandleId>, size: u64) -> Result<(), Fault> {
        if i64::try_from(size).is_err() {
            return Err((Errno::FBIG, "ftruncate").into());
        }
        match pin.kind {
            FileKind::Regular => {}
            FileKind::Directory => return Err((Errno::ISDIR, "ftruncate").into()),
            FileKind::Symlink
            | FileKind::Fifo
            | FileKind::Socket
            | FileKind::CharDevice
            | FileKind::BlockDevice => return Err((Errno::INVAL, "ftruncate").into()),
        }
        if let Some(id) = handle {
            let handle = self.with(|table| table.handle(id)).call("handle")?;
            if let Ok(fd) = handle.writable()
                && handle.node == pin.node
            {
                return rustix::fs::ftruncate(fd, size).call("ftruncate");
            }
        }
        let fd = self.open_regular(pin, OFlags::WRONLY)?;
        rustix::fs::ftruncate(fd, size).call("ftruncate")
    }

    /// Sets the mode of a file that nobody has open by the descriptor's name: fchmodat(2) has no flag
    /// for `O_PATH` descriptors before Linux 6.6, and chmod of the name in `/proc/self/fd` acts on the
    /// very inode.
    pub(super) fn chmod(&self, pin: &Pin, mode: Mode) -> Result<(), Fault> {
        if pin.kind == FileKind::Symlink {
            return Err((Errno::OPNOTSUPP, "fchmodat").into());
        }
        let mode = RawMode::from_bits_truncate(mode.bits());
        if let Some(open) = self.open_of(pin) {
            return rustix::fs::fchmod(open.fd(), mode).call("fchmod");
        }
        let name = self.proc_name(pin);
        rustix::fs::chmodat(self.proc_fd(), name.as_c_str(), mode, AtFlags::empty())
            .call("fchmodat")
    }

    /// Totals of the file system that the node lies on.
    ///
    /// # Errors
    ///
    /// What fstatfs(2) says.
    pub fn statfs(&self, _permit: Permit<rows::Statfs>, pin: &Pin) -> Result<Statfs, Fault> {
        let st = rustix::fs::fstatvfs(pin.fd()).call("fstatfs")?;
        let short = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        Ok(Statfs {
            bsize: short(st.f_bsize),
            frsize: short(st.f_frsize),
            blocks: st.f_blocks,
            bfree: st.f_bfree,
            bavail: st.f_bavail,
            files: st.f_files,
            ffree: st.f_ffree,
            namelen: short(st.f_namemax),
        })
    }
}

fn set_times(pin: &Pin, changes: &Changes) -> Result<(), Fault> {
    if changes.atime == SetTime::Omit && changes.mtime == SetTime::Omit {
        return Ok(());
    }
    let times = Timestamps {
        last_access: time(changes.atime),
        last_modification: time(changes.mtime),
    };
    rustix::fs::utimensat(pin.fd(), c"", &times, AtFlags::EMPTY_PATH).call("utimensat")
}

fn time(set: SetTime) -> Timespec {
    let nsec = |tv_nsec| Timespec { tv_sec: 0, tv_nsec };
    match set {
        SetTime::Omit => nsec(UTIME_OMIT),
        SetTime::Now => nsec(UTIME_NOW),
        SetTime::To(t) => Timespec {
            tv_sec: t.sec,
            // Out of range, it must not become one of the two words above.
            tv_nsec: i64::from(t.nsec.min(999_999_999)),
        },
    }
}
