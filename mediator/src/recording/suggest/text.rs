//! A suggestion as a policy file, for people to read.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::head::Head;
use super::observed::Seen;
use super::plan::Draft;
use super::region::{Region, components};
use crate::op::{Word, Words};
use crate::policy::word_names;

/// Refused requests that are shown by name.
const SHOWN_MAX: usize = 10;

/// What the comment at the top tells.
pub(super) struct Told<'s> {
    pub(super) allowed: u64,
    pub(super) refused: u64,
    /// Requests that were refused and would be allowed.
    pub(super) too_much: &'s [&'s Seen],
    /// Requests that nothing can allow.
    pub(super) impossible: u64,
    /// Requests whose path is not known.
    pub(super) nameless: u64,
    /// Renames over something.
    pub(super) replacing: u64,
    /// There is one rule for the whole view.
    pub(super) is_coarse: bool,
    /// Requests for set-id bits.
    pub(super) set_id: u64,
}

/// The head and the rules.
pub(super) fn policy(head: &Head, drafts: &[Draft]) -> String {
    let mut text = head.text();
    let mut names = BTreeSet::new();
    for draft in drafts {
        let wanted = name(draft);
        let mut free = (1..).map(|at| match at {
            1 => wanted.clone(),
            at => format!("{wanted}-{at}"),
        });
        let name = free.find(|name| names.insert(name.clone()));
        rule(&name.unwrap_or_default(), draft, &mut text);
    }
    text
}

/// A name for logs: `read-lib`, `change-work`, after the first path.
fn name(draft: &Draft) -> String {
    const NAME_MAX: usize = 24;
    let does = if draft.words.meets(Words::CHANGE) {
        "change"
    } else if draft.words.meets(Words::of(Word::Read)) {
        "read"
    } else {
        "look"
    };
    let base = draft.regions.first().map_or(&b"/"[..], Region::base);
    let last = components(base).last().unwrap_or(b"all");
    let plain = last.iter().filter(|byte| byte.is_ascii_alphanumeric());
    let plain: String = plain.take(NAME_MAX).map(|byte| char::from(*byte)).collect();
    if plain.is_empty() {
        return does.to_owned();
    }
    format!("{does}-{plain}")
}

fn rule(name: &str, draft: &Draft, text: &mut String) {
    let Draft {
        words,
        regions,
        requests,
        paths,
    } = draft;
    let words = word_names(*words);
    let quoted: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
    let quoted = quoted.join(", ");
    let globs: Vec<String> = regions
        .iter()
        .map(|region| format!("'{}'", region.glob()))
        .collect();
    let globs = match &globs[..] {
        [one] => one.clone(),
        many if many.iter().map(String::len).sum::<usize>() < 80 => {
            format!("[{}]", many.join(", "))
        }
        many => format!("[\n  {},\n]", many.join(",\n  ")),
    };
    // Writing to a String cannot fail.
    let _infallible = write!(
        text,
        "\n# Requests: {requests}, paths: {paths}.\n\
         [[rule]]\nname = \"{name}\"\npath = {globs}\ndo = [{quoted}]\naction = \"allow\"\n"
    );
}

/// The comment at the top; each line of it is one, whatever a name holds.
pub(super) fn comment(told: &Told<'_>) -> String {
    let mut lines = vec![
        format!(
            "Suggested from a recording: it allows the {} requests that were allowed.",
            told.allowed
        ),
        "Read it before you use it: what was not recorded is refused.".to_owned(),
    ];
    if told.is_coarse {
        lines.push("No narrower rules were found than one for the whole view.".to_owned());
    }
    let mut tell = |count: u64, what: &str| {
        if count > 0 {
            lines.push(format!("{count} {what}"));
        }
    };
    tell(
        told.replacing,
        "renames replaced something, hence `remove` at their new names.",
    );
    tell(
        told.set_id,
        "requests asked for set-id bits, which `set_id` decides (\"strip\" if it is not written).",
    );
    tell(
        told.impossible,
        "requests that were allowed are left out: the floor, or what was kept, refuses them.",
    );
    tell(
        told.nameless,
        "requests that were allowed are left out: their paths were not recorded.",
    );
    let too_much = super::total(told.too_much.iter().copied());
    if told.refused > 0 {
        lines.push(format!(
            "Of {} requests that were refused it allows {too_much}{}",
            told.refused,
            if too_much > 0 { ":" } else { "." }
        ));
    }
    let shown = told.too_much.iter().take(SHOWN_MAX);
    lines.extend(shown.map(|seen| format!("  {} ({})", seen.request.phrase(), seen.count)));
    if told.too_much.len() > SHOWN_MAX {
        lines.push("  ...".to_owned());
    }
    lines.iter().map(|line| format!("# {line}\n")).collect()
}
