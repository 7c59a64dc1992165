//! The median of a few runs and an interval whose coverage is known whatever the runs scatter like.

use super::{CONFIDENCE, Spread};

/// The middle figure, or the mean of the two in the middle. 0 of nothing.
fn median_of_sorted(sorted: &[f64]) -> f64 {
    match sorted.len() {
        0 => 0.0,
        n if n % 2 == 1 => sorted[n / 2],
        n => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
    }
}

/// From the `k`-th lowest to the `k`-th highest figure (Thompson 1936), with the largest `k` that covers the true median
/// as often as [`CONFIDENCE`]; few figures can't, and then it is all of them, with what that covers.
pub fn spread(figures: &[f64]) -> Option<Spread> {
    if figures.is_empty() || !figures.iter().all(|figure| figure.is_finite()) {
        return None;
    }
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len();
    let left_out = (1..n.div_ceil(2))
        .take_while(|left_out| coverage(n, *left_out) >= CONFIDENCE)
        .last()
        .unwrap_or(0);
    Some(Spread {
        median: median_of_sorted(&sorted),
        low: sorted[left_out],
        high: sorted[n - 1 - left_out],
        coverage: coverage(n, left_out),
        min: sorted[0],
        max: sorted[n - 1],
        n: n as u32,
    })
}

/// How often the true median lies between the extremes that are left when as many figures are left out at each end: the
/// number of figures below it is binomial with one half.
fn coverage(n: usize, left_out: usize) -> f64 {
    if n < 2 {
        return 0.0;
    }
    // Logarithms, since 2⁻ⁿ of many figures is 0.
    let mut log_ways = 0.0f64;
    let mut outside = 0.0f64;
    for below in 0..=left_out {
        outside += (log_ways - n as f64 * std::f64::consts::LN_2).exp();
        log_ways += ((n - below) as f64 / (below + 1) as f64).ln();
    }
    (1.0 - 2.0 * outside).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// By definition: as many figures on one side as on the other.
    fn naive_median(figures: &[f64]) -> f64 {
        let below = |x: f64| figures.iter().filter(|y| **y < x).count();
        let not_above = |x: f64| figures.iter().filter(|y| **y <= x).count();
        let at = |rank: usize| {
            *figures
                .iter()
                .find(|x| below(**x) <= rank && rank < not_above(**x))
                .unwrap()
        };
        let n = figures.len();
        (at((n - 1) / 2) + at(n / 2)) / 2.0
    }

    /// All ways in which figures can fall on either side of the true median, counted.
    fn naive_coverage(n: u32, left_out: u32) -> f64 {
        let inside = |ways: &u32| {
            let below = ways.count_ones();
            left_out < below && below < n - left_out
        };
        (0..1u32 << n).filter(inside).count() as f64 / f64::from(1u32 << n)
    }

    proptest! {
        #[test]
        fn the_median_is_in_the_middle_and_in_its_interval(figures in prop::collection::vec(-9..9i32, 1..20)) {
            let figures: Vec<f64> = figures.into_iter().map(f64::from).collect();
            let spread = spread(&figures).unwrap();
            prop_assert_eq!(spread.median, naive_median(&figures));
            prop_assert!(spread.min <= spread.low && spread.low <= spread.median);
            prop_assert!(spread.median <= spread.high && spread.high <= spread.max);
        }
    }

    #[test]
    fn coverage_is_counted() {
        for n in 2..=14 {
            for left_out in 0..n / 2 {
                let (found, naive) = (
                    coverage(n as usize, left_out as usize),
                    naive_coverage(n, left_out),
                );
                assert!(
                    (found - naive).abs() < 1e-12,
                    "{n}, {left_out}: {found} {naive}"
                );
            }
        }
    }

    #[test]
    fn intervals_of_few_and_of_many_runs() {
        let of = |n: u32| {
            let figures: Vec<f64> = (1..=n).map(f64::from).collect();
            spread(&figures).unwrap()
        };
        assert_eq!((of(3).low, of(3).high, of(3).coverage), (1.0, 3.0, 0.75));
        assert_eq!((of(5).low, of(5).high, of(5).coverage), (1.0, 5.0, 0.9375));
        assert_eq!((of(6).low, of(6).coverage), (1.0, 0.96875));
        assert_eq!((of(10).low, of(10).high), (2.0, 9.0));
        assert!(of(1_000).coverage >= CONFIDENCE && of(1_000).low > 400.0);
    }

    #[test]
    fn nothing_has_no_spread() {
        assert_eq!(spread(&[]), None);
        assert_eq!(spread(&[1.0, f64::NAN]), None);
        let one = spread(&[7.0]).unwrap();
        assert_eq!((one.low, one.high, one.n, one.coverage), (7.0, 7.0, 1, 0.0));
    }
}
