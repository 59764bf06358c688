//! Extended attributes. What does not fit is told as getxattr(2) does: ERANGE.

use rustix::io::Errno;

use super::funnel::{Case, Mediator};
use crate::ids::NodeId;
use crate::op::{Op, XattrChange, XattrName, rows};
use crate::policy::{Requester, is_acl};

/// What a client that gave a buffer of `size` bytes is to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum XattrReply {
    /// It asked (with size 0) how many bytes there are.
    Length(u32),
    /// The bytes.
    Bytes(Vec<u8>),
}

/// File capabilities (capabilities(7)).
const CAPABILITY: &[u8] = b"security.capability";

impl Mediator {
    /// Sets an extended attribute.
    ///
    /// # Errors
    ///
    /// ERANGE for a name that cannot be one; ENOTSUP if a rule says so; EINVAL for what is no POSIX
    /// ACL and is called one, EPERM for one that names ids outside of `map`; or what the export
    /// answers.
    pub fn setxattr(
        &self,
        who: Requester,
        node: NodeId,
        name: &[u8],
        value: &[u8],
        flags: i32,
    ) -> Result<(), Errno> {
        self.run(Op::Setxattr, who, |trail| {
            let ask = XattrName::new(name).ok_or(Errno::RANGE)?;
            let pin = self.export.pin(node)?;
            let acl_mode = self.acl_mode(&pin, (name, Some(value)))?;
            let case = Case {
                xattr: Some((name, value.len())),
                acl_mode,
                ..Case::node(&pin)
            };
            let permit = self.decide::<rows::Setxattr>(trail, &case, ask)?;
            // Kept under another name it is the guest's own affair.
            if !is_acl(name) || permit.grant() != XattrChange::Act(ask) {
                return Ok(self.export.setxattr(permit, &pin, value, flags)?);
            }
            let stored = self.acl_to_store(trail, &case, (&pin, name, value))?;
            // Both are decided before either is done.
            let set_gid_goes = self.set_gid_goes(trail, &pin, (name, acl_mode))?;
            self.export.setxattr(permit, &pin, &stored, flags)?;
            if let Some(permit) = set_gid_goes {
                self.export.setattr(permit, &pin, None)?;
            }
            Ok(())
        })
    }

    /// Reads an extended attribute; with `size` 0, only its length.
    ///
    /// # Errors
    ///
    /// ERANGE if it does not fit; ENODATA; ENOTSUP if a rule says so; or what the export answers.
    pub fn getxattr(
        &self,
        who: Requester,
        node: NodeId,
        name: &[u8],
        size: u32,
    ) -> Result<XattrReply, Errno> {
        self.run(Op::Getxattr, who, |trail| {
            let ask = XattrName::new(name).ok_or(Errno::RANGE)?;
            let pin = self.export.pin(node)?;
            let case = Case {
                xattr: Some((name, 0)),
                ..Case::node(&pin)
            };
            self.acl_before_rules(trail, &case, (&pin, name))?;
            let decided = self.decide::<rows::Getxattr>(trail, &case, ask);
            let permit = decided.map_err(|stop| self.acl_refused(name, stop))?;
            let is_stored = is_acl(name) && permit.grant() == ask;
            let mut value = self.export.getxattr(permit, &pin)?;
            if is_stored {
                value = trail.policy.borrow().acl_shown(value);
            }
            Ok(fit(value, size)?)
        })
    }

    /// Lists the extended attributes that the policy shows, each name with its NUL.
    ///
    /// # Errors
    ///
    /// ERANGE if they do not fit; a refusal's errno, or what the export answers.
    pub fn listxattr(&self, who: Requester, node: NodeId, size: u32) -> Result<XattrReply, Errno> {
        self.run(Op::Listxattr, who, |trail| {
            let pin = self.export.pin(node)?;
            let permit = self.decide::<rows::Listxattr>(trail, &Case::node(&pin), ())?;
            let all = self.export.listxattr(permit, &pin)?;
            let mut listed = Vec::with_capacity(all.len());
            for stored in all.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
                if let Some(name) = trail.policy.borrow().xattr_shown(stored) {
                    listed.extend_from_slice(name);
                    listed.push(0);
                }
            }
            Ok(fit(listed, size)?)
        })
    }

    /// Removes an extended attribute.
    ///
    /// # Errors
    ///
    /// ENODATA; ENOTSUP if a rule says so; or what the export answers. File capabilities
    /// go with set-id bits, and are judged, as by a write.
    pub fn removexattr(&self, who: Requester, node: NodeId, name: &[u8]) -> Result<(), Errno> {
        self.run(Op::Removexattr, who, |trail| {
            let ask = XattrName::new(name).ok_or(Errno::RANGE)?;
            let pin = self.export.pin(node)?;
            if name == CAPABILITY {
                // The kernel's own before a write (file_remove_privs), which is not told from a
                // user's: judged by the attribute, writes to such a file would fail. The host's
                // kernel asks for more to remove it than a client of ours has.
                let permit = self.decide::<rows::Write>(trail, &Case::node(&pin), ())?;
                return Ok(self.export.drop_privileges(permit, &pin)?);
            }
            let case = Case {
                xattr: Some((name, 0)),
                acl_mode: self.acl_mode(&pin, (name, None))?,
                ..Case::node(&pin)
            };
            let permit = self.decide::<rows::Removexattr>(trail, &case, ask)?;
            if is_acl(name) && permit.grant() == XattrChange::Act(ask) {
                self.acl_may_go(trail, &case, (&pin, name))?;
            }
            Ok(self.export.removexattr(permit, &pin)?)
        })
    }
}

fn fit(bytes: Vec<u8>, size: u32) -> Result<XattrReply, Errno> {
    let len = u32::try_from(bytes.len()).map_err(|_too_long| Errno::TOOBIG)?;
    match size {
        0 => Ok(XattrReply::Length(len)),
        size if len > size => Err(Errno::RANGE),
        _ => Ok(XattrReply::Bytes(bytes)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn value_is_measured_with_size_zero_and_refused_if_too_long() {
        let value = b"four".to_vec();
        assert_eq!(fit(value.clone(), 0), Ok(XattrReply::Length(4)));
        assert_eq!(fit(value.clone(), 3), Err(Errno::RANGE));
        assert_eq!(fit(value.clone(), 4), Ok(XattrReply::Bytes(value)));
    }
}
