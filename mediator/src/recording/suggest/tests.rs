//! What is suggested allows what was recorded, and little else.

use proptest::prelude::*;

use super::super::entry::{Entry, Outcome};
use super::cover::{Avoid, Cover, WholeView};
use super::region::Region;
use super::*;
use crate::ids::FileKind;
use crate::policy::tests::Nobody;
use crate::policy::tests::explain::requests;
use crate::policy::{Circumstances, Request, Requester};
use std::collections::BTreeSet;

const REFUSED: Outcome = Outcome::Refused {
    errno: 13,
    rule: None,
};

fn request(phrase: &str) -> Request {
    let kind = match phrase.split(' ').next() {
        Some("mkdir" | "rmdir" | "readdir" | "opendir") => FileKind::Directory,
        _ if phrase.contains("dir") => FileKind::Directory,
        _ => FileKind::Regular,
    };
    let around = Circumstances {
        kind: Some(kind),
        ..Circumstances::of(Requester {
            uid: 1,
            gid: 1,
            pid: 0,
        })
    };
    Request::from_phrase(phrase, &around).unwrap_or_else(|bad| panic!("{phrase}: {bad}"))
}

fn observed(entries: &[(Request, Outcome)]) -> Observed {
    let mut observed = Observed::default();
    for (request, outcome) in entries {
        let entry = Entry::new(0, request.clone(), *outcome);
        observed.add(entry).unwrap();
    }
    observed
}

fn suggested(allowed: &[&str], refused: &[&str]) -> Suggestion {
    let allowed = allowed
        .iter()
        .map(|phrase| (request(phrase), Outcome::Done));
    let refused = refused.iter().map(|phrase| (request(phrase), REFUSED));
    let entries: Vec<(Request, Outcome)> = allowed.chain(refused).collect();
    suggest(&observed(&entries), None, &Nobody).unwrap()
}

#[track_caller]
fn parsed(suggestion: &Suggestion) -> Policy {
    Policy::parse("suggested", &suggestion.text, &Nobody)
        .unwrap_or_else(|mistakes| panic!("{mistakes}\n{}", suggestion.text))
}

#[track_caller]
fn has(suggestion: &Suggestion, lines: &[&str]) {
    for line in lines {
        let found = suggestion.text.lines().any(|has| has.trim() == *line);
        assert!(found, "'{line}' is not in:\n{}", suggestion.text);
    }
}

fn allows(policy: &Policy, phrase: &str) -> bool {
    policy.decide_request(&request(phrase)).is_ok()
}

#[test]
fn many_names_at_the_top_do_not_name_all_below_them() {
    let mut phrases: Vec<String> = (b'a'..=b't')
        .map(|name| format!("chown /{} 0:0", char::from(name)))
        .collect();
    phrases.extend((0..6).map(|name| format!("chown /usr/{name}/x 0:0")));
    let phrases: Vec<&str> = phrases.iter().map(String::as_str).collect();
    let suggestion = suggested(&phrases, &[]);
    let policy = parsed(&suggestion);
    assert!(allows(&policy, "chown /usr/9/y 0:0"), "{}", suggestion.text);
    assert!(!allows(&policy, "chown /a/b 0:0"), "{}", suggestion.text);
}

#[test]
fn name_that_was_drawn_by_lot_may_be_another_tomorrow() {
    let suggestion = suggested(
        &[
            "create /tmp/tmp.baiUQU03So 0600 w",
            "chmod /tmp/tmp.baiUQU03So 0644",
            "unlink /tmp/tmp.baiUQU03So",
            "create /etc/passwd.lock 0600 w",
            "unlink /etc/passwd.lock",
            "create /srv/Kept2x 0600 w",
        ],
        &[],
    );
    let policy = parsed(&suggestion);
    for tomorrow in [
        "create /tmp/tmp.XXyyZZ0011 0600 w",
        "chmod /tmp/tmp.XXyyZZ0011 0644",
        "unlink /tmp/tmp.XXyyZZ0011",
    ] {
        assert!(allows(&policy, tomorrow), "{tomorrow}\n{}", suggestion.text);
    }
    // What stayed, and names that somebody chose, are these alone.
    for other in [
        "create /etc/group.lock 0600 w",
        "unlink /etc/group.lock",
        "create /srv/Kept2y 0600 w",
        "chown /tmp/tmp.XXyyZZ0011 1:1",
    ] {
        assert!(!allows(&policy, other), "{other}\n{}", suggestion.text);
    }
}

#[test]
fn directory_with_many_touched_names_is_named_as_a_whole() {
    let suggestion = suggested(
        &[
            "open /etc/passwd r",
            "open /lib/a r",
            "open /lib/b r",
            "open /lib/c r",
            "open /lib/d r",
            "open /lib/e r",
            "write /home/u/1/a",
            "write /home/u/2/a",
            "write /home/u/3/a",
            "write /home/u/4/a",
            "write /home/u/5",
        ],
        &[],
    );
    has(
        &suggestion,
        &[
            "path = ['/etc/passwd', '/lib/*']",
            "do = [\"look\", \"read\"]",
            "name = \"read-passwd\"",
            "name = \"change-u\"",
            "path = '/home/u/**'",
            "# Requests: 6, paths: 6.",
        ],
    );
    let policy = parsed(&suggestion);
    assert!(allows(&policy, "open /lib/z r"));
    for no in [
        "open /lib/d/e r",
        "open /etc/shadow r",
        "open /lib/a w",
        "unlink /home/u/5",
    ] {
        assert!(!allows(&policy, no), "{no}:\n{}", suggestion.text);
    }
}

#[test]
fn paths_with_the_same_words_share_a_rule() {
    let suggestion = suggested(
        &[
            "lookup /a",
            "open /a rw",
            "chmod /a 0600",
            "lookup /b",
            "open /b r",
        ],
        &[],
    );
    has(
        &suggestion,
        &[
            "path = '/b'",
            "do = [\"look\", \"read\"]",
            "path = '/a'",
            "do = [\"look\", \"read\", \"write\", \"mode\"]",
        ],
    );
    assert_eq!(suggestion.rules, 2);
}

#[test]
fn what_is_done_to_files_made_by_the_dozen_is_allowed_for_all_of_them() {
    let phrases: Vec<String> = (0..9).map(|at| format!("create /w/{at} 0644 w")).collect();
    let mut phrases: Vec<&str> = phrases.iter().map(String::as_str).collect();
    phrases.extend(["unlink /w/1", "chmod /w/2 0600", "chmod /x 0600"]);
    let suggestion = suggested(&phrases, &[]);
    has(
        &suggestion,
        &[
            "path = '/w/*'",
            "do = [\"look\", \"make\", \"remove\", \"mode\"]",
        ],
    );
    let policy = parsed(&suggestion);
    assert!(allows(&policy, "unlink /w/tomorrow"));
    for no in [
        "unlink /w/1/2",
        "unlink /x",
        "open /w/1 r",
        "chown /w/1 0:0",
    ] {
        assert!(!allows(&policy, no), "{no}:\n{}", suggestion.text);
    }
    let policy = parsed(&suggested(&phrases, &["unlink /w/kept"]));
    assert!(!allows(&policy, "unlink /w/kept"));
    assert!(allows(&policy, "chmod /w/kept 0600"));
}

#[test]
fn rules_beyond_thirty_are_put_together_by_word() {
    // Every path with another set of words.
    let verbs = [
        "lookup",
        "open r",
        "open w",
        "unlink",
        "chmod 0600",
        "chown 0:0",
    ];
    let mut phrases = Vec::new();
    for set in 1..64u32 {
        for (bit, verb) in verbs.iter().enumerate() {
            if set & (1 << bit) != 0 {
                let (verb, rest) = verb.split_once(' ').unwrap_or((verb, ""));
                phrases.push(format!("{verb} /d{}/e{}/f{set} {rest}", set % 4, set % 16));
            }
        }
    }
    let suggestion = suggested(&phrases.iter().map(String::as_str).collect::<Vec<_>>(), &[]);
    assert!(
        suggestion.rules <= 30 && !suggestion.is_coarse,
        "{}",
        suggestion.text
    );
}

#[test]
fn refused_request_is_steered_around() {
    let all = ["a", "b", "c", "d", "e", "f"].map(|name| format!("open /d/{name} r"));
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let policy = parsed(&suggested(&all, &["open /d/secret r"]));
    assert!(!allows(&policy, "open /d/secret r"));
    assert!(!allows(&policy, "open /d/other r"));
    let policy = parsed(&suggested(&all, &["open /d/secret/s r", "open /d/a w"]));
    assert!(
        allows(&policy, "open /d/other r"),
        "they are not in the way"
    );
}

#[test]
fn refused_request_that_cannot_be_avoided_is_told() {
    // The same path and word: what told them apart is a fact that paths do not have.
    let suggestion = suggested(&["chmod /a 0600"], &["chmod /a 4755"]);
    has(
        &suggestion,
        &[
            "# Of 1 requests that were refused it allows 1:",
            "#   chmod /a 4755 (1)",
        ],
    );
    let suggestion = suggested(&["chmod /a 0600"], &["unlink /a"]);
    has(
        &suggestion,
        &["# Of 1 requests that were refused it allows 0."],
    );
}

#[test]
fn way_to_what_is_allowed_needs_no_rule() {
    let suggestion = suggested(
        &[
            "opendir /",
            "opendir /srv",
            "opendir /srv/x",
            "open /srv/x/a r",
        ],
        &[],
    );
    assert_eq!(suggestion.rules, 1, "{}", suggestion.text);
}

#[test]
fn rename_keeps_to_its_rules_on_both_sides() {
    for moved in [
        "rename /tmp/a /srv/b",
        "rename /tmp/dir /srv/dir2",
        "rename /tmp/a /srv/b exchange",
        "link /tmp/a /srv/b",
    ] {
        let suggestion = suggested(
            &[
                moved,
                "write /srv/b",
                "write /srv/c",
                "write /srv/d",
                "write /srv/e",
                "write /srv/f",
                "write /srv/dir2/x",
                "open /srv/dir2/x r",
                "lookup /srv/b",
            ],
            &[],
        );
        assert!(!suggestion.is_coarse, "{}", suggestion.text);
        assert!(allows(&parsed(&suggestion), moved));
    }
}

#[test]
fn rename_over_what_is_there_needs_to_remove_it() {
    let suggestion = suggested(
        &["create /x 0644 w", "create /.x 0644 w", "rename /.x /x"],
        &[],
    );
    has(
        &suggestion,
        &["# 1 renames replaced something, hence `remove` at their new names."],
    );
    let granted = parsed(&suggestion)
        .decide_request(&request("rename /.x /x"))
        .unwrap();
    assert_eq!(
        granted.grant,
        crate::op::AnyGrant::Rename(crate::op::RenameHow::Replace)
    );
    let suggestion = suggested(&["create /.x 0644 w", "rename /.x /x"], &[]);
    assert!(!suggestion.text.contains("remove"), "{}", suggestion.text);
}

#[test]
fn change_of_the_whole_view_is_the_last_resort() {
    let phrases: Vec<String> = (0..17).map(|at| format!("write /d{at}/a/b")).collect();
    let suggestion = suggested(&phrases.iter().map(String::as_str).collect::<Vec<_>>(), &[]);
    // Sixteen globs at most, so that something above two of them is named; the top is all there is.
    has(&suggestion, &["path = '/**'", "do = [\"look\", \"write\"]"]);
    let phrases: Vec<String> = (0..12).map(|at| format!("write /d{at}/a/b")).collect();
    let suggestion = suggested(&phrases.iter().map(String::as_str).collect::<Vec<_>>(), &[]);
    assert!(!suggestion.text.contains("'/**'"), "{}", suggestion.text);
}

#[test]
fn hostile_name_stays_one_name_in_the_policy() {
    let name = "/q'\"]\n[[rule]]\n*?[a]\\x\x1b\u{fe}/**";
    let phrase = format!("unlink {}", crate::policy::escaped(name.as_bytes()));
    let refused = format!(
        "chmod {} 0600",
        crate::policy::escaped(b"/\n[[rule]]\naction")
    );
    let suggestion = suggested(&[&phrase, "chmod /a 0700"], &[&refused, "chmod /a 0600"]);
    let policy = parsed(&suggestion);
    assert_eq!(policy.rule_count(), 2, "{}", suggestion.text);
    assert!(allows(&policy, &phrase));
    assert!(!allows(&policy, "unlink /q"));
    for (from, to) in [
        ("*", "x"),
        ("?", "x"),
        ("[a]", "a"),
        ("**", "c"),
        ("\\x", "x"),
    ] {
        let other = crate::policy::escaped(name.replacen(from, to, 1).as_bytes());
        assert!(!allows(&policy, &format!("unlink {other}")), "{other}");
    }
    assert!(
        suggestion
            .text
            .bytes()
            .all(|byte| byte == b'\n' || (b' '..=b'~').contains(&byte))
    );
}

#[test]
fn path_deeper_than_a_glob_is_a_tree() {
    let deep = format!("unlink {}", "/a".repeat(4000));
    let suggestion = suggested(&[&deep], &[]);
    assert!(allows(&parsed(&suggestion), &deep));
    assert!(!allows(&parsed(&suggestion), "unlink /a/a"));
}

#[test]
fn request_that_no_policy_allows_is_left_out() {
    let mut device = request("mknod /null 0666 char-device");
    device.kind = None;
    let entries = [
        (request("unlink /a"), Outcome::Done),
        (device, Outcome::Done),
    ];
    let suggestion = suggest(&observed(&entries), None, &Nobody).unwrap();
    has(
        &suggestion,
        &[
            "# 1 requests that were allowed are left out: the floor, or what was kept, refuses them.",
        ],
    );
    let mut nameless = request("unlink /a");
    nameless.names.clear();
    let error = suggest(&observed(&[(nameless, Outcome::Done)]), None, &Nobody).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("no request was allowed whose path is known")
    );
}

#[test]
fn set_id_bits_are_told() {
    let suggestion = suggested(&["chmod /a 4755", "create /b 2755"], &[]);
    assert!(
        suggestion
            .text
            .contains("# 2 requests asked for set-id bits")
    );
}

#[test]
fn settings_and_restricting_rules_of_another_policy_are_kept() {
    let text = "default = \"allow\"\nmode = \"enforce\"\nset_id = \"deny\"\nsquash = { who = \"root\", uid = 5 }\n\
                map = [{ guest = 0, host = 100, count = 10 }]\n\
                [[rule]]\nname = \"mine\"\npath = \"/x/**\"\naction = \"allow\"\n\
                [[rule]]\nname = \"keys\"\npath = \"/**/*.key\"\naction = \"hide\"\n\
                [[xattr]]\nmatch = \"user.*\"\naction = \"deny\"\n";
    let from = From {
        file: "old.toml",
        text,
    };
    let entries = ["chmod /a 0600", "chmod /b.key 0600", "chmod /c 4755"]
        .map(|phrase| (request(phrase), Outcome::Done));
    let suggestion = suggest(&observed(&entries), Some(from), &Nobody).unwrap();
    let policy = parsed(&suggestion);
    assert!(!suggestion.text.contains("mode ="), "{}", suggestion.text);
    assert_eq!(policy.rule_name(0), Some("keys"));
    assert_eq!(policy.rule_count(), 2, "{}", suggestion.text);
    assert!(policy.host_uids().is_some());
    assert!(policy.xattr_shown(b"user.a").is_none());
    // What the kept rule or setting refuses is left out, and said.
    has(
        &suggestion,
        &[
            "# 2 requests that were allowed are left out: the floor, or what was kept, refuses them.",
        ],
    );
    let broken = From {
        file: "old.toml",
        text: "default = 1",
    };
    let error = suggest(&observed(&entries), Some(broken), &Nobody).unwrap_err();
    assert!(error.to_string().contains("old.toml:1:11"));
}

fn wide_path() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec("[a-g]", 0..5)
        .prop_map(|parts| format!("/{}", parts.join("/")).into_bytes())
}

prop_compose! {
    fn wide_requests()(request in requests(), names in prop::collection::vec(wide_path(), 1..2), second in wide_path()) -> Request {
        Request { names, second: request.second.is_some().then_some(second), ..request }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn suggestion_replays_without_a_refusal(
        all in prop::collection::vec((prop_oneof![wide_requests(), requests()], 0..3u8), 1..60),
    ) {
        let entries: Vec<(Request, Outcome)> = all.into_iter().map(|(request, outcome)| {
            (request, match outcome { 0 => Outcome::Done, 1 => Outcome::Failed(2), _ => REFUSED })
        }).collect();
        let parity = Policy::parity();
        let must: Vec<&Request> = entries.iter()
            .filter(|(request, outcome)| outcome.is_allowed() && parity.decide_request(request).is_ok())
            .map(|(request, _)| request).collect();
        let suggestion = suggest(&observed(&entries), None, &Nobody);
        if must.is_empty() {
            prop_assert!(matches!(suggestion, Err(SuggestError::Nothing)));
            return Ok(());
        }
        let suggestion = suggestion.unwrap();
        prop_assert!(suggestion.rules <= 30);
        prop_assert!(!suggestion.is_coarse, "{}", suggestion.text);
        let policy = Policy::parse("suggested", &suggestion.text, &Nobody);
        prop_assert!(policy.is_ok(), "{}", suggestion.text);
        let policy = policy.unwrap();
        for request in must {
            prop_assert!(policy.decide_request(request).is_ok(), "{}:\n{}", request.phrase(), suggestion.text);
        }
        let mut too_much: Vec<String> = entries.iter()
            .filter(|(request, outcome)| !outcome.is_allowed() && policy.decide_request(request).is_ok())
            .map(|(request, _)| request.phrase()).collect();
        too_much.dedup();
        for phrase in too_much.iter().take(1) {
            let told = suggestion.text.contains("that were refused it allows");
            prop_assert!(told, "{phrase} is not told:\n{}", suggestion.text);
        }
    }

    #[test]
    fn regions_hold_every_path_and_are_few(paths in prop::collection::btree_set(wide_path(), 1..200), avoid in prop::collection::btree_set(wide_path(), 0..9)) {
        let avoid: BTreeSet<Vec<u8>> = avoid.difference(&paths).cloned().collect();
        let avoided = Avoid::new(avoid);
        for whole_view in [WholeView::May, WholeView::Last] {
            let cover = Cover { avoid: &avoided, whole_view };
            let regions = cover.regions(paths.iter().map(Vec::as_slice));
            prop_assert!(regions.len() <= cover::REGIONS_MAX);
            for path in &paths {
                prop_assert!(regions.iter().any(|region| region.covers(path)));
            }
        }
    }

    #[test]
    fn glob_of_a_region_matches_what_the_region_covers(base in wide_path(), kind in 0..3u8, path in wide_path()) {
        let region = match kind {
            0 => Region::Exact(base),
            1 => Region::Children(base),
            _ => Region::Tree(base),
        };
        let text = format!("default = \"deny\"\n[[rule]]\npath = '{}'\ndo = \"write\"\naction = \"allow\"\n", region.glob());
        let policy = Policy::parse("one", &text, &Nobody).unwrap();
        let write = Request { names: vec![path.clone()], ..request("write /a") };
        prop_assert_eq!(policy.decide_request(&write).is_ok(), region.covers(&path));
    }
}

#[test]
fn many_requests_are_put_together_soon() {
    let mut observed = Observed::default();
    for at in 0..20_000u32 {
        let phrase = format!(
            "rename /a{}/b{}/t{at} /c{}/d{}/f{at}",
            at % 7,
            at % 31,
            at % 5,
            at % 97
        );
        let phrases = [phrase, format!("write /a{}/b{}/t{at}", at % 7, at % 31)];
        for phrase in phrases {
            observed
                .add(Entry::new(0, request(&phrase), Outcome::Done))
                .unwrap();
        }
    }
    let suggestion = suggest(&observed, None, &Nobody).unwrap();
    assert!(!suggestion.is_coarse);
    assert_eq!(suggestion.allowed, 40_000);
}
