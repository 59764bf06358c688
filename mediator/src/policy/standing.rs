//! Verdicts that hold beyond the request that they were given on.
//!
//! Most verdicts follow from the names of a file and the rules alone. Such a one is remembered with
//! the file, so that neither its path is built nor a rule looked at again. Only allowing and nothing
//! else is remembered: whatever is told, counted, changed or refused is judged each time.

use super::engine::{Allowed, Case};
use super::facts::Facts;
use super::grant::Judged;
use super::model::Policy;
use super::permit::{Permit, Refusal, Trace};
use crate::op::{Op, Word, Words};

/// What a policy plainly allows on one file, whoever asks and whatever else a request says. It holds
/// while the file's names are those that were judged; only the policy that gave it goes by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    policy: u32,
    /// One bit a question; see [`question`].
    allowed: u32,
}

impl Standing {
    /// Nothing.
    pub const NONE: Self = Self {
        policy: 0,
        allowed: 0,
    };

    /// Whether there is nothing to remember.
    #[must_use]
    pub fn is_none(self) -> bool {
        self.allowed == 0
    }

    /// Both, if one policy gave them; else the later.
    #[must_use]
    pub fn and(self, later: Self) -> Self {
        let allowed = if self.policy == later.policy {
            self.allowed | later.allowed
        } else {
            later.allowed
        };
        Self { allowed, ..later }
    }
}

impl Policy {
    /// Decides by what was decided before; `None` if this must be judged. `words` are the request's,
    /// as [`Facts::words`].
    ///
    /// # Errors
    ///
    /// As [`Policy::decide`], for what does not follow from the rules: ids and modes.
    pub fn decide_again<O: Judged>(
        &self,
        standing: Standing,
        words: Words,
        kind: Option<crate::ids::FileKind>,
        ask: O::Ask,
    ) -> Option<Result<Permit<O>, Refusal>> {
        if standing.is_none() || standing.policy != self.number {
            return None;
        }
        let asked = O::asked(&ask);
        let questions = questions(O::OP, words.with(asked.words))?;
        if standing.allowed & questions != questions {
            return None;
        }
        let allowed = Allowed::default();
        let grant = O::grant(self, &allowed, kind, ask);
        Some(grant.map(|grant| Permit::new(grant, Trace::of(&allowed, false))))
    }

    /// What of a verdict that allows holds for other requests too.
    pub(super) fn standing(
        &self,
        case: &Case<'_, '_>,
        words: Words,
        allowed: &Allowed,
    ) -> Standing {
        let Facts { op, .. } = *case.facts;
        let by_names_alone = !case.varies.get()
            && !self.observe
            && self.bounds.is_none()
            && self.followed.is_empty()
            && allowed.limit.is_none()
            && allowed.areas.is_empty();
        match questions(op, words).filter(|_| by_names_alone) {
            Some(allowed) => Standing {
                policy: self.number,
                allowed,
            },
            None => Standing::NONE,
        }
    }
}

/// The bits of a request's questions; `None` if one of them is not remembered.
fn questions(op: Op, words: Words) -> Option<u32> {
    let mut rest = words;
    let mut bits = 0;
    for (place, (its, word)) in (0_u32..).zip(QUESTIONS) {
        let word = Words::of(word);
        if its == op && rest.meets(word) {
            bits |= 1 << place;
            rest = rest.without(word);
        }
    }
    (bits != 0 && rest.is_empty()).then_some(bits)
}

/// What is asked about a file that is known, and follows from its names. What makes, moves or removes
/// a name, and extended attributes, are judged each time.
const QUESTIONS: [(Op, Word); 20] = [
    (Op::Lookup, Word::Look),
    (Op::Getattr, Word::Look),
    (Op::Access, Word::Look),
    (Op::Read, Word::Read),
    (Op::Write, Word::Write),
    (Op::Open, Word::Read),
    (Op::Open, Word::Write),
    (Op::Statfs, Word::Look),
    (Op::Opendir, Word::Look),
    (Op::Readdir, Word::List),
    (Op::Readlink, Word::Look),
    (Op::Setattr, Word::Owner),
    (Op::Setattr, Word::Mode),
    (Op::Setattr, Word::Time),
    (Op::Setattr, Word::Write),
    (Op::Fallocate, Word::Write),
    (Op::Lseek, Word::Read),
    (Op::CopyFileRange, Word::Read),
    (Op::CopyFileRange, Word::Write),
    (Op::Listxattr, Word::Xattr),
];
