//! Whose data may go past the policy.

use proptest::prelude::*;

use super::conditions::mistakes;
use super::*;

fn judged(policy: &Policy, names: &[&str]) -> bool {
    let names: Vec<&[u8]> = names.iter().map(|name| name.as_bytes()).collect();
    policy.judges_data_of(&names)
}

#[test]
fn data_is_judged_each_time_where_an_open_does_not_say_all() {
    for (rule, at_a, at_b) in [
        ("action = \"deny\"", false, false),
        (
            "do = \"read\"\naction = \"deny\"\nwhen = { type = \"file\" }",
            false,
            false,
        ),
        (
            "do = \"read\"\naction = \"deny\"\nwhen = { offset = { min = 1 } }",
            true,
            false,
        ),
        (
            "do = \"write\"\naction = \"deny\"\nwhen = { length = { min = 1 } }",
            true,
            false,
        ),
        (
            "do = \"write\"\naction = \"allow\"\nwhen = { size = { max = 9 } }",
            true,
            false,
        ),
        (
            "do = \"owner\"\naction = \"deny\"\nwhen = { size = { min = 1 } }",
            false,
            false,
        ),
        (
            "do = \"write\"\naction = \"deny\"\nwhen = { flags = \"append\" }",
            false,
            false,
        ),
        (
            "do = \"write\"\naction = \"deny\"\nwhen = { birth = false }",
            true,
            false,
        ),
        (
            "do = \"write\"\naction = \"deny\"\nwhen = { owner = { uid = 0 } }",
            true,
            false,
        ),
        (
            "do = \"change\"\naction = \"deny\"\nwhen = { offset = { max = 9 } }",
            true,
            false,
        ),
        (
            "do = \"read\"\naction = \"deny\"\nwhen = { name = \"a\", offset = { max = 9 } }",
            true,
            false,
        ),
        (
            "do = \"read\"\naction = \"deny\"\nwhen = { name = \"x\", offset = { max = 9 } }",
            false,
            false,
        ),
        (
            "do = \"read\"\naction = \"allow\"\nlog = \"all\"",
            true,
            false,
        ),
        (
            "do = \"write\"\naction = \"allow\"\nlimit = { file_size = 1 }",
            true,
            false,
        ),
        (
            "do = \"write\"\naction = \"allow\"\nlimit = { total = 1 }",
            true,
            false,
        ),
    ] {
        let policy = policy(&format!(
            "default = \"allow\"\n[[rule]]\npath = \"/a\"\n{rule}\n"
        ));
        assert_eq!(judged(&policy, &["/a"]), at_a, "{rule}");
        assert_eq!(judged(&policy, &["/b"]), at_b, "{rule}");
        // The strictest name counts.
        assert_eq!(judged(&policy, &["/b", "/a"]), at_a, "{rule}");
    }
}

#[test]
fn earlier_rule_that_decides_alone_spares_the_question() {
    let policy = policy(
        "default = \"allow\"\n[[rule]]\npath = \"/free/**\"\ndo = \"any\"\naction = \"allow\"\n\
         [[rule]]\ndo = \"read\"\naction = \"deny\"\nwhen = { offset = { min = 1 } }\n",
    );
    assert_eq!(policy.judges_data(), DataJudgement::ByName);
    assert!(!judged(&policy, &["/free/x"]));
    assert!(judged(&policy, &["/x"]));
    assert!(judged(&policy, &["/free/x", "/x"]));
    assert!(judged(&policy, &[]), "no name is known");
}

#[test]
fn settings_of_the_view_count_where_they_can_say_no() {
    for (text, wanted) in [
        ("default = \"allow\"\n", DataJudgement::Never),
        (
            "default = \"allow\"\nreadonly = true\n",
            DataJudgement::Never,
        ),
        ("default = \"deny\"\n", DataJudgement::Never),
        (
            "default = \"allow\"\nstrict = false\n",
            DataJudgement::Never,
        ),
        (
            "default = \"allow\"\nstrict = true\n",
            DataJudgement::Always,
        ),
        (
            "default = \"allow\"\nmode = \"observe\"\n",
            DataJudgement::Never,
        ),
        (
            "default = \"deny\"\nmode = \"observe\"\n",
            DataJudgement::ByName,
        ),
        (
            "default = \"allow\"\nlimit = { file_size = 1 }\n",
            DataJudgement::ByName,
        ),
    ] {
        assert_eq!(policy(text).judges_data(), wanted, "{text}");
    }
    let limited = policy("default = \"allow\"\nlimit = { file_size = 1 }\n");
    assert!(judged(&limited, &["/a"]));
    let only_read = policy("default = \"allow\"\nreadonly = true\nlimit = { file_size = 1 }\n");
    assert!(!judged(&only_read, &["/a"]), "nothing is written");
    let observed = policy("default = \"deny\"\nmode = \"observe\"\n");
    assert!(judged(&observed, &["/a"]), "each is told");
}

#[test]
fn strict_is_for_the_view_as_a_whole() {
    let rule = "default = \"allow\"\n[[rule]]\naction = \"deny\"\nstrict = true\n";
    assert_eq!(mistakes(rule), ["4:1 `strict` is for the view as a whole"]);
    assert!(judged(
        &policy("default = \"allow\"\nstrict = true\n"),
        &["/a"]
    ));
}

/// One rule, as text.
fn rule() -> impl Strategy<Value = String> {
    let path = prop_oneof![
        Just(""),
        Just("path = \"/a\"\n"),
        Just("path = \"/d/**\"\n"),
        Just("path = [\"/a\", \"/d/b\"]\n"),
    ];
    let words = prop_oneof![
        Just("do = [\"read\"]\n"),
        Just("do = [\"write\"]\n"),
        Just("do = [\"read\", \"change\"]\n"),
        Just("do = \"any\"\n"),
        Just("do = [\"owner\"]\n"),
    ];
    let when = prop_oneof![
        3 => Just(""),
        1 => Just("when = { offset = { min = 4 } }\n"),
        1 => Just("when = { length = { max = 4 } }\n"),
        1 => Just("when = { size = { min = 4 } }\n"),
        1 => Just("when = { nlink = { min = 2 } }\n"),
        1 => Just("when = { birth = true }\n"),
        1 => Just("when = { name = \"b\" }\n"),
        1 => Just("when = { type = \"file\" }\n"),
        1 => Just("when = { type = \"directory\" }\n"),
        1 => Just("when = { flags = \"append\" }\n"),
    ];
    let action = prop_oneof![
        4 => Just("action = \"allow\"\n"),
        4 => Just("action = \"deny\"\n"),
        1 => Just("action = \"allow\"\nlog = \"all\"\n"),
        1 => Just("action = \"allow\"\nlimit = { file_size = 8 }\n"),
    ];
    (path, words, when, action)
        .prop_map(|(path, words, when, action)| format!("[[rule]]\n{path}{words}{when}{action}"))
}

fn head() -> impl Strategy<Value = String> {
    let default = prop_oneof![Just("allow"), Just("deny")];
    let more = prop_oneof![
        4 => Just(""),
        1 => Just("mode = \"observe\"\n"),
        1 => Just("readonly = true\n"),
        1 => Just("limit = { file_size = 8 }\n"),
    ];
    (default, more).prop_map(|(default, more)| format!("default = \"{default}\"\n{more}"))
}

/// What a request can tell, and what the log says of it.
fn answer<O: Judged<Ask = ()>>(policy: &Policy, facts: &Facts<'_>) -> String {
    match policy.decide::<O>(facts, ()) {
        Ok(permit) => format!(
            "{:?} {} {:?} {:?}",
            permit.rule(),
            permit.logs(),
            permit.observed(),
            permit.areas()
        ),
        Err(refusal) => format!("{refusal:?}"),
    }
}

proptest! {
    #[test]
    fn file_whose_data_is_not_judged_has_one_answer_to_every_read_and_write(
        head in head(),
        rules in prop::collection::vec(rule(), 0..5),
        names in prop::sample::subsequence(vec!["/a", "/d/b", "/d/c", "/x"], 1..3),
        asked in prop::collection::vec((0..9u64, 0..9u64, 0..9u64, 1..4u32, any::<bool>()), 1..6),
    ) {
        let text = format!("{head}{}", rules.concat());
        // Some rules can never hold; the parser refuses those.
        let Ok(policy) = Policy::parse("test", &text, &Nobody) else { return Ok(()) };
        prop_assume!(!judged(&policy, &names));
        let names: Vec<&[u8]> = names.iter().map(|name| name.as_bytes()).collect();
        let facts = |op, (offset, length, size, nlink, birth)| Facts {
            names: &names,
            kind: Some(FileKind::Regular),
            offset: Some(offset),
            length: Some(length),
            size: Some(size),
            nlink: Some(nlink),
            birth,
            ..Facts::of(op, CLIENT)
        };
        let first = (0, 1, 0, 1, false);
        let read = answer::<rows::Read>(&policy, &facts(Op::Read, first));
        let write = answer::<rows::Write>(&policy, &facts(Op::Write, first));
        for one in asked {
            prop_assert_eq!(&answer::<rows::Read>(&policy, &facts(Op::Read, one)), &read, "{}", text);
            prop_assert_eq!(&answer::<rows::Write>(&policy, &facts(Op::Write, one)), &write, "{}", text);
        }
        // What goes past the policy is neither told nor counted.
        for answer in [read, write] {
            prop_assert!(!answer.contains(" true ") && !answer.contains("Some(Refusal"), "{} {}", answer, text);
        }
    }
}
