//! Reads and writes of one file.

use std::io::{Error, ErrorKind, Result};
use std::time::{Duration, Instant};

use rustix::fd::{AsFd as _, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::{pread, pwrite};

use super::map;
use super::passes::{repeated, sample};
use super::threads::each_share;
use crate::task::{Sample, Task, Transfer};

/// `O_DIRECT` wants addresses and offsets that are multiples of the device's block.
const ALIGNMENT: usize = 4096;

pub(super) fn transfer(task: &Task, transfer: &Transfer) -> Result<Vec<Sample>> {
    let offsets = offsets(transfer);
    let pass = || one_pass(task, transfer, &offsets);
    // What was read once is in a cache, a contender's own or the kernel's for it.
    let cached = !transfer.write && !transfer.direct && !task.no_cache_of_its_own;
    Ok(vec![if cached {
        sample("pass", transfer.octets, pass()?)
    } else {
        repeated(task, "pass", transfer.octets, pass)?
    }])
}

fn one_pass(task: &Task, transfer: &Transfer, offsets: &[u64]) -> Result<Duration> {
    let start = Instant::now();
    let file = open_file(task, transfer)?;
    let opened = start.elapsed();
    let time = each_share(offsets, task.threads, |share| {
        call_all(file.as_fd(), transfer, share)
    })?;
    let start = Instant::now();
    drop(file);
    Ok(opened + time + start.elapsed())
}

fn open_file(task: &Task, transfer: &Transfer) -> Result<OwnedFd> {
    let access = if transfer.write {
        OFlags::WRONLY
    } else {
        OFlags::RDONLY
    };
    let direct = if transfer.direct {
        OFlags::DIRECT
    } else {
        OFlags::empty()
    };
    let path = task.directory.join(&transfer.file);
    Ok(open(
        &path,
        access | direct | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}

fn call_all(file: BorrowedFd<'_>, transfer: &Transfer, offsets: &[u64]) -> Result<()> {
    let mut space = vec![b'd'; transfer.block + ALIGNMENT];
    let skipped = space.as_ptr().align_offset(ALIGNMENT);
    let buffer = &mut space[skipped..skipped + transfer.block];
    for &offset in offsets {
        let moved = if transfer.write {
            pwrite(file, &*buffer, offset)?
        } else {
            pread(file, &mut *buffer, offset)?
        };
        if moved != transfer.block {
            let what = format!("{moved} octets of {} at {offset}", transfer.block);
            return Err(Error::new(ErrorKind::UnexpectedEof, what));
        }
    }
    Ok(())
}

/// Every block once. The mixed order is the same in every run: a walk by a step that shares no
/// factor with the number of blocks.
fn offsets(transfer: &Transfer) -> Vec<u64> {
    let blocks = transfer.octets / transfer.block;
    let step = if transfer.random {
        step_over(blocks)
    } else {
        1
    };
    (0..blocks)
        .map(|number| (number * step % blocks * transfer.block) as u64)
        .collect()
}

/// About 0.38 of the blocks, so that neighbours are far from each other.
pub(super) fn step_over(blocks: usize) -> usize {
    let near = (blocks * 382 / 1000) | 1;
    (near..)
        .find(|&step| greatest_common_divisor(step, blocks) == 1)
        .unwrap_or(1)
}

fn greatest_common_divisor(a: usize, b: usize) -> usize {
    if b == 0 {
        a
    } else {
        greatest_common_divisor(b, a % b)
    }
}

pub(super) fn map(task: &Task, file: &str) -> Result<Vec<Sample>> {
    let path = task.directory.join(file);
    let file = open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let length = usize::try_from(rustix::fs::fstat(&file)?.st_size).map_err(Error::other)?;
    let pass = || {
        let start = Instant::now();
        map::read_pages(&file, length)?;
        Ok(start.elapsed())
    };
    Ok(vec![if task.no_cache_of_its_own {
        repeated(task, "pass", length, pass)?
    } else {
        sample("pass", length, pass()?)
    }])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transfer_of(random: bool, blocks: usize) -> Transfer {
        Transfer {
            file: String::new(),
            octets: blocks * 4096,
            block: 4096,
            random,
            write: false,
            direct: false,
        }
    }

    #[test]
    fn offsets_name_every_block_once_in_either_order() {
        for blocks in [1, 2, 7, 16, 1000, 16_384] {
            let ordered = offsets(&transfer_of(false, blocks));
            let mut mixed = offsets(&transfer_of(true, blocks));
            assert_eq!(blocks < 4, mixed == ordered, "{blocks}");
            mixed.sort_unstable();
            assert_eq!(mixed, ordered);
        }
    }
}
