//! What operations ask in guest terms, and what permits grant in host terms.

use serde::{Deserialize, Serialize};

use super::{Word, Words};
use crate::ids::Timestamp;
use crate::ids::{FileKind, GuestGid, GuestOwner, GuestUid, HostGid, HostOwner, HostUid, Mode};

/// What a creating request asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BirthAsk {
    /// Who asks: a new inode belongs to the requester until it is chowned.
    pub requester: GuestOwner,
    /// What is to be made; a device is refused by the floor.
    pub kind: FileKind,
    /// The mode asked, after the requester's umask (which the kernel applies).
    pub mode: Mode,
    /// For [`crate::op::Op::Create`]: how the new file is opened.
    pub open: OpenAs,
}

/// What a creating permit grants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Birth {
    /// Owner of the new inode; the group only where the parent directory does not hand its own
    /// down (set-group-id), unless `owner_is_forced`.
    pub owner: HostOwner,
    /// A rule's `owner =` decided the owner: it overrides a set-group-id parent too.
    pub owner_is_forced: bool,
    /// What is made.
    pub kind: FileKind,
    /// Mode of the new inode, with `set_id` and a rule's `mode` already applied.
    pub mode: Mode,
    /// How the new file is opened.
    pub open: OpenAs,
}

/// A time to set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SetTime {
    /// `UTIME_OMIT`.
    Omit,
    /// `UTIME_NOW`: the file system's clock.
    Now,
    /// This time.
    To(Timestamp),
}

/// What SETATTR asks; `None` leaves a property alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangesAsk {
    /// New owner.
    pub uid: Option<GuestUid>,
    /// New group.
    pub gid: Option<GuestGid>,
    /// New permission bits.
    pub mode: Option<Mode>,
    /// New size in bytes.
    pub size: Option<u64>,
    /// Access time.
    pub atime: SetTime,
    /// Modification time.
    pub mtime: SetTime,
}

impl ChangesAsk {
    /// Nothing is asked.
    pub const NOTHING: Self = Self {
        uid: None,
        gid: None,
        mode: None,
        size: None,
        atime: SetTime::Omit,
        mtime: SetTime::Omit,
    };

    /// The words that what is asked needs; none if nothing is.
    #[must_use]
    pub fn words(&self) -> Words {
        let sets_time = self.atime != SetTime::Omit || self.mtime != SetTime::Omit;
        [
            (self.uid.is_some() || self.gid.is_some(), Word::Owner),
            (self.mode.is_some(), Word::Mode),
            (self.size.is_some(), Word::Write),
            (sets_time, Word::Time),
        ]
        .into_iter()
        .filter(|(asked, _)| *asked)
        .fold(Words::NONE, |words, (_, word)| words.with(Words::of(word)))
    }
}

/// What a SETATTR permit grants; `None` leaves a property alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes {
    /// New owner.
    pub uid: Option<HostUid>,
    /// New group.
    pub gid: Option<HostGid>,
    /// New permission bits, with `set_id` and a rule's `mode` already applied.
    pub mode: Option<Mode>,
    /// New size in bytes.
    pub size: Option<u64>,
    /// Access time.
    pub atime: SetTime,
    /// Modification time.
    pub mtime: SetTime,
}

/// How a file is opened: what is left of a client's open flags. The client's own flags are never
/// forwarded; these are all that matter to the export.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct OpenAs {
    /// Data may be read.
    pub read: bool,
    /// Data may be written.
    pub write: bool,
    /// `O_APPEND`: each write goes to the end.
    pub append: bool,
    /// `O_TRUNC`.
    pub truncate: bool,
    /// `O_EXCL` (create only).
    pub exclusive: bool,
    /// `O_SYNC` or `O_DSYNC`: writes are durable when they return.
    pub sync: bool,
    /// `O_DIRECT`: the client bypasses its cache; the backing file is not opened that way.
    pub direct: bool,
    /// `O_NOATIME`: reading moves no time. No rule asks about it, and nothing that leaves the process
    /// tells it.
    #[serde(skip)]
    pub no_atime: bool,
}

impl OpenAs {
    /// The words that such an open needs: `O_TRUNC` and `O_APPEND` are for writing, whatever the
    /// access mode; an open for nothing at all is taken as one for reading.
    #[must_use]
    pub fn words(self) -> Words {
        let mut words = Words::NONE;
        if self.write || self.truncate || self.append {
            words = words.with(Words::of(Word::Write));
        }
        if self.read || words.is_empty() {
            words = words.with(Words::of(Word::Read));
        }
        words
    }
}

/// Where the data of one WRITE goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteAs {
    /// To its offset.
    Placed,
    /// To the end of the file: the client's open file has `O_APPEND` now, whatever it was opened with.
    Appended,
    /// To its offset, being a mapping's: the kernel names any open file that may write
    /// (`FUSE_WRITE_CACHE`).
    Mapped,
}

/// Rename flags, as an allow list: WHITEOUT has no word here and cannot be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RenameHow {
    /// Replace what is there.
    Replace,
    /// `RENAME_NOREPLACE`.
    NoReplace,
    /// `RENAME_EXCHANGE`.
    Exchange,
}

/// An extended attribute's name; at most 255 bytes (xattr(7)).
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<u8>", into = "Vec<u8>")]
pub struct XattrName {
    len: u8,
    bytes: [u8; 256],
}

impl XattrName {
    /// `None` if empty, longer than 255 bytes or with a NUL in it.
    #[must_use]
    pub fn new(name: &[u8]) -> Option<Self> {
        let len = u8::try_from(name.len()).ok().filter(|len| *len > 0)?;
        if name.contains(&0) {
            return None;
        }
        let mut bytes = [0; 256];
        bytes.get_mut(..name.len())?.copy_from_slice(name);
        Some(Self { len, bytes })
    }

    /// The name with `prefix` before it; `None` beyond 255 bytes.
    #[must_use]
    pub fn after(&self, prefix: &[u8]) -> Option<Self> {
        let mut bytes = [0; 256];
        let len = prefix.len().checked_add(usize::from(self.len))?;
        bytes.get_mut(..prefix.len())?.copy_from_slice(prefix);
        bytes
            .get_mut(prefix.len()..len)?
            .copy_from_slice(self.as_bytes());
        Self::new(bytes.get(..len)?)
    }

    /// The name without its terminator.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// The name as system calls want it: NUL-terminated.
    #[must_use]
    pub fn as_c_str(&self) -> &std::ffi::CStr {
        // The array is one longer than the longest name, so that a terminator always follows.
        std::ffi::CStr::from_bytes_until_nul(&self.bytes).unwrap_or_default()
    }
}

impl std::fmt::Debug for XattrName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "\"{}\"", self.as_bytes().escape_ascii())
    }
}

impl From<XattrName> for Vec<u8> {
    fn from(name: XattrName) -> Self {
        name.as_bytes().to_vec()
    }
}

/// What a permit to set or remove an extended attribute grants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(clippy::large_enum_variant, reason = "lives for one request")]
pub enum XattrChange {
    /// The attribute of this name, as it is stored, is changed.
    Act(XattrName),
    /// Nothing is: there is no name to act upon.
    Pretend,
}

/// Bytes that are no name of an extended attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the name of an extended attribute: 1 to 255 bytes without NUL")]
pub struct NotXattrName;

impl TryFrom<Vec<u8>> for XattrName {
    type Error = NotXattrName;

    fn try_from(bytes: Vec<u8>) -> Result<Self, NotXattrName> {
        Self::new(&bytes).ok_or(NotXattrName)
    }
}

/// Arguments that are not those of the operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OtherOperation;

macro_rules! any {
    ($($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident($type:ty),)* })*) => {
        $($(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        #[allow(clippy::large_enum_variant, reason = "only for what leaves the hot path")]
        pub enum $name {
            /// Nothing.
            Nothing,
            $($(#[$variant_doc])* $variant($type),)*
        }

        impl From<()> for $name {
            fn from((): ()) -> Self {
                Self::Nothing
            }
        }

        impl TryFrom<$name> for () {
            type Error = OtherOperation;

            fn try_from(any: $name) -> Result<(), OtherOperation> {
                (any == $name::Nothing).then_some(()).ok_or(OtherOperation)
            }
        }

        $(impl From<$type> for $name {
            fn from(one: $type) -> Self {
                Self::$variant(one)
            }
        }

        impl TryFrom<$name> for $type {
            type Error = OtherOperation;

            #[allow(clippy::wildcard_enum_match_arm, reason = "all others are other operations'")]
            fn try_from(any: $name) -> Result<Self, OtherOperation> {
                match any {
                    $name::$variant(one) => Ok(one),
                    _ => Err(OtherOperation),
                }
            }
        })*)*
    };
}

any! {
    /// What an operation asks, whatever its row.
    AnyAsk {
        /// OPEN.
        Open(OpenAs),
        /// CREATE, MKDIR, MKNOD, SYMLINK.
        Birth(BirthAsk),
        /// SETATTR.
        Changes(ChangesAsk),
        /// RENAME.
        Rename(RenameHow),
        /// SETXATTR, GETXATTR, REMOVEXATTR.
        Xattr(XattrName),
    }
    /// What an operation's permit grants, whatever its row.
    AnyGrant {
        /// OPEN.
        Open(OpenAs),
        /// CREATE, MKDIR, MKNOD, SYMLINK.
        Birth(Birth),
        /// SETATTR.
        Changes(Changes),
        /// RENAME.
        Rename(RenameHow),
        /// GETXATTR.
        Xattr(XattrName),
        /// SETXATTR, REMOVEXATTR.
        XattrChange(XattrChange),
    }
}
