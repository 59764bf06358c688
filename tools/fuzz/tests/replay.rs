//! The committed corpus, run through every target without libFuzzer: what was once found stays
//! found, and the targets' bodies are built and tested with everything else.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    missing_docs,
    reason = "tests"
)]

use std::path::Path;

use virtfs_fuzz::TARGETS;

fn replay(name: &str) {
    let (_, target) = TARGETS
        .into_iter()
        .find(|(known, _)| *known == name)
        .unwrap();
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(name);
    let mut files: Vec<_> = std::fs::read_dir(&dir)
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    files.sort();
    assert!(
        files.len() >= 20,
        "{} has {} files",
        dir.display(),
        files.len()
    );
    for file in files {
        // What a panic is about: the harness shows it only then.
        println!("{}", file.display());
        target(&std::fs::read(&file).unwrap());
    }
}

#[test]
fn corpus_of_audit_lines_is_read() {
    replay("audit_lines");
}

#[test]
fn corpus_of_control_messages_is_answered() {
    replay("control_messages");
}

#[test]
fn corpus_of_directory_cookies_is_listed() {
    replay("directory_cookies");
}

#[test]
fn corpus_of_fuse_messages_is_answered() {
    replay("fuse_messages");
}

#[test]
fn corpus_of_policy_text_is_judged() {
    replay("policy_text");
}

#[test]
fn corpus_of_recording_is_read() {
    replay("recording");
}

#[test]
fn every_target_has_a_corpus() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let mut names: Vec<_> = std::fs::read_dir(corpus)
        .unwrap()
        .map(|dir| dir.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, TARGETS.map(|(name, _)| name));
}
