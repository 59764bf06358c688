//! Witnesses show what policies tell apart.

use proptest::prelude::*;

use super::super::props::{compile, rules};
use super::super::*;
use super::policy;
use crate::op::{Word, Words};

const WHO: Requester = Requester {
    uid: 1000,
    gid: 1000,
    pid: 0,
};

/// Requests whose verdict differs, in words.
fn differ(old: &Policy, new: &Policy) -> Vec<String> {
    let all = witnesses(&[old, new], WHO);
    let differs = |request: &&Request| {
        let (old, new) = (old.answer(request), new.answer(request));
        (old.errno, old.grant) != (new.errno, new.grant)
    };
    all.iter()
        .filter(differs)
        .map(|request| format!("{} ({})", request.phrase(), request.circumstances()))
        .collect()
}

#[test]
fn every_key_that_changes_an_answer_has_a_witness() {
    let rule = |rule: &str| format!("default = \"allow\"\n[[rule]]\naction = \"deny\"\n{rule}\n");
    let plain = policy("default = \"allow\"\n");
    for (text, witness) in [
        (
            "default = \"deny\"\n".to_owned(),
            "unlink /~elsewhere~ (file)",
        ),
        (
            "default = \"allow\"\nreadonly = true\n".to_owned(),
            "mkdir /~elsewhere~ 0755 (file)",
        ),
        (
            "default = \"allow\"\nset_id = \"deny\"\n".to_owned(),
            "chmod /~elsewhere~ 4755 (file)",
        ),
        (
            "default = \"allow\"\nsetgid_directories = \"deny\"\n".to_owned(),
            "mkdir /~elsewhere~ 2755 (file)",
        ),
        (
            "default = \"allow\"\nsquash = { who = \"root\", uid = 7 }\n".to_owned(),
            "chown /~elsewhere~ 0:0 (file)",
        ),
        (
            "default = \"allow\"\n[[xattr]]\nmatch = \"user.[xy]*\"\naction = \"deny\"\n"
                .to_owned(),
            "getxattr /~elsewhere~ user.xx (file)",
        ),
        (
            rule("path = \"/a/*.key\"\ndo = \"read\""),
            "open /a/x.key r (file)",
        ),
        (
            rule("path = \"/**/b\"\ndo = \"remove\""),
            "unlink /x/b (file)",
        ),
        (
            rule("path = \"/a/**\"\ndo = \"list\""),
            "readdir /a/x (directory)",
        ),
        (
            rule("path = \"/a\"\ndo = \"rename\""),
            "rename /a /~elsewhere~ (file)",
        ),
        (
            rule("path = \"/a\"\naction = \"deny\"").replacen("action = \"deny\"\n", "", 1),
            "lookup /a (file)",
        ),
        (
            rule("do = \"rename\""),
            "rename /~elsewhere~ /~elsewhere~2 (file)",
        ),
        (
            rule("do = \"mknod\""),
            "mknod /~elsewhere~ 0644 fifo (file)",
        ),
        (
            rule("do = \"mode\"\nwhen = { new_mode = { any = \"0002\" } }"),
            "chmod /~elsewhere~ 0002 ()",
        ),
        (
            rule("do = \"owner\"\nwhen = { new_owner = { uid = 5 } }"),
            "chown /~elsewhere~ 5:0 ()",
        ),
        (
            rule("do = \"remove\"\nwhen = { owner = { uid = 5 } }"),
            "unlink /~elsewhere~ (owner 5:0)",
        ),
        (
            rule("do = \"remove\"\nwhen = { mode = { any = \"0200\" } }"),
            "unlink /~elsewhere~ (mode 0200)",
        ),
        (
            rule("do = \"remove\"\nwhen = { nlink = { min = 2 } }"),
            "unlink /~elsewhere~ (nlink 2)",
        ),
        (
            rule("do = \"remove\"\nwhen = { type = \"symlink\" }"),
            "unlink /~elsewhere~ (symlink)",
        ),
        (
            rule("do = \"mode\"\nwhen = { birth = true }"),
            "chmod /~elsewhere~ 0644 (birth)",
        ),
        (
            rule("do = \"look\"\nwhen = { submount = true }"),
            "lookup /~elsewhere~ (submount)",
        ),
        (
            rule("do = \"read\"\nwhen = { offset = { min = 9 } }"),
            "read /~elsewhere~ 9 4096 (file)",
        ),
        (
            rule("do = \"xattr\"\nwhen = { xattr = \"user.k*\" }"),
            "getxattr /~elsewhere~ user.kx ()",
        ),
        (
            rule("do = \"make\"\nwhen = { target = \"../k/**\" }"),
            "symlink /~elsewhere~ ../k ()",
        ),
    ] {
        let found = differ(&plain, &policy(&text));
        assert!(
            found.iter().any(|found| found == witness),
            "{text}: '{witness}' is not in {found:#?}"
        );
    }
}

#[test]
fn policy_does_not_differ_from_itself() {
    for (_, text) in shipped::ALL {
        let policy = policy(text);
        assert_eq!(differ(&policy, &policy.clone()), Vec::<String>::new());
        assert!(witnesses(&[&policy], WHO).len() > 40);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    /// A rule alone under the opposite default decides something, unless no request can be of it.
    #[test]
    fn rule_decides_one_of_its_witnesses(rules in rules()) {
        for rule in &rules {
            let allow = [1, 2].contains(&rule.action());
            let policy = compile(std::slice::from_ref(rule), allow);
            let decided = witnesses(&[&policy], WHO)
                .iter()
                .any(|request| policy.deciding_rules(request) == [0]);
            // Locks are asked of nobody, and the root is never read, moved or removed.
            let of_the_root = [Word::Look, Word::List, Word::Owner, Word::Mode, Word::Time, Word::Xattr];
            let possible = rule.words().0 != Word::Lock as u16
                && (!rule.is_for_the_root_alone()
                    || of_the_root.iter().any(|word| rule.words().meets(Words::of(*word))));
            prop_assert!(decided || !possible, "{:?}", rule);
        }
    }
}
