//! The mediator's end of the socket to its registrar.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use super::protocol::{ANSWER, Question, parse_answer};

/// A registrar that answers; none once it has failed to.
#[derive(Debug)]
pub(super) struct Registrar {
    /// Held from a question to its answer: there is one of each at a time.
    socket: Mutex<Option<OwnedFd>>,
}

/// Why a file was not registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failed {
    /// The registrar, or the kernel, said so.
    Refused(Errno),
    /// There is no registrar, or it has just turned out not to answer: why.
    Gone(Option<Errno>),
}

impl Registrar {
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self {
            socket: Mutex::new(Some(socket)),
        }
    }

    /// Registers a file.
    pub(super) fn open(&self, file: BorrowedFd<'_>) -> Result<u32, Failed> {
        let mut held = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(socket) = held.as_ref() else {
            return Err(Failed::Gone(None));
        };
        match ask(socket, file) {
            Ok(told) => told.map_err(Failed::Refused),
            Err(errno) => {
                // What it would answer later would be taken for another question's.
                *held = None;
                Err(Failed::Gone(Some(errno)))
            }
        }
    }

    /// Lets go of a file. Where the registrar is gone the kernel keeps it until the view ends.
    pub(super) fn close(&self, id: u32) {
        let mut held = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        let sent = held
            .as_ref()
            .map(|socket| send(socket, Question::Close(id), None));
        if let Some(Err(_)) = sent {
            *held = None;
        }
    }

    /// Nothing will be registered: the registrar sees the end of its socket, and ends.
    pub(super) fn dismiss(&self) {
        *self.socket.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

fn ask(socket: &OwnedFd, file: BorrowedFd<'_>) -> Result<Result<u32, Errno>, Errno> {
    send(socket, Question::Open, Some(file))?;
    let mut answer = [0; ANSWER];
    // Not recvmsg: no descriptor can come in by this way. The socket has a time limit (EAGAIN).
    let length = rustix::io::retry_on_intr(|| rustix::io::read(socket, &mut answer))?;
    let told = answer.get(..length).and_then(parse_answer);
    told.map(|told| told.map_err(Errno::from_raw_os_error))
        .ok_or(Errno::PROTO)
}

fn send(socket: &OwnedFd, question: Question, file: Option<BorrowedFd<'_>>) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut rights = SendAncillaryBuffer::new(&mut space);
    let files = file.as_slice();
    if !files.is_empty() && !rights.push(SendAncillaryMessage::ScmRights(files)) {
        return Err(Errno::MSGSIZE);
    }
    let bytes = question.to_bytes();
    rustix::io::retry_on_intr(|| {
        sendmsg(
            socket,
            &[IoSlice::new(&bytes)],
            &mut rights,
            SendFlags::NOSIGNAL,
        )
    })
    .map(drop)
}
