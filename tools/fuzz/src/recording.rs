//! Any bytes as a recording, and as what a recording's frame holds.
//!
//! Held: reading never panics and ends; what can be read is put into printable words that are read
//! again; judging and explaining agree; what is written again is read as it was; a suggested policy
//! has no mistake, is printable and allows what was allowed.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use virtfs_mediator_core::policy::{Circumstances, Policy, Request};
use virtfs_mediator_core::recording::suggest::{Observed, Spans, SuggestError, suggest};
use virtfs_mediator_core::recording::{Entry, MAGIC, Meta, Reader, Recorder};

use crate::users::Nobody;

/// A policy with something of each kind.
const POLICY: &str = "default = \"deny\"\n\
    squash = { who = \"root\", uid = 7, gid = 8 }\n\
    [[rule]]\npath = \"/**/*.key\"\naction = \"hide\"\n\
    [[rule]]\npath = \"/a/**\"\ndo = \"change\"\nwhen = { owner = { uid = 0 }, nlink = { max = 1 } }\naction = \"deny\"\n\
    [[rule]]\npath = [\"/a/**\", \"/b/*\"]\naction = \"allow\"\nmode = { strip = \"0022\" }\n";

/// Runs one input.
///
/// # Panics
///
/// With what was found.
pub fn run(data: &[u8]) {
    if let Ok(reader) = Reader::new(data) {
        let _read = reader.filter(Result::is_ok).count();
    }
    let policy = Policy::parse("policy.toml", POLICY, &Nobody).expect("a policy without mistakes");
    let file = file(data);
    let reader = Reader::new(file.as_slice()).expect("the frame before is whole");
    let entries: Vec<Entry> = reader.map_while(Result::ok).collect();
    for entry in &entries {
        check_words(&entry.request);
        check_explanation(&policy, &entry.request);
    }
    check_written_again(&entries);
    check_suggestion(&entries);
}

/// A recording with these bytes as the body of a frame of entries.
fn file(body: &[u8]) -> Vec<u8> {
    let mut meta = Vec::new();
    let recorder = Recorder::new(&mut meta, &Meta::default()).expect("memory takes it");
    drop(recorder);
    assert!(meta.starts_with(&MAGIC), "a recording begins otherwise");
    let mut packer = ZlibEncoder::new(Vec::new(), Compression::fast());
    // The tag of a frame of entries.
    packer.write_all(&[1]).expect("memory takes it");
    packer.write_all(body).expect("memory takes it");
    let packed = packer.finish().expect("memory takes it");
    let length = |len: usize| u32::try_from(len).expect("inputs are small").to_le_bytes();
    [
        meta.as_slice(),
        &length(packed.len()),
        &length(body.len() + 1),
        &packed,
    ]
    .concat()
}

fn check_words(request: &Request) {
    let phrase = request.phrase();
    let printable = |byte: u8| (b' '..=b'~').contains(&byte);
    assert!(phrase.bytes().all(printable), "{phrase:?} is not printable");
    let around = Circumstances::of(request.requester);
    if let Ok(read) = Request::from_phrase(&phrase, &around) {
        let said = read.phrase();
        let again = Request::from_phrase(&said, &around).map(|again| again.phrase());
        assert_eq!(again.ok(), Some(said), "it is read otherwise");
    }
}

fn check_explanation(policy: &Policy, request: &Request) {
    let decided = policy.decide_request(request);
    let told = policy.explain(request);
    assert_eq!(told.answer.allowed, decided.is_ok(), "{request:?}");
    let rule = decided.map_or_else(|refusal| refusal.rule, |granted| granted.rule);
    let number = told.answer.rule.map(|rule| rule.number - 1);
    assert_eq!(number, rule, "{request:?}");
}

fn check_written_again(entries: &[Entry]) {
    let mut bytes = Vec::new();
    let mut recorder = Recorder::new(&mut bytes, &Meta::default()).expect("memory takes it");
    for entry in entries {
        recorder.push(entry).expect("memory takes it");
    }
    let summary = recorder.finish().expect("memory takes it");
    let reader = Reader::new(bytes.as_slice()).expect("it was just written");
    let read: Vec<Entry> = reader
        .map(|entry| entry.expect("it was just written"))
        .collect();
    assert_eq!(summary.entries, read.len() as u64, "entries are lost");
    for entry in &read {
        let same = |one: &&Entry| {
            let mut request = one.request.clone();
            request.requester.pid = 0;
            request == entry.request && one.outcome == entry.outcome
        };
        assert!(
            entries.iter().any(|one| same(&one)),
            "{entry:?} came from nowhere"
        );
    }
}

fn check_suggestion(entries: &[Entry]) {
    let mut observed = Observed::new(Spans::Folded);
    for entry in entries {
        observed.add(entry.clone()).expect("inputs are small");
    }
    let suggestion = match suggest(&observed, None, &Nobody) {
        Ok(suggestion) => suggestion,
        Err(SuggestError::Nothing) => return,
        Err(other) => panic!("{other}"),
    };
    let printable = |byte: u8| byte == b'\n' || (b' '..=b'~').contains(&byte);
    assert!(
        suggestion.text.bytes().all(printable),
        "{}",
        suggestion.text
    );
    let policy = Policy::parse("suggested", &suggestion.text, &Nobody)
        .unwrap_or_else(|mistakes| panic!("{mistakes}\n{}", suggestion.text));
    let parity = Policy::parity();
    for entry in entries.iter().filter(|entry| entry.outcome.is_allowed()) {
        let request = &entry.request;
        let possible = !request.names.is_empty() && parity.decide_request(request).is_ok();
        assert!(
            !possible || policy.decide_request(request).is_ok(),
            "{} is refused by\n{}",
            request.phrase(),
            suggestion.text
        );
    }
}
