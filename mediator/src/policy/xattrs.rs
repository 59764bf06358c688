//! Names of extended attributes: which a guest may use, and under which name the export keeps them.
//!
//! `[[xattr]]` rules go by the guest's name, the first that matches decides. A rule that renames
//! keeps the guest's NAME as TO+NAME. So that no two names of the guest meet on the export, names
//! that begin with a TO are nobody's but through such a rule, and no TO begins with another (the
//! parser sees to that).

use rustix::io::Errno;

use super::engine::refuse;
use super::facts::Facts;
use super::model::{Policy, XattrAction, XattrRule};
use super::permit::Refusal;
use crate::op::XattrName;

impl Policy {
    pub(super) fn judge_xattr(&self, facts: &Facts<'_>) -> Result<(), Refusal> {
        let Some((name, _size)) = facts.xattr else {
            return Ok(());
        };
        match self.xattr_action(name) {
            XattrAction::Allow | XattrAction::Rename => Ok(()),
            XattrAction::Deny => Err(refuse(
                Errno::ACCESS,
                "the attribute's name is denied by an `[[xattr]]`",
            )),
            XattrAction::Unsupported => Err(refuse(
                Errno::NOTSUP,
                "the attribute's name is cut off by an `[[xattr]]`",
            )),
        }
    }

    fn xattr_rule(&self, name: &[u8]) -> Option<&XattrRule> {
        self.xattrs.iter().find(|rule| rule.glob.matches(name))
    }

    fn xattr_action(&self, name: &[u8]) -> XattrAction {
        self.xattr_rule(name)
            .map_or(XattrAction::Allow, |rule| rule.action)
    }

    /// Whether the guest's attribute of that name is kept under another.
    #[must_use]
    pub fn renames_xattr(&self, name: &[u8]) -> bool {
        self.xattr_action(name) == XattrAction::Rename
    }

    /// Whether a name on the export is kept for renamed ones.
    fn is_kept_for_renamed(&self, stored: &[u8]) -> bool {
        self.renaming().any(|rule| stored.starts_with(&rule.to))
    }

    fn renaming(&self) -> impl Iterator<Item = &XattrRule> {
        let renames = |rule: &&XattrRule| rule.action == XattrAction::Rename;
        self.xattrs.iter().filter(renames)
    }

    /// The name under which the export keeps what the guest calls `name`.
    ///
    /// # Errors
    ///
    /// `too_long` beyond 255 bytes (xattr(7)); ENOTSUP for a name that others are renamed to, also
    /// where rules are only observed: two names would be one.
    pub(super) fn stored_xattr(
        &self,
        name: XattrName,
        too_long: Errno,
    ) -> Result<XattrName, Refusal> {
        let rule = self.xattr_rule(name.as_bytes());
        if let Some(rule) = rule.filter(|rule| rule.action == XattrAction::Rename) {
            return name.after(&rule.to).ok_or(refuse(
                too_long,
                "the name that the attribute is kept under would be longer than 255 bytes",
            ));
        }
        if self.is_kept_for_renamed(name.as_bytes()) {
            return Err(refuse(
                Errno::NOTSUP,
                "the attribute's name is one that an `[[xattr]]` renames others to",
            ));
        }
        Ok(name)
    }

    /// The guest's name of an attribute of the export, if a listing shows it.
    #[must_use]
    pub fn xattr_shown<'n>(&self, stored: &'n [u8]) -> Option<&'n [u8]> {
        let renamed = self.renaming().find_map(|rule| {
            let name = stored.strip_prefix(&*rule.to)?;
            let by = self.xattr_rule(name).filter(|_| !name.is_empty())?;
            (by.action == XattrAction::Rename && by.to == rule.to).then_some(name)
        });
        if renamed.is_some() || self.is_kept_for_renamed(stored) {
            return renamed;
        }
        match self.xattr_action(stored) {
            XattrAction::Allow => Some(stored),
            // What the guest calls so is kept elsewhere.
            XattrAction::Rename => None,
            XattrAction::Deny | XattrAction::Unsupported => self.observe.then_some(stored),
        }
    }
}
