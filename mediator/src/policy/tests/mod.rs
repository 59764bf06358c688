//! Verdicts, by table.

mod cases;
mod conditions;
mod data;
pub(crate) mod explain;
mod follow;
mod grants;
mod limits;
mod manual;
mod observe;
mod phrase;
mod pretend;
mod renamed_xattrs;
mod witness;

use rustix::io::Errno;

use super::*;
use crate::ids::*;
use crate::op::*;

/// A host without names.
pub(crate) struct Nobody;

impl Users for Nobody {
    fn user(&self, _: &str) -> Option<u32> {
        None
    }

    fn group(&self, _: &str) -> Option<u32> {
        None
    }
}

fn policy(text: &str) -> Policy {
    Policy::parse("test", text, &Nobody).unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

pub(in crate::policy) const CLIENT: Requester = Requester {
    uid: 64055,
    gid: 64056,
    pid: 0,
};

pub(crate) fn decide<O: Judged>(
    policy: &Policy,
    names: &[&str],
    ask: O::Ask,
) -> Result<O::Grant, Errno> {
    let names: Vec<&[u8]> = names.iter().map(|name| name.as_bytes()).collect();
    let facts = Facts {
        names: &names,
        ..Facts::of(O::OP, CLIENT)
    };
    policy
        .decide::<O>(&facts, ask)
        .map(|permit| permit.grant())
        .map_err(|no| no.errno)
}

fn rename(policy: &Policy, old: &str, new: &str, kind: FileKind) -> Result<RenameHow, Errno> {
    rename_how(policy, (old, new), kind, RenameHow::Replace)
}

fn rename_how(
    policy: &Policy,
    (old, new): (&str, &str),
    kind: FileKind,
    how: RenameHow,
) -> Result<RenameHow, Errno> {
    let names = [old.as_bytes()];
    let facts = Facts {
        names: &names,
        second: Some(new.as_bytes()),
        kind: Some(kind),
        ..Facts::of(Op::Rename, CLIENT)
    };
    policy
        .decide::<rows::Rename>(&facts, how)
        .map(|it| it.grant())
        .map_err(|no| no.errno)
}

fn birth(kind: FileKind, mode: u32) -> BirthAsk {
    BirthAsk {
        requester: GuestOwner {
            uid: GuestUid(64055),
            gid: GuestGid(64056),
        },
        kind,
        mode: Mode::new(mode),
        open: OpenAs {
            write: true,
            ..OpenAs::default()
        },
    }
}

fn setattr(policy: &Policy, path: &str, kind: FileKind, ask: ChangesAsk) -> Result<Changes, Errno> {
    let names = [path.as_bytes()];
    let facts = Facts {
        names: &names,
        kind: Some(kind),
        words: Words::NONE,
        ..Facts::of(Op::Setattr, CLIENT)
    };
    policy
        .decide::<rows::Setattr>(&facts, ask)
        .map(|it| it.grant())
        .map_err(|no| no.errno)
}

#[test]
fn policy_is_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Policy>();
}

#[test]
fn refusal_has_the_errno_of_its_class() {
    let deny = policy("default = \"deny\"\n");
    let at = &["/a"];
    assert_eq!(decide::<rows::Lookup>(&deny, at, ()), Err(Errno::ACCESS));
    assert_eq!(decide::<rows::Unlink>(&deny, at, ()), Err(Errno::ACCESS));
    assert_eq!(
        decide::<rows::Mkdir>(&deny, at, birth(FileKind::Directory, 0)),
        Err(Errno::ACCESS)
    );
    assert_eq!(
        decide::<rows::Mknod>(&deny, at, birth(FileKind::Fifo, 0)),
        Err(Errno::PERM)
    );
    assert_eq!(decide::<rows::Listxattr>(&deny, at, ()), Err(Errno::NOTSUP));
    let chown = ChangesAsk {
        uid: Some(GuestUid(1)),
        ..ChangesAsk::NOTHING
    };
    assert_eq!(
        setattr(&deny, "/a", FileKind::Regular, chown),
        Err(Errno::PERM)
    );
    let chmod = ChangesAsk {
        mode: Some(Mode::new(0)),
        ..ChangesAsk::NOTHING
    };
    assert_eq!(
        setattr(&deny, "/a", FileKind::Regular, chmod),
        Err(Errno::PERM)
    );
    let truncate = ChangesAsk {
        size: Some(0),
        ..ChangesAsk::NOTHING
    };
    assert_eq!(
        setattr(&deny, "/a", FileKind::Regular, truncate),
        Err(Errno::ACCESS)
    );
    assert_eq!(decide::<rows::Fsync>(&deny, at, ()), Ok(()));
    let own = policy("default = \"allow\"\n[[rule]]\naction = \"deny\"\nerrno = \"EDQUOT\"\n");
    assert_eq!(decide::<rows::Unlink>(&own, at, ()), Err(Errno::DQUOT));
}

#[test]
fn readonly_refuses_every_change_with_erofs() {
    let mut readonly = Policy::parity();
    readonly.set_readonly();
    let at = &["/a"];
    let xattr = XattrName::new(b"user.x").unwrap();
    let open = |write, truncate| OpenAs {
        read: true,
        write,
        truncate,
        ..OpenAs::default()
    };
    let opened = |ask: OpenAs| {
        let words = if ask.write || ask.truncate {
            Word::Write
        } else {
            Word::Read
        };
        let facts = Facts {
            words: Words::of(words),
            ..Facts::of(Op::Open, CLIENT)
        };
        readonly
            .decide::<rows::Open>(&facts, ask)
            .map(|it| it.grant())
            .map_err(|no| no.errno)
    };
    assert_eq!(opened(open(true, false)), Err(Errno::ROFS));
    assert_eq!(opened(open(false, true)), Err(Errno::ROFS));
    assert_eq!(opened(open(false, false)), Ok(open(false, false)));
    assert_eq!(
        decide::<rows::Setxattr>(&readonly, at, xattr),
        Err(Errno::ROFS)
    );
    assert_eq!(
        decide::<rows::Removexattr>(&readonly, at, xattr),
        Err(Errno::ROFS)
    );
    assert_eq!(decide::<rows::Getxattr>(&readonly, at, xattr), Ok(xattr));
    assert_eq!(
        decide::<rows::Fallocate>(&readonly, at, ()),
        Err(Errno::ROFS)
    );
    assert_eq!(
        rename(&readonly, "/a", "/b", FileKind::Regular),
        Err(Errno::ROFS)
    );
    assert_eq!(decide::<rows::Readdir>(&readonly, at, ()), Ok(()));
}

#[test]
fn floor_holds_whatever_is_allowed() {
    let parity = Policy::parity();
    let at = &["/a"];
    for kind in [FileKind::CharDevice, FileKind::BlockDevice] {
        assert_eq!(
            decide::<rows::Mknod>(&parity, at, birth(kind, 0)),
            Err(Errno::PERM)
        );
    }
    let link = birth(FileKind::Symlink, 0);
    assert_eq!(
        decide::<rows::Mkdir>(&parity, at, link).map(|_| ()),
        Err(Errno::PERM)
    );
    let fifo = Facts {
        kind: Some(FileKind::Fifo),
        ..Facts::of(Op::Open, CLIENT)
    };
    assert!(
        parity
            .decide::<rows::Open>(&fifo, OpenAs::default())
            .is_err()
    );
    let other = Facts::of(Op::Lookup, CLIENT);
    assert!(
        parity.decide::<rows::Unlink>(&other, ()).is_err(),
        "facts of another operation"
    );
    let wordless = Facts {
        words: Words::NONE,
        ..Facts::of(Op::Write, CLIENT)
    };
    assert!(parity.decide::<rows::Write>(&wordless, ()).is_err());
}

#[test]
fn words_that_the_arguments_need_are_judged_even_if_the_facts_leave_them_out() {
    let policy = policy("default = \"allow\"\n[[rule]]\ndo = \"write\"\naction = \"deny\"\n");
    let facts = Facts {
        words: Words::of(Word::Read),
        ..Facts::of(Op::Open, CLIENT)
    };
    let ask = OpenAs {
        read: true,
        truncate: true,
        ..OpenAs::default()
    };
    assert_eq!(
        policy.decide::<rows::Open>(&facts, ask).unwrap_err().errno,
        Errno::ACCESS
    );
}

#[test]
fn first_rule_that_holds_decides() {
    let policy = policy(
        "default = \"deny\"\n\
         [[rule]]\npath = \"/a/keep\"\ndo = \"change\"\naction = \"deny\"\n\
         [[rule]]\npath = \"/a/**\"\naction = \"allow\"\n",
    );
    assert_eq!(
        decide::<rows::Unlink>(&policy, &["/a/keep"], ()),
        Err(Errno::ACCESS)
    );
    assert_eq!(decide::<rows::Unlink>(&policy, &["/a/x"], ()), Ok(()));
    assert_eq!(
        decide::<rows::Unlink>(&policy, &["/b"], ()),
        Err(Errno::ACCESS)
    );
    let both = &["/a/x", "/a/keep"];
    assert_eq!(
        decide::<rows::Write>(&policy, both, ()),
        Err(Errno::ACCESS),
        "strictest name"
    );
    assert_eq!(
        decide::<rows::Write>(&policy, &[], ()),
        Err(Errno::ACCESS),
        "no name known"
    );
}

#[test]
fn way_to_an_allowed_path_may_be_walked_and_nothing_else() {
    let policy = policy("default = \"deny\"\n[[rule]]\npath = \"/a/b/**\"\naction = \"allow\"\n");
    for path in ["/", "/a"] {
        assert_eq!(
            decide::<rows::Lookup>(&policy, &[path], ()),
            Ok(()),
            "{path}"
        );
        assert_eq!(
            decide::<rows::Opendir>(&policy, &[path], ()),
            Ok(()),
            "{path}"
        );
        assert_eq!(
            decide::<rows::Readdir>(&policy, &[path], ()),
            Err(Errno::ACCESS),
            "{path}"
        );
        assert_eq!(
            decide::<rows::Unlink>(&policy, &[path], ()),
            Err(Errno::ACCESS),
            "{path}"
        );
    }
    assert_eq!(
        decide::<rows::Lookup>(&policy, &["/c"], ()),
        Err(Errno::ACCESS)
    );
    let names = [b"/a".as_slice()];
    let file = Facts {
        names: &names,
        kind: Some(FileKind::Regular),
        ..Facts::of(Op::Getattr, CLIENT)
    };
    assert!(
        policy.decide::<rows::Getattr>(&file, ()).is_err(),
        "only a directory is a way"
    );
}

#[test]
fn hidden_name_is_not_there_and_cannot_be_made() {
    let policy = policy("default = \"allow\"\n[[rule]]\npath = \"/s/**\"\naction = \"hide\"\n");
    assert_eq!(
        decide::<rows::Lookup>(&policy, &["/s"], ()),
        Err(Errno::NOENT)
    );
    assert_eq!(
        decide::<rows::Unlink>(&policy, &["/s/x"], ()),
        Err(Errno::NOENT)
    );
    assert_eq!(
        decide::<rows::Getattr>(&policy, &["/a", "/s/x"], ()),
        Err(Errno::NOENT)
    );
    let made = decide::<rows::Create>(&policy, &["/s"], birth(FileKind::Regular, 0));
    assert_eq!(made, Err(Errno::ACCESS));
    assert_eq!(
        rename(&policy, "/a", "/s", FileKind::Regular),
        Err(Errno::ACCESS)
    );
    assert!(policy.is_hidden(b"/s") && policy.is_hidden(b"/s/x") && !policy.is_hidden(b"/a"));
}

#[test]
fn rename_may_not_leave_its_rules() {
    let policy = policy(
        "default = \"allow\"\n\
         [[rule]]\npath = \"/frozen/*/**\"\ndo = \"write\"\naction = \"deny\"\n\
         [[rule]]\npath = \"/**/*.cfg\"\ndo = \"write\"\naction = \"deny\"\n",
    );
    let (file, directory) = (FileKind::Regular, FileKind::Directory);
    for (old, new, kind, good) in [
        ("/frozen/x", "/x", file, false),
        ("/frozen/x", "/frozen/y", file, true),
        ("/frozen/d", "/d", directory, false),
        ("/frozen/d", "/frozen/e", directory, true),
        ("/frozen", "/thawed", directory, false),
        ("/frozen/d/e", "/frozen/e", directory, true),
        ("/x", "/frozen/x", file, true),
        ("/a.cfg", "/b.cfg", file, true),
        ("/a.cfg", "/a", file, false),
        ("/a.cfg", "/frozen/a", file, false),
        ("/d", "/e/f", directory, true),
    ] {
        let got = rename(&policy, old, new, kind);
        assert_eq!(got.is_ok(), good, "{old} -> {new}: {got:?}");
        assert!(good || got == Err(Errno::ACCESS));
    }
    let exchange = |pair| rename_how(&policy, pair, FileKind::Regular, RenameHow::Exchange);
    assert_eq!(
        exchange(("/x", "/frozen/x")),
        Err(Errno::ACCESS),
        "what comes back would leave"
    );
    assert_eq!(exchange(("/x", "/y")), Ok(RenameHow::Exchange));
    let names = [b"/a.cfg".as_slice()];
    let link = Facts {
        names: &names,
        second: Some(b"/a"),
        ..Facts::of(Op::Link, CLIENT)
    };
    assert_eq!(
        policy.decide::<rows::Link>(&link, ()).unwrap_err().errno,
        Errno::ACCESS
    );
}

#[test]
fn rename_or_create_over_what_may_not_be_touched_needs_a_free_name() {
    let policy = policy(
        "default = \"allow\"\n[[rule]]\npath = \"/log/**\"\ndo = [\"remove\", \"write\"]\naction = \"deny\"\n",
    );
    let (file, how) = (FileKind::Regular, RenameHow::NoReplace);
    assert_eq!(rename(&policy, "/log/a", "/log/b", file), Ok(how));
    assert_eq!(rename(&policy, "/a", "/b", file), Ok(RenameHow::Replace));
    let made = decide::<rows::Create>(&policy, &["/log/x"], birth(file, 0o644)).unwrap();
    assert!(made.open.exclusive);
    let made = decide::<rows::Create>(&policy, &["/x"], birth(file, 0o644)).unwrap();
    assert!(!made.open.exclusive);
}

#[test]
fn request_as_data_is_judged_as_the_request_itself_and_survives_the_wire() {
    let policy = policy(
        "default = \"allow\"\nset_id = \"strip\"\n\
         [[rule]]\npath = \"/a\"\ndo = \"owner\"\naction = \"deny\"\n\
         [[rule]]\npath = \"/b\"\nlog = \"all\"\naction = \"allow\"\nmode = { strip = 0o002 }\n",
    );
    let ask = |uid: Option<u32>, mode| ChangesAsk {
        uid: uid.map(GuestUid),
        gid: None,
        mode: Some(Mode::new(mode)),
        size: None,
        atime: SetTime::Now,
        mtime: SetTime::Omit,
    };
    for (name, ask) in [
        ("/a", ask(Some(7), 0o644)),
        ("/a", ask(None, 0o4666)),
        ("/b", ask(Some(7), 0o4666)),
    ] {
        let names = [name.as_bytes()];
        let facts = Facts {
            names: &names,
            kind: Some(FileKind::Regular),
            ..Facts::of(Op::Setattr, CLIENT)
        };
        let request = Request::of(&facts, ask.into());
        let wire = serde_json::to_string(&request).unwrap();
        assert_eq!(serde_json::from_str::<Request>(&wire).unwrap(), request);
        let granted = policy.decide_request(&request).map(|granted| {
            let AnyGrant::Changes(changes) = granted.grant else {
                panic!("{granted:?}")
            };
            (changes, granted.rule, granted.logs)
        });
        let direct = policy.decide::<rows::Setattr>(&facts, ask);
        assert_eq!(granted, direct.map(|it| (it.grant(), it.rule(), it.logs())));
    }
    let stray = Request {
        ask: AnyAsk::Nothing,
        ..Request::of(&Facts::of(Op::Setattr, CLIENT), AnyAsk::Nothing)
    };
    assert_eq!(
        policy.decide_request(&stray).map_err(|no| no.errno),
        Err(Errno::ACCESS)
    );
    assert_eq!(policy.rule_line(1), Some(7));
}
