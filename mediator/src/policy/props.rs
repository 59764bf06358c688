//! Against a naive evaluator that was written by itself, and the promises of carrying.

use proptest::prelude::*;

use super::model::{Action, Modify, Ops, Policy, Rule};
use super::paths::Glob;
use super::{Facts, Judged, Requester};
use crate::ids::HostUid;
use crate::op::{Op, Word, Words, rows};

#[derive(Clone, Debug)]
pub(super) struct Naive {
    paths: Vec<String>,
    words: u16,
    /// 0 allow, 1 deny, 2 hide, 3 allow with another owner.
    action: u8,
}

fn name() -> impl Strategy<Value = String> {
    "[ab]{1,2}"
}

impl Naive {
    pub(super) fn words(&self) -> Words {
        Words(self.words)
    }

    pub(super) fn is_for_the_root_alone(&self) -> bool {
        !self.paths.is_empty() && self.paths.iter().all(|path| path == "/")
    }

    pub(super) fn action(&self) -> u8 {
        self.action
    }
}

pub(super) fn path() -> impl Strategy<Value = String> {
    prop::collection::vec(name(), 0..4).prop_map(|parts| format!("/{}", parts.join("/")))
}

pub(super) fn pattern() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        3 => name(),
        2 => Just("**".to_owned()),
        1 => Just("*".to_owned()),
        1 => Just("a*".to_owned()),
        1 => Just("?".to_owned()),
        1 => Just("*b".to_owned()),
    ];
    prop::collection::vec(part, 0..4).prop_map(|parts| format!("/{}", parts.join("/")))
}

pub(super) fn rules() -> impl Strategy<Value = Vec<Naive>> {
    let paths = prop::collection::vec(pattern(), 0..3);
    let rule = (paths, 1..Words::ANY.0, 0..4u8);
    let rule = rule.prop_map(|(paths, words, action)| Naive {
        paths,
        words,
        action,
    });
    prop::collection::vec(rule, 0..5)
}

pub(super) fn compile(rules: &[Naive], default_allow: bool) -> Policy {
    let rule = |naive: &Naive| Rule {
        line: 0,
        name: None,
        paths: naive
            .paths
            .iter()
            .map(|path| Glob::path(path).unwrap())
            .collect(),
        words: Words(naive.words),
        ops: Ops::default(),
        when: Vec::new(),
        action: match naive.action {
            0 => Action::Allow(Modify::default()),
            1 => Action::Deny(None),
            2 => Action::Hide,
            _ => Action::Allow(Modify {
                uid: Some(HostUid(7)),
                ..Modify::default()
            }),
        },
        log: false,
        follows: false,
        totals: super::Totals::default(),
    };
    let rules = rules.iter().map(rule).collect();
    Policy {
        default_allow,
        rules,
        ..Policy::parity()
    }
    .compiled()
}

pub(super) fn text_matches(glob: &[u8], text: &[u8]) -> bool {
    match glob {
        [] => text.is_empty(),
        [b'*', rest @ ..] => (0..=text.len()).any(|skip| text_matches(rest, &text[skip..])),
        [b'?', rest @ ..] => !text.is_empty() && text_matches(rest, &text[1..]),
        [byte, rest @ ..] => text.first() == Some(byte) && text_matches(rest, &text[1..]),
    }
}

fn parts_match(globs: &[&str], parts: &[&str]) -> bool {
    match globs {
        [] => parts.is_empty(),
        ["**", rest @ ..] => (0..=parts.len()).any(|skip| parts_match(rest, &parts[skip..])),
        [glob, rest @ ..] => {
            !parts.is_empty()
                && text_matches(glob.as_bytes(), parts[0].as_bytes())
                && parts_match(rest, &parts[1..])
        }
    }
}

fn split(path: &str) -> Vec<&str> {
    path.split('/').filter(|part| !part.is_empty()).collect()
}

pub(super) fn path_matches(pattern: &str, path: &str) -> bool {
    parts_match(&split(pattern), &split(path))
}

/// 0 allow, 1 deny, 2 hide, 3 allow with another owner; 9: nothing holds.
fn naive_verdict(rules: &[Naive], path: &str, word: Word) -> u8 {
    for rule in rules {
        let here = rule.paths.is_empty() || rule.paths.iter().any(|at| path_matches(at, path));
        if here && rule.words & word as u16 != 0 {
            return rule.action;
        }
    }
    9
}

fn ask<O: Judged<Ask = ()>>(policy: &Policy, word: Word, paths: &[&str]) -> Result<(), i32> {
    let names: Vec<&[u8]> = paths.iter().map(|path| path.as_bytes()).collect();
    let requester = Requester {
        uid: 1,
        gid: 1,
        pid: 1,
    };
    let words = Words::of(word);
    let facts = Facts {
        names: &names,
        words,
        ..Facts::of(O::OP, requester)
    };
    let decided = policy.decide::<O>(&facts, ());
    decided
        .map(|_| ())
        .map_err(|refusal| refusal.errno.raw_os_error())
}

/// How strict a policy is at a path, word by word; equal numbers mean the same.
fn strictness(rules: &[Naive], default_allow: bool, path: &str, word: Word) -> u8 {
    match naive_verdict(rules, path, word) {
        9 if default_allow => 0,
        9 => 1,
        verdict => verdict,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn glob_agrees_with_a_naive_one(pattern in pattern(), path in path()) {
        let got = Glob::path(&pattern).unwrap().matches(path.as_bytes());
        prop_assert_eq!(got, path_matches(&pattern, &path));
    }

    #[test]
    fn glob_that_covers_matches_all_that_the_other_does(a in pattern(), b in pattern(), path in path()) {
        let covers = Glob::path(&a).unwrap().covers(&Glob::path(&b).unwrap());
        prop_assert!(!(covers && path_matches(&b, &path)) || path_matches(&a, &path));
    }

    #[test]
    fn decision_agrees_with_a_naive_one(
        rules in rules(), allow in any::<bool>(), one in path(), other in path(),
    ) {
        let policy = compile(&rules, allow);
        for (word, got) in [
            (Word::Remove, ask::<rows::Unlink>(&policy, Word::Remove, &[&one, &other])),
            (Word::Write, ask::<rows::Write>(&policy, Word::Write, &[&one, &other])),
            (Word::List, ask::<rows::Readdir>(&policy, Word::List, &[&one, &other])),
        ] {
            let verdicts = [&one, &other].map(|path| strictness(&rules, allow, path, word));
            let want = if verdicts.contains(&2) {
                Err(libc::ENOENT)
            } else if verdicts.contains(&1) {
                Err(libc::EACCES)
            } else {
                Ok(())
            };
            prop_assert_eq!(got, want, "{:?}", word);
        }
    }

    #[test]
    fn way_is_open_exactly_above_what_a_rule_could_allow(rules in rules(), at in path(), below in path()) {
        let policy = compile(&rules, false);
        let got = ask::<rows::Lookup>(&policy, Word::Look, &[&at]);
        let deep = if at == "/" { below.clone() } else { format!("{at}{below}") };
        let leads = deep != at && below != "/" && rules.iter().any(|rule| {
            matches!(rule.action, 0 | 3) && rule.paths.iter().any(|glob| path_matches(glob, &deep))
        });
        match naive_verdict(&rules, &at, Word::Look) {
            9 if leads => prop_assert_eq!(got, Ok(())),
            0 | 3 => prop_assert_eq!(got, Ok(())),
            1 => prop_assert_eq!(got, Err(libc::EACCES)),
            2 => prop_assert_eq!(got, Err(libc::ENOENT)),
            _ => {}
        }
    }

    #[test]
    fn carried_tree_finds_no_looser_rule_anywhere_below(
        rules in rules(), allow in any::<bool>(), old in path(), new in path(),
        below in prop::collection::vec(path(), 1..8),
    ) {
        let policy = compile(&rules, allow);
        let carried = policy.carries(old.as_bytes(), new.as_bytes(), true).is_ok();
        let file = policy.carries(old.as_bytes(), new.as_bytes(), false).is_ok();
        prop_assert!(!carried || file, "what a tree may, its top may");
        if old == new {
            prop_assert!(carried);
        }
        let at = |top: &str, rest: &str| match (top, rest) {
            (top, "/") => top.to_owned(),
            ("/", rest) => rest.to_owned(),
            (top, rest) => format!("{top}{rest}"),
        };
        let rests = below.iter().map(|rest| (rest.as_str(), carried)).chain([("/", file)]);
        for (rest, held) in rests {
            for word in [Word::Look, Word::Write, Word::Owner] {
                let before = strictness(&rules, allow, &at(&old, rest), word);
                let after = strictness(&rules, allow, &at(&new, rest), word);
                let kept = match before {
                    0 => true,
                    1 | 2 => matches!(after, 1 | 2),
                    _ => matches!(after, 1..=3),
                };
                prop_assert!(!held || kept, "{rest} {word:?}: {before} became {after}");
            }
        }
    }

    #[test]
    fn facts_that_are_not_needed_change_nothing(rules in rules(), allow in any::<bool>(), at in path()) {
        let policy = compile(&rules, allow);
        if !policy.needs(Op::Unlink).path {
            let with = ask::<rows::Unlink>(&policy, Word::Remove, &[&at]);
            prop_assert_eq!(with, ask::<rows::Unlink>(&policy, Word::Remove, &[]));
        }
        if !policy.needs(Op::Lookup).path {
            let with = ask::<rows::Lookup>(&policy, Word::Look, &[&at]);
            prop_assert_eq!(with, ask::<rows::Lookup>(&policy, Word::Look, &[]));
        }
    }
}
