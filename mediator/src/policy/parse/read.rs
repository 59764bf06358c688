//! Typed reading of a TOML table. Each reader notes the mistake and goes on, so that all of a
//! file's mistakes are told at once.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::super::mistake::Report;

/// A value and where it stands.
pub(super) type Value<'i> = Spanned<DeValue<'i>>;
/// Bytes of the file.
pub(super) type Span = Range<usize>;

/// What a value is, in TOML's words.
pub(super) fn type_name(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

fn wrong_type(value: &Value<'_>, key: &str, want: &str, report: &mut Report<'_>) {
    let what = format!(
        "`{key}` is {}, but must be {want}",
        type_name(value.get_ref())
    );
    report.add(&value.span(), what, format!("write `{key}` as {want}"));
}

/// Notes every key that nobody reads.
pub(super) fn check_keys(
    table: &DeTable<'_>,
    known: &[&str],
    within: &str,
    report: &mut Report<'_>,
) {
    for (key, _) in table {
        let name: &str = key.get_ref();
        if !known.contains(&name) {
            let what = format!("unknown key `{name}` in {within}");
            report.add(&key.span(), what, suggestion(name, known));
        }
    }
}

/// The nearest known word, or all of them.
pub(super) fn suggestion(wrong: &str, known: &[&str]) -> String {
    let near = known
        .iter()
        .map(|word| (distance(wrong, word), *word))
        .min();
    match near {
        Some((far, word)) if far <= 2 => format!("did you mean `{word}`?"),
        _ => format!("known here: {}", known.join(", ")),
    }
}

/// Edit distance, for words of a few letters.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (at, letter) in one.chars().enumerate() {
        let mut next = vec![at + 1];
        for (column, &against) in other.iter().enumerate() {
            let replaced = row[column] + usize::from(letter != against);
            next.push(replaced.min(row[column + 1] + 1).min(next[column] + 1));
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

pub(super) fn string<'v>(
    value: &'v Value<'_>,
    key: &str,
    report: &mut Report<'_>,
) -> Option<&'v str> {
    if let DeValue::String(text) = value.get_ref() {
        return Some(text);
    }
    wrong_type(value, key, "a string", report);
    None
}

pub(super) fn boolean(value: &Value<'_>, key: &str, report: &mut Report<'_>) -> Option<bool> {
    if let DeValue::Boolean(boolean) = value.get_ref() {
        return Some(*boolean);
    }
    wrong_type(value, key, "true or false", report);
    None
}

pub(super) fn table<'v, 'i>(
    value: &'v Value<'i>,
    key: &str,
    report: &mut Report<'_>,
) -> Option<&'v DeTable<'i>> {
    if let DeValue::Table(table) = value.get_ref() {
        return Some(table);
    }
    wrong_type(value, key, "a table: { key = value }", report);
    None
}

/// One value or an array of them.
pub(super) fn list<'v, 'i>(value: &'v Value<'i>) -> Vec<&'v Value<'i>> {
    if let DeValue::Array(array) = value.get_ref() {
        return array.iter().collect();
    }
    vec![value]
}

/// An array of tables.
pub(super) fn tables<'v, 'i>(
    value: &'v Value<'i>,
    key: &str,
    report: &mut Report<'_>,
) -> Vec<(&'v DeTable<'i>, Span)> {
    let DeValue::Array(array) = value.get_ref() else {
        wrong_type(value, key, "an array of tables", report);
        return Vec::new();
    };
    let mut found = Vec::new();
    for item in array {
        if let Some(table) = table(item, key, report) {
            found.push((table, item.span()));
        }
    }
    found
}

/// One word of a list of words; `what` names the kind of word.
pub(super) fn choice<T: Copy>(
    value: &Value<'_>,
    key: &str,
    words: &[(&str, T)],
    report: &mut Report<'_>,
) -> Option<T> {
    let text = string(value, key, report)?;
    let found = words.iter().find(|(word, _)| *word == text);
    if found.is_none() {
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        report.add(
            &value.span(),
            format!("`{text}` is no word for `{key}`"),
            suggestion(text, &known),
        );
    }
    found.map(|(_, meaning)| *meaning)
}

/// A number from `min` to `max`.
pub(super) fn number(
    value: &Value<'_>,
    key: &str,
    bounds: (u64, u64),
    report: &mut Report<'_>,
) -> Option<u64> {
    let DeValue::Integer(integer) = value.get_ref() else {
        wrong_type(value, key, "an integer", report);
        return None;
    };
    let (min, max) = bounds;
    let parsed = u64::from_str_radix(integer.as_str(), integer.radix()).ok();
    let parsed = parsed.filter(|number| (min..=max).contains(number));
    if parsed.is_none() {
        let what = format!("`{key}` = {integer} is out of range");
        report.add(&value.span(), what, format!("from {min} to {max}"));
    }
    parsed
}

/// Permission bits: an octal string ("0640") or an integer written in octal (0o640).
pub(super) fn bits(value: &Value<'_>, key: &str, report: &mut Report<'_>) -> Option<u32> {
    let octal = if let DeValue::String(text) = value.get_ref() {
        Some(&**text)
    } else if let DeValue::Integer(integer) = value.get_ref() {
        Some(integer.as_str()).filter(|_| integer.radix() == 8)
    } else {
        None
    };
    let parsed = octal.and_then(|octal| u32::from_str_radix(octal, 8).ok());
    let parsed = parsed.filter(|bits| *bits <= 0o7777);
    if parsed.is_none() {
        let what = format!("`{key}` is not a set of permission bits");
        report.add(
            &value.span(),
            what,
            "write them in octal: \"0640\" or 0o640, at most 7777",
        );
    }
    parsed
}
