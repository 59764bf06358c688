//! Steps that make, move and remove names, and list them.

use std::mem::MaybeUninit;
use std::os::unix::net::UnixListener;

use rustix::fs::{
    Access, AtFlags, CWD, FileType, Mode, OFlags, RawDir, RenameFlags, SeekFrom, accessat, linkat,
    makedev, mkdirat, mknodat, open, openat, readlinkat, renameat, renameat_with, seek, symlinkat,
    unlinkat,
};
use rustix::io::Errno;

use super::{Args, Failure, Outcome, unknown};

pub(super) fn run(op: &str, args: &Args<'_>) -> Option<Outcome> {
    let outcome = match op {
        "create" => create(args),
        "mkdir" => mkdir(args),
        "symlink" => symlink(args),
        "link" => link(args, AtFlags::empty()),
        "linkfollow" => link(args, AtFlags::SYMLINK_FOLLOW),
        "mknod" => mknod(args),
        "bind" => bind(args),
        "unlink" => unlink(args, AtFlags::empty()),
        "rmdir" => unlink(args, AtFlags::REMOVEDIR),
        "rename" => rename(args),
        "readlink" => readlink(args),
        "access" => access(args),
        "list" => list(args),
        "seekdir" => seekdir(args),
        "many" => many(args),
        "deep" => deep(args),
        _ => return None,
    };
    Some(outcome)
}

/// `create PATH [MODE]`: a new empty file.
fn create(args: &Args<'_>) -> Outcome {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY;
    openat(CWD, args.path(0)?, flags, args.mode(1, 0o644)?)?;
    Ok(None)
}

/// `mkdir PATH [MODE]`
fn mkdir(args: &Args<'_>) -> Outcome {
    mkdirat(CWD, args.path(0)?, args.mode(1, 0o755)?)?;
    Ok(None)
}

/// `symlink TARGET PATH`
fn symlink(args: &Args<'_>) -> Outcome {
    symlinkat(args.path(0)?, CWD, args.path(1)?)?;
    Ok(None)
}

/// `link OLD NEW`, and `linkfollow` which follows a symbolic link.
fn link(args: &Args<'_>, flags: AtFlags) -> Outcome {
    linkat(CWD, args.path(0)?, CWD, args.path(1)?, flags)?;
    Ok(None)
}

/// `mknod PATH fifo|sock|file|chr|blk [MODE [MAJOR:MINOR]]`
fn mknod(args: &Args<'_>) -> Outcome {
    let kind = match args.text(1)? {
        "fifo" => FileType::Fifo,
        "sock" => FileType::Socket,
        "file" => FileType::RegularFile,
        "chr" => FileType::CharacterDevice,
        "blk" => FileType::BlockDevice,
        other => return Err(unknown("file type", other)),
    };
    let device = match args.optional(3)?.split_once(':') {
        Some((major, minor)) => makedev(super::number(major)?, super::number(minor)?),
        None => 0,
    };
    mknodat(CWD, args.path(0)?, kind, args.mode(2, 0o644)?, device)?;
    Ok(None)
}

/// `bind PATH`: a Unix socket that listens there.
fn bind(args: &Args<'_>) -> Outcome {
    UnixListener::bind(args.path(0)?)
        .map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::INVAL))?;
    Ok(None)
}

/// `unlink PATH`, `rmdir PATH`
fn unlink(args: &Args<'_>, flags: AtFlags) -> Outcome {
    unlinkat(CWD, args.path(0)?, flags)?;
    Ok(None)
}

/// `rename OLD NEW [noreplace|exchange|whiteout]`
fn rename(args: &Args<'_>) -> Outcome {
    let (old, new) = (args.path(0)?, args.path(1)?);
    let flags = match args.optional(2)? {
        "" => return Ok(renameat(CWD, old, CWD, new).map(|()| None)?),
        "noreplace" => RenameFlags::NOREPLACE,
        "exchange" => RenameFlags::EXCHANGE,
        "whiteout" => RenameFlags::WHITEOUT,
        other => return Err(unknown("rename flag", other)),
    };
    renameat_with(CWD, old, CWD, new, flags)?;
    Ok(None)
}

/// `readlink PATH`: the target, long ones by their length.
fn readlink(args: &Args<'_>) -> Outcome {
    let target = readlinkat(CWD, args.path(0)?, Vec::new())?;
    let bytes = target.as_bytes();
    Ok(Some(if bytes.len() > 60 {
        format!("len={}", bytes.len())
    } else {
        format!("->{}", bytes.escape_ascii())
    }))
}

/// `access PATH rwxf`: as the effective user.
fn access(args: &Args<'_>) -> Outcome {
    let mut wanted = Access::EXISTS;
    for letter in args.text(1)?.chars() {
        wanted |= match letter {
            'r' => Access::READ_OK,
            'w' => Access::WRITE_OK,
            'x' => Access::EXEC_OK,
            'f' => Access::EXISTS,
            other => return Err(unknown("access", &other.to_string())),
        };
    }
    accessat(CWD, args.path(0)?, wanted, AtFlags::EACCESS)?;
    Ok(None)
}

/// Every name but `.` and `..`, with the position behind it, from where the directory stands.
fn entries(dir: impl std::os::fd::AsFd) -> Result<Vec<(Vec<u8>, u64)>, Failure> {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut raw = RawDir::new(dir, &mut buffer);
    let mut names = Vec::new();
    while let Some(entry) = raw.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push((name.to_vec(), entry.next_entry_cookie()));
        }
    }
    Ok(names)
}

/// `list PATH`: the names in order, many or long ones by their number.
fn list(args: &Args<'_>) -> Outcome {
    let dir = open(
        args.path(0)?,
        OFlags::RDONLY | OFlags::DIRECTORY,
        Mode::empty(),
    )?;
    let mut names: Vec<_> = entries(dir)?.into_iter().map(|(name, _)| name).collect();
    names.sort();
    let twice = names.windows(2).filter(|pair| pair[0] == pair[1]).count();
    let all = names
        .iter()
        .map(|n| n.escape_ascii().to_string())
        .collect::<Vec<_>>()
        .join(",");
    Ok(Some(if all.len() > 60 {
        format!("entries={} twice={twice}", names.len())
    } else {
        format!("[{all}]")
    }))
}

/// `seekdir PATH`: reads all, goes back to the middle and to the start, compares.
fn seekdir(args: &Args<'_>) -> Outcome {
    let dir = open(
        args.path(0)?,
        OFlags::RDONLY | OFlags::DIRECTORY,
        Mode::empty(),
    )?;
    let all = entries(&dir)?;
    let middle = all.len() / 2;
    let Some((_, cookie)) = all.get(middle) else {
        return Err(Failure::Script("an empty directory has no middle".into()));
    };
    seek(&dir, SeekFrom::Start(*cookie))?;
    let tail = entries(&dir)?;
    let same_tail = tail
        .iter()
        .map(|e| &e.0)
        .eq(all[middle + 1..].iter().map(|e| &e.0));
    seek(&dir, SeekFrom::Start(0))?;
    let same_all = entries(&dir)? == all;
    Ok(Some(format!("tail={same_tail} rewound={same_all}")))
}

/// `many PREFIX COUNT`: that many empty files.
fn many(args: &Args<'_>) -> Outcome {
    for index in 0..args.number::<u32>(1)? {
        let name = format!("{}{index}", args.text(0)?);
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY;
        openat(CWD, name, flags, Mode::from_raw_mode(0o644))?;
    }
    Ok(None)
}

/// `deep NAME COUNT`: directories in one another, and into the innermost.
fn deep(args: &Args<'_>) -> Outcome {
    for _ in 0..args.number::<u32>(1)? {
        mkdirat(CWD, args.path(0)?, Mode::from_raw_mode(0o755))?;
        rustix::process::chdir(args.path(0)?)?;
    }
    Ok(None)
}
