//! How long requests took, in buckets that double.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Buckets with an upper bound: 1 microsecond, 2, 4, up to 2^20 (about a second).
const BOUNDED: usize = 21;

/// All buckets: one more for what took longer.
pub const BUCKETS: usize = BOUNDED + 1;

/// The upper bound of a bucket in microseconds, inclusive; `None` for the last, which has none,
/// and for what is no bucket.
#[must_use]
pub fn bound_micros(bucket: usize) -> Option<u64> {
    let power = u32::try_from(bucket).ok()?;
    (bucket < BOUNDED).then(|| 1 << power)
}

/// The durations of one operation. Each duration costs two additions and no lock; readers may see
/// one of the two without the other.
#[derive(Debug, Default)]
pub(super) struct Histogram {
    nanoseconds: AtomicU64,
    buckets: [AtomicU64; BUCKETS],
}

impl Histogram {
    /// Relaxed: the numbers order nothing, they are only read.
    pub(super) fn add(&self, took: Duration) {
        // 584 years.
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
        if let Some(bucket) = self.buckets.get(bucket(nanoseconds)) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The sum of all durations in nanoseconds.
    pub(super) fn nanoseconds(&self) -> u64 {
        self.nanoseconds.load(Ordering::Relaxed)
    }

    /// How many durations fell into each bucket; not cumulative.
    pub(super) fn buckets(&self) -> [u64; BUCKETS] {
        let mut read = [0; BUCKETS];
        for (to, from) in read.iter_mut().zip(&self.buckets) {
            *to = from.load(Ordering::Relaxed);
        }
        read
    }
}

/// The first bucket whose bound is not below the duration.
fn bucket(nanoseconds: u64) -> usize {
    let micros = nanoseconds.div_ceil(1000);
    let power = u64::BITS - micros.saturating_sub(1).leading_zeros();
    usize::try_from(power).unwrap_or(BOUNDED).min(BOUNDED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duration_falls_into_the_first_bucket_that_holds_it() {
        for (nanoseconds, expected) in [
            (0, 0),
            (1, 0),
            (1_000, 0),
            (1_001, 1),
            (2_000, 1),
            (2_001, 2),
            (4_000, 2),
            (4_001, 3),
            (1_048_576_000, 20),
            (1_048_576_001, 21),
            (u64::MAX, 21),
        ] {
            assert_eq!(bucket(nanoseconds), expected, "{nanoseconds} ns");
        }
    }

    #[test]
    fn every_bucket_but_the_last_has_a_bound_which_it_holds() {
        for bucket_number in 0..BOUNDED {
            let bound = bound_micros(bucket_number).unwrap();
            assert_eq!(bucket(bound * 1000), bucket_number);
            assert_eq!(bucket(bound * 1000 + 1), bucket_number + 1);
        }
        assert_eq!(bound_micros(BUCKETS - 1), None);
        assert_eq!(bound_micros(BUCKETS), None);
    }

    #[test]
    fn durations_are_counted_and_summed() {
        let histogram = Histogram::default();
        for micros in [1, 3, 3, 5_000_000] {
            histogram.add(Duration::from_micros(micros));
        }
        let buckets = histogram.buckets();
        assert_eq!((buckets[0], buckets[2], buckets[21]), (1, 2, 1));
        assert_eq!(buckets.iter().sum::<u64>(), 4);
        assert_eq!(histogram.nanoseconds(), 5_000_007_000);
    }
}
