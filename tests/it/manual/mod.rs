//! The manual: every statement with a tag has tests that exist, and pages refer to pages that do.

mod policy;
mod semantics;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::common::{ours, stderr};

/// The tests of each statement, by its tag: names of tests, or, behind `guest `, the beginnings of
/// probes of tools/guest, whose outcome in a real guest is compared with QEMU's as root.
type Table = &'static [(&'static str, &'static [&'static str])];

const PAGES: [(&str, Table); 2] = [
    ("virtfs-mediator-policy.5", policy::TESTS),
    ("virtfs-mediator-semantics.7", semantics::TESTS),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Files below a directory whose names end so.
fn files(below: &Path, suffix: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut left = vec![below.to_owned()];
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path);
            } else if path.to_str().unwrap().ends_with(suffix) {
                found.push(path);
            }
        }
    }
    found
}

/// The functions that are marked as tests, here and in the mediator's crate.
fn tests() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for below in ["src", "tests", "mediator/src", "mediator/tests"] {
        for file in files(&root().join(below), ".rs") {
            let text = fs::read_to_string(file).unwrap();
            let mut marked = false;
            for line in text.lines().map(str::trim) {
                if line == "#[test]" {
                    marked = true;
                } else if let Some(rest) = line.strip_prefix("fn ") {
                    let name = rest.split(['(', '<']).next().unwrap();
                    if std::mem::take(&mut marked) {
                        found.insert(name.to_owned());
                    }
                }
            }
        }
    }
    found
}

/// Probes of the guest as `section/name`, names of several up to what differs.
fn probes() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for file in files(&root().join("tools/guest/probes"), ".probes") {
        let text = fs::read_to_string(file).unwrap();
        let mut section = "";
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix('[') {
                section = rest.split([']', ' ']).next().unwrap();
            } else if let Some((name, _)) = line.split_once(':')
                && !line.starts_with('#')
            {
                let name = name.split('{').next().unwrap();
                found.insert(format!("{section}/{name}"));
            }
        }
    }
    found
}

fn page(name: &str) -> String {
    let path = root().join("tools/man").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn each_statement_of_the_manual_has_a_test_that_exists() {
    let (tests, probes) = (tests(), probes());
    assert!(tests.len() > 300 && probes.len() > 300);
    for (name, table) in PAGES {
        let text = page(name);
        let tags = text.lines().filter_map(|line| line.strip_prefix(".It ["));
        let tags: Vec<&str> = tags.filter_map(|tag| tag.strip_suffix(']')).collect();
        let stated: BTreeSet<&str> = tags.iter().copied().collect();
        assert_eq!(stated.len(), tags.len(), "{name}: a tag twice");
        let tested: BTreeSet<&str> = table.iter().map(|(tag, _)| *tag).collect();
        assert_eq!(stated, tested, "{name}");
        for (tag, named) in table {
            assert!(!named.is_empty(), "{name}: {tag}");
            for test in *named {
                let there = match test.strip_prefix("guest ") {
                    Some(probe) => probes.contains(probe),
                    None => tests.contains(*test),
                };
                assert!(there, "{name}: {tag}: there is no test {test}");
            }
        }
        // A tag that is referred to is there.
        for (tag, _) in text
            .split('[')
            .skip(1)
            .filter_map(|rest| rest.split_once(']'))
        {
            let looks_like_one = tag.len() >= 2
                && tag.starts_with(|first: char| first.is_ascii_uppercase())
                && tag.chars().skip(1).all(|rest| rest.is_ascii_digit());
            assert!(
                !looks_like_one || tested.contains(tag),
                "{name}: [{tag}] is no statement"
            );
        }
    }
}

#[test]
fn pages_refer_to_pages_that_exist() {
    let mut ours = BTreeMap::new();
    for path in files(&root().join("tools/man"), "") {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if let Some((title, section)) = name.rsplit_once('.')
            && section.len() == 1
        {
            ours.insert(
                format!("{title} {section}"),
                fs::read_to_string(&path).unwrap(),
            );
        }
    }
    assert!(ours.len() > 20, "{:?}", ours.keys());
    for (name, text) in &ours {
        for line in text.lines() {
            let line = line.replace("\\-", "-");
            // `.Xr NAME SECTION` of mdoc, `.BR NAME (SECTION)` of man.
            let words: Vec<&str> = line.split_whitespace().collect();
            let ([".Xr", title, section, ..] | [".BR", title, section, ..]) = words[..] else {
                continue;
            };
            let section = section.trim_matches(|c: char| !c.is_ascii_digit());
            if title.starts_with("virtfs-mediator") && section.len() == 1 {
                let wanted = format!("{title} {section}");
                assert!(
                    ours.contains_key(&wanted),
                    "{name}: there is no page {wanted}"
                );
            }
        }
    }
}

/// The sources as one text, literals that go over several lines being joined.
fn sources() -> String {
    let mut all = String::new();
    for below in ["src", "mediator/src"] {
        for file in files(&root().join(below), ".rs") {
            let mut goes_on = false;
            for line in fs::read_to_string(file).unwrap().lines() {
                let line = if goes_on { line.trim_start() } else { line };
                goes_on = line.ends_with('\\');
                all.push_str(line.trim_end_matches('\\'));
                if !goes_on {
                    all.push('\n');
                }
            }
        }
    }
    all
}

#[test]
fn messages_that_the_manual_explains_are_the_program_s() {
    let sources = sources();
    let page = page("virtfs-mediator.8");
    let messages: Vec<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix(".It Sy "))
        .collect();
    assert!(messages.len() >= 15, "{messages:?}");
    for message in messages {
        for part in message.split("...\\&") {
            let part = part.trim_start_matches(',').trim();
            assert!(
                !part.is_empty() || message.contains("..."),
                "a message without words"
            );
            assert!(
                sources.contains(part),
                "'{part}' of '{message}' is said nowhere"
            );
        }
    }
}

/// The units that a text names, `virtfs-mediator@NAME.service` for one.
fn units(text: &str) -> Vec<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && !"-.@%".contains(c));
    words
        .filter(|word| word.starts_with("virtfs-mediator"))
        .map(|word| word.trim_end_matches('.'))
        .filter(|word| word.ends_with(".service") || word.ends_with(".socket"))
        .map(|word| match word.split_once('@') {
            Some((name, rest)) => {
                let (_, suffix) = rest.rsplit_once('.').unwrap_or_default();
                format!("{name}@.{suffix}")
            }
            None => word.to_owned(),
        })
        .collect()
}

#[test]
fn units_that_messages_and_pages_name_exist() {
    let mut text = sources();
    for path in files(&root().join("tools/man"), "") {
        text.push_str(&fs::read_to_string(path).unwrap());
    }
    let named: BTreeSet<String> = units(&text).into_iter().collect();
    assert!(named.len() >= 2, "{named:?}");
    for unit in named {
        let there = root().join("tools/systemd").join(&unit).exists();
        assert!(there, "{unit} is no unit of tools/systemd");
    }
}

/// Blocks that are marked so are policies; other blocks are commands.
#[test]
fn policies_in_the_manual_have_no_mistake() {
    let directory = tempfile::tempdir().unwrap();
    let mut checked = 0;
    for path in files(&root().join("tools/man"), "") {
        let text = fs::read_to_string(&path).unwrap();
        let blocks = text.split(".\\\" policy\n").skip(1);
        for block in blocks {
            let (_, rest) = block.split_once('\n').unwrap();
            let (policy, _) = rest.split_once("\n.Ed").unwrap();
            let file = directory.path().join(format!("{checked}.toml"));
            // Users of the page's host; a number needs none.
            fs::write(&file, policy.replace("\"vm-web\"", "61234")).unwrap();
            let output = ours([Path::new("policy"), Path::new("check"), &file]);
            assert!(
                output.status.success(),
                "{}: {policy}\n{}",
                path.display(),
                stderr(&output)
            );
            checked += 1;
        }
    }
    assert!(checked > 0);
}
