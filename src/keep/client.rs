//! The client as the keeper knows it: what its end is seen by, and what of it is the keeper's to end.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use nix::unistd::Pid;

use crate::error::{Class, Error, Result};
use crate::keep::End;
use crate::launch::child::Child;
use crate::launch::peer::Peer;

/// One of a start's clients.
pub(crate) enum Client {
    /// Ours, or none: pid 1 of the client's pid namespace stands for it.
    Init {
        init: Child,
        /// A byte lets the client start.
        go: OwnedFd,
        /// The client's exit status, one byte; it hangs up if the init is killed.
        end: OwnedFd,
        /// It starts a command.
        command: bool,
    },
    /// Somebody else's, by its pidfd. It is watched, and never signalled.
    Peer(OwnedFd),
}

impl Client {
    /// # Errors
    ///
    /// Confinement: the errno of fcntl(2).
    pub(crate) fn of_peer(peer: &Peer) -> Result<Self> {
        peer.pidfd
            .try_clone()
            .map(Self::Peer)
            .map_err(|error| Error::step(Class::Confinement, "fcntl(F_DUPFD)", error))
    }

    /// Lets it start, if that is ours to say.
    pub(super) fn go(&self) -> Result<()> {
        match self {
            Self::Init { go, .. } => nix::unistd::write(go, b"g")
                .map(|_one| ())
                .map_err(|errno| Error::step(Class::Confinement, "write(pipe)", errno)),
            Self::Peer(_) => Ok(()),
        }
    }

    /// Readable once it has ended.
    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Init { end, .. } => end.as_fd(),
            Self::Peer(pidfd) => pidfd.as_fd(),
        }
    }

    /// How it ended; called when [`Client::as_fd`] is readable.
    pub(super) fn ended(&self) -> Option<End> {
        match self {
            Self::Init { end, .. } => {
                let mut status = [0u8];
                match nix::unistd::read(end, &mut status) {
                    Ok(1) => Some(End::Client(Some(status[0]))),
                    Ok(_) => Some(End::Client(None)),
                    Err(_) => None,
                }
            }
            // Its status is its parent's to know.
            Self::Peer(_) => Some(End::Client(Some(0))),
        }
    }

    /// Ends what is ours of it; the init's exit status.
    pub(super) fn end(&self) -> Option<u8> {
        match self {
            Self::Init { init, .. } => init.end(),
            Self::Peer(_) => None,
        }
    }

    /// Its init's number, if it has one.
    pub(super) fn init(&self) -> Option<Pid> {
        match self {
            Self::Init { init, .. } => Some(init.pid()),
            Self::Peer(_) => None,
        }
    }

    /// Whether a command of ours is killed with the view.
    pub(super) fn is_command(&self) -> bool {
        matches!(self, Self::Init { command: true, .. })
    }

    /// Whether somebody uses the view from its start, so that to lose it is a fault.
    pub(super) fn is_there(&self) -> bool {
        self.is_command() || self.is_peer()
    }

    /// Whether it is somebody else's.
    pub(super) fn is_peer(&self) -> bool {
        matches!(self, Self::Peer(_))
    }
}
