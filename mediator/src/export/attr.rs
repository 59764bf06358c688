//! Attributes and identity of an inode, from statx(2).

use rustix::fs::{Statx, StatxFlags, StatxTimestamp};
use rustix::io::Errno;

use crate::ids::{FileKind, HostGid, HostOwner, HostUid, Mode, Timestamp};

/// An inode's attributes, owner in host ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attr {
    /// The inode number as shown: the node id, but for the root, which shows its own.
    pub ino: u64,
    /// Type.
    pub kind: FileKind,
    /// Permission bits.
    pub mode: Mode,
    /// Number of names.
    pub nlink: u32,
    /// Owner and group as stored.
    pub owner: HostOwner,
    /// Device number of a device node, as the kernel encodes it in 32 bits (`new_encode_dev`).
    pub rdev: u32,
    /// Size in bytes.
    pub size: u64,
    /// Blocks of 512 bytes.
    pub blocks: u64,
    /// Preferred block size in bytes.
    pub blksize: u32,
    /// Last read.
    pub atime: Timestamp,
    /// Last change of data.
    pub mtime: Timestamp,
    /// Last change of the inode.
    pub ctime: Timestamp,
    /// Birth; the epoch where the file system keeps none.
    pub btime: Timestamp,
}

/// Totals of a file system (statfs(2)); blocks in units of `frsize` bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statfs {
    /// Preferred block size in bytes.
    pub bsize: u32,
    /// Fragment size in bytes: the unit of the block counts.
    pub frsize: u32,
    /// All blocks.
    pub blocks: u64,
    /// Free blocks.
    pub bfree: u64,
    /// Free blocks for an ordinary user.
    pub bavail: u64,
    /// All inodes.
    pub files: u64,
    /// Free inodes.
    pub ffree: u64,
    /// The longest name in bytes.
    pub namelen: u32,
}

/// A file's identity, to find out whether another name is the same file's. The same as far as
/// [`Attr::btime`] tells inodes of one number apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Inode(pub(super) Identity);

/// Which inode a descriptor names, on which mount: a directory that is bound to another place is two
/// to the kernel's paths, and so to the client's. The birth time serves as its generation: an inode number that
/// is used again has another. Two inodes of one number born within one tick of the file system's
/// clock, or on a file system without birth times, cannot be told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Identity {
    pub(super) mount: u64,
    pub(super) dev: u64,
    pub(super) ino: u64,
    /// Nanoseconds of birth, wrapping; 0 where there are none.
    pub(super) birth: u64,
}

impl Identity {
    /// Whether it is the same file, whichever mount shows it.
    pub(super) fn is_file_of(&self, other: &Self) -> bool {
        let Self { mount, .. } = *other;
        Self { mount, ..*self } == *other
    }
}

/// What one statx(2) tells.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub(super) identity: Identity,
    pub(super) attr: Attr,
}

impl Seen {
    /// EIO for a file type that Linux does not define.
    pub(super) fn new(st: &Statx) -> Result<Self, Errno> {
        let mode = u32::from(st.stx_mode);
        let has_birth = StatxFlags::from_bits_retain(st.stx_mask).contains(StatxFlags::BTIME);
        let btime = if has_birth {
            time(&st.stx_btime)
        } else {
            Timestamp::default()
        };
        let attr = Attr {
            ino: st.stx_ino,
            kind: FileKind::from_mode(mode).ok_or(Errno::IO)?,
            mode: Mode::new(mode),
            nlink: st.stx_nlink,
            owner: HostOwner {
                uid: HostUid(st.stx_uid),
                gid: HostGid(st.stx_gid),
            },
            rdev: encode_device(st.stx_rdev_major, st.stx_rdev_minor),
            size: st.stx_size,
            blocks: st.stx_blocks,
            blksize: st.stx_blksize,
            atime: time(&st.stx_atime),
            mtime: time(&st.stx_mtime),
            ctime: time(&st.stx_ctime),
            btime,
        };
        Ok(Self {
            identity: Identity {
                mount: st.stx_mnt_id,
                dev: u64::from(st.stx_dev_major) << 32 | u64::from(st.stx_dev_minor),
                ino: st.stx_ino,
                birth: btime
                    .sec
                    .cast_unsigned()
                    .wrapping_mul(1_000_000_000)
                    .wrapping_add(u64::from(btime.nsec)),
            },
            attr,
        })
    }
}

fn time(t: &StatxTimestamp) -> Timestamp {
    Timestamp {
        sec: t.tv_sec,
        nsec: t.tv_nsec,
    }
}

/// `new_encode_dev` of linux/kdev_t.h: what FUSE's `rdev` carries.
const fn encode_device(major: u32, minor: u32) -> u32 {
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}
