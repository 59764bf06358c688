//! Who asks: what the kernel says of a connection's other end, and of which domain it is the QEMU by
//! libvirt's own records. Of what the asker says itself nothing is believed.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::socket::{getsockopt, sockopt};
use rustix::process::{Pid, PidfdFlags};

use crate::control::rundir::Process;
use crate::error::{Class, Error, Result};
use crate::launch::inside::{Wall, Walls};
use crate::libvirt::armed::Armed;
use crate::sys;

/// Where libvirt's QEMU driver keeps its pid files; root's own.
const PID_FILES: &str = "/run/libvirt/qemu";

/// The other end of a connection, as the kernel knew it when it connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asker {
    pub(crate) pid: i32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl std::fmt::Display for Asker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "process {} of {}:{}", self.pid, self.uid, self.gid)
    }
}

impl Asker {
    /// # Errors
    ///
    /// Configuration: the errno of getsockopt(2).
    pub(crate) fn of(connection: &OwnedFd) -> Result<Self> {
        getsockopt(connection, sockopt::PeerCredentials)
            .map(|found| Self {
                pid: found.pid(),
                uid: found.uid(),
                gid: found.gid(),
            })
            .map_err(|errno| Error::step(Class::Configuration, "getsockopt(SO_PEERCRED)", errno))
    }

    /// A pidfd of the process that connected: by the kernel's own word, or, before Linux 6.5, by its
    /// number while it still holds its end.
    ///
    /// # Errors
    ///
    /// Configuration: it has ended.
    pub(crate) fn pidfd(&self, connection: &OwnedFd) -> Result<OwnedFd> {
        match sys::peer_pidfd(connection.as_fd()) {
            Ok(pidfd) => Ok(pidfd),
            Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => {
                self.pidfd_by_number(connection)
            }
            Err(error) => Err(refused(format!("it has ended ({error})"))),
        }
    }

    fn pidfd_by_number(&self, connection: &OwnedFd) -> Result<OwnedFd> {
        let gone = || refused("it has ended");
        let pid = Pid::from_raw(self.pid).ok_or_else(gone)?;
        let pidfd =
            rustix::process::pidfd_open(pid, PidfdFlags::empty()).map_err(|_errno| gone())?;
        // Had it ended before, and its number been given to another, its end would be closed.
        let mut fds = [PollFd::new(connection.as_fd(), PollFlags::empty())];
        match nix::poll::poll(&mut fds, PollTimeout::ZERO) {
            Ok(0) => Ok(pidfd),
            Ok(_) | Err(_) => Err(gone()),
        }
    }

    /// The one among the armed domains whose QEMU this is.
    ///
    /// # Errors
    ///
    /// Configuration: none, and why.
    pub(crate) fn domain<'a>(&self, armed: &'a [Armed], walls: Walls) -> Result<&'a Armed> {
        let mut why = refused("no domain with its user is about to start").cure(
            "nobody but libvirt starts this program; if it did (`virsh start`), its hook did not run: \
             virtfs-mediator doctor --libvirt",
        );
        for domain in armed.iter().filter(|domain| domain.uid == self.uid) {
            match self.verify(domain, walls) {
                Ok(()) => return Ok(domain),
                Err(error) => why = error,
            }
        }
        Err(why)
    }

    fn verify(&self, armed: &Armed, walls: Walls) -> Result<()> {
        let domain = &armed.file.domain;
        if self.gid != armed.gid {
            return Err(refused(format!(
                "domain '{domain}' runs with group {}",
                armed.gid
            )));
        }
        if !walls.has(Wall::Record) {
            return Ok(());
        }
        let recorded = read_pid(domain)?;
        if recorded != self.pid {
            return Err(refused(format!(
                "by libvirt's record process {recorded} is the QEMU of domain '{domain}'"
            )));
        }
        // A pid file that an earlier start left, and a process that was given its number.
        let process = Process::find(self.pid).ok_or_else(|| refused("it has ended"))?;
        if process.started < armed.since {
            return Err(refused(format!(
                "it started before domain '{domain}' was about to"
            )));
        }
        Ok(())
    }
}

/// The number in a domain's pid file.
fn read_pid(domain: &str) -> Result<i32> {
    let directory = Path::new(PID_FILES);
    let path: PathBuf = directory.join(format!("{domain}.pid"));
    let failed = |error: &dyn std::fmt::Display| refused(format!("{}: {error}", path.display()));
    let mut file = File::options()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(&path)
        .map_err(|error| failed(&error))?;
    for meta in [fs::symlink_metadata(directory), file.metadata()] {
        let meta = meta.map_err(|error| failed(&error))?;
        if meta.uid() != 0 || meta.mode() & 0o022 != 0 {
            return Err(failed(
                &"others than root may write to it or to its directory",
            ));
        }
    }
    let mut text = [0; 32];
    let count = file.read(&mut text).map_err(|error| failed(&error))?;
    std::str::from_utf8(text.get(..count).unwrap_or_default())
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .ok_or_else(|| failed(&"it holds no process id"))
}

fn refused(what: impl Into<String>) -> Error {
    Error::new(Class::Configuration, what, "")
}

#[cfg(test)]
mod tests {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

    use super::*;

    /// As kernels before Linux 6.5 have it done.
    #[test]
    fn pidfd_by_number_is_of_whoever_still_holds_its_end() {
        let flags = SockFlag::SOCK_CLOEXEC;
        let (here, there) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).unwrap();
        let who = Asker::of(&here).unwrap();
        assert_eq!(u32::try_from(who.pid), Ok(std::process::id()));
        for pidfd in [who.pidfd_by_number(&here), who.pidfd(&here)] {
            let pid = crate::kernel_view::fdinfo(&pidfd.unwrap(), "Pid").unwrap();
            assert_eq!(pid, who.pid.to_string());
        }
        drop(there);
        assert!(who.pidfd_by_number(&here).is_err());
        let nobody = Asker { pid: 0, ..who };
        assert!(nobody.pidfd_by_number(&here).is_err());
    }
}
