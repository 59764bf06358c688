//! Listings that the client's kernel holds, and when they are over.
//!
//! A directory that is read without OPENDIR is cached by the kernel (`fuse_readdir_cached`,
//! fs/fuse/readdir.c) until its mtime differs or its pages are dropped. The mtime alone does not
//! tell of every change that the host makes: two within one tick of the clock have the same (before
//! Linux 6.13), and whoever unpacks an archive sets it back. So where the host may change the
//! export, pages are dropped as soon as a name's lifetime is over. The attributes of what they list
//! end with them, and READDIRPLUS brings both back in fewer requests than one for each name.
//!
//! What readers left open here is closed by then too. The thread sleeps unless something was listed.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::ids::NodeId;

/// What was listed, in the order in which it ends.
#[derive(Debug)]
pub(super) struct Listings {
    state: Mutex<State>,
    changed: Condvar,
    lifetime: Duration,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<(Instant, NodeId)>,
    /// Those in the queue, and whether they were listed again since: what came later ends later.
    again: HashMap<NodeId, bool>,
    closed: bool,
}

impl Listings {
    pub(super) fn new(lifetime: Duration) -> Self {
        Self {
            state: Mutex::default(),
            changed: Condvar::new(),
            lifetime,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Part of a directory is about to be told.
    pub(super) fn told(&self, node: NodeId) {
        let mut state = self.state();
        if let Some(again) = state.again.get_mut(&node) {
            *again = true;
            return;
        }
        state.again.insert(node, false);
        state.put(node, Instant::now() + self.lifetime);
        if state.queue.len() == 1 {
            self.changed.notify_one();
        }
    }

    /// Ends listings on a thread of its own, since a notification may wait for a page that a
    /// request holds: until [`Listings::close`].
    pub(super) fn start(
        self: &Arc<Self>,
        mut end: impl FnMut(NodeId) + Send + 'static,
    ) -> io::Result<JoinHandle<()>> {
        let listings = Arc::clone(self);
        let thread = std::thread::Builder::new().name("listings".to_owned());
        thread.spawn(move || {
            while let Some(node) = listings.next() {
                end(node);
            }
        })
    }

    /// The connection has ended.
    pub(super) fn close(&self) {
        self.state().closed = true;
        self.changed.notify_one();
    }

    /// Waits for the next listing that is over; `None` at the end.
    fn next(&self) -> Option<NodeId> {
        let mut state = self.state();
        loop {
            if state.closed {
                return None;
            }
            let now = Instant::now();
            let first = state.queue.front().map(|(at, _)| *at);
            state = match first {
                Some(at) if at <= now => return state.take(now + self.lifetime),
                Some(at) => {
                    let wait = self.changed.wait_timeout(state, at.duration_since(now));
                    wait.unwrap_or_else(PoisonError::into_inner).0
                }
                None => {
                    let wait = self.changed.wait(state);
                    wait.unwrap_or_else(PoisonError::into_inner)
                }
            };
        }
    }
}

impl State {
    fn put(&mut self, node: NodeId, at: Instant) {
        self.queue.push_back((at, node));
    }

    /// Takes the first out; what was listed again ends once more, at `later`.
    fn take(&mut self, later: Instant) -> Option<NodeId> {
        let (_at, node) = self.queue.pop_front()?;
        if self.again.get(&node) == Some(&true) {
            self.again.insert(node, false);
            self.put(node, later);
        } else {
            self.again.remove(&node);
        }
        Some(node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(listings: &Arc<Listings>) -> (crossbeam_channel::Receiver<NodeId>, JoinHandle<()>) {
        let (tell, told) = crossbeam_channel::unbounded();
        let thread = listings.start(move |node| tell.send(node).unwrap());
        (told, thread.unwrap())
    }

    #[test]
    fn each_listing_ends_once_and_in_order() {
        let listings = Arc::new(Listings::new(Duration::from_millis(1)));
        let (ends, thread) = ended(&listings);
        for node in [7, 8, 9] {
            listings.told(NodeId(node));
        }
        let order: Vec<_> = ends.iter().take(3).collect();
        assert_eq!(order, [7, 8, 9].map(NodeId));
        listings.close();
        thread.join().unwrap();
        assert_eq!(ends.iter().count(), 0);
    }

    #[test]
    fn what_is_listed_again_before_its_end_ends_once_more() {
        let mut state = State::default();
        let listings = Listings::new(Duration::from_secs(3600));
        listings.told(NodeId(7));
        listings.told(NodeId(7));
        std::mem::swap(&mut state, &mut listings.state());
        let later = Instant::now();
        assert_eq!(state.take(later), Some(NodeId(7)));
        assert_eq!(state.take(later), Some(NodeId(7)));
        assert_eq!(state.take(later), None);
        assert!(state.again.is_empty());
    }

    #[test]
    fn waiting_for_a_listing_that_is_not_over_ends_with_the_connection() {
        let listings = Arc::new(Listings::new(Duration::from_secs(3600)));
        let (ends, thread) = ended(&listings);
        listings.told(NodeId(7));
        listings.close();
        thread.join().unwrap();
        assert_eq!(ends.iter().count(), 0);
    }
}
