//! POSIX ACLs (acl(5)), the part of extended attributes that decides who gets at a file.
//!
//! Where a view serves many users, their kernel asks for a file's ACL before it lets anyone but the
//! owner in. That answer must never be milder than the export: a policy that does not let an ACL be
//! read has the file refused to those users, not judged by its mode alone, whose group bits are the
//! ACL's mask.

use rustix::io::Errno;

use super::funnel::{Act, Case, Mediator, Stop, Trail};
use crate::export::Pin;
use crate::ids::Mode;
use crate::op::{ChangesAsk, Word, Words, rows};
use crate::policy::{ACCESS_ACL, DEFAULT_ACL, Permit, Refusal, is_acl, mode_of_acl};

/// The mode of a new inode as a client asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AskedMode {
    /// Type and permission bits.
    pub bits: u32,
    /// The requester's umask where the kernel leaves it to us: 0 if it has applied it.
    pub umask: u32,
}

impl From<u32> for AskedMode {
    fn from(bits: u32) -> Self {
        Self { bits, umask: 0 }
    }
}

impl Mediator {
    /// The mode less the umask, unless the directory has a default ACL, which then takes the umask's
    /// place (umask(2), acl(5)).
    pub(super) fn masked(&self, parent: &Pin, mode: AskedMode) -> Act<u32> {
        let cut = mode.bits & mode.umask & 0o777;
        if cut == 0 || self.export.acl(parent, DEFAULT_ACL)?.is_some() {
            return Ok(mode.bits);
        }
        Ok(mode.bits & !cut)
    }

    /// What is said of an ACL before the policy is asked: ENODATA where many users are served and the
    /// file has none, for whatever reason, since to their kernel any other answer is a refusal of the
    /// file; EACCES where the file has one and the view's is kept elsewhere.
    pub(super) fn acl_before_rules(
        &self,
        trail: &Trail,
        case: &Case<'_>,
        (pin, name): (&Pin, &[u8]),
    ) -> Act<()> {
        if !is_acl(name) || !self.serves_users() {
            return Ok(());
        }
        let renamed = trail.policy.borrow().renames_xattr(name);
        match self.export.acl(pin, name)? {
            None if renamed => Ok(()),
            None => Err(Errno::NODATA.into()),
            Some(_acl) if renamed => {
                let refusal = Refusal {
                    errno: Errno::ACCESS,
                    rule: None,
                    why: "the file has an ACL on the export, and an `[[xattr]]` keeps the view's elsewhere",
                };
                Err(self.refuse(trail.op, trail, case, refusal))
            }
            Some(_acl) => Ok(()),
        }
    }

    /// A refusal to read an ACL, in words that open(2) knows: the kernel hands them on.
    pub(super) fn acl_refused(&self, name: &[u8], stop: Stop) -> Stop {
        match stop {
            Stop::Refused(Errno::NOTSUP) if is_acl(name) && self.serves_users() => {
                Stop::Refused(Errno::ACCESS)
            }
            other @ (Stop::Refused(_) | Stop::Failed(_)) => other,
        }
    }

    /// An ACL that is allowed to be set, in host ids.
    pub(super) fn acl_to_store(
        &self,
        trail: &Trail,
        case: &Case<'_>,
        (pin, name, value): (&Pin, &[u8], &[u8]),
    ) -> Act<Vec<u8>> {
        self.acl_may_go(trail, case, (pin, name))?;
        let stored = trail.policy.borrow().acl_stored(value);
        stored.map_err(|refusal| match refusal.errno {
            // A mistake of the client's, and nobody's refusal.
            Errno::INVAL => refusal.errno.into(),
            _ => self.refuse(trail.op, trail, case, refusal),
        })
    }

    /// Refuses to lose what an ACL of the export says of ids that the view cannot name.
    pub(super) fn acl_may_go(
        &self,
        trail: &Trail,
        case: &Case<'_>,
        (pin, name): (&Pin, &[u8]),
    ) -> Act<()> {
        if trail.policy.borrow().host_uids().is_none() {
            return Ok(());
        }
        let Some(there) = self.export.acl(pin, name)? else {
            return Ok(());
        };
        let may = trail.policy.borrow().acl_may_go(&there);
        may.map_err(|refusal| self.refuse(trail.op, trail, case, refusal))
    }

    /// The mode that an ACL gives a file, or leaves it if it is removed (`None`): a fact, as the mode
    /// that a chmod asks is. Set-id and sticky bits stay. `None` for another attribute.
    pub(super) fn acl_mode(
        &self,
        pin: &Pin,
        (name, value): (&[u8], Option<&[u8]>),
    ) -> Act<Option<Mode>> {
        if !is_acl(name) {
            return Ok(None);
        }
        let now = self.export.stat(pin)?.mode.bits();
        let given = match value {
            None => Some(now),
            Some(value) => mode_of_acl(value).map(|bits| bits | now & !0o777),
        };
        Ok(given.map(Mode::new))
    }

    /// The permit to take set-group-id from a file whose ACL is set by someone outside of its group
    /// (`posix_acl_update_mode`, fs/posix_acl.c), if it has it: the mediator's own kernel does not,
    /// since the mediator may set that bit, and fuser does not hand on the client's kernel's word for
    /// it (`FUSE_SETXATTR_ACL_KILL_SGID`). The requester's further groups are not known: a member by
    /// one of those loses the bit too.
    pub(super) fn set_gid_goes(
        &self,
        trail: &Trail,
        pin: &Pin,
        (name, given): (&[u8], Option<Mode>),
    ) -> Act<Option<Permit<rows::Setattr>>> {
        if name != ACCESS_ACL || !self.serves_users() || trail.who.uid == 0 {
            return Ok(None);
        }
        let now = self.show(self.export.stat(pin)?);
        let mode = now.attr.mode.bits();
        if mode & Mode::SET_GID == 0 || now.owner.gid.0 == trail.who.gid {
            return Ok(None);
        }
        let later = given.map_or(mode, Mode::bits);
        let ask = ChangesAsk {
            mode: Some(Mode::new(later & !Mode::SET_GID)),
            ..ChangesAsk::NOTHING
        };
        let case = Case {
            words: Some(Words::of(Word::Mode)),
            ..Case::node(pin)
        };
        self.decide::<rows::Setattr>(trail, &case, ask).map(Some)
    }
}
