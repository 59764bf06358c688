//! From names to nodes, and from nodes back to descriptors.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{AtFlags, Statx, StatxAttributes};
use rustix::io::Errno;

use super::attr::{Inode, Seen};
use super::fault::Call;
use super::table::{Route, Table};
use super::{Attr, Export, Fault, Submounts};
use crate::ids::{FileKind, HandleId, NodeId};
use crate::name::Name;
use crate::op::rows;
use crate::policy::{Permit, Standing};
use crate::sys;

/// A descriptor of a known node. While it lives, its inode cannot be used for another file.
#[derive(Clone, Debug)]
pub struct Pin {
    pub(super) fd: Arc<OwnedFd>,
    pub(super) node: NodeId,
    pub(super) kind: FileKind,
    standing: Standing,
    /// When it was pinned, on the clock of changed names.
    at: u64,
    /// As the view shows it, if it was looked at to be pinned. What was changed since is not in it.
    seen: Option<Attr>,
}

impl Pin {
    fn of(table: &Table, slot: u32, fd: Arc<OwnedFd>) -> Self {
        let nodes = &table.nodes;
        Self {
            fd,
            node: nodes.id(slot),
            kind: nodes.kind(slot),
            standing: nodes.standing(slot),
            at: nodes.now(),
            seen: None,
        }
    }

    /// The node.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// Its type, which an inode never changes.
    #[must_use]
    pub fn kind(&self) -> FileKind {
        self.kind
    }

    /// What was decided about it by the names that it had when it was pinned.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.standing
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// What a name in a directory is right now: a descriptor and attributes, told to nobody yet.
#[derive(Debug)]
pub struct Child<F = OwnedFd> {
    pub(super) fd: F,
    pub(super) seen: Seen,
    pub(super) node: Option<NodeId>,
    pub(super) submount: bool,
    pub(super) standing: Standing,
}

/// The same without a descriptor: like a node whose descriptor was given up, it is opened by its
/// name when it is used, and must then be the same inode.
pub type Glance = Child<()>;

impl<F> Child<F> {
    /// Its attributes; `ino` is the one that it is or will be shown with, unless its number was
    /// used before by a node that the kernel still knows.
    #[must_use]
    pub fn attr(&self) -> &Attr {
        &self.seen.attr
    }

    /// Which file it is.
    #[must_use]
    pub fn inode(&self) -> Inode {
        Inode(self.seen.identity)
    }

    /// Whether it can outlive this name: then it is worth a descriptor from the first.
    fn has_other_names(&self) -> bool {
        self.seen.attr.nlink > 1 && self.seen.attr.kind != FileKind::Directory
    }

    /// Its node, if it is known already.
    #[must_use]
    pub fn node(&self) -> Option<NodeId> {
        self.node
    }

    /// Whether it lies on another mount than the export's root.
    #[must_use]
    pub fn is_submount(&self) -> bool {
        self.submount
    }

    /// What was decided about it by all its names, this one among them.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.standing
    }
}

/// A node as the kernel is told of it: each counts as one lookup until it is forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The node.
    pub node: NodeId,
    /// Tells apart inodes that have had the same number: the birth time in nanoseconds, wrapping.
    pub generation: u64,
    /// Its attributes.
    pub attr: Attr,
}

impl Export {
    /// A descriptor of a known node, re-opened by name if it was given up.
    ///
    /// # Errors
    ///
    /// ESTALE if the node is not known, or none of its known names leads to the same inode.
    pub fn pin(&self, node: NodeId) -> Result<Pin, Fault> {
        let pinned = self.with(|table| {
            let slot = table.slot(node).call("pin")?;
            Ok::<_, Fault>(match table.descriptor(slot) {
                Some(fd) => Ok(Pin::of(table, slot, fd)),
                None => Err(table.nodes.names(slot)),
            })
        })?;
        let names = match pinned {
            Ok(pin) => return Ok(pin),
            Err(names) => names,
        };
        let (fd, attr) = self.reopen(node, names)?;
        self.with(|table| {
            let slot = table.slot(node).call("pin")?;
            Ok(Pin {
                seen: attr,
                ..Pin::of(table, slot, fd)
            })
        })
    }

    /// The node behind a handle.
    ///
    /// # Errors
    ///
    /// EBADF if the handle is forged or stale.
    pub fn pin_handle(&self, handle: HandleId) -> Result<Pin, Fault> {
        self.with(|table| {
            let handle = table.handle(handle).call("handle")?;
            let slot = table.slot(handle.node).call("handle")?;
            let fd = handle.fd.clone();
            Ok(Pin::of(table, slot, fd))
        })
    }

    /// The node behind the handle that a file was made with, which was looked at then.
    ///
    /// # Errors
    ///
    /// As [`Export::pin_handle`].
    pub fn pin_new_file(&self, handle: HandleId, made: &Attr) -> Result<Pin, Fault> {
        let seen = Some(*made);
        Ok(Pin {
            seen,
            ..self.pin_handle(handle)?
        })
    }

    /// Which file a node is.
    ///
    /// # Errors
    ///
    /// ESTALE if the node was forgotten.
    pub fn inode(&self, pin: &Pin) -> Result<Inode, Fault> {
        let slot = |table: &mut Table| {
            let slot = table.slot(pin.node)?;
            Ok::<_, Errno>(table.nodes.identity(slot))
        };
        self.with(slot).map(Inode).call("inode")
    }

    /// Whether `path` (`/a/b`, from the export's root) is that file's now. What is not there, or
    /// could only be reached through a symbolic link, is not.
    ///
    /// # Errors
    ///
    /// What openat(2) and statx(2) say besides ENOENT and ENOTDIR.
    pub fn is_at(&self, inode: Inode, path: &[u8]) -> Result<bool, Fault> {
        let mut at = self.root.clone();
        for component in path
            .split(|byte| *byte == b'/')
            .filter(|one| !one.is_empty())
        {
            let name = Name::new(component).call("openat")?;
            at = match sys::open_path(at.as_fd(), name.as_c_str()) {
                Ok(fd) => Arc::new(fd),
                Err(Errno::NOENT | Errno::NOTDIR) => return Ok(false),
                Err(errno) => return Err((errno, "openat").into()),
            };
        }
        let seen = Seen::new(&sys::stat(at.as_fd()).call("statx")?).call("statx")?;
        Ok(seen.identity.is_file_of(&inode.0))
    }

    /// Whether every write through the handle goes to the file's end, whatever is said of it.
    ///
    /// # Errors
    ///
    /// EBADF if the handle is forged or stale.
    pub fn is_append_only(&self, handle: HandleId) -> Result<bool, Fault> {
        let handle = self.with(|table| table.handle(handle)).call("handle")?;
        Ok(handle.append_only)
    }

    /// The descriptor, and the attributes of what it names; none of the directory that a way of no
    /// steps starts in.
    fn reopen(&self, node: NodeId, names: usize) -> Result<(Arc<OwnedFd>, Option<Attr>), Fault> {
        for which in 0..names {
            let route = self.with(|table| {
                let slot = table.slot(node).ok()?;
                table.route(slot, which)
            });
            let Some(route) = route else { continue };
            match self.walk(&route) {
                Ok(found) => return Ok(found),
                Err(fault) if leads_elsewhere(fault.errno) => {}
                Err(fault) => return Err(fault),
            }
        }
        Err((Errno::STALE, "reopen").into())
    }

    /// One component at a time; each must be the inode that it was.
    fn walk(&self, route: &Route) -> Result<(Arc<OwnedFd>, Option<Attr>), Fault> {
        let (mut at, mut attr) = (route.start.clone(), None);
        for step in &route.steps {
            let fd = sys::open_path(at.as_fd(), &step.name).call("openat")?;
            let seen = Seen::new(&sys::stat(fd.as_fd()).call("statx")?).call("statx")?;
            if seen.identity != step.identity {
                return Err((Errno::STALE, "reopen").into());
            }
            (at, attr) = (Arc::new(fd), Some(Self::shown(step.node, seen.attr)));
            self.with(|table| {
                if let Ok(slot) = table.slot(step.node) {
                    table.hold(slot, at.clone());
                }
            });
        }
        Ok((at, attr))
    }

    /// What a name in a directory is right now.
    ///
    /// # Errors
    ///
    /// ENOENT, also for what lies on another mount unless submounts are followed; EACCES where rules
    /// go by name and the directory lists it under another spelling.
    pub fn child(&self, parent: &Pin, name: &Name) -> Result<Child, Fault> {
        let fd = sys::open_path(parent.fd(), name.as_c_str()).call("openat")?;
        let st = sys::stat(fd.as_fd()).call("statx")?;
        self.recognise(parent, name, &st, fd)
    }

    /// The same, for one call less, of what may never be used.
    ///
    /// # Errors
    ///
    /// As [`Export::child`].
    pub fn glance(&self, parent: &Pin, name: &Name) -> Result<Glance, Fault> {
        let st = sys::stat_at(parent.fd(), name.as_c_str(), AtFlags::empty()).call("statx")?;
        self.recognise(parent, name, &st, ())
    }

    fn recognise<F>(
        &self,
        parent: &Pin,
        name: &Name,
        st: &Statx,
        fd: F,
    ) -> Result<Child<F>, Fault> {
        let mut seen = Seen::new(st).call("statx")?;
        let submount = seen.identity.mount != self.mount;
        if self.hides(&seen.identity) {
            return Err((Errno::NOENT, "submount").into());
        }
        let (node, shown, standing) = self.with(|table| {
            let slot = table.nodes.find(&seen.identity);
            let node = slot.map(|slot| table.nodes.id(slot));
            let standing = slot.zip(table.slot(parent.node).ok());
            let standing = standing
                .filter(|(slot, parent)| table.nodes.has_name(*slot, *parent, name.as_bytes()));
            let standing = standing.map(|(slot, _parent)| table.nodes.standing(slot));
            let natural = || {
                let device = table.nodes.device(&seen.identity).ok()?;
                super::node::Nodes::natural(device, seen.identity.ino)
            };
            let shown = node.map(|node| node.0).or_else(natural);
            (node, shown, standing)
        });
        if node != Some(NodeId::ROOT) {
            seen.attr.ino = shown.unwrap_or(seen.attr.ino);
        }
        // One that is known was spelled right when it was entered, or rules began to go by name.
        if standing.is_none() {
            self.check_spelling(parent.fd(), name, &seen)?;
        }
        Ok(Child {
            fd,
            seen,
            node,
            submount,
            standing: standing.unwrap_or_default(),
        })
    }

    /// Whether a name is taken by what is hidden, since it lies on another mount.
    #[must_use]
    pub fn is_taken_unseen(&self, parent: &Pin, name: &Name) -> bool {
        let st = sys::stat_at(parent.fd(), name.as_c_str(), AtFlags::empty());
        let seen = st.and_then(|st| Seen::new(&st));
        seen.is_ok_and(|seen| self.hides(&seen.identity))
    }

    /// Attributes of a node.
    ///
    /// # Errors
    ///
    /// What statx(2) says.
    pub fn stat(&self, pin: &Pin) -> Result<Attr, Fault> {
        let seen = Seen::new(&sys::stat(pin.fd()).call("statx")?).call("statx")?;
        Ok(Self::shown(pin.node, seen.attr))
    }

    /// The same of one that was looked at to be pinned, as it was then: for a request that has not
    /// changed it.
    ///
    /// # Errors
    ///
    /// What statx(2) says.
    pub fn stat_once(&self, pin: &Pin) -> Result<Attr, Fault> {
        pin.seen.map_or_else(|| self.stat(pin), Ok)
    }

    /// Whether the file system lets the file be read and written past the page cache (`O_DIRECT`).
    ///
    /// # Errors
    ///
    /// What statx(2) says.
    pub fn has_direct_io(&self, pin: &Pin) -> Result<bool, Fault> {
        sys::has_direct_io(pin.fd()).call("statx")
    }

    /// Whether the file's own attribute lets nobody do more than append (chattr(1), `a`).
    ///
    /// # Errors
    ///
    /// What statx(2) says.
    pub fn is_append_only_file(&self, pin: &Pin) -> Result<bool, Fault> {
        let st = sys::stat(pin.fd()).call("statx")?;
        Ok(st.stx_attributes.contains(StatxAttributes::APPEND))
    }

    /// Whether the file was made through this view and not yet given both owner and mode.
    #[must_use]
    pub fn is_birth(&self, pin: &Pin) -> bool {
        self.with(|table| {
            let slot = table.slot(pin.node).ok();
            slot.is_some_and(|slot| table.nodes.is_birth(slot))
        })
    }

    /// Whether the node lies on another mount than the export's root.
    #[must_use]
    pub fn is_submount(&self, pin: &Pin) -> bool {
        if self.submounts != Submounts::Follow {
            return false;
        }
        self.with(|table| {
            let slot = table.slot(pin.node).ok();
            slot.is_some_and(|slot| table.nodes.is_submount(slot))
        })
    }

    /// Appends the node's name, `/a/b`; a node whose name is gone is told by its last one, and
    /// one that was forgotten meanwhile by nothing.
    pub fn write_path(&self, pin: &Pin, out: &mut Vec<u8>) {
        self.with(|table| {
            if let Ok(slot) = table.slot(pin.node) {
                table.nodes.write_path(slot, out);
            }
        });
    }

    /// Further names under which the node was seen.
    #[must_use]
    pub fn other_names(&self, pin: &Pin) -> Vec<Vec<u8>> {
        self.with(|table| {
            let slot = table.slot(pin.node).ok();
            slot.map_or_else(Vec::new, |slot| table.nodes.other_names(slot))
        })
    }

    fn remember_entry(&self, entry: &Entry, parent: &Pin, name: &Name, standing: Standing) {
        if standing.is_none() {
            return;
        }
        self.with(|table| {
            let slots = (table.slot(entry.node), table.slot(parent.node));
            if let (Ok(slot), Ok(above)) = slots
                // The verdict was on this name alone.
                && table.nodes.names(slot) == 1
                && table.nodes.has_name(slot, above, name.as_bytes())
            {
                table.nodes.remember(slot, parent.at, standing);
            }
        });
    }

    /// Remembers what was decided about a node by all the names that it had when it was pinned.
    pub fn remember(&self, pin: &Pin, standing: Standing) {
        if standing.is_none() {
            return;
        }
        self.with(|table| {
            if let Ok(slot) = table.slot(pin.node) {
                table.nodes.remember(slot, pin.at, standing);
            }
        });
    }

    /// Tells the kernel of what a name leads to: it is known from now on.
    ///
    /// # Errors
    ///
    /// ESTALE if the parent was forgotten, the name leads elsewhere by now, or the host moved
    /// directories so that the names that are known contradict each other: the client looks again
    /// from the top.
    pub fn lookup(
        &self,
        permit: Permit<rows::Lookup>,
        parent: &Pin,
        name: &Name,
        glance: &Glance,
    ) -> Result<Entry, Fault> {
        let fd = if glance.has_other_names() && glance.node.is_none() {
            Some(Arc::new(self.child_again(parent, name, glance)?.fd))
        } else {
            None
        };
        let entry = self.enter_seen(parent, name, &glance.seen, glance.submount, fd)?;
        self.remember_entry(&entry, parent, name, permit.standing());
        Ok(entry)
    }

    pub(super) fn child_again(
        &self,
        parent: &Pin,
        name: &Name,
        glance: &Glance,
    ) -> Result<Child, Fault> {
        let child = self.child(parent, name)?;
        if child.seen.identity == glance.seen.identity {
            Ok(child)
        } else {
            Err((Errno::STALE, "openat").into())
        }
    }

    /// Enters what a name leads to; the lookup count goes up by one.
    pub(super) fn enter_seen(
        &self,
        parent: &Pin,
        name: &Name,
        seen: &Seen,
        submount: bool,
        fd: Option<Arc<OwnedFd>>,
    ) -> Result<Entry, Fault> {
        let node = self.with(|table| {
            let slot = table.enter(seen, submount, parent.node, name.as_bytes(), fd)?;
            Ok(table.nodes.id(slot))
        });
        let node = node.call("lookup")?;
        Ok(Entry {
            node,
            generation: seen.identity.birth,
            attr: Self::shown(node, seen.attr),
        })
    }

    /// The directory above; the root's is the root.
    ///
    /// # Errors
    ///
    /// ESTALE if what is above is not what is known: the host moved the directory, perhaps out of
    /// the export.
    pub fn lookup_parent(&self, _permit: Permit<rows::Lookup>, dir: &Pin) -> Result<Entry, Fault> {
        if dir.kind != FileKind::Directory {
            return Err((Errno::NOTDIR, "lookup").into());
        }
        let fd = if dir.node == NodeId::ROOT {
            self.root.clone()
        } else {
            Arc::new(sys::open_path(dir.fd(), c"..").call("openat")?)
        };
        let seen = Seen::new(&sys::stat(fd.as_fd()).call("statx")?).call("statx")?;
        let node = self.with(|table| {
            let above = table.nodes.parent(table.slot(dir.node)?);
            if table.nodes.identity(above) != seen.identity {
                return Err(Errno::STALE);
            }
            table.nodes.count_lookup(above);
            table.hold(above, fd);
            Ok(table.nodes.id(above))
        });
        let node = node.call("lookup")?;
        Ok(Entry {
            node,
            generation: seen.identity.birth,
            attr: Self::shown(node, seen.attr),
        })
    }

    /// The kernel forgets `count` lookups of a node; more than there were count as all.
    pub fn forget(&self, node: NodeId, count: u64) {
        self.with(|table| table.forget(node, count));
        self.may_have_left();
    }
}

/// The name is not there any more, or is something else now.
fn leads_elsewhere(errno: Errno) -> bool {
    [Errno::STALE, Errno::NOENT, Errno::NOTDIR].contains(&errno)
}
