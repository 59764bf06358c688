//! Why a request is answered as it is: every rule, word by word and name by name.
//!
//! No second evaluator: the verdicts are [`Policy::decide_request`]'s and those of the engine's
//! own steps; what is told of a rule comes from the predicates that the engine asks.

use serde::Serialize;

use super::engine::{Case, Verdict, each_word, is_new_name, names};
use super::model::{Action, Condition, Number, Policy, Rule, Whose};
use super::permit::Refusal;
use super::request::{Granted, Request};
use super::symbol::errno_symbol;
use crate::ids::FileKind;
use crate::op::{AnyGrant, Op, RenameHow, SetTime, Word, Words};

/// Why a request is answered as it is. Names of files are escaped (`\n`, `\xff`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The operation's raw FUSE name.
    pub op: &'static str,
    /// What the policy answers.
    pub answer: Answer,
    /// What the rules say, in the engine's order; empty if it was refused before they were asked.
    pub steps: Vec<Step>,
}

/// What the policy answers to a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// Whether the export is asked at all.
    pub allowed: bool,
    /// What the client is told if not: `EACCES`.
    pub errno: Option<String>,
    /// Why, in words.
    pub why: &'static str,
    /// The rule that decided first; `null` for the default, the floor, `readonly`, `map`,
    /// `set_id`, an `[[xattr]]`.
    pub rule: Option<RuleRef>,
    /// What the export is asked, if it is.
    pub grant: Option<Effect>,
    /// The deciding rule says `log = "all"`.
    pub logs: bool,
    /// The words that are told as done and are not (`pretend`).
    pub pretended: Vec<&'static str>,
    /// What the client would be told if the policy did not only observe (`mode = "observe"`).
    pub would_be: Option<WouldBe>,
}

/// A refusal that is only told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WouldBe {
    /// What the client would be told: `EACCES`.
    pub errno: String,
    /// Why, in words.
    pub why: &'static str,
    /// The rule that would decide.
    pub rule: Option<RuleRef>,
}

/// Which rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RuleRef {
    /// Its place among the rules, from 1.
    pub number: u32,
    /// Its line in the file, from 1.
    pub line: Option<usize>,
    /// Its `name`, escaped.
    pub name: Option<String>,
}

/// One word at one name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// The name, escaped; `null` where the rules do not go by path and none is known.
    pub name: Option<String>,
    /// What the name is to the request.
    pub role: Role,
    /// The word; `null` for what needs none (fsync, flush).
    pub word: Option<&'static str>,
    /// What came out.
    pub outcome: Outcome,
    /// The rule that decided; `null` for the default.
    pub rule: Option<RuleRef>,
    /// Every rule of the policy, in order.
    pub rules: Vec<Tried>,
}

/// What a name is to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// A name of what the request is about.
    Target,
    /// The name that it makes or gives.
    NewName,
    /// A file that may be there already, which CREATE would open: where that is denied, the file
    /// must be new (EEXIST).
    OpensExisting,
    /// A file that may be there already, which RENAME would replace: where that is denied, nothing
    /// is replaced (EEXIST).
    Replaces,
}

/// What came out for one word at one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// A rule allows it.
    Allow,
    /// No rule holds, and the default allows it; or no word is needed.
    AllowByDefault,
    /// No rule holds, but it is the way to something allowed, and is only looked at.
    AllowAsWay,
    /// A rule denies it.
    Deny,
    /// No rule holds, and the default denies it.
    DenyByDefault,
    /// A rule hides it.
    Hide,
    /// A rule tells it as done without doing it.
    Pretend,
}

impl Outcome {
    /// Whether it is allowed, by whatever.
    #[must_use]
    pub fn is_allowed(self) -> bool {
        match self {
            Self::Allow | Self::AllowByDefault | Self::AllowAsWay | Self::Pretend => true,
            Self::Deny | Self::DenyByDefault | Self::Hide => false,
        }
    }
}

/// One rule at one step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Tried {
    /// Which.
    pub rule: RuleRef,
    /// `allow`, `deny`, `hide`, `pretend`.
    pub action: &'static str,
    /// What became of it.
    pub fit: Fit,
}

/// Whether a rule holds, or its first predicate that does not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "is")]
pub enum Fit {
    /// It holds, and is the first.
    Decides,
    /// It would hold, but an earlier one decided.
    TooLate,
    /// Its `do` does not speak of the word.
    OtherWords,
    /// No glob of its `path` matches the name.
    OtherPath,
    /// A condition of its `when` does not hold.
    Unmet {
        /// The condition's key.
        key: &'static str,
        /// The fact that it asks about, escaped.
        fact: String,
    },
}

/// What the export is asked, in host ids.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Effect {
    /// The owner that is given, host id.
    pub uid: Option<u32>,
    /// The group that is given, host id.
    pub gid: Option<u32>,
    /// The mode that is given, in octal.
    pub mode: Option<String>,
    /// The size that is given, in bytes.
    pub size: Option<u64>,
    /// Time stamps that are set: `atime`, `mtime`.
    pub times: Vec<&'static str>,
    /// What an open handle can do, and how: `read`, `write`, `append`, `truncate`, `exclusive`,
    /// `sync`, `direct`.
    pub open: Vec<&'static str>,
    /// How a name is changed: `replace`, `noreplace`, `exchange`.
    pub rename: Option<&'static str>,
}

impl Request {
    /// Every word that must be allowed at each of its names: those that the facts name and those
    /// that follow from the arguments.
    #[must_use]
    pub fn needed_words(&self) -> Words {
        self.words.with(self.asked().words)
    }
}

impl Policy {
    /// Tells how a request is judged, rule by rule.
    #[must_use]
    pub fn explain(&self, request: &Request) -> Explanation {
        let asked = request.asked();
        let steps = request.with_facts(|facts| match self.judge_before_rules(facts, &asked) {
            Ok(words) => self.steps(&Case::new(facts, &asked), words),
            Err(_told_by_the_answer) => Vec::new(),
        });
        Explanation {
            op: request.op.raw_name(),
            answer: self.answer(request),
            steps,
        }
    }

    /// What a request is answered, with the deciding rule; [`Policy::decide_request`] in words.
    #[must_use]
    pub fn answer(&self, request: &Request) -> Answer {
        match self.decide_request(request) {
            Ok(Granted {
                grant,
                rule,
                logs,
                pretended,
                observed,
            }) => Answer {
                allowed: true,
                errno: None,
                why: if rule.is_some() {
                    "allowed by a rule"
                } else if self.default_allow {
                    "allowed by default"
                } else if request.needed_words().is_empty() {
                    "it needs no word"
                } else {
                    "the way to something allowed"
                },
                rule: rule.map(|rule| self.rule_ref(rule)),
                grant: Some(effect(grant)),
                logs,
                pretended: each_word(pretended).filter_map(word_name).collect(),
                would_be: observed.map(|refusal| WouldBe {
                    errno: errno_symbol(refusal.errno),
                    why: refusal.why,
                    rule: refusal.rule.map(|rule| self.rule_ref(rule)),
                }),
            },
            Err(Refusal { errno, rule, why }) => Answer {
                allowed: false,
                errno: Some(errno_symbol(errno)),
                why,
                rule: rule.map(|rule| self.rule_ref(rule)),
                grant: None,
                logs: false,
                pretended: Vec::new(),
                would_be: None,
            },
        }
    }

    /// How a rule is called, by its index in the file.
    #[must_use]
    pub fn rule_ref(&self, index: u32) -> RuleRef {
        RuleRef {
            number: index.saturating_add(1),
            line: self.rule_line(index),
            name: self
                .rule_name(index)
                .map(|name| name.escape_debug().to_string()),
        }
    }

    /// The rules that decide one of a request's words at one of its names, by their index in the
    /// file, each once.
    #[must_use]
    pub fn deciding_rules(&self, request: &Request) -> Vec<u32> {
        let asked = request.asked();
        let mut rules = request.with_facts(|facts| {
            let Ok(words) = self.judge_before_rules(facts, &asked) else {
                return Vec::new();
            };
            let case = Case::new(facts, &asked);
            let verdicts = what_is_judged(&case, words)
                .into_iter()
                .map(|(name, word, _)| self.verdict(&case, name, word));
            let rules = verdicts.filter_map(|verdict| match verdict {
                Verdict::Allow(rule, _) | Verdict::Deny(rule, _) => rule,
                Verdict::Hide(rule) | Verdict::Pretend(rule) => Some(rule),
            });
            rules.collect()
        });
        rules.sort_unstable();
        rules.dedup();
        rules
    }

    fn steps(&self, case: &Case<'_, '_>, words: Words) -> Vec<Step> {
        let judged = what_is_judged(case, words).into_iter();
        judged
            .map(|(name, word, role)| self.step(case, name, word, role))
            .collect()
    }

    fn step(&self, case: &Case<'_, '_>, name: Option<&[u8]>, word: Words, role: Role) -> Step {
        let (outcome, decisive) = match self.verdict(case, name, word) {
            Verdict::Allow(Some(rule), _) => (Outcome::Allow, Some(rule)),
            Verdict::Allow(None, _) if self.default_allow || word.is_empty() => {
                (Outcome::AllowByDefault, None)
            }
            Verdict::Allow(None, _) => (Outcome::AllowAsWay, None),
            Verdict::Deny(Some(rule), _) => (Outcome::Deny, Some(rule)),
            Verdict::Deny(None, _) => (Outcome::DenyByDefault, None),
            Verdict::Hide(rule) => (Outcome::Hide, Some(rule)),
            Verdict::Pretend(rule) => (Outcome::Pretend, Some(rule)),
        };
        let tried = (0..).zip(&self.rules).map(|(index, rule)| Tried {
            rule: self.rule_ref(index),
            action: match rule.action {
                Action::Allow(_) => "allow",
                Action::Deny(_) => "deny",
                Action::Hide => "hide",
                Action::Pretend => "pretend",
            },
            fit: if decisive == Some(index) {
                Fit::Decides
            } else {
                miss(case, rule, name, word).unwrap_or(Fit::TooLate)
            },
        });
        Step {
            name: name.map(|name| name.escape_ascii().to_string()),
            role,
            word: word_name(word),
            outcome,
            rule: decisive.map(|rule| self.rule_ref(rule)),
            rules: tried.collect(),
        }
    }
}

/// Every word at every name, in the engine's order.
fn what_is_judged<'f>(case: &Case<'_, 'f>, words: Words) -> Vec<(Option<&'f [u8]>, Words, Role)> {
    let op = case.facts.op;
    let mut judged = Vec::new();
    let mut add = |name, words, role| {
        judged.extend(each_word(words).map(|word| (name, word, role)));
    };
    for (at, name) in names(case.facts).enumerate() {
        let role = if is_new_name(op, false) {
            Role::NewName
        } else {
            Role::Target
        };
        add(name, words, role);
        if at == 0 && op == Op::Create && !case.asked.open_words.is_empty() {
            add(name, case.asked.open_words, Role::OpensExisting);
        }
    }
    if let Some(second) = case.facts.second {
        add(Some(second), words, Role::NewName);
        if op == Op::Rename {
            add(Some(second), Words::of(Word::Remove), Role::Replaces);
        }
    }
    judged
}

/// The first predicate of a rule that does not hold.
fn miss(case: &Case<'_, '_>, rule: &Rule, name: Option<&[u8]>, word: Words) -> Option<Fit> {
    if !rule.speaks_of(case.facts.op, word) {
        return Some(Fit::OtherWords);
    }
    if !rule.holds_at(name) {
        return Some(Fit::OtherPath);
    }
    let unmet = rule
        .when
        .iter()
        .find(|condition| !case.condition_holds(rule, condition, name))?;
    let (key, fact) = fact(unmet, case, name);
    Some(Fit::Unmet { key, fact })
}

/// A condition's key and the fact that it asks about.
fn fact(condition: &Condition, case: &Case<'_, '_>, name: Option<&[u8]>) -> (&'static str, String) {
    let (facts, asked) = (case.facts, case.asked);
    match condition {
        Condition::Kind(_) => (
            "type",
            known(facts.kind.or(asked.kind).map(|kind| kind_name(kind))),
        ),
        Condition::Mode { asked: true, .. } => ("new_mode", known(asked.mode.or(facts.acl_mode))),
        Condition::Mode { asked: false, .. } => ("mode", known(facts.mode)),
        Condition::Owner { whose, .. } => match whose {
            Whose::Now => (
                "owner",
                known(facts.owner.map(|of| format!("{}:{}", of.uid, of.gid))),
            ),
            Whose::Asked => (
                "new_owner",
                format!("{}:{}", known(asked.uid), known(asked.gid)),
            ),
            Whose::Requester => (
                "requester",
                format!("{}:{}", facts.requester.uid, facts.requester.gid),
            ),
        },
        Condition::Within { what, .. } => match what {
            Number::Size => ("size", known(facts.size)),
            Number::NewSize => ("new_size", known(asked.size)),
            Number::Nlink => ("nlink", known(facts.nlink)),
            Number::Offset => ("offset", known(facts.offset)),
            Number::Length => ("length", known(facts.length)),
            Number::XattrSize => ("xattr_size", known(facts.xattr.map(|(_, size)| size))),
        },
        Condition::Xattr(_) => (
            "xattr",
            known(facts.xattr.map(|(name, _)| name.escape_ascii())),
        ),
        Condition::Target(_) => ("target", known(facts.target.map(<[u8]>::escape_ascii))),
        Condition::Birth(_) => ("birth", facts.birth.to_string()),
        Condition::Submount(_) => ("submount", facts.submount.to_string()),
        Condition::Flags { .. } => (
            "flags",
            known(asked.open.map(|open| open_words(open).join(" "))),
        ),
        Condition::Rename(_) => ("rename", known(asked.rename.map(how_name))),
        Condition::Name(_) => {
            let last = name.and_then(|name| name.rsplit(|byte| *byte == b'/').next());
            ("name", known(last.map(<[u8]>::escape_ascii)))
        }
        Condition::Second(_) => ("second", known(facts.second.map(<[u8]>::escape_ascii))),
    }
}

fn known(fact: Option<impl std::fmt::Display>) -> String {
    fact.map_or_else(|| "not known".to_owned(), |fact| fact.to_string())
}

/// A type, as `when.type` calls it; devices have no word there.
pub(super) fn kind_name(kind: FileKind) -> &'static str {
    match kind {
        FileKind::Regular => "file",
        FileKind::Directory => "directory",
        FileKind::Symlink => "symlink",
        FileKind::Fifo => "fifo",
        FileKind::Socket => "socket",
        FileKind::CharDevice => "char-device",
        FileKind::BlockDevice => "block-device",
    }
}

/// A word, as `do` calls it; `None` for none.
pub(super) fn word_name(word: Words) -> Option<&'static str> {
    let (_, name) = WORD_NAMES
        .iter()
        .find(|(known, _)| word == Words::of(*known))?;
    Some(name)
}

/// Words, as `do` calls them, in the order of [`Word`].
#[must_use]
pub fn word_names(words: Words) -> Vec<&'static str> {
    let said = WORD_NAMES.iter();
    said.filter(|(word, _)| words.meets(Words::of(*word)))
        .map(|(_, name)| *name)
        .collect()
}

/// The words that stand for themselves, as `do` calls them.
pub(super) const WORD_NAMES: &[(Word, &str)] = &[
    (Word::Look, "look"),
    (Word::List, "list"),
    (Word::Read, "read"),
    (Word::Write, "write"),
    (Word::Make, "make"),
    (Word::Link, "link"),
    (Word::Remove, "remove"),
    (Word::Rename, "rename"),
    (Word::Owner, "owner"),
    (Word::Mode, "mode"),
    (Word::Time, "time"),
    (Word::Xattr, "xattr"),
    (Word::Lock, "lock"),
];

fn effect(grant: AnyGrant) -> Effect {
    let none = Effect::default();
    match grant {
        AnyGrant::Nothing | AnyGrant::Xattr(_) | AnyGrant::XattrChange(_) => none,
        AnyGrant::Open(open) => Effect {
            open: open_words(open),
            ..none
        },
        AnyGrant::Birth(birth) => Effect {
            uid: Some(birth.owner.uid.0),
            gid: Some(birth.owner.gid.0),
            mode: Some(birth.mode.to_string()),
            open: open_words(birth.open),
            ..none
        },
        AnyGrant::Changes(changes) => {
            let set = [(changes.atime, "atime"), (changes.mtime, "mtime")];
            let set = set.into_iter().filter(|(time, _)| *time != SetTime::Omit);
            Effect {
                uid: changes.uid.map(|id| id.0),
                gid: changes.gid.map(|id| id.0),
                mode: changes.mode.map(|mode| mode.to_string()),
                size: changes.size,
                times: set.map(|(_, name)| name).collect(),
                ..none
            }
        }
        AnyGrant::Rename(how) => Effect {
            rename: Some(how_name(how)),
            ..none
        },
    }
}

fn how_name(how: RenameHow) -> &'static str {
    match how {
        RenameHow::Replace => "replace",
        RenameHow::NoReplace => "noreplace",
        RenameHow::Exchange => "exchange",
    }
}

fn open_words(open: crate::op::OpenAs) -> Vec<&'static str> {
    let words = [
        (open.read, "read"),
        (open.write, "write"),
        (open.append, "append"),
        (open.truncate, "truncate"),
        (open.exclusive, "exclusive"),
        (open.sync, "sync"),
        (open.direct, "direct"),
    ];
    let said = words.into_iter().filter(|(is, _)| *is);
    said.map(|(_, word)| word).collect()
}

impl Explanation {
    /// The steps that must all be allowed; the others only narrow what is done.
    pub fn decisive_steps(&self) -> impl Iterator<Item = &Step> {
        self.steps
            .iter()
            .filter(|step| matches!(step.role, Role::Target | Role::NewName))
    }
}
