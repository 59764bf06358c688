//! What is put on record of a decision, and refusals that come from elsewhere than the policy.

use rustix::io::Errno;

use super::audit::{Judged, Names, Record, RuleRef, escape};
use super::funnel::{Case, Mediator, Stop, Subject, Trail};
use crate::export::{Fault, Pin, SPELLING};
use crate::ids::FileKind;
use crate::name::Name;
use crate::op::Op;
use crate::policy::Refusal;

impl Mediator {
    /// A decision, for the record.
    pub(super) fn decided(
        &self,
        op: Op,
        trail: &Trail,
        case: &Case<'_>,
        rule: Option<u32>,
    ) -> Judged {
        let (names, kind) = self.describe(case);
        let policy = trail.policy.borrow();
        Judged {
            op,
            requester: trail.who,
            names,
            kind: kind.or_else(|| self.kind_of_name(op, case)),
            rule: rule.map(|index| RuleRef {
                name: policy.rule_name(index).map(str::to_owned),
                number: u64::from(index) + 1,
                line: policy
                    .rule_line(index)
                    .and_then(|line| line.try_into().ok()),
            }),
        }
    }

    /// The type of what a name stands for, or is to stand for, where nobody had to ask for it.
    #[allow(
        clippy::wildcard_enum_match_arm,
        reason = "of the others the type is known, or is none"
    )]
    fn kind_of_name(&self, op: Op, case: &Case<'_>) -> Option<FileKind> {
        match (op, case.subject) {
            (Op::Create, _) => Some(FileKind::Regular),
            (Op::Mkdir, _) => Some(FileKind::Directory),
            (Op::Symlink, _) => Some(FileKind::Symlink),
            (Op::Unlink | Op::Rmdir | Op::Rename, Subject::Name(parent, name)) => {
                let there = self.export.child(parent, name).ok()?;
                Some(there.attr().kind)
            }
            _ => None,
        }
    }

    /// Tells what a person allowed in the place of the rules.
    pub(super) fn tell_by_hand(&self, trail: &Trail, case: &Case<'_>) {
        let decided = self.decided(trail.op, trail, case, None);
        self.audit.put(Record::ByHand(decided));
    }

    /// Tells of a refusal and turns it into the client's answer.
    pub(super) fn refuse(&self, op: Op, trail: &Trail, case: &Case<'_>, refusal: Refusal) -> Stop {
        self.audit.put(Record::Refused {
            judged: self.decided(op, trail, case, refusal.rule),
            why: refusal.why,
            errno: refusal.errno,
        });
        Stop::Refused(refusal.errno)
    }

    /// Tells of a name that its directory spells otherwise; other faults are no refusals.
    pub(super) fn misspelt(
        &self,
        trail: &Trail,
        (parent, name): (&Pin, &Name),
        fault: Fault,
    ) -> Stop {
        if fault.call != SPELLING {
            return fault.into();
        }
        let refusal = Refusal {
            errno: fault.errno,
            rule: None,
            why: "rules go by name, and its directory spells this one otherwise",
        };
        self.refuse(trail.op, trail, &Case::name(parent, name), refusal)
    }

    /// Logs the refusal of what is not even a name.
    pub(super) fn refuse_bytes(
        &self,
        trail: &Trail,
        bytes: &[u8],
        errno: Errno,
        why: &'static str,
    ) -> Stop {
        let names = Names {
            first: escape(bytes),
            ..Names::default()
        };
        let judged = Judged {
            op: trail.op,
            requester: trail.who,
            names,
            kind: None,
            rule: None,
        };
        self.audit.put(Record::Refused { judged, why, errno });
        Stop::Refused(errno)
    }

    /// The names in a case, escaped, and the type if it is known.
    pub(super) fn describe(&self, case: &Case<'_>) -> (Names, Option<FileKind>) {
        let mut kind = case.attr.map(|attr| attr.kind).or(case.kind);
        let (mut first, mut others) = (Vec::new(), Vec::new());
        match case.subject {
            Subject::Handle(handle) => match self.export.pin_handle(handle) {
                Ok(pin) => {
                    self.export.write_path(&pin, &mut first);
                    kind = Some(pin.kind());
                }
                Err(_) => first.extend_from_slice(b"?"),
            },
            subject @ (Subject::Node(_) | Subject::Name(..)) => {
                others = self.write_subject(subject, &mut first);
                if let Subject::Node(pin) = subject {
                    kind = Some(pin.kind());
                }
            }
        }
        let second = case.second.map(|(parent, name)| {
            let mut second = Vec::new();
            self.write_name(parent, name, &mut second);
            escape(&second)
        });
        let names = Names {
            first: escape(&first),
            others: others.iter().map(|other| escape(other)).collect(),
            second,
        };
        (names, kind)
    }
}
