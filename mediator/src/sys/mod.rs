//! Thin wrappers around system calls that rustix lacks or spells at length. They decide nothing.
//!
//! The crate's only `unsafe` is here: [`close_reporting`], [`keep_little_memory`] and
//! [`give_memory_back`].

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags, RawDir, Statx, StatxFlags};
use rustix::io::{Errno, Result};
use rustix::process::{Gid, Uid};

/// A descriptor's number as a C string: its name in `/proc/self/fd`, without allocation.
pub(crate) struct FdName([u8; 12]);

impl FdName {
    pub(crate) fn new(fd: BorrowedFd<'_>) -> Self {
        let mut rest = fd.as_raw_fd().unsigned_abs();
        let mut digits = [0_u8; 11];
        let mut len = 0;
        while let Some(digit) = digits.get_mut(len) {
            *digit = b'0' + u8::try_from(rest % 10).unwrap_or(0);
            len += 1;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        let mut name = [0; 12];
        for (to, from) in name.iter_mut().zip(digits.iter().take(len).rev()) {
            *to = *from;
        }
        Self(name)
    }

    pub(crate) fn as_c_str(&self) -> &CStr {
        // The array is one longer than the longest number, so that a terminator always follows.
        CStr::from_bytes_until_nul(&self.0).unwrap_or_default()
    }
}

/// A name in `/proc/self/fd` that is looked up soon: a copy's, with one of the numbers from `least`
/// on, which are free as a rule; the descriptor's own where no copy can be had.
///
/// procfs makes an inode and a directory entry for each number that is looked up, and keeps them
/// until the descriptor is closed: that costs more than the copy, and a kibibyte, for each node.
pub(crate) struct ProcName {
    name: FdName,
    _copy: Option<OwnedFd>,
}

impl ProcName {
    pub(crate) fn of(fd: BorrowedFd<'_>, least: i32) -> Self {
        let copy = rustix::io::fcntl_dupfd_cloexec(fd, least).ok();
        Self {
            name: FdName::new(copy.as_ref().map_or(fd, AsFd::as_fd)),
            _copy: copy,
        }
    }

    pub(crate) fn as_c_str(&self) -> &CStr {
        self.name.as_c_str()
    }
}

/// statx(2) of the descriptor itself.
pub(crate) fn stat(fd: BorrowedFd<'_>) -> Result<Statx> {
    stat_at(fd, c"", AtFlags::EMPTY_PATH)
}

/// statx(2) of one component, not followed and not automounted.
pub(crate) fn stat_at(dir: BorrowedFd<'_>, name: &CStr, flags: AtFlags) -> Result<Statx> {
    rustix::fs::statx(
        dir,
        name,
        flags | AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT,
        StatxFlags::BASIC_STATS | StatxFlags::BTIME | StatxFlags::MNT_ID,
    )
}

/// Whether statx(2) tells of alignments for `O_DIRECT` (`STATX_DIOALIGN`, Linux 6.1): no file
/// system does that has none.
pub(crate) fn has_direct_io(fd: BorrowedFd<'_>) -> Result<bool> {
    let st = rustix::fs::statx(fd, c"", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN)?;
    Ok(st.stx_mask & StatxFlags::DIOALIGN.bits() != 0 && st.stx_dio_mem_align != 0)
}

/// A descriptor that names what `name` is, and opens nothing (open(2), `O_PATH`).
pub(crate) fn open_path(dir: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::empty())
}

/// Opens the directory that a descriptor (`O_PATH` too) names for reading, at its start.
pub(crate) fn open_directory(dir: BorrowedFd<'_>) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::openat(dir, c".", flags, Mode::empty())
}

/// Changes owner and group of the inode that a descriptor (`O_PATH` too) names.
///
/// EINVAL for the id 4,294,967,295, which means "leave alone" to chown(2) and is no id.
pub(crate) fn chown(fd: BorrowedFd<'_>, uid: Option<u32>, gid: Option<u32>) -> Result<()> {
    if uid == Some(u32::MAX) || gid == Some(u32::MAX) {
        return Err(Errno::INVAL);
    }
    rustix::fs::chownat(
        fd,
        c"",
        uid.map(Uid::from_raw),
        gid.map(Gid::from_raw),
        AtFlags::EMPTY_PATH,
    )
}

/// Fills a buffer with one getdents64(2) and hands each entry over. `false` at the end of the
/// directory.
pub(crate) fn read_entries(
    dir: BorrowedFd<'_>,
    buffer: &mut [MaybeUninit<u8>],
    each: &mut dyn FnMut(&rustix::fs::RawDirEntry<'_>),
) -> Result<bool> {
    let mut entries = RawDir::new(dir, buffer);
    let mut any = false;
    while let Some(entry) = entries.next() {
        any = true;
        each(&entry?);
        if entries.is_buffer_empty() {
            break;
        }
    }
    Ok(any)
}

/// close(2) with its error, which file systems use to report a failed write-back (NFS, quotas).
#[allow(
    unsafe_code,
    reason = "rustix and std close without telling the result"
)]
pub(crate) fn close_reporting(fd: OwnedFd) -> Result<()> {
    let raw = fd.into_raw_fd();
    // SAFETY: `into_raw_fd` gave up ownership, so nothing else closes this number. Linux frees it
    // even when close(2) fails: it is never closed again.
    if unsafe { libc::close(raw) } == 0 {
        Ok(())
    } else {
        Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO))
    }
}

/// Has the allocator give back at once what is free at the end of its heaps, beyond 4 MiB, and keep
/// tables that are larger apart from them. Left alone it learns from the first large table that is
/// freed, and then keeps up to 64 MiB a thread.
#[allow(unsafe_code, reason = "no crate wraps mallopt")]
pub(crate) fn keep_little_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt(3) takes the allocator's own lock and sets two of its numbers.
    unsafe {
        const ENOUGH: libc::c_int = 4 << 20;
        libc::mallopt(libc::M_MMAP_THRESHOLD, ENOUGH);
        libc::mallopt(libc::M_TRIM_THRESHOLD, ENOUGH);
    }
}

/// Gives the allocator's free memory back to the system: what was freed in between other things
/// stays with the process otherwise, however much it is.
#[allow(unsafe_code, reason = "no crate wraps malloc_trim")]
pub(crate) fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim(3) takes the allocator's own locks and touches free memory alone.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fd_name_is_the_number() {
        let file = std::fs::File::open("/").unwrap();
        let name = FdName::new(file.as_fd());
        assert_eq!(
            name.as_c_str().to_str().unwrap(),
            file.as_raw_fd().to_string()
        );
    }
}
