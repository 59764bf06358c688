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
    let barrier = Barrier::new(threads);
    let share = items.len().div_ceil(threads).max(1);
    let parts = items.chunks(share).map(Some);
    // Fewer items than threads: the rest only meet the others.
    let parts = parts.chain(std::iter::repeat(None)).take(threads);
    thread::scope(|scope| {
        let running: Vec<_> = parts
            .map(|part| {
                let (work, barrier) = (&work, &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    // Each by its own clock: all may be done before another thread has its turn.
                    let start = Instant::now();
                    part.map_or(Ok(()), work)?;
                    Ok((start, Instant::now()))
                })
            })
            .collect();
        let mut times = Vec::new();
        for thread in running {
            let joined = thread.join();
            let time: Result<(Instant, Instant)> =
                joined.map_err(|_| Error::other("a worker's thread panicked"))?;
            times.push(time?);
        }
        let start = times.iter().map(|(start, _)| *start).min();
        let end = times.iter().map(|(_, end)| *end).max();
        Ok(start
            .zip(end)
            .map_or(Duration::ZERO, |(start, end)| end - start))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_of_threads_is_from_the_first_start_to_the_last_end() {
        for (items, threads) in [(2, 2), (1, 4), (4, 2)] {
            let slept = Duration::from_millis(20);
            let work = |part: &[i32]| {
                thread::sleep(slept * u32::try_from(part.len()).unwrap());
                Ok(())
            };
            let time = each_share(&vec![0; items], threads, work).unwrap();
            let longest = u32::try_from(items.div_ceil(threads)).unwrap();
            assert!(time >= slept * longest, "{items} by {threads}: {time:?}");
        }
    }
}
