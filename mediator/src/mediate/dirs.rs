//! Reading directories. A hidden name is left out, as if it were not there.

use std::sync::Arc;

use rustix::io::Errno;

use super::funnel::{Act, Mediator, ShownEntry, Stop, Trail};
use super::in_force::InForce;
use super::scratch::join;
use crate::export::{DirEntry, Handed, Pin};
use crate::ids::{FileKind, HandleId};
use crate::name::Name;
use crate::op::{Op, rows};
use crate::policy::{Permit, Requester};

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
    /// and what could not be looked up.
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
        handle: HandleId,
        cookie: u64,
        each: &mut dyn FnMut(DirEntry<'_>) -> bool,
    ) -> Result<(), Errno> {
        self.run(Op::Readdir, who, |trail| {
            let (permit, mut filter) = self.decide_readdir(trail, handle)?;
            Ok(self.export.readdir(&permit, handle, cookie, &mut |entry| {
                if filter.hides(entry.name) {
                    Handed::LeftOut
                } else {
                    taken_or_full(each(entry))
                }
            })?)
        })
    }

    /// Like [`Mediator::readdir`], and looks each name up. A name that has vanished or is hidden
    /// is left out; an entry that `each` does not take counts no lookup.
    ///
    /// # Errors
    ///
    /// As [`Mediator::readdir`].
    pub fn readdirplus(
        &self,
        who: Requester,
        handle: HandleId,
        cookie: u64,
        each: &mut dyn FnMut(Plus<'_>) -> bool,
    ) -> Result<(), Errno> {
        self.run(Op::Readdir, who, |trail| {
            let (permit, mut filter) = self.decide_readdir(trail, handle)?;
            let dir = self.export.pin_handle(handle)?;
            Ok(self.export.readdir(&permit, handle, cookie, &mut |entry| {
                if filter.hides(entry.name) {
                    Handed::LeftOut
                } else {
                    self.plus(trail, &dir, &entry, each)
                }
            })?)
        })
    }

    fn decide_readdir(
        &self,
        trail: &Trail,
        handle: HandleId,
    ) -> Act<(Permit<rows::Readdir>, Filter)> {
        let case = super::funnel::Case::handle(handle);
        let permit = self.decide::<rows::Readdir>(trail, &case, ())?;
        Ok((permit, Filter::new(self, trail, handle)?))
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
            Ok(name) => match self.lookup_in(trail, dir, &name) {
                Ok(entry) => Some(entry),
                Err(Stop::Failed(Errno::NOENT) | Stop::Refused(Errno::NOENT)) => {
                    return Handed::LeftOut;
                }
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
    fn new(mediator: &Mediator, trail: &Trail, handle: HandleId) -> Act<Self> {
        let policy = Arc::clone(&trail.policy.borrow());
        let path = if policy.needs(Op::Lookup).path {
            let mut path = Vec::new();
            let dir = mediator.export.pin_handle(handle)?;
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
