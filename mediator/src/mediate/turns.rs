//! When is a request of the time before a change over, its answer written? A reload waits for that
//! before it makes the kernel forget, so that no older answer comes after it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Guard};

/// How often the end of older requests is looked for.
const PAUSE: Duration = Duration::from_millis(1);

/// The time between two changes, in turns; every request is in one of them.
#[derive(Debug, Default)]
pub(super) struct Turns {
    now: ArcSwap<()>,
}

/// One request, from before its decision until its answer is written.
#[must_use]
#[derive(Debug)]
pub struct Turn {
    _of: Guard<Arc<()>>,
}

impl Turns {
    /// A request begins.
    pub(super) fn enter(&self) -> Turn {
        Turn {
            _of: self.now.load(),
        }
    }

    /// Waits until every request that began before is over; tells whether all were by the
    /// deadline.
    pub(super) fn pass(&self, deadline: Instant) -> bool {
        // The swap turns every guard into a share of the old value that is counted.
        let before = self.now.swap(Arc::default());
        while Arc::strong_count(&before) > 1 {
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(PAUSE);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn change_waits_for_the_requests_before_it_and_for_no_later_one() {
        let turns = Turns::default();
        let before = turns.enter();
        assert!(!turns.pass(Instant::now()));
        let after = turns.enter();
        drop(before);
        // `after` belongs to the time behind the first change: only a second one waits for it.
        assert!(!turns.pass(Instant::now()));
        drop(after);
        assert!(turns.pass(Instant::now()));
    }
}
