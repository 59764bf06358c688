//! A process in the attacker's seat: forked from this one, in the namespaces and under the ids
//! that the seat has, it runs a closure and hands back what it found.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::marker::PhantomData;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Gid, Pid, Uid, setgroups, setresgid, setresuid};
use serde::Serialize;
use serde::de::DeserializeOwned;
use virtfs_p9::Ids;

use super::OrTell as _;
use super::start::View;

/// Where the process is.
#[derive(Clone, Copy)]
pub(crate) enum Where<'a> {
    /// In this process's own namespaces.
    Host,
    /// Where the view's client is: its mount and its pid namespace.
    Client(&'a View),
    /// In the client's mount namespace alone; pids are the host's.
    Mounts(&'a View),
    /// Where the QEMU of a domain of libvirt's is: its mount namespace, and the lab's others.
    Domain(&'a Seat),
}

/// The seat of a domain's QEMU in a lab.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seat {
    /// The lab's first process, as the host numbers it.
    pub(crate) init: i32,
    /// QEMU, as the lab numbers it.
    pub(crate) qemu: i32,
}

/// A process in a seat that was set going.
pub(crate) struct Actor<T> {
    child: Pid,
    answer: Option<OwnedFd>,
    kind: PhantomData<T>,
}

/// Runs `act` there, as `ids` without groups and capabilities (root keeps what it has), and waits
/// for what it returns.
///
/// # Errors
///
/// What could not be set up, or that there was no answer within `limit`: the process is killed
/// then.
pub(crate) fn act<T: Serialize + DeserializeOwned>(
    place: Where<'_>,
    ids: Ids,
    limit: Duration,
    act: impl FnOnce() -> T,
) -> Result<T, String> {
    begin(place, ids, act)?.finish(limit)
}

/// As [`act`], and does not wait.
pub(crate) fn begin<T: Serialize + DeserializeOwned>(
    place: Where<'_>,
    ids: Ids,
    act: impl FnOnce() -> T,
) -> Result<Actor<T>, String> {
    let namespace =
        |pid: i32, kind: &str| File::open(format!("/proc/{pid}/ns/{kind}")).or_tell("a namespace");
    let open = |path: String| File::open(path).or_tell("a namespace");
    let join = match place {
        Where::Domain(Seat { init, qemu }) => vec![
            (namespace(*init, "pid")?, CloneFlags::CLONE_NEWPID),
            (namespace(*init, "net")?, CloneFlags::CLONE_NEWNET),
            (namespace(*init, "ipc")?, CloneFlags::CLONE_NEWIPC),
            (
                open(format!("/proc/{init}/root/proc/{qemu}/ns/mnt"))?,
                CloneFlags::CLONE_NEWNS,
            ),
        ],
        Where::Host => Vec::new(),
        Where::Mounts(view) => vec![(namespace(view.keeper, "mnt")?, CloneFlags::CLONE_NEWNS)],
        Where::Client(view) => vec![
            // For the next child; first, since a mount namespace brings another /proc.
            (namespace(view.init, "pid")?, CloneFlags::CLONE_NEWPID),
            (namespace(view.keeper, "mnt")?, CloneFlags::CLONE_NEWNS),
        ],
    };
    let (read, write) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).or_tell("pipe")?;
    match fork().or_tell("fork")? {
        ForkResult::Child => {
            drop(read);
            middle(&join, ids, write, act)
        }
        ForkResult::Parent { child } => Ok(Actor {
            child,
            answer: Some(read),
            kind: PhantomData,
        }),
    }
}

impl<T: Serialize + DeserializeOwned> Actor<T> {
    /// Whether it has something to say, or ended.
    pub(crate) fn is_done(&self) -> bool {
        self.answer.as_ref().is_none_or(|answer| {
            let mut wanted = [PollFd::new(answer.as_fd(), PollFlags::POLLIN)];
            poll(&mut wanted, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
        })
    }

    /// Its number on the host, once it is in its seat.
    pub(crate) fn pid(&self) -> Option<i32> {
        super::process::children(self.child.as_raw())
            .first()
            .copied()
    }

    /// Waits for what it returns.
    ///
    /// # Errors
    ///
    /// See [`act`].
    pub(crate) fn finish(mut self, limit: Duration) -> Result<T, String> {
        let answer = self.answer.take().ok_or("it was asked already")?;
        let bytes = read_all(answer, limit)?;
        serde_json::from_slice::<Result<T, String>>(&bytes)
            .or_tell("the attacker's process ended without a word")?
    }
}

impl<T> Drop for Actor<T> {
    fn drop(&mut self) {
        // Its child goes with it (PR_SET_PDEATHSIG). One that has answered is about to end.
        let _may_be_gone = kill(self.child, Signal::SIGKILL);
        let _status = waitpid(self.child, None);
    }
}

/// The first child joins; its own child is the attacker, since a pid namespace is joined by
/// children only.
fn middle<T: Serialize>(
    join: &[(File, CloneFlags)],
    ids: Ids,
    write: OwnedFd,
    act: impl FnOnce() -> T,
) -> ! {
    let joined = join
        .iter()
        .try_for_each(|(namespace, kind)| setns(namespace, *kind))
        .and_then(|()| nix::unistd::chdir("/"));
    if let Err(errno) = joined {
        answer::<T>(write, &Err(format!("setns: {errno}")));
    }
    match fork() {
        Err(errno) => answer::<T>(write, &Err(format!("fork: {errno}"))),
        Ok(ForkResult::Parent { child }) => {
            drop(write);
            let _status = waitpid(child, None);
            std::process::exit(0)
        }
        Ok(ForkResult::Child) => {
            let done = become_one(ids).map(|()| act());
            answer(write, &done)
        }
    }
}

fn become_one(ids: Ids) -> Result<(), String> {
    if ids.uid != 0 {
        let (uid, gid) = (Uid::from_raw(ids.uid), Gid::from_raw(ids.gid));
        setgroups(&[]).or_tell("setgroups")?;
        setresgid(gid, gid, gid).or_tell("setresgid")?;
        setresuid(uid, uid, uid).or_tell("setresuid")?;
        rustix::thread::set_no_new_privs(true).or_tell("no_new_privs")?;
    }
    // After the ids, whose change clears it.
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).or_tell("PR_SET_PDEATHSIG")
}

/// `exit` runs no destructors: those of the parent's objects are the parent's.
fn answer<T: Serialize>(write: OwnedFd, done: &Result<T, String>) -> ! {
    let bytes = serde_json::to_vec(done).unwrap_or_default();
    let told = File::from(write).write_all(&bytes).is_ok();
    std::process::exit(i32::from(!told))
}

fn read_all(read: OwnedFd, limit: Duration) -> Result<Vec<u8>, String> {
    let end = Instant::now() + limit;
    let mut bytes = Vec::new();
    let mut file = File::from(read);
    let mut buf = [0; 65536];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let mut wanted = [PollFd::new(file.as_fd(), PollFlags::POLLIN)];
        match poll(&mut wanted, left) {
            Ok(0) => return Err(format!("the attacker's process hung for {limit:?}")),
            Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(format!("poll: {errno}")),
            Ok(_) => match file.read(&mut buf).or_tell("read")? {
                0 => return Ok(bytes),
                count => bytes.extend_from_slice(buf.get(..count).unwrap_or_default()),
            },
        }
    }
}

/// Runs `run` in a child of the calling process, and waits for its end: its status.
pub(crate) fn in_child(run: impl FnOnce() -> i32) -> nix::Result<i32> {
    use nix::sys::wait::WaitStatus;

    match waitpid(leave_child(run)?, None)? {
        WaitStatus::Exited(_, status) => Ok(status),
        _ => Err(nix::errno::Errno::ECHILD),
    }
}

/// Runs `run` in a child of the calling process, and does not wait.
pub(crate) fn leave_child(run: impl FnOnce() -> i32) -> nix::Result<Pid> {
    match fork()? {
        ForkResult::Child => std::process::exit(run()),
        ForkResult::Parent { child } => Ok(child),
    }
}

#[allow(unsafe_code, reason = "fork(2)")]
fn fork() -> nix::Result<ForkResult> {
    // SAFETY: cases run one after the other, and no other thread of this program runs while one of
    // them forks; the child ends by exit and returns to nobody.
    unsafe { nix::unistd::fork() }
}

/// Sends a signal 0, or a real one, and tells what the kernel says of it.
pub(crate) fn try_signal(pid: i32, signal: Option<Signal>) -> Result<(), i32> {
    kill(Pid::from_raw(pid), signal).map_err(|errno| errno as i32)
}
