//! What the processes of a start tell the launcher. Only our own code writes here: the mediator
//! gives its end up before it serves, and the client never has one.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg,
    sendmsg, socketpair,
};
use serde::{Deserialize, Serialize};

use crate::error::{Class, Error, Result};
use crate::sys;

/// The most bytes of a message: a view's numbers take some forty, and a start may have many views.
const LONGEST: usize = 16 * 1024;

/// One message.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Report {
    /// A mediator stands behind its walls; told before it reads anything that a client chose.
    Walls { view: String, found: Found },
    /// Every view answers. Process ids as the host numbers them.
    Ready {
        /// The client's, if it is ours to start.
        init: Option<i32>,
        wardens: Vec<i32>,
        /// Of views that have one.
        registrars: Vec<Option<i32>>,
        /// Ids of the views' mounts.
        mounts: Vec<u64>,
    },
    /// The client runs; a pidfd comes along.
    ClientStarted,
    /// The client's first process ended well and left others behind: it went to the background.
    Background,
    /// A view ended before its client did; `cause` says why.
    Ended { cause: String },
    /// A start failed.
    Failed { status: u8, what: String },
}

/// What a mediator found when it read back those of its walls that /proc does not show.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Found {
    pub(crate) landlock: Landlock,
    /// The securebits are set and locked.
    pub(crate) securebits_locked: bool,
    /// Walls that this kernel lacks, each in words.
    pub(crate) missing: Vec<String>,
}

/// Landlock as a mediator found it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Landlock {
    /// Not asked for.
    #[default]
    Unasked,
    /// Enforced, with rights up to this ABI; a directory outside was tried and did not open.
    Enforced(i32),
    /// Too old to be used.
    Old(i32),
    /// The kernel has none: its words.
    Absent(String),
}

impl Landlock {
    /// What an older Landlock does not restrict, although a newer one would.
    pub(crate) fn lacks(abi: i32) -> Vec<&'static str> {
        const SINCE: [(i32, &str); 4] = [
            (3, "truncation"),
            (4, "TCP ports"),
            (5, "device ioctls"),
            (6, "abstract sockets and signals"),
        ];
        let lacking = SINCE.iter().filter(|(since, _)| abi < *since);
        lacking.map(|(_, what)| *what).collect()
    }

    /// Why the wall is missing, if it is.
    pub(crate) fn missing(&self) -> Option<String> {
        match self {
            Self::Unasked | Self::Enforced(_) => None,
            Self::Old(abi) => Some(format!(
                "Landlock: this kernel's ABI {abi} refuses every rename between directories, so it \
                 is not used"
            )),
            Self::Absent(why) => Some(format!("Landlock: {why} (boot with lsm=landlock,...)")),
        }
    }
}

/// The sending end.
#[derive(Debug)]
pub(crate) struct Reporter(OwnedFd);

/// The receiving end.
#[derive(Debug)]
pub(crate) struct Reports(OwnedFd);

/// A new channel; datagrams, so that several senders do not mix.
pub(crate) fn channel() -> Result<(Reporter, Reports)> {
    let flags = SockFlag::SOCK_CLOEXEC;
    socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)
        .map(|(tx, rx)| (Reporter(tx), Reports(rx)))
        .map_err(|errno| Error::step(Class::Confinement, "socketpair(AF_UNIX)", errno))
}

impl Reporter {
    /// Tells the launcher; if it is gone, there is nobody to tell.
    pub(crate) fn send(&self, report: &Report, fd: Option<BorrowedFd<'_>>) {
        let Ok(text) = serde_json::to_vec(report) else {
            return;
        };
        let fds: Vec<RawFd> = fd.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&fds)];
        let rights = if fds.is_empty() {
            &rights[..0]
        } else {
            &rights[..]
        };
        let sent = sendmsg::<()>(
            self.0.as_raw_fd(),
            &[IoSlice::new(&text)],
            rights,
            MsgFlags::MSG_NOSIGNAL,
            None,
        );
        if let Err(errno) = sent {
            tracing::debug!(%errno, "the launcher is gone");
        }
    }

    /// Tells of a failure.
    pub(crate) fn fail(&self, error: &Error) {
        let report = Report::Failed {
            status: error.class().status(),
            what: error.to_string(),
        };
        self.send(&report, None);
    }
}

impl AsRawFd for Reporter {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl Reports {
    /// The next message; `None` when every sender is gone.
    pub(crate) fn next(&self) -> Option<(Report, Option<OwnedFd>)> {
        let mut text = [0u8; LONGEST];
        let mut space = nix::cmsg_space!(RawFd);
        let (len, fd) = {
            let mut parts = [IoSliceMut::new(&mut text)];
            let flags = MsgFlags::MSG_CMSG_CLOEXEC;
            let message =
                recvmsg::<()>(self.0.as_raw_fd(), &mut parts, Some(&mut space), flags).ok()?;
            let fd = message.cmsgs().ok()?.find_map(|part| {
                let ControlMessageOwned::ScmRights(fds) = part else {
                    return None;
                };
                fds.first().copied().map(sys::own)
            });
            (message.bytes, fd)
        };
        if len == 0 {
            return None;
        }
        serde_json::from_slice(text.get(..len)?)
            .ok()
            .map(|report| (report, fd))
    }

    /// For poll(2).
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        std::os::fd::AsFd::as_fd(&self.0)
    }
}
