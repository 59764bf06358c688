//! Files of cases: what is read, and every mistake with its place.

use super::super::*;
use crate::ids::*;

const WHO: Requester = Requester {
    uid: 1,
    gid: 1,
    pid: 0,
};

#[test]
fn case_is_read_with_all_its_circumstances() {
    let text = "\n[[case]]\nrequest = \"setattr /a mode=4755\"\nexpect = \"EPERM\"\nrule = \"r\"\n\
                note = \"n\"\ntype = \"file\"\nmode = \"0644\"\nowner = \"5:6\"\nsize = 7\nnlink = 2\n\
                names = [\"/b\\\\x20c\"]\nbirth = true\nsubmount = true\nrequester = \"8:9\"\n";
    let cases = parse_cases("f", text, WHO).unwrap_or_else(|all| panic!("{all}"));
    let [case] = &cases[..] else {
        panic!("{cases:?}")
    };
    assert_eq!((case.line, case.rule.as_deref()), (2, Some("r")));
    assert_eq!(case.expect, Expectation::Errno(rustix::io::Errno::PERM));
    let request = &case.request;
    assert_eq!(request.names, [b"/a".to_vec(), b"/b c".to_vec()]);
    assert_eq!(
        (request.kind, request.mode, request.size, request.nlink),
        (
            Some(FileKind::Regular),
            Some(Mode::new(0o644)),
            Some(7),
            Some(2)
        )
    );
    assert_eq!(request.owner.map(|of| (of.uid.0, of.gid.0)), Some((5, 6)));
    assert!(request.birth && request.submount);
    assert_eq!((request.requester.uid, request.requester.gid), (8, 9));
}

#[test]
fn mistake_in_a_case_is_told_with_its_place() {
    let good = "[[case]]\nrequest = \"unlink /a\"\nexpect = \"deny\"\n";
    for (text, words) in [
        (String::new(), &["f:1:1", "no `[[case]]`"][..]),
        ("case = 3".to_owned(), &["f:1:8", "array of tables"]),
        ("[[cases]]\n".to_owned(), &["f:1:3", "did you mean `case`?"]),
        ("[[case]\n".to_owned(), &["f:1:"]),
        ("[[case]]\n".to_owned(), &["f:1:1", "lacks `request`"]),
        (
            "[[case]]\nrequest = \"unlink /a\"\n".to_owned(),
            &["f:1:1", "lacks `expect`"],
        ),
        (
            "[[case]]\nrequest = \"unlnk /a\"\nexpect = \"deny\"\n".to_owned(),
            &["f:2:11", "did you mean `unlink`?"],
        ),
        (
            "[[case]]\nrequest = \"unlink /a\"\nexpect = \"no\"\n".to_owned(),
            &["f:3:10", "no answer of a policy"],
        ),
        (
            format!("{good}exepct = 1\n"),
            &["f:4:1", "did you mean `expect`?"],
        ),
        (format!("{good}owner = \"5\"\n"), &["f:4:9", "pair of ids"]),
        (format!("{good}owner = \"5:\"\n"), &["f:4:9", "both ids"]),
        (format!("{good}owner = 5\n"), &["f:4:9", "UID:GID"]),
        (format!("{good}type = \"dir\"\n"), &["f:4:8", "no type"]),
        (format!("{good}names = \"b\"\n"), &["f:4:9", "no path"]),
        (format!("{good}nlink = -1\n"), &["f:4:9", "out of range"]),
        (format!("{good}birth = 1\n"), &["f:4:9", "true or false"]),
    ] {
        let told = parse_cases("f", &text, WHO).expect_err(&text).to_string();
        for word in words {
            assert!(told.contains(word), "{text}: '{word}' is not in: {told}");
        }
    }
}
