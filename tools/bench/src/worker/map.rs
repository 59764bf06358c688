//! The crate's only unsafe code: a file that is mapped and read.

#![allow(unsafe_code, reason = "a mapping of a file cannot be had safely")]

use std::hint::black_box;
use std::io::Result;
use std::ptr::null_mut;

use rustix::fd::AsFd;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// What the kernel maps at a time.
const PAGE: usize = 4096;

/// Maps the first `length` octets of a file, reads one of each page, and unmaps it.
pub(super) fn read_pages(file: impl AsFd, length: usize) -> Result<()> {
    // SAFETY: a new mapping at an address of the kernel's choice touches no memory that exists.
    let base = unsafe { mmap(null_mut(), length, ProtFlags::READ, MapFlags::SHARED, file, 0)? };
    for offset in (0..length).step_by(PAGE) {
        // SAFETY: within the mapping, which lives until below; the benchmark's files are not cut
        // short while it works, and an octet that changes is still an octet.
        black_box(unsafe { base.cast::<u8>().add(offset).read_volatile() });
    }
    // SAFETY: the mapping was made above with this length, and no pointer into it is left.
    Ok(unsafe { munmap(base, length)? })
}
