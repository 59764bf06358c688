//! What a rule may ask about a request.

use serde::{Deserialize, Serialize};

use crate::ids::{FileKind, HostOwner, Mode};
use crate::op::{Op, Words};

/// Who sent a request. Ids are the host's, as the kernel reports the client's thread; the guest's
/// user is never visible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requester {
    /// fsuid of the client.
    pub uid: u32,
    /// fsgid of the client.
    pub gid: u32,
    /// Thread id; 0 from outside the mounter's pid namespace.
    pub pid: u32,
}

/// Which facts must be gathered before a decision; see [`crate::policy::Policy::needs`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Needs {
    /// Path names.
    pub path: bool,
    /// Mode, owner, size, nlink of the target. Its type is known anyway.
    pub attr: bool,
}

impl Needs {
    /// Whether anything must be gathered.
    #[must_use]
    pub fn any(self) -> bool {
        self.path || self.attr
    }
}

/// The facts of one request. Paths are bytes within the view, joined by `/` and starting with it:
/// `/a/b`; the root is `/`. A component never contains `/`, so the form is unambiguous.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// The row of the table.
    pub op: Op,
    /// The words this request really needs: a subset of `op.words()`, e.g. for SETATTR only those
    /// of what is asked, for OPEN those of its flags (O_TRUNC needs `write`).
    pub words: Words,
    /// Every known name of the target (several for hard links: the strictest verdict holds). For
    /// an operation on a name in a directory: that one name. Empty if `needs` did not ask.
    pub names: &'a [&'a [u8]],
    /// The other name: a rename's or link's new name.
    pub second: Option<&'a [u8]>,
    /// The target's type.
    pub kind: Option<FileKind>,
    /// The target's mode now.
    pub mode: Option<Mode>,
    /// The target's owner now.
    pub owner: Option<HostOwner>,
    /// A directory that the request names something in, or what a rename would replace, belongs to
    /// someone whose ids cannot be stored ([`crate::policy::Policy::admits`]).
    pub outside: bool,
    /// The target's size in bytes now.
    pub size: Option<u64>,
    /// The target's link count now.
    pub nlink: Option<u32>,
    /// Offset in bytes of a read or write.
    pub offset: Option<u64>,
    /// Length in bytes of a read or write.
    pub length: Option<u64>,
    /// The length is added to the file's size, wherever the offset is: the handle appends, or a
    /// range is inserted.
    pub adds: bool,
    /// Name and value size of an extended attribute.
    pub xattr: Option<(&'a [u8], usize)>,
    /// The permission bits that a POSIX ACL gives, which the request sets or removes.
    pub acl_mode: Option<Mode>,
    /// A new symbolic link's target.
    pub target: Option<&'a [u8]>,
    /// The target lies on another mount than the export's root.
    pub submount: bool,
    /// Made through this view and not yet given its owner and mode.
    pub birth: bool,
    /// Who asks.
    pub requester: Requester,
}

impl<'a> Facts<'a> {
    /// The facts that every request has; the rest unknown.
    #[must_use]
    pub fn of(op: Op, requester: Requester) -> Self {
        Self {
            op,
            words: op.words(),
            names: &[],
            second: None,
            kind: None,
            mode: None,
            owner: None,
            outside: false,
            size: None,
            nlink: None,
            offset: None,
            length: None,
            adds: false,
            xattr: None,
            acl_mode: None,
            target: None,
            submount: false,
            birth: false,
            requester,
        }
    }
}
