//! System calls by number: what an attacker who runs code of their own would use. The only unsafe
//! code of this crate.
#![allow(
    unsafe_code,
    reason = "an attack is a raw system call: no wrapper offers calls that must not be made"
)]

use std::ffi::CStr;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};

use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// Arguments of a system call.
pub(crate) type Arguments = [libc::c_long; 6];

/// Calls it. Pointers among the arguments must be of `pointer` or `text` to what outlives the
/// call, with the size that the call expects.
pub(crate) fn call(number: libc::c_long, a: Arguments) -> Result<libc::c_long, Errno> {
    // SAFETY: the kernel checks every pointer that it is given; those among the arguments are made
    // by `pointer` and `text` from live references, by the caller's duty above.
    let result = unsafe { libc::syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]) };
    Errno::result(result)
}

/// [`call`] for calls whose result is a new descriptor.
pub(crate) fn open(number: libc::c_long, a: Arguments) -> Result<OwnedFd, Errno> {
    let fd = call(number, a)?;
    let fd = RawFd::try_from(fd).map_err(|_| Errno::EOVERFLOW)?;
    Ok(own(fd))
}

/// Takes over a descriptor that the kernel has just handed out.
fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: the number was just received from the kernel, so that nothing else owns it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// A child that ends at once, by `clone(2)` with these flags (`SIGCHLD` is added); tells its pid.
pub(crate) fn clone_that_ends(flags: libc::c_int) -> Result<i32, Errno> {
    let flags = number(flags | libc::SIGCHLD);
    match call(libc::SYS_clone, [flags, 0, 0, 0, 0, 0])? {
        0 => exit_now(0),
        pid => Ok(i32::try_from(pid).unwrap_or(-1)),
    }
}

/// The same by `clone3(2)`.
pub(crate) fn clone3_that_ends(flags: libc::c_int) -> Result<i32, Errno> {
    // struct clone_args up to `tls`: flags, pidfd, child_tid, parent_tid, exit_signal, stack,
    // stack_size, tls (CLONE_ARGS_SIZE_VER0).
    let mut arguments = [0_u64; 8];
    arguments[0] = u64::from(flags.cast_unsigned());
    arguments[4] = u64::from(libc::SIGCHLD.unsigned_abs());
    match call(libc::SYS_clone3, [pointer(&arguments), 64, 0, 0, 0, 0])? {
        0 => exit_now(0),
        pid => Ok(i32::try_from(pid).unwrap_or(-1)),
    }
}

/// Ends the process without running destructors.
pub(crate) fn exit_now(status: i32) -> ! {
    // SAFETY: _exit(2) takes a number and does not return.
    unsafe { libc::_exit(status) }
}

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// From now on SIGINT, SIGTERM and SIGHUP are noted, and interrupt whoever waits: so what was
/// started is ended and what was made is removed by those who own it.
///
/// # Errors
///
/// The errno of sigaction(2).
pub(crate) fn note_signals() -> Result<(), Errno> {
    extern "C" fn note(_signal: libc::c_int) {
        INTERRUPTED.store(true, Ordering::Relaxed);
    }
    // Without SA_RESTART: poll(2) would be interrupted all the same, other waits would not.
    let action = SigAction::new(SigHandler::Handler(note), SaFlags::empty(), SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // SAFETY: the handler only stores to an atomic.
        unsafe { sigaction(signal, &action) }?;
    }
    Ok(())
}

/// Whether such a signal has come.
pub(crate) fn is_interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// The address of a value, as an argument.
pub(crate) fn pointer<T: ?Sized>(to: &T) -> libc::c_long {
    let address = std::ptr::from_ref(to).cast::<u8>().expose_provenance();
    libc::c_long::from_ne_bytes(address.to_ne_bytes())
}

/// The address of a value that the kernel writes to, as an argument.
pub(crate) fn pointer_to<T: ?Sized>(to: &mut T) -> libc::c_long {
    let address = std::ptr::from_mut(to).cast::<u8>().expose_provenance();
    libc::c_long::from_ne_bytes(address.to_ne_bytes())
}

/// The address of a text, as an argument.
pub(crate) fn text(text: &CStr) -> libc::c_long {
    pointer(text.to_bytes_with_nul())
}

/// A number, as an argument.
pub(crate) fn number(number: impl Into<libc::c_long>) -> libc::c_long {
    number.into()
}

/// A descriptor, as an argument.
pub(crate) fn descriptor(fd: &OwnedFd) -> libc::c_long {
    number(fd.as_raw_fd())
}
