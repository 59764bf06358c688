//! What a suggestion begins with: the settings and restricting rules of a policy, or nothing.

use toml::{Table, Value};

use super::observed::Seen;
use super::{From, SuggestError};
use crate::policy::{Policy, Users};

/// The part of a policy file that comes before the suggested rules.
#[derive(Debug)]
pub(super) struct Head {
    /// Settings and rules, without `default`.
    settings: String,
    rules: String,
    /// All of it with everything else allowed: what it refuses no rule after it can allow.
    base: Policy,
}

impl Head {
    pub(super) fn new(from: Option<From<'_>>, users: &dyn Users) -> Result<Self, SuggestError> {
        let (settings, rules) = match from {
            None => (String::new(), String::new()),
            Some(from) => kept(from, users)?,
        };
        let text = format!("default = \"allow\"\n{settings}{rules}");
        let base = Policy::parse("the settings that are kept", &text, users)?;
        Ok(Self {
            settings,
            rules,
            base,
        })
    }

    /// Whether rules after it can allow a request: it is not the floor, nor a setting or a kept
    /// rule that refuses it, and it has a name for rules to go by.
    pub(super) fn can_allow(&self, seen: &Seen) -> bool {
        !seen.request.names.is_empty() && self.base.decide_request(&seen.request).is_ok()
    }

    /// The beginning of a policy file that denies what no rule allows.
    pub(super) fn text(&self) -> String {
        let Self {
            settings, rules, ..
        } = self;
        let mut text = format!("default = \"deny\"\n{settings}");
        if !rules.is_empty() {
            text.push_str("\n# Kept from the policy that this one begins with.\n");
            text.push_str(rules);
        }
        text
    }
}

/// Settings, and the rules that take away, of a policy without mistakes.
fn kept(from: From<'_>, users: &dyn Users) -> Result<(String, String), SuggestError> {
    let _checked = Policy::parse(from.file, from.text, users)?;
    // Not reached: what parsed as a policy is TOML.
    let mut settings: Table =
        toml::from_str(from.text).map_err(|_no_toml| SuggestError::Request)?;
    settings.remove("default");
    // What is suggested is judged as it will be enforced, and is meant to be.
    settings.remove("mode");
    let rules = settings.remove("rule");
    let xattrs = settings.remove("xattr");
    let restricts = |rule: &Value| {
        let action = rule.get("action").and_then(Value::as_str);
        action.is_some_and(|action| action != "allow")
    };
    let rules: Vec<Value> = match rules {
        Some(Value::Array(rules)) => rules.into_iter().filter(restricts).collect(),
        Some(_) | None => Vec::new(),
    };
    let mut tables = Table::new();
    if !rules.is_empty() {
        tables.insert("rule".to_owned(), Value::Array(rules));
    }
    tables.extend(xattrs.map(|xattrs| ("xattr".to_owned(), xattrs)));
    // Tables of the settings (`[squash]`) must not swallow what follows; as one file they cannot.
    let write = |table: &Table| toml::to_string(table).map_err(|_unwritable| SuggestError::Request);
    Ok((write(&inline(settings))?, write(&tables)?))
}

/// The settings as they are; their tables come last, and only tables follow.
fn inline(settings: Table) -> Table {
    let (values, tables): (Vec<_>, Vec<_>) = settings
        .into_iter()
        .partition(|(_, value)| !matches!(value, Value::Table(_)) && !is_tables(value));
    values.into_iter().chain(tables).collect()
}

fn is_tables(value: &Value) -> bool {
    value
        .as_array()
        .is_some_and(|all| all.iter().any(Value::is_table))
}
