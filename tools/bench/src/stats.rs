//! What several rounds come to.

/// Rates of one contender at one row, a round each.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Summary {
    /// The highest rate.
    pub(crate) best: f64,
    /// The median rate.
    pub(crate) median: f64,
    /// Highest less lowest, in parts of the median.
    pub(crate) spread: f64,
}

impl Summary {
    /// None without a sample.
    pub(crate) fn of(rates: &[f64]) -> Option<Self> {
        let mut sorted = rates.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (lowest, best) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 {
            sorted[middle]
        } else {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        };
        Some(Self {
            best,
            median,
            spread: (best - lowest) / median,
        })
    }
}

/// The geometric mean; none without a value.
pub(crate) fn geometric_mean(values: &[f64]) -> Option<f64> {
    if values.is_empty() {
        return None;
    }
    let sum: f64 = values.iter().map(|value| value.ln()).sum();
    Some((sum / values.len() as f64).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-9
    }

    #[test]
    fn summary_of_odd_and_even_rounds() {
        let odd = Summary::of(&[2.0, 9.0, 4.0]).unwrap();
        assert!(close(odd.best, 9.0) && close(odd.median, 4.0) && close(odd.spread, 7.0 / 4.0));
        let even = Summary::of(&[2.0, 4.0]).unwrap();
        assert!(close(even.median, 3.0));
    }

    #[test]
    fn summary_of_one_round_has_no_spread_and_of_none_is_none() {
        assert!(close(Summary::of(&[5.0]).unwrap().spread, 0.0));
        assert_eq!(Summary::of(&[]), None);
    }

    #[test]
    fn geometric_mean_of_ratios() {
        assert!(close(geometric_mean(&[0.5, 2.0]).unwrap(), 1.0));
        assert_eq!(geometric_mean(&[]), None);
    }
}
