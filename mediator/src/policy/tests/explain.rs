//! An explanation says what the engine does.

use proptest::prelude::*;

use super::super::model::{Action, Condition, Number, Whose};
use super::super::props::{compile, path, rules};
use super::super::*;
use super::policy;
use crate::ids::*;
use crate::op::*;

const WHO: Requester = Requester {
    uid: 1,
    gid: 1,
    pid: 0,
};

#[allow(
    clippy::wildcard_enum_match_arm,
    reason = "the others have nothing of their own"
)]
pub(crate) fn ask_for(op: Op) -> AnyAsk {
    let owner = GuestOwner {
        uid: GuestUid(1),
        gid: GuestGid(1),
    };
    let birth = |kind| {
        AnyAsk::Birth(BirthAsk {
            requester: owner,
            kind,
            mode: Mode::new(if kind == FileKind::Symlink {
                0o777
            } else {
                0o4755
            }),
            open: OpenAs {
                read: kind == FileKind::Regular,
                ..OpenAs::default()
            },
        })
    };
    match op {
        Op::Create => birth(FileKind::Regular),
        Op::Mknod => birth(FileKind::Fifo),
        Op::Mkdir => birth(FileKind::Directory),
        Op::Symlink => birth(FileKind::Symlink),
        Op::Open => AnyAsk::Open(OpenAs {
            read: true,
            ..OpenAs::default()
        }),
        Op::Setattr => AnyAsk::Changes(ChangesAsk {
            uid: Some(GuestUid(0)),
            gid: None,
            mode: Some(Mode::new(0o600)),
            size: None,
            atime: SetTime::Omit,
            mtime: SetTime::Now,
        }),
        Op::Rename => AnyAsk::Rename(RenameHow::Replace),
        Op::Setxattr | Op::Getxattr | Op::Removexattr => {
            AnyAsk::Xattr(XattrName::new(b"user.a").unwrap())
        }
        _ => AnyAsk::Nothing,
    }
}

#[allow(
    clippy::wildcard_enum_match_arm,
    reason = "the others have nothing of their own"
)]
pub(crate) fn request(op: Op, names: &[String]) -> Request {
    let facts = Facts::of(op, WHO);
    let words = match op {
        Op::Setattr => Words::NONE,
        Op::Open | Op::CopyFileRange => Words::of(Word::Read),
        _ => op.words(),
    };
    Request {
        words,
        names: names.iter().map(|name| name.clone().into_bytes()).collect(),
        ..Request::of(&facts, ask_for(op))
    }
}

prop_compose! {
    /// Any request whose parts belong together.
    pub(crate) fn requests()(
        op in prop::sample::select(Op::ALL),
        names in prop::collection::vec(path(), 1..3),
        second in path(),
        kind in prop::option::of(prop::sample::select(&[FileKind::Regular, FileKind::Directory][..])),
        nlink in prop::option::of(1..3u32),
        birth in any::<bool>(),
    ) -> Request {
        let two = matches!(op, Op::Rename | Op::Link);
        Request {
            second: two.then(|| second.into_bytes()),
            target: (op == Op::Symlink).then(|| b"../t".to_vec()),
            kind, nlink, birth,
            xattr: (op == Op::Setxattr).then(|| (b"user.a".to_vec(), 3)),
            ..request(op, &names)
        }
    }
}

fn conditions() -> impl Strategy<Value = Vec<Condition>> {
    let one = prop_oneof![
        Just(Condition::Kind(vec![FileKind::Regular])),
        any::<bool>().prop_map(Condition::Birth),
        Just(Condition::Within {
            what: Number::Nlink,
            min: 2,
            max: 9
        }),
        Just(Condition::Owner {
            whose: Whose::Requester,
            uids: vec![1],
            gids: vec![]
        }),
    ];
    prop::collection::vec(one, 0..2)
}

/// What the decisive steps come to, put together by hand.
fn outcome(explanation: &Explanation) -> (bool, Option<u32>) {
    let number = |step: &Step| step.rule.as_ref().map(|rule| rule.number);
    let mut refused = None;
    let mut allowed = None;
    let mut hidden_names = Vec::new();
    for step in explanation.decisive_steps() {
        let at = (&step.name, step.role);
        if hidden_names.contains(&at) {
            continue;
        }
        match step.outcome {
            Outcome::Hide => {
                hidden_names.push(at);
                refused = Some(number(step));
            }
            Outcome::Deny | Outcome::DenyByDefault => {
                refused.get_or_insert(number(step));
            }
            Outcome::Allow | Outcome::AllowByDefault | Outcome::AllowAsWay | Outcome::Pretend => {
                allowed = allowed.or(number(step))
            }
        }
    }
    match refused {
        Some(rule) => (false, rule),
        None => (true, allowed),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn explanation_comes_to_what_the_engine_decides(
        rules in rules(), allow in any::<bool>(), request in requests(),
        when in prop::collection::vec(conditions(), 5),
    ) {
        let mut policy = compile(&rules, allow);
        for (rule, when) in policy.rules.iter_mut().zip(when) {
            if rule.action != Action::Hide {
                rule.when = when;
            }
        }
        let policy = policy.compiled();
        let explanation = policy.explain(&request);
        let (allowed, rule) = outcome(&explanation);
        match policy.decide_request(&request) {
            Ok(granted) => {
                prop_assert!(explanation.answer.allowed);
                prop_assert_eq!((true, granted.rule.map(|rule| rule + 1)), (allowed, rule));
            }
            Err(refusal) => {
                prop_assert!(!explanation.answer.allowed);
                prop_assert_eq!(explanation.answer.errno, Some(errno_symbol(refusal.errno)));
                let carried = refusal.why.starts_with("it would leave");
                let before = explanation.steps.is_empty();
                prop_assert!(carried || before || (false, refusal.rule.map(|rule| rule + 1)) == (allowed, rule));
            }
        }
        let mut deciding: Vec<u32> = explanation.steps.iter().filter_map(|step| Some(step.rule.as_ref()?.number - 1)).collect();
        deciding.sort_unstable();
        deciding.dedup();
        prop_assert_eq!(policy.deciding_rules(&request), deciding);
        for step in &explanation.steps {
            let first = step.rules.iter().position(|tried| matches!(tried.fit, Fit::Decides | Fit::TooLate));
            let number = step.rule.as_ref().map(|rule| rule.number as usize);
            prop_assert_eq!(first.map(|at| at + 1), number, "the first that holds decides");
        }
    }
}

#[test]
fn rule_that_does_not_hold_is_told_with_the_predicate_and_the_fact() {
    let policy = policy(
        "default = \"deny\"\n\
         [[rule]]\npath = \"/b\"\ndo = \"remove\"\naction = \"allow\"\n\
         [[rule]]\npath = \"/a\"\ndo = \"look\"\naction = \"allow\"\n\
         [[rule]]\npath = \"/a\"\ndo = \"remove\"\nwhen = { type = \"symlink\" }\naction = \"allow\"\n\
         [[rule]]\nname = \"old\"\npath = \"/a\"\ndo = \"remove\"\nwhen = { nlink = { min = 2 } }\naction = \"allow\"\n",
    );
    let request = Request {
        kind: Some(FileKind::Regular),
        nlink: Some(2),
        ..request(Op::Unlink, &["/a".to_owned()])
    };
    let explanation = policy.explain(&request);
    let fits: Vec<&Fit> = explanation.steps[0]
        .rules
        .iter()
        .map(|tried| &tried.fit)
        .collect();
    let unmet = Fit::Unmet {
        key: "type",
        fact: "file".to_owned(),
    };
    assert_eq!(
        fits,
        [&Fit::OtherPath, &Fit::OtherWords, &unmet, &Fit::Decides]
    );
    let rule = explanation.answer.rule.unwrap();
    assert_eq!(
        (rule.number, rule.line, rule.name.as_deref()),
        (4, Some(15), Some("old"))
    );
}

#[test]
fn way_to_something_allowed_is_told_as_such() {
    let policy = policy("default = \"deny\"\n[[rule]]\npath = \"/a/b\"\naction = \"allow\"\n");
    let way = policy.explain(&request(Op::Lookup, &["/a".to_owned()]));
    assert_eq!(way.answer.why, "the way to something allowed");
    assert_eq!(way.steps[0].outcome, Outcome::AllowAsWay);
    let flush = policy.answer(&request(Op::Flush, &["/c".to_owned()]));
    assert_eq!(flush.why, "it needs no word");
}

#[test]
fn grant_is_told_as_the_export_will_be_asked() {
    let policy = policy(
        "default = \"allow\"\nsquash = { who = \"all\", uid = 7, gid = 8 }\n\
         [[rule]]\ndo = \"make\"\naction = \"allow\"\nmode = { strip = \"0022\" }\nowner = { gid = 9 }\n",
    );
    let explanation = policy.explain(&request(Op::Create, &["/a".to_owned()]));
    let grant = explanation.answer.grant.unwrap();
    assert_eq!((grant.uid, grant.gid), (Some(7), Some(9)));
    assert_eq!(grant.mode.as_deref(), Some("0755"));
    assert_eq!(grant.open, ["read"]);
}

#[test]
fn floor_is_told_before_any_rule() {
    let policy = policy("default = \"allow\"\nreadonly = true\n");
    let explanation = policy.explain(&request(Op::Unlink, &["/a".to_owned()]));
    assert_eq!(explanation.answer.errno.as_deref(), Some("EROFS"));
    assert!(explanation.steps.is_empty());
}

#[test]
fn explanation_of_a_hostile_name_is_escaped() {
    let policy = policy("default = \"deny\"\n");
    let explanation = policy.explain(&request(Op::Unlink, &["/\x1b[2J".to_owned()]));
    assert_eq!(explanation.steps[0].name.as_deref(), Some("/\\x1b[2J"));
}
