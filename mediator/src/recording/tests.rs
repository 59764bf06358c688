//! There and back, and everything that a hostile file can hold.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use proptest::prelude::*;
use rustix::io::Errno;

use super::*;
use crate::op::Op;
use crate::policy::tests::explain::{request, requests};
use crate::policy::{Request, Requester};

fn meta() -> Meta {
    Meta {
        view: "web".to_owned(),
        export: "/srv/web".to_owned(),
        policy: "web.toml".to_owned(),
        program: "test".to_owned(),
        started: 7,
    }
}

fn written(entries: &[Entry]) -> (Vec<u8>, Summary) {
    let mut bytes = Vec::new();
    let mut recorder = Recorder::new(&mut bytes, &meta()).unwrap();
    for entry in entries {
        recorder.push(entry).unwrap();
    }
    let summary = recorder.finish().unwrap();
    (bytes, summary)
}

/// All entries, how it ended, and the error at which it did.
fn read(bytes: &[u8]) -> (Vec<Entry>, Option<Ending>, Option<ReadError>) {
    let mut reader = match Reader::new(bytes) {
        Ok(reader) => reader,
        Err(error) => return (Vec::new(), None, Some(error)),
    };
    let mut entries = Vec::new();
    for entry in &mut reader {
        match entry {
            Ok(entry) => entries.push(entry),
            Err(error) => return (entries, None, Some(error)),
        }
    }
    assert!(reader.next().is_none(), "an end is an end");
    (entries, reader.ending(), None)
}

fn unlink(path: &str) -> Request {
    request(Op::Unlink, &[path.to_owned()])
}

fn entry(at: u64, path: &str) -> Entry {
    Entry::new(at, unlink(path), Outcome::Done)
}

fn frame(tag: u8, body: &[u8], told: Option<usize>) -> Vec<u8> {
    let mut packer = ZlibEncoder::new(Vec::new(), Compression::default());
    packer.write_all(&[tag]).unwrap();
    packer.write_all(body).unwrap();
    let packed = packer.finish().unwrap();
    let len = told.unwrap_or(body.len() + 1);
    let mut bytes = u32::try_from(packed.len()).unwrap().to_le_bytes().to_vec();
    bytes.extend(u32::try_from(len).unwrap().to_le_bytes());
    bytes.extend(packed);
    bytes
}

fn file(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(frame(0, &postcard::to_stdvec(&meta()).unwrap(), None));
    bytes.extend(frames.concat());
    bytes
}

fn outcomes() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        Just(Outcome::Done),
        (1..200u16).prop_map(Outcome::Failed),
        ((1..200u16), prop::option::of(0..9u32))
            .prop_map(|(errno, rule)| Outcome::Refused { errno, rule }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn recording_holds_what_was_pushed(
        all in prop::collection::vec((0..2_000u64, requests(), outcomes()), 0..40),
    ) {
        let mut at = 0;
        let pushed: Vec<Entry> = all.into_iter().map(|(after, request, outcome)| {
            at += after;
            Entry::new(at, request, outcome)
        }).collect();
        let (bytes, summary) = written(&pushed);
        let (entries, ending, error) = read(&bytes);
        prop_assert!(error.is_none());
        prop_assert_eq!(ending, Some(Ending::Whole { left_out: 0 }));
        prop_assert_eq!(summary.requests, pushed.len() as u64);
        prop_assert_eq!(summary.entries, entries.len() as u64);
        prop_assert_eq!(summary.bytes, bytes.len() as u64);
        let total: u64 = entries.iter().map(|entry| entry.count).sum();
        prop_assert_eq!(total, pushed.len() as u64);
        for kept in &entries {
            let same = |one: &&Entry| one.request == kept.request && one.outcome == kept.outcome;
            prop_assert!(pushed.iter().filter(same).any(|one| one.at == kept.at));
        }
        for one in &pushed {
            prop_assert!(entries.iter().any(|kept| kept.request == one.request && kept.outcome == one.outcome));
        }
    }

    #[test]
    fn file_with_a_changed_byte_is_read_without_a_panic(
        all in prop::collection::vec((requests(), outcomes()), 1..20),
        at in any::<prop::sample::Index>(), to in any::<u8>(),
    ) {
        let entries: Vec<Entry> = all.into_iter().map(|(request, outcome)| Entry::new(0, request, outcome)).collect();
        let (mut bytes, _) = written(&entries);
        let at = at.index(bytes.len());
        let changed = bytes[at] != to;
        bytes[at] = to;
        let (read, ending, error) = read(&bytes);
        prop_assert!(error.is_some() == ending.is_none());
        // The checksum of each frame finds it.
        prop_assert!(!changed || error.is_some() || ending == Some(Ending::CutOff) || read == entries);
    }

    #[test]
    fn any_bytes_in_a_frame_are_entries_or_an_error(body in prop::collection::vec(any::<u8>(), 0..300), tag in 0..4u8) {
        let (entries, ending, error) = read(&file(&[frame(tag, &body, None)]));
        prop_assert!(error.is_some() || ending.is_some());
        for entry in entries {
            prop_assert!(entry.fault().is_none());
        }
    }

    #[test]
    fn any_bytes_are_no_recording(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(read(&bytes).2.is_some());
        let (_, ending, error) = read(&[MAGIC.as_slice(), &bytes].concat());
        prop_assert!(error.is_some() || ending.is_some());
    }
}

#[test]
fn requests_that_are_alike_are_written_once_whatever_their_thread() {
    let mut entries = Vec::new();
    for at in 0..3000u32 {
        let mut one = entry(u64::from(at), if at % 2 == 0 { "/a" } else { "/b" });
        one.request.requester = Requester {
            pid: at,
            ..one.request.requester
        };
        entries.push(one);
    }
    let (bytes, summary) = written(&entries);
    assert_eq!((summary.requests, summary.entries), (3000, 2));
    let (kept, ..) = read(&bytes);
    let told: Vec<(u64, u64, u32)> = kept
        .iter()
        .map(|entry| (entry.at, entry.count, entry.request.requester.pid))
        .collect();
    assert_eq!(told, [(0, 1500, 0), (1, 1500, 0)]);
}

#[test]
fn recording_of_a_boot_is_small() {
    // 150,000 requests on 5,000 names over a minute, as a guest that boots asks.
    let requests = 150_000u64;
    let entries = (0..requests).map(|at| {
        let file = at * 7919 % 5000;
        let mut one = entry(
            at * 2 / 5,
            &format!("/usr/lib/x{}/libfile-{file}.so", file % 40),
        );
        one.request.op = Op::Lookup;
        one.request.words = Op::Lookup.words();
        one
    });
    let mut recorder = Recorder::new(std::io::sink(), &meta()).unwrap();
    for one in entries {
        recorder.push(&one).unwrap();
    }
    let summary = recorder.finish().unwrap();
    assert_eq!(summary.requests, requests);
    assert!(summary.bytes < requests * 8, "{summary:?}");
}

#[test]
fn file_that_is_cut_off_anywhere_is_read_as_far_as_it_goes() {
    let entries: Vec<Entry> = (0..4)
        .map(|at| entry(at * 10_000, &format!("/{at}")))
        .collect();
    let (bytes, _) = written(&entries);
    let mut most = 0;
    for end in MAGIC.len()..bytes.len() {
        let (kept, ending, error) = read(&bytes[..end]);
        assert!(error.is_none(), "{end}: {error:?}");
        assert_eq!(ending, Some(Ending::CutOff));
        assert!(kept.len() >= most && entries.starts_with(&kept), "{end}");
        most = kept.len();
    }
    assert_eq!(most, entries.len());
}

#[test]
fn frame_that_unpacks_to_more_than_it_says_is_refused() {
    let zeros = vec![0; 32 << 20];
    let bomb = frame(1, &zeros, Some(FRAME_MAX));
    assert!(bomb.len() < FRAME_MAX);
    for frame in [bomb, frame(1, b"1234", Some(2)), frame(1, b"1234", Some(9))] {
        let (entries, _, error) = read(&file(&[frame]));
        assert!(entries.is_empty());
        let told = error.unwrap().to_string();
        assert!(told.contains("frame 2: it does not unpack"), "{told}");
    }
}

#[test]
fn frame_of_an_impossible_length_is_refused_before_it_is_read() {
    for lengths in [[u32::MAX, 1], [1, u32::MAX], [1, 0]] {
        let bytes: Vec<u8> = lengths.iter().flat_map(|len| len.to_le_bytes()).collect();
        let (_, _, error) = read(&file(&[bytes]));
        assert!(error.unwrap().to_string().contains("length"));
    }
}

#[test]
fn entry_that_cannot_be_is_refused() {
    let encode = |entry: &Entry| {
        let mut bytes = postcard::to_stdvec(&(entry.at, entry.count)).unwrap();
        bytes.extend(postcard::to_stdvec(&(&entry.request, entry.outcome)).unwrap());
        bytes
    };
    let good = entry(0, "/a");
    type Spoil = fn(&mut Entry);
    let bad: [(&str, Spoil); 7] = [
        ("came never", |entry| entry.count = 0),
        ("not the operation's", |entry| {
            entry.request.words = Op::Read.words();
        }),
        ("a path", |entry| entry.request.names = vec![b"a".to_vec()]),
        ("a path", |entry| {
            entry.request.names = vec![b"/../a".to_vec()]
        }),
        ("a path", |entry| {
            entry.request.second = Some(b"/a/".to_vec())
        }),
        ("more names", |entry| {
            entry.request.names = vec![b"/".to_vec(); (1 << 16) + 1];
        }),
        ("no errno", |entry| entry.outcome = Outcome::Failed(0)),
    ];
    for (words, spoil) in bad {
        let mut spoilt = good.clone();
        spoil(&mut spoilt);
        let body = [encode(&good), encode(&spoilt)].concat();
        let (entries, _, error) = read(&file(&[frame(1, &body, None)]));
        assert_eq!(entries, std::slice::from_ref(&good));
        let told = error.unwrap().to_string();
        assert!(told.contains(words), "'{words}' is not in: {told}");
    }
}

#[test]
fn request_with_more_names_than_fit_is_counted_and_left_out() {
    let mut huge = entry(0, "/a");
    huge.request.names = vec![[b"/".as_slice(), &[b'a'; 255]].concat(); 5000];
    let (bytes, summary) = written(&[entry(0, "/a"), huge, entry(0, "/b")]);
    assert_eq!((summary.requests, summary.left_out), (3, 1));
    let (entries, ending, _) = read(&bytes);
    assert_eq!(entries.len(), 2);
    assert_eq!(ending, Some(Ending::Whole { left_out: 1 }));
}

#[test]
fn what_is_no_recording_is_told_from_another_version() {
    assert!(matches!(Reader::new(&b""[..]), Err(ReadError::NoRecording)));
    let other = b"vmrec\x1a\n9...";
    assert!(matches!(
        Reader::new(other.as_slice()),
        Err(ReadError::OtherVersion)
    ));
    let mut bytes = MAGIC.to_vec();
    bytes.extend(frame(1, b"", None));
    let told = read(&bytes).2.unwrap().to_string();
    assert!(told.contains("frame 1"), "{told}");
}

#[test]
fn recorder_overwrites_nothing_and_keeps_names_to_its_owner() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("r");
    let recorder = Recorder::create(&path, &meta()).unwrap();
    recorder.finish().unwrap();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    let link = directory.path().join("link");
    std::os::unix::fs::symlink(directory.path().join("new"), &link).unwrap();
    for there in [&path, &link] {
        let error = Recorder::create(there, &meta()).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::AlreadyExists);
    }
    let reader = Reader::open(&path).unwrap();
    assert_eq!(reader.meta(), &meta());
}

#[test]
fn what_waits_is_readable_after_a_flush() {
    let mut bytes = Vec::new();
    let mut recorder = Recorder::new(&mut bytes, &meta()).unwrap();
    recorder.push(&entry(0, "/a")).unwrap();
    recorder.flush().unwrap();
    recorder.push(&entry(1, "/lost")).unwrap();
    drop(recorder);
    let (entries, ending, _) = read(&bytes);
    assert_eq!(entries, [entry(0, "/a")]);
    assert_eq!(ending, Some(Ending::CutOff));
}

/// Whoever changes [`Request`] changes the file too: raise the version in [`MAGIC`], then put the
/// new bytes here.
#[test]
fn bytes_of_this_version_stay_as_they_are() {
    let one = Entry::new(3, unlink("/a"), Outcome::of_refusal(Errno::ACCESS, Some(2)));
    let bytes = postcard::to_stdvec(&(&one.request, one.outcome)).unwrap();
    assert_eq!(
        bytes.escape_ascii().to_string(),
        "\\x0b@\\x01\\x02/a\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x01\\x01\\x00\\x00\\x02\\r\\x01\\x02"
    );
}
