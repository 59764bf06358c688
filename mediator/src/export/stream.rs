//! Directories that are read by their nodes alone: where each of their readers stands.
//!
//! Nothing tells when a reader begins or ends, so a stream is a guess at what is asked next, and
//! never needed for a right answer: whoever finds none has the directory opened and sought. A few
//! are kept, the one that is missed least goes first; they count as descriptors.
//!
//! A stream has read ahead, and some file systems give an open directory the entries of that moment
//! only (btrfs). So it must be younger than its reader, who may be another than the one who left it:
//! when one begins, what earlier ones left of the same directory is closed.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::attr::Identity;
use super::dir::Listing;
use crate::ids::NodeId;

/// Streams that are kept at the most.
const STREAMS_MAX: usize = 16;

/// An open directory, read up to some place. Whoever has it owns it: no two requests share one.
pub(super) struct Stream {
    pub(super) node: NodeId,
    /// The node's number may be another inode's by the time that it is put back.
    pub(super) identity: Identity,
    pub(super) fd: Arc<OwnedFd>,
    pub(super) listing: Listing,
}

/// Those that nobody reads right now, the latest last.
#[derive(Default)]
pub(super) struct Streams {
    idle: Vec<Stream>,
    /// How often a reader began, in any directory.
    begun: u64,
}

/// When a stream was taken or opened.
#[derive(Clone, Copy)]
pub(super) struct Ticket(u64);

impl Streams {
    pub(super) fn len(&self) -> usize {
        self.idle.len()
    }

    /// A reader begins; streams of that directory must go, and are returned.
    pub(super) fn begin(&mut self, node: NodeId) -> impl Iterator<Item = Stream> {
        self.begun = self.begun.wrapping_add(1);
        self.close(node)
    }

    /// The stream of a reader of `node` that goes on at `cookie`, if there is one.
    pub(super) fn take(&mut self, node: NodeId, cookie: u64) -> (Option<Stream>, Ticket) {
        let stands = |one: &Stream| one.node == node && one.listing.position() == cookie;
        let at = self.idle.iter().rposition(stands);
        (at.map(|at| self.idle.remove(at)), Ticket(self.begun))
    }

    /// Keeps a stream; the one that makes way for it is returned. That is itself if a reader began
    /// meanwhile: in which directory is not remembered.
    pub(super) fn put(&mut self, stream: Stream, ticket: Ticket) -> Option<Stream> {
        if ticket.0 != self.begun {
            return Some(stream);
        }
        self.idle.push(stream);
        (self.idle.len() > STREAMS_MAX).then(|| self.idle.remove(0))
    }

    /// The one that is missed least.
    pub(super) fn evict(&mut self) -> Option<Stream> {
        (!self.idle.is_empty()).then(|| self.idle.remove(0))
    }

    /// Takes out all streams of a node.
    pub(super) fn close(&mut self, node: NodeId) -> impl Iterator<Item = Stream> {
        self.idle.extract_if(.., move |one| one.node == node)
    }
}
