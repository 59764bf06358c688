//! A client that somebody else has started: it is looked at, and views are laid into its mount
//! namespace.
//!
//! Nobody else may be in that namespace, and nothing that is mounted there may reach another one: a
//! view that the host's or libvirtd's namespace sees for a moment is copied into every namespace
//! that is made meanwhile.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sched::{CloneFlags, setns};
use rustix::fs::{AtFlags, StatxFlags};

use crate::control::rundir::Process;
use crate::error::{Class, Error, Result};
use crate::identity::Ids;
use crate::launch::child::Child;
use crate::launch::namespace;
use crate::mounts;
use crate::report::Reporter;
use crate::sys::{self, Forked};

/// How long it may take to look up the exports' places in the peer's namespace, and to lay the views
/// there.
const LAYING_MS: u16 = 10_000;

/// The client, held by descriptors: what was looked at is what is used, whatever its number means by
/// then.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) process: Process,
    pub(crate) pidfd: OwnedFd,
    /// Its mount namespace.
    pub(crate) mounts: OwnedFd,
    /// The mounts that it sees.
    pub(crate) mountinfo: File,
}

/// A view that is mounted nowhere yet, and where it is to lie.
pub(crate) struct Lying<'a> {
    pub(crate) mount: &'a OwnedFd,
    pub(crate) mount_id: u64,
    /// In the peer's namespace.
    pub(crate) at: &'a Path,
    /// The directory that is to be covered there.
    pub(crate) export: &'a OwnedFd,
}

impl Peer {
    /// Looks at a process that is `client`, and takes hold of its mount namespace.
    ///
    /// # Errors
    ///
    /// Configuration: it has ended; it is somebody else, or has more power than a client may have; its
    /// mount namespace is not its own, or not of our own user namespace.
    pub(crate) fn look(pid: i32, pidfd: OwnedFd, client: &Ids) -> Result<Self> {
        let open = |what: &str| {
            let path = format!("/proc/{pid}/{what}");
            File::open(&path).map_err(|error| refused(format!("{path}: {error}"), ""))
        };
        let mounts: OwnedFd = open("ns/mnt")?.into();
        let mountinfo = open("mountinfo")?;
        let process =
            Process::find(pid).ok_or_else(|| refused(format!("process {pid} has ended"), ""))?;
        verify_power(pid, client)?;
        let peer = Self {
            process,
            pidfd,
            mounts,
            mountinfo,
        };
        verify_namespace(&peer)?;
        // What was opened and read by its number was its own: the number is nobody else's while it
        // lives.
        if peer.has_ended() {
            return Err(refused(format!("process {pid} has ended"), ""));
        }
        Ok(peer)
    }

    /// Its command line, for whoever looks at the view later.
    pub(crate) fn command(&self) -> Vec<String> {
        let text = fs::read(format!("/proc/{}/cmdline", self.process.pid)).unwrap_or_default();
        let words = text.split(|byte| *byte == 0);
        words
            .filter(|word| !word.is_empty())
            .map(|word| String::from_utf8_lossy(word).into_owned())
            .collect()
    }

    fn has_ended(&self) -> bool {
        let mut fds = [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)];
        !matches!(nix::poll::poll(&mut fds, PollTimeout::ZERO), Ok(0))
    }

    /// Lays every view over its export in the peer's namespace, or none where one export is not what
    /// it should be.
    ///
    /// By a process of its own, which ends at once: the caller stays where it is.
    ///
    /// # Errors
    ///
    /// Mount: the place is another directory there, or mounts there reach other namespaces.
    pub(crate) fn lay(&self, views: &[Lying<'_>], reporter: &Reporter) -> Result<()> {
        let failed = |error| Error::step(Class::Confinement, "fork(into the peer)", error);
        let child = match sys::clone_process(0).map_err(failed)? {
            Forked::Child => {
                let status = match self.enter_and_lay(views) {
                    Ok(()) => 0,
                    Err(error) => {
                        reporter.fail(&error);
                        error.class().status()
                    }
                };
                sys::exit_now(status)
            }
            Forked::Parent(child) => Child::hold(child)?,
        };
        child.await_end(LAYING_MS);
        if child.end() != Some(0) {
            let what = "the views could not be laid into the client's mount namespace";
            return Err(Error::new(Class::Mount, what, ""));
        }
        self.verify_laid(views)
    }

    fn enter_and_lay(&self, views: &[Lying<'_>]) -> Result<()> {
        setns(&self.mounts, CloneFlags::CLONE_NEWNS)
            .map_err(|errno| Error::step(Class::Mount, "setns(the client's mounts)", errno))?;
        let table = self.table()?;
        let places: Vec<OwnedFd> = views
            .iter()
            .map(|view| place(view, &table))
            .collect::<Result<_>>()?;
        for (view, place) in views.iter().zip(&places) {
            namespace::attach(view.mount, place, &view.at.display().to_string())?;
        }
        Ok(())
    }

    /// What the peer itself sees: it may have another root directory than its namespace.
    fn verify_laid(&self, views: &[Lying<'_>]) -> Result<()> {
        let table = self.table()?;
        for view in views {
            if !table.shows(view.mount_id, view.at) {
                return Err(Error::new(
                    Class::Mount,
                    format!(
                        "the client does not see its view at {}: it has another root directory than \
                         its mount namespace, or something covers the place",
                        view.at.display()
                    ),
                    "",
                ));
            }
        }
        Ok(())
    }

    fn table(&self) -> Result<mounts::Table> {
        mounts::Table::read_again(&self.mountinfo)
            .map_err(|error| Error::step(Class::Mount, "read(the client's mountinfo)", error))
    }
}

/// Finds a view's place in the namespace that the calling process is in.
fn place(view: &Lying<'_>, table: &mounts::Table) -> Result<OwnedFd> {
    let shown = view.at.display();
    let place = namespace::open_plain(view.at)?;
    if !namespace::is_same(&place, view.export)? {
        return Err(Error::new(
            Class::Mount,
            format!("in the client's mount namespace {shown} is another directory than the export"),
            "find out what is mounted there, or who changes its parent directory",
        ));
    }
    let found = rustix::fs::statx(&place, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)
        .map_err(|errno| Error::step(Class::Mount, format!("statx({shown})"), errno))?;
    match table.by_id(found.stx_mnt_id) {
        Some(mount) if !mount.shared => Ok(place),
        Some(mount) => Err(Error::new(
            Class::Mount,
            format!(
                "in the client's mount namespace {} is a shared mount: the view over {shown} would \
                 show in other namespaces",
                mount.point.display()
            ),
            "set `namespaces = [ \"mount\" ]` in qemu.conf and restart libvirtd: it makes such mounts slaves \
             of the host's",
        )),
        None => Err(Error::new(
            Class::Mount,
            format!(
                "{shown} lies on a mount that the client does not see: its root directory is another \
                 than its mount namespace's"
            ),
            "",
        )),
    }
}

/// The client's ids in every place that the kernel's gate looks at, no capability to uncover the
/// export with, and no_new_privs, so that no set-user-id program (`fusermount3 -u`) does it either.
fn verify_power(pid: i32, client: &Ids) -> Result<()> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))
        .map_err(|error| refused(format!("/proc/{pid}/status: {error}"), ""))?;
    let field = |name: &str| {
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        value.unwrap_or_default().trim()
    };
    let all = |ids: &str, wanted: u32| {
        !ids.is_empty() && ids.split_whitespace().all(|id| id.parse() == Ok(wanted))
    };
    if !all(field("Uid"), client.uid) || !all(field("Gid"), client.gid) {
        return Err(refused(
            format!(
                "process {pid} is not {}:{} in all of its ids",
                client.uid, client.gid
            ),
            "the domain's static DAC label and the client of its file must agree",
        ));
    }
    for set in ["CapPrm", "CapEff", "CapInh", "CapAmb"] {
        if u64::from_str_radix(field(set), 16) != Ok(0) {
            return Err(refused(
                format!("process {pid} has capabilities ({set} {})", field(set)),
                "set `clear_emulator_capabilities = 1` in qemu.conf",
            ));
        }
    }
    if field("NoNewPrivs") != "1" {
        return Err(refused(
            format!("process {pid} has not given up set-user-id programs (no_new_privs)"),
            "virtfs-mediator-qemu does that before it asks: nobody else may ask",
        ));
    }
    Ok(())
}

/// A mount namespace of its own: not ours, not the host's, nobody else in it, and one that only our
/// own user namespace has power over.
fn verify_namespace(peer: &Peer) -> Result<()> {
    let pid = peer.process.pid;
    let own_user = identity("/proc/self/ns/user").map_err(|error| unseen("ours", &error))?;
    match identity(&format!("/proc/{pid}/ns/user")) {
        Ok(user) if user == own_user => {}
        Ok(_) => {
            let what = format!("process {pid} is in a user namespace of its own");
            return Err(refused(what, ""));
        }
        Err(error) => return Err(unseen("its user namespace", &error)),
    }
    let owner = sys::owning_user_namespace(peer.mounts.as_fd())
        .map_err(|error| unseen("whose its mount namespace is", &error))?;
    if fstat_identity(&owner)? != own_user {
        return Err(refused(
            format!("the mount namespace of process {pid} belongs to another user namespace"),
            "",
        ));
    }
    let found = fstat_identity(&peer.mounts)?;
    let table = peer.table()?;
    let others = fs::read_dir("/proc").map_err(|error| unseen("/proc", &error))?;
    let other = others
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .filter(|other| *other != pid)
        .find(|other| is_in(*other, found, &table));
    match other {
        None => Ok(()),
        Some(other) => Err(refused(
            format!(
                "process {other} ({}) is in the mount namespace of process {pid} as well",
                comm(other)
            ),
            "QEMU needs one of its own: `namespaces = [ \"mount\" ]` in qemu.conf, which is libvirt's \
             default",
        )),
    }
}

/// Whether a process is in a mount namespace. Where we may not look at one with more capabilities
/// than ours (ptrace(2), access mode checking), by its mounts: each is in one namespace alone.
fn is_in(pid: i32, namespace: (u64, u64), mounts: &mounts::Table) -> bool {
    match identity(&format!("/proc/{pid}/ns/mnt")) {
        Ok(its) => its == namespace,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            match fs::read(format!("/proc/{pid}/mountinfo")) {
                Ok(text) => mounts::Table::parse(&text).meets(mounts),
                Err(error) => error.kind() == io::ErrorKind::PermissionDenied,
            }
        }
        // It has ended.
        Err(_) => false,
    }
}

/// A process's name, which it may have chosen itself.
fn comm(pid: i32) -> String {
    let name = fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
    String::from_utf8_lossy(name.trim_ascii_end())
        .escape_debug()
        .to_string()
}

/// Device and inode of a namespace by its file in /proc.
fn identity(path: &str) -> io::Result<(u64, u64)> {
    fs::metadata(path).map(|meta| (meta.dev(), meta.ino()))
}

fn unseen(what: &str, error: &io::Error) -> Error {
    refused(format!("{what} cannot be looked at: {error}"), "")
}

fn fstat_identity(fd: &OwnedFd) -> Result<(u64, u64)> {
    rustix::fs::fstat(fd)
        .map(|stat| (stat.st_dev, stat.st_ino))
        .map_err(|errno| refused(format!("fstat(namespace): {}", io::Error::from(errno)), ""))
}

fn refused(what: impl Into<String>, cure: impl Into<String>) -> Error {
    Error::new(Class::Configuration, what, cure)
}
