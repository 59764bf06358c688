//! What is asked in guest terms becomes what is granted in host terms.

use rustix::io::Errno;

use super::acl::is_acl;
use super::engine::{Allowed, refuse};
use super::model::{Policy, SetId};
use super::permit::Refusal;
use crate::ids::{FileKind, HostOwner, Mode};
use crate::op::{
    Birth, BirthAsk, Changes, ChangesAsk, OpenAs, Operation, RenameHow, SetTime, Word, Words,
    XattrChange, XattrName,
};

/// What the rules may ask of a request's arguments.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked {
    /// Words that follow from the arguments, whatever the facts say.
    pub(super) words: Words,
    /// CREATE's: what its handle could do to a file that is there already.
    pub(super) open_words: Words,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) mode: Option<Mode>,
    /// SETATTR's, in bytes.
    pub(super) size: Option<u64>,
    /// What is to be made.
    pub(super) kind: Option<FileKind>,
    pub(super) rename: Option<RenameHow>,
    /// OPEN's and CREATE's.
    pub(super) open: Option<OpenAs>,
}

/// A row that [`Policy::decide`] can judge: each whose arguments it knows how to translate.
pub trait Judged: Operation {
    /// What the rules may ask of the arguments.
    #[doc(hidden)]
    fn asked(ask: &Self::Ask) -> Asked;

    /// The arguments in host terms, as the deciding rules change them.
    ///
    /// # Errors
    ///
    /// As [`Policy::decide`] for ids and set-id bits.
    #[doc(hidden)]
    fn grant(
        policy: &Policy,
        allowed: &Allowed,
        kind: Option<FileKind>,
        ask: Self::Ask,
    ) -> Result<Self::Grant, Refusal>;
}

impl<O, A, G> Judged for O
where
    O: Operation<Ask = A, Grant = G>,
    A: Translate<G>,
{
    fn asked(ask: &A) -> Asked {
        ask.asked()
    }

    fn grant(
        policy: &Policy,
        allowed: &Allowed,
        kind: Option<FileKind>,
        ask: A,
    ) -> Result<G, Refusal> {
        ask.grant(policy, allowed, kind)
    }
}

/// One kind of argument.
pub trait Translate<G> {
    fn asked(&self) -> Asked;

    fn grant(
        self,
        policy: &Policy,
        allowed: &Allowed,
        kind: Option<FileKind>,
    ) -> Result<G, Refusal>;
}

impl Translate<()> for () {
    fn asked(&self) -> Asked {
        Asked::default()
    }

    fn grant(self, _: &Policy, _: &Allowed, _: Option<FileKind>) -> Result<(), Refusal> {
        Ok(())
    }
}

impl Translate<XattrName> for XattrName {
    fn asked(&self) -> Asked {
        Asked::default()
    }

    /// A name that is too long to be kept is none that is there.
    fn grant(self, policy: &Policy, _: &Allowed, _: Option<FileKind>) -> Result<Self, Refusal> {
        policy.stored_xattr(self, Errno::NODATA)
    }
}

impl Translate<XattrChange> for XattrName {
    /// A POSIX ACL holds the permission bits: to set one is to set those.
    fn asked(&self) -> Asked {
        Asked {
            words: words_of_acl(self),
            ..Asked::default()
        }
    }

    fn grant(
        self,
        policy: &Policy,
        allowed: &Allowed,
        _: Option<FileKind>,
    ) -> Result<XattrChange, Refusal> {
        let words = Words::of(Word::Xattr).with(words_of_acl(&self));
        if allowed.pretended.meets(words) {
            return Ok(XattrChange::Pretend);
        }
        let decided = allowed.modify.force | allowed.modify.strip;
        if is_acl(self.as_bytes()) && decided & 0o777 != 0 {
            return Err(refuse(
                Errno::PERM,
                "a rule's `mode` decides permission bits, which an ACL would set",
            ));
        }
        // setxattr(2): ERANGE for a name that the file system has no room for.
        let stored = policy.stored_xattr(self, Errno::RANGE)?;
        Ok(XattrChange::Act(stored))
    }
}

fn words_of_acl(name: &XattrName) -> Words {
    if is_acl(name.as_bytes()) {
        Words::of(Word::Mode)
    } else {
        Words::NONE
    }
}

impl Translate<RenameHow> for RenameHow {
    fn asked(&self) -> Asked {
        Asked {
            rename: Some(*self),
            ..Asked::default()
        }
    }

    /// Where what is there may not be removed it may not be replaced: the rename then happens
    /// only if there is nothing (EEXIST otherwise), decided by the kernel in one step.
    fn grant(self, _: &Policy, allowed: &Allowed, _: Option<FileKind>) -> Result<Self, Refusal> {
        Ok(match self {
            Self::Replace if allowed.keep_target => Self::NoReplace,
            Self::Replace | Self::NoReplace | Self::Exchange => self,
        })
    }
}

impl Translate<OpenAs> for OpenAs {
    fn asked(&self) -> Asked {
        Asked {
            words: self.words(),
            open: Some(*self),
            ..Asked::default()
        }
    }

    fn grant(self, _: &Policy, _: &Allowed, _: Option<FileKind>) -> Result<Self, Refusal> {
        Ok(self)
    }
}

impl Translate<Birth> for BirthAsk {
    fn asked(&self) -> Asked {
        Asked {
            words: Words::of(Word::Make),
            open_words: self.open.words(),
            open: Some(self.open),
            mode: Some(self.mode),
            kind: Some(self.kind),
            ..Asked::default()
        }
    }

    fn grant(
        self,
        policy: &Policy,
        allowed: &Allowed,
        _: Option<FileKind>,
    ) -> Result<Birth, Refusal> {
        let modify = allowed.modify;
        let owner = match (modify.uid, modify.gid) {
            (Some(uid), Some(gid)) => HostOwner { uid, gid },
            (uid, gid) => {
                let owner = policy.owners.newborn(self.requester)?;
                HostOwner {
                    uid: uid.unwrap_or(owner.uid),
                    gid: gid.unwrap_or(owner.gid),
                }
            }
        };
        let mut open = self.open;
        open.exclusive |= allowed.only_new;
        Ok(Birth {
            owner,
            owner_is_forced: modify.gid.is_some(),
            kind: self.kind,
            mode: policy.mode(self.mode, Some(self.kind), allowed)?,
            open,
        })
    }
}

impl Translate<Changes> for ChangesAsk {
    fn asked(&self) -> Asked {
        Asked {
            words: self.words(),
            uid: self.uid.map(|id| id.0),
            gid: self.gid.map(|id| id.0),
            mode: self.mode,
            size: self.size,
            ..Asked::default()
        }
    }

    fn grant(
        self,
        policy: &Policy,
        allowed: &Allowed,
        kind: Option<FileKind>,
    ) -> Result<Changes, Refusal> {
        // What is pretended is not translated either: no id is outside, no bit refused.
        let acts = |word| !allowed.pretended.meets(Words::of(word));
        let (owner, time) = (acts(Word::Owner), acts(Word::Time));
        let uid = self.uid.filter(|_| owner);
        let uid = uid.map(|asked| match allowed.modify.uid {
            Some(forced) => Ok(forced),
            None => policy.owners.uid(asked),
        });
        let gid = self.gid.filter(|_| owner);
        let gid = gid.map(|asked| match allowed.modify.gid {
            Some(forced) => Ok(forced),
            None => policy.owners.gid(asked),
        });
        let mode = self.mode.filter(|_| acts(Word::Mode));
        let mode = mode.map(|mode| policy.mode(mode, kind, allowed));
        Ok(Changes {
            uid: uid.transpose()?,
            gid: gid.transpose()?,
            mode: mode.transpose()?,
            // Data is never pretended: the parser has no such rule.
            size: self.size,
            atime: if time { self.atime } else { SetTime::Omit },
            mtime: if time { self.mtime } else { SetTime::Omit },
        })
    }
}

impl Policy {
    /// Applies `set_id` and `setgid_directories`, then the rules' `mode`. A type that is not known counts as a file.
    fn mode(
        &self,
        asked: Mode,
        kind: Option<FileKind>,
        allowed: &Allowed,
    ) -> Result<Mode, Refusal> {
        let directory = kind == Some(FileKind::Directory);
        let inherits = directory && asked.bits() & Mode::SET_GID != 0;
        if inherits && !self.setgid_directories {
            return Err(refuse(
                Errno::PERM,
                "`setgid_directories` denies set-group-id on directories",
            ));
        }
        let judged = if directory {
            Mode::SET_UID
        } else {
            Mode::SET_UID | Mode::SET_GID
        };
        let bits = match self.set_id {
            SetId::Allow => asked.bits(),
            SetId::Strip => asked.bits() & !judged,
            SetId::Deny if asked.bits() & judged != 0 => {
                return Err(refuse(Errno::PERM, "`set_id` denies set-id bits"));
            }
            SetId::Deny => asked.bits(),
        };
        Ok(Mode::new(
            bits & !allowed.modify.strip | allowed.modify.force,
        ))
    }
}
