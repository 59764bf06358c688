//! Steps that read and change owners, modes, times and sizes.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{
    AtFlags, CWD, FileType, Stat, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, chmodat, chownat,
    fchmod, fchown, fstat, statat, statfs, utimensat,
};

use super::{Args, Context, Failure, Outcome, owner, unknown};

/// Modification and change time, to see which of them moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Times {
    modified: (i64, u64),
    changed: (i64, u64),
}

pub(super) fn run(context: &mut Context, op: &str, args: &Args<'_>) -> Option<Outcome> {
    let outcome = match op {
        "stat" => stat_path(args, AtFlags::SYMLINK_NOFOLLOW),
        "statfollow" => stat_path(args, AtFlags::empty()),
        "fstat" => context
            .file(args, 0)
            .and_then(|fd| Ok(Some(facts(&fstat(fd)?)))),
        "chown" => chown(args, AtFlags::empty()),
        "lchown" => chown(args, AtFlags::SYMLINK_NOFOLLOW),
        "fchown" => context.file(args, 0).and_then(|fd| {
            let (uid, gid) = owner(args.text(1)?)?;
            Ok(fchown(fd, uid, gid).map(|()| None)?)
        }),
        "chmod" => chmod(args),
        "fchmod" => context
            .file(args, 0)
            .and_then(|fd| Ok(fchmod(fd, args.mode(1, 0)?).map(|()| None)?)),
        "utimens" => utimens(args, AtFlags::empty()),
        "lutimens" => utimens(args, AtFlags::SYMLINK_NOFOLLOW),
        "times" => times(args),
        "same" => same(args),
        "statfs" => statfs_facts(args),
        "mark" => mark(context, args),
        "since" => since(context, args),
        _ => return None,
    };
    Some(outcome)
}

/// `stat PATH`: type, mode, owner, and where they mean something links, size and device.
fn stat_path(args: &Args<'_>, flags: AtFlags) -> Outcome {
    Ok(Some(facts(&statat(CWD, args.path(0)?, flags)?)))
}

fn facts(stat: &Stat) -> String {
    let mode = stat.st_mode & 0o7777;
    let kind = FileType::from_raw_mode(stat.st_mode);
    let word = kind_word(kind);
    let mut text = format!("{word} {mode:04o} {}:{}", stat.st_uid, stat.st_gid);
    if kind == FileType::RegularFile {
        text.push_str(&format!(" links={} size={}", stat.st_nlink, stat.st_size));
    } else if matches!(kind, FileType::CharacterDevice | FileType::BlockDevice) {
        let device = stat.st_rdev;
        text.push_str(&format!(
            " dev={}:{}",
            rustix::fs::major(device),
            rustix::fs::minor(device)
        ));
    }
    text
}

fn kind_word(kind: FileType) -> &'static str {
    match kind {
        FileType::RegularFile => "file",
        FileType::Directory => "dir",
        FileType::Symlink => "symlink",
        FileType::Fifo => "fifo",
        FileType::Socket => "socket",
        FileType::CharacterDevice => "chr",
        FileType::BlockDevice => "blk",
        FileType::Unknown => "unknown",
    }
}

/// `chown PATH UID:GID`
fn chown(args: &Args<'_>, flags: AtFlags) -> Outcome {
    let (uid, gid) = owner(args.text(1)?)?;
    chownat(CWD, args.path(0)?, uid, gid, flags)?;
    Ok(None)
}

/// `chmod PATH MODE`
fn chmod(args: &Args<'_>) -> Outcome {
    chmodat(CWD, args.path(0)?, args.mode(1, 0)?, AtFlags::empty())?;
    Ok(None)
}

/// `utimens PATH ACCESS MODIFICATION`, each `now`, `omit` or `SECONDS.NANOSECONDS`.
fn utimens(args: &Args<'_>, flags: AtFlags) -> Outcome {
    let time = |index| -> Result<Timespec, Failure> {
        let (tv_sec, tv_nsec) = match args.text(index)? {
            "now" => (0, UTIME_NOW),
            "omit" => (0, UTIME_OMIT),
            fixed => {
                let (seconds, nanos) = fixed.split_once('.').unwrap_or((fixed, "0"));
                (super::number(seconds)?, super::number(nanos)?)
            }
        };
        Ok(Timespec { tv_sec, tv_nsec })
    };
    let times = Timestamps {
        last_access: time(1)?,
        last_modification: time(2)?,
    };
    utimensat(CWD, args.path(0)?, &times, flags)?;
    Ok(None)
}

/// `times PATH`: both times, `now` for those of today so that outcomes repeat.
fn times(args: &Args<'_>) -> Outcome {
    let stat = statat(CWD, args.path(0)?, AtFlags::SYMLINK_NOFOLLOW)?;
    let today = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO)
        .as_secs();
    let word = |seconds: i64, nanos: u64| {
        if u64::try_from(seconds).is_ok_and(|then| then.abs_diff(today) < 86_400) {
            "now".to_owned()
        } else {
            format!("{seconds}.{nanos}")
        }
    };
    Ok(Some(format!(
        "atime={} mtime={}",
        word(stat.st_atime, stat.st_atime_nsec),
        word(stat.st_mtime, stat.st_mtime_nsec)
    )))
}

/// `same A B`: whether both are one inode.
fn same(args: &Args<'_>) -> Outcome {
    let a = statat(CWD, args.path(0)?, AtFlags::SYMLINK_NOFOLLOW)?;
    let b = statat(CWD, args.path(1)?, AtFlags::SYMLINK_NOFOLLOW)?;
    let same = (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino);
    Ok(Some(format!("same={same}")))
}

/// `statfs PATH type|namelen|sane`
fn statfs_facts(args: &Args<'_>) -> Outcome {
    let facts = statfs(args.path(0)?)?;
    Ok(Some(match args.text(1)? {
        "type" => format!("type={:x}", facts.f_type),
        "namelen" => format!("namelen={}", facts.f_namelen),
        "sane" => format!(
            "blocks={} free<=blocks={} files={}",
            facts.f_blocks > 0,
            facts.f_bfree <= facts.f_blocks,
            facts.f_files > 0
        ),
        other => return Err(unknown("statfs fact", other)),
    }))
}

fn times_of(args: &Args<'_>) -> Result<Times, Failure> {
    let stat = statat(CWD, args.path(0)?, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(Times {
        modified: (stat.st_mtime, stat.st_mtime_nsec),
        changed: (stat.st_ctime, stat.st_ctime_nsec),
    })
}

/// `mark PATH`: remembers its times, and waits until the host's clock tick (10 ms at most) is over.
fn mark(context: &mut Context, args: &Args<'_>) -> Outcome {
    context
        .marks
        .insert(args.bytes(0)?.to_vec(), times_of(args)?);
    std::thread::sleep(Duration::from_millis(20));
    Ok(None)
}

/// `since PATH`: which of its times moved since `mark`.
fn since(context: &mut Context, args: &Args<'_>) -> Outcome {
    let before = context
        .marks
        .get(args.bytes(0)?)
        .ok_or_else(|| Failure::Script("no mark for it".into()))?;
    let now = times_of(args)?;
    Ok(Some(format!(
        "mtime={} ctime={}",
        if before.modified == now.modified {
            "kept"
        } else {
            "moved"
        },
        if before.changed == now.changed {
            "kept"
        } else {
            "moved"
        }
    )))
}
