//! Work spread over threads that start together, and its time.

use std::io::{Error, Result};
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

/// Runs `work` on each share of `items`, all at once, and returns the time from their common start
/// to the last one's end.
pub(super) fn each_share<T: Sync>(
    items: &[T],
    threads: usize,
    work: impl Fn(&[T]) -> Result<()> + Sync,
) -> Result<Duration> {
    if threads <= 1 {
        let start = Instant::now();
        work(items)?;
        return Ok(start.elapsed());
    }
    let barrier = Barrier::new(threads + 1);
    let share = items.len().div_ceil(threads).max(1);
    thread::scope(|scope| {
        let mut running = Vec::new();
        for part in items.chunks(share) {
            let (work, barrier) = (&work, &barrier);
            running.push(scope.spawn(move || {
                barrier.wait();
                work(part)
            }));
        }
        // Fewer items than threads: the rest only meet the others.
        for _ in running.len()..threads {
            let barrier = &barrier;
            running.push(scope.spawn(move || {
                barrier.wait();
                Ok(())
            }));
        }
        barrier.wait();
        let start = Instant::now();
        for thread in running {
            thread
                .join()
                .map_err(|_| Error::other("a worker's thread panicked"))??;
        }
        Ok(start.elapsed())
    })
}
