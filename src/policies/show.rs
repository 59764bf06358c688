//! Answers and rules, in words for people.

use std::fmt::Write as _;

use serde::Serialize;
use virtfs_mediator_core::policy::{Answer, Effect, RuleRef};

use crate::error::{Class, Error, Result};
use crate::output::outln;

/// Puts lines on standard output.
pub(super) fn print(lines: &[String]) {
    outln!("{}", lines.join("\n"));
}

/// Puts one JSON object on standard output.
///
/// # Errors
///
/// Mount: it cannot be written so.
pub(super) fn print_json(object: &impl Serialize) -> Result<()> {
    let json = serde_json::to_string_pretty(object)
        .map_err(|error| Error::step(Class::Mount, "make JSON", error))?;
    print(&[json]);
    Ok(())
}

/// `rule "uploads", line 7`; by number if it has no name.
pub(super) fn rule(rule: &RuleRef) -> String {
    let mut said = match &rule.name {
        Some(name) => format!("rule \"{name}\""),
        None => format!("rule {}", rule.number),
    };
    if let Some(line) = rule.line {
        // Writing to a String cannot fail.
        let _infallible = write!(said, ", line {line}");
    }
    said
}

/// `allow`, `deny EACCES`.
pub(super) fn verdict(answer: &Answer) -> String {
    match &answer.errno {
        None if answer.would_be.is_some() => "allow, since the policy only observes".to_owned(),
        None if !answer.pretended.is_empty() => "pretend".to_owned(),
        None => "allow".to_owned(),
        Some(errno) => format!("deny {errno}"),
    }
}

/// `rule "uploads", line 7`, `default`, or why else.
pub(super) fn reason(answer: &Answer) -> String {
    if let Some(would_be) = &answer.would_be {
        let by = would_be.rule.as_ref().map(|by| format!(", {}", rule(by)));
        return format!(
            "{}: {}{}",
            would_be.errno,
            would_be.why,
            by.unwrap_or_default()
        );
    }
    match (&answer.rule, answer.allowed) {
        (Some(decisive), true) => rule(decisive),
        // The same rule may refuse for more than one reason.
        (Some(decisive), false) if answer.why.ends_with("by a rule") => rule(decisive),
        (Some(decisive), false) => format!("{}: {}", rule(decisive), answer.why),
        (None, _) if answer.why.ends_with("by default") => "default".to_owned(),
        (None, _) => answer.why.to_owned(),
    }
}

/// `deny EACCES (rule "uploads", line 7)`.
pub(super) fn answer(answer: &Answer) -> String {
    format!("{} ({})", verdict(answer), reason(answer))
}

/// What the export is asked: `owner 0:0, mode 0644, open: read write`; empty for nothing special.
pub(super) fn effect(effect: &Effect) -> String {
    let mut said = Vec::new();
    let id = |id: Option<u32>| id.map_or_else(|| "-".to_owned(), |id| id.to_string());
    if effect.uid.is_some() || effect.gid.is_some() {
        said.push(format!("owner {}:{}", id(effect.uid), id(effect.gid)));
    }
    said.extend(effect.mode.as_ref().map(|mode| format!("mode {mode}")));
    said.extend(effect.size.map(|size| format!("size {size}")));
    if !effect.times.is_empty() {
        said.push(effect.times.join(" "));
    }
    if !effect.open.is_empty() {
        said.push(format!("open: {}", effect.open.join(" ")));
    }
    said.extend(effect.rename.map(|how| format!("rename: {how}")));
    said.join(", ")
}

/// A rule as its file has it: its lines, numbered, up to the next table or empty line.
pub(super) fn source(text: &str, rule: &RuleRef) -> Vec<String> {
    /// Enough for any rule that a person wrote; a list of globs may go on.
    const LINES: usize = 12;
    let Some(line) = rule.line else {
        return Vec::new();
    };
    let lines = (1..).zip(text.lines()).skip(line.saturating_sub(1));
    let belongs = |(at, said): &(usize, &str)| {
        *at == line || !(said.trim().is_empty() || said.trim_start().starts_with("[["))
    };
    let shown = lines.take_while(belongs).take(LINES);
    shown
        .map(|(at, said)| format!("{at:>5} | {}", harmless(said)))
        .collect()
}

/// The line of the setting that decided where no rule did: `default`, `readonly`, `map`...
pub(super) fn setting(text: &str, answer: &Answer) -> Option<String> {
    let key = if answer.why.ends_with("by default") {
        "default"
    } else if answer.why == "the view is read-only" {
        "readonly"
    } else {
        // Settings are named in backquotes.
        answer.why.split('`').nth(1)?
    };
    let mut lines = (1..).zip(text.lines());
    let (at, line) = lines.find(|(_, line)| {
        let line = line.trim_start().trim_start_matches('[');
        let rest = line.strip_prefix(key);
        rest.is_some_and(|rest| rest.trim_start().starts_with(['=', ']', '.']))
    })?;
    Some(format!("{at:>5} | {}", harmless(line)))
}

/// Text without anything that a terminal acts on; quotes and backslashes as they are.
fn harmless(text: &str) -> String {
    let mut out = String::new();
    for letter in text.chars() {
        match letter {
            '"' | '\'' | '\\' => out.push(letter),
            other => out.extend(other.escape_debug()),
        }
    }
    out
}
