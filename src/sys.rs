//! The few system calls that neither nix nor rustix wraps safely, and the only unsafe code of
//! this crate.
#![allow(
    unsafe_code,
    reason = "fork, mount_setattr, close_range, environ, sigaction and TIOCNOTTY have no safe wrapper"
)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::sys::signal::{SigHandler, Signal};
use nix::unistd::Pid;

use crate::error::{Class, Error};

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

/// Has this process no controlling terminal any more (`TIOCNOTTY`, ioctl_tty(2)), without leaving
/// its session; tells whether that is so. Not for the leader of a session, whose others would lose
/// it too.
pub(crate) fn give_up_terminal() -> bool {
    use nix::errno::Errno;
    use nix::fcntl::{OFlag, open};
    let terminal = || {
        let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        open("/dev/tty", flags, nix::sys::stat::Mode::empty())
    };
    match terminal() {
        // There is none (tty(4)).
        Err(Errno::ENXIO) => true,
        Err(_unknown) => false,
        Ok(tty) => {
            // SAFETY: TIOCNOTTY takes no argument and touches no memory of ours.
            let result = unsafe { libc::ioctl(tty.as_raw_fd(), libc::TIOCNOTTY) };
            result == 0 && matches!(terminal(), Err(Errno::ENXIO))
        }
    }
}

/// `mount_setattr(2)` on the mount that `mount` is, and with `all` on those below it too.
///
/// # Errors
///
/// The errno of mount_setattr(2); ENOSYS before Linux 5.12.
pub(crate) fn mount_setattr(
    mount: BorrowedFd<'_>,
    set: u64,
    propagation: u64,
    all: bool,
) -> io::Result<()> {
    let below = if all { libc::AT_RECURSIVE } else { 0 };
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
            libc::AT_EMPTY_PATH | below,
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

/// SIGPIPE ends the process again, as it does wherever a shell starts one.
///
/// # Errors
///
/// Client: the errno of sigaction(2).
pub(crate) fn default_sigpipe() -> crate::error::Result<()> {
    // SAFETY: no handler is installed; SIG_DFL runs no code of ours.
    unsafe { nix::sys::signal::signal(Signal::SIGPIPE, SigHandler::SigDfl) }
        .map(|_previous| ())
        .map_err(|errno| Error::step(Class::ClientNotStarted, "signal(SIGPIPE, SIG_DFL)", errno))
}

/// Wipes the environment that the caller gave: nothing of it is of use once the client has its own
/// copy, and it may hold secrets. What the process reads of it later is empty.
///
/// There must be one thread only, which is true of every caller: each forked while that was checked.
pub(crate) fn forget_environment() {
    // SAFETY: environ(7) is null or an array of NUL-terminated strings, closed by a null pointer,
    // that exec put on this process's stack or setenv on its heap; there is no other thread that
    // could read or change them meanwhile, and nobody keeps a reference: std copies what it reads.
    unsafe {
        let mut next = libc::environ;
        while !next.is_null() && !(*next).is_null() {
            libc::explicit_bzero((*next).cast(), libc::strlen(*next));
            next = next.add(1);
        }
        libc::clearenv();
    }
}

/// Ends the process without running destructors: after a fork, the parent's values are not ours
/// to drop.
pub(crate) fn exit_now(status: u8) -> ! {
    // SAFETY: _exit(2) takes a number and does not return.
    unsafe { libc::_exit(i32::from(status)) }
}

/// Takes over a descriptor that the caller received as a number (from `--pass-fd` or systemd, in a
/// control message, from a system call).
pub(crate) fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: the number was just received from the kernel for this process (SCM_RIGHTS), so that
    // nothing else owns it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// A pidfd of whoever connected a UNIX socket, if the kernel gives one (`SO_PEERPIDFD`, Linux 6.5).
///
/// # Errors
///
/// ENOPROTOOPT on older kernels; ESRCH if that process has been reaped already.
pub(crate) fn peer_pidfd(socket: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let mut fd: libc::c_int = -1;
    // Of an int.
    let mut length: libc::socklen_t = 4;
    // SAFETY: the kernel writes one int to `fd` and its length to `length`; both live through the
    // call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERPIDFD,
            (&raw mut fd).cast(),
            &raw mut length,
        )
    };
    if result == 0 && fd >= 0 {
        Ok(own(fd))
    } else {
        Err(io::Error::last_os_error())
    }
}

/// The user namespace whose holders of capabilities have power over a namespace (ioctl_ns(2)).
///
/// # Errors
///
/// EPERM if it is neither the caller's nor below it.
pub(crate) fn owning_user_namespace(namespace: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    /// `_IO(0xb7, 0x1)` (include/uapi/linux/nsfs.h).
    const NS_GET_USERNS: libc::Ioctl = 0xb701;
    // SAFETY: this request takes no argument.
    let fd = unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_USERNS) };
    if fd >= 0 {
        Ok(own(fd))
    } else {
        Err(io::Error::last_os_error())
    }
}

/// `SIGSYS` as the kernel delivers it (sigaction(2), `struct siginfo`), up to the number.
#[repr(C)]
struct BadCall {
    signal: libc::c_int,
    errno: libc::c_int,
    code: libc::c_int,
    address: *const libc::c_void,
    number: libc::c_int,
}

/// From now on a system call that a seccomp filter traps is told on stderr, by number, and ends
/// the process with status 128 + SIGSYS.
///
/// # Errors
///
/// The errno of sigaction(2).
pub(crate) fn tell_bad_calls() -> io::Result<()> {
    // SAFETY: all zeros is a valid sigaction: no flags, an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    let handler: extern "C" fn(libc::c_int, *const BadCall, *const libc::c_void) = on_bad_call;
    action.sa_sigaction = handler as libc::sighandler_t;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: the handler has the signature that SA_SIGINFO asks for, and calls only what
    // signal-safety(7) lists.
    if unsafe { libc::sigaction(libc::SIGSYS, &raw const action, std::ptr::null_mut()) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

extern "C" fn on_bad_call(
    _signal: libc::c_int,
    info: *const BadCall,
    _context: *const libc::c_void,
) {
    // SAFETY: the kernel hands over a siginfo that lives as long as the handler, and fills the
    // fields of BadCall for SIGSYS.
    let mut rest = unsafe { (*info).number }.unsigned_abs();
    let mut text = *b"virtfs-mediator: seccomp refused system call number           \n";
    for place in text.iter_mut().rev().skip(1).take(10) {
        *place = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    // SAFETY: the buffer lives through the call; write and _exit are async-signal-safe.
    unsafe {
        libc::write(2, text.as_ptr().cast(), text.len());
        libc::_exit(128 + libc::SIGSYS)
    }
}

/// An empty session keyring (keyctl(2), `KEYCTL_JOIN_SESSION_KEYRING`) in place of the caller's,
/// whose keys whoever inherits it possesses, whatever their owner.
///
/// # Errors
///
/// The errno of keyctl(2): ENOSYS without keyrings, EPERM where a container forbids the call.
pub(crate) fn new_session_keyring() -> io::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;
    // SAFETY: a null name makes the keyring anonymous, and nothing is read.
    let serial = unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            KEYCTL_JOIN_SESSION_KEYRING,
            std::ptr::null::<libc::c_char>(),
        )
    };
    if serial > 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// The version of the kernel's Landlock (landlock_create_ruleset(2)).
///
/// # Errors
///
/// ENOSYS without Landlock, EOPNOTSUPP where it is not enabled at boot.
pub(crate) fn landlock_abi() -> io::Result<i32> {
    const LANDLOCK_CREATE_RULESET_VERSION: libc::c_uint = 1;
    // SAFETY: with this flag the kernel wants a null pointer and no size, and reads nothing.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<libc::c_void>(),
            0_usize,
            LANDLOCK_CREATE_RULESET_VERSION,
        )
    };
    match i32::try_from(version) {
        Ok(version) if version >= 0 => Ok(version),
        Ok(_) | Err(_) => Err(io::Error::last_os_error()),
    }
}

/// Makes an open file known to a FUSE connection (`FUSE_DEV_IOC_BACKING_OPEN`), which then has it
/// until [`backing_close`]; tells its id.
///
/// # Errors
///
/// EPERM without SYS_ADMIN in the first user namespace, or where the connection has not agreed to
/// passthrough; EINVAL for no regular file; ELOOP where file systems are stacked too deep.
pub(crate) fn backing_open(
    device: BorrowedFd<'_>,
    file: BorrowedFd<'_>,
) -> rustix::io::Result<u32> {
    /// `struct fuse_backing_map` (include/uapi/linux/fuse.h).
    #[repr(C)]
    struct BackingMap {
        fd: i32,
        flags: u32,
        padding: u64,
    }
    let map = BackingMap {
        fd: file.as_raw_fd(),
        flags: 0,
        padding: 0,
    };
    // SAFETY: the kernel reads one `fuse_backing_map` from the pointer, which lives through the call.
    let id = unsafe { libc::ioctl(device.as_raw_fd(), BACKING_OPEN, &raw const map) };
    u32::try_from(id).map_err(|_negative| last_errno())
}

/// A FUSE connection lets go of a file (`FUSE_DEV_IOC_BACKING_CLOSE`); open files keep it.
///
/// # Errors
///
/// ENOENT for an id that it does not know; EPERM as [`backing_open`].
pub(crate) fn backing_close(device: BorrowedFd<'_>, id: u32) -> rustix::io::Result<()> {
    // SAFETY: the kernel reads one number of 32 bits from the pointer, which lives through the call.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), BACKING_CLOSE, &raw const id) };
    if result >= 0 {
        Ok(())
    } else {
        Err(last_errno())
    }
}

const BACKING_OPEN: libc::Ioctl = crate::launch::calls::BACKING_OPEN as libc::Ioctl;
const BACKING_CLOSE: libc::Ioctl = crate::launch::calls::BACKING_CLOSE as libc::Ioctl;

fn last_errno() -> rustix::io::Errno {
    rustix::io::Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(rustix::io::Errno::IO)
}

/// `prctl(PR_GET_SECCOMP)`: 2 with a filter.
///
/// # Errors
///
/// The errno of prctl(2).
pub(crate) fn seccomp_mode() -> io::Result<libc::c_int> {
    // SAFETY: PR_GET_SECCOMP takes no pointer.
    let mode = unsafe { libc::prctl(libc::PR_GET_SECCOMP, 0, 0, 0, 0) };
    if mode >= 0 {
        Ok(mode)
    } else {
        Err(io::Error::last_os_error())
    }
}
