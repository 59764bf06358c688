//! The socket that the service listens on: systemd's, or one of its own.

use std::fs;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, getsockopt, listen, socket, sockopt,
};

use crate::error::{Class, Error, Result};
use crate::sys;

/// A listening socket; what it bound itself is removed when it goes.
pub(crate) struct Listening {
    pub(crate) fd: OwnedFd,
    bound: Option<PathBuf>,
}

impl Listening {
    /// The socket that systemd hands over, else one at `path`.
    ///
    /// # Errors
    ///
    /// Usage: systemd's is none of the right kind. Configuration: somebody listens at `path`, or it
    /// cannot be made.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let handed: Vec<RawFd> = sd_notify::listen_fds()
            .map(Iterator::collect)
            .map_err(|error| Error::step(Class::Usage, "LISTEN_FDS", error))?;
        match handed.as_slice() {
            [] => Self::bind(path),
            [one] => {
                let fd = sys::own(*one);
                verify_kind(&fd)?;
                Ok(Self { fd, bound: None })
            }
            more => Err(Error::new(
                Class::Usage,
                format!("systemd hands over {} sockets, not one", more.len()),
                "name one ListenSequentialPacket= in the socket unit",
            )),
        }
    }

    fn bind(path: &Path) -> Result<Self> {
        let failed = |error: &dyn std::fmt::Display| {
            let what = format!("--socket {}: {error}", path.display());
            Error::new(
                Class::Configuration,
                what,
                "name a place that root alone can write to",
            )
        };
        let fd = new_socket().map_err(|errno| failed(&errno))?;
        let address = UnixAddr::new(path).map_err(|errno| failed(&errno))?;
        remove_dead(path)?;
        bind(fd.as_raw_fd(), &address).map_err(|errno| failed(&errno))?;
        let listening = Self {
            fd,
            bound: Some(path.to_owned()),
        };
        // Who may attach is decided by who asks.
        fs::set_permissions(path, fs::Permissions::from_mode(0o666))
            .map_err(|error| failed(&error))?;
        listen(&listening.fd, Backlog::MAXCONN).map_err(|errno| failed(&errno))?;
        Ok(listening)
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        if let Some(path) = &self.bound {
            let _may_be_gone = fs::remove_file(path);
        }
    }
}

fn new_socket() -> nix::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)
}

fn verify_kind(fd: &OwnedFd) -> Result<()> {
    let kind = getsockopt(fd, sockopt::SockType);
    let listens = getsockopt(fd, sockopt::AcceptConn).unwrap_or(false);
    if kind != Ok(SockType::SeqPacket) || !listens {
        return Err(Error::new(
            Class::Usage,
            "what systemd hands over is no listening SOCK_SEQPACKET socket",
            "the socket unit needs ListenSequentialPacket=, and Accept=no",
        ));
    }
    rustix::io::ioctl_fionbio(fd, true)
        .map_err(|errno| Error::step(Class::Usage, "ioctl(FIONBIO)", errno))
}

/// Removes a socket that nobody listens on.
fn remove_dead(path: &Path) -> Result<()> {
    let Ok(meta) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    let taken = |what: &str| {
        let what = format!("--socket {}: {what}", path.display());
        Error::new(
            Class::Configuration,
            what,
            "end the other service, or choose another place",
        )
    };
    if !meta.file_type().is_socket() {
        return Err(taken("something else is there"));
    }
    let probe = new_socket().map_err(|errno| taken(errno.desc()))?;
    let address = UnixAddr::new(path).map_err(|errno| taken(errno.desc()))?;
    match nix::sys::socket::connect(probe.as_raw_fd(), &address) {
        Err(nix::errno::Errno::ECONNREFUSED) => {
            fs::remove_file(path).map_err(|error| taken(&error.to_string()))
        }
        _ => Err(taken("a service listens there already")),
    }
}
