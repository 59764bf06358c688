//! One method per FUSE operation: convert, call, answer.

use std::borrow::Borrow as _;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, FileHandle, Filesystem, FopenFlags, Generation,
    INodeNo, IoctlFlags, KernelConfig, LockOwner, Notifier, OpenFlags, RenameFlags, ReplyAttr,
    ReplyBmap, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry,
    ReplyIoctl, ReplyLock, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request,
    TimeOrNow, WriteFlags,
};
use rustix::io::Errno;

use super::convert::{
    attr, bare_attr, entry_attr, errno, file_type, node, requester, set_time, unseen_attr, write_as,
};
use super::init::{Lifetimes, negotiate, offer_passthrough};
use super::listings::Listings;
use super::pool::Pool;
use super::serve::{Cache, ViewMode, drop_pages};
use crate::ids::{FileKind, GuestGid, GuestUid, HandleId, Mode, NodeId};
use crate::mediate::{AskedMode, DirectoryBy, Mediator, Plus, Shown, ShownEntry, Turn, XattrReply};
use crate::op::{ChangesAsk, OpenAs};

/// fuser's view of a [`Mediator`].
#[derive(Debug)]
pub(super) struct Adapter {
    inner: Arc<Inner>,
    /// Where requests are done while they may be held.
    pool: Pool,
}

/// What a request needs, on whichever thread it is done.
#[derive(Debug)]
pub(super) struct Inner {
    mediator: Arc<Mediator>,
    cache: Cache,
    mode: ViewMode,
    lifetimes: Lifetimes,
    /// Where listings end that the kernel holds.
    listings: OnceLock<Arc<Listings>>,
    /// The kernel can be made to forget names that it knows to be missing.
    forgets_missing: AtomicBool,
    /// Where the kernel is told what to forget; none before the session is made.
    notifier: OnceLock<Notifier>,
}

impl Adapter {
    pub(super) fn new(mediator: Arc<Mediator>, cache: Cache, mode: ViewMode) -> Self {
        if mode == ViewMode::Shared {
            mediator.serve_users();
        }
        let inner = Arc::new(Inner {
            mediator,
            cache,
            mode,
            lifetimes: Lifetimes::of(cache),
            listings: OnceLock::new(),
            forgets_missing: AtomicBool::new(false),
            notifier: OnceLock::new(),
        });
        Self {
            inner,
            pool: Pool::default(),
        }
    }

    /// What is shared with whoever starts the session.
    pub(super) fn inner(&self) -> Arc<Inner> {
        Arc::clone(&self.inner)
    }

    /// Does one request: here, or where it may be held. `lent` is the part of the message that it
    /// needs, which is copied only in the second case.
    fn serve<B>(&self, lent: &B, job: impl FnOnce(&Inner, &B) + Send + 'static)
    where
        B: ?Sized + ToOwned,
        B::Owned: Send + 'static,
    {
        if self.inner.is_stepped() {
            let owned = lent.to_owned();
            let job = move |inner: &Inner| job(inner, owned.borrow());
            self.pool.run(&self.inner, Box::new(job));
        } else {
            let _turn = self.inner.enter();
            job(&self.inner, lent);
        }
    }

    /// The same with two parts of the message.
    fn serve_two(&self, lent: [&[u8]; 2], job: impl FnOnce(&Inner, [&[u8]; 2]) + Send + 'static) {
        if self.inner.is_stepped() {
            let owned = lent.map(<[u8]>::to_vec);
            let job = move |inner: &Inner| job(inner, owned.each_ref().map(Vec::as_slice));
            self.pool.run(&self.inner, Box::new(job));
        } else {
            let _turn = self.inner.enter();
            job(&self.inner, lent);
        }
    }
}

impl Inner {
    /// Whether requests may be held.
    pub(super) fn is_stepped(&self) -> bool {
        self.mediator.gate().is_armed()
    }

    /// A request begins.
    pub(super) fn enter(&self) -> Turn {
        self.mediator.enter()
    }

    /// The kernel can be made to forget missing names: from now on it may remember them.
    pub(super) fn forgets_missing(&self) {
        self.forgets_missing.store(true, Ordering::Relaxed);
    }

    /// Where it is told from now on that a directory was listed.
    pub(super) fn listings_end_in(&self, listings: Arc<Listings>) {
        // Set once, before the first request.
        let _first = self.listings.set(listings);
    }

    /// A directory was changed, for a request that still holds its lock in the kernel: what that
    /// and readers remember of it is over.
    fn changed(&self, directory: NodeId) {
        if let (Some(listings), Some(notifier)) = (self.listings.get(), self.notifier())
            && listings.changes(directory)
        {
            self.mediator.close_streams(directory);
            drop_pages(notifier, directory);
        }
    }

    /// The same if it was.
    fn changed_by<T>(&self, directory: NodeId, result: Result<T, Errno>) -> Result<T, Errno> {
        if result.is_ok() {
            self.changed(directory);
        }
        result
    }

    /// The mode of a new inode: a client view's kernel has applied the umask already.
    fn asked_mode(&self, bits: u32, umask: u32) -> AskedMode {
        let left_to_us = self.mode == ViewMode::Shared;
        AskedMode {
            bits,
            umask: if left_to_us { umask } else { 0 },
        }
    }

    /// Whether OPENDIR decides nothing, here and for as long as the view lives: what READDIR tells
    /// does not depend on who asks, and may be remembered.
    fn opens_no_directories(&self) -> bool {
        self.mode == ViewMode::Client && self.cache != Cache::None
    }

    /// A directory was read, and the kernel is about to be told.
    fn listed(&self, directory: DirectoryBy) {
        if let (DirectoryBy::Node(node), Some(listings)) = (directory, self.listings.get()) {
            listings.told(node);
        }
    }

    /// The session is made.
    pub(super) fn notify_by(&self, notifier: Notifier) {
        // Once for each view: a second one would be another's.
        let _first = self.notifier.set(notifier);
    }

    pub(super) fn notifier(&self) -> Option<&Notifier> {
        self.notifier.get()
    }

    pub(super) fn mediator(&self) -> &Mediator {
        &self.mediator
    }

    pub(super) fn keeps_data(&self) -> bool {
        self.lifetimes.keeps_data
    }

    fn missing_names_are_kept(&self) -> bool {
        !self.lifetimes.negative.is_zero() && self.forgets_missing.load(Ordering::Relaxed)
    }

    /// How long attributes may be remembered. Not at all where a write may change them behind the
    /// kernel's back.
    pub(super) fn attr_ttl(&self, shown: &Shown) -> Duration {
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

    pub(super) fn open_flags(&self, open: OpenAs) -> FopenFlags {
        let mut flags = FopenFlags::empty();
        if self.lifetimes.keeps_data {
            flags |= FopenFlags::FOPEN_KEEP_CACHE;
        }
        // Only what was written can fail at close, and not everywhere.
        if !open.write || self.mediator.closes_silently() {
            flags |= FopenFlags::FOPEN_NOFLUSH;
        }
        flags
    }
}

fn directory(node: NodeId, fh: FileHandle) -> DirectoryBy {
    match fh.0 {
        0 => DirectoryBy::Node(node),
        _ => DirectoryBy::Handle(handle(fh)),
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
        let inner = &self.inner;
        negotiate(config, inner.cache, inner.mode)?;
        let backings = inner.mediator.backings();
        if backings.can_register() {
            backings.kernel_agreed(offer_passthrough(config));
        }
        Ok(())
    }

    fn lookup(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let (who, parent) = (requester(req), node(parent));
        self.serve(name.as_bytes(), move |to, name| {
            match to.mediator.lookup(who, parent, name) {
                // Node id 0 means: not there, and that may be remembered.
                Err(Errno::NOENT) if to.missing_names_are_kept() => {
                    let ttl = &to.lifetimes.negative;
                    reply.entry(ttl, &bare_attr(0, None), Generation(0));
                }
                result => to.entry(result, reply),
            }
        });
    }

    fn forget(&self, _req: &Request, ino: INodeNo, nlookup: u64) {
        self.inner.mediator.forget(node(ino), nlookup);
    }

    fn getattr(&self, req: &Request, ino: INodeNo, fh: Option<FileHandle>, reply: ReplyAttr) {
        let (who, ino, fh) = (requester(req), node(ino), fh.map(handle));
        self.serve(&(), move |to, ()| {
            to.attr(to.mediator.getattr(who, ino, fh), reply);
        });
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
        let (who, ino, fh) = (requester(req), node(ino), fh.map(handle));
        self.serve(&(), move |to, ()| {
            to.attr(to.mediator.setattr(who, ino, fh, ask), reply);
        });
    }

    fn readlink(&self, req: &Request, ino: INodeNo, reply: ReplyData) {
        let (who, ino) = (requester(req), node(ino));
        self.serve(&(), move |to, ()| match to.mediator.readlink(who, ino) {
            Ok(target) => reply.data(&target),
            Err(error) => reply.error(errno(error)),
        });
    }

    fn mknod(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _rdev: u32,
        reply: ReplyEntry,
    ) {
        let (who, parent) = (requester(req), node(parent));
        self.serve(name.as_bytes(), move |to, name| {
            let mode = to.asked_mode(mode, umask);
            let made = to.mediator.mknod(who, parent, name, mode);
            to.entry(to.changed_by(parent, made), reply);
        });
    }

    fn mkdir(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        let (who, parent) = (requester(req), node(parent));
        self.serve(name.as_bytes(), move |to, name| {
            let mode = to.asked_mode(mode, umask);
            let made = to.mediator.mkdir(who, parent, name, mode);
            to.entry(to.changed_by(parent, made), reply);
        });
    }

    fn unlink(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (who, parent) = (requester(req), node(parent));
        self.serve(name.as_bytes(), move |to, name| {
            let gone = to.mediator.unlink(who, parent, name);
            empty(to.changed_by(parent, gone), reply);
        });
    }

    fn rmdir(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (who, parent) = (requester(req), node(parent));
        self.serve(name.as_bytes(), move |to, name| {
            let gone = to.mediator.rmdir(who, parent, name);
            empty(to.changed_by(parent, gone), reply);
        });
    }

    fn symlink(
        &self,
        req: &Request,
        parent: INodeNo,
        link_name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let (who, parent) = (requester(req), node(parent));
        let names = [link_name.as_bytes(), target.as_os_str().as_bytes()];
        self.serve_two(names, move |to, [name, target]| {
            let made = to.mediator.symlink(who, parent, name, target);
            to.entry(to.changed_by(parent, made), reply);
        });
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
        let (who, flags) = (requester(req), flags.bits());
        let (parent, newparent) = (node(parent), node(newparent));
        let names = [name.as_bytes(), newname.as_bytes()];
        self.serve_two(names, move |to, [name, newname]| {
            let (from, to_name) = ((parent, name), (newparent, newname));
            let moved = to.mediator.rename(who, from, to_name, flags);
            let moved = to.changed_by(newparent, moved);
            empty(to.changed_by(parent, moved), reply);
        });
    }

    fn link(
        &self,
        req: &Request,
        ino: INodeNo,
        newparent: INodeNo,
        newname: &OsStr,
        reply: ReplyEntry,
    ) {
        let (who, ino, newparent) = (requester(req), node(ino), node(newparent));
        self.serve(newname.as_bytes(), move |to, name| {
            let made = to.mediator.link(who, ino, newparent, name);
            to.entry(to.changed_by(newparent, made), reply);
        });
    }

    fn open(&self, req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let (who, ino) = (requester(req), node(ino));
        self.serve(&(), move |to, ()| {
            match to.mediator.open(who, ino, flags.0) {
                Ok(opened) => to.opened(opened, reply),
                Err(error) => reply.error(errno(error)),
            }
        });
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
        let (who, fh) = (requester(req), handle(fh));
        self.serve(&(), move |to, ()| {
            let deliver = |read: Result<&[u8], Errno>| match read {
                Ok(data) => reply.data(data),
                Err(error) => reply.error(errno(error)),
            };
            to.mediator.read(who, fh, offset, size, deliver);
        });
    }

    fn write(
        &self,
        req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let (who, fh) = (requester(req), handle(fh));
        let place = (offset, write_as(write_flags, flags));
        self.serve(data, move |to, data| {
            written(to.mediator.write(who, fh, place, data), reply);
        });
    }

    fn flush(
        &self,
        req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        let (who, fh) = (requester(req), handle(fh));
        self.serve(&(), move |to, ()| empty(to.mediator.flush(who, fh), reply));
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
        self.inner.close_file(handle(fh));
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
        let (who, fh) = (requester(req), handle(fh));
        self.serve(&(), move |to, ()| {
            empty(to.mediator.fsync(who, fh, datasync), reply)
        });
    }

    fn opendir(&self, req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let (who, ino) = (requester(req), node(ino));
        self.serve(&(), move |to, ()| {
            if to.opens_no_directories() {
                return reply.error(errno(to.mediator.opendir_needless(who)));
            }
            match to.mediator.opendir(who, ino) {
                Ok(opened) => reply.opened(FileHandle(opened.0), FopenFlags::empty()),
                Err(error) => reply.error(errno(error)),
            }
        });
    }

    fn readdir(
        &self,
        req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let (who, ino) = (requester(req), node(ino));
        self.serve(&(), move |to, ()| {
            let directory = directory(ino, fh);
            let result = to.mediator.readdir(who, directory, offset, &mut |entry| {
                // Unknown is what is gone meanwhile; fuser cannot say so (DT_UNKNOWN).
                let kind = file_type(entry.kind.unwrap_or(FileKind::Regular));
                let name = OsStr::from_bytes(entry.name);
                !reply.add(INodeNo(entry.ino), entry.cookie, kind, name)
            });
            to.listed(directory);
            match result {
                Ok(()) => reply.ok(),
                Err(error) => reply.error(errno(error)),
            }
        });
    }

    fn readdirplus(
        &self,
        req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let (who, ino) = (requester(req), node(ino));
        self.serve(&(), move |to, ()| {
            let mut add = |plus: Plus<'_>| !to.add_plus(&mut reply, &plus);
            let directory = directory(ino, fh);
            let result = to.mediator.readdirplus(who, directory, offset, &mut add);
            to.listed(directory);
            match result {
                Ok(()) => reply.ok(),
                Err(error) => reply.error(errno(error)),
            }
        });
    }

    fn releasedir(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.inner.mediator.release(handle(fh));
        reply.ok();
    }

    fn fsyncdir(
        &self,
        req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        datasync: bool,
        reply: ReplyEmpty,
    ) {
        let (who, ino, fh) = (requester(req), node(ino), handle(fh));
        self.serve(&(), move |to, ()| {
            let result = if fh.0 == 0 {
                to.mediator.fsync_directory(who, ino, datasync)
            } else {
                to.mediator.fsync(who, fh, datasync)
            };
            empty(result, reply);
        });
    }

    fn statfs(&self, req: &Request, ino: INodeNo, reply: ReplyStatfs) {
        let (who, ino) = (requester(req), node(ino));
        self.serve(&(), move |to, ()| match to.mediator.statfs(who, ino) {
            Ok(fs) => reply.statfs(
                fs.blocks, fs.bfree, fs.bavail, fs.files, fs.ffree, fs.bsize, fs.namelen, fs.frsize,
            ),
            Err(error) => reply.error(errno(error)),
        });
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
        let (who, ino) = (requester(req), node(ino));
        self.serve_two([name.as_bytes(), value], move |to, [name, value]| {
            empty(to.mediator.setxattr(who, ino, name, value, flags), reply);
        });
    }

    fn getxattr(&self, req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let (who, ino) = (requester(req), node(ino));
        self.serve(name.as_bytes(), move |to, name| {
            xattr(to.mediator.getxattr(who, ino, name, size), reply);
        });
    }

    fn listxattr(&self, req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let (who, ino) = (requester(req), node(ino));
        self.serve(&(), move |to, ()| {
            xattr(to.mediator.listxattr(who, ino, size), reply)
        });
    }

    fn removexattr(&self, req: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (who, ino) = (requester(req), node(ino));
        self.serve(name.as_bytes(), move |to, name| {
            empty(to.mediator.removexattr(who, ino, name), reply);
        });
    }

    fn access(&self, req: &Request, ino: INodeNo, _mask: AccessFlags, reply: ReplyEmpty) {
        let (who, ino) = (requester(req), node(ino));
        self.serve(&(), move |to, ()| {
            empty(to.mediator.access(who, ino), reply)
        });
    }

    fn create(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let (who, parent) = (requester(req), node(parent));
        self.serve(name.as_bytes(), move |to, name| {
            let mode = to.asked_mode(mode, umask);
            let made = to.mediator.create(who, parent, name, mode, flags);
            match to.changed_by(parent, made) {
                Ok((entry, opened)) => to.created(&entry, opened, reply),
                Err(error) => reply.error(errno(error)),
            }
        });
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
        let (who, fh) = (requester(req), handle(fh));
        self.serve(&(), move |to, ()| {
            empty(
                to.mediator.fallocate(who, fh, mode, (offset, length)),
                reply,
            );
        });
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
        let (who, fh) = (requester(req), handle(fh));
        self.serve(&(), move |to, ()| {
            match to.mediator.lseek(who, fh, offset, whence) {
                Ok(offset) => reply.offset(offset),
                Err(error) => reply.error(errno(error)),
            }
        });
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
        let who = requester(req);
        let (from, into) = ((handle(fh_in), offset_in), (handle(fh_out), offset_out));
        self.serve(&(), move |to, ()| {
            written(to.mediator.copy_file_range(who, from, into, len), reply);
        });
    }
}

impl Inner {
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
                // `.` and `..`: the kernel takes number and type, and no reference.
                let is_dot = plus.name == b"." || plus.name == b"..";
                let shown = if is_dot {
                    bare_attr(plus.ino, plus.kind)
                } else {
                    unseen_attr(plus.ino, plus.kind)
                };
                let zero = Duration::ZERO;
                reply.add(shown.ino, plus.cookie, name, &zero, &shown, Generation(0))
            }
        }
    }
}
