//! The few system calls that neither nix nor rustix wraps safely, and the only unsafe code of
//! this crate.
#![allow(
    unsafe_code,
    reason = "fork, mount_setattr and close_range have no safe wrapper"
)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::unistd::Pid;

/// The outcome of [`clone_process`].
pub(crate) enum Forked {
    /// In the parent: the child as this process's pid namespace numbers it.
    Parent(Pid),
    /// In the child.
    Child,
}

/// `fork(2)` with namespace flags (`clone(2)`): the child starts in new namespaces. With
/// `CLONE_NEWPID` it is their pid 1.
///
/// # Errors
///
/// The errno of clone(2); EINVAL if this process has more than one thread.
pub(crate) fn clone_process(namespaces: libc::c_int) -> io::Result<Forked> {
    if thread_count()? != 1 {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let flags = libc::c_long::from(namespaces | libc::SIGCHLD);
    // SAFETY: a null stack makes clone(2) behave as fork(2): the child gets a copy of this
    // address space. There is one thread (checked above), so no lock can be held by a thread that
    // the child lacks.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0usize, 0usize, 0usize, 0usize) };
    match i32::try_from(pid) {
        Ok(0) => Ok(Forked::Child),
        Ok(pid) if pid > 0 => Ok(Forked::Parent(Pid::from_raw(pid))),
        Ok(_) | Err(_) => Err(io::Error::last_os_error()),
    }
}

/// How many threads this process has, by procfs; 1 where /proc is not mounted any more (the
/// callers there fork before they start a thread).
fn thread_count() -> io::Result<usize> {
    match std::fs::read_dir("/proc/self/task") {
        Ok(tasks) => Ok(tasks.count()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(1),
        Err(error) => Err(error),
    }
}

/// `mount_setattr(2)` on the mount that `mount` is (and only that one).
///
/// # Errors
///
/// The errno of mount_setattr(2); ENOSYS before Linux 5.12.
pub(crate) fn mount_setattr(mount: BorrowedFd<'_>, set: u64, propagation: u64) -> io::Result<()> {
    let attr = libc::mount_attr {
        attr_set: set,
        attr_clr: 0,
        propagation,
        userns_fd: 0,
    };
    // SAFETY: the path is a NUL-terminated literal, and `attr` lives through the call and is
    // passed with its own size.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Closes every descriptor above 2 that is not in `keep` (`close_range(2)`).
///
/// Whatever Rust value still owns one of the closed numbers must never be used or dropped again:
/// only processes that end in `_exit` or `exec` call this.
///
/// # Errors
///
/// The errno of close_range(2); ENOSYS before Linux 5.9.
pub(crate) fn close_all_but(keep: &[RawFd]) -> io::Result<()> {
    let mut keep: Vec<u32> = keep
        .iter()
        .filter_map(|fd| u32::try_from(*fd).ok())
        .collect();
    keep.retain(|fd| *fd > 2);
    keep.sort_unstable();
    keep.dedup();
    let mut first = 3;
    for fd in keep {
        if fd > first {
            close_range(first, fd - 1)?;
        }
        first = fd + 1;
    }
    close_range(first, u32::MAX)
}

fn close_range(first: u32, last: u32) -> io::Result<()> {
    // SAFETY: close_range takes numbers only; that nobody uses the closed descriptors again is
    // the documented contract of `close_all_but`.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Gives SIGPIPE its default action back: Rust's runtime ignores it in this program, and what is
/// ignored stays so over execve(2).
pub(crate) fn default_sigpipe() {
    // SAFETY: SIG_DFL installs no handler, so that no code of ours can run in one.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}

/// Ends the process without running destructors: after a fork, the parent's values are not ours
/// to drop.
pub(crate) fn exit_now(status: u8) -> ! {
    // SAFETY: _exit(2) takes a number and does not return.
    unsafe { libc::_exit(i32::from(status)) }
}

/// Takes over a descriptor that the caller received as a number (from `--pass-fd`, or from a
/// control message).
pub(crate) fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: the number was just received from the kernel for this process (SCM_RIGHTS), so that
    // nothing else owns it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}
