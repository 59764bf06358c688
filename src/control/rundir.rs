//! `/run/virtfs-mediator/VIEW/`: `state.json`, the control socket and `ns`, a symbolic link to the
//! mount namespace that the view lies in. Root's alone (0700).

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use serde::{Deserialize, Serialize};

use crate::error::{Class, Error, Result};
use crate::report::Found;

/// Where views are found.
pub(crate) const RUN: &str = "/run/virtfs-mediator";
/// What a view's directory may hold: all that is ever removed from it. The record last, so that what is
/// left by somebody who is killed meanwhile tells whose it was.
const FILES: [&str; 4] = ["control", "ns", "state.json.new", "state.json"];
/// How long a directory without a record, at whose socket nobody listens, may be somebody's who has just
/// made it.
const YOUNG: Duration = Duration::from_secs(1);

/// What is recorded of a running view. Process ids as the host numbers them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) view: String,
    pub(crate) export: PathBuf,
    pub(crate) at: PathBuf,
    /// The policy file that was read last.
    pub(crate) policy: Option<PathBuf>,
    /// What was in it: the policy in force. Absent for the default.
    pub(crate) policy_text: Option<String>,
    /// Read-only whatever the policy says.
    pub(crate) readonly: bool,
    pub(crate) client_uid: u32,
    pub(crate) client_gid: u32,
    pub(crate) client_groups: Vec<u32>,
    pub(crate) command: Vec<String>,
    pub(crate) shared: bool,
    pub(crate) isolated: bool,
    pub(crate) keeper: Process,
    /// The client, if somebody else has started it: the view lies in its mount namespace.
    #[serde(default)]
    pub(crate) peer: Option<Process>,
    /// What the mediator read back of walls that /proc does not show. Absent while the view starts.
    pub(crate) walls: Option<Found>,
    /// Absent while the view starts, and of a view with a peer.
    pub(crate) init: Option<i32>,
    pub(crate) warden: Option<i32>,
    /// Of a view whose file data may go past its mediator.
    #[serde(default)]
    pub(crate) registrar: Option<i32>,
    /// The id of its mount (proc_pid_mountinfo(5)). Absent while the view starts.
    #[serde(default)]
    pub(crate) mount: Option<u64>,
    /// `--data`.
    #[serde(default)]
    pub(crate) data: String,
    /// The mount points that the mediator has below its root: of what is followed, or hidden.
    #[serde(default)]
    pub(crate) submounts: Vec<PathBuf>,
}

/// A process that is not mistaken for a later one with the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    /// Start time in clock ticks since boot (field 22 of proc_pid_stat(5)).
    pub(crate) started: u64,
}

impl State {
    /// A process in the mount namespace that the view lies in.
    pub(crate) fn resident(&self) -> Process {
        self.peer.unwrap_or(self.keeper)
    }
}

impl Process {
    /// The process with this number, if there is one.
    pub(crate) fn find(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The second field is the command in parentheses, which may hold anything.
        let rest = stat.rsplit_once(')')?.1;
        let mut fields = rest.split_whitespace();
        if fields.next()? == "Z" {
            return None;
        }
        Some(Self {
            pid,
            started: fields.nth(18)?.parse().ok()?,
        })
    }

    /// Whether it still runs.
    pub(crate) fn lives(&self) -> bool {
        Self::find(self.pid) == Some(*self)
    }

    /// How long ago it started: up to one clock tick too long.
    pub(crate) fn age(&self) -> Duration {
        let hertz = rustix::param::clock_ticks_per_second();
        let (whole, rest) = (self.started / hertz, self.started % hertz);
        let started =
            Duration::from_secs(whole) + Duration::from_nanos(rest * 1_000_000_000 / hertz);
        since_boot().saturating_sub(started)
    }
}

/// How long ago the host was booted, by the clock that processes' starts are told in.
pub(crate) fn since_boot() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    let nanoseconds = u64::try_from(now.tv_nsec).unwrap_or_default();
    Duration::from_secs(seconds) + Duration::from_nanos(nanoseconds)
}

/// Opens the directory of all views, making it if need be.
pub(crate) fn open() -> Result<OwnedFd> {
    let failed = |error: &dyn std::fmt::Display| {
        Error::new(
            Class::Configuration,
            format!("{RUN}: {error}"),
            "it must be root's own directory",
        )
    };
    match fs::DirBuilder::new().mode(0o700).create(RUN) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(failed(&error)),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(CWD, RUN, flags, Mode::empty()).map_err(|errno| failed(&errno))?;
    let stat = rustix::fs::fstat(&fd).map_err(|errno| failed(&errno))?;
    if stat.st_uid != 0 || stat.st_mode & 0o022 != 0 {
        return Err(failed(
            &"it belongs to someone else, or others may write to it",
        ));
    }
    Ok(fd)
}

/// Takes a view's name: makes its directory and the listening control socket (0600).
///
/// What a killed keeper left behind is removed first.
pub(crate) fn claim(run: &OwnedFd, name: &str) -> Result<OwnedFd> {
    let path = Path::new(RUN).join(name);
    let taken = || {
        Error::new(
            Class::Configuration,
            format!("a view named '{name}' is already running"),
            "choose another with --name, or end it (`virtfs-mediator unmount`)",
        )
    };
    let failed = |error: io::Error| {
        Error::new(
            Class::Configuration,
            format!("{}: {error}", path.display()),
            "",
        )
    };
    // Waits for who has just made it, and who may have been killed right then.
    let end = Instant::now() + 2 * YOUNG;
    loop {
        match fs::DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => break,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed(error)),
        }
        match owner(name) {
            Owner::Lives => return Err(taken()),
            Owner::Dead => remove_all(run, &[name.to_owned()]),
            Owner::Unknown if Instant::now() < end => std::thread::sleep(Duration::from_millis(20)),
            Owner::Unknown => return Err(taken()),
        }
    }
    let socket = path.join("control");
    let listener = UnixListener::bind(&socket).map_err(failed)?;
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o600)).map_err(failed)?;
    Ok(listener.into())
}

/// Records what is known of a view, whole or not at all. If its directory is gone, it has ended
/// meanwhile, and there is nothing to record.
pub(crate) fn record(state: &State) -> Result<()> {
    let directory = Path::new(RUN).join(&state.view);
    // The record last: a keeper may be removing the directory already, and what is then left in it
    // must tell whose it is (`remove_left_by`).
    let target = format!("/proc/{}/ns/mnt", state.resident().pid);
    told(
        &directory,
        std::os::unix::fs::symlink(target, directory.join("ns"))
            .and_then(|()| write_state(&directory, state)),
    )
}

/// Changes the record of a running view.
pub(crate) fn rewrite(state: &State) -> Result<()> {
    let directory = Path::new(RUN).join(&state.view);
    told(&directory, write_state(&directory, state))
}

fn write_state(directory: &Path, state: &State) -> io::Result<()> {
    let fresh = directory.join("state.json.new");
    let text = serde_json::to_vec_pretty(state)?;
    fs::write(&fresh, text)?;
    fs::rename(&fresh, directory.join("state.json"))
}

fn told(directory: &Path, written: io::Result<()>) -> Result<()> {
    match written {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => {
            let what = format!("{}: {error}", directory.display());
            Err(Error::new(
                Class::Configuration,
                what,
                "it must be root's own directory",
            ))
        }
    }
}

/// Removes what a keeper left, unless the name has a new owner by now.
pub(crate) fn remove_left_by(keeper: &Process, run: &OwnedFd, name: &str) {
    let recorded = read_state(name);
    if recorded.is_some_and(|state| state.keeper == *keeper) {
        remove_all(run, &[name.to_owned()]);
    }
}

fn read_state(name: &str) -> Option<State> {
    let text = fs::read(Path::new(RUN).join(name).join("state.json")).ok()?;
    serde_json::from_slice(&text).ok()
}

/// Reads a view's record.
///
/// # Errors
///
/// Configuration: no such view runs.
pub(crate) fn load(name: &str) -> Result<State> {
    let name = crate::view_name::checked(name)?;
    read_state(&name)
        .filter(|state| state.keeper.lives())
        .ok_or_else(|| {
            Error::new(
                Class::Configuration,
                format!("no view named '{name}' is running"),
                "`virtfs-mediator list` names those that are",
            )
        })
}

/// Whose a view's directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    /// A view that runs or is being started.
    Lives,
    /// Nobody's any more, or there is none.
    Dead,
    /// Made a moment ago: perhaps by a start that goes on in a moment.
    Unknown,
}

fn owner(name: &str) -> Owner {
    if load(name).is_ok() {
        return Owner::Lives;
    }
    let directory = Path::new(RUN).join(name);
    if directory.join("state.json").exists() {
        return Owner::Dead;
    }
    // Without a record it is being started, and whoever starts it listens, or will in a moment; or it
    // was being removed by somebody who was killed.
    if listens(&directory.join("control")) {
        return Owner::Lives;
    }
    let made = fs::metadata(&directory).and_then(|meta| meta.modified());
    match made.map(|made| made.elapsed()) {
        Ok(Ok(age)) if age < YOUNG => Owner::Unknown,
        Ok(_) | Err(_) => Owner::Dead,
    }
}

/// Whether any process has the socket open to be connected to.
fn listens(socket: &Path) -> bool {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket as open};
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let connected = open(AddressFamily::Unix, SockType::Stream, flags, None).and_then(|fd| {
        let address = UnixAddr::new(socket)?;
        connect(fd.as_raw_fd(), &address)
    });
    // EAGAIN: others wait before us (unix(7)).
    matches!(connected, Ok(()) | Err(Errno::EAGAIN))
}

/// Whether a view of that name runs or is being started.
pub(crate) fn is_live(name: &str) -> bool {
    owner(name) != Owner::Dead
}

/// All running views; removes what dead ones left.
pub(crate) fn all() -> Result<Vec<State>> {
    let run = open()?;
    let names = fs::read_dir(RUN)
        .map_err(|error| Error::step(Class::Configuration, RUN, error))?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut found = Vec::new();
    for name in names {
        match load(&name) {
            Ok(state) => found.push(state),
            Err(_) if !is_live(&name) => remove_all(&run, &[name]),
            Err(_) => {}
        }
    }
    found.sort_by(|one, other| one.view.cmp(&other.view));
    Ok(found)
}

/// Removes views' directories through a descriptor: works with another root directory, and without
/// a capability, since root owns them.
pub(crate) fn remove_all(run: &OwnedFd, names: &[String]) {
    for name in names {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let Ok(directory) = rustix::fs::openat(run, name.as_str(), flags, Mode::empty()) else {
            continue;
        };
        for file in FILES {
            if let Err(errno) = rustix::fs::unlinkat(&directory, file, AtFlags::empty())
                && errno != rustix::io::Errno::NOENT
            {
                tracing::warn!(view = name, file, %errno, "cannot be removed");
            }
        }
        if let Err(errno) = rustix::fs::unlinkat(run, name.as_str(), AtFlags::REMOVEDIR)
            && errno != rustix::io::Errno::NOENT
        {
            tracing::warn!(view = name, %errno, "its directory cannot be removed");
        }
    }
}

/// A pidfd of a process by which its end can be awaited; `None` if it is gone already. Taken while
/// /proc is still the host's.
pub(crate) fn watch(process: &Process) -> Option<OwnedFd> {
    let pid = rustix::process::Pid::from_raw(process.pid)?;
    let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok()?;
    process.lives().then_some(pidfd)
}

/// Waits until a watched process is gone, at most `limit_ms` milliseconds; tells whether it is.
pub(crate) fn await_end(pidfd: &OwnedFd, limit_ms: u16) -> bool {
    use nix::poll::{PollFd, PollFlags, PollTimeout};
    loop {
        let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        match nix::poll::poll(&mut fds, PollTimeout::from(limit_ms)) {
            Err(Errno::EINTR) => {}
            Ok(0) | Err(_) => return false,
            Ok(_) => return true,
        }
    }
}
