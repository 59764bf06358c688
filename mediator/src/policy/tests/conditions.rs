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
        no_atime: false,
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

/// Whether an open with these flags is allowed, and may do nothing but append.
fn append_only(policy: &Policy, flags: &str) -> Option<bool> {
    let names = [b"/a".as_slice()];
    let facts = Facts {
        names: &names,
        words: open(flags).words(),
        ..Facts::of(Op::Open, CLIENT)
    };
    let permit = policy.decide::<rows::Open>(&facts, open(flags));
    permit.ok().map(|permit| permit.append_only())
}

#[test]
fn open_is_held_to_append_where_it_is_allowed_for_that_alone() {
    let deny = denying("flags = { any = \"write\", none = \"append\" }");
    let allow = policy(
        "default = \"deny\"\n[[rule]]\npath = \"/a\"\ndo = [\"read\", \"write\"]\naction = \"allow\"\n\
         when = { flags = { all = \"append\" } }\n",
    );
    for policy in [&deny, &allow] {
        assert_eq!(append_only(policy, "write append"), Some(true));
        assert_eq!(append_only(policy, "read write append"), Some(true));
        assert_eq!(append_only(policy, "write"), None);
        // So that a mapping cannot go past: also for whoever only reads.
        assert!(policy.judges_data_of(&[b"/a"]));
    }
    assert_eq!(append_only(&deny, "read"), Some(false));
    // Another rule lets it through too, the file is another's, or appending is what is refused.
    for (text, judged) in [
        (
            "default = \"allow\"\n[[rule]]\naction = \"allow\"\nwhen = { flags = \"append\" }\n",
            true,
        ),
        (
            "default = \"allow\"\n[[rule]]\npath = \"/b\"\naction = \"deny\"\nwhen = { flags = { none = \"append\" } }\n",
            false,
        ),
        (
            "default = \"allow\"\n[[rule]]\naction = \"deny\"\nwhen = { flags = { all = [\"sync\", \"append\"] } }\n",
            false,
        ),
        (
            "default = \"allow\"\nmode = \"observe\"\n[[rule]]\naction = \"deny\"\nwhen = { flags = { none = \"append\" } }\n",
            false,
        ),
    ] {
        let other = policy(text);
        assert_eq!(append_only(&other, "write append"), Some(false), "{text}");
        assert_eq!(other.judges_data_of(&[b"/a"]), judged, "{text}");
    }
    // Whoever allows it by hand saw that it appends.
    let facts = Facts {
        words: Words::of(Word::Write),
        ..Facts::of(Op::Open, CLIENT)
    };
    let by_hand = deny.decide_by_hand::<rows::Open>(&facts, open("write append"));
    assert!(by_hand.unwrap().append_only());
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
        ..ChangesAsk::NOTHING
    };
    let at = |ask| setattr(&policy, "/a", FileKind::Regular, ask);
    assert_eq!(at(truncate(10)), Err(Errno::ACCESS));
    assert!(at(truncate(11)).is_ok());
    let chmod = ChangesAsk {
        mode: Some(Mode::new(0)),
        ..ChangesAsk::NOTHING
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
