//! The export's content at the start of an input, and what the host does to it meanwhile.

use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags};
use rustix::io::Result;

use crate::scratch::{Lowered, Scratch};

/// What a hidden file says; where a policy hides it, no answer may.
pub const SECRET: &[u8] = b"a secret that the policy hides from everyone";

/// Files in the large directory, more than there are descriptors for.
pub const MANY: usize = 40;

/// Paths that the host works on; the secret is not among them.
const PLACES: [&str; 12] = [
    "f", "d", "d/f", "d/e", "d/e/x", "h", "p", "out", "new", "d/new", "many", "many/m00",
];

/// Puts the content there, in place of what was.
///
/// # Panics
///
/// If the scratch directory cannot be written.
pub fn fill(scratch: &Scratch, many: bool) {
    scratch.clear();
    let _lowered = Lowered::now();
    let root = scratch.export();
    let canary = scratch.path().join("outside/canary");
    let made = (|| {
        mkdir(root, "d")?;
        mkdir(root, "d/e")?;
        write(root, "f", b"plain\n")?;
        write(root, "d/f", b"further down\n")?;
        write(root, "d/s.key", SECRET)?;
        rustix::fs::symlinkat("../outside/canary", root, "out")?;
        rustix::fs::symlinkat(&canary, root, "abs")?;
        rustix::fs::linkat(root, "f", root, "h", AtFlags::empty())?;
        rustix::fs::mknodat(root, "p", FileType::Fifo, Mode::from(0o644), 0)?;
        if many {
            mkdir(root, "many")?;
            for number in 0..MANY {
                write(root, &format!("many/m{number:02}"), b"")?;
            }
        }
        Ok(())
    })();
    let made: Result<()> = made;
    made.expect("the export's content");
}

fn mkdir(root: BorrowedFd<'_>, name: &str) -> Result<()> {
    rustix::fs::mkdirat(root, name, Mode::from(0o755))
}

fn write(root: BorrowedFd<'_>, name: &str, content: &[u8]) -> Result<()> {
    let flags =
        OFlags::CREATE | OFlags::WRONLY | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = rustix::fs::openat(root, name, flags | OFlags::CLOEXEC, Mode::from(0o644))?;
    rustix::io::write(&file, content).map(|_all| ())
}

/// What the host does behind the view's back, between two requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Removes a name that is not a directory's.
    Unlink,
    /// Removes a directory.
    Rmdir,
    /// Changes a name.
    Rename,
    /// Gives a second name.
    Link,
    /// Puts a symbolic link that leads outside in a file's place.
    Swap,
    /// Makes or changes a file.
    Write,
    /// Makes a directory.
    Mkdir,
    /// Takes all rights on a file away.
    Chmod,
    /// Moves something out of the export.
    MoveOut,
    /// Moves it back in.
    MoveIn,
}

/// Every act.
pub const ACTS: [Act; 10] = [
    Act::Unlink,
    Act::Rmdir,
    Act::Rename,
    Act::Link,
    Act::Swap,
    Act::Write,
    Act::Mkdir,
    Act::Chmod,
    Act::MoveOut,
    Act::MoveIn,
];

/// Does it, if it can be done; the places are chosen by number.
pub fn act(scratch: &Scratch, act: Act, first: usize, second: usize) {
    let _lowered = Lowered::now();
    let root = scratch.export();
    let place = |number: usize| PLACES[number % PLACES.len()];
    let (one, two) = (place(first), place(second));
    let away = scratch.path().join("elsewhere/moved");
    let done = match act {
        Act::Unlink => rustix::fs::unlinkat(root, one, AtFlags::empty()),
        Act::Rmdir => rustix::fs::unlinkat(root, one, AtFlags::REMOVEDIR),
        Act::Rename => rustix::fs::renameat(root, one, root, two),
        Act::Link => rustix::fs::linkat(root, one, root, two, AtFlags::empty()),
        Act::Swap => rustix::fs::unlinkat(root, one, AtFlags::empty())
            .and_then(|()| rustix::fs::symlinkat("../outside/canary", root, one)),
        Act::Write => write(root, one, b"by the host\n"),
        Act::Mkdir => mkdir(root, one),
        // A symbolic link is not followed: its target may be outside.
        Act::Chmod => rustix::fs::chmodat(root, one, Mode::empty(), AtFlags::SYMLINK_NOFOLLOW),
        Act::MoveOut => rustix::fs::renameat(root, one, CWD, &away),
        Act::MoveIn => rustix::fs::renameat(CWD, &away, root, one),
    };
    // Whether it could be done depends on all that came before; both are fine.
    let _either = done;
}

/// A file as the invariants see it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Found {
    /// Where, from the export's root.
    pub path: Vec<u8>,
    /// `st_mode`: type and permissions.
    pub mode: u32,
    /// Bytes.
    pub size: u64,
    /// `st_mtime` with nanoseconds.
    pub changed: (i64, u64),
}

/// All that is in the export, in order of path.
///
/// # Panics
///
/// If it cannot be read.
#[must_use]
pub fn found(scratch: &Scratch) -> Vec<Found> {
    let mut all = Vec::new();
    look(scratch.export(), &[], &mut all);
    all.sort();
    all
}

fn look(dir: BorrowedFd<'_>, path: &[u8], all: &mut Vec<Found>) {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    // Closed to an ordinary user by a mode that the client chose: nothing to see then.
    let Ok(open) = rustix::fs::openat(dir, c".", flags, Mode::empty()) else {
        return;
    };
    for entry in Dir::new(open).expect("a directory") {
        let entry = entry.expect("an entry");
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let st = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).expect("stat");
        let path = [path, b"/", name.to_bytes()].concat();
        if FileType::from_raw_mode(st.st_mode) == FileType::Directory
            && let Ok(below) = rustix::fs::openat(dir, name, flags, Mode::empty())
        {
            use std::os::fd::AsFd;
            look(below.as_fd(), &path, all);
        }
        all.push(Found {
            path,
            mode: st.st_mode,
            size: u64::try_from(st.st_size).unwrap_or(0),
            changed: (st.st_mtime, st.st_mtime_nsec),
        });
    }
}
