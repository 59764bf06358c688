//! A round of operations as a guest's root and a guest's user would do them, each compared with what it should do when
//! QEMU is, or seems to be, root.

use std::fmt;

use nix::errno::Errno;

use crate::error::{Error, Result};
use crate::ops::{SetAttr, Time};
use crate::scratch::Ids;
use crate::session::Session;

/// What one operation did.
#[derive(Debug)]
pub struct Outcome {
    /// The operation, in words.
    pub what: &'static str,
    /// What happened: `None` for success.
    pub error: Option<Error>,
    /// The errno that was wanted; `None` for success.
    pub wanted: Option<Errno>,
}

impl Outcome {
    /// Whether it went as it should.
    #[must_use]
    pub fn is_expected(&self) -> bool {
        match &self.error {
            None => self.wanted.is_none(),
            Some(error) => self.wanted.is_some() && error.errno() == self.wanted,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.is_expected() { "ok  " } else { "FAIL" };
        match &self.error {
            None => write!(f, "{mark} {:<44} done", self.what),
            Some(error) => write!(f, "{mark} {:<44} {error}", self.what),
        }
    }
}

/// Name of the directory that the round makes in the export, works in, and removes.
pub const DIRECTORY: &str = "virtfs-p9-smoke";

const ALICE: Ids = Ids {
    uid: 1234,
    gid: 4321,
};

type Step = fn(&mut Session) -> Result<()>;

/// An operation for each line: words, the errno wanted, the deed.
const STEPS: &[(&str, Option<Errno>, Step)] = &[
    ("mkdir", None, |s| {
        s.user(Ids::ROOT)?.mkdir(DIRECTORY, 0o777)
    }),
    ("chmod 0777 of the directory", None, |s| {
        s.user(Ids::ROOT)?.setattr(DIRECTORY, &SetAttr::mode(0o777))
    }),
    ("create and write, user 1234:4321", None, |s| {
        s.user(ALICE)?
            .write_all("virtfs-p9-smoke/a", 0o640, b"hello")
    }),
    ("its owner, group and mode", None, |s| {
        owned(s, "virtfs-p9-smoke/a", ALICE, 0o100_640)
    }),
    (
        "create exclusively what is there",
        Some(Errno::EEXIST),
        |s| s.user(ALICE)?.create("virtfs-p9-smoke/a", 0o600).map(drop),
    ),
    ("read back", None, |s| {
        let content = s.user(ALICE)?.read_all("virtfs-p9-smoke/a")?;
        check(content == b"hello", "other content")
    }),
    ("chown 77:88", None, |s| {
        s.user(Ids::ROOT)?
            .setattr("virtfs-p9-smoke/a", &SetAttr::owner(77, 88))
    }),
    ("chmod 6755", None, |s| {
        s.user(Ids::ROOT)?
            .setattr("virtfs-p9-smoke/a", &SetAttr::mode(0o6755))
    }),
    ("owner, group and mode now", None, |s| {
        owned(s, "virtfs-p9-smoke/a", Ids { uid: 77, gid: 88 }, 0o106_755)
    }),
    ("truncate to 3", None, |s| {
        s.user(Ids::ROOT)?
            .setattr("virtfs-p9-smoke/a", &SetAttr::size(3))
    }),
    ("size now", None, |s| {
        let size = s.user(ALICE)?.stat("virtfs-p9-smoke/a")?.size;
        check(size == 3, "another size")
    }),
    ("set times", None, |s| {
        let change = SetAttr {
            atime: Some(Time::Now),
            mtime: Some(Time::At(1_000_000, 5)),
            ..SetAttr::default()
        };
        s.user(Ids::ROOT)?.setattr("virtfs-p9-smoke/a", &change)?;
        let seen = s.user(ALICE)?.stat("virtfs-p9-smoke/a")?;
        check(
            (seen.mtime_sec, seen.mtime_nsec) == (1_000_000, 5),
            "another time",
        )
    }),
    ("hard link", None, |s| {
        s.user(Ids::ROOT)?
            .link("virtfs-p9-smoke/a", "virtfs-p9-smoke/b")
    }),
    ("two links", None, |s| {
        let links = s.user(ALICE)?.stat("virtfs-p9-smoke/b")?.nlink;
        check(links == 2, "another number of links")
    }),
    ("symlink, user 1234:4321", None, |s| {
        s.user(ALICE)?.symlink("virtfs-p9-smoke/l", "/etc/passwd")
    }),
    ("its owner and group", None, |s| {
        owned(s, "virtfs-p9-smoke/l", ALICE, 0o120_777)
    }),
    ("readlink", None, |s| {
        let target = s.user(ALICE)?.readlink("virtfs-p9-smoke/l")?;
        check(target == b"/etc/passwd", "another target")
    }),
    ("open of the symlink", Some(Errno::ELOOP), |s| {
        s.user(ALICE)?.read_all("virtfs-p9-smoke/l").map(drop)
    }),
    ("set and get user.note", None, |s| {
        let mut root = s.user(Ids::ROOT)?;
        root.setxattr("virtfs-p9-smoke/a", "user.note", b"value")?;
        check(
            root.getxattr("virtfs-p9-smoke/a", "user.note")? == b"value",
            "another value",
        )
    }),
    (
        "get an attribute that is not there",
        Some(Errno::ENODATA),
        |s| {
            s.user(Ids::ROOT)?
                .getxattr("virtfs-p9-smoke/a", "user.none")
                .map(drop)
        },
    ),
    ("mkdir -p and rename", None, |s| {
        let mut alice = s.user(ALICE)?;
        alice.mkdir_p("virtfs-p9-smoke/d/e", 0o750)?;
        alice.rename("virtfs-p9-smoke/b", "virtfs-p9-smoke/d/e/c")
    }),
    ("list", None, |s| {
        let entries = s.user(ALICE)?.list(DIRECTORY)?;
        let names: Vec<_> = entries.iter().map(|entry| entry.name.as_slice()).collect();
        check(names == [b"a", b"d", b"l"], "other names")
    }),
    (
        "rmdir of a directory that is not empty",
        Some(Errno::ENOTEMPTY),
        |s| s.user(Ids::ROOT)?.rmdir(DIRECTORY),
    ),
    ("stat of what is not there", Some(Errno::ENOENT), |s| {
        s.user(ALICE)?.stat("virtfs-p9-smoke/none").map(drop)
    }),
    ("statfs", None, |s| {
        s.user(ALICE)?.with("", Session::statfs).map(drop)
    }),
    ("unlink and rmdir all", None, |s| {
        let mut root = s.user(Ids::ROOT)?;
        root.unlink("virtfs-p9-smoke/d/e/c")?;
        root.rmdir("virtfs-p9-smoke/d/e")?;
        root.rmdir("virtfs-p9-smoke/d")?;
        root.unlink("virtfs-p9-smoke/l")?;
        root.unlink("virtfs-p9-smoke/a")?;
        root.rmdir(DIRECTORY)
    }),
];

/// Does the round in a new directory of the export and says of each operation how it went, as it goes.
///
/// # Errors
/// A fault of the transport: QEMU's end or a hang. What the server answers is an outcome.
pub fn run(session: &mut Session, mut told: impl FnMut(&Outcome)) -> Result<bool> {
    let mut all = true;
    for &(what, wanted, step) in STEPS {
        let error = match step(session) {
            Err(error @ (Error::Ended { .. } | Error::Timeout { .. } | Error::Io { .. })) => {
                return Err(error);
            }
            result => result.err(),
        };
        let outcome = Outcome {
            what,
            error,
            wanted,
        };
        all &= outcome.is_expected();
        told(&outcome);
    }
    Ok(all)
}

fn owned(session: &mut Session, path: &str, ids: Ids, mode: u32) -> Result<()> {
    let seen = session.user(Ids::ROOT)?.stat(path)?;
    if (seen.uid, seen.gid, seen.mode) == (ids.uid, ids.gid, mode) {
        return Ok(());
    }
    Err(Error::Protocol(format!(
        "{}:{} mode {:o}, not {}:{} {mode:o}",
        seen.uid, seen.gid, seen.mode, ids.uid, ids.gid
    )))
}

fn check(holds: bool, otherwise: &str) -> Result<()> {
    if holds {
        Ok(())
    } else {
        Err(Error::Protocol(otherwise.to_owned()))
    }
}
