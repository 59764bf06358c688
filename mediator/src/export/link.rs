//! Names: links, removal, renames, link targets.

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;

use rustix::fs::{AtFlags, RenameFlags};
use rustix::io::Errno;

use super::attr::{Identity, Seen};
use super::fault::Call;
use super::{Entry, Export, Fault, Pin};
use crate::ids::FileKind;
use crate::name::Name;
use crate::op::{RenameHow, rows};
use crate::policy::Permit;
use crate::sys;

/// The inode that a name led to before a call changed the name.
struct Before {
    identity: Identity,
    /// `None` for one that the kernel does not know: nobody can come back to it.
    fd: Option<Arc<OwnedFd>>,
    nlink: u32,
    is_directory: bool,
}

impl Export {
    /// A symbolic link's target.
    ///
    /// # Errors
    ///
    /// EINVAL if the node is no symbolic link.
    pub fn readlink(&self, _permit: Permit<rows::Readlink>, pin: &Pin) -> Result<Vec<u8>, Fault> {
        if pin.kind != FileKind::Symlink {
            return Err((Errno::INVAL, "readlinkat").into());
        }
        rustix::fs::readlinkat(pin.fd(), c"", Vec::new())
            .map(std::ffi::CString::into_bytes)
            .call("readlinkat")
    }

    /// Gives a node a second name.
    ///
    /// # Errors
    ///
    /// EEXIST; EPERM for a directory; EXDEV; ENOENT if the node has no name left.
    pub fn link(
        &self,
        _permit: Permit<rows::Link>,
        pin: &Pin,
        parent: &Pin,
        name: &Name,
    ) -> Result<Entry, Fault> {
        if pin.kind == FileKind::Directory {
            return Err((Errno::PERM, "linkat").into());
        }
        self.name_inode(pin.fd(), parent, name)?;
        let seen = Seen::new(&sys::stat(pin.fd()).call("statx")?).call("statx")?;
        let submount = seen.identity.mount != self.mount;
        self.enter_seen(parent, name, &seen, submount, Some(pin.fd.clone()))
    }

    /// Removes a name that is not a directory's. An inode that is known, and loses its last name,
    /// stays usable until it is forgotten.
    ///
    /// # Errors
    ///
    /// EISDIR for a directory; what unlinkat(2) says.
    pub fn unlink(
        &self,
        _permit: Permit<rows::Unlink>,
        parent: &Pin,
        name: &Name,
    ) -> Result<(), Fault> {
        self.remove(parent, name, AtFlags::empty())
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    ///
    /// ENOTEMPTY; ENOTDIR; what unlinkat(2) says.
    pub fn rmdir(
        &self,
        _permit: Permit<rows::Rmdir>,
        parent: &Pin,
        name: &Name,
    ) -> Result<(), Fault> {
        self.remove(parent, name, AtFlags::REMOVEDIR)
    }

    fn remove(&self, parent: &Pin, name: &Name, flags: AtFlags) -> Result<(), Fault> {
        let before = self.before(parent, name)?;
        self.may_be_lost(&before).call("unlinkat")?;
        rustix::fs::unlinkat(parent.fd(), name.as_c_str(), flags).call("unlinkat")?;
        self.lost(parent, name, &before);
        Ok(())
    }

    /// What a name leads to, with a descriptor if its inode is known: afterwards no name may lead to
    /// it. One that is open anyway keeps its inode's number, so that it is this very inode's.
    fn before(&self, parent: &Pin, name: &Name) -> Result<Before, Fault> {
        let glance = self.glance(parent, name)?;
        let (identity, attr) = (glance.seen.identity, glance.seen.attr);
        let known = self.with(|table| {
            let slot = table.nodes.find(&identity);
            slot.map(|slot| table.descriptor(slot))
        });
        let fd = match known {
            None => None,
            Some(Some(fd)) => Some(fd),
            Some(None) => Some(Arc::new(self.child_again(parent, name, &glance)?.fd)),
        };
        Ok(Before {
            identity,
            fd,
            nlink: attr.nlink,
            is_directory: attr.kind == FileKind::Directory,
        })
    }

    /// ENFILE if the kernel knows a file that would have no name, and too many such are known.
    fn may_be_lost(&self, before: &Before) -> Result<(), Errno> {
        if before.nlink > 1 && !before.is_directory {
            return Ok(());
        }
        self.with(|table| table.room_for_nameless(&before.identity))
    }

    /// How many names are left of what lost one.
    fn links_left(before: &Before) -> u32 {
        if before.nlink <= 1 || before.is_directory {
            return 0;
        }
        // Another may have gone at the same time.
        let now = before.fd.as_ref().map(|fd| sys::stat(fd.as_fd()));
        now.and_then(Result::ok)
            .map_or(before.nlink - 1, |st| st.stx_nlink)
    }

    /// The table learns that an inode lost a name. Its descriptor is kept: it may be the last way.
    fn lost(&self, parent: &Pin, name: &Name, before: &Before) {
        let left = Self::links_left(before);
        let node = self.with(|table| {
            let slot = table.nodes.find(&before.identity)?;
            if let Ok(parent) = table.slot(parent.node) {
                table.nodes.drop_name(slot, parent, name.as_bytes());
            }
            table.nodes.set_linked(slot, left);
            if let Some(fd) = &before.fd {
                table.hold(slot, fd.clone());
            }
            // A removed directory is not kept from being freed.
            let node = table.nodes.id(slot);
            table.close_streams(node);
            Some(node)
        });
        if let Some(node) = node.filter(|_| left == 0) {
            self.leaves(node);
        }
    }

    /// Changes a name, or exchanges two.
    ///
    /// # Errors
    ///
    /// What renameat2(2) says: EEXIST (`NoReplace`), ENOENT, ENOTEMPTY, EXDEV, EINVAL for a
    /// directory into itself.
    pub fn rename(
        &self,
        permit: Permit<rows::Rename>,
        from: (&Pin, &Name),
        to: (&Pin, &Name),
    ) -> Result<(), Fault> {
        let how = permit.grant();
        let source = self.glance(from.0, from.1)?.seen.identity;
        let target = match self.before(to.0, to.1) {
            Ok(before) => Some(before),
            Err(fault) if fault.errno == Errno::NOENT => None,
            Err(fault) => return Err(fault),
        };
        let flags = match how {
            RenameHow::Replace => RenameFlags::empty(),
            RenameHow::NoReplace => RenameFlags::NOREPLACE,
            RenameHow::Exchange => RenameFlags::EXCHANGE,
        };
        if let Some(target) = target.as_ref().filter(|_| how == RenameHow::Replace) {
            self.may_be_lost(target).call("renameat2")?;
        }
        let rename = || {
            let (from_name, to_name) = (from.1.as_c_str(), to.1.as_c_str());
            rustix::fs::renameat_with(from.0.fd(), from_name, to.0.fd(), to_name, flags)
        };
        self.with_room(rename).call("renameat2")?;
        if let Some(target) = &target {
            // rename(2): two names of one inode are left as they are.
            if target.identity == source {
                return Ok(());
            }
            if how != RenameHow::Exchange {
                self.lost(to.0, to.1, target);
            }
        }
        self.moved(source, from, to);
        if let Some(target) = target.filter(|_| how == RenameHow::Exchange) {
            self.moved(target.identity, to, from);
        }
        Ok(())
    }

    fn moved(&self, moved: Identity, from: (&Pin, &Name), to: (&Pin, &Name)) {
        self.with(|table| {
            let slot = table.nodes.find(&moved);
            let parents = (table.slot(from.0.node), table.slot(to.0.node));
            if let (Some(slot), (Ok(old), Ok(new))) = (slot, parents) {
                let (old, new) = ((old, from.1.as_bytes()), (new, to.1.as_bytes()));
                table.nodes.move_name(slot, old, new);
            }
        });
    }
}
