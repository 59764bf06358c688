//! Any text as a policy file.
//!
//! Held: reading it never panics, each mistake is told at a place within the text and in its order,
//! and the same text is read the same twice. Of what can be read: no rule lifts the floor, no
//! refusal passes for a fault, `readonly` refuses every change, set-id bits and the id -1 are never
//! granted by themselves, a file with several names is judged by the strictest, what is hidden is
//! hidden from lookups and listings alike and cannot be carried into the open, and facts that
//! [`Policy::needs`] does not ask for change nothing.

use rustix::io::Errno;
use virtfs_mediator_core::ids::{
    FileKind, GuestGid, GuestOwner, GuestUid, HostGid, HostOwner, HostUid, Mode,
};
use virtfs_mediator_core::op::{
    BirthAsk, ChangesAsk, OpenAs, Operation, RenameHow, SetTime, Words, XattrName, rows,
};
use virtfs_mediator_core::policy::{Facts, Judged, Mistakes, Policy, Refusal, Requester};

use crate::users::Nobody;

/// Paths besides those that the text itself speaks of.
const PATHS: [&str; 5] = ["/", "/a", "/a/b", "/a/b/x.key", "/dev"];
/// How many of the text's own paths are tried.
const OWN_PATHS: usize = 4;

const WHO: Requester = Requester {
    uid: 64055,
    gid: 64055,
    pid: 0,
};

/// Runs one input.
///
/// # Panics
///
/// With what was found.
pub fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match Policy::parse("policy.toml", &text, &Nobody) {
        Err(mistakes) => {
            check_places(&text, &mistakes);
            let again = Policy::parse("policy.toml", &text, &Nobody);
            assert_eq!(
                again.err(),
                Some(mistakes),
                "the same text was read otherwise"
            );
        }
        Ok(policy) => {
            let paths = paths(&text);
            for path in &paths {
                check_path(&policy, path.as_bytes(), &text);
            }
            for (one, other) in paths.iter().zip(paths.iter().skip(1)) {
                check_pair(&policy, one.as_bytes(), other.as_bytes(), &text);
                check_pair(&policy, other.as_bytes(), one.as_bytes(), &text);
            }
        }
    }
}

fn check_places(text: &str, mistakes: &Mistakes) {
    assert!(!mistakes.list.is_empty(), "no policy, and no mistake");
    let lines: Vec<&str> = text.split('\n').collect();
    let mut before = (0, 0);
    for mistake in &mistakes.list {
        let line = mistake.line.checked_sub(1).and_then(|at| lines.get(at));
        let line = line.unwrap_or_else(|| panic!("there is no line {}: {mistake:?}", mistake.line));
        let end = line.chars().count() + 1;
        assert!(
            (1..=end).contains(&mistake.column),
            "beyond the line: {mistake:?}"
        );
        assert!(!mistake.what.is_empty(), "a mistake without a word");
        let place = (mistake.line, mistake.column);
        assert!(before <= place, "out of order: {mistake:?}");
        before = place;
    }
    let told = mistakes.to_string();
    assert!(
        told.lines().count() >= mistakes.list.len(),
        "mistakes were left out: {told}"
    );
}

/// Some paths, those first that the text has in quotes.
fn paths(text: &str) -> Vec<String> {
    let quoted = text.split(['"', '\'']).filter(|word| word.starts_with('/'));
    // Stars become names, so that a pattern's own place is tried.
    let own = quoted.map(|word| word.replace("**", "a/b").replace(['*', '?', '[', ']'], "a"));
    own.take(OWN_PATHS)
        .chain(PATHS.map(str::to_owned))
        .collect()
}

/// Asks, and checks what holds for every verdict.
fn ask<O: Judged>(policy: &Policy, facts: &Facts<'_>, ask: O::Ask) -> Result<O::Grant, Refusal> {
    let verdict = policy.decide::<O>(facts, ask);
    let rules = policy.rule_count();
    let known = |rule: Option<u32>| rule.is_none_or(|at| (at as usize) < rules);
    match verdict {
        Ok(permit) => {
            assert!(known(permit.rule()), "a rule that does not exist decided");
            Ok(permit.grant())
        }
        Err(refusal) => {
            let fault = [Errno::NOSYS, Errno::IO, Errno::NOTCONN].contains(&refusal.errno);
            assert!(!fault, "a refusal that passes for a fault: {refusal:?}");
            assert!(known(refusal.rule), "a rule that does not exist decided");
            Err(refusal)
        }
    }
}

/// All facts of a regular file of these names.
fn facts<'f, O: Operation>(names: &'f [&'f [u8]]) -> Facts<'f> {
    Facts {
        names,
        kind: Some(FileKind::Regular),
        mode: Some(Mode::new(0o644)),
        owner: Some(HostOwner {
            uid: HostUid(1000),
            gid: HostGid(1000),
        }),
        size: Some(4096),
        nlink: Some(1),
        ..Facts::of(O::OP, WHO)
    }
}

/// The facts of a name that is to be made.
fn new_name<'f, O: Operation>(names: &'f [&'f [u8]]) -> Facts<'f> {
    Facts {
        names,
        ..Facts::of(O::OP, WHO)
    }
}

fn birth(kind: FileKind, mode: u32) -> BirthAsk {
    BirthAsk {
        requester: GuestOwner {
            uid: GuestUid(WHO.uid),
            gid: GuestGid(WHO.gid),
        },
        kind,
        mode: Mode::new(mode),
        open: OpenAs {
            write: true,
            ..OpenAs::default()
        },
    }
}

const READ: OpenAs = OpenAs {
    read: true,
    write: false,
    append: false,
    truncate: false,
    exclusive: false,
    sync: false,
    direct: false,
};

const NO_CHANGE: ChangesAsk = ChangesAsk {
    uid: None,
    gid: None,
    mode: None,
    size: None,
    atime: SetTime::Omit,
    mtime: SetTime::Omit,
};

fn check_path(policy: &Policy, path: &[u8], text: &str) {
    let names = [path];
    check_floor(policy, &names);
    check_owners(policy, &names);
    check_set_id(policy, &names, text);
    check_readonly(policy, &names);
    check_hidden(policy, path, text);
    check_needs(policy, &names);
    check_xattrs(policy, &names);
}

/// What no rule can permit.
fn check_floor(policy: &Policy, names: &[&[u8]]) {
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
fn check_owners(policy: &Policy, names: &[&[u8]]) {
    let ask_for = |uid, gid| {
        let asked = ChangesAsk {
            uid: Some(GuestUid(uid)),
            gid: Some(GuestGid(gid)),
            ..NO_CHANGE
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
fn check_set_id(policy: &Policy, names: &[&[u8]], text: &str) {
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
        ..NO_CHANGE
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

fn check_readonly(policy: &Policy, names: &[&[u8]]) {
    let mut readonly = policy.clone();
    readonly.set_readonly();
    for policy in [policy, &readonly]
        .into_iter()
        .filter(|policy| policy.readonly())
    {
        let touch = ChangesAsk {
            atime: SetTime::Now,
            ..NO_CHANGE
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

/// A lookup and a listing see the same, where no condition looks at the file itself.
fn check_hidden(policy: &Policy, path: &[u8], text: &str) {
    if text.contains("when") {
        return;
    }
    let looked = ask::<rows::Lookup>(policy, &facts::<rows::Lookup>(&[path]), ());
    let gone = looked.as_ref().err().map(|refusal| refusal.errno) == Some(Errno::NOENT);
    if policy.is_hidden(path) {
        assert!(gone, "left out of listings, and a lookup says {looked:?}");
    } else if !text.contains("errno") {
        assert!(!gone, "not found by a lookup, and listed");
    }
}

fn check_needs(policy: &Policy, names: &[&[u8]]) {
    fn same<O: Judged>(policy: &Policy, names: &[&[u8]], asked: O::Ask) {
        let full = facts::<O>(names);
        let verdict = |facts: &Facts<'_>| {
            policy
                .decide::<O>(facts, asked)
                .map(|_| ())
                .map_err(|no| no.errno)
        };
        let told = verdict(&full);
        let needs = policy.needs(O::OP);
        if !needs.path {
            let without = Facts {
                names: &[],
                ..full.clone()
            };
            assert_eq!(
                verdict(&without),
                told,
                "{:?}: names that were not asked for count",
                O::OP
            );
        }
        if !needs.attr {
            let bare = Facts {
                names,
                ..Facts::of(O::OP, WHO)
            };
            assert_eq!(
                verdict(&bare),
                told,
                "{:?}: attributes that were not asked for count",
                O::OP
            );
        }
    }
    same::<rows::Lookup>(policy, names, ());
    same::<rows::Getattr>(policy, names, ());
    same::<rows::Unlink>(policy, names, ());
    same::<rows::Read>(policy, names, ());
    same::<rows::Open>(policy, names, READ);
    same::<rows::Flush>(policy, names, ());
}

fn check_xattrs(policy: &Policy, names: &[&[u8]]) {
    for name in [&b"user.a"[..], b"user.b", b"security.capability", b"\xff"] {
        let Some(asked) = XattrName::new(name) else {
            continue;
        };
        let xattr = Some((name, 0));
        let got = ask::<rows::Getxattr>(
            policy,
            &Facts {
                xattr,
                ..facts::<rows::Getxattr>(names)
            },
            asked,
        );
        assert!(
            policy.xattr_shown(name) || got.is_err(),
            "an attribute that is not shown can be read"
        );
    }
}

fn check_pair(policy: &Policy, one: &[u8], other: &[u8], text: &str) {
    let alone = |name| ask::<rows::Getattr>(policy, &facts::<rows::Getattr>(&[name]), ()).is_ok();
    let both = ask::<rows::Getattr>(policy, &facts::<rows::Getattr>(&[one, other]), ()).is_ok();
    assert_eq!(
        both,
        alone(one) && alone(other),
        "two names are not judged by the stricter"
    );
    if text.contains("when") {
        return;
    }
    let names = [one];
    let renamed = |kind| {
        let facts = Facts {
            second: Some(other),
            kind: Some(kind),
            ..facts::<rows::Rename>(&names)
        };
        ask::<rows::Rename>(policy, &facts, RenameHow::Replace).is_ok()
    };
    if renamed(FileKind::Regular) {
        let hidden = policy.is_hidden(one) || policy.is_hidden(other);
        assert!(!hidden, "a hidden name was renamed, or a name was hidden");
    }
    if renamed(FileKind::Directory) {
        for below in ["", "/a", "/a/b", "/x.key", "/b/a/x.key"] {
            let at =
                |top: &[u8]| [top.strip_suffix(b"/").unwrap_or(top), below.as_bytes()].concat();
            let (old, new) = (at(one), at(other));
            let shown = policy.is_hidden(&old) && !policy.is_hidden(&new);
            assert!(!shown, "{below} was carried into the open");
        }
    }
    let facts = Facts {
        second: Some(other),
        ..facts::<rows::Link>(&names)
    };
    if ask::<rows::Link>(policy, &facts, ()).is_ok() {
        assert!(
            !policy.is_hidden(one),
            "a hidden file was given a second name"
        );
    }
}
