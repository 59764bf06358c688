//! Operations on names: lookup, forget, unlink, rmdir, link, rename.

use rustix::io::Errno;

use super::funnel::{Act, Case, Mediator, ShownEntry, Subject, Trail};
use super::ledger::Used;
use crate::export::{Attr, Child, Inode, Pin};
use crate::ids::{FileKind, NodeId};
use crate::name::Name;
use crate::op::{Op, RenameHow, rows};
use crate::policy::Requester;

impl Mediator {
    /// Finds `name` in `parent`; `..` is the parent directory, the root's being the root.
    ///
    /// # Errors
    ///
    /// ENOENT if it is not there or hidden; EINVAL or ENAMETOOLONG for no valid name; ESTALE.
    pub fn lookup(&self, who: Requester, parent: NodeId, name: &[u8]) -> Result<ShownEntry, Errno> {
        self.run(Op::Lookup, who, |trail| {
            let parent = self.export.pin(parent)?;
            if name == b".." {
                let permit = self.decide::<rows::Lookup>(trail, &Case::node(&parent), ())?;
                let entry = self.export.lookup_parent(permit, &parent)?;
                return Ok(self.show_entry(entry));
            }
            self.lookup_in(trail, &parent, &self.name(trail, name)?)
        })
    }

    pub(super) fn lookup_in(&self, trail: &Trail, parent: &Pin, name: &Name) -> Act<ShownEntry> {
        let child = self.export.glance(parent, name);
        let child = child.map_err(|fault| self.misspelt(trail, (parent, name), fault))?;
        let case = Case::glance(parent, name, &child);
        let permit = self.decide::<rows::Lookup>(trail, &case, ())?;
        let entry = self.export.lookup(permit, parent, name, &child)?;
        Ok(self.show_entry(entry))
    }

    /// Gives back `count` lookups of `node`. Never fails: too large a count forgets all.
    pub fn forget(&self, node: NodeId, count: u64) {
        self.export.forget(node, count);
    }

    /// Removes a name that is not a directory's.
    ///
    /// # Errors
    ///
    /// ENOENT, EISDIR, a refusal's errno, or what the export answers.
    pub fn unlink(&self, who: Requester, parent: NodeId, name: &[u8]) -> Result<(), Errno> {
        self.run(Op::Unlink, who, |trail| {
            let (parent, name) = (self.export.pin(parent)?, self.name(trail, name)?);
            let there = self.asked_about(trail, &parent, &name)?;
            let case = Case {
                attr: there.as_ref().map(Child::attr),
                inode: there.as_ref().map(Child::inode),
                ..Case::name(&parent, &name)
            };
            let permit = self.decide::<rows::Unlink>(trail, &case, ())?;
            Ok(self.export.unlink(permit, &parent, &name)?)
        })
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    ///
    /// ENOENT, ENOTDIR, ENOTEMPTY, a refusal's errno, or what the export answers.
    pub fn rmdir(&self, who: Requester, parent: NodeId, name: &[u8]) -> Result<(), Errno> {
        self.run(Op::Rmdir, who, |trail| {
            let (parent, name) = (self.export.pin(parent)?, self.name(trail, name)?);
            let there = self.asked_about(trail, &parent, &name)?;
            let case = Case {
                attr: there.as_ref().map(Child::attr),
                ..Case::name(&parent, &name)
            };
            let permit = self.decide::<rows::Rmdir>(trail, &case, ())?;
            Ok(self.export.rmdir(permit, &parent, &name)?)
        })
    }

    /// Gives `node` the further name `name` in `parent`. Judged at every known name and the new.
    ///
    /// # Errors
    ///
    /// EEXIST, EPERM for a directory, EXDEV, a refusal's errno, or what the export answers.
    pub fn link(
        &self,
        who: Requester,
        node: NodeId,
        parent: NodeId,
        name: &[u8],
    ) -> Result<ShownEntry, Errno> {
        self.run(Op::Link, who, |trail| {
            let (parent, name) = (self.export.pin(parent)?, self.name(trail, name)?);
            let pin = self.export.pin(node)?;
            let case = Case {
                second: Some((&parent, &name)),
                ..Case::node(&pin)
            };
            let permit = self.decide::<rows::Link>(trail, &case, ())?;
            let _moving = Self::moving(trail, &permit);
            self.grow((trail, &case), permit, Used::NAME, |permit| {
                let entry = self.export.link(permit, &pin, &parent, &name)?;
                Ok(self.show_entry(entry))
            })
        })
    }

    /// Changes a name, or exchanges two. Judged at both names; nothing may be carried out of the
    /// rules that hold for it.
    ///
    /// # Errors
    ///
    /// EINVAL for flags other than NOREPLACE or EXCHANGE; a refusal's errno, or what the export
    /// answers.
    pub fn rename(
        &self,
        who: Requester,
        (parent, name): (NodeId, &[u8]),
        (new_parent, new_name): (NodeId, &[u8]),
        flags: u32,
    ) -> Result<(), Errno> {
        self.run(Op::Rename, who, |trail| {
            let how = rename_how(flags).map_err(|errno| {
                let why = "floor: rename flags that are not on the list";
                self.refuse_bytes(trail, name, errno, why)
            })?;
            let (parent, name) = (self.export.pin(parent)?, self.name(trail, name)?);
            let (new_parent, new_name) =
                (self.export.pin(new_parent)?, self.name(trail, new_name)?);
            let from = (&parent, &name);
            let to = (&new_parent, &new_name);
            let permit = self.decide_rename(trail, from, to, how)?;
            if how == RenameHow::Exchange {
                // The other file travels the other way: it is judged as if it alone moved.
                let _both_ways = self.decide_rename(trail, to, from, how)?;
            }
            let _moving = Self::moving(trail, &permit);
            Ok(self.export.rename(permit, from, to)?)
        })
    }

    fn decide_rename(
        &self,
        trail: &Trail,
        from: (&Pin, &Name),
        to: (&Pin, &Name),
        how: RenameHow,
    ) -> Act<crate::policy::Permit<rows::Rename>> {
        let there = self.asked_about(trail, from.0, from.1)?;
        let case = Case {
            attr: there.as_ref().map(Child::attr),
            inode: there.as_ref().map(Child::inode),
            second: Some(to),
            ..Case::name(from.0, from.1)
        };
        self.decide::<rows::Rename>(trail, &case, how)
    }

    /// A file with further links is sought by the paths of rules that follow it, and judged by
    /// those where it is found, whether or not the client ever looked there.
    pub(super) fn add_followed(
        &self,
        trail: &Trail,
        (subject, inode): (Subject<'_>, Option<Inode>),
        attr: &Attr,
        names: &mut Vec<Vec<u8>>,
    ) -> Act<()> {
        if attr.nlink < 2 || attr.kind == FileKind::Directory {
            return Ok(());
        }
        let inode = match (inode, subject) {
            (Some(inode), _) => inode,
            (None, Subject::Node(pin)) => self.export.inode(pin)?,
            // A name that is to be made stands for nothing yet.
            (None, Subject::Name(..) | Subject::Handle(_)) => return Ok(()),
        };
        for path in trail.policy.borrow().followed() {
            if self.export.is_at(inode, path)? {
                names.push(path.clone());
            }
        }
        Ok(())
    }

    /// What a name stands for now, if rules for `op` ask about it.
    fn asked_about(&self, trail: &Trail, parent: &Pin, name: &Name) -> Act<Option<Child>> {
        let op = trail.op;
        let needs = self.needs(trail, op);
        // A rename that is judged by path must know whether a whole subtree moves.
        if needs.attr || (op == Op::Rename && needs.path) {
            return Ok(Some(self.export.child(parent, name)?));
        }
        Ok(None)
    }
}

/// Flags as an allow list: WHITEOUT makes a device node, and what is not known is not passed on.
fn rename_how(flags: u32) -> Result<RenameHow, Errno> {
    match flags {
        0 => Ok(RenameHow::Replace),
        libc::RENAME_NOREPLACE => Ok(RenameHow::NoReplace),
        libc::RENAME_EXCHANGE => Ok(RenameHow::Exchange),
        _ => Err(Errno::INVAL),
    }
}

/// What may be made by a creating operation is a matter of policy; that `mode` names a type at
/// all is not.
pub(super) fn kind_asked(mode: u32) -> Result<FileKind, Errno> {
    // mknod(2): a mode without a type means a regular file.
    if mode & libc::S_IFMT == 0 {
        return Ok(FileKind::Regular);
    }
    FileKind::from_mode(mode).ok_or(Errno::INVAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rename_flags_outside_the_list_are_refused() {
        for flags in [libc::RENAME_WHITEOUT, 3, 8, u32::MAX] {
            assert_eq!(rename_how(flags), Err(Errno::INVAL));
        }
        assert_eq!(rename_how(libc::RENAME_EXCHANGE), Ok(RenameHow::Exchange));
    }

    #[test]
    fn mode_without_a_type_asks_for_a_regular_file() {
        assert_eq!(kind_asked(0o644), Ok(FileKind::Regular));
        assert_eq!(kind_asked(libc::S_IFIFO), Ok(FileKind::Fifo));
        assert_eq!(kind_asked(libc::S_IFMT), Err(Errno::INVAL));
    }
}
