//! A pass over all names or blocks, once and again, for long enough.

use std::io::Result;
use std::time::Duration;

use crate::task::{Sample, Task};

/// One pass, and repetitions of it. Who has no cache of its own is asked twice alike.
pub(super) fn first_and_again(
    task: &Task,
    amount: usize,
    mut pass: impl FnMut() -> Result<Duration>,
) -> Result<Vec<Sample>> {
    let first = if task.no_cache_of_its_own {
        repeated(task, "first", amount, &mut pass)?
    } else {
        sample("first", amount, pass()?)
    };
    Ok(vec![first, repeated(task, "again", amount, pass)?])
}

/// Repeats a pass until the task's floor has gone by.
pub(super) fn repeated(
    task: &Task,
    part: &str,
    amount: usize,
    mut pass: impl FnMut() -> Result<Duration>,
) -> Result<Sample> {
    let floor = Duration::from_millis(task.floor_ms);
    let (mut passes, mut total) = (0, Duration::ZERO);
    while passes == 0 || total < floor {
        total += pass()?;
        passes += 1;
    }
    Ok(sample(part, amount * passes, total))
}

/// An amount in a time.
pub(super) fn sample(part: &str, amount: usize, time: Duration) -> Sample {
    Sample {
        part: part.to_owned(),
        amount: amount as f64,
        seconds: time.as_secs_f64(),
    }
}
