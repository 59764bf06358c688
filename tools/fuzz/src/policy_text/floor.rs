//! What no rule can permit, and what none permits by itself.

use virtfs_mediator_core::ids::{FileKind, GuestGid, GuestUid, HostGid, HostOwner, HostUid, Mode};
use virtfs_mediator_core::op::{ChangesAsk, OpenAs, RenameHow, SetTime, Words, XattrName, rows};
use virtfs_mediator_core::policy::{Facts, Policy};

use super::asking::{READ, ask, birth, facts, new_name};

/// What no rule can permit.
pub(super) fn check_floor(policy: &Policy, names: &[&[u8]]) {
    for kind in [FileKind::CharDevice, FileKind::BlockDevice] {
        let birth = birth(kind, 0o666);
        let made = [
            ask::<rows::Mknod>(policy, &new_name::<rows::Mknod>(names), birth).is_ok(),
            ask::<rows::Create>(policy, &new_name::<rows::Create>(names), birth).is_ok(),
            ask::<rows::Mkdir>(policy, &new_name::<rows::Mkdir>(names), birth).is_ok(),
            ask::<rows::Symlink>(policy, &new_name::<rows::Symlink>(names), birth).is_ok(),
        ];
        assert_eq!(made, [false; 4], "a device was permitted");
    }
    let other = birth(FileKind::Fifo, 0o666);
    let made = ask::<rows::Create>(policy, &new_name::<rows::Create>(names), other);
    assert!(made.is_err(), "CREATE may make a FIFO");
    for kind in [
        FileKind::Fifo,
        FileKind::Socket,
        FileKind::CharDevice,
        FileKind::Directory,
    ] {
        let facts = Facts {
            kind: Some(kind),
            ..facts::<rows::Open>(names)
        };
        assert!(
            ask::<rows::Open>(policy, &facts, READ).is_err(),
            "a {kind:?} may be opened"
        );
    }
    let renamed = ask::<rows::Rename>(policy, &facts::<rows::Rename>(names), RenameHow::Replace);
    assert!(renamed.is_err(), "a rename to an unknown name");
    let linked = ask::<rows::Link>(policy, &facts::<rows::Link>(names), ());
    assert!(linked.is_err(), "a link with an unknown name");
    let foreign = ask::<rows::Getattr>(policy, &facts::<rows::Unlink>(names), ());
    assert!(foreign.is_err(), "facts of another operation");
    for words in [Words::ANY, Words::NONE] {
        let facts = Facts {
            words,
            ..facts::<rows::Unlink>(names)
        };
        assert!(
            ask::<rows::Unlink>(policy, &facts, ()).is_err(),
            "words of another operation"
        );
    }
}

/// `(uid_t)-1` is no owner.
pub(super) fn check_owners(policy: &Policy, names: &[&[u8]]) {
    let ask_for = |uid, gid| {
        let asked = ChangesAsk {
            uid: Some(GuestUid(uid)),
            gid: Some(GuestGid(gid)),
            ..ChangesAsk::NOTHING
        };
        let facts = Facts {
            words: Words::NONE,
            ..facts::<rows::Setattr>(names)
        };
        ask::<rows::Setattr>(policy, &facts, asked)
    };
    for (uid, gid) in [
        (0, 0),
        (u32::MAX, 0),
        (0, u32::MAX),
        (u32::MAX - 1, 1),
        (100_000, 65_535),
    ] {
        if let Ok(changes) = ask_for(uid, gid) {
            let none =
                changes.uid == Some(HostUid(u32::MAX)) || changes.gid == Some(HostGid(u32::MAX));
            assert!(!none, "the id -1 was granted for {uid}:{gid}");
        }
    }
    let made = ask::<rows::Mkdir>(
        policy,
        &new_name::<rows::Mkdir>(names),
        birth(FileKind::Directory, 0o755),
    );
    if let Ok(made) = made {
        let none = made.owner.uid.0 == u32::MAX || made.owner.gid.0 == u32::MAX;
        assert!(!none, "a new directory belongs to -1");
    }
    let _shown = policy.present(HostOwner {
        uid: HostUid(u32::MAX),
        gid: HostGid(0),
    });
}

/// Where the file does not speak of set-id bits, they are stripped.
pub(super) fn check_set_id(policy: &Policy, names: &[&[u8]], text: &str) {
    if text.contains("set_id") || text.contains("force") {
        return;
    }
    let made = ask::<rows::Mknod>(
        policy,
        &new_name::<rows::Mknod>(names),
        birth(FileKind::Regular, 0o6755),
    );
    assert!(
        !made.is_ok_and(|made| made.mode.has_set_id()),
        "a set-id file may be made"
    );
    let asked = ChangesAsk {
        mode: Some(Mode::new(0o6755)),
        ..ChangesAsk::NOTHING
    };
    for kind in [Some(FileKind::Regular), None] {
        let facts = Facts {
            kind,
            words: Words::NONE,
            ..facts::<rows::Setattr>(names)
        };
        let changed = ask::<rows::Setattr>(policy, &facts, asked);
        let set_id = |mode: Mode| mode.has_set_id();
        assert!(
            !changed.is_ok_and(|it| it.mode.is_some_and(set_id)),
            "a file may become set-id"
        );
    }
}

pub(super) fn check_readonly(policy: &Policy, names: &[&[u8]]) {
    let mut readonly = policy.clone();
    readonly.set_readonly();
    for policy in [policy, &readonly]
        .into_iter()
        .filter(|policy| policy.readonly())
    {
        let touch = ChangesAsk {
            atime: SetTime::Now,
            ..ChangesAsk::NOTHING
        };
        let write = OpenAs {
            write: true,
            read: false,
            ..READ
        };
        let second = Some(&b"/second"[..]);
        let xattr = XattrName::new(b"user.a").expect("a name");
        let with_xattr = Some((&b"user.a"[..], 1));
        let changed = [
            ask::<rows::Mkdir>(
                policy,
                &new_name::<rows::Mkdir>(names),
                birth(FileKind::Directory, 0),
            )
            .is_ok(),
            ask::<rows::Create>(
                policy,
                &new_name::<rows::Create>(names),
                birth(FileKind::Regular, 0),
            )
            .is_ok(),
            ask::<rows::Unlink>(policy, &facts::<rows::Unlink>(names), ()).is_ok(),
            ask::<rows::Write>(policy, &facts::<rows::Write>(names), ()).is_ok(),
            ask::<rows::Fallocate>(policy, &facts::<rows::Fallocate>(names), ()).is_ok(),
            ask::<rows::Open>(
                policy,
                &Facts {
                    words: Words::NONE,
                    ..facts::<rows::Open>(names)
                },
                write,
            )
            .is_ok(),
            ask::<rows::Setattr>(
                policy,
                &Facts {
                    words: Words::NONE,
                    ..facts::<rows::Setattr>(names)
                },
                touch,
            )
            .is_ok(),
            ask::<rows::Rename>(
                policy,
                &Facts {
                    second,
                    ..facts::<rows::Rename>(names)
                },
                RenameHow::NoReplace,
            )
            .is_ok(),
            ask::<rows::Link>(
                policy,
                &Facts {
                    second,
                    ..facts::<rows::Link>(names)
                },
                (),
            )
            .is_ok(),
            ask::<rows::Setxattr>(
                policy,
                &Facts {
                    xattr: with_xattr,
                    ..facts::<rows::Setxattr>(names)
                },
                xattr,
            )
            .is_ok(),
        ];
        assert_eq!(changed, [false; 10], "a read-only policy permits a change");
    }
}
