//! One method per FUSE operation: convert, call, answer.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, FileHandle, Filesystem, FopenFlags, Generation,
    INodeNo, IoctlFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyBmap,
    ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl,
    ReplyLock, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow,
    WriteFlags,
};
use rustix::io::Errno;

use super::convert::{attr, bare_attr, entry_attr, errno, file_type, node, requester, set_time};
use super::init::{Lifetimes, negotiate};
use super::serve::{Cache, ViewMode};
use crate::ids::{FileKind, GuestGid, GuestUid, HandleId, Mode};
use crate::mediate::{Mediator, Plus, Shown, ShownEntry, XattrReply};
use crate::op::{ChangesAsk, OpenAs};

/// fuser's view of a [`Mediator`].
#[derive(Debug)]
pub(super) struct Adapter {
    mediator: Arc<Mediator>,
    cache: Cache,
    mode: ViewMode,
    lifetimes: Lifetimes,
}

impl Adapter {
    pub(super) fn new(mediator: Arc<Mediator>, cache: Cache, mode: ViewMode) -> Self {
        Self {
            mediator,
            cache,
            mode,
            lifetimes: Lifetimes::of(cache),
        }
    }

    /// How long attributes may be remembered. Not at all where a write may change them behind the
    /// kernel's back.
    fn attr_ttl(&self, shown: &Shown) -> Duration {
        if shown.mode_may_change_on_write() {
            Duration::ZERO
        } else {
            self.lifetimes.positive
        }
    }

    fn entry(&self, result: Result<ShownEntry, Errno>, reply: ReplyEntry) {
        match result {
            Ok(entry) => reply.entry_with_ttls(
                &self.attr_ttl(&entry.shown),
                &self.lifetimes.positive,
                &entry_attr(&entry),
                Generation(entry.generation),
            ),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn attr(&self, result: Result<Shown, Errno>, reply: ReplyAttr) {
        match result {
            Ok(shown) => reply.attr(&self.attr_ttl(&shown), &attr(&shown)),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn open_flags(&self, open: OpenAs) -> FopenFlags {
        let mut flags = FopenFlags::empty();
        if self.lifetimes.keeps_data {
            flags |= FopenFlags::FOPEN_KEEP_CACHE;
        }
        // Only what was written can fail at close.
        if !open.write {
            flags |= FopenFlags::FOPEN_NOFLUSH;
        }
        flags
    }
}

fn handle(fh: FileHandle) -> HandleId {
    HandleId(fh.0)
}

fn empty(result: Result<(), Errno>, reply: ReplyEmpty) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(errno(error)),
    }
}

fn written(result: Result<usize, Errno>, reply: ReplyWrite) {
    match result {
        // At most what was asked, which came in 32 bits or was cut to fit.
        Ok(count) => reply.written(u32::try_from(count).unwrap_or(u32::MAX)),
        Err(error) => reply.error(errno(error)),
    }
}

fn xattr(result: Result<XattrReply, Errno>, reply: ReplyXattr) {
    match result {
        Ok(XattrReply::Length(length)) => reply.size(length),
        Ok(XattrReply::Bytes(bytes)) => reply.data(&bytes),
        Err(error) => reply.error(errno(error)),
    }
}

impl Filesystem for Adapter {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let plus = !self.mediator.judges_looks();
        negotiate(config, self.cache, self.mode, plus)
    }

    fn lookup(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let result = self
            .mediator
            .lookup(requester(req), node(parent), name.as_bytes());
        match result {
            // Node id 0 means: not there, and that may be remembered.
            Err(Errno::NOENT) if !self.lifetimes.negative.is_zero() => {
                reply.entry(&self.lifetimes.negative, &bare_attr(0, None), Generation(0))
            }
            result => self.entry(result, reply),
        }
    }

    fn forget(&self, _req: &Request, ino: INodeNo, nlookup: u64) {
        self.mediator.forget(node(ino), nlookup);
    }

    fn getattr(&self, req: &Request, ino: INodeNo, fh: Option<FileHandle>, reply: ReplyAttr) {
        let result = self
            .mediator
            .getattr(requester(req), node(ino), fh.map(handle));
        self.attr(result, reply);
    }

    fn setattr(
        &self,
        req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        // The inode's change time is the export's own.
        _ctime: Option<SystemTime>,
        fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let ask = ChangesAsk {
            uid: uid.map(GuestUid),
            gid: gid.map(GuestGid),
            mode: mode.map(Mode::new),
            size,
            atime: set_time(atime),
            mtime: set_time(mtime),
        };
        let who = requester(req);
        self.attr(
            self.mediator.setattr(who, node(ino), fh.map(handle), ask),
            reply,
        );
    }

    fn readlink(&self, req: &Request, ino: INodeNo, reply: ReplyData) {
        match self.mediator.readlink(requester(req), node(ino)) {
            Ok(target) => reply.data(&target),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn mknod(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        // The kernel has applied the umask: DONT_MASK is not negotiated.
        _umask: u32,
        _rdev: u32,
        reply: ReplyEntry,
    ) {
        let result = self
            .mediator
            .mknod(requester(req), node(parent), name.as_bytes(), mode);
        self.entry(result, reply);
    }

    fn mkdir(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        let result = self
            .mediator
            .mkdir(requester(req), node(parent), name.as_bytes(), mode);
        self.entry(result, reply);
    }

    fn unlink(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(
            self.mediator
                .unlink(requester(req), node(parent), name.as_bytes()),
            reply,
        );
    }

    fn rmdir(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(
            self.mediator
                .rmdir(requester(req), node(parent), name.as_bytes()),
            reply,
        );
    }

    fn symlink(
        &self,
        req: &Request,
        parent: INodeNo,
        link_name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let (name, target) = (link_name.as_bytes(), target.as_os_str().as_bytes());
        self.entry(
            self.mediator
                .symlink(requester(req), node(parent), name, target),
            reply,
        );
    }

    fn rename(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let from = (node(parent), name.as_bytes());
        let to = (node(newparent), newname.as_bytes());
        empty(
            self.mediator.rename(requester(req), from, to, flags.bits()),
            reply,
        );
    }

    fn link(
        &self,
        req: &Request,
        ino: INodeNo,
        newparent: INodeNo,
        newname: &OsStr,
        reply: ReplyEntry,
    ) {
        let name = newname.as_bytes();
        self.entry(
            self.mediator
                .link(requester(req), node(ino), node(newparent), name),
            reply,
        );
    }

    fn open(&self, req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        match self.mediator.open(requester(req), node(ino), flags.0) {
            Ok((opened, open)) => reply.opened(FileHandle(opened.0), self.open_flags(open)),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn read(
        &self,
        req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let deliver = |read: Result<&[u8], Errno>| match read {
            Ok(data) => reply.data(data),
            Err(error) => reply.error(errno(error)),
        };
        self.mediator
            .read(requester(req), handle(fh), offset, size, deliver);
    }

    fn write(
        &self,
        req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        written(
            self.mediator
                .write(requester(req), handle(fh), offset, data),
            reply,
        );
    }

    fn flush(
        &self,
        req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        empty(self.mediator.flush(requester(req), handle(fh)), reply);
    }

    fn release(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.mediator.release(handle(fh));
        reply.ok();
    }

    fn fsync(
        &self,
        req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        datasync: bool,
        reply: ReplyEmpty,
    ) {
        empty(
            self.mediator.fsync(requester(req), handle(fh), datasync),
            reply,
        );
    }

    fn opendir(&self, req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        match self.mediator.opendir(requester(req), node(ino)) {
            Ok(opened) => reply.opened(FileHandle(opened.0), FopenFlags::empty()),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn readdir(
        &self,
        req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let result = self
            .mediator
            .readdir(requester(req), handle(fh), offset, &mut |entry| {
                // The kernel takes an unknown type for a hint (DT_UNKNOWN); fuser cannot say it, and a
                // wrong hint that claims a regular file is corrected by the first lookup.
                let kind = file_type(entry.kind.unwrap_or(FileKind::Regular));
                let name = OsStr::from_bytes(entry.name);
                !reply.add(INodeNo(entry.ino), entry.cookie, kind, name)
            });
        match result {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn readdirplus(
        &self,
        req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let result = self
            .mediator
            .readdirplus(requester(req), handle(fh), offset, &mut |plus| {
                !self.add_plus(&mut reply, &plus)
            });
        match result {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn releasedir(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.mediator.release(handle(fh));
        reply.ok();
    }

    fn fsyncdir(
        &self,
        req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        datasync: bool,
        reply: ReplyEmpty,
    ) {
        empty(
            self.mediator.fsync(requester(req), handle(fh), datasync),
            reply,
        );
    }

    fn statfs(&self, req: &Request, ino: INodeNo, reply: ReplyStatfs) {
        match self.mediator.statfs(requester(req), node(ino)) {
            Ok(fs) => reply.statfs(
                fs.blocks, fs.bfree, fs.bavail, fs.files, fs.ffree, fs.bsize, fs.namelen, fs.frsize,
            ),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn setxattr(
        &self,
        req: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let name = name.as_bytes();
        empty(
            self.mediator
                .setxattr(requester(req), node(ino), name, value, flags),
            reply,
        );
    }

    fn getxattr(&self, req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        xattr(
            self.mediator
                .getxattr(requester(req), node(ino), name.as_bytes(), size),
            reply,
        );
    }

    fn listxattr(&self, req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        xattr(
            self.mediator.listxattr(requester(req), node(ino), size),
            reply,
        );
    }

    fn removexattr(&self, req: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(
            self.mediator
                .removexattr(requester(req), node(ino), name.as_bytes()),
            reply,
        );
    }

    fn access(&self, req: &Request, ino: INodeNo, _mask: AccessFlags, reply: ReplyEmpty) {
        empty(self.mediator.access(requester(req), node(ino)), reply);
    }

    fn create(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let who = requester(req);
        match self
            .mediator
            .create(who, node(parent), name.as_bytes(), mode, flags)
        {
            Ok((entry, opened, open)) => reply.created(
                &self.attr_ttl(&entry.shown),
                &entry_attr(&entry),
                Generation(entry.generation),
                FileHandle(opened.0),
                self.open_flags(open),
            ),
            Err(error) => reply.error(errno(error)),
        }
    }

    // Locks are the kernel's (POSIX_LOCKS, FLOCK_LOCKS are not negotiated): these never arrive
    // from one that keeps to the protocol.
    fn getlk(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _lock_owner: LockOwner,
        _start: u64,
        _end: u64,
        _typ: i32,
        _pid: u32,
        reply: ReplyLock,
    ) {
        reply.error(fuser::Errno::ENOLCK);
    }

    fn setlk(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _lock_owner: LockOwner,
        _start: u64,
        _end: u64,
        _typ: i32,
        _pid: u32,
        _sleep: bool,
        reply: ReplyEmpty,
    ) {
        reply.error(fuser::Errno::ENOLCK);
    }

    fn bmap(&self, _req: &Request, _ino: INodeNo, _size: u32, _idx: u64, reply: ReplyBmap) {
        // Block numbers of the host's device are nobody's business.
        reply.error(fuser::Errno::ENOTTY);
    }

    fn ioctl(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _flags: IoctlFlags,
        _cmd: u32,
        _in_data: &[u8],
        _out_size: u32,
        reply: ReplyIoctl,
    ) {
        // Not ENOSYS: an ioctl acts on the host's file in ways that no rule can judge.
        reply.error(fuser::Errno::ENOTTY);
    }

    fn fallocate(
        &self,
        req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let who = requester(req);
        empty(
            self.mediator
                .fallocate(who, handle(fh), mode, (offset, length)),
            reply,
        );
    }

    fn lseek(
        &self,
        req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        match self
            .mediator
            .lseek(requester(req), handle(fh), offset, whence)
        {
            Ok(offset) => reply.offset(offset),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn copy_file_range(
        &self,
        req: &Request,
        _ino_in: INodeNo,
        fh_in: FileHandle,
        offset_in: u64,
        _ino_out: INodeNo,
        fh_out: FileHandle,
        offset_out: u64,
        len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let (from, to) = ((handle(fh_in), offset_in), (handle(fh_out), offset_out));
        written(
            self.mediator.copy_file_range(requester(req), from, to, len),
            reply,
        );
    }
}

impl Adapter {
    /// Whether the reply is full and the entry not in it.
    fn add_plus(&self, reply: &mut ReplyDirectoryPlus, plus: &Plus<'_>) -> bool {
        let name = OsStr::from_bytes(plus.name);
        match &plus.entry {
            // fuser has one lifetime for the name and the attributes: the shorter.
            Some(entry) => reply.add(
                INodeNo(entry.node.0),
                plus.cookie,
                name,
                &self.attr_ttl(&entry.shown),
                &entry_attr(entry),
                Generation(entry.generation),
            ),
            None => {
                // `.` and `..`: the kernel takes number and type, and no reference. Any other name
                // here could not be looked up: node id 0 says so.
                let is_dot = plus.name == b"." || plus.name == b"..";
                let shown = bare_attr(if is_dot { plus.ino } else { 0 }, plus.kind);
                let zero = Duration::ZERO;
                reply.add(shown.ino, plus.cookie, name, &zero, &shown, Generation(0))
            }
        }
    }
}
