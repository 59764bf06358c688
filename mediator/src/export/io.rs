//! Data of open files. What a handle may be used for is checked here, since the descriptor behind
//! it may allow more.

use std::io::IoSlice;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{FallocateFlags, Mode as RawMode, OFlags, SeekFrom};
use rustix::io::{Errno, ReadWriteFlags};

use super::create::extra_flags;
use super::fault::Call;
use super::handle::{Handle, Kind};
use super::{Export, Fault, Pin};
use crate::ids::{FileKind, HandleId};
use crate::op::{OpenAs, WriteAs, rows};
use crate::policy::Permit;
use crate::sys;
use crate::weak;

impl Export {
    /// Opens a regular file.
    ///
    /// # Errors
    ///
    /// EISDIR, ELOOP, ENXIO for a directory, a symbolic link, a special file: those are never
    /// opened; ENFILE when the budget of descriptors is spent on handles.
    pub fn open_file(&self, permit: Permit<rows::Open>, pin: &Pin) -> Result<HandleId, Fault> {
        let open = permit.grant();
        let (fd, refused) = self.open_as(pin, open)?;
        self.keep(Handle {
            fd: Arc::new(fd),
            node: pin.node,
            open: Kind::File(open),
            append_only: permit.append_only() || refused,
        })
    }

    /// Without `O_APPEND`, which would hold for a mapping's pages too, and after the client took the
    /// flag back. Where the kernel refuses that (EPERM) for the file's own attribute (chattr(1), `a`),
    /// with it, which is told. It also refuses `O_NOATIME` on a file whose owner is not mapped here
    /// (open(2)).
    fn open_as(&self, pin: &Pin, open: OpenAs) -> Result<(OwnedFd, bool), Fault> {
        let mut flags = match (open.read, open.write) {
            (true, true) => OFlags::RDWR,
            (false, true) => OFlags::WRONLY,
            (_, false) => OFlags::RDONLY,
        };
        flags |= extra_flags(open);
        flags.set(OFlags::TRUNC, open.truncate);
        let mut tried = self.open_regular(pin, flags);
        let is_refused = |tried: &Result<OwnedFd, Fault>| matches!(tried, Err(fault) if fault.errno == Errno::PERM);
        if open.no_atime && is_refused(&tried) {
            flags -= OFlags::NOATIME;
            tried = self.open_regular(pin, flags);
        }
        if open.append && is_refused(&tried) {
            return Ok((self.open_regular(pin, flags | OFlags::APPEND)?, true));
        }
        Ok((tried?, false))
    }

    /// Opens the inode that a descriptor names, by the descriptor's name in `/proc/self/fd`. The
    /// inode's type was read from the descriptor, and cannot change between that and this; so a
    /// FIFO that waits for a writer, or a device, is never opened. (`O_NOFOLLOW` would refuse the
    /// magic link itself, and guards nothing here.)
    pub(super) fn open_regular(&self, pin: &Pin, flags: OFlags) -> Result<OwnedFd, Fault> {
        match pin.kind {
            _ if !weak::stands(weak::Wall::Kinds) => {}
            FileKind::Regular => {}
            FileKind::Directory => return Err((Errno::ISDIR, "openat").into()),
            FileKind::Symlink => return Err((Errno::LOOP, "openat").into()),
            FileKind::Fifo | FileKind::Socket | FileKind::CharDevice | FileKind::BlockDevice => {
                return Err((Errno::NXIO, "openat").into());
            }
        }
        let flags = flags | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
        let name = self.proc_name(pin);
        rustix::fs::openat(self.proc_fd(), name.as_c_str(), flags, RawMode::empty()).call("openat")
    }

    pub(super) fn keep(&self, handle: Handle) -> Result<HandleId, Fault> {
        self.with(|table| table.open(handle)).call("open")
    }

    pub(super) fn handle(&self, id: HandleId) -> Result<Arc<Handle>, Fault> {
        self.with(|table| table.handle(id)).call("handle")
    }

    /// The node as somebody has it open, if anybody has: calls take that descriptor itself, where they
    /// refuse `O_PATH` and its name in `/proc/self/fd` costs three times as much.
    pub(super) fn open_of(&self, pin: &Pin) -> Option<Arc<Handle>> {
        self.with(|table| table.open_of(pin.node))
    }

    /// A file without a name, to try something on; `None` where none can be made.
    pub(crate) fn nameless_file(&self) -> Option<OwnedFd> {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        rustix::fs::openat(&self.root, ".", flags, RawMode::RUSR | RawMode::WUSR).ok()
    }

    /// Lends an open file's descriptor to whoever makes it known to the kernel.
    ///
    /// # Errors
    ///
    /// EBADF for a forged handle, EISDIR for a directory.
    pub(crate) fn lend_file<T>(
        &self,
        handle: HandleId,
        to: impl FnOnce(BorrowedFd<'_>) -> T,
    ) -> Result<T, Fault> {
        let handle = self.handle(handle)?;
        match handle.open {
            Kind::File(_) => Ok(to(handle.fd())),
            Kind::Directory(_) => Err((Errno::ISDIR, "handle").into()),
        }
    }

    /// Reads at an offset in bytes; fewer bytes than asked at the end of the file.
    ///
    /// # Errors
    ///
    /// EBADF for a forged handle or one not open for reading; EINVAL for an offset beyond 2^63.
    pub fn read(
        &self,
        _permit: Permit<rows::Read>,
        handle: HandleId,
        offset: u64,
        buf: &mut [u8],
    ) -> Result<usize, Fault> {
        let handle = self.handle(handle)?;
        let fd = handle.readable().call("pread")?;
        signed(offset).call("pread")?;
        // The kernel refuses a range that ends beyond 2^63; there is nothing to read there.
        let room = usize::try_from(MAX_OFFSET - offset).unwrap_or(usize::MAX);
        let asked = buf.len().min(room);
        let buf = buf.get_mut(..asked).unwrap_or_default();
        let mut done = 0;
        // A short read means the end of the file to FUSE, and only to FUSE.
        while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let Some(at) = offset.checked_add(done as u64) else {
                break;
            };
            match rustix::io::pread(fd, rest, at) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(Errno::INTR) => {}
                // Also behind what was read: the kernel then asks page by page, and tells what it
                // got and where it failed.
                Err(errno) => return Err((errno, "pread").into()),
            }
        }
        Ok(done)
    }

    /// Writes at an offset in bytes; at the end, whatever the offset, if the client or the handle
    /// appends.
    ///
    /// # Errors
    ///
    /// EBADF for a forged handle or one not open for writing; EINVAL for an offset, EFBIG for an
    /// end beyond 2^63; EPERM for a mapping's data if every open file may only append; ENOSPC, EDQUOT
    /// and the like from pwrite(2).
    pub fn write(
        &self,
        _permit: Permit<rows::Write>,
        handle: HandleId,
        (offset, how): (u64, WriteAs),
        data: &[u8],
    ) -> Result<usize, Fault> {
        let mut handle = self.handle(handle)?;
        if how == WriteAs::Mapped && handle.append_only {
            // Whose mapping it is, is not told. None is such a handle's: it is opened so that the
            // kernel makes no shared one.
            let other = self.with(|table| table.other_writer(&handle));
            handle = other.ok_or((Errno::PERM, "pwrite"))?;
        }
        let fd = handle.writable().call("pwrite")?;
        range(offset, data.len() as u64).call("pwrite")?;
        let write = || match how {
            WriteAs::Placed | WriteAs::Mapped if !handle.append_only => {
                rustix::io::pwrite(fd, data, offset)
            }
            WriteAs::Appended | WriteAs::Placed | WriteAs::Mapped => {
                let all = [IoSlice::new(data)];
                rustix::io::pwritev2(fd, &all, offset, ReadWriteFlags::APPEND)
            }
        };
        loop {
            match self.with_room(write) {
                Err(Errno::INTR) => {}
                result => return result.call("pwrite"),
            }
        }
    }

    /// Allocates, punches, zeroes, collapses or inserts a range in bytes.
    ///
    /// # Errors
    ///
    /// EOPNOTSUPP for a mode that is not on the list; EINVAL for an empty range; EFBIG for an end
    /// beyond 2^63; EBADF as for writing.
    pub fn fallocate(
        &self,
        _permit: Permit<rows::Fallocate>,
        handle: HandleId,
        mode: i32,
        offset: u64,
        length: u64,
    ) -> Result<(), Fault> {
        let handle = self.handle(handle)?;
        let fd = handle.writable().call("fallocate")?;
        let mode = allocation(mode).call("fallocate")?;
        range(offset, length).call("fallocate")?;
        let allocate = || rustix::fs::fallocate(fd, mode, offset, length);
        self.with_room(allocate).call("fallocate")
    }

    /// Finds data or a hole from an offset in bytes on.
    ///
    /// # Errors
    ///
    /// EINVAL for anything but `SEEK_DATA` and `SEEK_HOLE`; ENXIO beyond the end.
    pub fn lseek(
        &self,
        _permit: Permit<rows::Lseek>,
        handle: HandleId,
        offset: i64,
        whence: i32,
    ) -> Result<i64, Fault> {
        let handle = self.handle(handle)?;
        let fd = handle.readable().or_else(|_| handle.writable());
        let fd = fd.call("lseek")?;
        let offset = u64::try_from(offset).map_err(|_negative| (Errno::NXIO, "lseek"))?;
        let from = match whence {
            libc::SEEK_DATA => SeekFrom::Data(offset),
            libc::SEEK_HOLE => SeekFrom::Hole(offset),
            _ => return Err((Errno::INVAL, "lseek").into()),
        };
        let found = rustix::fs::seek(fd, from).call("lseek")?;
        i64::try_from(found).map_err(|_large| (Errno::OVERFLOW, "lseek").into())
    }

    /// Copies between two handles inside the kernel; offsets and length in bytes.
    ///
    /// # Errors
    ///
    /// EBADF unless the source is open for reading and the destination for writing; EINVAL and
    /// EFBIG for ranges beyond 2^63; EXDEV and EOPNOTSUPP where the client's kernel copies itself.
    pub fn copy_file_range(
        &self,
        _source: Permit<rows::CopyFileRange>,
        _destination: Permit<rows::CopyFileRange>,
        from: (HandleId, u64),
        to: (HandleId, u64),
        len: u64,
    ) -> Result<usize, Fault> {
        let (source, target) = (self.handle(from.0)?, self.handle(to.0)?);
        // copy_file_range(2): EBADF for a target that appends.
        if target.append_only {
            return Err((Errno::BADF, "copy_file_range").into());
        }
        let source = source.readable().call("copy_file_range")?;
        let target = target.writable().call("copy_file_range")?;
        let len = len.min(1 << 30);
        range(from.1, len).call("copy_file_range")?;
        range(to.1, len).call("copy_file_range")?;
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        let copy = || {
            let (mut at, mut into) = (from.1, to.1);
            rustix::fs::copy_file_range(source, Some(&mut at), target, Some(&mut into), len)
        };
        self.with_room(copy).call("copy_file_range")
    }

    /// A descriptor of the client was closed: what close(2) would report is reported.
    ///
    /// # Errors
    ///
    /// EBADF for a forged handle; a write-back that failed (NFS, quotas).
    pub fn flush(&self, _permit: Permit<rows::Flush>, handle: HandleId) -> Result<(), Fault> {
        let handle = self.handle(handle)?;
        let copy = rustix::io::fcntl_dupfd_cloexec(handle.fd(), 0).call("fcntl")?;
        sys::close_reporting(copy).call("close")
    }

    /// Brings a file's or directory's data to disk; with `data_only` fdatasync(2).
    ///
    /// # Errors
    ///
    /// EBADF for a forged handle; what fsync(2) says.
    pub fn fsync(
        &self,
        _permit: Permit<rows::Fsync>,
        handle: HandleId,
        data_only: bool,
    ) -> Result<(), Fault> {
        sync(self.handle(handle)?.fd(), data_only)
    }

    /// The same for a directory that need not be open.
    ///
    /// # Errors
    ///
    /// ENOTDIR for anything else; what openat(2) and fsync(2) say.
    pub fn fsync_directory(
        &self,
        _permit: Permit<rows::Fsync>,
        pin: &Pin,
        data_only: bool,
    ) -> Result<(), Fault> {
        let dir = sys::open_directory(pin.fd()).call("openat")?;
        sync(dir.as_fd(), data_only)
    }

    /// Closes a handle; a forged or stale one is ignored.
    pub fn release(&self, handle: HandleId) {
        // Closed here, when the lock has been released.
        drop(self.with(|table| table.release(handle)));
        self.may_have_left();
    }
}

fn sync(fd: BorrowedFd<'_>, data_only: bool) -> Result<(), Fault> {
    if data_only {
        rustix::fs::fdatasync(fd).call("fdatasync")
    } else {
        rustix::fs::fsync(fd).call("fsync")
    }
}

/// Offsets are `off_t`, in bytes.
const MAX_OFFSET: u64 = i64::MAX.cast_unsigned();

fn signed(offset: u64) -> Result<(), Errno> {
    if offset <= MAX_OFFSET || !weak::stands(weak::Wall::Arithmetic) {
        Ok(())
    } else {
        Err(Errno::INVAL)
    }
}

fn range(offset: u64, length: u64) -> Result<(), Errno> {
    signed(offset)?;
    match offset.checked_add(length) {
        Some(end) if end <= MAX_OFFSET => Ok(()),
        _ => Err(Errno::FBIG),
    }
}

fn allocation(mode: i32) -> Result<FallocateFlags, Errno> {
    let mode = u32::try_from(mode).map_err(|_negative| Errno::OPNOTSUPP)?;
    let mode = FallocateFlags::from_bits(mode).ok_or(Errno::OPNOTSUPP)?;
    let allowed = [
        FallocateFlags::empty(),
        FallocateFlags::KEEP_SIZE,
        FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
        FallocateFlags::ZERO_RANGE,
        FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE,
        FallocateFlags::COLLAPSE_RANGE,
        FallocateFlags::INSERT_RANGE,
    ];
    if allowed.contains(&mode) {
        Ok(mode)
    } else {
        Err(Errno::OPNOTSUPP)
    }
}
