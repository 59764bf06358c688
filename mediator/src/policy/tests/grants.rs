//! What is granted, and by which facts, by table.

use super::*;

#[test]
fn set_id_is_stripped_allowed_or_denied_but_for_directories() {
    for (word, file, directory) in [
        ("strip", Ok(0o755), Ok(0o2755)),
        ("allow", Ok(0o6755), Ok(0o2755)),
        ("deny", Err(Errno::PERM), Ok(0o2755)),
    ] {
        // Set-user-id means nothing on a directory, and is no exception there.
        let both = match word {
            "strip" => Ok(0o2755),
            "allow" => Ok(0o6755),
            _ => Err(Errno::PERM),
        };
        let policy = policy(&format!("default = \"allow\"\nset_id = \"{word}\"\n"));
        let chmod = |mode| ChangesAsk {
            mode: Some(Mode::new(mode)),
            ..ChangesAsk::NOTHING
        };
        let mode = |made: Result<Changes, Errno>| made.map(|it| it.mode.unwrap().bits());
        assert_eq!(
            mode(setattr(&policy, "/a", FileKind::Regular, chmod(0o6755))),
            file
        );
        assert_eq!(
            mode(setattr(&policy, "/a", FileKind::Directory, chmod(0o2755))),
            directory
        );
        assert_eq!(
            mode(setattr(&policy, "/a", FileKind::Directory, chmod(0o6755))),
            both
        );
        let made = decide::<rows::Create>(&policy, &["/a"], birth(FileKind::Regular, 0o6755));
        assert_eq!(made.map(|it| it.mode.bits()), file);
        let made = decide::<rows::Mkdir>(&policy, &["/a"], birth(FileKind::Directory, 0o2755));
        assert_eq!(made.map(|it| it.mode.bits()), directory);
    }
}

#[test]
fn setgid_directories_denied_leave_nothing_that_needs_fsetid() {
    let text = "default = \"allow\"\nset_id = \"deny\"\nsetgid_directories = \"deny\"\n";
    let bare = policy(text);
    let chmod = |mode| ChangesAsk {
        mode: Some(Mode::new(mode)),
        ..ChangesAsk::NOTHING
    };
    let set = |mode| setattr(&bare, "/d", FileKind::Directory, chmod(mode)).map(|it| it.mode);
    assert_eq!(set(0o2775), Err(Errno::PERM));
    assert_eq!(set(0o1775), Ok(Some(Mode::new(0o1775))));
    let made = decide::<rows::Mkdir>(&bare, &["/d"], birth(FileKind::Directory, 0o2755));
    assert_eq!(made.map(|it| it.mode), Err(Errno::PERM));
    assert_eq!(bare.set_id_bits(), Mode::default());
    let forced = "[[rule]]\npath = \"/d/**\"\naction = \"allow\"\nmode = { force = \"2000\" }\n";
    let allow = "set_id = \"allow\"\nsetgid_directories = \"deny\"\n";
    for (wanting, bits) in [
        (String::new(), 0o2000),
        ("set_id = \"deny\"\n".to_owned(), 0o2000),
        (allow.to_owned(), 0o6000),
    ] {
        let policy = policy(&format!("default = \"allow\"\n{wanting}"));
        assert_eq!(policy.set_id_bits(), Mode::new(bits), "{wanting}");
    }
    assert_eq!(
        policy(&format!("{text}{forced}")).set_id_bits().bits(),
        0o2000
    );
    assert_eq!(Policy::parity().set_id_bits().bits(), 0o6000);
}

#[test]
fn owner_outside_of_the_map_is_shown_and_refused() {
    let mapped = policy(
        "default = \"allow\"\nmap = [{ guest = 0, host = 1000, count = 10 }]\n\
         squash = { who = \"root\", uid = 7, gid = 8 }\n[[rule]]\npath = \"/in/**\"\n\
         action = \"allow\"\nowner = { uid = 9, gid = 9 }\n",
    );
    let span = |first, count| IdSpan { first, count };
    let uids = [span(7, 1), span(9, 1), span(1000, 10)];
    assert_eq!(mapped.host_uids(), Some(&uids[..]));
    // 8 and 9 are one span.
    let gids = [span(8, 2), span(1000, 10)];
    assert_eq!(mapped.host_gids(), Some(&gids[..]));
    let owner = |uid, gid| HostOwner {
        uid: HostUid(uid),
        gid: HostGid(gid),
    };
    let names = [&b"/f"[..]];
    let facts = |op, uid, gid| Facts {
        names: &names,
        kind: Some(FileKind::Regular),
        owner: Some(owner(uid, gid)),
        ..Facts::of(op, CLIENT)
    };
    let open = |uid, gid| {
        let ask = OpenAs {
            read: true,
            ..OpenAs::default()
        };
        let opened = mapped.decide::<rows::Open>(&facts(Op::Open, uid, gid), ask);
        opened.map(drop).map_err(|no| no.errno)
    };
    for (uid, gid, want) in [
        (1000, 1009, Ok(())),
        (7, 9, Ok(())),
        (0, 1000, Err(Errno::ACCESS)),
        (1000, 0, Err(Errno::ACCESS)),
        (1010, 1000, Err(Errno::ACCESS)),
        (65534, 65534, Err(Errno::ACCESS)),
    ] {
        assert_eq!(open(uid, gid), want, "{uid}:{gid}");
    }
    // It is seen, and its owner asked for before anything else is done with it.
    assert!(
        mapped
            .decide::<rows::Getattr>(&facts(Op::Getattr, 0, 0), ())
            .is_ok()
    );
    assert!(mapped.needs(Op::Open).attr && mapped.needs(Op::Unlink).attr);
    let within = Facts {
        outside: true,
        ..facts(Op::Lookup, 1000, 1000)
    };
    let below = mapped.decide::<rows::Lookup>(&within, ());
    assert_eq!(below.unwrap_err().errno, Errno::ACCESS);
    assert!(policy("default = \"allow\"\n").admits(owner(0, 0)));
}

#[test]
fn allowing_rule_decides_owner_and_mode() {
    let policy = policy(
        "default = \"allow\"\n[[rule]]\npath = \"/in/**\"\naction = \"allow\"\n\
         owner = { uid = 990, gid = 991 }\nmode = { force = \"0640\", strip = \"0007\" }\n",
    );
    let made = decide::<rows::Create>(&policy, &["/in/x"], birth(FileKind::Regular, 0o607));
    let made = made.unwrap();
    assert_eq!(
        made.owner,
        HostOwner {
            uid: HostUid(990),
            gid: HostGid(991)
        }
    );
    assert!(made.owner_is_forced);
    assert_eq!(made.mode.bits(), 0o640);
    let chown = ChangesAsk {
        uid: Some(GuestUid(5)),
        ..ChangesAsk::NOTHING
    };
    let changed = setattr(&policy, "/in/x", FileKind::Regular, chown).unwrap();
    assert_eq!((changed.uid, changed.gid), (Some(HostUid(990)), None));
    let made = decide::<rows::Create>(&policy, &["/x"], birth(FileKind::Regular, 0o607)).unwrap();
    assert_eq!(
        (made.owner.uid, made.owner_is_forced),
        (HostUid(64055), false)
    );
}

#[test]
fn conditions_hold_by_their_facts_and_fail_closed() {
    let names = [b"/a".as_slice()];
    let at = Facts {
        names: &names,
        ..Facts::of(Op::Unlink, CLIENT)
    };
    let old = HostOwner {
        uid: HostUid(0),
        gid: HostGid(5),
    };
    for (when, facts, denied) in [
        (
            "type = \"file\"",
            Facts {
                kind: Some(FileKind::Regular),
                ..at.clone()
            },
            true,
        ),
        (
            "type = \"file\"",
            Facts {
                kind: Some(FileKind::Fifo),
                ..at.clone()
            },
            false,
        ),
        ("type = \"file\"", at.clone(), true),
        (
            "owner = { uid = 0 }",
            Facts {
                owner: Some(old),
                ..at.clone()
            },
            true,
        ),
        (
            "owner = { uid = [0], gid = 6 }",
            Facts {
                owner: Some(old),
                ..at.clone()
            },
            false,
        ),
        (
            "mode = { any = \"6000\" }",
            Facts {
                mode: Some(Mode::new(0o4755)),
                ..at.clone()
            },
            true,
        ),
        (
            "mode = { none = \"0022\" }",
            Facts {
                mode: Some(Mode::new(0o775)),
                ..at.clone()
            },
            false,
        ),
        (
            "size = { min = 10 }",
            Facts {
                size: Some(10),
                ..at.clone()
            },
            true,
        ),
        (
            "size = { min = 10 }",
            Facts {
                size: Some(9),
                ..at.clone()
            },
            false,
        ),
        (
            "nlink = { min = 2 }",
            Facts {
                nlink: Some(1),
                ..at.clone()
            },
            false,
        ),
        (
            "birth = true",
            Facts {
                birth: true,
                ..at.clone()
            },
            true,
        ),
        ("submount = true", at.clone(), false),
        ("requester = { uid = 64055 }", at.clone(), true),
        ("requester = { gid = 1 }", at.clone(), false),
    ] {
        let text =
            format!("default = \"allow\"\n[[rule]]\naction = \"deny\"\nwhen = {{ {when} }}\n");
        let got = policy(&text).decide::<rows::Unlink>(&facts, ());
        assert_eq!(got.is_err(), denied, "{when}: {got:?}");
    }
}

#[test]
fn symlink_is_judged_by_its_target() {
    let text = "default = \"allow\"\n[[rule]]\naction = \"deny\"\nwhen = { target = [\"/**\", \"**/../**\"] }\n";
    let policy = policy(text);
    for (target, good) in [
        ("/etc/passwd", false),
        ("a/../../b", false),
        ("..", false),
        ("a/b", true),
    ] {
        let facts = Facts {
            target: Some(target.as_bytes()),
            ..Facts::of(Op::Symlink, CLIENT)
        };
        let got = policy.decide::<rows::Symlink>(&facts, birth(FileKind::Symlink, 0o777));
        assert_eq!(got.is_ok(), good, "{target}");
    }
}

#[test]
fn xattr_rules_go_by_name_and_the_first_decides() {
    let policy = policy(
        "default = \"allow\"\n[[xattr]]\nmatch = \"user.*\"\naction = \"allow\"\n\
         [[xattr]]\nmatch = \"system.*\"\naction = \"deny\"\n\
         [[xattr]]\nmatch = \"*\"\naction = \"unsupported\"\n",
    );
    for (name, want) in [
        ("user.a", Ok(())),
        ("system.posix_acl_access", Err(Errno::ACCESS)),
        ("security.capability", Err(Errno::NOTSUP)),
    ] {
        let facts = Facts {
            xattr: Some((name.as_bytes(), 0)),
            ..Facts::of(Op::Getxattr, CLIENT)
        };
        let ask = XattrName::new(name.as_bytes()).unwrap();
        let got = policy.decide::<rows::Getxattr>(&facts, ask);
        assert_eq!(got.map(|_| ()).map_err(|no| no.errno), want, "{name}");
        let shown = policy.xattr_shown(name.as_bytes());
        assert_eq!(shown.is_some(), want.is_ok());
    }
}

#[test]
fn needs_are_those_of_the_rules_for_the_operation() {
    let none = Needs::default();
    let both = Needs {
        path: true,
        attr: true,
    };
    for op in Op::ALL {
        assert_eq!(Policy::parity().needs(*op), none, "{op:?}");
    }
    let policy = policy(
        "default = \"allow\"\nset_id = \"allow\"\n\
         [[rule]]\npath = \"/a\"\ndo = \"write\"\naction = \"deny\"\n\
         [[rule]]\ndo = \"time\"\nwhen = { size = { min = 1 } }\naction = \"deny\"\n",
    );
    assert_eq!(
        policy.needs(Op::Write),
        Needs {
            path: true,
            attr: false
        }
    );
    assert_eq!(policy.needs(Op::Lookup), none);
    assert_eq!(policy.needs(Op::Setattr), both);
    assert_eq!(
        policy.needs(Op::Rename),
        both,
        "carrying goes by path and type"
    );
}

#[test]
fn dropbox_takes_files_and_gives_nothing_back() {
    let dropbox = policy(shipped::DROPBOX);
    let file = FileKind::Regular;
    assert_eq!(decide::<rows::Lookup>(&dropbox, &["/"], ()), Ok(()));
    let made = decide::<rows::Create>(&dropbox, &["/in/x"], birth(file, 0o4755)).unwrap();
    assert_eq!(made.mode.bits(), 0o755);
    let chown = ChangesAsk {
        uid: Some(GuestUid(0)),
        ..ChangesAsk::NOTHING
    };
    assert!(setattr(&dropbox, "/in/x", file, chown).is_ok());
    assert_eq!(
        decide::<rows::Read>(&dropbox, &["/in/x"], ()),
        Err(Errno::ACCESS)
    );
    assert_eq!(
        decide::<rows::Unlink>(&dropbox, &["/in/x"], ()),
        Err(Errno::ACCESS)
    );
    assert_eq!(
        rename(&dropbox, "/in/x", "/in/y", file),
        Ok(RenameHow::NoReplace)
    );
    assert_eq!(rename(&dropbox, "/in/x", "/y", file), Err(Errno::ACCESS));
    assert_eq!(
        decide::<rows::Lookup>(&dropbox, &["/etc"], ()),
        Err(Errno::ACCESS)
    );
}
