//! Steps on open files and on their contents.

use std::os::fd::OwnedFd;

use rustix::fs::{
    CWD, FallocateFlags, FlockOperation, Mode, OFlags, SeekFrom, copy_file_range, fallocate,
    fdatasync, flock, fsync, ftruncate, open, openat, seek,
};
use rustix::io::{pread, pwrite, read, write};

use super::{Args, Context, Failure, Outcome, unknown};
use crate::sys::{self, Lock};

pub(super) fn run(context: &mut Context, op: &str, args: &Args<'_>) -> Option<Outcome> {
    let outcome = match op {
        "open" => open_file(context, args),
        "close" => args.bytes(0).map(|name| {
            context.files.remove(name);
            None
        }),
        "put" => put(args),
        "cat" => cat(args),
        "write" => on(context, args, |fd, args| {
            Ok(write(fd, args.bytes(1)?).map(|_| None)?)
        }),
        "pwrite" => on(context, args, |fd, args| {
            Ok(pwrite(fd, args.bytes(2)?, args.number(1)?).map(|_| None)?)
        }),
        "read" => on(context, args, |fd, args| {
            let mut buffer = vec![0; args.number(1)?];
            let got = read(fd, &mut buffer)?;
            Ok(Some(contents(&buffer[..got])))
        }),
        "pread" => on(context, args, |fd, args| {
            let mut buffer = vec![0; args.number(2)?];
            let got = pread(fd, &mut buffer, args.number(1)?)?;
            Ok(Some(contents(&buffer[..got])))
        }),
        "truncate" => truncate(args),
        "ftruncate" => on(context, args, |fd, args| {
            Ok(ftruncate(fd, args.number(1)?).map(|()| None)?)
        }),
        "fsync" => on(context, args, |fd, _| Ok(fsync(fd).map(|()| None)?)),
        "fdatasync" => on(context, args, |fd, _| Ok(fdatasync(fd).map(|()| None)?)),
        "fallocate" => on(context, args, allocate),
        "seek" => on(context, args, seek_to),
        "flock" => on(context, args, lock_whole),
        "lock" => on(context, args, lock_range),
        "copy" => copy(context, args),
        "mmap" => on(context, args, map),
        _ => return None,
    };
    Some(outcome)
}

/// Runs `act` with the open file that the first argument names.
fn on(
    context: &Context,
    args: &Args<'_>,
    act: impl Fn(std::os::fd::BorrowedFd<'_>, &Args<'_>) -> Outcome,
) -> Outcome {
    act(context.file(args, 0)?, args)
}

/// `open SLOT PATH FLAG,FLAG... [MODE]`
fn open_file(context: &mut Context, args: &Args<'_>) -> Outcome {
    let mut flags = OFlags::empty();
    for word in args.text(2)?.split(',') {
        flags |= match word {
            "rd" => OFlags::RDONLY,
            "wr" => OFlags::WRONLY,
            "rdwr" => OFlags::RDWR,
            "creat" => OFlags::CREATE,
            "excl" => OFlags::EXCL,
            "trunc" => OFlags::TRUNC,
            "append" => OFlags::APPEND,
            "dir" => OFlags::DIRECTORY,
            "nofollow" => OFlags::NOFOLLOW,
            "direct" => OFlags::DIRECT,
            "sync" => OFlags::SYNC,
            "nonblock" => OFlags::NONBLOCK,
            "noatime" => OFlags::NOATIME,
            "path" => OFlags::PATH,
            "tmpfile" => OFlags::TMPFILE,
            other => return Err(unknown("open flag", other)),
        };
    }
    let file = openat(CWD, args.path(1)?, flags, args.mode(3, 0o644)?)?;
    context.files.insert(args.bytes(0)?.to_vec(), file);
    Ok(None)
}

fn open_for(args: &Args<'_>, flags: OFlags) -> Result<OwnedFd, Failure> {
    Ok(open(args.path(0)?, flags, Mode::empty())?)
}

/// `put PATH TEXT`: writes it at the start of an existing file.
fn put(args: &Args<'_>) -> Outcome {
    write(open_for(args, OFlags::WRONLY)?, args.bytes(1)?)?;
    Ok(None)
}

/// `cat PATH`
fn cat(args: &Args<'_>) -> Outcome {
    let file = open_for(args, OFlags::RDONLY)?;
    let mut all = Vec::new();
    let mut buffer = [0; 8192];
    loop {
        let got = read(&file, &mut buffer)?;
        if got == 0 {
            return Ok(Some(contents(&all)));
        }
        all.extend_from_slice(&buffer[..got]);
    }
}

/// Short contents as they are, long ones as their length and a checksum.
fn contents(bytes: &[u8]) -> String {
    if bytes.len() <= 40 {
        return format!("\"{}\"", bytes.escape_ascii());
    }
    let sum = bytes.iter().fold(0_u32, |sum, byte| {
        sum.wrapping_mul(31).wrapping_add((*byte).into())
    });
    format!("bytes={} sum={sum:08x}", bytes.len())
}

/// `truncate PATH SIZE`
fn truncate(args: &Args<'_>) -> Outcome {
    // truncate(2) by path is an open and an ftruncate for a 9p client; the probes want its errors.
    ftruncate(open_for(args, OFlags::WRONLY)?, args.number(1)?)?;
    Ok(None)
}

/// `fallocate SLOT MODE OFFSET LENGTH`
fn allocate(fd: std::os::fd::BorrowedFd<'_>, args: &Args<'_>) -> Outcome {
    let mode = match args.text(1)? {
        "plain" => FallocateFlags::empty(),
        "keep" => FallocateFlags::KEEP_SIZE,
        "punch" => FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
        "zero" => FallocateFlags::ZERO_RANGE,
        "collapse" => FallocateFlags::COLLAPSE_RANGE,
        "insert" => FallocateFlags::INSERT_RANGE,
        other => return Err(unknown("fallocate mode", other)),
    };
    fallocate(fd, mode, args.number(2)?, args.number(3)?)?;
    Ok(None)
}

/// `seek SLOT start|end|data|hole OFFSET`: the offset it led to.
fn seek_to(fd: std::os::fd::BorrowedFd<'_>, args: &Args<'_>) -> Outcome {
    let to = match args.text(1)? {
        "start" => SeekFrom::Start(args.number(2)?),
        "end" => SeekFrom::End(args.number(2)?),
        "data" => SeekFrom::Data(args.number(2)?),
        "hole" => SeekFrom::Hole(args.number(2)?),
        other => return Err(unknown("seek", other)),
    };
    Ok(Some(format!("at={}", seek(fd, to)?)))
}

/// `flock SLOT shared|exclusive|unlock`: without waiting.
fn lock_whole(fd: std::os::fd::BorrowedFd<'_>, args: &Args<'_>) -> Outcome {
    let how = match args.text(1)? {
        "shared" => FlockOperation::NonBlockingLockShared,
        "exclusive" => FlockOperation::NonBlockingLockExclusive,
        "unlock" => FlockOperation::NonBlockingUnlock,
        other => return Err(unknown("flock", other)),
    };
    flock(fd, how)?;
    Ok(None)
}

/// `lock SLOT read|write|unlock START LENGTH`: without waiting.
fn lock_range(fd: std::os::fd::BorrowedFd<'_>, args: &Args<'_>) -> Outcome {
    let kind = match args.text(1)? {
        "read" => Lock::Read,
        "write" => Lock::Write,
        "unlock" => Lock::Unlock,
        other => return Err(unknown("lock", other)),
    };
    sys::lock(fd, kind, args.number(2)?, args.number(3)?)?;
    Ok(None)
}

/// `copy FROM FROM-OFFSET TO TO-OFFSET LENGTH`: copy_file_range(2), the bytes it took.
fn copy(context: &Context, args: &Args<'_>) -> Outcome {
    let (mut from_at, mut to_at) = (args.number(1)?, args.number(3)?);
    let from = context.file(args, 0)?;
    let to = context.file(args, 2)?;
    let len = args.number(4)?;
    let done = copy_file_range(from, Some(&mut from_at), to, Some(&mut to_at), len)?;
    Ok(Some(format!("copied={done}")))
}

/// `mmap SLOT shared|private TEXT`: writes it through a mapping of the first page.
fn map(fd: std::os::fd::BorrowedFd<'_>, args: &Args<'_>) -> Outcome {
    let shared = match args.text(1)? {
        "shared" => true,
        "private" => false,
        other => return Err(unknown("mapping", other)),
    };
    sys::map_and_write(fd, shared, args.bytes(2)?)?;
    Ok(None)
}
