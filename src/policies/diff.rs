//! `policy diff`: which answers change from one policy to another.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use virtfs_mediator_core::policy::{Answer, Policy, Request, escaped, witnesses};
use virtfs_mediator_core::recording::Ending;

use super::changes::{Changes, Told, grouped, is_judgeable};
use super::replay::{no_recording, open};
use super::{load, show, usual_requester};
use crate::error::Result;

/// Compares two policies by a recording's requests, or by requests made up from their rules; the
/// status is 1 if an answer changes.
///
/// # Errors
///
/// Configuration: a policy or the recording.
pub(super) fn diff(old: &Path, new: &Path, recording: Option<&Path>) -> Result<u8> {
    let (old, new) = (load(old)?.enforced(), load(new)?.enforced());
    match recording {
        Some(recording) => by_recording(&old, &new, recording),
        None => by_witnesses(&old, &new),
    }
}

fn by_recording(old: &Policy, new: &Policy, recording: &Path) -> Result<u8> {
    let mut reader = open(recording)?;
    let mut changes = Changes::default();
    for entry in &mut reader {
        let entry = entry.map_err(|error| no_recording(recording, &error))?;
        let request = &entry.request;
        if is_judgeable(old, request) && is_judgeable(new, request) {
            let was = show::verdict(&old.answer(request));
            changes.add(request, entry.count, &was, &new.answer(request));
        } else {
            changes.add_unknown(entry.count);
        }
    }
    let status = u8::from(changes.changed > 0);
    let mut lines = vec![format!(
        "{} of {} recorded requests change",
        grouped(changes.changed),
        grouped(changes.requests)
    )];
    if changes.unknown > 0 {
        lines.push(format!(
            "{} were not judged: what the policies ask about them was not recorded",
            grouped(changes.unknown)
        ));
    }
    if reader.ending() == Some(Ending::CutOff) {
        lines.push("the recording has no end: its last seconds may be missing".to_owned());
    }
    lines.extend(changes.told().iter().flat_map(Told::lines));
    show::print(&lines);
    Ok(status)
}

/// Verbs, each with the circumstances in which its answer changes.
type Verbs = BTreeMap<String, BTreeSet<String>>;

fn by_witnesses(old: &Policy, new: &Policy) -> Result<u8> {
    let all = witnesses(&[old, new], usual_requester(new));
    let mut by_path: BTreeMap<(String, String), Verbs> = BTreeMap::new();
    let mut changed = 0;
    for request in &all {
        let Some(change) = change(&old.answer(request), &new.answer(request)) else {
            continue;
        };
        changed += 1;
        let (path, verb) = path_and_verb(request);
        let verbs = by_path.entry((change, path)).or_default();
        let around = verbs.entry(verb).or_default();
        around.insert(request.circumstances());
    }
    // Paths at which the same verbs change in the same way share a line.
    let mut shared: BTreeMap<(String, Vec<String>), Vec<String>> = BTreeMap::new();
    for ((change, path), verbs) in by_path {
        let verbs = verbs.into_iter().map(|(verb, around)| say(&verb, &around));
        shared
            .entry((change, verbs.collect()))
            .or_default()
            .push(path);
    }
    let total = all.len();
    let mut lines = vec![match changed {
        0 => format!("none of {total} made-up requests changes"),
        more => format!("{more} of {total} made-up requests change"),
    }];
    for ((change, verbs), paths) in shared {
        lines.push(format!("{}: {change}", paths.join(", ")));
        lines.push(format!("    {}", verbs.join(", ")));
    }
    if lines.iter().any(|line| line.contains("~elsewhere~")) {
        lines.push("/~elsewhere~ stands for what no rule names.".to_owned());
    }
    show::print(&lines);
    Ok(u8::from(changed > 0))
}

/// `allow -> deny EACCES (rule "x", line 7)`; where both allow, what is granted.
fn change(old: &Answer, new: &Answer) -> Option<String> {
    if (&old.errno, &old.grant) == (&new.errno, &new.grant) {
        return None;
    }
    let said = |answer: &Answer| {
        let effect = answer.grant.as_ref().map(show::effect);
        let effect = effect.filter(|effect| old.allowed && new.allowed && !effect.is_empty());
        let effect = effect.map_or_else(String::new, |effect| format!(" {effect}"));
        format!("{}{effect}", show::verdict(answer))
    };
    let (was, now) = (said(old), said(new));
    Some(format!("{was} -> {now} ({})", show::reason(new)))
}

/// A request's names, and its words without them.
fn path_and_verb(request: &Request) -> (String, String) {
    let names = request.names.first().into_iter().chain(&request.second);
    let names: Vec<String> = names.map(|name| escaped(name)).collect();
    let phrase = request.phrase();
    let words = phrase.split(' ').enumerate();
    // Names follow the verb.
    let verb = words.filter(|(at, _)| !(1..=names.len()).contains(at));
    let verb: Vec<&str> = verb.map(|(_, word)| word).collect();
    (names.join(" to "), verb.join(" "))
}

/// A verb; with its circumstances unless it changes for an ordinary file too.
fn say(verb: &str, around: &BTreeSet<String>) -> String {
    let ordinary = around
        .iter()
        .any(|around| around.is_empty() || around == "file");
    match around.first().filter(|_| !ordinary) {
        Some(first) if verb != "readdir" && verb != "opendir" && verb != "rmdir" => {
            format!("{verb} ({first})")
        }
        Some(_) | None => verb.to_owned(),
    }
}
