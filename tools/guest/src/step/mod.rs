//! The operations that a step may name, by what they touch.

mod attr;
mod data;
mod names;
mod xattr;

use std::collections::HashMap;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Gid, Mode, Uid};
use rustix::io::Errno;
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use crate::script::Step;

/// Why a step did not do what it says.
#[derive(Debug)]
pub enum Failure {
    /// The kernel refused: the outcome that probes are about.
    Os(Errno),
    /// The script is wrong.
    Script(String),
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        Self::Os(errno)
    }
}

/// What a step that succeeded has to tell, if anything.
type Outcome = Result<Option<String>, Failure>;

/// What lasts from one step of a probe to the next.
#[derive(Debug, Default)]
pub struct Context {
    files: HashMap<Vec<u8>, OwnedFd>,
    marks: HashMap<Vec<u8>, attr::Times>,
}

impl Context {
    /// No open file, no mark, the user who runs the probes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Does one step.
    ///
    /// # Errors
    /// What the kernel answered, or a mistake in the script.
    pub fn run(&mut self, step: &Step) -> Outcome {
        let args = Args(&step.args);
        match step.op.as_str() {
            "as" => return become_user(&args),
            "root" => return Ok(become_root().map(|()| None)?),
            "umask" => {
                rustix::process::umask(args.mode(0, 0)?);
                return Ok(None);
            }
            "cd" => return Ok(rustix::process::chdir(args.path(0)?).map(|()| None)?),
            _ => {}
        }
        names::run(&step.op, &args)
            .or_else(|| attr::run(self, &step.op, &args))
            .or_else(|| data::run(self, &step.op, &args))
            .or_else(|| xattr::run(&step.op, &args))
            .unwrap_or_else(|| Err(Failure::Script("no such operation".into())))
    }

    /// Closes what is open and becomes root again.
    pub fn leave(self) {
        // A probe whose user cannot be given up would spoil all that follow; the kernel always
        // lets a saved uid 0 return.
        let _ = become_root();
        let _ = rustix::process::chdir("/");
    }

    fn file(&self, args: &Args<'_>, index: usize) -> Result<BorrowedFd<'_>, Failure> {
        let name = args.bytes(index)?;
        self.files
            .get(name)
            .map(|fd| fd.as_fd())
            .ok_or_else(|| Failure::Script(format!("{} is not open", name.escape_ascii())))
    }
}

/// `as UID:GID[,GROUP...]`. Only the effective ids change, for this thread, so that `root` can
/// undo it; the kernel drops the effective capabilities with them (capabilities(7)).
fn become_user(args: &Args<'_>) -> Outcome {
    become_root()?;
    let text = args.text(0)?;
    let (ids, groups) = text.split_once(',').unwrap_or((text, ""));
    let (uid, gid) = owner(ids)?;
    let (Some(uid), Some(gid)) = (uid, gid) else {
        return Err(Failure::Script("as UID:GID".into()));
    };
    let groups = groups
        .split(',')
        .filter(|group| !group.is_empty())
        .map(|group| number(group).map(Gid::from_raw))
        .collect::<Result<Vec<_>, _>>()?;
    set_thread_groups(&groups)?;
    set_thread_res_gid(Gid::ROOT, gid, Gid::ROOT)?;
    set_thread_res_uid(Uid::ROOT, uid, Uid::ROOT)?;
    Ok(None)
}

fn become_root() -> Result<(), Errno> {
    set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT)?;
    set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT)?;
    set_thread_groups(&[])
}

/// `UID:GID`, either may be `-` for "as it is".
fn owner(text: &str) -> Result<(Option<Uid>, Option<Gid>), Failure> {
    let (uid, gid) = text
        .split_once(':')
        .ok_or_else(|| Failure::Script(format!("{text} is not UID:GID")))?;
    let id = |text: &str| {
        if text == "-" {
            Ok(None)
        } else {
            number(text).map(Some)
        }
    };
    Ok((id(uid)?.map(Uid::from_raw), id(gid)?.map(Gid::from_raw)))
}

/// Decimal, with K, M or G for powers of 1024.
fn number<T: TryFrom<i64>>(text: &str) -> Result<T, Failure> {
    let bad = || Failure::Script(format!("{text} is not a number that fits"));
    let (digits, unit) = match text.chars().last() {
        Some('K') => (&text[..text.len() - 1], 1 << 10),
        Some('M') => (&text[..text.len() - 1], 1 << 20),
        Some('G') => (&text[..text.len() - 1], 1 << 30),
        _ => (text, 1),
    };
    let value: i64 = digits.parse().map_err(|_| bad())?;
    T::try_from(value * unit).map_err(|_| bad())
}

/// A step's arguments, read by position.
struct Args<'a>(&'a [Vec<u8>]);

impl<'a> Args<'a> {
    fn bytes(&self, index: usize) -> Result<&'a [u8], Failure> {
        self.0
            .get(index)
            .map(Vec::as_slice)
            .ok_or_else(|| Failure::Script(format!("argument {} is missing", index + 1)))
    }

    fn path(&self, index: usize) -> Result<&'a Path, Failure> {
        use std::os::unix::ffi::OsStrExt as _;
        Ok(Path::new(std::ffi::OsStr::from_bytes(self.bytes(index)?)))
    }

    fn text(&self, index: usize) -> Result<&'a str, Failure> {
        std::str::from_utf8(self.bytes(index)?).map_err(|e| Failure::Script(e.to_string()))
    }

    fn optional(&self, index: usize) -> Result<&'a str, Failure> {
        if index < self.0.len() {
            self.text(index)
        } else {
            Ok("")
        }
    }

    fn number<T: TryFrom<i64>>(&self, index: usize) -> Result<T, Failure> {
        number(self.text(index)?)
    }

    /// An octal mode; `default` if there is no such argument.
    fn mode(&self, index: usize, default: u32) -> Result<Mode, Failure> {
        let text = self.optional(index)?;
        if text.is_empty() {
            return Ok(Mode::from_raw_mode(default));
        }
        u32::from_str_radix(text, 8)
            .map(Mode::from_raw_mode)
            .map_err(|_| Failure::Script(format!("{text} is not an octal mode")))
    }
}

/// One of several words, else a mistake of the script.
fn unknown(what: &str, word: &str) -> Failure {
    Failure::Script(format!("{word} is no {what}"))
}
