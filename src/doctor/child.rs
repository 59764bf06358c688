//! Trying what changes the process that tries it: in a child, which tells what came of it.

use std::io::Read as _;
use std::os::fd::{AsFd, OwnedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Gid, Pid, Uid, setgroups, setresgid, setresuid};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{Class, Error, Result};
use crate::identity::Ids;
use crate::pipes;
use crate::sys::{self, Forked};

/// How long a try may take: a network file system that does not answer must not hold `doctor`.
const LIMIT_MS: u16 = 10_000;

/// What a child says at its end.
#[derive(Deserialize, Serialize)]
enum Answer<T> {
    Done(T),
    Failed { what: String, cure: String },
}

/// How a child ended that gave no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Silent {
    Exited(i32),
    Killed(Signal),
    /// It was ended after ten seconds.
    Hung,
}

/// What came of a try.
pub(crate) enum Outcome<T> {
    Answered(Result<T>),
    Silent(Silent),
}

impl<T> Outcome<T> {
    /// For tries that are always to answer.
    pub(crate) fn result(self) -> Result<T> {
        let what = match self {
            Self::Answered(result) => return result,
            Self::Silent(Silent::Exited(status)) => format!("the try exited with {status}"),
            Self::Silent(Silent::Killed(signal)) => format!("the try was killed by {signal}"),
            Self::Silent(Silent::Hung) => "no answer within ten seconds".to_owned(),
        };
        Err(Error::new(Class::Confinement, what, ""))
    }
}

/// Runs `act` in a child with new namespaces (`CLONE_NEW*`, may be 0). `act` is handed the pipe by
/// which it will answer, should it close descriptors.
pub(crate) fn run<T: Serialize + DeserializeOwned>(
    namespaces: libc::c_int,
    act: impl FnOnce(&OwnedFd) -> Result<T>,
) -> Outcome<T> {
    run_beside(namespaces, act, |_child| Ok(()))
}

/// As [`run`]; meanwhile this process does its part, which is given the child's pid. What a closure
/// owns is dropped in the process that does not run it, so that pipes between the two hang up.
pub(crate) fn run_beside<T: Serialize + DeserializeOwned>(
    namespaces: libc::c_int,
    act: impl FnOnce(&OwnedFd) -> Result<T>,
    meanwhile: impl FnOnce(Pid) -> Result<()>,
) -> Outcome<T> {
    let failed = |call: &str, why: &dyn std::fmt::Display| {
        Outcome::Answered(Err(Error::step(Class::Confinement, call, why)))
    };
    let (end, pipe) = match pipes::pipe() {
        Ok(ends) => ends,
        Err(error) => return Outcome::Answered(Err(error)),
    };
    let child = match sys::clone_process(namespaces) {
        Ok(Forked::Child) => {
            drop((end, meanwhile));
            let answer = match act(&pipe) {
                Ok(value) => Answer::Done(value),
                Err(error) => Answer::Failed {
                    what: error.what().to_owned(),
                    cure: error.advice().to_owned(),
                },
            };
            let text = serde_json::to_vec(&answer).unwrap_or_default();
            let status = u8::from(nix::unistd::write(&pipe, &text).is_err());
            sys::exit_now(status)
        }
        Ok(Forked::Parent(child)) => child,
        Err(error) => return failed("clone", &error),
    };
    drop((pipe, act));
    let ours = meanwhile(child);
    let text = answer(end);
    if text.is_none() {
        // It is ours and not waited for yet, so that the pid is its own.
        let _may_have_ended = kill(child, Signal::SIGKILL);
    }
    let status = waitpid(child, None);
    let Some(text) = text else {
        return Outcome::Silent(Silent::Hung);
    };
    match serde_json::from_slice(&text) {
        Ok(Answer::Done(value)) => Outcome::Answered(ours.map(|()| value)),
        Ok(Answer::Failed { what, cure }) => {
            // Whoever failed first says why: the other one only saw it go.
            let theirs = Error::new(Class::Confinement, what, cure);
            Outcome::Answered(Err(ours.err().unwrap_or(theirs)))
        }
        Err(_nothing_said) => match status {
            Ok(WaitStatus::Exited(_, status)) => Outcome::Silent(Silent::Exited(status)),
            Ok(WaitStatus::Signaled(_, signal, _)) => Outcome::Silent(Silent::Killed(signal)),
            Ok(other) => failed("waitpid", &format!("{other:?}")),
            Err(errno) => failed("waitpid", &errno),
        },
    }
}

/// All that is written until the last writer is gone; `None` if that takes too long.
fn answer(end: OwnedFd) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    let mut pipe = std::fs::File::from(end);
    loop {
        let mut fds = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
        if nix::poll::poll(&mut fds, PollTimeout::from(LIMIT_MS)) == Ok(0) {
            return None;
        }
        let mut part = [0; 4096];
        match pipe.read(&mut part) {
            Ok(0) | Err(_) => return Some(text),
            Ok(len) => text.extend_from_slice(part.get(..len)?),
        }
    }
}

/// Becomes a user, for good. As root only.
///
/// # Errors
///
/// Confinement: the errno of the call that failed.
pub(crate) fn become_user(ids: &Ids) -> Result<()> {
    let failed = |call: &'static str| {
        move |errno: nix::errno::Errno| Error::step(Class::Confinement, call, errno)
    };
    let groups: Vec<Gid> = ids.groups.iter().copied().map(Gid::from_raw).collect();
    let (uid, gid) = (Uid::from_raw(ids.uid), Gid::from_raw(ids.gid));
    setgroups(&groups).map_err(failed("setgroups"))?;
    setresgid(gid, gid, gid).map_err(failed("setresgid"))?;
    setresuid(uid, uid, uid).map_err(failed("setresuid"))
}

#[cfg(test)]
mod tests {
    use super::*;

    // Within a test's threads no fork is possible: the whole program's tests cover `run`.

    #[test]
    fn silent_ends_are_told() {
        let told = |silent| {
            let outcome: Outcome<()> = Outcome::Silent(silent);
            outcome.result().unwrap_err().to_string()
        };
        assert!(told(Silent::Hung).contains("ten seconds"));
        assert!(told(Silent::Killed(Signal::SIGSYS)).contains("SIGSYS"));
        assert!(told(Silent::Exited(3)).contains('3'));
    }
}
