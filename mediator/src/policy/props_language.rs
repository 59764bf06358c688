//! Pretending, observing and conditions on opens and names, against a naive evaluator; and that no
//! request carries a file, or a tree, out of its rules.

use proptest::prelude::*;

use super::model::{Action, Condition, Flags, Modify, Ops, Policy, Rule};
use super::paths::{Glob, NameGlob};
use super::props::{path, path_matches, pattern, text_matches};
use super::{Facts, Judged, Permit, Refusal, Requester};
use crate::ids::{FileKind, GuestUid, HostUid, Mode};
use crate::op::{Changes, ChangesAsk, Op, OpenAs, RenameHow, SetTime, Word, Words, rows};

const WHO: Requester = Requester {
    uid: 1,
    gid: 1,
    pid: 1,
};

/// From the mildest to the strictest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Plain,
    /// With another owner.
    Changed,
    Pretend,
    Deny,
    Hide,
}

#[derive(Clone, Debug)]
struct Naive {
    paths: Vec<String>,
    words: u16,
    verdict: Verdict,
    /// Flags of which one must be there, and that may not: bits as in `FLAGS`.
    flags: Option<(u8, u8)>,
    name: Option<String>,
}

const FLAGS: [Flags; 4] = [Flags::READ, Flags::WRITE, Flags::APPEND, Flags::TRUNCATE];

fn flag_set(bits: u8) -> Flags {
    let chosen = FLAGS.iter().enumerate();
    let chosen = chosen.filter(|(at, _)| bits & (1 << at) != 0);
    chosen.fold(Flags::default(), |set, (_, flag)| set.with(*flag))
}

fn rule() -> impl Strategy<Value = Naive> {
    let verdict = prop_oneof![
        Just(Verdict::Plain),
        Just(Verdict::Changed),
        Just(Verdict::Pretend),
        Just(Verdict::Deny),
        Just(Verdict::Hide),
    ];
    let flags = prop::option::weighted(0.3, (0..16u8, 0..16u8));
    let name = prop::option::weighted(
        0.3,
        "[ab*?]{1,2}".prop_filter("one star", |name| name != "**"),
    );
    let paths = prop::collection::vec(pattern(), 0..3);
    (paths, 1..=Words::ANY.0, verdict, flags, name).prop_map(
        |(paths, words, verdict, flags, name)| {
            let hides = verdict == Verdict::Hide;
            let pretended = [Word::Owner, Word::Mode, Word::Time].map(Words::of);
            let pretended = pretended.into_iter().fold(Words::NONE, Words::with).0;
            Naive {
                paths,
                // As the parser sees to: hiding is whole, and data is not pretended.
                words: match verdict {
                    Verdict::Hide => Words::ANY.0,
                    Verdict::Pretend => (words & pretended).max(Word::Owner as u16),
                    Verdict::Plain | Verdict::Changed | Verdict::Deny => words,
                },
                verdict,
                flags: flags.filter(|_| !hides),
                name: name.filter(|_| !hides),
            }
        },
    )
}

fn rules() -> impl Strategy<Value = Vec<Naive>> {
    prop::collection::vec(rule(), 0..5)
}

fn compile(rules: &[Naive], default_allow: bool, observe: bool) -> Policy {
    let rule = |naive: &Naive| {
        let glob = |path: &String| Glob::path(path).unwrap();
        let flags = naive.flags.map(|(any, none)| Condition::Flags {
            any: flag_set(any),
            all: Flags::default(),
            none: flag_set(none),
        });
        let name = naive.name.as_ref();
        let name = name.map(|name| Condition::Name(vec![NameGlob::new(name).unwrap()]));
        Rule {
            line: 0,
            name: None,
            paths: naive.paths.iter().map(glob).collect(),
            words: Words(naive.words),
            ops: Ops::default(),
            when: flags.into_iter().chain(name).collect(),
            action: match naive.verdict {
                Verdict::Plain => Action::Allow(Modify::default()),
                Verdict::Changed => Action::Allow(Modify {
                    uid: Some(HostUid(7)),
                    ..Modify::default()
                }),
                Verdict::Pretend => Action::Pretend,
                Verdict::Deny => Action::Deny(None),
                Verdict::Hide => Action::Hide,
            },
            log: false,
            follows: false,
            totals: super::Totals::default(),
        }
    };
    Policy {
        default_allow,
        observe,
        rules: rules.iter().map(rule).collect(),
        ..Policy::parity()
    }
    .compiled()
}

/// What the first rule that holds says of one word at one name.
fn naive(rules: &[Naive], allow: bool, path: &str, word: Word, open: Option<u8>) -> Verdict {
    let holds = |rule: &&Naive| {
        let here = rule.paths.is_empty() || rule.paths.iter().any(|at| path_matches(at, path));
        let last = path.rsplit('/').next().unwrap_or_default();
        let named = rule
            .name
            .as_ref()
            .is_none_or(|glob| !last.is_empty() && text_matches(glob.as_bytes(), last.as_bytes()));
        let opened = rule.flags.is_none_or(|(any, none)| {
            open.is_some_and(|open| (any == 0 || open & any != 0) && open & none == 0)
        });
        rule.words & word as u16 != 0 && here && named && opened
    };
    match rules.iter().find(holds) {
        Some(rule) => rule.verdict,
        None if allow => Verdict::Plain,
        None => Verdict::Deny,
    }
}

fn errno(word: Word) -> i32 {
    if matches!(word, Word::Owner | Word::Mode) {
        libc::EPERM
    } else {
        libc::EACCES
    }
}

/// The errno of the strictest verdict, in the order in which names and words are judged.
fn refusal(found: &[(Word, Verdict)]) -> Option<i32> {
    let denied = found.iter().find(|(_, verdict)| *verdict == Verdict::Deny);
    let hidden = found.iter().any(|(_, verdict)| *verdict == Verdict::Hide);
    if hidden {
        return Some(libc::ENOENT);
    }
    denied.map(|(word, _)| errno(*word))
}

fn decide<O: Judged>(
    policy: &Policy,
    names: &[&str],
    ask: O::Ask,
    with: impl FnOnce(&mut Facts<'_>),
) -> Result<Permit<O>, Refusal> {
    let names: Vec<&[u8]> = names.iter().map(|name| name.as_bytes()).collect();
    let mut facts = Facts::of(O::OP, WHO);
    facts.names = &names;
    facts.kind = Some(FileKind::Regular);
    with(&mut facts);
    policy.decide::<O>(&facts, ask)
}

fn changes(words: u16) -> (ChangesAsk, Vec<Word>) {
    let asked = [Word::Write, Word::Owner, Word::Mode, Word::Time];
    let asked = asked.into_iter().enumerate();
    let asked: Vec<Word> = asked
        .filter(|(at, _)| words & (1 << at) != 0)
        .map(|(_, word)| word)
        .collect();
    let has = |word| asked.contains(&word);
    let ask = ChangesAsk {
        uid: has(Word::Owner).then_some(GuestUid(5)),
        gid: None,
        mode: has(Word::Mode).then_some(Mode::new(0o600)),
        size: has(Word::Write).then_some(9),
        atime: SetTime::Omit,
        mtime: if has(Word::Time) {
            SetTime::Now
        } else {
            SetTime::Omit
        },
    };
    (ask, asked)
}

/// A request's answer, told by either evaluator.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    granted: Changes,
    pretended: Words,
    observed: Option<i32>,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn change_is_granted_pretended_or_refused_as_a_naive_evaluator_says(
        rules in rules(), allow in any::<bool>(), observe in any::<bool>(),
        one in path(), other in path(), words in 1..16u16,
    ) {
        let policy = compile(&rules, allow, observe);
        let (ask, asked) = changes(words);
        let got = decide::<rows::Setattr>(&policy, &[&one, &other], ask, |facts| {
            facts.words = Words::NONE;
        });
        let got = got.map(|permit| Told {
            granted: permit.grant(),
            pretended: permit.pretended(),
            observed: permit.observed().map(|no| no.errno.raw_os_error()),
        });
        let found: Vec<(Word, Verdict)> = [&one, &other]
            .into_iter()
            .flat_map(|path| asked.iter().map(move |word| (*word, path)))
            .map(|(word, path)| (word, naive(&rules, allow, path, word, None)))
            .collect();
        let pretends = |word| found.contains(&(word, Verdict::Pretend));
        // What one word's rule changes, it changes in the request.
        let changed = found.iter().any(|(_, verdict)| *verdict == Verdict::Changed);
        let owner = if changed { HostUid(7) } else { HostUid(5) };
        let keep = |word| asked.contains(&word) && !pretends(word);
        let pretended = asked.iter().filter(|word| pretends(**word));
        let told = Told {
            granted: Changes {
                uid: keep(Word::Owner).then_some(owner),
                gid: None,
                mode: keep(Word::Mode).then_some(Mode::new(0o600)),
                size: keep(Word::Write).then_some(9),
                atime: SetTime::Omit,
                mtime: if keep(Word::Time) { SetTime::Now } else { SetTime::Omit },
            },
            pretended: pretended.fold(Words::NONE, |all, word| all.with(Words::of(*word))),
            observed: refusal(&found),
        };
        let want = match refusal(&found) {
            Some(errno) if !observe => Err(errno),
            _ => Ok(told),
        };
        prop_assert_eq!(got.map_err(|no| no.errno.raw_os_error()), want);
    }

    #[test]
    fn open_is_judged_by_its_flags_as_a_naive_evaluator_says(
        rules in rules(), allow in any::<bool>(), at in path(), bits in 1..16u8,
    ) {
        let has = |flag| flag_set(bits).holds(flag);
        let open = OpenAs {
            read: has(Flags::READ),
            write: has(Flags::WRITE),
            append: has(Flags::APPEND),
            truncate: has(Flags::TRUNCATE),
            ..OpenAs::default()
        };
        let writes = open.write || open.append || open.truncate;
        let asked = [(open.read || !writes, Word::Read), (writes, Word::Write)];
        let asked = asked.into_iter().filter(|(is, _)| *is).map(|(_, word)| word);
        let found: Vec<_> = asked
            .map(|word| (word, naive(&rules, allow, &at, word, Some(bits))))
            .collect();
        let words = found.iter().fold(Words::NONE, |all, (word, _)| all.with(Words::of(*word)));
        let got = decide::<rows::Open>(&compile(&rules, allow, false), &[&at], open, |facts| {
            facts.words = words;
        });
        let got = got.map(|permit| permit.grant()).map_err(|no| no.errno.raw_os_error());
        prop_assert_eq!(got, refusal(&found).map_or(Ok(open), Err));
    }

    #[test]
    fn observed_policy_refuses_nothing_and_tells_all_that_an_enforced_one_refuses(
        rules in rules(), allow in any::<bool>(), one in path(), other in path(), words in 1..16u16,
    ) {
        let (ask, _) = changes(words);
        let ask_of = |observe| {
            let policy = compile(&rules, allow, observe);
            decide::<rows::Setattr>(&policy, &[&one, &other], ask, |facts| {
                facts.words = Words::NONE;
            })
        };
        let observed = ask_of(true).map(|permit| permit.observed());
        let enforced = ask_of(false).err();
        prop_assert_eq!(observed, Ok(enforced));
    }

    #[test]
    fn no_request_carries_a_file_or_tree_out_of_its_rules(
        rules in rules(), allow in any::<bool>(), old in path(), new in path(),
        below in prop::collection::vec(path(), 1..6), is_directory in any::<bool>(), bits in 1..16u8,
    ) {
        let policy = compile(&rules, allow, false);
        let kind = if is_directory { FileKind::Directory } else { FileKind::Regular };
        let rename = |old: &str, new: &str, how| {
            let facts = |facts: &mut Facts<'_>| {
                facts.kind = Some(kind);
            };
            let names = [old.as_bytes()];
            let mut asked = Facts::of(Op::Rename, WHO);
            facts(&mut asked);
            asked.names = &names;
            asked.second = Some(new.as_bytes());
            policy.decide::<rows::Rename>(&asked, how).is_ok()
        };
        let names = [old.as_bytes()];
        let link = Facts {
            names: &names,
            second: Some(new.as_bytes()),
            kind: Some(FileKind::Regular),
            ..Facts::of(Op::Link, WHO)
        };
        let moved = rename(&old, &new, RenameHow::Replace);
        // As the mediator asks: each way is a request of its own.
        let exchanged = rename(&old, &new, RenameHow::Exchange)
            && rename(&new, &old, RenameHow::Exchange);
        let linked = policy.decide::<rows::Link>(&link, ()).is_ok();

        let at = |top: &str, rest: &str| match (top, rest) {
            (top, "/") => top.to_owned(),
            ("/", rest) => rest.to_owned(),
            (top, rest) => format!("{top}{rest}"),
        };
        let looser = |from: &str, to: &str, rest: &str| {
            let words = [Word::Look, Word::Read, Word::Write, Word::Owner, Word::Remove];
            words.into_iter().find(|word| {
                let verdict = |top| naive(&rules, allow, &at(top, rest), *word, Some(bits));
                let (before, after) = (verdict(from), verdict(to));
                let kept = match before {
                    Verdict::Plain => true,
                    Verdict::Deny | Verdict::Hide => after >= Verdict::Deny,
                    Verdict::Changed | Verdict::Pretend => {
                        after == before || after >= Verdict::Deny
                    }
                };
                !kept
            })
        };
        let tree = below.iter().filter(|_| is_directory).map(String::as_str);
        for rest in tree.chain(["/"]) {
            if moved {
                prop_assert_eq!(looser(&old, &new, rest), None, "moved, at {}", rest);
            }
            if exchanged {
                prop_assert_eq!(looser(&old, &new, rest), None, "exchanged, at {}", rest);
                prop_assert_eq!(looser(&new, &old, rest), None, "and back, at {}", rest);
            }
        }
        if linked {
            prop_assert_eq!(looser(&old, &new, "/"), None, "linked");
        }
    }
}
