//! Who is to use the views, and what it brings along that could lead past them.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use crate::error::{Class, Error, Result};
use crate::launch::peer::Peer;
use crate::mounts;
use crate::pidfile::Pidfile;
use crate::plan::{ViewPlan, config};

/// Which process uses the views. What follows from that is decided where this is matched.
pub(crate) enum ClientProcess {
    /// A command that we start, in a pid namespace of its own, with the views in our own mount
    /// namespace.
    Command(ClientCommand),
    /// None yet: processes enter our namespaces later.
    Nobody,
    /// One that somebody else has started, in its own mount namespace, where the views are laid.
    Peer(Peer),
}

impl ClientProcess {
    /// What the client inherits from whoever called us.
    pub(crate) fn inherited(&self) -> Vec<RawFd> {
        match self {
            Self::Command(command) => (0..=2).chain(command.descriptors.iter().copied()).collect(),
            Self::Nobody | Self::Peer(_) => Vec::new(),
        }
    }

    /// What a start needs of it besides.
    pub(crate) fn descriptors(&self) -> Vec<RawFd> {
        match self {
            Self::Command(command) => command.descriptors.clone(),
            Self::Nobody => Vec::new(),
            Self::Peer(peer) => vec![
                peer.pidfd.as_raw_fd(),
                peer.mounts.as_raw_fd(),
                peer.mountinfo.as_raw_fd(),
            ],
        }
    }

    /// The command, if it is ours to start.
    pub(crate) fn command(&self) -> Option<&ClientCommand> {
        match self {
            Self::Command(command) => Some(command),
            Self::Nobody | Self::Peer(_) => None,
        }
    }

    /// The peer, if somebody else has started it.
    pub(crate) fn peer(&self) -> Option<&Peer> {
        match self {
            Self::Peer(peer) => Some(peer),
            Self::Command(_) | Self::Nobody => None,
        }
    }
}

/// The client's command line and where it starts.
pub(crate) struct ClientCommand {
    pub(crate) argv: Vec<OsString>,
    /// The caller's working directory: resolved again by path once the view lies over it.
    pub(crate) directory: PathBuf,
    /// The caller's umask, which ours replaces meanwhile.
    pub(crate) umask: rustix::fs::Mode,
    /// Where to write the client's pid as the host numbers it.
    pub(crate) pidfile: Option<Pidfile>,
    /// What it inherits besides 0, 1 and 2 (`--pass-fd`).
    pub(crate) descriptors: Vec<RawFd>,
}

/// What `--pass-fd` names must be open.
pub(crate) fn refuse_closed_descriptor(fd: RawFd) -> Result<()> {
    if Path::new(&format!("/proc/self/fd/{fd}"))
        .symlink_metadata()
        .is_ok()
    {
        return Ok(());
    }
    Err(Error::new(
        Class::Usage,
        format!("--pass-fd {fd}: descriptor {fd} is not open"),
        "name one that the caller opened and did not mark close-on-exec (in a shell: `9<>FILE`)",
    ))
}

/// A descriptor that lies inside the export leads the client past the view (CVE-2024-21626's
/// class), whichever mount it was opened through.
pub(super) fn refuse_inherited_descriptors(
    handed_on: &[RawFd],
    view: &ViewPlan,
    table: &mounts::Table,
) -> Result<()> {
    let places = view.submounts.places(table);
    for fd in handed_on {
        if let Ok(target) = std::fs::read_link(format!("/proc/self/fd/{fd}"))
            && places.iter().any(|place| target.starts_with(place))
        {
            return Err(config(
                format!(
                    "descriptor {fd} is {}, inside export {}",
                    target.display(),
                    view.export.display()
                ),
                "redirect it elsewhere: it would lead the client past the view",
            ));
        }
    }
    Ok(())
}

/// A directory among the client's descriptors leads past every view, wherever it lies: names below
/// it, and `..` above it, are resolved in the mount namespace that it was opened in, the host's,
/// where no view covers anything and no `--isolate` holds.
pub(crate) fn refuse_inherited_directories(handed_on: &[RawFd]) -> Result<()> {
    // What is not open at all leads nowhere.
    let is_directory = |fd: &&RawFd| {
        std::fs::metadata(format!("/proc/self/fd/{fd}")).is_ok_and(|meta| meta.is_dir())
    };
    match handed_on.iter().find(is_directory) {
        None => Ok(()),
        Some(fd) => Err(config(
            format!("descriptor {fd} is a directory of the host"),
            "redirect it elsewhere (`</dev/null`): it would lead the client past the view",
        )),
    }
}

/// Whether a program is QEMU by its name.
pub(crate) fn is_qemu(program: &OsStr) -> bool {
    let name = Path::new(program).file_name();
    name.is_some_and(|name| name.as_bytes().starts_with(b"qemu"))
}

/// QEMU would write the number that its own pid namespace gives it, which means another process,
/// or none, to whoever reads it on the host.
pub(super) fn refuse_pidfile_of_qemu(argv: &[OsString]) -> Result<()> {
    let is_qemu = argv.first().is_some_and(|program| is_qemu(program));
    let named = argv
        .iter()
        .skip(1)
        .any(|arg| arg == "-pidfile" || arg == "--pidfile");
    if is_qemu && named {
        return Err(Error::new(
            Class::Usage,
            "QEMU's -pidfile would hold a number of its own pid namespace, not the host's",
            "use `virtfs-mediator run --pidfile FILE` instead",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn qemu_pidfile_is_refused_and_only_qemus() {
        let argv = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
        assert!(
            refuse_pidfile_of_qemu(&argv(&["/usr/bin/qemu-system-x86_64", "-pidfile", "x"]))
                .is_err()
        );
        assert!(refuse_pidfile_of_qemu(&argv(&["mydaemon", "-pidfile", "x"])).is_ok());
    }
}
