//! Operations that make an inode: create, mkdir, mknod, symlink.

use rustix::io::Errno;

use super::acls::AskedMode;
use super::data::Opened;
use super::funnel::{Act, Case, Mediator, ShownEntry, Stop, Trail, as_owner};
use super::ledger::Used;
use super::names::kind_asked;
use super::open::open_as;
use crate::export::Pin;
use crate::ids::{FileKind, Mode, NodeId};
use crate::name::Name;
use crate::op::{BirthAsk, Op, OpenAs, rows};
use crate::policy::Requester;

/// How often a name may appear and vanish between two calls before the client is told to walk
/// again.
const TRIES: usize = 4;

/// The longest target of a symbolic link in bytes (`PATH_MAX` less its NUL, symlink(2)).
const TARGET_MAX: usize = 4095;

impl Mediator {
    /// Makes a regular file and opens it. Without O_EXCL, a file that appeared meanwhile is opened
    /// instead, and judged as an open.
    ///
    /// # Errors
    ///
    /// EEXIST with O_EXCL; ESTALE if something else than a regular file appeared (the kernel walks
    /// again); a refusal's errno, or what the export answers.
    pub fn create(
        &self,
        who: Requester,
        parent: NodeId,
        name: &[u8],
        mode: impl Into<AskedMode>,
        flags: i32,
    ) -> Result<(ShownEntry, Opened), Errno> {
        self.run(Op::Create, who, |trail| {
            let open = open_as(flags)?;
            let (parent, name) = (self.export.pin(parent)?, self.name(trail, name)?);
            let mode = self.masked(&parent, mode.into())?;
            for _ in 0..TRIES {
                let made = self.create_new(trail, &parent, &name, mode, open);
                let may_be_there = match made {
                    Err(Stop::Failed(Errno::EXIST)) => !open.exclusive,
                    // No room for another name; what is there already needs none.
                    Err(Stop::Refused(Errno::DQUOT)) => !open.exclusive,
                    Ok(_) | Err(_) => false,
                };
                if !may_be_there {
                    return made;
                }
                if let Some(opened) = self.open_existing(trail, &parent, &name, open)? {
                    return Ok(opened);
                }
                if self.export.is_taken_unseen(&parent, &name) {
                    return Err(Errno::ACCESS.into());
                }
                if let Err(full @ Stop::Refused(_)) = made {
                    return Err(full);
                }
            }
            Err(Errno::STALE.into())
        })
    }

    fn create_new(
        &self,
        trail: &Trail,
        parent: &Pin,
        name: &Name,
        mode: u32,
        open: OpenAs,
    ) -> Act<(ShownEntry, Opened)> {
        let ask = BirthAsk {
            requester: as_owner(trail.who),
            kind: FileKind::Regular,
            mode: Mode::new(mode),
            // Always exclusive: a permit to make is none to open what is already there.
            open: OpenAs {
                exclusive: true,
                ..open
            },
        };
        let case = Case::name(parent, name);
        let permit = self.decide::<rows::Create>(trail, &case, ask)?;
        self.grow((trail, &case), permit, Used::NAME, |permit| {
            let (entry, handle) = self.export.create(permit, parent, name)?;
            let entry = self.show_entry(entry);
            let opened = self.enter_new_file(trail, &entry.shown.attr, (handle, open));
            if opened.is_err() {
                // The kernel never learns of the file.
                self.export.unmake(parent, name, entry.node);
            }
            Ok((entry, opened?))
        })
    }

    /// `None` if the name vanished again.
    fn open_existing(
        &self,
        trail: &Trail,
        parent: &Pin,
        name: &Name,
        open: OpenAs,
    ) -> Act<Option<(ShownEntry, Opened)>> {
        let entry = match self.lookup_in(trail, parent, name) {
            Ok(entry) => entry,
            Err(Stop::Failed(Errno::NOENT)) => return Ok(None),
            Err(stop) => return Err(stop),
        };
        let opened = if entry.shown.attr.kind == FileKind::Regular {
            self.open_node(trail, entry.node, open)
        } else {
            Err(Errno::STALE.into())
        };
        match opened {
            Ok(opened) => Ok(Some((entry, opened))),
            Err(stop) => {
                // The kernel never learns of the entry, so its lookup is given back.
                self.export.forget(entry.node, 1);
                Err(stop)
            }
        }
    }

    /// Makes a directory.
    ///
    /// # Errors
    ///
    /// EEXIST, a refusal's errno, or what the export answers.
    pub fn mkdir(
        &self,
        who: Requester,
        parent: NodeId,
        name: &[u8],
        mode: impl Into<AskedMode>,
    ) -> Result<ShownEntry, Errno> {
        self.run(Op::Mkdir, who, |trail| {
            let (parent, name) = (self.export.pin(parent)?, self.name(trail, name)?);
            let mode = self.masked(&parent, mode.into())?;
            let ask = birth(who, FileKind::Directory, mode);
            let case = Case::name(&parent, &name);
            let permit = self.decide::<rows::Mkdir>(trail, &case, ask)?;
            self.grow((trail, &case), permit, Used::NAME, |permit| {
                Ok(self.show_entry(self.export.mkdir(permit, &parent, &name)?))
            })
        })
    }

    /// Makes a FIFO, a socket or an empty regular file; devices are refused by the floor.
    ///
    /// # Errors
    ///
    /// EPERM for devices; EEXIST, a refusal's errno, or what the export answers.
    pub fn mknod(
        &self,
        who: Requester,
        parent: NodeId,
        name: &[u8],
        mode: impl Into<AskedMode>,
    ) -> Result<ShownEntry, Errno> {
        self.run(Op::Mknod, who, |trail| {
            let (parent, name) = (self.export.pin(parent)?, self.name(trail, name)?);
            let mode = self.masked(&parent, mode.into())?;
            let ask = birth(who, kind_asked(mode)?, mode);
            let case = Case {
                kind: Some(ask.kind),
                ..Case::name(&parent, &name)
            };
            let permit = self.decide::<rows::Mknod>(trail, &case, ask)?;
            self.grow((trail, &case), permit, Used::NAME, |permit| {
                Ok(self.show_entry(self.export.mknod(permit, &parent, &name)?))
            })
        })
    }

    /// Makes a symbolic link. Its target is content: it is never followed here.
    ///
    /// # Errors
    ///
    /// EEXIST; ENOENT for an empty target, ENAMETOOLONG beyond 4095 bytes; a refusal's errno, or
    /// what the export answers.
    pub fn symlink(
        &self,
        who: Requester,
        parent: NodeId,
        name: &[u8],
        target: &[u8],
    ) -> Result<ShownEntry, Errno> {
        self.run(Op::Symlink, who, |trail| {
            let (parent, name) = (self.export.pin(parent)?, self.name(trail, name)?);
            if target.is_empty() {
                return Err(Errno::NOENT.into());
            }
            if target.len() > TARGET_MAX {
                return Err(Errno::NAMETOOLONG.into());
            }
            let case = Case {
                target: Some(target),
                ..Case::name(&parent, &name)
            };
            let ask = birth(who, FileKind::Symlink, 0o777);
            let permit = self.decide::<rows::Symlink>(trail, &case, ask)?;
            self.grow((trail, &case), permit, Used::NAME, |permit| {
                Ok(self.show_entry(self.export.symlink(permit, &parent, &name, target)?))
            })
        })
    }
}

fn birth(who: Requester, kind: FileKind, mode: u32) -> BirthAsk {
    BirthAsk {
        requester: as_owner(who),
        kind,
        mode: Mode::new(mode),
        open: OpenAs::default(),
    }
}
