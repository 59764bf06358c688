//! Reading directories. A hidden name is left out, as if it were not there.
//!
//! Whatever OPENDIR would be asked is asked here of a directory that is read by its node: its kernel
//! was told to send no OPENDIR, for as long as it lives, while policies come and go.

use std::sync::Arc;

use rustix::io::Errno;

use super::funnel::{Act, Case, Mediator, ShownEntry, Stop, Trail};
use super::in_force::InForce;
use super::scratch::join;
use crate::export::{DirEntry, Handed, Pin};
use crate::ids::{FileKind, HandleId, NodeId};
use crate::name::Name;
use crate::op::{Op, rows};
use crate::policy::{Permit, Requester};

/// What a client reads a directory by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DirectoryBy {
    /// The handle that OPENDIR answered.
    Handle(HandleId),
    /// The node: OPENDIR was never asked for it.
    Node(NodeId),
}

/// The same, once its node is known to be there.
enum Found {
    Handle(HandleId),
    Node(Pin),
}

/// An entry of READDIRPLUS.
#[derive(Debug)]
pub struct Plus<'a> {
    /// The name.
    pub name: &'a [u8],
    /// The inode number to show if there is no `entry`.
    pub ino: u64,
    /// The type, where the export tells it.
    pub kind: Option<FileKind>,
    /// Where the next call goes on; opaque.
    pub cookie: u64,
    /// What the name was looked up to; counts one lookup if it is accepted. `None` for `.`, `..`
    /// and what was not looked up: it can or may not be, or is to be asked for first.
    pub entry: Option<ShownEntry>,
}

impl Mediator {
    /// Hands out entries from `cookie` on until `each` says `false` (the reply is full).
    ///
    /// # Errors
    ///
    /// EBADF, a refusal's errno, or what the export answers.
    pub fn readdir(
        &self,
        who: Requester,
        directory: DirectoryBy,
        cookie: u64,
        each: &mut dyn FnMut(DirEntry<'_>) -> bool,
    ) -> Result<(), Errno> {
        self.run(Op::Readdir, who, |trail| {
            let (found, permit) = self.decide_readdir(trail, directory)?;
            let mut filter = Filter::new(self, trail, &found)?;
            self.read_found(&found, &permit, cookie, &mut |entry| {
                if filter.hides(entry.name) {
                    Handed::LeftOut
                } else {
                    taken_or_full(each(entry))
                }
            })
        })
    }

    /// Like [`Mediator::readdir`], and looks each name up, judged as its LOOKUP would be. A name that
    /// has vanished or is hidden is left out; an entry that `each` does not take counts no lookup.
    ///
    /// # Errors
    ///
    /// As [`Mediator::readdir`].
    pub fn readdirplus(
        &self,
        who: Requester,
        directory: DirectoryBy,
        cookie: u64,
        each: &mut dyn FnMut(Plus<'_>) -> bool,
    ) -> Result<(), Errno> {
        self.run(Op::Readdir, who, |trail| {
            let (found, permit) = self.decide_readdir(trail, directory)?;
            let mut filter = Filter::new(self, trail, &found)?;
            let dir = self.pin_found(&found)?;
            self.read_found(&found, &permit, cookie, &mut |entry| {
                if filter.hides(entry.name) {
                    Handed::LeftOut
                } else {
                    self.plus(trail, &dir, &entry, each)
                }
            })
        })
    }

    fn decide_readdir(
        &self,
        trail: &Trail,
        directory: DirectoryBy,
    ) -> Act<(Found, Permit<rows::Readdir>)> {
        match directory {
            DirectoryBy::Handle(handle) => {
                let permit = self.decide::<rows::Readdir>(trail, &Case::handle(handle), ())?;
                Ok((Found::Handle(handle), permit))
            }
            DirectoryBy::Node(node) => {
                let pin = self.export.pin(node)?;
                let _opened = self.decide::<rows::Opendir>(trail, &Case::node(&pin), ())?;
                let permit = self.decide::<rows::Readdir>(trail, &Case::node(&pin), ())?;
                Ok((Found::Node(pin), permit))
            }
        }
    }

    fn pin_found(&self, found: &Found) -> Act<Pin> {
        match found {
            Found::Handle(handle) => Ok(self.export.pin_handle(*handle)?),
            Found::Node(pin) => Ok(pin.clone()),
        }
    }

    fn read_found(
        &self,
        found: &Found,
        permit: &Permit<rows::Readdir>,
        cookie: u64,
        each: &mut dyn FnMut(DirEntry<'_>) -> Handed,
    ) -> Act<()> {
        match found {
            Found::Handle(handle) => self.export.readdir(permit, *handle, cookie, each)?,
            Found::Node(pin) => self.export.readdir_node(permit, pin, cookie, each)?,
        }
        Ok(())
    }

    /// What readers of a directory by its node left open is closed.
    pub fn close_streams(&self, node: NodeId) {
        self.export.close_streams(node);
    }

    fn plus(
        &self,
        trail: &Trail,
        dir: &Pin,
        entry: &DirEntry<'_>,
        each: &mut dyn FnMut(Plus<'_>) -> bool,
    ) -> Handed {
        let looked = match Name::new(entry.name) {
            // `.` and `..` are not looked up: the kernel takes no reference on them here.
            Err(_) => None,
            Ok(name) => match self.look_ahead(trail, dir, &name) {
                Ok(looked) => looked,
                Err(Stop::Failed(Errno::NOENT)) => return Handed::LeftOut,
                Err(_) => None,
            },
        };
        let taken = each(Plus {
            name: entry.name,
            ino: entry.ino,
            kind: entry.kind,
            cookie: entry.cookie,
            entry: looked,
        });
        if let (false, Some(looked)) = (taken, looked) {
            self.export.forget(looked.node, 1);
        }
        taken_or_full(taken)
    }
}

impl Mediator {
    /// Looks a name up before anybody asks for it; `None` if that must be left to who does: it is
    /// refused, would be told of, or a person holds requests and is to see each by itself.
    fn look_ahead(&self, trail: &Trail, dir: &Pin, name: &Name) -> Act<Option<ShownEntry>> {
        if self.gate.is_armed() {
            return Ok(None);
        }
        let child = self.export.glance(dir, name)?;
        let case = Case::glance(dir, name, &child);
        let Some(permit) = self.offer::<rows::Lookup>(trail, &case, ())? else {
            return Ok(None);
        };
        let entry = self.export.lookup(permit, dir, name, &child)?;
        Ok(Some(self.show_entry(entry)))
    }
}

fn taken_or_full(taken: bool) -> Handed {
    if taken { Handed::Taken } else { Handed::Full }
}

/// Leaves hidden names out. Costs nothing unless rules ask about names.
struct Filter {
    policy: Arc<InForce>,
    /// The directory's path, and room for a name behind it; `None` if nothing can be hidden.
    path: Option<Vec<u8>>,
}

impl Filter {
    fn new(mediator: &Mediator, trail: &Trail, found: &Found) -> Act<Self> {
        let policy = Arc::clone(&trail.policy.borrow());
        let path = if policy.needs(Op::Lookup).path {
            let mut path = Vec::new();
            let dir = mediator.pin_found(found)?;
            mediator.export.write_path(&dir, &mut path);
            Some(path)
        } else {
            None
        };
        Ok(Self { policy, path })
    }

    fn hides(&mut self, name: &[u8]) -> bool {
        let Some(path) = &mut self.path else {
            return false;
        };
        if name == b"." || name == b".." {
            return false;
        }
        let dir = path.len();
        join(path, name);
        let hidden = self.policy.is_hidden(path);
        path.truncate(dir);
        hidden
    }
}
