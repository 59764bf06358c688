//! Any text as a policy file.
//!
//! Held: reading it never panics, each mistake is told at a place within the text and in its order,
//! and the same text is read the same twice. Of what can be read: no rule lifts the floor, no
//! refusal passes for a fault, `readonly` refuses every change, set-id bits and the id -1 are never
//! granted by themselves, a file with several names is judged by the strictest, what is hidden is
//! hidden from lookups and listings alike and cannot be carried into the open, and facts that
//! [`Policy::needs`] does not ask for change nothing.

mod asking;
mod floor;
mod rules;

use virtfs_mediator_core::policy::{Mistakes, Policy};

use crate::users::Nobody;

/// Paths besides those that the text itself speaks of.
const PATHS: [&str; 5] = ["/", "/a", "/a/b", "/a/b/x.key", "/dev"];
/// How many of the text's own paths are tried.
const OWN_PATHS: usize = 4;

/// Runs one input.
///
/// # Panics
///
/// With what was found.
pub fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match Policy::parse("policy.toml", &text, &Nobody) {
        Err(mistakes) => {
            check_places(&text, &mistakes);
            let again = Policy::parse("policy.toml", &text, &Nobody);
            assert_eq!(
                again.err(),
                Some(mistakes),
                "the same text was read otherwise"
            );
        }
        Ok(policy) => {
            let paths = paths(&text);
            for path in &paths {
                check_path(&policy, path.as_bytes(), &text);
            }
            for (one, other) in paths.iter().zip(paths.iter().skip(1)) {
                rules::check_pair(&policy, one.as_bytes(), other.as_bytes(), &text);
                rules::check_pair(&policy, other.as_bytes(), one.as_bytes(), &text);
            }
        }
    }
}

fn check_places(text: &str, mistakes: &Mistakes) {
    assert!(!mistakes.list.is_empty(), "no policy, and no mistake");
    let lines: Vec<&str> = text.split('\n').collect();
    let mut before = (0, 0);
    for mistake in &mistakes.list {
        let line = mistake.line.checked_sub(1).and_then(|at| lines.get(at));
        let line = line.unwrap_or_else(|| panic!("there is no line {}: {mistake:?}", mistake.line));
        let end = line.chars().count() + 1;
        assert!(
            (1..=end).contains(&mistake.column),
            "beyond the line: {mistake:?}"
        );
        assert!(!mistake.what.is_empty(), "a mistake without a word");
        let place = (mistake.line, mistake.column);
        assert!(before <= place, "out of order: {mistake:?}");
        before = place;
    }
    let told = mistakes.to_string();
    assert!(
        told.lines().count() >= mistakes.list.len(),
        "mistakes were left out: {told}"
    );
}

/// Some paths, those first that the text has in quotes.
fn paths(text: &str) -> Vec<String> {
    let quoted = text.split(['"', '\'']).filter(|word| word.starts_with('/'));
    // Stars become names, so that a pattern's own place is tried.
    let own = quoted.map(|word| word.replace("**", "a/b").replace(['*', '?', '[', ']'], "a"));
    own.take(OWN_PATHS)
        .chain(PATHS.map(str::to_owned))
        .collect()
}

fn check_path(policy: &Policy, path: &[u8], text: &str) {
    let names = [path];
    floor::check_floor(policy, &names);
    floor::check_owners(policy, &names);
    floor::check_set_id(policy, &names, text);
    floor::check_readonly(policy, &names);
    rules::check_needs(policy, &names);
    rules::check_xattrs(policy, &names);
    // Where rules are only observed nothing is hidden, and anything is carried.
    if !policy.observes() {
        rules::check_hidden(policy, path, text);
        rules::check_carried(policy, path, text);
    }
}
