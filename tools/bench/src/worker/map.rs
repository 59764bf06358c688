//! The crate's only unsafe code: a file that is mapped and read.

#![allow(unsafe_code, reason = "a mapping of a file cannot be had safely")]

use std::hint::black_box;
use std::io::Result;
use std::ptr::null_mut;

use rustix::fd::AsFd;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// What the kernel maps at a time.
const PAGE: usize = 4096;

/// Maps the first `length` octets of a file, copies each page, and unmaps it.
pub(super) fn read_pages(file: impl AsFd, length: usize) -> Result<()> {
    let mut page = [0_u8; PAGE];
    // SAFETY: a new mapping at an address of the kernel's choice touches no memory that exists.
    let base = unsafe {
        mmap(
            null_mut(),
            length,
            ProtFlags::READ,
            MapFlags::SHARED,
            file,
            0,
        )?
    };
    for offset in (0..length / PAGE).map(|number| number * PAGE) {
        // SAFETY: a whole page within the mapping, which lives until below; the benchmark's files
        // are not cut short while it works, and an octet that changes is still an octet.
        unsafe {
            base.cast::<u8>()
                .add(offset)
                .copy_to_nonoverlapping(page.as_mut_ptr(), PAGE);
        }
        black_box(&page);
    }
    // SAFETY: the mapping was made above with this length, and no pointer into it is left.
    unsafe { munmap(base, length) }?;
    Ok(())
}
