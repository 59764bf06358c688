//! A request in words, for the log and for audit records: its names, its type, the rule that decided.

use super::audit::{Judged as Decided, Names, RuleRef, escape};
use super::funnel::{Case, Mediator, Subject, Trail};
use crate::ids::FileKind;
use crate::op::Op;

impl Mediator {
    /// A decision, for the record.
    pub(super) fn decided(
        &self,
        op: Op,
        trail: &Trail,
        case: &Case<'_>,
        rule: Option<u32>,
    ) -> Decided {
        let (names, kind) = self.describe(case);
        Decided {
            op,
            requester: trail.who,
            names,
            kind: kind.or_else(|| self.kind_of_name(op, case)),
            rule: rule.map(|index| RuleRef {
                name: self.policy.rule_name(index).map(str::to_owned),
                number: u64::from(index) + 1,
                line: self
                    .policy
                    .rule_line(index)
                    .and_then(|line| line.try_into().ok()),
            }),
        }
    }

    /// The type of what a name stands for, or is to stand for, where nobody had to ask for it.
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

    /// The names in a case, escaped, and the type if it is known, for the log.
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
