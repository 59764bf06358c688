//! The crate's only unsafe code: guest memory, which QEMU maps as well, and the child's death signal.

#![allow(
    unsafe_code,
    reason = "a mapping shared with another process, and pre_exec, cannot be had safely"
)]

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use crate::error::{Error, Result};

/// The guest's memory. No reference into it is ever made: QEMU may change any octet at any time, so octets are only
/// copied, and the ring's indices are atomics.
#[derive(Debug)]
pub(crate) struct GuestMemory {
    base: NonNull<u8>,
    length: usize,
}

impl GuestMemory {
    /// Maps the first `length` octets of the file that QEMU maps as guest-physical address 0 on.
    pub(crate) fn map(file: &File, length: usize) -> Result<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory that exists.
        let base = unsafe {
            mmap(
                std::ptr::null_mut(),
                length,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                file,
                0,
            )
        }
        .map_err(|errno| Error::Io {
            step: "mmap of the guest's memory",
            source: errno.into(),
        })?;
        let base = NonNull::new(base.cast())
            .ok_or_else(|| Error::Protocol("mmap returned 0".to_owned()))?;
        Ok(Self { base, length })
    }

    fn at(&self, address: u64, length: usize) -> Result<NonNull<u8>> {
        usize::try_from(address)
            .ok()
            .filter(|start| {
                start
                    .checked_add(length)
                    .is_some_and(|end| end <= self.length)
            })
            // SAFETY: start + length lies within the mapping, which lives as long as self.
            .map(|start| unsafe { self.base.add(start) })
            .ok_or_else(|| {
                Error::Protocol(format!(
                    "guest address {address:#x}+{length:#x} is outside its memory"
                ))
            })
    }

    /// Copies octets into the guest's memory.
    pub(crate) fn write(&self, address: u64, bytes: &[u8]) -> Result<()> {
        let target = self.at(address, bytes.len())?;
        // SAFETY: `at` checked the range; the slice is Rust's own memory and cannot overlap the mapping.
        unsafe {
            target
                .as_ptr()
                .copy_from_nonoverlapping(bytes.as_ptr(), bytes.len())
        };
        Ok(())
    }

    /// Copies octets out of the guest's memory.
    pub(crate) fn read(&self, address: u64, bytes: &mut [u8]) -> Result<()> {
        let source = self.at(address, bytes.len())?;
        // SAFETY: as in `write`. What QEMU writes meanwhile can only make the octets meaningless, not their types.
        unsafe {
            source
                .as_ptr()
                .copy_to_nonoverlapping(bytes.as_mut_ptr(), bytes.len())
        };
        Ok(())
    }

    fn index(&self, address: u64) -> Result<&AtomicU16> {
        let cell = self.at(address, 2)?.cast::<AtomicU16>();
        if !cell.is_aligned() {
            return Err(Error::Protocol(format!(
                "guest address {address:#x} is odd"
            )));
        }
        // SAFETY: in range, aligned, and every access to a ring index in this process is atomic.
        Ok(unsafe { cell.as_ref() })
    }

    /// Reads a ring index: whatever QEMU wrote before it is visible afterwards.
    pub(crate) fn load(&self, address: u64) -> Result<u16> {
        Ok(self.index(address)?.load(Ordering::SeqCst))
    }

    /// Writes a ring index: whatever was written before it is visible to QEMU first.
    pub(crate) fn store(&self, address: u64, value: u16) -> Result<()> {
        self.index(address)?.store(value, Ordering::SeqCst);
        Ok(())
    }
}

impl Drop for GuestMemory {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `map` with this length, and no pointer into it outlives self.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.length) };
    }
}

/// The child gets SIGTERM when the thread that starts it ends: nothing survives a test that is killed.
pub(crate) fn die_with_parent(command: &mut Command) {
    let request = || {
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))
            .map_err(Into::into)
    };
    // SAFETY: prctl is async-signal-safe, and the closure neither allocates nor locks.
    unsafe { command.pre_exec(request) };
}
