//! One request as data: what the stepper shows, a recording keeps and `policy explain` makes up.
//!
//! [`Facts`] borrow from the request that is being served and the arguments have a type for each
//! row; here both are owned and of one type, so that a request can leave the process and be judged
//! again, there or here, by another policy.

use serde::{Deserialize, Serialize};

use super::facts::{Facts, Requester};
use super::grant::{Asked, Judged};
use super::model::Policy;
use super::permit::Refusal;
use super::text;
use crate::ids::{FileKind, HostOwner, Mode};
use crate::op::{AnyAsk, AnyGrant, Op, Words, rows};

/// A request: [`Facts`] and arguments, owned. Paths and names are bytes; see [`Facts`] for each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The row of the table.
    pub op: Op,
    /// The words that follow from the facts.
    pub words: Words,
    /// Every known name of the target.
    #[serde(with = "text::many")]
    pub names: Vec<Vec<u8>>,
    /// A rename's or link's new name.
    #[serde(with = "text::some")]
    pub second: Option<Vec<u8>>,
    /// The target's type.
    pub kind: Option<FileKind>,
    /// The target's mode.
    pub mode: Option<Mode>,
    /// The target's owner, host ids.
    pub owner: Option<HostOwner>,
    /// A directory or target of the request belongs to ids outside of `map`.
    pub outside: bool,
    /// The target's size in bytes.
    pub size: Option<u64>,
    /// The target's link count.
    pub nlink: Option<u32>,
    /// Offset in bytes.
    pub offset: Option<u64>,
    /// Length in bytes.
    pub length: Option<u64>,
    /// The length is added to the file's size, wherever the offset is.
    #[serde(default)]
    pub adds: bool,
    /// Name and value size of an extended attribute.
    #[serde(with = "text::sized")]
    pub xattr: Option<(Vec<u8>, usize)>,
    /// The permission bits that a POSIX ACL gives. Unknown in what left the process: what denies by
    /// them holds there.
    #[serde(skip)]
    pub acl_mode: Option<Mode>,
    /// A new symbolic link's target.
    #[serde(with = "text::some")]
    pub target: Option<Vec<u8>>,
    /// The target lies on another mount than the export's root.
    pub submount: bool,
    /// Made through this view and not yet given its owner and mode.
    pub birth: bool,
    /// Who asks.
    pub requester: Requester,
    /// What is asked beyond the target.
    pub ask: AnyAsk,
}

/// What a policy answers to a [`Request`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Granted {
    /// The arguments as they would reach the export.
    pub grant: AnyGrant,
    /// The first rule that decided; `None` for the default.
    pub rule: Option<u32>,
    /// The deciding rule says `log = "all"`.
    pub logs: bool,
    /// The words that are told as done and are not.
    pub pretended: Words,
    /// What would have been refused if the rules were enforced (`mode = "observe"`).
    pub observed: Option<Refusal>,
}

impl Request {
    /// The request behind a decision.
    #[must_use]
    pub fn of(facts: &Facts<'_>, ask: AnyAsk) -> Self {
        Self {
            op: facts.op,
            words: facts.words,
            names: facts.names.iter().map(|name| name.to_vec()).collect(),
            second: facts.second.map(<[u8]>::to_vec),
            kind: facts.kind,
            mode: facts.mode,
            owner: facts.owner,
            outside: facts.outside,
            size: facts.size,
            nlink: facts.nlink,
            offset: facts.offset,
            length: facts.length,
            adds: facts.adds,
            xattr: facts.xattr.map(|(name, size)| (name.to_vec(), size)),
            acl_mode: facts.acl_mode,
            target: facts.target.map(<[u8]>::to_vec),
            submount: facts.submount,
            birth: facts.birth,
            requester: facts.requester,
            ask,
        }
    }

    /// What the rules may ask of the arguments.
    pub(super) fn asked(&self) -> Asked {
        match self.ask {
            AnyAsk::Nothing => Asked::default(),
            AnyAsk::Open(ask) => <rows::Open as Judged>::asked(&ask),
            AnyAsk::Birth(ask) => <rows::Create as Judged>::asked(&ask),
            AnyAsk::Changes(ask) => <rows::Setattr as Judged>::asked(&ask),
            AnyAsk::Rename(ask) => <rows::Rename as Judged>::asked(&ask),
            AnyAsk::Xattr(ask) if self.op == Op::Getxattr => {
                <rows::Getxattr as Judged>::asked(&ask)
            }
            AnyAsk::Xattr(ask) => <rows::Setxattr as Judged>::asked(&ask),
        }
    }

    /// Lends the facts.
    pub(crate) fn with_facts<T>(&self, body: impl FnOnce(&Facts<'_>) -> T) -> T {
        let names: Vec<&[u8]> = self.names.iter().map(Vec::as_slice).collect();
        body(&Facts {
            op: self.op,
            words: self.words,
            names: &names,
            second: self.second.as_deref(),
            kind: self.kind,
            mode: self.mode,
            owner: self.owner,
            outside: self.outside,
            size: self.size,
            nlink: self.nlink,
            offset: self.offset,
            length: self.length,
            adds: self.adds,
            xattr: self
                .xattr
                .as_ref()
                .map(|(name, size)| (name.as_slice(), *size)),
            acl_mode: self.acl_mode,
            target: self.target.as_deref(),
            submount: self.submount,
            birth: self.birth,
            requester: self.requester,
        })
    }
}

impl Policy {
    /// Judges a request that is data, by the same code as [`Policy::decide`].
    ///
    /// # Errors
    ///
    /// As [`Policy::decide`]; EACCES if the arguments are not the operation's.
    pub fn decide_request(&self, request: &Request) -> Result<Granted, Refusal> {
        request.with_facts(|facts| match request.op {
            Op::Lookup => self.decide_any::<rows::Lookup>(facts, request.ask),
            Op::Getattr => self.decide_any::<rows::Getattr>(facts, request.ask),
            Op::Readlink => self.decide_any::<rows::Readlink>(facts, request.ask),
            Op::Access => self.decide_any::<rows::Access>(facts, request.ask),
            Op::Statfs => self.decide_any::<rows::Statfs>(facts, request.ask),
            Op::Setattr => self.decide_any::<rows::Setattr>(facts, request.ask),
            Op::Create => self.decide_any::<rows::Create>(facts, request.ask),
            Op::Mkdir => self.decide_any::<rows::Mkdir>(facts, request.ask),
            Op::Mknod => self.decide_any::<rows::Mknod>(facts, request.ask),
            Op::Symlink => self.decide_any::<rows::Symlink>(facts, request.ask),
            Op::Link => self.decide_any::<rows::Link>(facts, request.ask),
            Op::Unlink => self.decide_any::<rows::Unlink>(facts, request.ask),
            Op::Rmdir => self.decide_any::<rows::Rmdir>(facts, request.ask),
            Op::Rename => self.decide_any::<rows::Rename>(facts, request.ask),
            Op::Open => self.decide_any::<rows::Open>(facts, request.ask),
            Op::Read => self.decide_any::<rows::Read>(facts, request.ask),
            Op::Write => self.decide_any::<rows::Write>(facts, request.ask),
            Op::Fallocate => self.decide_any::<rows::Fallocate>(facts, request.ask),
            Op::Lseek => self.decide_any::<rows::Lseek>(facts, request.ask),
            Op::CopyFileRange => self.decide_any::<rows::CopyFileRange>(facts, request.ask),
            Op::Fsync => self.decide_any::<rows::Fsync>(facts, request.ask),
            Op::Flush => self.decide_any::<rows::Flush>(facts, request.ask),
            Op::Opendir => self.decide_any::<rows::Opendir>(facts, request.ask),
            Op::Readdir => self.decide_any::<rows::Readdir>(facts, request.ask),
            Op::Setxattr => self.decide_any::<rows::Setxattr>(facts, request.ask),
            Op::Getxattr => self.decide_any::<rows::Getxattr>(facts, request.ask),
            Op::Listxattr => self.decide_any::<rows::Listxattr>(facts, request.ask),
            Op::Removexattr => self.decide_any::<rows::Removexattr>(facts, request.ask),
        })
    }

    fn decide_any<O: Judged>(&self, facts: &Facts<'_>, ask: AnyAsk) -> Result<Granted, Refusal> {
        let ask = O::Ask::try_from(ask).map_err(|_other| {
            super::engine::refuse(
                rustix::io::Errno::ACCESS,
                "floor: arguments of another operation",
            )
        })?;
        let permit = self.decide::<O>(facts, ask)?;
        Ok(Granted {
            grant: permit.grant().into(),
            rule: permit.rule(),
            logs: permit.logs(),
            pretended: permit.pretended(),
            observed: permit.observed(),
        })
    }
}
