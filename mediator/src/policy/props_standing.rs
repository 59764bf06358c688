//! What is decided by an earlier verdict is what the rules would say.

use proptest::prelude::*;

use super::props::path;
use super::tests::Nobody;
use super::{Facts, Judged, Policy, Requester, Standing};
use crate::ids::{FileKind, GuestGid, GuestUid, HostGid, HostOwner, HostUid, Mode};
use crate::op::{ChangesAsk, OpenAs, Operation, SetTime, Word, Words, rows};

/// A rule as a policy file has it: with conditions on what a file keeps, and on what it does not.
fn rule() -> impl Strategy<Value = String> {
    let path = prop_oneof![
        Just(""),
        Just("path = \"/**\"\n"),
        Just("path = \"/a/**\"\n"),
        Just("path = [\"/b\", \"/**/a\"]\n"),
    ];
    let words = prop_oneof![
        Just("\"any\""),
        Just("[\"look\", \"list\"]"),
        Just("[\"read\", \"getattr\"]"),
        Just("\"write\""),
        Just("[\"owner\", \"mode\", \"time\"]"),
        Just("\"change\""),
    ];
    let when = prop_oneof![
        4 => Just(""),
        1 => Just("when = { type = \"file\" }\n"),
        1 => Just("when = { name = \"a*\" }\n"),
        1 => Just("when = { size = { max = 5 } }\n"),
        1 => Just("when = { owner = { uid = 3 } }\n"),
        1 => Just("when = { requester = { uid = 3 } }\n"),
        1 => Just("when = { offset = { min = 5 } }\n"),
        1 => Just("when = { flags = { any = [\"write\"] } }\n"),
        1 => Just("when = { birth = true }\n"),
        1 => Just("when = { nlink = { min = 2 } }\n"),
    ];
    let action = prop_oneof![
        4 => Just("action = \"allow\"\n"),
        2 => Just("action = \"deny\"\n"),
        1 => Just("action = \"allow\"\nlog = \"all\"\n"),
        1 => Just("action = \"allow\"\nowner = { uid = 7 }\n"),
        1 => Just("action = \"allow\"\nmode = { strip = \"0022\" }\n"),
        1 => Just("action = \"allow\"\nlimit = { file_size = 5 }\n"),
        1 => Just("action = \"allow\"\nlimit = { total = 5 }\n"),
    ];
    (path, words, when, action).prop_map(|(path, words, when, action)| {
        format!("[[rule]]\n{path}do = {words}\n{when}{action}")
    })
}

/// A policy that parses; what does not is drawn again.
fn policy() -> impl Strategy<Value = Policy> {
    let top = prop_oneof![
        6 => Just(""),
        1 => Just("set_id = \"deny\"\n"),
        1 => Just("mode = \"observe\"\n"),
        1 => Just("readonly = true\n"),
        1 => Just("map = [{ guest = 0, host = 0, count = 5 }]\n"),
        1 => Just("limit = { file_size = 5 }\n"),
    ];
    let rules = prop::collection::vec(rule(), 0..4);
    (any::<bool>(), top, rules).prop_filter_map("a mistake", |(allow, top, rules)| {
        let default = if allow { "allow" } else { "deny" };
        let text = format!("default = \"{default}\"\n{top}{}", rules.concat());
        Policy::parse("t", &text, &Nobody).ok()
    })
}

/// All that may differ between two requests about one file.
#[derive(Clone, Debug)]
struct Asking {
    what: u8,
    words: u8,
    size: u64,
    owner: u32,
    requester: u32,
    offset: u64,
    mode: u32,
    birth: bool,
    nlink: u32,
}

fn asking() -> impl Strategy<Value = Asking> {
    (
        0..9_u8,
        1..16_u8,
        (0..10_u64, 0..6_u32, 0..5_u32),
        0..10_u64,
        prop_oneof![Just(0o644), Just(0o4755), Just(0o777)],
        any::<bool>(),
        1..3_u32,
    )
        .prop_map(
            |(what, words, (size, owner, requester), offset, mode, birth, nlink)| Asking {
                what,
                words,
                size,
                owner,
                requester,
                offset,
                mode,
                birth,
                nlink,
            },
        )
}

impl Asking {
    fn facts<'a>(&self, op: crate::op::Op, names: &'a [&'a [u8]], kind: FileKind) -> Facts<'a> {
        let who = Requester {
            uid: self.requester,
            gid: 1,
            pid: 1,
        };
        Facts {
            names,
            kind: Some(kind),
            mode: Some(Mode::new(self.mode)),
            owner: Some(HostOwner {
                uid: HostUid(self.owner),
                gid: HostGid(1),
            }),
            size: Some(self.size),
            nlink: Some(self.nlink),
            offset: Some(self.offset),
            length: Some(3),
            birth: self.birth,
            ..Facts::of(op, who)
        }
    }

    fn changes(&self) -> ChangesAsk {
        let has = |bit: u8| self.words & bit != 0;
        ChangesAsk {
            uid: has(1).then_some(GuestUid(self.owner)),
            gid: has(1).then_some(GuestGid(9)),
            mode: has(2).then_some(Mode::new(self.mode)),
            size: has(4).then_some(self.size),
            atime: SetTime::Omit,
            mtime: if has(8) { SetTime::Now } else { SetTime::Omit },
        }
    }

    fn open(&self) -> OpenAs {
        OpenAs {
            read: self.words & 1 != 0 || self.words & 2 == 0,
            write: self.words & 2 != 0,
            append: self.words & 4 != 0,
            truncate: self.words & 8 != 0,
            ..OpenAs::default()
        }
    }

    /// What the verdict says beyond this request, after comparing it with what `earlier` says.
    fn judge(
        &self,
        policy: &Policy,
        names: &[&[u8]],
        kind: FileKind,
        earlier: Standing,
    ) -> Result<Standing, TestCaseError> {
        let plain = |op: crate::op::Op| op.words();
        match self.what {
            0 => self.compare::<rows::Getattr>(
                policy,
                names,
                kind,
                earlier,
                (plain(rows::Getattr::OP), ()),
            ),
            1 => self.compare::<rows::Lookup>(
                policy,
                names,
                kind,
                earlier,
                (plain(rows::Lookup::OP), ()),
            ),
            2 => self.compare::<rows::Read>(
                policy,
                names,
                kind,
                earlier,
                (plain(rows::Read::OP), ()),
            ),
            3 => self.compare::<rows::Write>(
                policy,
                names,
                kind,
                earlier,
                (plain(rows::Write::OP), ()),
            ),
            4 => {
                let open = self.open();
                self.compare::<rows::Open>(policy, names, kind, earlier, (open.words(), open))
            }
            5 => {
                let ask = self.changes();
                self.compare::<rows::Setattr>(policy, names, kind, earlier, (ask.words(), ask))
            }
            6 => self.compare::<rows::Readdir>(
                policy,
                names,
                kind,
                earlier,
                (plain(rows::Readdir::OP), ()),
            ),
            7 => {
                let word = if self.words & 1 == 0 {
                    Word::Read
                } else {
                    Word::Write
                };
                self.compare::<rows::CopyFileRange>(
                    policy,
                    names,
                    kind,
                    earlier,
                    (Words::of(word), ()),
                )
            }
            _ => self.compare::<rows::Fallocate>(
                policy,
                names,
                kind,
                earlier,
                (plain(rows::Fallocate::OP), ()),
            ),
        }
    }

    fn compare<O>(
        &self,
        policy: &Policy,
        names: &[&[u8]],
        kind: FileKind,
        earlier: Standing,
        (words, ask): (Words, O::Ask),
    ) -> Result<Standing, TestCaseError>
    where
        O: Judged,
        O::Grant: PartialEq + std::fmt::Debug,
    {
        let facts = Facts {
            words,
            ..self.facts(O::OP, names, kind)
        };
        let anew = policy.decide::<O>(&facts, ask);
        if let Some(again) = policy.decide_again::<O>(earlier, words, Some(kind), ask) {
            match (&again, &anew) {
                (Ok(again), Ok(anew)) => {
                    prop_assert_eq!(again.grant(), anew.grant());
                    prop_assert!(!anew.logs() && anew.pretended().is_empty());
                    prop_assert!(anew.areas().is_empty() && anew.observed().is_none());
                }
                (Err(again), Err(anew)) => prop_assert_eq!(again.errno, anew.errno),
                (again, anew) => {
                    prop_assert_eq!(again.as_ref().err(), anew.as_ref().err(), "one allows");
                }
            }
        }
        Ok(anew.map_or(Standing::NONE, |permit| permit.standing()))
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_stands_is_what_the_rules_would_say(
        policy in policy(), one in path(), other in prop::option::weighted(0.3, path()),
        asked in prop::collection::vec(asking(), 2..8), is_directory in any::<bool>(),
    ) {
        let kind = if is_directory { FileKind::Directory } else { FileKind::Regular };
        let names: Vec<&[u8]> = std::iter::once(&one).chain(&other).map(|name| name.as_bytes()).collect();
        let mut standing = Standing::NONE;
        for asking in asked {
            standing = standing.and(asking.judge(&policy, &names, kind, standing)?);
        }
    }
}

#[test]
fn verdict_stands_for_its_own_policy_only() {
    let text = "default = \"allow\"\n[[rule]]\npath = \"/b\"\naction = \"deny\"\ndo = \"write\"\n";
    let policy = || Policy::parse("t", text, &Nobody).unwrap();
    let (first, mut second) = (policy(), policy());
    let names: [&[u8]; 1] = [b"/a"];
    let who = Requester {
        uid: 1,
        gid: 1,
        pid: 1,
    };
    let facts = Facts {
        names: &names,
        kind: Some(FileKind::Regular),
        ..Facts::of(rows::Write::OP, who)
    };
    let standing = first.decide::<rows::Write>(&facts, ()).unwrap().standing();
    let again = |policy: &Policy| {
        let words = Words::of(Word::Write);
        policy
            .decide_again::<rows::Write>(standing, words, facts.kind, ())
            .is_some()
    };
    assert!(again(&first));
    assert!(!again(&second));
    // Another word of another operation was never asked about.
    let look = first.decide_again::<rows::Getattr>(standing, Words::of(Word::Look), facts.kind, ());
    assert!(look.is_none());
    // What makes a view read-only makes another policy.
    let standing = second.decide::<rows::Write>(&facts, ()).unwrap().standing();
    second.set_readonly();
    let words = Words::of(Word::Write);
    assert!(
        second
            .decide_again::<rows::Write>(standing, words, facts.kind, ())
            .is_none()
    );
}
