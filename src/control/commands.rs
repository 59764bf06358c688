//! `enter` and `unmount`: root's own acts on a running view, by the keeper's pid and /proc.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::process::Stdio;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::Signal;
use nix::sys::signalfd::SignalFd;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::control::rundir::{self, State};
use crate::error::{Class, Error, Result};
use crate::identity::Ids;
use crate::keep::init;
use crate::kernel_view;
use crate::launch::client;
use crate::launcher::{FORWARDED, FROM_TERMINAL};
use crate::plan::{self, ClientCommand};
use crate::sys::{self, Forked};

/// How long everything may take to end after an unmount.
const END_LIMIT_MS: u16 = 10_000;

/// Runs a command as the client, in the view's mount and pid namespaces; its status is ours.
pub(crate) fn enter(view: &str, argv: &[OsString]) -> Result<u8> {
    plan::require_root()?;
    plan::refuse_inherited_directories(&[0, 1, 2])?;
    let state = rundir::load(view)?;
    let command = ClientCommand {
        argv: argv.to_owned(),
        directory: plan::working_directory(),
        umask: plan::current_umask(),
        pidfile: None,
        descriptors: Vec::new(),
    };
    let resident = state.resident();
    let mounts = open_namespace(resident.pid, "mnt")?;
    // A peer has no further namespaces of its own.
    let others = match (state.init, state.peer) {
        (Some(init), _) => vec![
            (open_namespace(init, "pid")?, CloneFlags::CLONE_NEWPID),
            (open_namespace(init, "ipc")?, CloneFlags::CLONE_NEWIPC),
        ],
        (None, Some(_)) => Vec::new(),
        (None, None) => return Err(ended(view)),
    };
    if !state.keeper.lives() || !resident.lives() {
        return Err(ended(view));
    }
    // The next child starts in the client's pid namespace: it ends with it, and its /proc is the
    // one that the client's init mounted.
    for (namespace, kind) in &others {
        join(namespace, *kind)?;
    }
    join(&mounts, CloneFlags::CLONE_NEWNS)?;
    drop((mounts, others));
    // They are the command's, whose mask is emptied before it is executed.
    let signals = kernel_view::signals(FORWARDED.into_iter().chain([Signal::SIGCHLD]))?;
    match sys::clone_process(0)
        .map_err(|error| Error::step(Class::ClientNotStarted, "fork", error))?
    {
        Forked::Child => {
            let ids = Ids {
                uid: state.client_uid,
                gid: state.client_gid,
                groups: state.client_groups.clone(),
            };
            let error = client::execute(&ids, &command, None);
            crate::tell(&error);
            sys::exit_now(error.class().status())
        }
        Forked::Parent(child) => Ok(ended_with(child, &signals)?
            .map_or(Class::ClientNotStarted.status(), |(_, status)| status)),
    }
}

/// Waits for a command's end; what we are sent meanwhile is handed on to it, but not what the
/// terminal sent to both. `None` if it was somebody else's to wait for.
fn ended_with(child: Pid, signals: &SignalFd) -> Result<Option<(Pid, u8)>> {
    loop {
        while let Ok(Some(info)) = signals.read_signal() {
            let number = i32::try_from(info.ssi_signo).unwrap_or_default();
            let signal = Signal::try_from(number).ok();
            let signal = signal.filter(|signal| *signal != Signal::SIGCHLD);
            if let Some(signal) = signal.filter(|_| info.ssi_code != FROM_TERMINAL) {
                // It is not reaped yet: its number is no other's.
                let _may_have_ended = nix::sys::signal::kill(child, signal);
            }
        }
        match waitpid(child, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => {}
            Ok(status) => return Ok(init::ended(status)),
            Err(_) => return Ok(None),
        }
        let mut fds = [PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        match nix::poll::poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(Error::step(Class::ClientNotStarted, "poll", errno)),
        }
    }
}

/// `fusermount3 -u` in the namespace, then waits until all is gone.
///
/// In a peer's namespace nothing is unmounted, since the original lies below, within reach of the
/// peer: the mediator ends, and the dead view stays there.
pub(crate) fn unmount(view: &str, force: bool) -> Result<()> {
    plan::require_root()?;
    let state = rundir::load(view)?;
    let clients = clients(&state);
    if !force && !clients.is_empty() {
        let list: Vec<String> = clients.iter().map(ToString::to_string).collect();
        return Err(Error::new(
            Class::Mount,
            format!("view '{view}' is in use by process {}", list.join(", ")),
            match state.peer {
                None => "end it first, or end both with --force",
                Some(_) => {
                    "shut the virtual machine down; with --force the view ends under it, and every \
                     access fails (ENOTCONN)"
                }
            },
        ));
    }
    // Before we join the namespace, whose /proc shows nothing of the keeper.
    let Some(keeper) = rundir::watch(&state.keeper) else {
        return Ok(());
    };
    match state.peer {
        None => run_fusermount(&state, force)?,
        Some(_) => end_keeper(&keeper)?,
    }
    if rundir::await_end(&keeper, END_LIMIT_MS) {
        return Ok(());
    }
    Err(Error::new(
        Class::Mount,
        format!("view '{view}' did not end within 10 seconds of its unmount"),
        format!("its keeper is process {}", state.keeper.pid),
    ))
}

fn end_keeper(keeper: &OwnedFd) -> Result<()> {
    match rustix::process::pidfd_send_signal(keeper, rustix::process::Signal::TERM) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(errno) => Err(Error::step(
            Class::Mount,
            "pidfd_send_signal(keeper)",
            errno,
        )),
    }
}

fn run_fusermount(state: &State, force: bool) -> Result<()> {
    let mounts = open_namespace(state.keeper.pid, "mnt")?;
    join(&mounts, CloneFlags::CLONE_NEWNS)?;
    let flag = if force { "-uz" } else { "-u" };
    // Ours may be a view's namespace now, but the program is the host's own: /usr is the same.
    let output = std::process::Command::new("/usr/bin/fusermount3")
        .args([flag, "--"])
        .arg(&state.at)
        .current_dir("/")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| {
            Error::step(Class::Mount, "/usr/bin/fusermount3", error)
                .cure("install it (Debian: apt-get install fuse3)")
        })?;
    if output.status.success() {
        return Ok(());
    }
    let told = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Error::new(
        Class::Mount,
        told,
        "end what uses the view, or use --force",
    ))
}

/// The peer, or the processes of the client's pid namespace besides its init, as the host numbers
/// them.
pub(crate) fn clients(state: &State) -> Vec<i32> {
    if let Some(peer) = state.peer {
        return peer.lives().then_some(peer.pid).into_iter().collect();
    }
    let Some(init) = state.init else {
        return Vec::new();
    };
    let namespace = |pid: i32| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let Some(own) = namespace(init) else {
        return Vec::new();
    };
    let mut found: Vec<i32> = std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| *pid != init && namespace(*pid).as_ref() == Some(&own))
        .collect();
    found.sort_unstable();
    found
}

fn open_namespace(pid: i32, kind: &str) -> Result<File> {
    let path = format!("/proc/{pid}/ns/{kind}");
    File::open(Path::new(&path)).map_err(|error| Error::step(Class::Mount, path, error))
}

fn join(namespace: &File, kind: CloneFlags) -> Result<()> {
    setns(namespace, kind).map_err(|errno| Error::step(Class::Mount, "setns", errno))
}

fn ended(view: &str) -> Error {
    Error::new(
        Class::Configuration,
        format!("view '{view}' is starting or ending"),
        "try again",
    )
}
