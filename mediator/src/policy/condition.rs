//! What `when` may say.

use super::paths::{Glob, NameGlob};
use crate::ids::FileKind;
use crate::op::{OpenAs, RenameHow};

/// Whose ids a condition looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    /// The target's, host ids.
    Now,
    /// Those a chown asks for, as the guest gives them.
    Asked,
    /// The client's, host ids.
    Requester,
}

/// Which number a condition looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Number {
    Size,
    /// That a truncation or extension (SETATTR) asks for.
    NewSize,
    Nlink,
    Offset,
    Length,
    XattrSize,
}

/// One condition of `when`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    Kind(Vec<FileKind>),
    Mode {
        asked: bool,
        any: u32,
        all: u32,
        none: u32,
    },
    Owner {
        whose: Whose,
        uids: Vec<u32>,
        gids: Vec<u32>,
    },
    Within {
        what: Number,
        min: u64,
        max: u64,
    },
    Xattr(Vec<NameGlob>),
    Target(Vec<Glob>),
    Birth(bool),
    Submount(bool),
    Flags {
        any: Flags,
        all: Flags,
        none: Flags,
    },
    Rename(Vec<RenameHow>),
    /// The last component of the name that is judged; the root has none.
    Name(Vec<NameGlob>),
    /// A rename's or link's new name.
    Second(Vec<Glob>),
}

/// The flags of an open, as a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Flags(u8);

/// The flags as `when.flags` calls them.
pub(super) const FLAG_NAMES: &[(&str, Flags)] = &[
    ("read", Flags::READ),
    ("write", Flags::WRITE),
    ("append", Flags::APPEND),
    ("truncate", Flags::TRUNCATE),
    ("exclusive", Flags::EXCLUSIVE),
    ("sync", Flags::SYNC),
    ("direct", Flags::DIRECT),
];

impl Flags {
    pub(super) const READ: Self = Self(1 << 0);
    pub(super) const WRITE: Self = Self(1 << 1);
    pub(super) const APPEND: Self = Self(1 << 2);
    pub(super) const TRUNCATE: Self = Self(1 << 3);
    pub(super) const EXCLUSIVE: Self = Self(1 << 4);
    pub(super) const SYNC: Self = Self(1 << 5);
    pub(super) const DIRECT: Self = Self(1 << 6);

    pub(super) fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(super) fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub(super) fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    pub(super) fn holds(self, all: Self) -> bool {
        self.0 & all.0 == all.0
    }

    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl From<Flags> for OpenAs {
    fn from(flags: Flags) -> Self {
        let has = |flag| flags.meets(flag);
        Self {
            read: has(Flags::READ),
            write: has(Flags::WRITE),
            append: has(Flags::APPEND),
            truncate: has(Flags::TRUNCATE),
            exclusive: has(Flags::EXCLUSIVE),
            sync: has(Flags::SYNC),
            direct: has(Flags::DIRECT),
            no_atime: false,
        }
    }
}

impl From<OpenAs> for Flags {
    fn from(open: OpenAs) -> Self {
        let given = [
            (open.read, Self::READ),
            (open.write, Self::WRITE),
            (open.append, Self::APPEND),
            (open.truncate, Self::TRUNCATE),
            (open.exclusive, Self::EXCLUSIVE),
            (open.sync, Self::SYNC),
            (open.direct, Self::DIRECT),
        ];
        let given = given.into_iter().filter(|(given, _)| *given);
        given.fold(Self::default(), |flags, (_, flag)| flags.with(flag))
    }
}

/// A name's last component; `None` for the root.
fn last_component(path: &[u8]) -> Option<&[u8]> {
    let last = path.rsplit(|byte| *byte == b'/').next();
    last.filter(|name| !name.is_empty())
}

impl Condition {
    /// Whether the condition looks at names, which must be gathered first.
    pub(super) fn needs_path(&self) -> bool {
        matches!(self, Self::Name(_) | Self::Second(_))
    }

    /// Whether the condition looks at the permission bits that a request asks for.
    pub(super) fn is_about_new_mode(&self) -> bool {
        matches!(self, Self::Mode { asked: true, .. })
    }

    /// Whether the condition can hold for an open because it appends, or because it does not.
    pub(super) fn turns_on_append(&self, appends: bool) -> bool {
        let Self::Flags { any, all, none } = self else {
            return false;
        };
        if appends {
            any.meets(Flags::APPEND) || all.meets(Flags::APPEND)
        } else {
            none.meets(Flags::APPEND)
        }
    }

    /// Whether the condition looks at nothing but names and the type, which a file keeps as long as
    /// its names.
    pub(super) fn follows_from_names(&self) -> bool {
        matches!(self, Self::Kind(_) | Self::Name(_))
    }

    /// Whether the condition holds as far as it looks at the name that is judged.
    pub(super) fn holds_at(&self, path: Option<&[u8]>) -> Option<bool> {
        let Self::Name(globs) = self else {
            return Some(true);
        };
        let name = last_component(path?);
        Some(name.is_some_and(|name| globs.iter().any(|glob| glob.matches(name))))
    }

    /// Whether the condition looks at the target's attributes, which must be gathered first.
    pub(super) fn needs_attr(&self) -> bool {
        match self {
            Self::Kind(_) => true,
            Self::Mode { asked, .. } => !asked,
            Self::Owner { whose, .. } => *whose == Whose::Now,
            Self::Within { what, .. } => matches!(what, Number::Size | Number::Nlink),
            Self::Submount(_) => true,
            Self::Xattr(_)
            | Self::Target(_)
            | Self::Birth(_)
            | Self::Flags { .. }
            | Self::Rename(_)
            | Self::Name(_)
            | Self::Second(_) => false,
        }
    }
}
