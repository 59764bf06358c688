//! One `[[rule]]`.

use rustix::io::Errno;
use toml::de::DeTable;

use super::super::areas::Totals;
use super::super::model::{Action, Modify, Ops, Rule};
use super::super::paths::Glob;
use super::Reader;
use super::limit::Limits;
use super::read::{self, Span, Value};
use crate::ids::{HostGid, HostUid};
use crate::op::{Op, Word, Words};

pub(super) const KEYS: &[&str] = &[
    "name", "path", "do", "when", "action", "errno", "owner", "mode", "log", "limit", "inode",
    "strict",
];

/// How many paths may be sought by at each request for a file with several links.
pub(super) const FOLLOWED_MAX: usize = 32;

const WORDS: &[(&str, Words)] = &[
    ("look", Words::of(Word::Look)),
    ("list", Words::of(Word::List)),
    ("read", Words::of(Word::Read)),
    ("write", Words::of(Word::Write)),
    ("make", Words::of(Word::Make)),
    ("link", Words::of(Word::Link)),
    ("remove", Words::of(Word::Remove)),
    ("rename", Words::of(Word::Rename)),
    ("owner", Words::of(Word::Owner)),
    ("mode", Words::of(Word::Mode)),
    ("time", Words::of(Word::Time)),
    ("xattr", Words::of(Word::Xattr)),
    ("lock", Words::of(Word::Lock)),
    ("change", Words::CHANGE),
    ("any", Words::ANY),
];

/// What a rule may answer. Not EIO, ENOSYS, ENOTCONN: those mean faults, and the kernel remembers
/// ENOSYS for as long as the view lives.
pub(super) const ERRNOS: &[(&str, Errno)] = &[
    ("EACCES", Errno::ACCESS),
    ("EPERM", Errno::PERM),
    ("EROFS", Errno::ROFS),
    ("ENOENT", Errno::NOENT),
    ("ENOTSUP", Errno::NOTSUP),
    ("EOPNOTSUPP", Errno::OPNOTSUPP),
    ("EDQUOT", Errno::DQUOT),
    ("ENOSPC", Errno::NOSPC),
    ("EBUSY", Errno::BUSY),
    ("EINVAL", Errno::INVAL),
    ("ETXTBSY", Errno::TXTBSY),
    ("EXDEV", Errno::XDEV),
    ("EMLINK", Errno::MLINK),
    ("EFBIG", Errno::FBIG),
];

/// What may be told as done without being so.
const PRETENDED: &[&str] = &["owner", "mode", "time", "xattr", "setxattr", "removexattr"];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verb {
    Allow,
    Deny,
    Hide,
    Pretend,
}

impl Reader<'_, '_> {
    /// `None` only if a mistake was noted.
    pub(super) fn rule(&mut self, table: &DeTable<'_>, span: &Span) -> Option<Rule> {
        read::check_keys(table, KEYS, "a rule", &mut self.report);
        let name = table
            .get("name")
            .map(|at| read::string(at, "name", &mut self.report));
        let paths = table
            .get("path")
            .map_or(Some(Vec::new()), |at| self.paths(at));
        let verb = self.verb(table, span);
        let (words, ops) = match table.get("do") {
            None => (Words::ANY, Ops::default()),
            Some(value) => self.words(value),
        };
        let (words, ops) = if verb == Some(Verb::Pretend) {
            self.pretended(table, span, (words, ops))
        } else {
            (words, ops)
        };
        let when = table
            .get("when")
            .map_or_else(Vec::new, |at| self.conditions(at, words, ops));
        let follows = self.follows(table, paths.as_deref().unwrap_or_default());
        self.check_strict(table);
        let logs = [("none", false), ("all", true)];
        let log = table.get("log");
        let log = log.and_then(|at| read::choice(at, "log", &logs, &mut self.report));
        let verb = verb?;
        self.check_hide(table, verb);
        self.check_limit(table, words, ops);
        let action = self.action(table, verb);
        let limits = match table.get("limit") {
            Some(value) => self.limit(value)?,
            None => Limits::default(),
        };
        self.check_totals(table, limits.totals);
        let action = action.map(|action| match action {
            Action::Allow(modify) => Action::Allow(Modify {
                file_size: limits.file_size,
                ..modify
            }),
            other @ (Action::Deny(_) | Action::Hide | Action::Pretend) => other,
        });
        Some(Rule {
            line: self.report.line(span),
            name: name.flatten().map(str::to_owned),
            paths: paths?,
            words,
            ops,
            when,
            action: action?,
            log: log.unwrap_or(false),
            follows,
            totals: limits.totals,
        })
    }

    fn verb(&mut self, table: &DeTable<'_>, span: &Span) -> Option<Verb> {
        let Some(value) = table.get("action") else {
            let hint = "write `action = \"allow\"`, \"deny\", \"hide\" or \"pretend\"";
            self.report.add(span, "a rule lacks `action`", hint);
            return None;
        };
        let verbs = [
            ("allow", Verb::Allow),
            ("deny", Verb::Deny),
            ("hide", Verb::Hide),
            ("pretend", Verb::Pretend),
        ];
        let verb = read::choice(value, "action", &verbs, &mut self.report)?;
        Some(verb)
    }

    fn paths(&mut self, value: &Value<'_>) -> Option<Vec<Glob>> {
        let mut globs = Vec::new();
        let mut whole = true;
        let items = read::list(value);
        if items.is_empty() {
            let hint = "leave `path` out if the rule is for every path";
            self.report
                .add(&value.span(), "`path` is an empty list", hint);
            return None;
        }
        for item in items {
            let Some(text) = read::string(item, "path", &mut self.report) else {
                whole = false;
                continue;
            };
            match Glob::path(text) {
                Ok(glob) => globs.push(glob),
                Err(bad) => {
                    self.report
                        .add(&item.span(), format!("`{text}`: {}", bad.what), bad.hint);
                    whole = false;
                }
            }
        }
        whole.then_some(globs)
    }

    fn words(&mut self, value: &Value<'_>) -> (Words, Ops) {
        let (mut words, mut ops) = (Words::NONE, Ops::default());
        let items = read::list(value);
        if items.is_empty() {
            let hint = "leave `do` out if the rule is for everything";
            self.report
                .add(&value.span(), "`do` is an empty list", hint);
        }
        for item in items {
            let Some(text) = read::string(item, "do", &mut self.report) else {
                continue;
            };
            let word = WORDS.iter().find(|(word, _)| *word == text);
            let op = Op::ALL.iter().find(|op| op.raw_name() == text);
            match (word, op) {
                (Some((_, found)), _) => {
                    words = words.with(*found);
                    if *found == Words::CHANGE {
                        // Attributes have one word for reading and changing; the group means the
                        // latter only.
                        ops.add(Op::Setxattr);
                        ops.add(Op::Removexattr);
                    }
                    // Words that are raw names too (`read`, `link`) mean the word, which is wider.
                }
                (None, Some(op)) => ops.add(*op),
                (None, None) => {
                    let mut known: Vec<&str> = WORDS.iter().map(|(word, _)| *word).collect();
                    known.extend(Op::ALL.iter().map(|op| op.raw_name()));
                    let what = format!("`{text}` is no word for `do`");
                    self.report
                        .add(&item.span(), what, read::suggestion(text, &known));
                }
            }
        }
        if words == Words::of(Word::Lock) && ops.is_empty() {
            let hint = "locks are kept by the client's own kernel, which never asks; drop the rule";
            self.report
                .add(&value.span(), "a rule for `lock` alone never decides", hint);
        }
        (words, ops)
    }

    /// Only a path without wildcards can be gone to, to see which file is there.
    fn follows(&mut self, table: &DeTable<'_>, paths: &[Glob]) -> bool {
        let Some(value) = table.get("inode") else {
            return false;
        };
        let follows = read::boolean(value, "inode", &mut self.report) == Some(true);
        let whole = !paths.is_empty() && paths.iter().all(|path| path.literal().is_some());
        if follows && !whole && (table.get("path").is_none() || !paths.is_empty()) {
            let hint = "name each file in full: `path = [\"/etc/shadow\", \"/etc/gshadow\"]`";
            let what = "`inode = true` needs paths without wildcards";
            self.report.add(&value.span(), what, hint);
        }
        follows
    }

    /// Passthrough is a file's: two rules can speak of one file.
    fn check_strict(&mut self, table: &DeTable<'_>) {
        if let Some((key, _)) = table.get_key_value("strict") {
            let what = "`strict` is for the view as a whole";
            let hint = "write `strict = true` before the first `[[rule]]`";
            self.report.add(&key.span(), what, hint);
        }
    }

    /// Only what no client builds upon may be told as done without being so: a write that did not
    /// happen loses data. `xattr` speaks of reading too, which has no effect to leave out.
    fn pretended(
        &mut self,
        table: &DeTable<'_>,
        span: &Span,
        (words, mut ops): (Words, Ops),
    ) -> (Words, Ops) {
        let Some(value) = table.get("do") else {
            let hint = "write `do = [\"owner\", \"mode\", \"time\", \"xattr\"]`, or some of these";
            let what = "`pretend` must say what is pretended, and not everything can be";
            self.report.add(span, what, hint);
            return (words, ops);
        };
        for item in read::list(value) {
            let toml::de::DeValue::String(text) = item.get_ref() else {
                continue;
            };
            let known = WORDS.iter().any(|(word, _)| *word == &**text)
                || Op::ALL.iter().any(|op| op.raw_name() == &**text);
            if known && !PRETENDED.contains(&&**text) {
                let what = format!(
                    "`{text}` cannot be pretended: a client builds on what it is told is done"
                );
                let hint = format!("pretend only {}; deny the rest", PRETENDED.join(", "));
                self.report.add(&item.span(), what, hint);
            }
        }
        if words.meets(Words::of(Word::Xattr)) {
            ops.add(Op::Setxattr);
            ops.add(Op::Removexattr);
        }
        (Words(words.0 & !Words::of(Word::Xattr).0), ops)
    }

    /// Hiding goes by path alone, and is whole: a listing has only names to go by, and a name that
    /// is hidden from some operations would be told by the others.
    fn check_hide(&mut self, table: &DeTable<'_>, verb: Verb) {
        if verb != Verb::Hide {
            return;
        }
        for key in ["do", "when"] {
            if let Some(value) = table.get(key) {
                let what = format!("`hide` takes no `{key}`: what is hidden is hidden from all");
                self.report
                    .add(&value.span(), what, "drop it, or use `action = \"deny\"`");
            }
        }
    }

    fn action(&mut self, table: &DeTable<'_>, verb: Verb) -> Option<Action> {
        for (key, only) in [
            ("errno", Verb::Deny),
            ("owner", Verb::Allow),
            ("mode", Verb::Allow),
            ("limit", Verb::Allow),
        ] {
            if let Some(value) = table.get(key).filter(|_| verb != only) {
                let with = if only == Verb::Deny { "deny" } else { "allow" };
                let what = format!("`{key}` goes with `action = \"{with}\"` only");
                self.report
                    .add(&value.span(), what, "drop it, or change the action");
            }
        }
        match verb {
            Verb::Allow => self.modify(table).map(Action::Allow),
            Verb::Deny => Some(Action::Deny(match table.get("errno") {
                Some(value) => Some(self.errno(value)?),
                None => None,
            })),
            Verb::Hide => Some(Action::Hide),
            Verb::Pretend => Some(Action::Pretend),
        }
    }

    /// A limit is asked for only where data is written.
    fn check_limit(&mut self, table: &DeTable<'_>, words: Words, ops: Ops) {
        let write = Words::of(Word::Write);
        let writes = Op::ALL.iter().filter(|op| op.words().meets(write));
        if let Some(limit) = table.get("limit")
            && !words.meets(write)
            && !writes.into_iter().any(|op| ops.contains(*op))
        {
            let what = "`limit` never holds: no operation of this rule's `do` writes";
            let hint = "add \"write\" to `do`, or drop it";
            self.report.add(&limit.span(), what, hint);
        }
    }

    /// What is counted is found by walking a tree, which knows paths and nothing of requests.
    fn check_totals(&mut self, table: &DeTable<'_>, totals: Totals) {
        if totals.is_none() {
            return;
        }
        if let Some(when) = table.get("when") {
            let what = "a limit of `total` or `entries` is for paths, and takes no `when`";
            let hint = "drop `when`, or put the limit in a rule of its own";
            self.report.add(&when.span(), what, hint);
        }
    }

    fn errno(&mut self, value: &Value<'_>) -> Option<Errno> {
        let text = read::string(value, "errno", &mut self.report)?;
        if matches!(text, "EIO" | "ENOSYS" | "ENOTCONN") {
            let what = format!("`errno = \"{text}\"` would pass a refusal off as a fault");
            self.report
                .add(&value.span(), what, "use EACCES, EPERM, EROFS or ENOENT");
            return None;
        }
        read::choice(value, "errno", ERRNOS, &mut self.report)
    }

    fn modify(&mut self, table: &DeTable<'_>) -> Option<Modify> {
        let mut modify = Modify::default();
        if let Some(value) = table.get("owner") {
            let owner = read::table(value, "owner", &mut self.report)?;
            read::check_keys(owner, &["uid", "gid"], "`owner`", &mut self.report);
            modify.uid = owner
                .get("uid")
                .and_then(|at| self.uid(at, "uid"))
                .map(HostUid);
            modify.gid = owner
                .get("gid")
                .and_then(|at| self.gid(at, "gid"))
                .map(HostGid);
        }
        if let Some(value) = table.get("mode") {
            let mode = read::table(value, "mode", &mut self.report)?;
            read::check_keys(mode, &["force", "strip"], "`mode`", &mut self.report);
            let mut bits = |key| {
                mode.get(key)
                    .and_then(|at| read::bits(at, key, &mut self.report))
            };
            modify.force = bits("force").unwrap_or(0);
            modify.strip = bits("strip").unwrap_or(0);
        }
        Some(modify)
    }
}
