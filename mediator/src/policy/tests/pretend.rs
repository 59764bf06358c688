//! Changes that are told as done and are not, by table.

use super::*;

fn pretending(words: &str) -> Policy {
    policy(&format!(
        "default = \"allow\"\nset_id = \"deny\"\nmap = [{{ guest = 0, host = 0, count = 10 }}]\n\
         [[rule]]\npath = \"/pkg/**\"\ndo = {words}\naction = \"pretend\"\n"
    ))
}

/// What is granted, and which words are pretended.
fn changed(policy: &Policy, names: &[&str], ask: ChangesAsk) -> Result<(Changes, Words), Errno> {
    let names: Vec<&[u8]> = names.iter().map(|name| name.as_bytes()).collect();
    let facts = Facts {
        names: &names,
        kind: Some(FileKind::Regular),
        words: Words::NONE,
        ..Facts::of(Op::Setattr, CLIENT)
    };
    let decided = policy.decide::<rows::Setattr>(&facts, ask);
    decided
        .map(|permit| (permit.grant(), permit.pretended()))
        .map_err(|no| no.errno)
}

const NO_CHANGES: Changes = Changes {
    uid: None,
    gid: None,
    mode: None,
    size: None,
    atime: SetTime::Omit,
    mtime: SetTime::Omit,
};

#[test]
fn pretended_change_grants_nothing_and_says_so() {
    let policy = pretending("[\"owner\", \"mode\", \"time\"]");
    let all = ChangesAsk {
        // Neither the id nor the bits could be granted.
        uid: Some(GuestUid(4000)),
        gid: Some(GuestGid(4000)),
        mode: Some(Mode::new(0o6755)),
        atime: SetTime::Now,
        mtime: SetTime::Now,
        ..ChangesAsk::NOTHING
    };
    let words = [Word::Owner, Word::Mode, Word::Time];
    let words = words
        .map(Words::of)
        .into_iter()
        .fold(Words::NONE, Words::with);
    assert_eq!(changed(&policy, &["/pkg/a"], all), Ok((NO_CHANGES, words)));
    assert_eq!(changed(&policy, &["/a"], all), Err(Errno::PERM));
}

#[test]
fn pretended_word_leaves_the_others_of_a_request_real() {
    let policy = pretending("\"owner\"");
    let both = ChangesAsk {
        uid: Some(GuestUid(4)),
        mode: Some(Mode::new(0o700)),
        size: Some(5),
        ..ChangesAsk::NOTHING
    };
    let granted = Changes {
        mode: Some(Mode::new(0o700)),
        size: Some(5),
        ..NO_CHANGES
    };
    let owner = Words::of(Word::Owner);
    assert_eq!(changed(&policy, &["/pkg/a"], both), Ok((granted, owner)));
}

#[test]
fn name_that_pretends_is_stricter_than_one_that_allows_and_milder_than_one_that_denies() {
    let policy = policy(
        "default = \"allow\"\n[[rule]]\npath = \"/no\"\ndo = \"owner\"\naction = \"deny\"\n\
         [[rule]]\npath = \"/pkg\"\ndo = \"owner\"\naction = \"pretend\"\n",
    );
    let chown = ChangesAsk {
        uid: Some(GuestUid(4)),
        ..ChangesAsk::NOTHING
    };
    let owner = Words::of(Word::Owner);
    let nothing = Ok((NO_CHANGES, owner));
    assert_eq!(changed(&policy, &["/a", "/pkg"], chown), nothing);
    assert_eq!(changed(&policy, &["/pkg", "/a"], chown), nothing);
    assert_eq!(changed(&policy, &["/pkg", "/no"], chown), Err(Errno::PERM));
}

#[test]
fn pretended_attribute_is_neither_set_nor_removed_but_read() {
    let policy = pretending("\"xattr\"");
    let name = XattrName::new(b"user.a").unwrap();
    let at = &["/pkg/a"];
    let set = decide::<rows::Setxattr>(&policy, at, name);
    assert_eq!(set, Ok(XattrChange::Pretend));
    let removed = decide::<rows::Removexattr>(&policy, at, name);
    assert_eq!(removed, Ok(XattrChange::Pretend));
    assert_eq!(decide::<rows::Getxattr>(&policy, at, name), Ok(name));
    let elsewhere = decide::<rows::Setxattr>(&policy, &["/a"], name);
    assert_eq!(elsewhere, Ok(XattrChange::Act(name)));
}

#[test]
fn file_may_not_leave_a_rule_that_pretends_and_none_may_enter_it() {
    let policy = pretending("\"owner\"");
    let file = FileKind::Regular;
    assert_eq!(rename(&policy, "/pkg/a", "/a", file), Err(Errno::ACCESS));
    assert_eq!(rename(&policy, "/a", "/pkg/a", file), Err(Errno::ACCESS));
    assert!(rename(&policy, "/pkg/a", "/pkg/b", file).is_ok());
}

#[test]
fn readonly_refuses_what_would_be_pretended() {
    let mut policy = pretending("\"owner\"");
    policy.set_readonly();
    let chown = ChangesAsk {
        uid: Some(GuestUid(4)),
        ..ChangesAsk::NOTHING
    };
    assert_eq!(changed(&policy, &["/pkg/a"], chown), Err(Errno::ROFS));
}
