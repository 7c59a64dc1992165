//! Medians and their percentile bootstrap.

use super::{CONFIDENCE, Generator, Ratio, Spread};

/// Enough for the 2.5 % quantile of a median of few figures to stand still.
const RESAMPLES: usize = 4_000;
const SEED: u64 = 0x5eed_b007;

/// The middle figure, or the mean of the two in the middle. 0 of nothing.
fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    median_of_sorted(&sorted)
}

fn median_of_sorted(sorted: &[f64]) -> f64 {
    match sorted.len() {
        0 => 0.0,
        n if n % 2 == 1 => sorted[n / 2],
        n => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
    }
}

pub fn spread(figures: &[f64]) -> Option<Spread> {
    if figures.is_empty() || !figures.iter().all(|figure| figure.is_finite()) {
        return None;
    }
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let mut generator = Generator::new(SEED);
    let medians = resampled_medians(&sorted, &mut generator);
    let (low, high) = interval(medians);
    Some(Spread {
        median: median_of_sorted(&sorted),
        low,
        high,
        min: sorted[0],
        max: sorted[sorted.len() - 1],
        n: sorted.len() as u32,
    })
}

pub fn ratio(over: &[f64], under: &[f64]) -> Option<Ratio> {
    let positive = |figures: &[f64]| {
        !figures.is_empty()
            && figures
                .iter()
                .all(|figure| *figure > 0.0 && figure.is_finite())
    };
    if !positive(over) || !positive(under) {
        return None;
    }
    let mut generator = Generator::new(SEED);
    let overs = resampled_medians(over, &mut generator);
    let unders = resampled_medians(under, &mut generator);
    let quotients = overs.iter().zip(&unders).map(|(over, under)| over / under);
    let (low, high) = interval(quotients.collect());
    Some(Ratio {
        median: median(over) / median(under),
        low,
        high,
    })
}

fn resampled_medians(figures: &[f64], generator: &mut Generator) -> Vec<f64> {
    let mut drawn = vec![0.0; figures.len()];
    let mut draw = || {
        for slot in &mut drawn {
            *slot = figures[generator.below(figures.len())];
        }
        drawn.sort_by(f64::total_cmp);
        median_of_sorted(&drawn)
    };
    (0..RESAMPLES).map(|_| draw()).collect()
}

/// The middle [`CONFIDENCE`] of what resampling gave.
fn interval(mut resampled: Vec<f64>) -> (f64, f64) {
    resampled.sort_by(f64::total_cmp);
    let tail = (1.0 - CONFIDENCE) / 2.0;
    let below = (tail * resampled.len() as f64).floor() as usize;
    (resampled[below], resampled[resampled.len() - 1 - below])
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

    proptest! {
        #[test]
        fn the_median_is_in_the_middle(figures in prop::collection::vec(-9..9i32, 1..12)) {
            let figures: Vec<f64> = figures.into_iter().map(f64::from).collect();
            prop_assert_eq!(median(&figures), naive_median(&figures));
        }

        #[test]
        fn an_interval_holds_its_median(figures in prop::collection::vec(1..1_000u32, 1..12)) {
            let figures: Vec<f64> = figures.into_iter().map(f64::from).collect();
            let spread = spread(&figures).unwrap();
            prop_assert!(spread.min <= spread.low && spread.low <= spread.median);
            prop_assert!(spread.median <= spread.high && spread.high <= spread.max);
            let same = ratio(&figures, &figures).unwrap();
            prop_assert!(same.low <= 1.0 && same.median == 1.0 && 1.0 <= same.high);
        }

        /// Three figures have 27 resamples: all of them can be listed.
        #[test]
        fn of_three_figures_the_interval_is_that_of_all_resamples(
            figures in prop::array::uniform3(1..1_000u32)
        ) {
            let figures = figures.map(f64::from);
            let mut all = Vec::new();
            for a in figures { for b in figures { for c in figures {
                all.push(naive_median(&[a, b, c]));
            }}}
            all.sort_by(f64::total_cmp);
            let spread = spread(&figures).unwrap();
            // 7 of 27 medians are the lowest, 7 the highest: both ends are far from the 2.5 % quantile.
            prop_assert_eq!((spread.low, spread.high), (all[0], all[26]));
        }
    }

    #[test]
    fn nothing_has_no_spread() {
        assert_eq!(spread(&[]), None);
        assert_eq!(spread(&[1.0, f64::NAN]), None);
        assert_eq!(ratio(&[1.0], &[0.0]), None);
        let one = spread(&[7.0]).unwrap();
        assert_eq!((one.low, one.high, one.n), (7.0, 7.0, 1));
        assert!(!ratio(&[2.0], &[1.0]).unwrap().is_decided());
        assert!(ratio(&[2.0, 2.1], &[1.0, 1.1]).unwrap().is_decided());
    }
}
