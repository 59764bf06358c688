//! The table of operations: one row for each thing that a client can ask of a view.
//!
//! Each row names the operation as FUSE does, the words under which rules speak of it, what the
//! request asks in guest terms, and what a permit grants in host terms. An operation that is not
//! listed here cannot be decided, and so cannot be performed.

mod args;

use serde::{Deserialize, Serialize};

pub use args::{
    AnyAsk, AnyGrant, Birth, BirthAsk, Changes, ChangesAsk, NotXattrName, OpenAs, OtherOperation,
    RenameHow, SetTime, WriteAs, XattrChange, XattrName,
};

/// A word of the policy's `do` lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum Word {
    /// Names, attributes and link targets: seeing that a file is there.
    Look = 1 << 0,
    /// Reading a directory's entries.
    List = 1 << 1,
    /// Reading a file's data.
    Read = 1 << 2,
    /// Changing a file's data or size.
    Write = 1 << 3,
    /// Making a new file, directory, link target, FIFO or socket.
    Make = 1 << 4,
    /// Giving a file a second name.
    Link = 1 << 5,
    /// Removing a name.
    Remove = 1 << 6,
    /// Changing a name.
    Rename = 1 << 7,
    /// Changing owner or group.
    Owner = 1 << 8,
    /// Changing permission bits.
    Mode = 1 << 9,
    /// Setting time stamps.
    Time = 1 << 10,
    /// Extended attributes.
    Xattr = 1 << 11,
    /// File locks.
    Lock = 1 << 12,
}

/// A set of [`Word`]s.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Words(pub u16);

impl Words {
    /// No word at all: an operation that decides nothing (release, forget).
    pub const NONE: Self = Self(0);
    /// Every word.
    pub const ANY: Self = Self((1 << 13) - 1);
    /// The words that change the export: the policy's group `change`.
    pub const CHANGE: Self = Self(
        Word::Write as u16
            | Word::Make as u16
            | Word::Link as u16
            | Word::Remove as u16
            | Word::Rename as u16
            | Word::Owner as u16
            | Word::Mode as u16
            | Word::Time as u16,
    );

    /// Just this word.
    #[must_use]
    pub const fn of(word: Word) -> Self {
        Self(word as u16)
    }

    /// Both sets together.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// This set less the other.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether the two share a word.
    #[must_use]
    pub const fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether there is no word in it.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// One row of the table, as a type: what is asked and what is granted for an operation.
pub trait Operation {
    /// The row.
    const OP: Op;
    /// What the request asks beyond its target, in guest ids.
    type Ask: Copy + Into<AnyAsk> + TryFrom<AnyAsk>;
    /// What the permit lets the export do, in host ids.
    type Grant: Copy + Into<AnyGrant>;
}

macro_rules! operations {
    ($($(#[$doc:meta])* $name:ident $raw:literal [$($word:ident)*] $ask:ty => $grant:ty;)*) => {
        /// An operation as a value: a row's name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Op { $($(#[$doc])* $name,)* }

        impl Op {
            /// Every row, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The operation's raw FUSE name, which rules may use too.
            #[must_use]
            pub const fn raw_name(self) -> &'static str {
                match self { $(Self::$name => $raw,)* }
            }

            /// The words that may speak of it. Which of them a request really needs can depend
            /// on its arguments: see [`crate::policy::Facts::words`].
            #[must_use]
            pub const fn words(self) -> Words {
                match self { $(Self::$name => Words(0 $(| Word::$word as u16)*),)* }
            }
        }

        /// The rows as types, for [`crate::policy::Permit`].
        pub mod rows {
            use super::*;
            $($(#[$doc])* #[derive(Clone, Copy, Debug)] pub struct $name;
            impl Operation for $name {
                const OP: Op = Op::$name;
                type Ask = $ask;
                type Grant = $grant;
            })*
        }
    };
}

operations! {
    /// Find a name in a directory.
    Lookup "lookup" [Look] () => ();
    /// Read attributes.
    Getattr "getattr" [Look] () => ();
    /// Read a symbolic link's target.
    Readlink "readlink" [Look] () => ();
    /// Ask whether access would be granted.
    Access "access" [Look] () => ();
    /// File-system totals.
    Statfs "statfs" [Look] () => ();
    /// Change owner, mode, size or times: the words follow from what is asked.
    Setattr "setattr" [Owner Mode Time Write] ChangesAsk => Changes;
    /// Make a regular file and open it.
    Create "create" [Make] BirthAsk => Birth;
    /// Make a directory.
    Mkdir "mkdir" [Make] BirthAsk => Birth;
    /// Make a FIFO, a socket or an empty regular file; never a device (the floor).
    Mknod "mknod" [Make] BirthAsk => Birth;
    /// Make a symbolic link.
    Symlink "symlink" [Make] BirthAsk => Birth;
    /// Give a file a second name.
    Link "link" [Link] () => ();
    /// Remove a name that is not a directory's.
    Unlink "unlink" [Remove] () => ();
    /// Remove an empty directory.
    Rmdir "rmdir" [Remove] () => ();
    /// Change a name, or exchange two.
    Rename "rename" [Rename] RenameHow => RenameHow;
    /// Open a regular file: `read`, `write` or both, as its flags say.
    Open "open" [Read Write] OpenAs => OpenAs;
    /// Read data through a handle.
    Read "read" [Read] () => ();
    /// Write data through a handle.
    Write "write" [Write] () => ();
    /// Allocate, punch, zero or collapse through a handle.
    Fallocate "fallocate" [Write] () => ();
    /// Find data or a hole through a handle.
    Lseek "lseek" [Read] () => ();
    /// Copy between two handles inside the kernel: judged at the source (`read`) and at the
    /// destination (`write`), one permit each.
    CopyFileRange "copy_file_range" [Read Write] () => ();
    /// Bring a file's or directory's data to disk.
    Fsync "fsync" [] () => ();
    /// A descriptor of the client was closed.
    Flush "flush" [] () => ();
    /// Open a directory: part of finding names (a client opens the directory before each use of a
    /// name in it). That tells nothing: every READDIR needs `list`, and where no OPENDIR is sent,
    /// what it would have been asked is asked then too.
    Opendir "opendir" [Look] () => ();
    /// Read a directory's entries.
    Readdir "readdir" [List] () => ();
    /// Set an extended attribute.
    Setxattr "setxattr" [Xattr] XattrName => XattrChange;
    /// Read an extended attribute.
    Getxattr "getxattr" [Xattr] XattrName => XattrName;
    /// List extended attributes; each name is judged again before it is shown.
    Listxattr "listxattr" [Xattr] () => ();
    /// Remove an extended attribute.
    Removexattr "removexattr" [Xattr] XattrName => XattrChange;
}
