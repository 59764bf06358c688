//! Room on a full disk. The blocks of a file that lost its last name are free once its descriptor is
//! closed, which is when the client's kernel forgets the file: it says so soon, but behind the answer
//! to the unlink and perhaps behind the next request. Who makes room and uses it at once must not be
//! told that there is none.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::Export;
use crate::ids::NodeId;

/// How long a kernel may take to forget; it takes microseconds when it is not busy.
const SOON: Duration = Duration::from_millis(100);
/// So many are remembered: the oldest are forgotten or are open for longer.
const MOST: usize = 64;

/// The files that lost their last name just now.
#[derive(Default)]
pub(super) struct Leaving {
    files: Mutex<VecDeque<(NodeId, Instant)>>,
    forgotten: Condvar,
    /// Held by the one request that waits: another thread must serve what it waits for.
    waiting: Mutex<()>,
    /// Whether one does: a call of the system's for each closed file, otherwise.
    awaited: AtomicBool,
}

impl Leaving {
    fn note(&self, node: NodeId) {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        if files.len() == MOST {
            files.pop_front();
        }
        files.push_back((node, Instant::now()));
    }

    /// A node was forgotten or a handle closed.
    fn changed(&self) {
        if self.awaited.load(Ordering::SeqCst) {
            self.forgotten.notify_all();
        }
    }
}

impl Export {
    /// A file that is known has no name left.
    pub(super) fn leaves(&self, node: NodeId) {
        self.leaving.note(node);
    }

    /// What holds a file that has no name may be closed by now.
    pub(super) fn may_have_left(&self) {
        self.leaving.changed();
    }

    /// Makes a call that needs room; once more, if there was none and a file went meanwhile.
    pub(super) fn with_room<T>(&self, call: impl Fn() -> Result<T, Errno>) -> Result<T, Errno> {
        match call() {
            Err(Errno::NOSPC | Errno::DQUOT) if self.room_was_made() => call(),
            result => result,
        }
    }

    /// Waits for files that are leaving; whether there were any.
    fn room_was_made(&self) -> bool {
        let Ok(_alone) = self.leaving.waiting.try_lock() else {
            return false;
        };
        self.leaving.awaited.store(true, Ordering::SeqCst);
        let made = self.await_leaving();
        self.leaving.awaited.store(false, Ordering::SeqCst);
        made
    }

    fn await_leaving(&self) -> bool {
        let (mut any, mut waited) = (false, false);
        let files = &self.leaving.files;
        let mut files = files.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            // Never the table's lock inside this one.
            let pending: Vec<_> = files.drain(..).collect();
            drop(files);
            any |= !pending.is_empty();
            let still = self.with(|table| {
                let stays = |(node, since): &(NodeId, Instant)| {
                    since.elapsed() < SOON && table.slot(*node).is_ok()
                };
                pending.into_iter().filter(stays).collect::<VecDeque<_>>()
            });
            files = self
                .leaving
                .files
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            for (at, file) in still.into_iter().enumerate() {
                files.insert(at, file);
            }
            if files.is_empty() {
                return any || waited;
            }
            waited = true;
            let pause = Duration::from_millis(5);
            let woken = self.leaving.forgotten.wait_timeout(files, pause);
            files = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
