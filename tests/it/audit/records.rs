//! What a refusal leaves in a file.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Stdio;

use serde_json::Value;
use virtfs_mediator_core::mediate::AuditLine;

use crate::common::{
    CLIENT_GID, CLIENT_UID, END_LIMIT, Export, LIMIT, Lines, Start, assert_nothing_left,
    await_that, ours, shown, stderr, within_as,
};

use super::{NASTY, entries, entries_so_far, export, keepers_of, of, start};

#[test]
fn refusal_is_one_whole_record_in_a_file() {
    let export = export();
    let file = export.beside("audit.log");
    let start = start(&export, &[&shown(&file)]);
    let script = "cd \"$1\" && rm -f kept*; cat told; mknod device c 0 0; ln told second; \
                  mv kept* elsewhere; true";
    let output = start.output(["sh", "-c", script, "sh", &shown(export.path())]);
    assert!(output.status.success(), "{output:?}");
    let told = stderr(&output);
    assert!(!told.contains("keep"), "not on standard error: {told}");
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, 0o600);

    let found = entries(&file);
    let view = start.name();
    assert!(found.iter().all(|one| one["view"] == view), "{found:#?}");
    let unlink = found
        .iter()
        .find(|one| one["operation"] == "unlink")
        .unwrap();
    assert_eq!(unlink["event"], "refused");
    assert_eq!(unlink["path"], "/kept\\n{\\\"view\\\":\\\"x\\\"}\\x1b[2J");
    assert_eq!(unlink["type"], "regular");
    assert_eq!(unlink["uid"], CLIENT_UID);
    assert_eq!(unlink["gid"], CLIENT_GID);
    assert!(unlink["pid"].as_u64().unwrap() > 1, "{unlink}");
    assert_eq!(unlink["rule"], "keep");
    assert_eq!(unlink["rule_number"], 1);
    assert_eq!(unlink["rule_line"], 2);
    assert!(!unlink["why"].as_str().unwrap().is_empty());
    assert_eq!(
        (&unlink["errno"], &unlink["errno_number"]),
        (&"EACCES".into(), &13.into())
    );
    let time = unlink["time"].as_str().unwrap();
    assert!(
        time.starts_with("20") && time.ends_with('Z') && time.len() == 27,
        "{time}"
    );

    let allowed = of(&found, "allowed");
    let read = allowed.iter().find(|one| one["path"] == "/told").unwrap();
    assert_eq!(
        (&read["rule_number"], &read["rule_line"]),
        (&2.into(), &7.into())
    );
    assert_eq!(
        (read.get("rule"), read.get("errno")),
        (None, None),
        "{read}"
    );
    let by_operation = |name| found.iter().find(|one| one["operation"] == name).unwrap();
    let rename = by_operation("rename");
    assert_eq!(rename["second_path"], "/elsewhere");
    assert_eq!(rename["type"], "regular");
    // The floor: no rule decides.
    let device = by_operation("mknod");
    assert_eq!(
        (&device["path"], &device["errno"]),
        (&"/device".into(), &"EPERM".into())
    );
    assert_eq!(device["type"], "char_device");
    assert_eq!(device.get("rule_number"), None, "{device}");
    assert_nothing_left(view);
}

/// A client whose removal is refused, and who stays until the log tells of it: the log is written
/// behind the answer, and a view that ends takes along what is not.
fn refused_in_the_log(export: &Export, sinks: &[&str]) {
    let (from, go) = std::io::pipe().unwrap();
    let script = "rm -f \"$1\"/kept* 2>/dev/null; read l; true";
    let mut child = start(export, sinks)
        .command(["sh", "-c", script, "sh", &shown(export.path())])
        .stdin(from)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let log = Lines::of(child.stderr.take().unwrap());
    while !log.next().expect("a line").contains("rule=\"keep\"") {}
    drop(go);
    assert!(child.wait().unwrap().success());
}

#[test]
fn records_go_to_standard_error_too_when_both_are_asked_for() {
    let export = export();
    let file = export.beside("audit.log");
    refused_in_the_log(&export, &["stderr", &shown(&file)]);
    assert_eq!(of(&entries(&file), "refused").len(), 1);
    refused_in_the_log(&export, &[]);
    refused_in_the_log(&export, &["stderr"]);
    assert_eq!(entries(&file).len(), 1);
}

#[test]
fn views_share_a_file_and_each_record_names_its_own() {
    let exports = [export(), export()];
    let file = exports[0].beside("audit.log");
    let start = Start::several(&[&exports[0], &exports[1]])
        .option("--policy")
        .option(shown(&exports[0].beside("policy.toml")))
        .option("--audit")
        .option(shown(&file));
    let paths = exports.each_ref().map(|export| shown(export.path()));
    let script = "for at; do rm -f \"$at\"/kept*; done 2>/dev/null; true";
    let words = ["sh", "-c", script, "sh", &paths[0], &paths[1]];
    let output = start.output(words);
    assert!(output.status.success(), "{output:?}");
    let found = entries(&file);
    let mut views: Vec<&str> = found
        .iter()
        .map(|one| one["view"].as_str().unwrap())
        .collect();
    views.dedup();
    assert_eq!(views.len(), 2, "{found:#?}");
}

#[test]
fn records_of_a_view_without_a_launcher_are_kept_until_it_ends() {
    let export = export();
    let file = export.beside("audit.log");
    let view = start(&export, &[&shown(&file)]).mount();
    assert_eq!(keepers_of(&file).len(), 1);
    let victim = shown(&export.path().join(NASTY));
    let refused = within_as(&view.name, CLIENT_UID, CLIENT_GID, &["rm", "-f", &victim]);
    assert!(!refused.status.success());
    await_that(LIMIT, "the record is kept", || {
        of(&entries_so_far(&file), "refused").len() == 1
    });
    // As logrotate's copytruncate does.
    fs::write(&file, "").unwrap();
    within_as(&view.name, CLIENT_UID, CLIENT_GID, &["rm", "-f", &victim]);
    await_that(LIMIT, "the next one is kept", || {
        of(&entries_so_far(&file), "refused").len() == 1
    });
    assert!(ours(["unmount", &view.name]).status.success());
    await_that(END_LIMIT, "the relay ends with its view", || {
        keepers_of(&file).is_empty()
    });
}

#[test]
fn readme_shows_a_record_as_it_is_kept_and_names_each_field() {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = fs::read_to_string(readme).unwrap();
    let example = readme
        .lines()
        .find(|line| line.starts_with("{\"time\""))
        .unwrap();
    let mut record: serde_json::Map<String, Value> = serde_json::from_str(example).unwrap();
    let rows: Vec<&str> = readme
        .lines()
        .filter(|line| line.starts_with("| `"))
        .collect();
    for field in record
        .keys()
        .map(String::as_str)
        .chain(["other_paths", "records"])
    {
        let named = format!("`{field}`");
        assert!(rows.iter().any(|row| row.contains(&named)), "{field}");
    }
    assert!(record.remove("time").is_some() && record.remove("view").is_some());
    let line = serde_json::to_vec(&record).unwrap();
    assert!(AuditLine::parse(&line).is_ok(), "{example}");
}
