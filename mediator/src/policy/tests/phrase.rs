//! Requests in words, there and back.

use proptest::prelude::*;

use super::super::*;
use super::explain::requests;
use crate::ids::*;
use crate::op::*;

fn around() -> Circumstances {
    Circumstances::of(Requester {
        uid: 1,
        gid: 1,
        pid: 0,
    })
}

fn read(phrase: &str) -> Request {
    Request::from_phrase(phrase, &around()).unwrap_or_else(|bad| panic!("{phrase}: {bad}"))
}

#[test]
fn phrase_says_what_it_reads_again() {
    for phrase in [
        "lookup /",
        "create /up/a 0644 rw excl",
        "create /a 4755 w append trunc sync direct",
        "mkdir /d 2755",
        "mknod /p 0600 fifo",
        "mknod /p 0600",
        "symlink /l ../t\\x20x",
        "link /a /b",
        "rename /a /b",
        "rename /a /b exchange",
        "rename /a /b noreplace",
        "chmod /a 4755",
        "chown /a 0:0",
        "chown /a 0:",
        "chown /a :7",
        "truncate /a 10",
        "setattr /a uid=1 mode=0600 mtime=now",
        "setattr /a atime=-5.7 mtime=3",
        "open /a rw trunc",
        "read /a 4096 512",
        "write /\\xff\\n 0 1",
        "copy_file_range /a write 0 9",
        "setxattr /a user.x 12",
        "getxattr /a user.x",
        "fsync /a",
    ] {
        assert_eq!(read(phrase).phrase(), phrase);
    }
}

#[test]
fn handy_words_mean_the_raw_request() {
    assert_eq!(read("open /a"), read("open /a r"));
    assert_eq!(read("create /a"), read("create /a 0644 rw"));
    assert_eq!(read("utimes /a"), read("setattr /a atime=now mtime=now"));
    assert_eq!(read("open /a append"), read("open /a w append"));
    assert_eq!(read("chmod /a 0600").words, Words::of(Word::Mode));
    assert_eq!(read("open /a rw").words, Op::Open.words());
    assert_eq!(read("readdir /a").kind, Some(FileKind::Directory));
}

#[test]
fn words_that_are_no_request_are_refused_with_what_to_write() {
    for (phrase, words) in [
        ("", &["no request", "chmod PATH MODE"][..]),
        ("craete /a", &["craete", "did you mean `create`?"]),
        ("frobnicate /a", &["frobnicate", "known here: lookup"]),
        ("create a", &["no path", "starts with `/`"]),
        ("create /../a", &["cannot be a name"]),
        ("create /a/", &["cannot be a name"]),
        ("chmod /a", &["lacks its mode", "chmod PATH MODE"]),
        ("chmod /a 0999", &["no mode", "octal"]),
        ("chmod /a +0644", &["no mode"]),
        ("chmod /a 77777", &["no mode"]),
        ("chown /a root", &["no pair of ids"]),
        ("chown /a :", &["no pair of ids"]),
        ("rename /a", &["lacks its new path"]),
        ("rename /a /b whiteout", &["no way to rename"]),
        ("unlink /a /b", &["one word too many"]),
        ("open /a rx", &["says nothing of an open", "did you mean"]),
        ("setattr /a", &["changes nothing"]),
        ("setattr /a mode", &["no change"]),
        ("read /a 4", &["lacks its length"]),
        ("read /a x 4", &["`x` is no offset"]),
        ("mknod /a 0600 pipe", &["no type"]),
        ("unlink /\\x4", &["escape"]),
        ("copy_file_range /a", &["source", "read|write"]),
    ] {
        let bad = Request::from_phrase(phrase, &around()).expect_err(phrase);
        let told = bad.to_string();
        for word in words {
            assert!(told.contains(word), "{phrase}: '{word}' is not in: {told}");
        }
    }
}

#[test]
fn refusal_of_a_hostile_phrase_is_escaped() {
    for phrase in [
        "\x1b[2J /a",
        "create \x1b[2J",
        "open /a \x1b[2J",
        "chmod /a \x1b",
    ] {
        let told = Request::from_phrase(phrase, &around())
            .unwrap_err()
            .to_string();
        assert!(!told.contains('\x1b'), "{told:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_a_request_or_an_error(phrase in "[a-z]{0,9}( [/a-z\\\\x0-9:.=]{0,9}){0,4}|.{0,40}") {
        if let Ok(request) = Request::from_phrase(&phrase, &around()) {
            let said = request.phrase();
            prop_assert_eq!(read(&said).phrase(), said.clone());
            prop_assert!(said.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
        }
    }

    #[test]
    fn any_request_is_put_into_words_that_name_its_verdict(request in requests()) {
        let said = request.phrase();
        let parsed = Request::from_phrase(&said, &around());
        prop_assert!(parsed.is_ok(), "{}: {:?}", said, parsed);
        let parsed = parsed.unwrap();
        prop_assert_eq!(parsed.op, request.op);
        prop_assert_eq!(&parsed.names[0], &request.names[0]);
        prop_assert_eq!(parsed.ask, request.ask);
    }

    #[test]
    fn any_name_is_read_back(name in prop::collection::vec(1..=255u8, 1..40)) {
        prop_assume!(!name.contains(&b'/') && name != b"." && name != b"..");
        let path = [b"/".as_slice(), &name].concat();
        prop_assert_eq!(unescaped(&escaped(&path)), Ok(path));
    }
}
