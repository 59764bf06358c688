//! The facts of a request: only those that its rules ask about, each costing a system call or a walk
//! over names; all of them if somebody watches.

use rustix::io::Errno;

use super::funnel::{Act, Case, Mediator, Subject, Trail};
use super::scratch::{Scratch, join};
use crate::export::Pin;
use crate::name::Name;
use crate::op::Op;
use crate::policy::Facts;

impl Mediator {
    /// Gathers the facts that rules for `op` ask about, and no others: each costs a system call
    /// or a walk over names.
    pub(super) fn with_facts<T>(
        &self,
        op: Op,
        trail: &Trail,
        case: &Case<'_>,
        scratch: &mut Scratch,
        body: impl FnOnce(&Facts<'_>) -> T,
    ) -> Act<T> {
        let needs = self.needs(trail, op);
        let mut facts = Facts::of(op, trail.who);
        facts.words = case.words.unwrap_or(op.words());
        facts.offset = case.span.map(|(offset, _)| offset);
        facts.length = case.span.map(|(_, length)| length);
        facts.adds = case.adds;
        facts.xattr = case.xattr;
        facts.acl_mode = case.acl_mode;
        facts.target = case.target;

        let subject = case.subject;
        facts.kind = case.kind;
        if let Subject::Node(pin) = subject {
            // An inode's type never changes.
            facts.kind = Some(pin.kind());
            facts.birth = self.export.is_birth(pin);
        }
        facts.submount = match subject {
            Subject::Node(pin) => self.export.is_submount(pin),
            // A mount's own name can be looked up, not changed: else it lies where its directory does.
            Subject::Name(parent, _) => case.submount || self.export.is_submount(parent),
            Subject::Handle(_) => false,
        };
        let attr = match (case.attr, subject) {
            (Some(attr), _) => Some(*attr),
            (None, Subject::Node(pin)) if needs.attr => Some(self.export.stat(pin)?),
            (None, _) => None,
        };
        if let Some(attr) = attr {
            facts.kind = Some(attr.kind);
            facts.mode = Some(attr.mode);
            facts.owner = Some(attr.owner);
            facts.size = Some(attr.size);
            facts.nlink = Some(attr.nlink);
        }
        if trail.policy.borrow().host_uids().is_some() {
            facts.outside = self.names_outsider(trail, op, subject, case.second)?;
        }
        if !needs.path {
            return Ok(body(&facts));
        }

        let Scratch { first, second } = scratch;
        if let Some((parent, name)) = case.second {
            self.write_name(parent, name, second);
            facts.second = Some(second);
        }
        let mut others = self.write_subject(subject, first);
        if let Some(attr) = attr.filter(|_| !trail.policy.borrow().followed().is_empty()) {
            self.add_followed(trail, (subject, case.inode), &attr, &mut others)?;
        }
        if others.is_empty() {
            let only: [&[u8]; 1] = [first];
            facts.names = &only;
            return Ok(body(&facts));
        }
        let mut names: Vec<&[u8]> = vec![first];
        names.extend(others.iter().map(Vec::as_slice));
        facts.names = &names;
        Ok(body(&facts))
    }

    /// Whether a directory in which something is named, or what a rename would replace, belongs to
    /// someone outside of the policy's `map`. The target itself is judged by its own facts.
    fn names_outsider(
        &self,
        trail: &Trail,
        op: Op,
        subject: Subject<'_>,
        second: Option<(&Pin, &Name)>,
    ) -> Act<bool> {
        let parent = match subject {
            Subject::Name(parent, _) => Some(parent),
            Subject::Node(_) | Subject::Handle(_) => None,
        };
        let parents = parent.into_iter().chain(second.map(|(parent, _)| parent));
        for parent in parents {
            if !trail
                .policy
                .borrow()
                .admits(self.export.stat(parent)?.owner)
            {
                return Ok(true);
            }
        }
        let Some((parent, name)) = second.filter(|_| op == Op::Rename) else {
            return Ok(false);
        };
        match self.export.child(parent, name) {
            Ok(there) => Ok(!trail.policy.borrow().admits(there.attr().owner)),
            Err(fault) if fault.errno == Errno::NOENT => Ok(false),
            Err(fault) => Err(fault.into()),
        }
    }

    pub(super) fn write_name(&self, parent: &Pin, name: &Name, out: &mut Vec<u8>) {
        self.export.write_path(parent, out);
        join(out, name.as_bytes());
    }

    /// Writes the subject's first name and returns the further ones.
    pub(super) fn write_subject(&self, subject: Subject<'_>, out: &mut Vec<u8>) -> Vec<Vec<u8>> {
        match subject {
            Subject::Name(parent, name) => {
                self.write_name(parent, name, out);
                Vec::new()
            }
            Subject::Node(pin) => {
                self.export.write_path(pin, out);
                self.export.other_names(pin)
            }
            Subject::Handle(_) => Vec::new(),
        }
    }
}
