//! One method for each message, blocking; names are single components as the protocol has them.
//!
//! Every method returns [`crate::Error::Remote`] with the errno that the server answered, or a fault of the transport.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use crate::error::{Error, Result};
use crate::message::*;
use crate::session::Session;
use crate::wire::{Data, Decoder, Fid, Get, NO_FID, Qid};

/// `P9_GETATTR_BASIC`: what stat(2) has.
pub const GETATTR_BASIC: u64 = 0x7ff;

/// Octets of a Tread's or Twrite's message that are not data, rounded up: `P9_IOHDRSZ`.
pub const IO_HEADER: u32 = 24;

/// Tunlinkat's flag for directories.
pub const AT_REMOVEDIR: u32 = 0x200;

/// A time that Tsetattr sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Time {
    /// The server's now.
    Now,
    /// Seconds and nanoseconds since 1970.
    At(u64, u64),
}

/// What Tsetattr changes: the fields that are there.
#[derive(Debug, Clone, Copy, Default)]
pub struct SetAttr {
    /// Permission bits, set-id and sticky ones included.
    pub mode: Option<u32>,
    /// Owner, the guest's.
    pub uid: Option<u32>,
    /// Group, the guest's.
    pub gid: Option<u32>,
    /// Size in octets.
    pub size: Option<u64>,
    /// Time of last access.
    pub atime: Option<Time>,
    /// Time of last change of content.
    pub mtime: Option<Time>,
}

impl SetAttr {
    /// chmod.
    #[must_use]
    pub fn mode(mode: u32) -> Self {
        Self {
            mode: Some(mode),
            ..Self::default()
        }
    }

    /// chown.
    #[must_use]
    pub fn owner(uid: u32, gid: u32) -> Self {
        Self {
            uid: Some(uid),
            gid: Some(gid),
            ..Self::default()
        }
    }

    /// truncate.
    #[must_use]
    pub fn size(octets: u64) -> Self {
        Self {
            size: Some(octets),
            ..Self::default()
        }
    }

    /// The message; `P9_ATTR_*` in `valid`.
    fn message(&self, fid: Fid) -> Tsetattr {
        let bit = |set: bool, bit: u32| if set { bit } else { 0 };
        let explicit = |time| matches!(time, Some(Time::At(..)));
        let parts = |time| {
            if let Some(Time::At(seconds, nanoseconds)) = time {
                (seconds, nanoseconds)
            } else {
                (0, 0)
            }
        };
        let valid = bit(self.mode.is_some(), 0x1)
            | bit(self.uid.is_some(), 0x2)
            | bit(self.gid.is_some(), 0x4)
            | bit(self.size.is_some(), 0x8)
            | bit(self.atime.is_some(), 0x10)
            | bit(self.mtime.is_some(), 0x20)
            | bit(explicit(self.atime), 0x80)
            | bit(explicit(self.mtime), 0x100);
        let ((atime_sec, atime_nsec), (mtime_sec, mtime_nsec)) =
            (parts(self.atime), parts(self.mtime));
        Tsetattr {
            fid,
            valid,
            mode: self.mode.unwrap_or(0),
            uid: self.uid.unwrap_or(0),
            gid: self.gid.unwrap_or(0),
            size: self.size.unwrap_or(0),
            atime_sec,
            atime_nsec,
            mtime_sec,
            mtime_nsec,
        }
    }
}

/// A name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// Its identity.
    pub qid: Qid,
    /// Where the next Treaddir goes on.
    pub offset: u64,
    /// `DT_*` of readdir(3); 0 is unknown.
    pub kind: u8,
    /// The name's octets.
    pub name: Vec<u8>,
}

/// A record lock's range and kind, of Tlock and Tgetlock.
#[derive(Debug, Clone, Copy)]
pub struct LockRange {
    /// 0 read, 1 write, 2 unlock.
    pub kind: u8,
    /// First octet.
    pub start: u64,
    /// Octets; 0 to the end.
    pub length: u64,
    /// The guest's process.
    pub proc_id: u32,
}

fn octets(name: &impl AsRef<OsStr>) -> &[u8] {
    name.as_ref().as_bytes()
}

#[allow(
    clippy::missing_errors_doc,
    reason = "the module's head says it for all"
)]
impl Session {
    /// A fid for the root, as the guest's user `uid` sees it: new files of it belong to that user.
    pub fn attach(&mut self, uid: u32) -> Result<Fid> {
        let fid = self.new_fid();
        self.call(&Tattach {
            fid,
            afid: NO_FID,
            uname: b"",
            aname: b"",
            n_uname: uid,
        })?;
        Ok(fid)
    }

    /// Twalk: a new fid for what 16 names at most lead to; without names a copy of `from`.
    pub fn walk<N: AsRef<OsStr>>(&mut self, from: Fid, names: &[N]) -> Result<Fid> {
        let newfid = self.new_fid();
        let wnames: Vec<&[u8]> = names.iter().map(octets).collect();
        let reply = self.call(&Twalk {
            fid: from,
            newfid,
            wnames: &wnames,
        })?;
        if reply.qids.len() == names.len() {
            Ok(newfid)
        } else {
            Err(Error::PartialWalk {
                reached: reply.qids.len(),
                wanted: names.len(),
            })
        }
    }

    /// Tlopen with open(2)'s flags.
    pub fn lopen(&mut self, fid: Fid, flags: u32) -> Result<Rlopen> {
        self.call(&Tlopen { fid, flags })
    }

    /// Tlcreate: `fid`, a directory, becomes the new open file.
    pub fn lcreate(
        &mut self,
        fid: Fid,
        name: impl AsRef<OsStr>,
        flags: u32,
        mode: u32,
        gid: u32,
    ) -> Result<Rlcreate> {
        self.call(&Tlcreate {
            fid,
            name: octets(&name),
            flags,
            mode,
            gid,
        })
    }

    /// Tread: as much as `count` and msize allow; empty at the end.
    pub fn read(&mut self, fid: Fid, offset: u64, count: u32) -> Result<Vec<u8>> {
        let count = count.min(self.msize() - IO_HEADER);
        Ok(self.call(&Tread { fid, offset, count })?.data.0)
    }

    /// Twrite: how many octets were written; what exceeds msize is not sent.
    pub fn write(&mut self, fid: Fid, offset: u64, data: &[u8]) -> Result<u32> {
        let most = usize::try_from(self.msize() - IO_HEADER)
            .unwrap_or(usize::MAX)
            .min(data.len());
        Ok(self
            .call(&Twrite {
                fid,
                offset,
                data: Data(&data[..most]),
            })?
            .count)
    }

    /// Treaddir: entries from `offset` on, as many as fit in `count` octets; none at the end.
    pub fn readdir(&mut self, fid: Fid, offset: u64, count: u32) -> Result<Vec<DirEntry>> {
        let count = count.min(self.msize() - IO_HEADER);
        let data = self.call(&Treaddir { fid, offset, count })?.data;
        let mut decoder = Decoder::new(&data.0);
        let mut entries = Vec::new();
        while !decoder.is_empty() {
            let (qid, offset) = (Get::get(&mut decoder)?, Get::get(&mut decoder)?);
            entries.push(DirEntry {
                qid,
                offset,
                kind: Get::get(&mut decoder)?,
                name: Get::get(&mut decoder)?,
            });
        }
        Ok(entries)
    }

    /// Tgetattr of what stat(2) has.
    pub fn getattr(&mut self, fid: Fid) -> Result<Rgetattr> {
        self.call(&Tgetattr {
            fid,
            request_mask: GETATTR_BASIC,
        })
    }

    /// Tsetattr.
    pub fn setattr(&mut self, fid: Fid, change: &SetAttr) -> Result<()> {
        self.call(&change.message(fid)).map(drop)
    }

    /// Tmkdir.
    pub fn mkdir(
        &mut self,
        directory: Fid,
        name: impl AsRef<OsStr>,
        mode: u32,
        gid: u32,
    ) -> Result<Qid> {
        Ok(self
            .call(&Tmkdir {
                dfid: directory,
                name: octets(&name),
                mode,
                gid,
            })?
            .qid)
    }

    /// Tsymlink.
    pub fn symlink(
        &mut self,
        directory: Fid,
        name: impl AsRef<OsStr>,
        target: impl AsRef<OsStr>,
        gid: u32,
    ) -> Result<Qid> {
        Ok(self
            .call(&Tsymlink {
                dfid: directory,
                name: octets(&name),
                symtgt: octets(&target),
                gid,
            })?
            .qid)
    }

    /// Tmknod; `mode` with the type's bits, `device` as major and minor number.
    pub fn mknod(
        &mut self,
        directory: Fid,
        name: impl AsRef<OsStr>,
        mode: u32,
        device: (u32, u32),
        gid: u32,
    ) -> Result<Qid> {
        let (major, minor) = device;
        Ok(self
            .call(&Tmknod {
                dfid: directory,
                name: octets(&name),
                mode,
                major,
                minor,
                gid,
            })?
            .qid)
    }

    /// Tlink of `fid` as `name` in `directory`.
    pub fn link(&mut self, directory: Fid, fid: Fid, name: impl AsRef<OsStr>) -> Result<()> {
        self.call(&Tlink {
            dfid: directory,
            fid,
            name: octets(&name),
        })
        .map(drop)
    }

    /// Trename of what `fid` names.
    pub fn rename(&mut self, fid: Fid, directory: Fid, name: impl AsRef<OsStr>) -> Result<()> {
        self.call(&Trename {
            fid,
            dfid: directory,
            name: octets(&name),
        })
        .map(drop)
    }

    /// Trenameat.
    pub fn renameat(
        &mut self,
        from: Fid,
        old: impl AsRef<OsStr>,
        to: Fid,
        new: impl AsRef<OsStr>,
    ) -> Result<()> {
        self.call(&Trenameat {
            olddirfid: from,
            oldname: octets(&old),
            newdirfid: to,
            newname: octets(&new),
        })
        .map(drop)
    }

    /// Tunlinkat; `flags` 0 or [`AT_REMOVEDIR`].
    pub fn unlinkat(&mut self, directory: Fid, name: impl AsRef<OsStr>, flags: u32) -> Result<()> {
        self.call(&Tunlinkat {
            dirfd: directory,
            name: octets(&name),
            flags,
        })
        .map(drop)
    }

    /// Treadlink.
    pub fn readlink(&mut self, fid: Fid) -> Result<Vec<u8>> {
        Ok(self.call(&Treadlink { fid })?.target)
    }

    /// Tstatfs.
    pub fn statfs(&mut self, fid: Fid) -> Result<Rstatfs> {
        self.call(&Tstatfs { fid })
    }

    /// Tfsync with data and attributes.
    pub fn fsync(&mut self, fid: Fid) -> Result<()> {
        self.call(&Tfsync { fid, datasync: 0 }).map(drop)
    }

    /// Tlock: 0 granted, 1 blocked, 2 error, 3 grace.
    pub fn lock(&mut self, fid: Fid, lock: LockRange) -> Result<u8> {
        let LockRange {
            kind,
            start,
            length,
            proc_id,
        } = lock;
        Ok(self
            .call(&Tlock {
                fid,
                kind,
                flags: 0,
                start,
                length,
                proc_id,
                client_id: b"p9",
            })?
            .status)
    }

    /// Tgetlock.
    pub fn getlock(&mut self, fid: Fid, lock: LockRange) -> Result<Rgetlock> {
        let LockRange {
            kind,
            start,
            length,
            proc_id,
        } = lock;
        self.call(&Tgetlock {
            fid,
            kind,
            start,
            length,
            proc_id,
            client_id: b"p9",
        })
    }

    /// Txattrwalk: a new fid to read the attribute's value (with an empty name: the list) from, and its octets.
    pub fn xattrwalk(&mut self, fid: Fid, name: impl AsRef<OsStr>) -> Result<(Fid, u64)> {
        let newfid = self.new_fid();
        let size = self
            .call(&Txattrwalk {
                fid,
                newfid,
                name: octets(&name),
            })?
            .size;
        Ok((newfid, size))
    }

    /// Txattrcreate: `fid` is from now on for writing the value, which clunk sets; `flags` are setxattr(2)'s.
    pub fn xattrcreate(
        &mut self,
        fid: Fid,
        name: impl AsRef<OsStr>,
        size: u64,
        flags: u32,
    ) -> Result<()> {
        self.call(&Txattrcreate {
            fid,
            name: octets(&name),
            attr_size: size,
            flags,
        })
        .map(drop)
    }

    /// Tclunk.
    pub fn clunk(&mut self, fid: Fid) -> Result<()> {
        self.call(&Tclunk { fid }).map(drop)
    }

    /// Tremove, which clunks the fid as well.
    pub fn remove(&mut self, fid: Fid) -> Result<()> {
        self.call(&Tremove { fid }).map(drop)
    }

    /// Tflush of the request with that tag; finish that one afterwards: it was either done or is [`Error::Flushed`].
    pub fn flush(&mut self, tag: u16) -> Result<()> {
        self.call(&Tflush { oldtag: tag }).map(drop)
    }
}
