//! What an attacker does who runs code of their own: the same functions in every arrangement.
//!
//! An act prepares itself with calls that every arrangement allows, says that it begins, attacks,
//! and returns what it gained. A refusal before it has begun proves nothing.

mod calls;
mod escape;
mod files;
mod processes;
mod registrar;

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use rustix::fs::{Mode, OFlags};

pub(crate) use files::INNOCENT;

use crate::task::{self, Failure, Gain, Line, Task};

/// What an attacker finds.
#[derive(Debug)]
pub(crate) struct Scene {
    pub(crate) task: Task,
    /// The export's root directory (`O_PATH`).
    pub(crate) root: OwnedFd,
    /// `/proc/self/fd`: in the product a detached clone.
    pub(crate) proc_fd: OwnedFd,
    /// In the product: the socket to the registrar, and the FUSE device.
    pub(crate) registrar: Option<(OwnedFd, OwnedFd)>,
    /// What should have been closed.
    pub(crate) planted: Option<i32>,
}

/// What comes of an act.
pub(crate) type Outcome = Result<Gain, Failure>;

type Act = fn(&Scene) -> Outcome;

impl Scene {
    /// What follows is the attack: errors from here on are refusals.
    fn begin(&self) {
        task::tell(&Line::Begins);
    }

    fn planted(&self) -> Result<i32, Failure> {
        self.planted
            .ok_or_else(|| Failure::Unprepared("nothing was planted".to_owned()))
    }

    /// The export's root, to read: what some calls want in place of an `O_PATH` descriptor.
    fn directory(&self) -> Result<OwnedFd, Failure> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat(&self.root, ".", flags, Mode::empty()).map_err(unprepared("openat(.)"))
    }

    /// A directory below the export's root, which an earlier try may have made already.
    fn make_directory(&self, name: &str) -> Result<(), Failure> {
        match rustix::fs::mkdirat(&self.root, name, Mode::RWXU) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
            Err(errno) => Err(unprepared("mkdirat")(errno)),
        }
    }

    /// The canary, as the host names it.
    fn canary(&self) -> PathBuf {
        self.task.outside.join("canary")
    }

    /// The canary below some root directory of the host.
    fn canary_below(&self, root: &str) -> PathBuf {
        let path = self.canary();
        Path::new(root).join(path.strip_prefix("/").unwrap_or(&path))
    }
}

/// Runs the act that the task names.
pub(crate) fn run(scene: &Scene) -> Outcome {
    let name = scene.task.act.as_str();
    if let Some(call) = calls::named(name) {
        return calls::run(call, scene);
    }
    [escape::ACTS, files::ACTS, processes::ACTS, registrar::ACTS]
        .into_iter()
        .flatten()
        .find(|(known, _)| *known == name)
        .map_or_else(
            || Err(Failure::Unprepared(format!("no act is called {name:?}"))),
            |(_, act)| act(scene),
        )
}

/// The number of the system call that an act consists of, where it is one.
pub(crate) fn system_call(act: &str) -> Option<libc::c_long> {
    calls::named(act).map(|call| call.number)
}

fn unprepared<E: std::fmt::Display>(what: &'static str) -> impl Fn(E) -> Failure {
    move |error| Failure::Unprepared(format!("{what}: {error}"))
}

/// The first bytes of an open file.
fn read(fd: impl AsFd) -> Outcome {
    let mut bytes = [0; 256];
    let count = rustix::io::read(fd, &mut bytes)?;
    Ok(Gain::Bytes(bytes.get(..count).unwrap_or_default().to_vec()))
}

/// Opens a file by path and reads it.
fn read_at(dir: impl AsFd, path: impl AsRef<Path>) -> Outcome {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    read(rustix::fs::openat(
        dir,
        path.as_ref(),
        flags,
        Mode::empty(),
    )?)
}

/// Tries every path until one opens; else a refusal, one of access rather than of a name.
fn first_of(dir: impl AsFd, paths: &[PathBuf]) -> Outcome {
    let mut refusal = Failure::Unprepared("no path to try".to_owned());
    for path in paths {
        match read_at(dir.as_fd(), path) {
            Ok(gain) => return Ok(gain),
            Err(why) if is_of_access(&refusal) => drop(why),
            Err(why) => refusal = why,
        }
    }
    Err(refusal)
}

fn is_of_access(why: &Failure) -> bool {
    matches!(why, Failure::Errno(Errno::EACCES | Errno::EPERM))
}
