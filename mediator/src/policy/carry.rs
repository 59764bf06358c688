//! Renames and links may not carry a file, or a tree, out of the rules that hold for it.
//!
//! Every rule with a path, or a condition on the name, is compared at the old and at the new name: what it can still match at
//! or below each (a glob's residual states). A restricting rule must hold at the new name wherever
//! it held at the old one; a rule that plainly allows may not begin to hold; a rule that changes
//! what it allows, or logs, must hold the same. Then, whichever rule decides below the old name,
//! none that is looser can decide below the new one, since the order of the rules is the same.

use rustix::io::Errno;

use super::facts::Facts;
use super::grant::Asked;
use super::index::{Reach, earliest};
use super::model::{Policy, Rule};
use super::permit::Refusal;
use crate::ids::FileKind;
use crate::op::{Op, RenameHow};
use crate::weak;

impl Policy {
    /// Whether what is at `old` may also, or instead, be at `new`.
    ///
    /// # Errors
    ///
    /// EACCES, with the first rule that would be escaped.
    pub fn carries(&self, old: &[u8], new: &[u8], is_directory: bool) -> Result<(), Refusal> {
        // A rule about neither place holds at neither, and at nothing below.
        let reach = if is_directory {
            Reach::Tree
        } else {
            Reach::Name
        };
        let escaped = |rule: &Rule| match reach {
            Reach::Tree => !tree_stays(rule, old, new),
            Reach::Name => !file_stays(rule, old, new),
        };
        let first = earliest(self.index.at_both(old, new, reach), |index| {
            self.rule(index).is_some_and(escaped)
        });
        match first {
            None => Ok(()),
            rule @ Some(_) => Err(Refusal {
                errno: Errno::ACCESS,
                rule,
                why: "it would leave, by its new name, the rules that hold for it",
            }),
        }
    }

    pub(super) fn judge_carrying(&self, facts: &Facts<'_>, asked: &Asked) -> Result<(), Refusal> {
        let Some(new) = facts
            .second
            .filter(|_| matches!(facts.op, Op::Rename | Op::Link))
            .filter(|_| weak::stands(weak::Wall::Carry))
        else {
            return Ok(());
        };
        // Unknown counts as a directory: the stricter question. A link is never to one.
        let is_directory =
            facts.op == Op::Rename && facts.kind.is_none_or(|kind| kind == FileKind::Directory);
        for old in facts.names {
            self.carries(old, new, is_directory)?;
            if asked.rename == Some(RenameHow::Exchange) {
                // Of what comes the other way nothing is known but its name.
                self.carries(new, old, true)?;
                self.carries(new, old, false)?;
            }
        }
        Ok(())
    }
}

fn file_stays(rule: &Rule, old: &[u8], new: &[u8]) -> bool {
    let (here, there) = (rule.holds_by_name(old), rule.holds_by_name(new));
    if rule.restricts() {
        !here || there
    } else if rule.plainly_allows() {
        here || !there
    } else {
        here == there
    }
}

/// The top may change its last component, by which a condition may go; what is below keeps its own,
/// so that only the paths matter there.
fn tree_stays(rule: &Rule, old: &[u8], new: &[u8]) -> bool {
    if !file_stays(rule, old, new) {
        false
    } else if rule.restricts() {
        within(rule, old, new)
    } else if rule.plainly_allows() {
        within(rule, new, old)
    } else {
        within(rule, old, new) && within(rule, new, old)
    }
}

/// Whether all that the rule can match at or below `inner` it also matches at or below `outer`.
fn within(rule: &Rule, inner: &[u8], outer: &[u8]) -> bool {
    let others = rule.paths.iter().map(|glob| (glob, glob.after(outer)));
    rule.paths
        .iter()
        .all(|glob| glob.rests_within(glob.after(inner), others.clone()))
}
