//! Nodes, descriptors and handles under one lock. Nothing here makes a system call, and what must
//! be closed is put aside for whoever holds the lock to close after it.

use std::collections::HashMap;
use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::io::Errno;

use super::attr::{Identity, Seen};
use super::descriptor::{Descriptors, Gone, NONE, Worth};
use super::handle::{Handle, Handles};
use super::node::{Nodes, ROOT};
use super::stream::{Stream, Streams, Ticket};
use crate::ids::{HandleId, NodeId};

/// Descriptors left for what is open only during a request.
const IN_FLIGHT: usize = 16;
/// The least that is left for nodes, however many handles are open.
const FOR_NODES: usize = 16;

/// All that is known.
pub(super) struct Table {
    pub(super) nodes: Nodes,
    descriptors: Descriptors,
    handles: Handles,
    /// The open handles' descriptors by node, to serve it through them.
    open: HashMap<u32, Vec<Arc<Handle>>>,
    streams: Streams,
    root: Arc<OwnedFd>,
    limit: usize,
    dead: Vec<Arc<OwnedFd>>,
}

/// Descriptors for nodes and open handles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DescriptorUse {
    /// How many are held.
    pub held: usize,
    /// How many may be held; a few more are open during requests.
    pub budget: usize,
}

/// One component on the way to a node whose descriptor was given up.
pub(super) struct Step {
    pub(super) node: NodeId,
    pub(super) identity: Identity,
    pub(super) name: CString,
}

/// From a descriptor that is open to a node that has none.
pub(super) struct Route {
    pub(super) start: Arc<OwnedFd>,
    pub(super) steps: Vec<Step>,
}

impl Table {
    pub(super) fn new(root: Arc<OwnedFd>, identity: &Identity, max_descriptors: usize) -> Self {
        Self {
            nodes: Nodes::new(identity),
            descriptors: Descriptors::default(),
            handles: Handles::default(),
            open: HashMap::new(),
            streams: Streams::default(),
            root,
            limit: max_descriptors.saturating_sub(IN_FLIGHT).max(2 * FOR_NODES),
            dead: Vec::new(),
        }
    }

    /// Descriptors that left the table, to be closed when the lock is released.
    pub(super) fn take_dead(&mut self) -> Vec<Arc<OwnedFd>> {
        std::mem::take(&mut self.dead)
    }

    pub(super) fn slot(&self, node: NodeId) -> Result<u32, Errno> {
        self.nodes.slot(node).ok_or(Errno::STALE)
    }

    /// Every open file and directory.
    pub(super) fn handles(&self) -> impl Iterator<Item = &Arc<Handle>> {
        self.handles.all()
    }

    pub(super) fn open_handles(&self) -> usize {
        self.handles.len()
    }

    /// What is held of the budget, and the budget.
    pub(super) fn descriptor_use(&self) -> DescriptorUse {
        DescriptorUse {
            held: self.held(),
            budget: self.limit,
        }
    }

    fn held(&self) -> usize {
        self.descriptors.len() + self.handles.len() + self.streams.len()
    }

    #[cfg(test)]
    pub(super) fn held_descriptors(&self) -> usize {
        self.descriptors.len()
    }

    /// A descriptor of the node that is open right now.
    pub(super) fn descriptor(&mut self, slot: u32) -> Option<Arc<OwnedFd>> {
        if slot == ROOT {
            return Some(self.root.clone());
        }
        self.descriptors
            .touch(self.nodes.descriptor(slot))
            .or_else(|| Some(self.open.get(&slot)?.first()?.fd.clone()))
    }

    /// Keeps a descriptor of a node; one that it already has stays.
    pub(super) fn hold(&mut self, slot: u32, fd: Arc<OwnedFd>) {
        if slot == ROOT || self.nodes.descriptor(slot) != NONE {
            self.dead.push(fd);
            return;
        }
        if let Some(index) = self.descriptors.insert(slot, fd) {
            self.nodes.set_descriptor(slot, index);
        }
        self.shrink();
    }

    fn shrink(&mut self) {
        while self.held() > self.limit {
            // Dear to open again only if its reader comes back, which nobody knows.
            if let Some(stream) = self.streams.evict() {
                self.dead.push(stream.fd);
                continue;
            }
            let nodes = &self.nodes;
            let Some(gone) = self.descriptors.evict(|slot| nodes.worth(slot)) else {
                return;
            };
            self.gone(gone);
        }
    }

    fn gone(&mut self, gone: Gone) {
        self.nodes.set_descriptor(gone.slot, NONE);
        if let Some((slot, index)) = gone.moved {
            self.nodes.set_descriptor(slot, index);
        }
        self.dead.push(gone.fd);
    }

    /// The inode is known by this name from now on, and the kernel by one lookup more.
    pub(super) fn enter(
        &mut self,
        seen: &Seen,
        submount: bool,
        parent: NodeId,
        name: &[u8],
        fd: Option<Arc<OwnedFd>>,
    ) -> Result<u32, Errno> {
        let entered = self
            .slot(parent)
            .and_then(|parent| self.nodes.enter(seen, submount, parent, name));
        if let Ok(slot) = entered {
            self.nodes.count_lookup(slot);
        }
        match (entered, fd) {
            (Ok(slot), Some(fd)) => self.hold(slot, fd),
            (Err(_), Some(fd)) => self.dead.push(fd),
            (_, None) => {}
        }
        entered
    }

    pub(super) fn forget(&mut self, node: NodeId, count: u64) {
        if let Some(slot) = self.nodes.slot(node) {
            self.nodes.forget(slot, count);
            self.collect(slot);
        }
    }

    /// Drops the records that nothing but a name below them kept.
    pub(super) fn sweep(&mut self) {
        let left = self.nodes.take_left();
        self.collect_all(left);
    }

    /// Drops a record that nobody needs, and those above that it alone kept.
    fn collect(&mut self, slot: u32) {
        if self.nodes.is_unused(slot) {
            self.collect_all(vec![slot]);
        }
    }

    fn collect_all(&mut self, mut maybe: Vec<u32>) {
        while let Some(slot) = maybe.pop() {
            if !self.nodes.is_unused(slot) {
                continue;
            }
            let node = self.nodes.id(slot);
            let Some((parents, descriptor)) = self.nodes.remove_unused(slot) else {
                continue;
            };
            self.close_streams(node);
            if let Some(gone) = self.descriptors.remove(descriptor) {
                if let Some((slot, index)) = gone.moved {
                    self.nodes.set_descriptor(slot, index);
                }
                self.dead.push(gone.fd);
            }
            maybe.extend(parents);
        }
    }

    /// The way to a node by its name number `which`; `None` if that name is gone.
    pub(super) fn route(&mut self, slot: u32, which: usize) -> Option<Route> {
        let mut steps = Vec::new();
        let (mut at, mut which) = (slot, which);
        loop {
            let (parent, name) = self.nodes.nth_name(at, which)?;
            steps.push(Step {
                node: self.nodes.id(at),
                identity: self.nodes.identity(at),
                name: CString::new(name).ok()?,
            });
            if let Some(start) = self.descriptor(parent) {
                steps.reverse();
                return Some(Route { start, steps });
            }
            (at, which) = (parent, 0);
        }
    }

    /// The stream of a reader of `node` that comes with `cookie`, if there is one. With cookie 0 it
    /// begins.
    pub(super) fn take_stream(&mut self, node: NodeId, cookie: u64) -> (Option<Stream>, Ticket) {
        if cookie == 0 {
            let left = self.streams.begin(node).map(|stream| stream.fd);
            self.dead.extend(left);
        }
        self.streams.take(node, cookie)
    }

    /// Keeps a stream for its reader, unless its node is known no more.
    pub(super) fn keep_stream(&mut self, stream: Stream, ticket: Ticket) {
        let slot = self.nodes.slot(stream.node);
        let lives = slot.is_some_and(|slot| self.nodes.identity(slot) == stream.identity);
        let gone = if lives {
            self.streams.put(stream, ticket)
        } else {
            Some(stream)
        };
        self.dead.extend(gone.map(|stream| stream.fd));
        self.shrink();
    }

    /// Closes what readers of a node left.
    pub(super) fn close_streams(&mut self, node: NodeId) {
        let closed = self.streams.close(node).map(|stream| stream.fd);
        self.dead.extend(closed);
    }

    /// ENFILE when the budget is spent on handles.
    pub(super) fn open(&mut self, handle: Handle) -> Result<HandleId, Errno> {
        let fd = handle.fd.clone();
        self.keep(handle).inspect_err(|_refused| self.dead.push(fd))
    }

    /// ENFILE when one more handle would leave too little for nodes.
    pub(super) fn room_for_handle(&self) -> Result<(), Errno> {
        let kept = self.handles.len() + self.nodes.nameless();
        if kept + FOR_NODES >= self.limit {
            return Err(Errno::NFILE);
        }
        Ok(())
    }

    /// ENFILE when the file that a node is may not lose its last name: the descriptor of one that is
    /// known cannot be had again, so these may not take more than half, nor what is left to names.
    pub(super) fn room_for_nameless(&self, identity: &Identity) -> Result<(), Errno> {
        let Some(slot) = self.nodes.find(identity) else {
            return Ok(());
        };
        let nameless = self.nodes.nameless();
        let full = nameless >= self.limit / 2
            || self.handles.len() + nameless + FOR_NODES / 2 >= self.limit;
        // An open handle is such a descriptor, and is counted.
        if full && self.nodes.names(slot) == 1 && !self.open.contains_key(&slot) {
            return Err(Errno::NFILE);
        }
        Ok(())
    }

    fn keep(&mut self, handle: Handle) -> Result<HandleId, Errno> {
        let slot = self.slot(handle.node)?;
        self.room_for_handle()?;
        let handle = Arc::new(handle);
        let id = self.handles.insert(handle.clone())?;
        self.open.entry(slot).or_default().push(handle);
        self.nodes.count_handle(slot, true);
        self.shrink();
        Ok(id)
    }

    pub(super) fn handle(&self, id: HandleId) -> Result<Arc<Handle>, Errno> {
        self.handles.get(id).cloned()
    }

    /// Another open file of the same node that may be written anywhere.
    pub(super) fn other_writer(&self, handle: &Handle) -> Option<Arc<Handle>> {
        let slot = self.nodes.slot(handle.node)?;
        let mut others = self.open.get(&slot)?.iter();
        let other = others.find(|other| !other.append_only && other.writable().is_ok());
        other.cloned()
    }

    /// An open file of a node, or an open directory.
    pub(super) fn open_of(&self, node: NodeId) -> Option<Arc<Handle>> {
        self.open.get(&self.nodes.slot(node)?)?.first().cloned()
    }

    /// A released handle is returned to be closed without the lock.
    pub(super) fn release(&mut self, id: HandleId) -> Option<Arc<Handle>> {
        let handle = self.handles.remove(id)?;
        // The record outlives its handles, so that its slot is still its own.
        let slot = self.nodes.slot(handle.node)?;
        if let Some(open) = self.open.get_mut(&slot) {
            open.retain(|other| !Arc::ptr_eq(other, &handle));
            if open.is_empty() {
                self.open.remove(&slot);
            }
        }
        self.nodes.count_handle(slot, false);
        self.collect(slot);
        // It may have been the last that leads to a file without a name.
        let known = self.nodes.slot(handle.node) == Some(slot);
        if known && self.nodes.worth(slot) == Worth::Last {
            self.hold(slot, handle.fd.clone());
        }
        Some(handle)
    }
}
