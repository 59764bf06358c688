//! What policies say, done by the whole program: kernel, confinement and export included.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use crate::common::{CLIENT_UID, Export, Start, shown, stderr, stdout};

/// Runs a script in a view of `export` under a policy: what it said, and what we did.
fn under(policy: &str, export: &Export, script: &str) -> (String, String) {
    let file = export.beside("policy.toml");
    fs::write(&file, policy).unwrap();
    let output = Start::new(export)
        .option(format!("--policy={}", shown(&file)))
        .option(format!("--audit={}", shown(&export.beside("audit"))))
        .output([
            "sh",
            "-c",
            &format!("cd {}\n{script}", shown(export.path())),
        ]);
    (stdout(&output), stderr(&output))
}

/// What is on record: written before the client has its answer, however soon it ends.
fn records(export: &Export) -> String {
    fs::read_to_string(export.beside("audit")).unwrap()
}

#[test]
fn pretended_chown_succeeds_and_changes_nothing() {
    let export = Export::new();
    let policy = "default = \"allow\"\n[[rule]]\nname = \"as-root\"\ndo = \"owner\"\n\
                  action = \"pretend\"\nlog = \"all\"\n";
    let (out, err) = under(policy, &export, "echo > a && chown 0:0 a && stat -c %u a");
    assert_eq!(out.trim(), CLIENT_UID.to_string(), "{err}");
    let owner = fs::metadata(export.path().join("a")).unwrap().uid();
    assert_eq!(owner, CLIENT_UID);
    let records = records(&export);
    assert!(
        records.contains("\"pretended\"") && records.contains("as-root"),
        "{records}"
    );
}

#[test]
fn log_that_may_only_be_appended_to_is_neither_cut_nor_overwritten() {
    let export = Export::new();
    let policy = include_str!("../../tools/policies/append-only.toml");
    fs::create_dir(export.path().join("log")).unwrap();
    std::os::unix::fs::chown(export.path().join("log"), Some(CLIENT_UID), None).unwrap();
    let script = "echo one >> log/a; echo two >> log/a; echo three > log/a; truncate -s 0 log/a; \
                  rm -f log/a; mv log/a log/b; cat log/a; true";
    let (out, err) = under(policy, &export, script);
    assert_eq!(out, "", "it cannot be read either: {err}");
    let log = fs::read_to_string(export.path().join("log/a")).unwrap();
    assert_eq!(log, "one\ntwo\n", "{err}");
}

#[test]
fn hidden_file_is_read_by_no_other_link_that_its_rule_follows() {
    let export = Export::new();
    fs::write(export.path().join("key"), "secret").unwrap();
    fs::hard_link(export.path().join("key"), export.path().join("open")).unwrap();
    let policy =
        "default = \"allow\"\n[[rule]]\npath = \"/key\"\naction = \"hide\"\ninode = true\n";
    let (out, _) = under(policy, &export, "cat open key; true");
    assert_eq!(out, "");
}

#[test]
fn total_is_counted_inside_the_confinement_and_holds() {
    let export = Export::new();
    fs::write(export.path().join("old"), vec![0; 300 * 1024]).unwrap();
    let policy = "default = \"allow\"\nlimit = { total = \"400K\" }\n";
    let script = "head -c 90K /dev/zero > a && echo room; head -c 90K /dev/zero > b || echo full";
    let (out, err) = under(policy, &export, script);
    assert_eq!(out, "room\nfull", "{err}");
    let size = |name| fs::metadata(export.path().join(name)).unwrap().len();
    assert!(size("a") + size("b") <= 100 * 1024);
}

#[test]
fn view_that_observes_lets_through_and_says_so() {
    let export = Export::new();
    fs::write(export.path().join("key"), "secret").unwrap();
    let policy = "default = \"allow\"\nmode = \"observe\"\n\
                  [[rule]]\nname = \"keys\"\npath = \"/key\"\naction = \"hide\"\n";
    let (out, err) = under(policy, &export, "cat key");
    assert_eq!(out, "secret", "{err}");
    assert!(err.contains("only told"), "no warning at the start: {err}");
    let records = records(&export);
    assert!(
        records.contains("\"observed\"") && records.contains("keys"),
        "{records}"
    );
}
