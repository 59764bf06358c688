//! Whether an open file's data may go past this process: it may where no READ and no WRITE of that
//! file could be answered otherwise than the OPEN before it says, be counted, or be told.
//!
//! Asked for a file, not for one open of it: the kernel has all opens of a file take the same way.

use super::condition::{Condition, Number, Whose};
use super::engine::{Case, Verdict, names};
use super::facts::{Facts, Requester};
use super::grant::Asked;
use super::index::earliest;
use super::model::{Policy, Rule};
use crate::ids::FileKind;
use crate::op::{Op, Word, Words};

/// What has to be known of a file to tell whether its reads and writes are judged one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum DataJudgement {
    /// Those of no file are.
    Never,
    /// Its names decide: [`Policy::judges_data_of`].
    ByName,
    /// Those of every file are.
    #[default]
    Always,
}

/// The operations that passthrough takes away from the policy. All others (truncation, allocation,
/// copying, syncing) are requests of their own on every file.
const DATA: [(Op, Word); 2] = [(Op::Read, Word::Read), (Op::Write, Word::Write)];

impl Policy {
    /// What has to be known of a file to tell whether its reads and writes are judged one by one.
    #[must_use]
    pub fn judges_data(&self) -> DataJudgement {
        self.data
    }

    /// Whether the reads and writes of a regular file known by these names are judged one by one.
    /// `false` promises that each would be answered as the file's open was, whatever its offset,
    /// its length, and the file's size; that none is told, and none counted.
    ///
    /// What happens to the file on the host after its open (another owner, outside of `map`) is not
    /// looked at again until the next open.
    #[must_use]
    pub fn judges_data_of(&self, names: &[&[u8]]) -> bool {
        match self.data {
            DataJudgement::Never => false,
            DataJudgement::Always => true,
            DataJudgement::ByName => {
                self.may_hold_to_append(names)
                    || DATA
                        .iter()
                        .any(|(op, word)| self.judges_each(*op, *word, names))
            }
        }
    }

    pub(super) fn work_out_data(&self) -> DataJudgement {
        if self.strict {
            return DataJudgement::Always;
        }
        let limited = self.file_size.is_some() || !self.areas().is_empty();
        let speaks = |rule: &&Rule| {
            DATA.iter()
                .any(|(op, word)| rule.speaks_of(*op, Words::of(*word)))
        };
        let looks = |rule: &Rule| rule.log || !rule.when.is_empty() || !rule.plain_about_data();
        // What rules refuse is told each time where they are only observed.
        let told = self.observe && (!self.rules.is_empty() || !self.default_allow);
        let appends = self.favours_append();
        if limited || told || appends || self.rules.iter().filter(speaks).any(looks) {
            DataJudgement::ByName
        } else {
            DataJudgement::Never
        }
    }

    /// Whether an open of the file may have to append whatever the client does with its flags. By
    /// what goes past, a mapping for one, it need not.
    fn may_hold_to_append(&self, names: &[&[u8]]) -> bool {
        let holds = |rule: &&Rule| names.iter().any(|name| rule.holds_by_name(name));
        self.favours_append() && self.rules.iter().filter(holds).any(Rule::favours_append)
    }

    fn judges_each(&self, op: Op, word: Word, files: &[&[u8]]) -> bool {
        let facts = Facts {
            words: Words::of(word),
            names: files,
            kind: Some(FileKind::Regular),
            ..Facts::of(
                op,
                Requester {
                    uid: 0,
                    gid: 0,
                    pid: 0,
                },
            )
        };
        let asked = Asked::default();
        let case = Case::new(&facts, &asked);
        let mut refused = word == Word::Write && self.readonly;
        let mut limited = word == Word::Write && self.file_size.is_some();
        for name in names(&facts) {
            match self.settled(&case, name, word) {
                None => return true,
                Some(Verdict::Allow(rule, modify)) => {
                    if rule.is_some_and(|rule| self.rule_logs(rule)) {
                        return true;
                    }
                    limited |= modify.file_size.is_some();
                }
                Some(Verdict::Deny(..) | Verdict::Hide(_)) if !self.observe => refused = true,
                Some(Verdict::Deny(..) | Verdict::Hide(_) | Verdict::Pretend(_)) => return true,
            }
            limited |= word == Word::Write && !self.areas_at(name).is_empty();
        }
        // What no open gets needs no bounds.
        limited && !refused
    }

    /// The verdict on one word at one name, if it is the same for every request.
    fn settled(&self, case: &Case<'_, '_>, path: Option<&[u8]>, word: Word) -> Option<Verdict> {
        let op = case.facts.op;
        let may_hold = |rule: &Rule| {
            let mut when = rule.when.iter();
            rule.speaks_of(op, Words::of(word))
                && rule.holds_at(path)
                && when.all(|one| one.varies() || case.condition_holds(rule, one, path))
        };
        let lists: Vec<&[u32]> = match path {
            Some(path) => self.index.at(path).collect(),
            // Any place.
            None => {
                return self
                    .rules
                    .is_empty()
                    .then(|| self.verdict(case, path, Words::of(word)));
            }
        };
        let first = earliest(lists.into_iter(), |at| self.rule(at).is_some_and(may_hold));
        let varies = |at: u32| {
            self.rule(at)
                .is_none_or(|rule| rule.when.iter().any(Condition::varies))
        };
        match first {
            Some(at) if varies(at) => None,
            // No rule before it holds, whatever is asked: this is what the evaluator says, too.
            Some(_) | None => Some(self.verdict(case, path, Words::of(word))),
        }
    }
}

impl Rule {
    /// Whether all that the rule does to a read or a write is to allow or to refuse it.
    fn plain_about_data(&self) -> bool {
        use super::model::Action;
        match self.action {
            Action::Allow(modify) => modify.file_size.is_none(),
            Action::Deny(_) | Action::Hide => true,
            Action::Pretend => false,
        }
    }
}

impl Condition {
    /// Whether the condition looks at what may differ between two reads or writes of one file.
    fn varies(&self) -> bool {
        match self {
            Self::Mode { asked, .. } => !asked,
            Self::Owner { whose, .. } => *whose != Whose::Asked,
            Self::Within { what, .. } => match what {
                Number::Size | Number::Nlink | Number::Offset | Number::Length => true,
                Number::NewSize | Number::XattrSize => false,
            },
            Self::Birth(_) | Self::Submount(_) => true,
            // A regular file is what it is, and a name is looked at as it is now.
            Self::Kind(_) | Self::Name(_) => false,
            // Facts that no read or write has.
            Self::Xattr(_)
            | Self::Target(_)
            | Self::Flags { .. }
            | Self::Rename(_)
            | Self::Second(_) => false,
        }
    }
}
