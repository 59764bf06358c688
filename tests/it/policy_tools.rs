//! The tools that judge requests without a view. They need no root.

use std::fs;
use std::path::PathBuf;
use std::process::Output;

use serde_json::Value;
use virtfs_mediator_core::ids::FileKind;
use virtfs_mediator_core::policy::{Circumstances, Request, Requester};
use virtfs_mediator_core::recording::{Entry, Meta, Outcome, Recorder};

use crate::common::{ours, stderr, stdout};

const USAGE: i32 = 64;
const CONFIGURATION: i32 = 78;
const DIFFERENT: i32 = 1;

const UPLOADS: &str = "\
default = \"deny\"

[[rule]]
name = \"uploads\"
path = \"/up/**\"
do = [\"look\", \"make\", \"write\", \"mode\"]
action = \"allow\"
mode = { strip = \"0022\" }

[[rule]]
path = \"/**\"
do = [\"look\", \"list\", \"read\"]
action = \"allow\"
";

struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.0.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

#[track_caller]
fn has(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "'{word}' is not in: {text}");
    }
}

#[track_caller]
fn ended(output: &Output, status: i32) -> String {
    assert_eq!(
        output.status.code(),
        Some(status),
        "{}{}",
        stdout(output),
        stderr(output)
    );
    let all = if status == USAGE || status == CONFIGURATION {
        stderr(output)
    } else {
        stdout(output)
    };
    assert!(!all.contains('\x1b'), "an escape gets through: {all:?}");
    all
}

fn shipped(name: &str) -> String {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tools/policies");
    directory.join(name).to_str().unwrap().to_owned()
}

#[test]
fn explain_tells_the_rule_its_lines_and_what_the_guest_sees() {
    let files = Files::new();
    let policy = files.file("up.toml", UPLOADS);
    let output = ours(["policy", "explain", &policy, "create /up/a 4777"]);
    let told = ended(&output, 0);
    has(
        &told,
        &[
            "create /up/a 4777 rw: allow (rule \"uploads\", line 3)",
            "    5 | path = \"/up/**\"",
            "mode 0755",
            "rule 2, line 10 (allow): decides",
            "no: its `do` does not speak of read",
            "chown /up/a 0:0: deny EPERM (default)",
            "the guest gets EPERM",
            "`unlink /up/a` is deny EACCES (default) too",
        ],
    );
}

#[test]
fn explain_as_json_says_the_same() {
    let files = Files::new();
    let policy = files.file("up.toml", UPLOADS);
    let output = ours([
        "policy", "explain", "--json", &policy, "unlink", "/up/a", "--type", "file",
    ]);
    let told: Value = serde_json::from_str(&ended(&output, 0)).unwrap();
    assert_eq!(told["request"], "unlink /up/a");
    assert_eq!(told["answer"]["allowed"], false);
    assert_eq!(told["answer"]["errno"], "EACCES");
    assert_eq!(told["answer"]["rule"], Value::Null);
    assert_eq!(told["steps"][0]["outcome"], "deny_by_default");
    assert_eq!(told["steps"][0]["rules"][1]["fit"]["is"], "other_words");
}

#[test]
fn explain_shows_the_setting_that_decides_where_no_rule_does() {
    let files = Files::new();
    let text = "# default = no\ndefault = \"allow\"\nset_id = \"deny\"\nmap = [{ guest = 0, host = 9, count = 2 }]\n";
    let policy = files.file("p.toml", text);
    let readonly = files.file("r.toml", "default = \"allow\"\n\n readonly = true\n");
    for (policy, request, line) in [
        (&policy, "unlink /a", "    2 | default = \"allow\""),
        (&policy, "chmod /a 4755", "    3 | set_id = \"deny\""),
        (&policy, "chown /a 7:7", "    4 | map = [{ guest"),
        (&readonly, "unlink /a", "    3 |  readonly = true"),
    ] {
        let output = ours(["policy", "explain", policy, request, "--type", "file"]);
        has(&ended(&output, 0), &[line]);
    }
}

#[test]
fn explain_asks_the_facts_that_are_given() {
    let files = Files::new();
    let text = "default = \"allow\"\n[[rule]]\ndo = \"remove\"\nwhen = { owner = { uid = 5 } }\naction = \"deny\"\n";
    let policy = files.file("p.toml", text);
    let with = |more: &[&str]| {
        let mut words = vec!["policy", "explain", &policy, "unlink /a"];
        words.extend(more);
        ended(&ours(words), 0)
    };
    has(&with(&["--owner", "5:6"]), &["unlink /a: deny EACCES"]);
    has(
        &with(&["--owner", "6:6"]),
        &[
            "unlink /a: allow (default)",
            "`when.owner` does not hold, it is 6:6",
        ],
    );
    has(&with(&[]), &["deny EACCES"]);
    let other = with(&["--owner", "6:6", "--name", "/b\\x20c"]);
    has(&other, &["remove /b c: allow"]);
}

#[test]
fn explain_refuses_what_is_no_request_and_says_what_is() {
    let files = Files::new();
    let policy = files.file("p.toml", "default = \"allow\"\n");
    for (words, told) in [
        (
            &["craete /a"][..],
            &["`craete`", "did you mean `create`?"][..],
        ),
        (&["\x1b[2J /a"], &["no operation"]),
        (&["unlink a"], &["starts with `/`"]),
        (&["unlink /a", "--type", "fil"], &["did you mean `file`?"]),
        (&["unlink /a", "--owner", "5:"], &["--owner", "UID:GID"]),
        (&["unlink /a", "--name", "b"], &["starts with `/`"]),
        (&["unlink /a", "--mode", "rw"], &["octal"]),
        (&[], &["REQUEST"]),
    ] {
        let mut all = vec!["policy", "explain", &policy];
        all.extend(words);
        has(&ended(&ours(all), USAGE), told);
    }
    let output = ours(["policy", "explain", "/nonexistent", "unlink /a"]);
    has(&ended(&output, CONFIGURATION), &["/nonexistent"]);
    let broken = files.file("b.toml", "default = 3\n");
    let output = ours(["policy", "explain", &broken, "unlink /a"]);
    has(&ended(&output, CONFIGURATION), &["b.toml:1:11"]);
}

#[test]
fn explain_escapes_what_a_guest_chose() {
    let files = Files::new();
    let policy = files.file("p.toml", "default = \"deny\"\n");
    for form in [&[][..], &["--json"]] {
        let mut words = vec!["policy", "explain", &policy, "unlink /\\x1b[2J\\x0a"];
        words.extend(form);
        has(&ended(&ours(words), 0), &["x1b[2J"]);
    }
}

#[test]
fn shipped_policies_answer_as_their_cases_expect() {
    for name in ["parity", "readonly", "dropbox"] {
        let policy = shipped(&format!("{name}.toml"));
        let cases = shipped(&format!("{name}.cases.toml"));
        let output = ours(["policy", "test", &policy, &cases]);
        has(&ended(&output, 0), &["as expected"]);
    }
}

#[test]
fn test_tells_each_answer_that_differs_and_by_which_rule() {
    let files = Files::new();
    let policy = files.file("up.toml", UPLOADS);
    let cases = files.file(
        "cases.toml",
        "[[case]]\nrequest = \"create /up/a\"\nexpect = \"allow\"\nrule = \"uploads\"\n\
         [[case]]\nrequest = \"create /up/a\"\nexpect = \"EACCES\"\nnote = \"n\"\n\
         [[case]]\nrequest = \"open /up/a r\"\nexpect = \"allow\"\nrule = \"uploads\"\n\
         [[case]]\nrequest = \"unlink /up/a\"\nexpect = \"deny\"\nrule = \"default\"\n\
         [[case]]\nrequest = \"unlink /up/a\"\nexpect = \"EPERM\"\n",
    );
    let told = ended(&ours(["policy", "test", &policy, &cases]), DIFFERENT);
    has(
        &told,
        &[
            "cases.toml:5: create /up/a 0644 rw",
            "- deny EACCES",
            "+ allow (rule \"uploads\", line 3)",
            "note: n",
            "cases.toml:9: open /up/a r",
            "- allow (rule \"uploads\")",
            "+ allow (rule 2, line 10)",
            "cases.toml:17: unlink",
            "- deny EPERM",
            "3 of 5 differ",
        ],
    );
    assert!(
        !told.contains("cases.toml:1:") && !told.contains("cases.toml:13:"),
        "{told}"
    );
}

#[test]
fn test_refuses_a_broken_file_of_cases() {
    let files = Files::new();
    let policy = files.file("up.toml", UPLOADS);
    let cases = files.file(
        "c.toml",
        "[[case]]\nrequst = \"unlink /a\"\nexpect = \"deny\"\n",
    );
    let told = ended(&ours(["policy", "test", &policy, &cases]), CONFIGURATION);
    has(
        &told,
        &["c.toml:2:1", "did you mean `request`?", "lacks `request`"],
    );
    let output = ours(["policy", "test", &policy, "/nonexistent"]);
    has(&ended(&output, CONFIGURATION), &["/nonexistent"]);
}

/// A recording of requests in words, each with how often it came and how it was answered.
fn recording(files: &Files, name: &str, entries: &[(&str, u64, Outcome)]) -> String {
    let path = files.0.path().join(name);
    let mut recorder = Recorder::create(&path, &Meta::default()).unwrap();
    for (at, (phrase, count, outcome)) in (0..).zip(entries) {
        let around = Circumstances {
            kind: Some(FileKind::Regular),
            ..Circumstances::of(Requester {
                uid: 64055,
                gid: 64055,
                pid: 0,
            })
        };
        let around = match phrase.split(' ').next() {
            Some("readdir" | "opendir" | "mkdir" | "rmdir") => Circumstances {
                kind: Some(FileKind::Directory),
                ..around
            },
            _ => around,
        };
        recorder
            .push(&Entry {
                at,
                count: *count,
                request: Request::from_phrase(phrase, &around).unwrap(),
                outcome: *outcome,
            })
            .unwrap();
    }
    recorder.finish().unwrap();
    path.to_str().unwrap().to_owned()
}

const REFUSED: Outcome = Outcome::Refused {
    errno: 13,
    rule: None,
};

#[test]
fn replay_tells_which_answers_change() {
    let files = Files::new();
    let policy = files.file("up.toml", UPLOADS);
    let recording = recording(
        &files,
        "r",
        &[
            ("lookup /up/a", 149_997, Outcome::Done),
            ("unlink /up/a", 2, Outcome::Done),
            ("unlink /up/\\x1b", 1, Outcome::Failed(2)),
            ("unlink /b", 4, REFUSED),
            ("open /b r", 3, REFUSED),
        ],
    );
    let told = ended(&ours(["replay", &recording, &policy]), DIFFERENT);
    has(
        &told,
        &[
            "6 of 150,007 requests change",
            "it refuses 7 of them",
            "open: deny EACCES -> allow (rule 2, line 10): 3",
            "unlink: allow -> deny EACCES (default): 3",
            "2 unlink /up/a",
            "1 unlink /up/\\x1b",
        ],
    );
    // What a policy that only observes would refuse counts as refused.
    let observing = files.file("observing.toml", &format!("mode = \"observe\"\n{UPLOADS}"));
    let told = ended(&ours(["replay", &recording, &observing]), DIFFERENT);
    has(&told, &["6 of 150,007 requests change"]);
    let output = ours(["replay", "--json", &recording, &policy]);
    let told: Value = serde_json::from_str(&ended(&output, DIFFERENT)).unwrap();
    assert_eq!(told["requests"], 150_007);
    assert_eq!(told["changed"], 6);
    // Three that were allowed, and four that were refused already.
    assert_eq!(told["refused"], 7);
    assert_eq!(told["cut_off"], false);
    assert_eq!(told["groups"][0]["op"], "open");
}

#[test]
fn replay_of_what_does_not_change_ends_well_even_if_it_is_cut_off() {
    let files = Files::new();
    let policy = files.file("up.toml", UPLOADS);
    let recording = recording(&files, "r", &[("lookup /up/a", 5, Outcome::Done)]);
    has(
        &ended(&ours(["replay", &recording, &policy]), 0),
        &["none of 5 requests changes"],
    );
    let bytes = fs::read(&recording).unwrap();
    fs::write(&recording, &bytes[..bytes.len() - 1]).unwrap();
    has(
        &ended(&ours(["replay", &recording, &policy]), 0),
        &["none of 5", "has no end"],
    );
}

#[test]
fn replay_refuses_what_is_no_recording() {
    let files = Files::new();
    let policy = files.file("up.toml", UPLOADS);
    let output = ours(["replay", &policy, &policy]);
    has(&ended(&output, CONFIGURATION), &["no recording"]);
    let output = ours(["replay", "/nonexistent", &policy]);
    has(&ended(&output, CONFIGURATION), &["/nonexistent"]);
    let recording = recording(&files, "r", &[("lookup /up/a", 5, Outcome::Done)]);
    let mut bytes = fs::read(&recording).unwrap();
    let at = bytes.len() - 40;
    bytes[at] ^= 0x55;
    fs::write(&recording, &bytes).unwrap();
    let output = ours(["replay", &recording, &policy]);
    has(&ended(&output, CONFIGURATION), &["damaged in frame"]);
}

#[test]
fn suggest_prints_a_policy_that_checks_and_replays() {
    let files = Files::new();
    let recording = recording(
        &files,
        "r",
        &[
            ("opendir /", 9, Outcome::Done),
            ("lookup /in/a", 3, Outcome::Done),
            ("create /in/.a\\x1b 0644 w", 1, Outcome::Done),
            ("chown /in/.a\\x1b 0:0", 1, Outcome::Done),
            ("rename /in/.a\\x1b /in/a", 1, Outcome::Done),
            ("open /etc/x r", 1, Outcome::Failed(2)),
            ("unlink /etc/x", 1, REFUSED),
        ],
    );
    let text = ended(&ours(["suggest", &recording]), 0);
    has(
        &text,
        &[
            "default = \"deny\"",
            "Of 1 requests that were refused it allows 0.",
            "'/etc/x'",
            "/in/.a\\x1b",
        ],
    );
    let policy = files.file("suggested.toml", &text);
    ended(&ours(["policy", "check", &policy]), 0);
    let replayed = ended(&ours(["replay", &recording, &policy]), 0);
    has(&replayed, &["none of 17 requests changes"]);
}

#[test]
fn suggest_keeps_what_it_begins_with() {
    let files = Files::new();
    let recording = recording(
        &files,
        "r",
        &[
            ("open /a r", 1, Outcome::Done),
            ("open /b.key r", 1, Outcome::Done),
        ],
    );
    let from = files.file(
        "from.toml",
        "default = \"allow\"\n[squash]\nwho = \"root\"\n[[rule]]\nname = \"keys\"\npath = \"/**/*.key\"\naction = \"hide\"\n",
    );
    let text = ended(&ours(["suggest", &recording, "--from", &from]), 0);
    has(
        &text,
        &[
            "who = \"root\"",
            "name = \"keys\"",
            "path = '/a'",
            "1 requests that were allowed are left out",
        ],
    );
    ended(&ours(["policy", "check", &files.file("s.toml", &text)]), 0);
}

#[test]
fn suggest_without_anything_to_allow_is_an_error() {
    let files = Files::new();
    let recording = recording(&files, "r", &[("open /a r", 1, REFUSED)]);
    let output = ours(["suggest", &recording]);
    has(&ended(&output, CONFIGURATION), &["no request was allowed"]);
    let output = ours(["suggest", &recording, "--from", "/nonexistent"]);
    has(&ended(&output, CONFIGURATION), &["/nonexistent"]);
}

#[test]
fn diff_tells_what_changes_at_which_paths() {
    let files = Files::new();
    let old = files.file("old.toml", UPLOADS);
    let new = files.file("new.toml", &UPLOADS.replace("\"make\", ", ""));
    let told = ended(&ours(["policy", "diff", &old, &new]), DIFFERENT);
    has(
        &told,
        &[
            "made-up requests change",
            "/up/x: allow -> deny EACCES (default)",
            "create 0644 rw, create 4755 rw, mkdir 0755",
        ],
    );
    assert!(
        !told.contains("unlink") && !told.contains("elsewhere"),
        "{told}"
    );
    let told = ended(&ours(["policy", "diff", &old, &old]), 0);
    has(&told, &["none of", "changes"]);
}

#[test]
fn diff_tells_what_is_granted_otherwise() {
    let files = Files::new();
    let old = files.file("old.toml", "default = \"allow\"\n");
    let new = files.file(
        "new.toml",
        "default = \"allow\"\nsquash = { who = \"root\", uid = 7, gid = 8 }\n",
    );
    let told = ended(&ours(["policy", "diff", &old, &new]), DIFFERENT);
    has(
        &told,
        &[
            "allow owner 0:0 -> allow owner 7:8 (default)",
            "chown 0:0",
            "/~elsewhere~ stands for what no rule names",
        ],
    );
    assert!(!told.contains("1000:1000"), "{told}");
}

#[test]
fn diff_by_a_recording_asks_its_requests_alone() {
    let files = Files::new();
    let old = files.file("old.toml", UPLOADS);
    let new = files.file("new.toml", &UPLOADS.replace("\"make\", ", ""));
    let recording = recording(
        &files,
        "r",
        &[
            ("create /up/a 0644 w", 2, Outcome::Done),
            ("lookup /up/a", 1000, Outcome::Done),
        ],
    );
    let told = ended(&ours(["policy", "diff", &old, &new, &recording]), DIFFERENT);
    has(
        &told,
        &[
            "2 of 1,002 recorded requests change",
            "create: allow -> deny EACCES (default): 2",
        ],
    );
    let output = ours(["policy", "diff", &old, &old, &recording]);
    has(&ended(&output, 0), &["0 of 1,002"]);
    let output = ours(["policy", "diff", &old, "/nonexistent"]);
    has(&ended(&output, CONFIGURATION), &["/nonexistent"]);
}

#[test]
fn check_tells_ids_and_rules_that_decide_nothing() {
    let files = Files::new();
    let policy = files.file(
        "p.toml",
        "default = \"allow\"\nclient = { user = \"root\", group = \"daemon\" }\n\
         [[rule]]\npath = \"/a\"\ndo = \"remove\"\nwhen = { birth = true }\naction = \"deny\"\n\
         [[rule]]\npath = \"/a\"\ndo = \"remove\"\nwhen = { birth = false }\naction = \"deny\"\n\
         [[rule]]\nname = \"late\"\npath = \"/a\"\ndo = \"remove\"\naction = \"allow\"\n\
         [[rule]]\nname = \"used\"\npath = \"/a\"\ndo = \"read\"\naction = \"deny\"\n",
    );
    let told = ended(&ours(["policy", "check", &policy]), 0);
    has(
        &told,
        &[
            "p.toml: ok",
            "  user root is 0",
            "  group daemon is 1",
            "note: rule \"late\", line 13: no request was found that it decides",
        ],
    );
    assert!(!told.contains("used") && !told.contains("rule 1"), "{told}");
    let broken = files.file("b.toml", "default = 1\n");
    let output = ours(["policy", "check", &policy, &broken]);
    has(&ended(&output, CONFIGURATION), &["b.toml:1:11"]);
    has(&stdout(&output), &["p.toml: ok"]);
    for name in ["parity", "readonly", "dropbox"] {
        let told = ended(
            &ours(["policy", "check", &shipped(&format!("{name}.toml"))]),
            0,
        );
        assert!(!told.contains("note"), "{told}");
    }
}

/// Made by `tools/policies/guest --remake`.
#[test]
fn shipped_attacks_are_refused_by_the_policy_of_an_installation() {
    let (attacks, policy) = (
        shipped("attacks.recording"),
        shipped("guest-install.policy"),
    );
    ended(&ours(["policy", "check", &policy]), 0);
    let output = ours(["replay", "--json", &attacks, &policy]);
    let told: Value = serde_json::from_str(&ended(&output, DIFFERENT)).unwrap();
    assert!(told["requests"].as_u64() > Some(60), "{told}");
    assert_eq!(told["refused"], told["requests"], "{told}");
    assert_eq!(told["unknown"], 0, "{told}");
    assert_eq!(told["cut_off"], false, "{told}");
}
