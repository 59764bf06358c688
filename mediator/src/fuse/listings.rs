//! Listings that the client's kernel holds, and when they are over.
//!
//! A directory that is read without OPENDIR is cached by the kernel (`fuse_readdir_cached`,
//! fs/fuse/readdir.c) until its mtime or version differs or its pages are dropped. That is not
//! enough, for two reasons.
//!
//! The mtime does not tell of every change that the host makes: two within one tick of the clock
//! have the same (before Linux 6.13), and whoever unpacks an archive sets it back. So where the host
//! may change the export, pages are dropped after a while. READDIRPLUS brings names and attributes
//! back in fewer requests than one for each name, whose time is over by then too.
//!
//! And it is looked at only when a reader begins: one that began after a change, and was answered by
//! us, goes on in a cache that another has filled since he began, which may have been before the
//! change. So a change through the view drops the directory's pages before it is answered. The
//! directory's lock, which the kernel holds for the change, keeps every reader out meanwhile: nobody
//! holds a page that the notification would wait for.
//!
//! What readers left open here is closed at the same times. The thread sleeps unless something was
//! listed.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::ids::NodeId;

/// Directories whose pages the kernel may hold at once; then all are dropped.
const HELD_MAX: usize = 65_536;

/// What was listed, in the order in which it ends.
#[derive(Debug)]
pub(super) struct Listings {
    state: Mutex<State>,
    changed: Condvar,
    lifetime: Duration,
    /// Pages are dropped when the time is over, not only what readers left here.
    drops: bool,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<(Instant, NodeId)>,
    /// Those in the queue, and whether they were listed again since: what came later ends later.
    again: HashMap<NodeId, bool>,
    /// Of which the kernel may hold pages.
    held: HashSet<NodeId>,
    closed: bool,
}

/// What is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    /// What readers left open of a directory.
    Streams(NodeId),
    /// That, and its pages.
    Pages(NodeId),
}

impl Listings {
    /// `drops`: the pages of what was listed are over after `lifetime` too.
    pub(super) fn new(lifetime: Duration, drops: bool) -> Self {
        Self {
            state: Mutex::default(),
            changed: Condvar::new(),
            lifetime,
            drops,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A directory is about to be changed in the eyes of its kernel; whether that holds pages of it.
    pub(super) fn changes(&self, node: NodeId) -> bool {
        self.state().held.remove(&node)
    }

    /// Part of a directory is about to be told.
    pub(super) fn told(&self, node: NodeId) {
        let mut state = self.state();
        state.held.insert(node);
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
        mut end: impl FnMut(Over) + Send + 'static,
    ) -> io::Result<JoinHandle<()>> {
        let listings = Arc::clone(self);
        let thread = std::thread::Builder::new().name("listings".to_owned());
        thread.spawn(move || {
            while let Some(over) = listings.next() {
                over.into_iter().for_each(&mut end);
            }
        })
    }

    /// The connection has ended.
    pub(super) fn close(&self) {
        self.state().closed = true;
        self.changed.notify_one();
    }

    /// Waits for the next listing that is over; `None` at the end.
    fn next(&self) -> Option<Vec<Over>> {
        let mut state = self.state();
        loop {
            if state.closed {
                return None;
            }
            let now = Instant::now();
            let first = state.queue.front().map(|(at, _)| *at);
            state = match first {
                Some(at) if at <= now => return Some(state.take(now + self.lifetime, self.drops)),
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

    /// Takes the first out; what was listed again ends once more, at `later`. No page is counted as
    /// held any more before it is dropped: what is listed from then on counts anew.
    fn take(&mut self, later: Instant, drops: bool) -> Vec<Over> {
        let Some((_at, node)) = self.queue.pop_front() else {
            return Vec::new();
        };
        if self.again.get(&node) == Some(&true) {
            self.again.insert(node, false);
            self.put(node, later);
        } else {
            self.again.remove(&node);
        }
        if drops {
            self.held.remove(&node);
            return vec![Over::Pages(node)];
        }
        if self.held.len() > HELD_MAX {
            return self.held.drain().map(Over::Pages).collect();
        }
        vec![Over::Streams(node)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(listings: &Arc<Listings>) -> (crossbeam_channel::Receiver<Over>, JoinHandle<()>) {
        let (tell, told) = crossbeam_channel::unbounded();
        let thread = listings.start(move |over| tell.send(over).unwrap());
        (told, thread.unwrap())
    }

    #[test]
    fn each_listing_ends_once_and_in_order() {
        let listings = Arc::new(Listings::new(Duration::from_millis(1), true));
        let (ends, thread) = ended(&listings);
        let nodes = [7, 8, 9].map(NodeId);
        nodes.iter().for_each(|node| listings.told(*node));
        let order: Vec<_> = ends.iter().take(3).collect();
        assert_eq!(order, nodes.map(Over::Pages));
        listings.close();
        thread.join().unwrap();
        assert_eq!(ends.iter().count(), 0);
    }

    #[test]
    fn what_is_listed_again_before_its_end_ends_once_more() {
        let listings = Listings::new(Duration::from_secs(3600), true);
        listings.told(NodeId(7));
        listings.told(NodeId(7));
        let mut state = listings.state();
        let later = Instant::now();
        for _ in 0..2 {
            assert_eq!(state.take(later, true), [Over::Pages(NodeId(7))]);
        }
        assert_eq!(state.take(later, true), []);
        assert!(state.again.is_empty());
    }

    #[test]
    fn pages_are_dropped_at_a_change_if_there_may_be_any() {
        let listings = Listings::new(Duration::from_secs(3600), false);
        assert!(!listings.changes(NodeId(7)));
        listings.told(NodeId(7));
        // The time of a place that a reader left is over, that of the pages is not.
        let over = listings.state().take(Instant::now(), false);
        assert_eq!(over, [Over::Streams(NodeId(7))]);
        assert!(listings.changes(NodeId(7)));
        assert!(!listings.changes(NodeId(7)), "dropped by now");
    }

    #[test]
    fn more_directories_than_are_counted_are_all_dropped() {
        let listings = Listings::new(Duration::from_secs(3600), false);
        let count = u64::try_from(HELD_MAX).unwrap() + 1;
        (0..count).for_each(|node| listings.told(NodeId(node)));
        let over = listings.state().take(Instant::now(), false);
        assert_eq!(over.len(), HELD_MAX + 1);
        assert!(over.iter().all(|over| matches!(over, Over::Pages(_))));
        assert!(!listings.changes(NodeId(7)));
    }

    #[test]
    fn waiting_for_a_listing_that_is_not_over_ends_with_the_connection() {
        let listings = Arc::new(Listings::new(Duration::from_secs(3600), true));
        let (ends, thread) = ended(&listings);
        listings.told(NodeId(7));
        listings.close();
        thread.join().unwrap();
        assert_eq!(ends.iter().count(), 0);
    }
}
