//! How far ahead the client's kernel reads: where data goes through the mediator, each READ is a
//! round trip, and 128 KiB, what the kernel starts a FUSE mount with and offers at INIT, are few.

use std::os::fd::{AsFd as _, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;

/// In KiB. More costs a page fault in the midst of a mapped file, which reads as much around it.
const KIB: &[u8] = b"512";

/// The kernel's settings of each file system, by the number of its device (sysfs,
/// ABI/testing/sysfs-class-bdi); `None` where there is no sysfs.
pub(crate) fn settings() -> Option<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, "/sys/class/bdi", flags, Mode::empty()).ok()
}

/// Has the kernel read further ahead on a view, by its device's `major:minor`. Behind the answer to
/// INIT, which sets it anew. What cannot be had (a read-only sysfs) costs time alone.
pub(crate) fn raise(settings: &OwnedFd, device: &str) {
    let set = || {
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let name = format!("{device}/read_ahead_kb");
        let file = rustix::fs::openat(settings.as_fd(), name, flags, Mode::empty())?;
        rustix::io::write(&file, KIB)
    };
    let set: Result<usize, Errno> = set();
    if let Err(errno) = set {
        tracing::debug!(device, %errno, "read-ahead stays as it is");
    }
}
