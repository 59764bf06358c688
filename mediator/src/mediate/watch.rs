//! Those who watch decisions go by: traces and recordings. They cost nothing while there are none,
//! and a worker never waits for them: what does not fit is counted.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::event::Event;
use super::select::Selection;

/// Events that may wait for one watcher.
const QUEUE: usize = 16 * 1024;

struct Watcher {
    selection: Selection,
    events: Sender<Event>,
    dropped: Arc<AtomicU64>,
}

/// All who watch.
pub(super) struct Watchers {
    any: AtomicBool,
    /// `None`: the view has ended.
    list: Mutex<Option<Vec<Watcher>>>,
}

impl Default for Watchers {
    fn default() -> Self {
        Self {
            any: AtomicBool::new(false),
            list: Mutex::new(Some(Vec::new())),
        }
    }
}

impl std::fmt::Debug for Watchers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watchers").field("any", &self.any).finish()
    }
}

/// One watcher's end; it stops to watch when this is dropped.
#[derive(Debug)]
pub struct Watch {
    /// The decisions that were selected, in the order in which their requests ended.
    pub events: Receiver<Event>,
    dropped: Arc<AtomicU64>,
}

impl Watch {
    /// Events that came faster than they were taken, since the start.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

impl Watchers {
    pub(super) fn add(&self, selection: Selection) -> Watch {
        let (events, receiver) = bounded(QUEUE);
        let dropped = Arc::new(AtomicU64::new(0));
        let watcher = Watcher {
            selection,
            events,
            dropped: Arc::clone(&dropped),
        };
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(list) = &mut *list {
            list.push(watcher);
            self.any.store(true, Ordering::Relaxed);
        }
        Watch {
            events: receiver,
            dropped,
        }
    }

    /// The view has ended: everybody stops to watch.
    pub(super) fn close(&self) {
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        *list = None;
        self.any.store(false, Ordering::Relaxed);
    }

    /// Whether anybody watches. Relaxed: who just came misses a request that has begun.
    pub(super) fn any(&self) -> bool {
        self.any.load(Ordering::Relaxed)
    }

    pub(super) fn tell(&self, event: &Event) {
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(list) = &mut *list else { return };
        list.retain(|watcher| {
            if !watcher.selection.takes(&event.decision) {
                return true;
            }
            match watcher.events.try_send(event.clone()) {
                Ok(()) => true,
                Err(crossbeam_channel::TrySendError::Full(_)) => {
                    watcher.dropped.fetch_add(1, Ordering::Relaxed);
                    true
                }
                Err(crossbeam_channel::TrySendError::Disconnected(_)) => false,
            }
        });
        self.any.store(!list.is_empty(), Ordering::Relaxed);
    }
}
