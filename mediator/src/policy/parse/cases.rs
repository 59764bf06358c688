//! A table of requests and what a policy should answer: what `policy test` runs.
//!
//! ```toml
//! [[case]]
//! request = "create /up/a 0644"
//! expect = "allow"            # or "deny", or an errno: "EACCES"
//! rule = "uploads"            # the rule that decides; "default" for none
//! type = "file"               # and mode, owner, size, nlink, names, birth, submount, requester
//! note = "why this matters"
//! ```

use rustix::io::Errno;
use toml::de::{DeTable, DeValue};

use super::super::facts::Requester;
use super::super::mistake::{Mistakes, Report};
use super::super::request::Request;
use super::super::symbol::errno_named;
use super::read::{self, Span, Value};
use super::words::{BadPhrase, check_path, parse_ids, parse_kind, unescaped};
use super::{Circumstances, document};
use crate::ids::{HostGid, HostOwner, HostUid, Mode};

/// One request and what is expected of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpectedCase {
    /// Its line in the file, from 1.
    pub line: usize,
    /// The request as it is written.
    pub phrase: String,
    /// The request.
    pub request: Request,
    /// The answer that is expected.
    pub expect: Expectation,
    /// The name of the rule that decides, `default` for none; not looked at if not given.
    pub rule: Option<String>,
    /// Why it matters; for people.
    pub note: Option<String>,
}

/// An answer that is expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expectation {
    /// It is allowed.
    Allow,
    /// It is refused, whatever the errno.
    Deny,
    /// It is refused with this errno.
    Errno(Errno),
}

const KEYS: &[&str] = &[
    "request",
    "expect",
    "rule",
    "note",
    "type",
    "mode",
    "owner",
    "size",
    "nlink",
    "names",
    "birth",
    "submount",
    "requester",
];

/// Reads a file of cases; `requester` asks where a case does not say who. `file` is its name, for
/// messages only.
///
/// # Errors
///
/// Every mistake in it, with line, column and what to do; a file without a case is one.
pub fn parse_cases(
    file: &str,
    text: &str,
    requester: Requester,
) -> Result<Vec<ExpectedCase>, Mistakes> {
    let mut report = Report::new(text);
    let Some(document) = document(text, &mut report) else {
        return Err(report.into_mistakes(file));
    };
    let table = document.get_ref();
    read::check_keys(table, &["case"], "a file of cases", &mut report);
    let tables = table
        .get("case")
        .map_or_else(Vec::new, |value| read::tables(value, "case", &mut report));
    if tables.is_empty() && report.is_empty() {
        let hint = "write `[[case]]`, `request = \"unlink /a\"` and `expect = \"deny\"`";
        report.add(&(0..0), "there is no `[[case]]`", hint);
    }
    let mut cases = Vec::new();
    for (table, span) in tables {
        cases.extend(case(table, &span, requester, &mut report));
    }
    if report.is_empty() {
        return Ok(cases);
    }
    Err(report.into_mistakes(file))
}

fn case(
    table: &DeTable<'_>,
    span: &Span,
    requester: Requester,
    report: &mut Report<'_>,
) -> Option<ExpectedCase> {
    read::check_keys(table, KEYS, "a case", report);
    let around = circumstances(table, requester, report);
    let (phrase, request) = request(table, span, &around, report)?;
    let Some(expect) = table.get("expect") else {
        let hint = "write `expect = \"allow\"`, \"deny\" or an errno: \"EACCES\"";
        report.add(span, "a case lacks `expect`", hint);
        return None;
    };
    let expect = expectation(expect, report)?;
    let mut text = |key| {
        let value = table.get(key)?;
        read::string(value, key, report).map(str::to_owned)
    };
    let (rule, note) = (text("rule"), text("note"));
    let line = report.line(span);
    Some(ExpectedCase {
        line,
        phrase,
        request,
        expect,
        rule,
        note,
    })
}

fn request(
    table: &DeTable<'_>,
    span: &Span,
    around: &Circumstances,
    report: &mut Report<'_>,
) -> Option<(String, Request)> {
    let Some(value) = table.get("request") else {
        let hint = "write `request = \"create /up/a 0644\"`";
        report.add(span, "a case lacks `request`", hint);
        return None;
    };
    let phrase = read::string(value, "request", report)?;
    let request = noted(Request::from_phrase(phrase, around), value, report)?;
    Some((phrase.to_owned(), request))
}

fn expectation(value: &Value<'_>, report: &mut Report<'_>) -> Option<Expectation> {
    let text = read::string(value, "expect", report)?;
    let found = match text {
        "allow" => Some(Expectation::Allow),
        "deny" => Some(Expectation::Deny),
        other => errno_named(other).map(Expectation::Errno),
    };
    if found.is_none() {
        let what = format!("`{}` is no answer of a policy", text.escape_debug());
        report.add(
            &value.span(),
            what,
            "write \"allow\", \"deny\" or an errno: \"EACCES\"",
        );
    }
    found
}

/// Notes words that could not be read where they stand.
fn noted<T>(read: Result<T, BadPhrase>, value: &Value<'_>, report: &mut Report<'_>) -> Option<T> {
    read.map_err(|bad| report.add(&value.span(), bad.what, bad.hint))
        .ok()
}

fn circumstances(
    table: &DeTable<'_>,
    requester: Requester,
    report: &mut Report<'_>,
) -> Circumstances {
    let mut around = Circumstances::of(requester);
    if let Some(value) = table.get("type") {
        let text = read::string(value, "type", report);
        around.kind = text.and_then(|text| noted(parse_kind(text), value, report));
    }
    if let Some(value) = table.get("mode") {
        around.mode = read::bits(value, "mode", report).map(Mode::new);
    }
    if let Some(value) = table.get("owner") {
        around.owner = both_ids(value, "owner", report).map(|(uid, gid)| HostOwner {
            uid: HostUid(uid),
            gid: HostGid(gid),
        });
    }
    let asks = table.get("requester");
    if let Some((uid, gid)) = asks.and_then(|value| both_ids(value, "requester", report)) {
        around.requester = Requester { uid, gid, pid: 0 };
    }
    if let Some(value) = table.get("size") {
        around.size = read::number(value, "size", (0, u64::MAX), report);
    }
    if let Some(value) = table.get("nlink") {
        let nlink = read::number(value, "nlink", (0, u64::from(u32::MAX)), report);
        around.nlink = nlink.and_then(|nlink| u32::try_from(nlink).ok());
    }
    if let Some(value) = table.get("names") {
        for item in read::list(value) {
            around.names.extend(name(item, report));
        }
    }
    let mut flag = |key| {
        let value = table.get(key)?;
        read::boolean(value, key, report)
    };
    around.birth = flag("birth").unwrap_or(false);
    around.submount = flag("submount").unwrap_or(false);
    around
}

fn name(value: &Value<'_>, report: &mut Report<'_>) -> Option<Vec<u8>> {
    let text = read::string(value, "names", report)?;
    let path = noted(unescaped(text), value, report)?;
    noted(check_path(&path), value, report)?;
    Some(path)
}

/// `"UID:GID"`, both given.
fn both_ids(value: &Value<'_>, key: &str, report: &mut Report<'_>) -> Option<(u32, u32)> {
    if !matches!(value.get_ref(), DeValue::String(_)) {
        let what = format!("`{key}` is {}", read::type_name(value.get_ref()));
        report.add(&value.span(), what, format!("write `{key} = \"UID:GID\"`"));
        return None;
    }
    let text = read::string(value, key, report)?;
    match noted(parse_ids(text), value, report)? {
        (Some(uid), Some(gid)) => Some((uid, gid)),
        (None, _) | (_, None) => {
            let what = format!("`{key}` needs both ids");
            report.add(&value.span(), what, format!("write `{key} = \"UID:GID\"`"));
            None
        }
    }
}
