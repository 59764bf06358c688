//! Facts of `when`, and the mistakes in them, by table.

use super::*;

/// Each mistake of a file as `line:column what`.
pub(super) fn mistakes(text: &str) -> Vec<String> {
    let Err(mistakes) = Policy::parse("test", text, &Nobody) else {
        return Vec::new();
    };
    let list = mistakes.list.iter();
    list.map(|at| format!("{}:{} {}", at.line, at.column, at.what))
        .collect()
}

fn denying(when: &str) -> Policy {
    policy(&format!(
        "default = \"allow\"\n[[rule]]\naction = \"deny\"\nwhen = {{ {when} }}\n"
    ))
}

fn open(flags: &str) -> OpenAs {
    let has = |flag| flags.split(' ').any(|given| given == flag);
    OpenAs {
        read: has("read"),
        write: has("write"),
        append: has("append"),
        truncate: has("truncate"),
        exclusive: has("exclusive"),
        sync: has("sync"),
        direct: has("direct"),
    }
}

fn opened(policy: &Policy, flags: &str) -> Result<OpenAs, Errno> {
    let names = [b"/a".as_slice()];
    let word = if flags.contains("write") {
        Word::Write
    } else {
        Word::Read
    };
    let facts = Facts {
        names: &names,
        words: Words::of(word),
        ..Facts::of(Op::Open, CLIENT)
    };
    policy
        .decide::<rows::Open>(&facts, open(flags))
        .map(|it| it.grant())
        .map_err(|no| no.errno)
}

#[test]
fn flags_of_an_open_are_judged_by_any_all_and_none() {
    for (when, flags, denied) in [
        ("flags = [\"sync\", \"direct\"]", "read sync", true),
        ("flags = [\"sync\", \"direct\"]", "read", false),
        ("flags = \"truncate\"", "read truncate", true),
        ("flags = \"exclusive\"", "read exclusive", true),
        (
            "flags = { all = [\"read\", \"write\"] }",
            "read write",
            true,
        ),
        ("flags = { all = [\"read\", \"write\"] }", "write", false),
        (
            "flags = { any = \"write\", none = \"append\" }",
            "write",
            true,
        ),
        (
            "flags = { any = \"write\", none = \"append\" }",
            "write append",
            false,
        ),
        (
            "flags = { any = \"write\", none = \"append\" }",
            "read",
            false,
        ),
        ("flags = { none = \"direct\" }", "read", true),
    ] {
        let got = opened(&denying(when), flags);
        assert_eq!(got.is_err(), denied, "{when} at {flags}: {got:?}");
    }
}

#[test]
fn flags_of_a_create_are_judged_too_and_other_operations_have_none() {
    let policy = denying("flags = { any = \"write\" }");
    let file = FileKind::Regular;
    assert_eq!(
        decide::<rows::Create>(&policy, &["/a"], birth(file, 0)),
        Err(Errno::ACCESS)
    );
    assert_eq!(decide::<rows::Write>(&policy, &["/a"], ()), Ok(()));
    assert_eq!(decide::<rows::Unlink>(&policy, &["/a"], ()), Ok(()));
}

#[test]
fn rename_is_judged_by_how_it_is_done() {
    let policy = denying("rename = [\"replace\", \"exchange\"]");
    let how = |how| rename_how(&policy, ("/a", "/b"), FileKind::Regular, how);
    assert_eq!(how(RenameHow::Replace), Err(Errno::ACCESS));
    assert_eq!(how(RenameHow::Exchange), Err(Errno::ACCESS));
    assert_eq!(how(RenameHow::NoReplace), Ok(RenameHow::NoReplace));
    assert_eq!(decide::<rows::Unlink>(&policy, &["/a"], ()), Ok(()));
}

#[test]
fn second_is_the_new_name_of_a_rename_or_link_alone() {
    let policy = denying("second = \"/in/**\"");
    let file = FileKind::Regular;
    assert_eq!(rename(&policy, "/a", "/in/a", file), Err(Errno::ACCESS));
    assert!(rename(&policy, "/in/a", "/a", file).is_ok());
    assert_eq!(decide::<rows::Unlink>(&policy, &["/in/a"], ()), Ok(()));
    let names = [b"/a".as_slice()];
    let link = Facts {
        names: &names,
        second: Some(b"/in/a"),
        ..Facts::of(Op::Link, CLIENT)
    };
    let refused = policy.decide::<rows::Link>(&link, ()).unwrap_err();
    assert_eq!(refused.errno, Errno::PERM);
}

#[test]
fn name_is_the_last_component_and_the_root_has_none() {
    let policy = denying("name = [\"*.key\", \"core\"]");
    for (path, denied) in [
        ("/a.key", true),
        ("/d/core", true),
        ("/d.key/x", false),
        ("/core/x", false),
        ("/", false),
    ] {
        let got = decide::<rows::Unlink>(&policy, &[path], ());
        assert_eq!(got.is_err(), denied, "{path}");
    }
    let both = decide::<rows::Write>(&policy, &["/x", "/a.key"], ());
    assert_eq!(both, Err(Errno::ACCESS), "every known name is judged");
    let unknown = decide::<rows::Write>(&policy, &[], ());
    assert_eq!(unknown, Err(Errno::ACCESS), "no name known");
}

#[test]
fn rename_may_not_leave_a_rule_that_goes_by_last_component() {
    let policy = policy(
        "default = \"allow\"\n[[rule]]\ndo = \"write\"\naction = \"deny\"\nwhen = { name = \"*.cfg\" }\n",
    );
    let (file, directory) = (FileKind::Regular, FileKind::Directory);
    for (old, new, kind, good) in [
        ("/a.cfg", "/a", file, false),
        ("/a.cfg", "/b.cfg", file, true),
        ("/d.cfg", "/d", directory, false),
        ("/d", "/e", directory, true),
        ("/a", "/a.cfg", file, true),
    ] {
        let got = rename(&policy, old, new, kind);
        assert_eq!(got.is_ok(), good, "{old} -> {new}: {got:?}");
    }
    // Names are hidden or open by rules on paths; a condition opens no way.
    assert!(policy.needs(Op::Rename).path && !policy.needs(Op::Lookup).path);
}

#[test]
fn size_that_is_asked_is_a_truncation_s_alone() {
    let policy = denying("new_size = { max = 10 }");
    let truncate = |size| ChangesAsk {
        size: Some(size),
        ..NO_CHANGE
    };
    let at = |ask| setattr(&policy, "/a", FileKind::Regular, ask);
    assert_eq!(at(truncate(10)), Err(Errno::ACCESS));
    assert!(at(truncate(11)).is_ok());
    let chmod = ChangesAsk {
        mode: Some(Mode::new(0)),
        ..NO_CHANGE
    };
    assert!(at(chmod).is_ok());
    assert_eq!(decide::<rows::Write>(&policy, &["/a"], ()), Ok(()));
}

#[test]
fn mistake_in_a_condition_is_told_with_its_place() {
    let rule = "default = \"allow\"\n[[rule]]\naction = \"deny\"\n";
    for (text, want) in [
        (
            "when = { flags = \"creat\" }",
            "4:18 `creat` is no word for `flags`",
        ),
        (
            "when = { flags = [] }",
            "4:18 `flags` is an empty list, so that it never holds",
        ),
        (
            "when = { flags = { some = \"read\" } }",
            "4:20 unknown key `some` in `flags`",
        ),
        (
            "when = { flags = { all = \"read\", none = \"read\" } }",
            "4:18 `flags` demands a flag by `all` that it excludes by `none`",
        ),
        (
            "do = \"owner\"\nwhen = { flags = \"read\" }",
            "5:18 `flags` never holds: no operation of this rule's `do` has one",
        ),
        (
            "when = { rename = \"whiteout\" }",
            "4:19 `whiteout` is no word for `rename`",
        ),
        (
            "do = \"link\"\nwhen = { rename = \"replace\" }",
            "5:19 `rename` never holds: no operation of this rule's `do` has one",
        ),
        (
            "when = { name = \"a/b\" }",
            "4:17 `name` is the last component alone, and `a/b` is none",
        ),
        ("when = { name = \"[\" }", "4:17 `[` is never closed"),
        (
            "when = { second = \"in\" }",
            "4:19 `in`: a path starts with `/`, the top of the view",
        ),
        (
            "do = \"write\"\nwhen = { second = \"/in\" }",
            "5:19 `second` never holds: no operation of this rule's `do` has one",
        ),
        (
            "do = \"mode\"\nwhen = { new_size = { max = 1 } }",
            "5:21 `new_size` never holds: no operation of this rule's `do` has one",
        ),
    ] {
        assert_eq!(mistakes(&format!("{rule}{text}")), [want], "{text}");
    }
}

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
        ..NO_CHANGE
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
        ..NO_CHANGE
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
        ..NO_CHANGE
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
        ..NO_CHANGE
    };
    assert_eq!(changed(&policy, &["/pkg/a"], chown), Err(Errno::ROFS));
}

const OBSERVED: &str = "default = \"deny\"\nmode = \"observe\"\nset_id = \"deny\"\n\
    map = [{ guest = 0, host = 0, count = 100000 }]\n\
    [[rule]]\nname = \"gone\"\npath = \"/gone/**\"\naction = \"hide\"\n\
    [[rule]]\nname = \"frozen\"\npath = \"/frozen/**\"\ndo = [\"change\"]\naction = \"deny\"\n\
    [[rule]]\npath = \"/dir/**\"\ndo = [\"look\", \"rename\"]\naction = \"allow\"\n\
    [[xattr]]\nmatch = \"user.no\"\naction = \"unsupported\"\n";

fn observed<O: Judged>(
    policy: &Policy,
    facts: &Facts<'_>,
    ask: O::Ask,
) -> Result<Option<Refusal>, Errno> {
    let decided = policy.decide::<O>(facts, ask);
    decided
        .map(|permit| permit.observed())
        .map_err(|no| no.errno)
}

#[test]
fn what_rules_refuse_is_let_through_and_told_under_observe() {
    let policy = policy(OBSERVED);
    assert!(policy.observes() && !policy.goes_by_name());
    let told = |path: &str| {
        let names = [path.as_bytes()];
        let facts = Facts {
            names: &names,
            ..Facts::of(Op::Unlink, CLIENT)
        };
        let told = observed::<rows::Unlink>(&policy, &facts, ());
        told.map(|refusal| refusal.map(|it| (it.errno, it.rule)))
    };
    assert_eq!(told("/gone/a"), Ok(Some((Errno::NOENT, Some(0)))));
    assert_eq!(told("/frozen/a"), Ok(Some((Errno::ACCESS, Some(1)))));
    assert_eq!(told("/a"), Ok(Some((Errno::ACCESS, None))));
    assert!(!policy.is_hidden(b"/gone/a"));

    let names = [b"/dir".as_slice()];
    let xattr = Facts {
        names: &names,
        xattr: Some((b"user.no", 0)),
        ..Facts::of(Op::Getxattr, CLIENT)
    };
    let name = XattrName::new(b"user.no").unwrap();
    let told = observed::<rows::Getxattr>(&policy, &xattr, name).unwrap();
    assert_eq!(told.unwrap().errno, Errno::NOTSUP);
    let look = Facts {
        names: &names,
        ..Facts::of(Op::Lookup, CLIENT)
    };
    assert_eq!(observed::<rows::Lookup>(&policy, &look, ()), Ok(None));
}

#[test]
fn rename_that_would_leave_its_rules_or_replace_is_done_and_told_under_observe() {
    let policy = policy(OBSERVED);
    let rename = |old: &str, new: &str| {
        let names = [old.as_bytes()];
        let facts = Facts {
            names: &names,
            second: Some(new.as_bytes()),
            kind: Some(FileKind::Regular),
            ..Facts::of(Op::Rename, CLIENT)
        };
        let permit = policy
            .decide::<rows::Rename>(&facts, RenameHow::Replace)
            .unwrap();
        assert_eq!(permit.grant(), RenameHow::Replace);
        permit.observed().map(|it| it.errno)
    };
    assert_eq!(rename("/frozen/a", "/dir/a"), Some(Errno::ACCESS));
    assert_eq!(rename("/dir/a", "/dir/b"), Some(Errno::EXIST));
}

#[test]
fn walls_stand_under_observe() {
    let policy = policy(OBSERVED);
    let at = &["/dir/a"];
    let device = birth(FileKind::CharDevice, 0);
    assert_eq!(decide::<rows::Mknod>(&policy, at, device), Err(Errno::PERM));
    let change = |ask| setattr(&policy, "/dir/a", FileKind::Regular, ask);
    let chmod = ChangesAsk {
        mode: Some(Mode::new(0o4755)),
        ..NO_CHANGE
    };
    assert_eq!(change(chmod), Err(Errno::PERM), "set_id");
    let chown = ChangesAsk {
        uid: Some(GuestUid(100_000)),
        ..NO_CHANGE
    };
    assert_eq!(change(chown), Err(Errno::PERM), "map");
    let names = [b"/dir/a".as_slice()];
    let stranger = Facts {
        names: &names,
        outside: true,
        ..Facts::of(Op::Unlink, CLIENT)
    };
    let refused = observed::<rows::Unlink>(&policy, &stranger, ());
    assert_eq!(refused, Err(Errno::ACCESS), "map");
    assert_eq!(
        decide::<rows::Unlink>(&policy, &[], ()),
        Err(Errno::ACCESS),
        "no name known"
    );
    let mut readonly = policy.clone();
    readonly.set_readonly();
    assert_eq!(
        decide::<rows::Unlink>(&readonly, at, ()),
        Err(Errno::ROFS),
        "readonly"
    );
}

const RENAMING: &str = "default = \"allow\"\n\
    [[xattr]]\nmatch = \"user.plain\"\naction = \"allow\"\n\
    [[xattr]]\nmatch = \"user.*\"\naction = \"rename\"\nto = \"user.view.\"\n\
    [[xattr]]\nmatch = \"trusted.*\"\naction = \"rename\"\nto = \"user.trust.\"\n\
    [[xattr]]\nmatch = \"security.*\"\naction = \"unsupported\"\n";

#[test]
fn attribute_is_kept_under_its_new_name_and_shown_under_the_guest_s() {
    let policy = policy(RENAMING);
    for (guest, stored) in [
        ("user.plain", Some("user.plain")),
        ("user.a", Some("user.view.user.a")),
        ("trusted.a", Some("user.trust.trusted.a")),
        // Whatever the guest calls an attribute, it reaches none of the host's by that name.
        ("user.view.user.a", Some("user.view.user.view.user.a")),
        ("system.a", Some("system.a")),
        ("security.a", None),
    ] {
        let ask = XattrName::new(guest.as_bytes()).unwrap();
        let facts = Facts {
            xattr: Some((guest.as_bytes(), 0)),
            ..Facts::of(Op::Getxattr, CLIENT)
        };
        let got = policy.decide::<rows::Getxattr>(&facts, ask).ok();
        let got = got.map(|permit| permit.grant());
        let got = got
            .as_ref()
            .map(|name| str::from_utf8(name.as_bytes()).unwrap());
        assert_eq!(got, stored, "{guest}");
        if let Some(stored) = stored {
            let shown = policy.xattr_shown(stored.as_bytes());
            assert_eq!(shown, Some(guest.as_bytes()), "{stored}");
        }
    }
    for raw in [
        "user.a",
        "user.view.",
        "user.view.x",
        "user.view.user.plain",
        "security.a",
    ] {
        assert_eq!(policy.xattr_shown(raw.as_bytes()), None, "{raw}");
    }
}

#[test]
fn attribute_whose_new_name_is_too_long_is_not_there_and_cannot_be_made() {
    let policy = policy(RENAMING);
    let name = format!("user.{}", "a".repeat(250));
    let ask = XattrName::new(name.as_bytes()).unwrap();
    let at = &["/a"];
    assert_eq!(
        decide::<rows::Getxattr>(&policy, at, ask),
        Err(Errno::NODATA)
    );
    let set = decide::<rows::Setxattr>(&policy, at, ask);
    assert_eq!(set, Err(Errno::RANGE));
    let fits = XattrName::new(name.get(..245).unwrap().as_bytes()).unwrap();
    let kept = decide::<rows::Getxattr>(&policy, at, fits).unwrap();
    assert_eq!(kept.as_bytes().len(), 255);
}

#[test]
fn name_that_others_are_renamed_to_is_out_of_reach_also_under_observe() {
    let rules = "[[xattr]]\nmatch = \"trusted.*\"\naction = \"rename\"\nto = \"user.view.\"\n\
                 [[xattr]]\nmatch = \"user.view.no\"\naction = \"deny\"\n";
    for mode in ["enforce", "observe"] {
        let policy = policy(&format!("default = \"allow\"\nmode = \"{mode}\"\n{rules}"));
        for name in ["user.view.trusted.a", "user.view.x"] {
            let ask = XattrName::new(name.as_bytes()).unwrap();
            let got = decide::<rows::Setxattr>(&policy, &["/a"], ask);
            assert_eq!(got, Err(Errno::NOTSUP), "{mode} {name}");
        }
        assert_eq!(
            policy.xattr_shown(b"user.view.trusted.a"),
            Some(&b"trusted.a"[..])
        );
        assert_eq!(policy.xattr_shown(b"user.view.no"), None);
    }
}

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
            ..NO_CHANGE
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
