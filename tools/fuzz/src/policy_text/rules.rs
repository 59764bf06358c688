//! What rules promise, whichever they are.

use rustix::io::Errno;
use virtfs_mediator_core::ids::FileKind;
use virtfs_mediator_core::op::{OpenAs, RenameHow, Words, XattrName, rows};
use virtfs_mediator_core::policy::{Facts, Judged, Policy};

use super::asking::{READ, WHO, ask, facts};

/// A lookup and a listing see the same, where no condition looks at the file itself.
pub(super) fn check_hidden(policy: &Policy, path: &[u8], text: &str) {
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

pub(super) fn check_needs(policy: &Policy, names: &[&[u8]]) {
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
            // A type is known without asking.
            let bare = Facts {
                names,
                kind: full.kind,
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

pub(super) fn check_xattrs(policy: &Policy, names: &[&[u8]]) {
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
        if let Ok(stored) = got {
            let shown = policy.xattr_shown(stored.as_bytes());
            let told = "an attribute that can be read is not shown by its name";
            assert!(shown == Some(name), "{told}");
        }
    }
}

pub(super) fn check_pair(policy: &Policy, one: &[u8], other: &[u8], text: &str) {
    let alone = |name| ask::<rows::Getattr>(policy, &facts::<rows::Getattr>(&[name]), ()).is_ok();
    let both = ask::<rows::Getattr>(policy, &facts::<rows::Getattr>(&[one, other]), ()).is_ok();
    assert_eq!(
        both,
        alone(one) && alone(other),
        "two names are not judged by the stricter"
    );
    if text.contains("when") || policy.observes() {
        return;
    }
    let names = [one];
    let renamed = Facts {
        second: Some(other),
        ..facts::<rows::Rename>(&names)
    };
    if ask::<rows::Rename>(policy, &renamed, RenameHow::Replace).is_ok() {
        let hidden = policy.is_hidden(one) || policy.is_hidden(other);
        assert!(!hidden, "a hidden name was renamed, or a name was hidden");
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

/// Whoever moves a directory moves nothing below it out of the rules: what is refused at a path
/// stays refused, wherever the path goes.
pub(super) fn check_carried(policy: &Policy, path: &[u8], text: &str) {
    // Conditions may hold at the one name and not at the other.
    if text.contains("when") {
        return;
    }
    let refused = |path: &[u8]| {
        let names = [path];
        let write = OpenAs {
            write: true,
            read: false,
            ..READ
        };
        let opened = |open| {
            let facts = Facts {
                words: Words::NONE,
                ..facts::<rows::Open>(&names)
            };
            ask::<rows::Open>(policy, &facts, open).is_err()
        };
        [
            ask::<rows::Lookup>(policy, &facts::<rows::Lookup>(&names), ()).is_err(),
            ask::<rows::Unlink>(policy, &facts::<rows::Unlink>(&names), ()).is_err(),
            opened(READ),
            opened(write),
        ]
    };
    let before = refused(path);
    let slashes = (1..path.len()).filter(|at| path[*at] == b'/');
    for (top, below) in slashes.map(|at| path.split_at(at)) {
        for new in [&b"/zz"[..], b"/a/zz", b"/a"] {
            let names = [top];
            let moved = Facts {
                second: Some(new),
                kind: Some(FileKind::Directory),
                ..facts::<rows::Rename>(&names)
            };
            if ask::<rows::Rename>(policy, &moved, RenameHow::Replace).is_ok() {
                let after = refused(&[new, below].concat());
                let escaped = before
                    .iter()
                    .zip(after)
                    .any(|(before, after)| *before && !after);
                let told = (path.escape_ascii(), new.escape_ascii());
                assert!(
                    !escaped,
                    "{} was refused, and is not below {}",
                    told.0, told.1
                );
            }
        }
    }
}
