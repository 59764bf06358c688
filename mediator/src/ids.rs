//! Newtypes for every number whose confusion would be a security fault.
//!
//! *Host* ids are what is stored on the export; *guest* ids are what the view shows and accepts.
//! They are equal unless the policy squashes or maps.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub u32);
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0)
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id!(/// A user id as stored on the export.
    HostUid);
id!(/// A group id as stored on the export.
    HostGid);
id!(/// A user id as the view shows it.
    GuestUid);
id!(/// A group id as the view shows it.
    GuestGid);

/// Owner and group as stored on the export.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HostOwner {
    /// Owner.
    pub uid: HostUid,
    /// Group.
    pub gid: HostGid,
}

/// Owner and group as the view shows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct GuestOwner {
    /// Owner.
    pub uid: GuestUid,
    /// Group.
    pub gid: GuestGid,
}

/// The twelve permission bits: rwx for three classes, set-user-id, set-group-id, sticky.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(from = "u32", into = "u32")]
pub struct Mode(u32);

impl Mode {
    /// `S_ISUID`.
    pub const SET_UID: u32 = 0o4000;
    /// `S_ISGID`.
    pub const SET_GID: u32 = 0o2000;

    /// Keeps the twelve permission bits of a `st_mode` and drops the file type.
    #[must_use]
    pub const fn new(bits: u32) -> Self {
        Self(bits & 0o7777)
    }

    /// The twelve bits.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Whether set-user-id is among the bits.
    #[must_use]
    pub const fn has_set_uid(self) -> bool {
        self.0 & Self::SET_UID != 0
    }

    /// Whether set-user-id or set-group-id is among the bits.
    #[must_use]
    pub const fn has_set_id(self) -> bool {
        self.0 & (Self::SET_UID | Self::SET_GID) != 0
    }
}

impl From<u32> for Mode {
    fn from(bits: u32) -> Self {
        Self::new(bits)
    }
}

impl From<Mode> for u32 {
    fn from(mode: Mode) -> Self {
        mode.0
    }
}

impl fmt::Debug for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mode({:04o})", self.0)
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

/// What kind of file an inode is (`S_IFMT`, inode(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileKind {
    /// Regular file.
    Regular,
    /// Directory.
    Directory,
    /// Symbolic link.
    Symlink,
    /// Named pipe.
    Fifo,
    /// UNIX socket.
    Socket,
    /// Character device.
    CharDevice,
    /// Block device.
    BlockDevice,
}

impl FileKind {
    /// The kind encoded in a `st_mode`; `None` for a type that Linux does not define.
    #[must_use]
    pub const fn from_mode(st_mode: u32) -> Option<Self> {
        Some(match st_mode & libc::S_IFMT {
            libc::S_IFREG => Self::Regular,
            libc::S_IFDIR => Self::Directory,
            libc::S_IFLNK => Self::Symlink,
            libc::S_IFIFO => Self::Fifo,
            libc::S_IFSOCK => Self::Socket,
            libc::S_IFCHR => Self::CharDevice,
            libc::S_IFBLK => Self::BlockDevice,
            _ => return None,
        })
    }

    /// The `S_IFMT` bits of this kind.
    #[must_use]
    pub const fn bits(self) -> u32 {
        match self {
            Self::Regular => libc::S_IFREG,
            Self::Directory => libc::S_IFDIR,
            Self::Symlink => libc::S_IFLNK,
            Self::Fifo => libc::S_IFIFO,
            Self::Socket => libc::S_IFSOCK,
            Self::CharDevice => libc::S_IFCHR,
            Self::BlockDevice => libc::S_IFBLK,
        }
    }
}

/// A node as the kernel names it: FUSE's `nodeid`, and the inode number that the view shows.
/// The root is always [`NodeId::ROOT`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u64);

impl NodeId {
    /// `FUSE_ROOT_ID`.
    pub const ROOT: Self = Self(1);

    /// Of the numbers with the highest bit set, which carry a device's in the next 15: the device
    /// that none has.
    pub(crate) const NO_DEVICE: u16 = 0x7ffe;

    /// A number that no node ever has, for a name whose file has the inode number `ino`.
    pub(crate) const fn unseen(ino: u64) -> Self {
        Self(1 << 63 | (Self::NO_DEVICE as u64) << 48 | ino & ((1 << 48) - 1))
    }
}

/// An open file or directory as the kernel names it: FUSE's `fh`. Opaque; carries a generation, so
/// that a forged or stale one is refused with EBADF.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HandleId(pub u64);

/// A point in time: seconds since the epoch (may be negative) and nanoseconds (0 to 999,999,999).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct Timestamp {
    /// Seconds since 1970-01-01 UTC.
    pub sec: i64,
    /// Nanoseconds within the second.
    pub nsec: u32,
}
