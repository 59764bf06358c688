//! Between fuser's types and ours.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{FileAttr, FileType, INodeNo, OpenFlags, TimeOrNow, WriteFlags};
use rustix::io::Errno;

use crate::ids::{FileKind, NodeId, Timestamp};
use crate::mediate::{Shown, ShownEntry};
use crate::op::{SetTime, WriteAs};
use crate::policy::Requester;

pub(super) fn requester(request: &fuser::Request) -> Requester {
    Requester {
        uid: request.uid(),
        gid: request.gid(),
        pid: request.pid(),
    }
}

/// Never 0: fuser turns what is no errno into EIO.
pub(super) fn errno(errno: Errno) -> fuser::Errno {
    fuser::Errno::from_i32(errno.raw_os_error())
}

pub(super) fn file_type(kind: FileKind) -> FileType {
    match kind {
        FileKind::Regular => FileType::RegularFile,
        FileKind::Directory => FileType::Directory,
        FileKind::Symlink => FileType::Symlink,
        FileKind::Fifo => FileType::NamedPipe,
        FileKind::Socket => FileType::Socket,
        FileKind::CharDevice => FileType::CharDevice,
        FileKind::BlockDevice => FileType::BlockDevice,
    }
}

/// For GETATTR and SETATTR, which show the inode number as it is (the root's own too).
pub(super) fn attr(shown: &Shown) -> FileAttr {
    let from = &shown.attr;
    FileAttr {
        ino: INodeNo(from.ino),
        size: from.size,
        blocks: from.blocks,
        atime: system_time(from.atime),
        mtime: system_time(from.mtime),
        ctime: system_time(from.ctime),
        crtime: system_time(from.btime),
        kind: file_type(from.kind),
        // Twelve bits fit.
        perm: u16::try_from(from.mode.bits()).unwrap_or(0),
        nlink: from.nlink,
        uid: shown.owner.uid.0,
        gid: shown.owner.gid.0,
        rdev: from.rdev,
        blksize: from.blksize,
        flags: 0,
    }
}

/// For entries: fuser sends `attr.ino` as the node id too.
pub(super) fn entry_attr(entry: &ShownEntry) -> FileAttr {
    FileAttr {
        ino: INodeNo(entry.node.0),
        ..attr(&entry.shown)
    }
}

/// An entry that stands for nothing but a number and a type: a negative entry (node id 0), or `.`
/// and `..` in READDIRPLUS.
pub(super) fn bare_attr(ino: u64, kind: Option<FileKind>) -> FileAttr {
    FileAttr {
        ino: INodeNo(ino),
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: file_type(kind.unwrap_or(FileKind::Regular)),
        perm: 0,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 512,
        flags: 0,
    }
}

/// A READDIRPLUS entry that was not looked up.
///
/// The protocol's word for it is node id 0. fuser sends the node id as the entry's inode number
/// too, and a name with the number 0 is a deleted one to Go's readdir(3) and others: it would be
/// missing in their listings. So it has a number, and a size that no file can have: the kernel lists
/// the name, makes no inode of it (`fuse_direntplus_link`, fs/fuse/readdir.c), and gives back with a
/// FORGET the lookup that it takes to be counted. No node ever has that number.
pub(super) fn unseen_attr(ino: u64, kind: Option<FileKind>) -> FileAttr {
    FileAttr {
        size: u64::MAX,
        ..bare_attr(NodeId::unseen(ino).0, kind)
    }
}

pub(super) fn node(ino: INodeNo) -> NodeId {
    NodeId(ino.0)
}

fn system_time(time: Timestamp) -> SystemTime {
    let whole = Duration::from_secs(time.sec.unsigned_abs());
    let base = if time.sec < 0 {
        UNIX_EPOCH.checked_sub(whole)
    } else {
        UNIX_EPOCH.checked_add(whole)
    };
    let part = Duration::from_nanos(u64::from(time.nsec));
    base.and_then(|base| base.checked_add(part))
        .unwrap_or(UNIX_EPOCH)
}

/// A time that a client sets, as the kernel sent it.
///
/// fuser 0.18 reads `(-1 s, 500,000,000 ns)`, half a second before the epoch, as one and a half
/// before it: it subtracts the nanoseconds too (its time.rs says so). That mistake loses nothing,
/// so it is undone here: the distance to the epoch has the kernel's very numbers.
fn timestamp(time: SystemTime) -> Timestamp {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => Timestamp {
            sec: i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
            nsec: after.subsec_nanos(),
        },
        Err(before) => {
            let before = before.duration();
            Timestamp {
                sec: 0_i64
                    .checked_sub_unsigned(before.as_secs())
                    .unwrap_or(i64::MIN),
                nsec: before.subsec_nanos(),
            }
        }
    }
}

/// Where a WRITE's data goes, by the flags that the client's open file has now (`fuse_write_flags`,
/// fs/fuse/file.c). Those of mapped pages come with none.
pub(super) fn write_as(write: WriteFlags, file: OpenFlags) -> WriteAs {
    if write.contains(WriteFlags::FUSE_WRITE_CACHE) {
        WriteAs::Mapped
    } else if file.0 & libc::O_APPEND != 0 {
        WriteAs::Appended
    } else {
        WriteAs::Placed
    }
}

pub(super) fn set_time(time: Option<TimeOrNow>) -> SetTime {
    match time {
        None => SetTime::Omit,
        Some(TimeOrNow::Now) => SetTime::Now,
        Some(TimeOrNow::SpecificTime(time)) => SetTime::To(timestamp(time)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_before_the_epoch_is_shown_right() {
        let time = Timestamp {
            sec: -1,
            nsec: 500_000_000,
        };
        let half_a_second = Duration::from_millis(500);
        assert_eq!(system_time(time), UNIX_EPOCH - half_a_second);
    }

    #[test]
    fn time_that_fuser_misreads_is_set_right() {
        // What fuser makes of the kernel's (-1, 500_000_000).
        let misread = UNIX_EPOCH - Duration::new(1, 500_000_000);
        let meant = Timestamp {
            sec: -1,
            nsec: 500_000_000,
        };
        assert_eq!(timestamp(misread), meant);
    }

    #[test]
    fn time_at_either_end_does_not_panic() {
        for sec in [i64::MIN, i64::MAX] {
            let _shown = system_time(Timestamp {
                sec,
                nsec: 999_999_999,
            });
        }
    }
}
