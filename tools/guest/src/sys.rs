//! The two calls that have no safe form: memory maps and locks with an owner and a range.
#![allow(unsafe_code, reason = "the only module of the crate that may")]

use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::ptr;

use rustix::io::{Errno, Result};
use rustix::mm::{MapFlags, MsyncFlags, ProtFlags, mmap, msync, munmap};

/// Which `fcntl` lock to ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lock {
    /// Shared.
    Read,
    /// Exclusive.
    Write,
    /// None.
    Unlock,
}

/// Sets an open file description lock (`F_OFD_SETLK`, fcntl(2)) on a byte range, without waiting.
///
/// These belong to the open file, so one process can conflict with itself.
pub(crate) fn lock(fd: BorrowedFd<'_>, kind: Lock, start: i64, len: i64) -> Result<()> {
    let kind = match kind {
        Lock::Read => libc::F_RDLCK,
        Lock::Write => libc::F_WRLCK,
        Lock::Unlock => libc::F_UNLCK,
    };
    let range = libc::flock {
        l_type: libc::c_short::try_from(kind).map_err(|_| Errno::INVAL)?,
        l_whence: 0, // SEEK_SET
        l_start: start,
        l_len: len,
        l_pid: 0,
    };
    // SAFETY: F_OFD_SETLK reads one `struct flock`, which lives over the call.
    let done = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_OFD_SETLK, &raw const range) };
    if done == -1 {
        return Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO));
    }
    Ok(())
}

/// Maps the first page of `fd` writable, puts `data` at its start and unmaps it; with `shared`
/// the page is written back (msync) before.
pub(crate) fn map_and_write(fd: BorrowedFd<'_>, shared: bool, data: &[u8]) -> Result<()> {
    const PAGE: usize = 4096;
    if data.len() > PAGE {
        return Err(Errno::INVAL);
    }
    let flags = if shared {
        MapFlags::SHARED
    } else {
        MapFlags::PRIVATE
    };
    // SAFETY: a fresh mapping at an address of the kernel's choice overlaps nothing of ours.
    let page = unsafe {
        mmap(
            ptr::null_mut(),
            PAGE,
            ProtFlags::READ | ProtFlags::WRITE,
            flags,
            fd,
            0,
        )?
    };
    // SAFETY: the page is mapped writable, `data` fits, and the probes map files that are not
    // empty, so that the page exists behind the mapping.
    unsafe { ptr::copy_nonoverlapping(data.as_ptr(), page.cast::<u8>(), data.len()) };
    let synced = if shared {
        // SAFETY: the range is the mapping of above.
        unsafe { msync(page, PAGE, MsyncFlags::SYNC) }
    } else {
        Ok(())
    };
    // SAFETY: nothing refers to the mapping any more.
    unsafe { munmap(page, PAGE)? };
    synced
}
