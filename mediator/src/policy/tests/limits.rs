//! How large a file may become, by table.

use super::*;

const LIMITED: &str = "default = \"allow\"\nlimit = { file_size = \"1M\" }\n\
    [[rule]]\nname = \"small\"\npath = \"/small/**\"\ndo = [\"look\", \"read\", \"write\", \"owner\"]\n\
    action = \"allow\"\nlimit = { file_size = 100 }\n\
    [[rule]]\npath = \"/big/**\"\naction = \"allow\"\nlimit = { file_size = \"1G\" }\n";

#[test]
fn file_may_grow_to_its_limit_and_not_beyond() {
    let policy = policy(LIMITED);
    let write = |path: &str, offset, length| {
        let names = [path.as_bytes()];
        let facts = Facts {
            names: &names,
            offset: Some(offset),
            length: Some(length),
            ..Facts::of(Op::Write, CLIENT)
        };
        let decided = policy.decide::<rows::Write>(&facts, ());
        decided.map(|_| ()).map_err(|no| (no.errno, no.rule))
    };
    assert_eq!(write("/small/a", 0, 100), Ok(()));
    assert_eq!(write("/small/a", 1, 100), Err((Errno::DQUOT, Some(0))));
    assert_eq!(
        write("/small/a", u64::MAX, 100),
        Err((Errno::DQUOT, Some(0)))
    );
    assert_eq!(write("/a", (1 << 20) - 1, 1), Ok(()));
    assert_eq!(write("/a", 1 << 20, 1), Err((Errno::DQUOT, None)));
    // The view's limit holds besides a rule's: the smaller of the two.
    assert_eq!(write("/big/a", 1 << 20, 1), Err((Errno::DQUOT, None)));
}

#[test]
fn size_is_limited_whatever_gives_it() {
    let policy = policy(LIMITED);
    let truncate = |path, size| {
        let ask = ChangesAsk {
            size: Some(size),
            uid: Some(GuestUid(1)),
            ..ChangesAsk::NOTHING
        };
        setattr(&policy, path, FileKind::Regular, ask).map(|_| ())
    };
    assert_eq!(truncate("/small/a", 100), Ok(()));
    assert_eq!(truncate("/small/a", 101), Err(Errno::DQUOT));
    let names = [b"/small/a".as_slice()];
    let span = |op, words, (offset, length), adds| Facts {
        names: &names,
        words: Words::of(words),
        size: Some(90),
        offset: Some(offset),
        length: Some(length),
        adds,
        ..Facts::of(op, CLIENT)
    };
    let write = |at, adds| {
        let facts = span(Op::Write, Word::Write, at, adds);
        policy.decide::<rows::Write>(&facts, ()).is_ok()
    };
    assert!(write((0, 10), true) && !write((0, 11), true), "appended");
    assert!(write((0, 11), false));
    let unknown = Facts {
        size: None,
        ..span(Op::Write, Word::Write, (0, 1), true)
    };
    assert!(policy.decide::<rows::Write>(&unknown, ()).is_err());
    let allocate = |at, adds| {
        let facts = span(Op::Fallocate, Word::Write, at, adds);
        policy.decide::<rows::Fallocate>(&facts, ()).is_ok()
    };
    assert!(allocate((50, 50), false) && !allocate((50, 51), false));
    assert!(!allocate((0, 11), true), "inserted");
    let copy = |word, at| {
        let facts = span(Op::CopyFileRange, word, at, false);
        policy.decide::<rows::CopyFileRange>(&facts, ()).is_ok()
    };
    assert!(copy(Word::Write, (0, 100)) && !copy(Word::Write, (1, 100)));
    assert!(copy(Word::Read, (1000, 100)), "the source is only read");
}

#[test]
fn limit_is_that_of_the_strictest_name_and_only_told_under_observe() {
    let names = [b"/a".as_slice(), b"/small/a"];
    let facts = Facts {
        names: &names,
        offset: Some(0),
        length: Some(101),
        ..Facts::of(Op::Write, CLIENT)
    };
    let decided = policy(LIMITED).decide::<rows::Write>(&facts, ());
    assert_eq!(
        decided.map(|_| ()).map_err(|no| no.errno),
        Err(Errno::DQUOT)
    );
    let observed = policy(&format!("mode = \"observe\"\n{LIMITED}"));
    let permit = observed.decide::<rows::Write>(&facts, ()).unwrap();
    assert_eq!(permit.observed().map(|no| no.errno), Some(Errno::DQUOT));
}
