//! The conditions of a rule: `when`.

use toml::de::DeValue;

use super::super::condition::FLAG_NAMES;
use super::super::model::{Condition, Flags, Number, Ops, Whose};
use super::super::paths::{Glob, NameGlob};
use super::Reader;
use super::read::{self, Value};
use crate::ids::FileKind;
use crate::op::{Op, RenameHow, Word, Words};

pub(super) const KEYS: &[&str] = &[
    "type",
    "mode",
    "new_mode",
    "owner",
    "new_owner",
    "requester",
    "size",
    "new_size",
    "nlink",
    "offset",
    "length",
    "xattr",
    "xattr_size",
    "target",
    "birth",
    "submount",
    "flags",
    "rename",
    "name",
    "second",
];

const KINDS: &[(&str, FileKind)] = &[
    ("file", FileKind::Regular),
    ("directory", FileKind::Directory),
    ("symlink", FileKind::Symlink),
    ("fifo", FileKind::Fifo),
    ("socket", FileKind::Socket),
];

const RENAMES: &[(&str, RenameHow)] = &[
    ("replace", RenameHow::Replace),
    ("noreplace", RenameHow::NoReplace),
    ("exchange", RenameHow::Exchange),
];

impl Reader<'_, '_> {
    /// All conditions of one `when`; the rule's words tell which can ever hold.
    pub(super) fn conditions(
        &mut self,
        value: &Value<'_>,
        words: Words,
        ops: Ops,
    ) -> Vec<Condition> {
        let Some(table) = read::table(value, "when", &mut self.report) else {
            return Vec::new();
        };
        read::check_keys(table, KEYS, "`when`", &mut self.report);
        let mut found = Vec::new();
        for (key, value) in table {
            let key: &str = key.get_ref();
            found.extend(self.condition(key, value));
            self.check_possible(key, value, words, ops);
        }
        found
    }

    fn condition(&mut self, key: &str, value: &Value<'_>) -> Option<Condition> {
        let report = &mut self.report;
        Some(match key {
            "type" => {
                let kinds = read::list(value);
                let mut kind = |at| read::choice(at, "type", KINDS, report);
                Condition::Kind(kinds.into_iter().filter_map(&mut kind).collect())
            }
            "mode" => self.mode(value, key)?,
            "new_mode" => self.mode(value, key)?,
            "owner" => self.owner(value, key, Whose::Now)?,
            "new_owner" => self.owner(value, key, Whose::Asked)?,
            "requester" => self.owner(value, key, Whose::Requester)?,
            "size" => self.within(value, key, Number::Size)?,
            "new_size" => self.within(value, key, Number::NewSize)?,
            "nlink" => self.within(value, key, Number::Nlink)?,
            "offset" => self.within(value, key, Number::Offset)?,
            "length" => self.within(value, key, Number::Length)?,
            "xattr_size" => self.within(value, key, Number::XattrSize)?,
            "xattr" => {
                let names = read::list(value).into_iter();
                Condition::Xattr(names.filter_map(|at| self.name_glob(at, "xattr")).collect())
            }
            "target" => {
                let targets = read::list(value).into_iter();
                Condition::Target(targets.filter_map(|at| self.target(at)).collect())
            }
            "birth" => Condition::Birth(read::boolean(value, key, report)?),
            "submount" => Condition::Submount(read::boolean(value, key, report)?),
            "flags" => self.flags(value)?,
            "rename" => {
                let words = self.filled(value, key)?.into_iter();
                let mut how = |at| read::choice(at, key, RENAMES, &mut self.report);
                Condition::Rename(words.filter_map(&mut how).collect())
            }
            "name" => {
                let names = self.filled(value, key)?.into_iter();
                Condition::Name(names.filter_map(|at| self.last_name(at)).collect())
            }
            "second" => {
                let paths = self.filled(value, key)?.into_iter();
                Condition::Second(paths.filter_map(|at| self.second(at)).collect())
            }
            _ => return None,
        })
    }

    /// One value or a list of them, but not an empty list: no request would ever be meant.
    fn filled<'v, 'i>(&mut self, value: &'v Value<'i>, key: &str) -> Option<Vec<&'v Value<'i>>> {
        let items = read::list(value);
        if items.is_empty() {
            let what = format!("`{key}` is an empty list, so that it never holds");
            let hint = format!("name something, or drop `{key}`");
            self.report.add(&value.span(), what, hint);
            return None;
        }
        Some(items)
    }

    /// A list means any of its words; a table tells any, all and none apart.
    fn flags(&mut self, value: &Value<'_>) -> Option<Condition> {
        let (mut any, mut all, mut none) = Default::default();
        if let DeValue::Table(table) = value.get_ref() {
            read::check_keys(table, &["any", "all", "none"], "`flags`", &mut self.report);
            for (which, set) in [("any", &mut any), ("all", &mut all), ("none", &mut none)] {
                if let Some(value) = table.get(which) {
                    *set = self.flag_set(value, which)?;
                }
            }
        } else {
            any = self.flag_set(value, "flags")?;
        }
        if none.meets(all) {
            let what = "`flags` demands a flag by `all` that it excludes by `none`";
            self.report
                .add(&value.span(), what, "take it out of one of them");
        }
        Some(Condition::Flags { any, all, none })
    }

    fn flag_set(&mut self, value: &Value<'_>, key: &str) -> Option<Flags> {
        let words = self.filled(value, key)?;
        let chosen = words
            .into_iter()
            .filter_map(|at| read::choice(at, key, FLAG_NAMES, &mut self.report));
        Some(chosen.fold(Flags::default(), Flags::with))
    }

    fn last_name(&mut self, value: &Value<'_>) -> Option<NameGlob> {
        let text = read::string(value, "name", &mut self.report)?;
        if text.contains('/') || text.is_empty() {
            let what = format!("`name` is the last component alone, and `{text}` is none");
            let hint = "write `name = \"*.key\"`, or use the rule's `path`";
            self.report.add(&value.span(), what, hint);
            return None;
        }
        self.name_glob(value, "name")
    }

    fn second(&mut self, value: &Value<'_>) -> Option<Glob> {
        let text = read::string(value, "second", &mut self.report)?;
        let glob = Glob::path(text);
        glob.map_err(|bad| {
            let what = format!("`{text}`: {}", bad.what);
            self.report.add(&value.span(), what, bad.hint);
        })
        .ok()
    }

    fn mode(&mut self, value: &Value<'_>, key: &str) -> Option<Condition> {
        let table = read::table(value, key, &mut self.report)?;
        read::check_keys(
            table,
            &["any", "all", "none"],
            &format!("`{key}`"),
            &mut self.report,
        );
        let mut bits = |which: &str| {
            let value = table.get(which);
            value
                .and_then(|at| read::bits(at, which, &mut self.report))
                .unwrap_or(0)
        };
        let (any, all, none) = (bits("any"), bits("all"), bits("none"));
        Some(Condition::Mode {
            asked: key == "new_mode",
            any,
            all,
            none,
        })
    }

    fn owner(&mut self, value: &Value<'_>, key: &str, whose: Whose) -> Option<Condition> {
        let table = read::table(value, key, &mut self.report)?;
        read::check_keys(
            table,
            &["uid", "gid"],
            &format!("`{key}`"),
            &mut self.report,
        );
        let uids = table.get("uid").map_or_else(Vec::new, read::list);
        let uids = uids
            .into_iter()
            .filter_map(|at| self.uid(at, "uid"))
            .collect();
        let gids = table.get("gid").map_or_else(Vec::new, read::list);
        let gids = gids
            .into_iter()
            .filter_map(|at| self.gid(at, "gid"))
            .collect();
        Some(Condition::Owner { whose, uids, gids })
    }

    fn within(&mut self, value: &Value<'_>, key: &str, what: Number) -> Option<Condition> {
        let table = read::table(value, key, &mut self.report)?;
        read::check_keys(
            table,
            &["min", "max"],
            &format!("`{key}`"),
            &mut self.report,
        );
        let mut bound = |which: &str, missing| {
            let value = table.get(which);
            let bound = |at| read::number(at, which, (0, u64::MAX), &mut self.report);
            value.map_or(Some(missing), bound)
        };
        let (min, max) = (bound("min", 0)?, bound("max", u64::MAX)?);
        if min > max {
            let what = format!("`{key}`: `min` is greater than `max`, so that nothing is within");
            self.report.add(&value.span(), what, "swap the two");
        }
        Some(Condition::Within { what, min, max })
    }

    fn target(&mut self, value: &Value<'_>) -> Option<Glob> {
        let text = read::string(value, "target", &mut self.report)?;
        let glob = Glob::target(text);
        glob.map_err(|bad| self.report.add(&value.span(), bad.what, bad.hint))
            .ok()
    }

    /// A condition on what no request of the rule's words has never holds.
    fn check_possible(&mut self, key: &str, value: &Value<'_>, words: Words, ops: Ops) {
        let (having, with): (&[Word], &[Op]) = match key {
            "xattr" | "xattr_size" => (
                &[Word::Xattr],
                &[Op::Setxattr, Op::Getxattr, Op::Listxattr, Op::Removexattr],
            ),
            "target" => (&[Word::Make], &[Op::Symlink]),
            "new_owner" => (&[Word::Owner], &[Op::Setattr]),
            "new_size" => (&[Word::Write], &[Op::Setattr]),
            "flags" => (
                &[Word::Read, Word::Write, Word::Make],
                &[Op::Open, Op::Create],
            ),
            "rename" => (&[Word::Rename], &[Op::Rename]),
            "second" => (&[Word::Rename, Word::Link], &[Op::Rename, Op::Link]),
            _ => return,
        };
        let meets = having.iter().any(|word| words.meets(Words::of(*word)));
        if !meets && !with.iter().any(|op| ops.contains(*op)) {
            let what = format!("`{key}` never holds: no operation of this rule's `do` has one");
            let quoted: Vec<String> = having
                .iter()
                .map(|word| format!("\"{}\"", format!("{word:?}").to_lowercase()))
                .collect();
            let hint = format!("add {} to `do`, or drop it", quoted.join(" or "));
            self.report.add(&value.span(), what, hint);
        }
    }
}
