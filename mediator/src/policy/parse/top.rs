//! The keys of the view as a whole.

use toml::de::DeTable;

use super::super::areas::AREAS_MAX;
use super::super::data::DataJudgement;
use super::super::index::Index;
use super::super::model::{
    CacheWord, Policy, SetId, Settings, SubmountsWord, XattrAction, XattrRule,
};
use super::super::owners::{IdRange, NO_ID, Owners, Who};
use super::super::paths::NameGlob;
use super::read::{self, Span, Value};
use super::rule::FOLLOWED_MAX;
use super::{Reader, reach};
use crate::ids::{HostGid, HostOwner, HostUid};

pub(super) const KEYS: &[&str] = &[
    "export",
    "client",
    "default",
    "readonly",
    "squash",
    "map",
    "outside",
    "set_id",
    "setgid_directories",
    "cache",
    "submounts",
    "mode",
    "limit",
    "strict",
    "rule",
    "xattr",
];

/// What an attribute's new name may begin with, in bytes, so that half of the 255 are left.
const PREFIX_MAX: usize = 127;

impl Reader<'_, '_> {
    /// The whole file; worth using only if no mistake was noted.
    pub(super) fn policy(&mut self, file: &DeTable<'_>) -> Option<Policy> {
        read::check_keys(file, KEYS, "a policy", &mut self.report);
        let default_allow = self.default(file);
        let settings = self.settings(file);
        let readonly = file.get("readonly");
        let readonly = readonly.and_then(|at| read::boolean(at, "readonly", &mut self.report));
        let readonly = readonly.unwrap_or(false);
        let set_ids = [
            ("strip", SetId::Strip),
            ("allow", SetId::Allow),
            ("deny", SetId::Deny),
        ];
        let set_id = file.get("set_id");
        let set_id = set_id.and_then(|at| read::choice(at, "set_id", &set_ids, &mut self.report));
        let words = [("allow", true), ("deny", false)];
        let directories = file.get("setgid_directories");
        let directories = directories
            .and_then(|at| read::choice(at, "setgid_directories", &words, &mut self.report));
        let modes = [("enforce", false), ("observe", true)];
        let observe = file.get("mode");
        let observe = observe.and_then(|at| read::choice(at, "mode", &modes, &mut self.report));
        let strict = file.get("strict");
        let strict = strict.and_then(|at| read::boolean(at, "strict", &mut self.report));
        let limits = file.get("limit").and_then(|at| self.limit(at));
        let limits = limits.unwrap_or_default();
        let owners = self.owners(file);
        let mut rules = Vec::new();
        for (table, span) in self.tables(file, "rule") {
            rules.push((self.rule(table, &span), span));
        }
        let followed = rules.iter().filter_map(|(rule, span)| {
            let rule = rule.as_ref().filter(|rule| rule.follows)?;
            Some((rule.paths.len(), span.clone()))
        });
        self.check_followed(followed.collect());
        let counted = rules.iter().filter_map(|(rule, span)| {
            let rule = rule.as_ref()?;
            (!rule.totals.is_none()).then(|| span.clone())
        });
        // One place is the view's own.
        if let Some(span) = counted.into_iter().nth(AREAS_MAX - 1) {
            let hint = format!(
                "at most {} rules count what is below their paths",
                AREAS_MAX - 1
            );
            self.report
                .add(&span, "too many limits of `total` or `entries`", hint);
        }
        let xattrs = self.xattrs(file);
        reach::check(&rules, readonly, &mut self.report);
        Some(Policy {
            number: 0,
            settings,
            default_allow: default_allow?,
            readonly,
            observe: observe.unwrap_or(false),
            strict: strict.unwrap_or(false),
            set_id: set_id.unwrap_or(SetId::Strip),
            setgid_directories: directories.unwrap_or(true),
            owners,
            file_size: limits.file_size,
            totals: limits.totals,
            areas: Vec::new(),
            bounds: None,
            rules: rules
                .into_iter()
                .map(|(rule, _)| rule)
                .collect::<Option<_>>()?,
            xattrs,
            followed: Vec::new(),
            by_op: Vec::new(),
            index: Index::default(),
            data: DataJudgement::default(),
        })
    }

    /// Each path costs a walk for every request on a file with several links.
    fn check_followed(&mut self, rules: Vec<(usize, Span)>) {
        let mut sum = 0;
        for (paths, span) in rules {
            sum += paths;
            if sum > FOLLOWED_MAX {
                let what = format!("with this rule, {sum} paths have `inode = true`");
                let hint = format!("at most {FOLLOWED_MAX}; deny what leads to the rest as well");
                self.report.add(&span, what, hint);
                return;
            }
        }
    }

    fn tables<'v, 'i>(&mut self, file: &'v DeTable<'i>, key: &str) -> Vec<(&'v DeTable<'i>, Span)> {
        let value = file.get(key);
        value.map_or_else(Vec::new, |value| read::tables(value, key, &mut self.report))
    }

    fn default(&mut self, file: &DeTable<'_>) -> Option<bool> {
        let Some(value) = file.get("default") else {
            let hint = "write `default = \"allow\"` or `default = \"deny\"`: what no rule decides";
            self.report.add(&(0..0), "`default` is missing", hint);
            return None;
        };
        let words = [("allow", true), ("deny", false)];
        read::choice(value, "default", &words, &mut self.report)
    }

    fn settings(&mut self, file: &DeTable<'_>) -> Settings {
        let mut settings = Settings::default();
        if let Some(value) = file.get("export") {
            let path = read::string(value, "export", &mut self.report);
            if path.is_some_and(|path| !path.starts_with('/')) {
                let hint = "write the directory's absolute path";
                self.report
                    .add(&value.span(), "`export` is not an absolute path", hint);
            }
            settings.export = path.map(str::to_owned);
        }
        let client = file.get("client");
        if let Some(client) = client.and_then(|at| read::table(at, "client", &mut self.report)) {
            read::check_keys(client, &["user", "group"], "`client`", &mut self.report);
            let user = client.get("user");
            let group = client.get("group");
            settings.client_user = user.and_then(|at| self.uid(at, "user")).map(HostUid);
            settings.client_group = group.and_then(|at| self.gid(at, "group")).map(HostGid);
        }
        let words = [
            ("auto", CacheWord::Auto),
            ("none", CacheWord::None),
            ("exclusive", CacheWord::Exclusive),
        ];
        let cache = file.get("cache");
        settings.cache = cache.and_then(|at| read::choice(at, "cache", &words, &mut self.report));
        let words = [
            ("refuse", SubmountsWord::Refuse),
            ("hide", SubmountsWord::Hide),
            ("follow", SubmountsWord::Follow),
        ];
        let submounts = file.get("submounts");
        settings.submounts =
            submounts.and_then(|at| read::choice(at, "submounts", &words, &mut self.report));
        settings
    }

    /// A user by name or number.
    pub(super) fn uid(&mut self, value: &Value<'_>, key: &str) -> Option<u32> {
        let users = self.users;
        self.id(value, key, "user", |name| users.user(name))
    }

    /// A group by name or number.
    pub(super) fn gid(&mut self, value: &Value<'_>, key: &str) -> Option<u32> {
        let users = self.users;
        self.id(value, key, "group", |name| users.group(name))
    }

    fn id(
        &mut self,
        value: &Value<'_>,
        key: &str,
        kind: &str,
        find: impl Fn(&str) -> Option<u32>,
    ) -> Option<u32> {
        if !matches!(value.get_ref(), toml::de::DeValue::String(_)) {
            let bounds = (0, u64::from(NO_ID - 1));
            let number = read::number(value, key, bounds, &mut self.report)?;
            return u32::try_from(number).ok();
        }
        let name = read::string(value, key, &mut self.report)?;
        let found = find(name);
        if found.is_none() {
            let what = format!("there is no {kind} `{name}` on this host");
            let hint = format!("make the {kind}, correct the name, or write a number");
            self.report.add(&value.span(), what, hint);
        }
        found
    }

    fn owners(&mut self, file: &DeTable<'_>) -> Owners {
        let mut owners = Owners::default();
        let squash = file.get("squash");
        if let Some(squash) = squash.and_then(|at| read::table(at, "squash", &mut self.report)) {
            read::check_keys(squash, &["who", "uid", "gid"], "`squash`", &mut self.report);
            let words = [("none", Who::None), ("root", Who::Root), ("all", Who::All)];
            match squash.get("who") {
                Some(who) => {
                    let who = read::choice(who, "who", &words, &mut self.report);
                    owners.who = who.unwrap_or_default();
                }
                None => {
                    let span = file.get("squash").map_or(0..0, toml::Spanned::span);
                    let hint = "write `who = \"root\"`, \"all\" or \"none\"";
                    self.report.add(&span, "`squash` does not say who", hint);
                }
            }
            let uid = squash.get("uid").and_then(|at| self.uid(at, "uid"));
            let gid = squash.get("gid").and_then(|at| self.gid(at, "gid"));
            owners.squash = HostOwner {
                uid: uid.map_or(owners.squash.uid, HostUid),
                gid: gid.map_or(owners.squash.gid, HostGid),
            };
        }
        owners.map = self.map(file);
        if let Some(outside) = file.get("outside") {
            let words = [("refuse", false), ("squash", true)];
            let outside_squash = read::choice(outside, "outside", &words, &mut self.report);
            owners.outside_squash = outside_squash.unwrap_or_default();
            if file.get("map").is_none() {
                let hint = "add `map = [{ guest = 0, host = 100000, count = 65536 }]` or drop this";
                self.report.add(
                    &outside.span(),
                    "`outside` means nothing without `map`",
                    hint,
                );
            }
        }
        owners
    }

    fn map(&mut self, file: &DeTable<'_>) -> Vec<IdRange> {
        let mut map: Vec<IdRange> = Vec::new();
        for (table, span) in self.tables(file, "map") {
            read::check_keys(
                table,
                &["guest", "host", "count"],
                "a range of `map`",
                &mut self.report,
            );
            let mut part = |key: &str, min: u64| {
                let Some(value) = table.get(key) else {
                    let hint = "write `{ guest = 0, host = 100000, count = 65536 }`";
                    self.report
                        .add(&span, format!("a range of `map` lacks `{key}`"), hint);
                    return None;
                };
                let bounds = (min, u64::from(NO_ID - 1));
                let number = read::number(value, key, bounds, &mut self.report)?;
                u32::try_from(number).ok()
            };
            let (guest, host, count) = (part("guest", 0), part("host", 0), part("count", 1));
            let (Some(guest), Some(host), Some(count)) = (guest, host, count) else {
                continue;
            };
            let range = IdRange { guest, host, count };
            // The last id is start + count - 1, and 4294967295 is no id.
            if guest.checked_add(count).is_none() || host.checked_add(count).is_none() {
                let hint = "the highest id is 4294967294; make `count` smaller";
                self.report
                    .add(&span, "a range of `map` goes past the highest id", hint);
            }
            let meets = |a: u32, b: u32, len: u32| {
                u64::from(a) < u64::from(b) + u64::from(len)
                    && u64::from(b) < u64::from(a) + u64::from(count)
            };
            for (side, overlaps) in [
                (
                    "guest",
                    map.iter()
                        .any(|other| meets(guest, other.guest, other.count)),
                ),
                (
                    "host",
                    map.iter().any(|other| meets(host, other.host, other.count)),
                ),
            ] {
                if overlaps {
                    let what = format!("the {side} ids of this range overlap an earlier range's");
                    let hint = "each id may stand in one range only, or owners become ambiguous";
                    self.report.add(&span, what, hint);
                }
            }
            map.push(range);
        }
        map
    }

    fn xattrs(&mut self, file: &DeTable<'_>) -> Vec<XattrRule> {
        let mut rules: Vec<XattrRule> = Vec::new();
        for (table, span) in self.tables(file, "xattr") {
            let Some(rule) = self.xattr(table, &span) else {
                continue;
            };
            let meets = |other: &&XattrRule| {
                other.to != rule.to
                    && !other.to.is_empty()
                    && !rule.to.is_empty()
                    && (other.to.starts_with(&rule.to) || rule.to.starts_with(&other.to))
            };
            if let Some(other) = rules.iter().find(meets) {
                let what = format!(
                    "two names of the guest could be one on the host: of `{}` and `{}` one begins \
                     with the other",
                    other.to.escape_ascii(),
                    rule.to.escape_ascii()
                );
                let at = table.get("to").map_or(span, toml::Spanned::span);
                let hint = "write the same `to` in both, or `to`s that part before either ends";
                self.report.add(&at, what, hint);
            }
            rules.push(rule);
        }
        rules
    }

    fn xattr(&mut self, table: &DeTable<'_>, span: &Span) -> Option<XattrRule> {
        read::check_keys(
            table,
            &["match", "action", "to"],
            "an `[[xattr]]`",
            &mut self.report,
        );
        let glob = match table.get("match") {
            Some(value) => self.name_glob(value, "match"),
            None => {
                let hint = "write `match = \"user.*\"`, a glob over the attribute's name";
                self.report.add(span, "an `[[xattr]]` lacks `match`", hint);
                None
            }
        };
        let words = [
            ("allow", XattrAction::Allow),
            ("deny", XattrAction::Deny),
            ("unsupported", XattrAction::Unsupported),
            ("rename", XattrAction::Rename),
        ];
        let Some(value) = table.get("action") else {
            let hint = "write `action = \"allow\"`, \"deny\", \"unsupported\" or \"rename\"";
            self.report.add(span, "an `[[xattr]]` lacks `action`", hint);
            return None;
        };
        let action = read::choice(value, "action", &words, &mut self.report)?;
        let to = match (action, table.get("to")) {
            (XattrAction::Rename, Some(value)) => self.prefix(value)?,
            (XattrAction::Rename, None) => {
                let hint = "write `to = \"user.view.\"`: what the name begins with on the host";
                let what = "an `[[xattr]]` that renames lacks `to`";
                self.report.add(&value.span(), what, hint);
                return None;
            }
            (XattrAction::Allow | XattrAction::Deny | XattrAction::Unsupported, Some(value)) => {
                let what = "`to` goes with `action = \"rename\"` only";
                self.report
                    .add(&value.span(), what, "drop it, or change the action");
                return None;
            }
            (XattrAction::Allow | XattrAction::Deny | XattrAction::Unsupported, None) => {
                Box::default()
            }
        };
        let glob = glob?;
        Some(XattrRule { glob, action, to })
    }

    /// What renamed attributes begin with. Only `user.*` means nothing to the host's kernel, and
    /// `trusted.*` needs a capability that the mediator does not have.
    fn prefix(&mut self, value: &Value<'_>) -> Option<Box<[u8]>> {
        let text = read::string(value, "to", &mut self.report)?;
        if !text.starts_with("user.") || text.contains('\0') {
            let what = format!(
                "`to = \"{}\"` does not begin with `user.`",
                text.escape_debug()
            );
            let hint = "write `to = \"user.view.\"`: other attributes mean something to the host";
            self.report.add(&value.span(), what, hint);
            return None;
        }
        if text.len() > PREFIX_MAX {
            let what = format!("`to` is {} bytes long", text.len());
            let hint = format!(
                "at most {PREFIX_MAX}: with the guest's name it must stay within 255 bytes"
            );
            self.report.add(&value.span(), what, hint);
            return None;
        }
        Some(text.as_bytes().into())
    }

    /// A glob over a whole name.
    pub(super) fn name_glob(&mut self, value: &Value<'_>, key: &str) -> Option<NameGlob> {
        let text = read::string(value, key, &mut self.report)?;
        let glob = NameGlob::new(text);
        glob.map_err(|bad| self.report.add(&value.span(), bad.what, bad.hint))
            .ok()
    }
}
