//! What a few noisy figures allow to be said. Everything here is deterministic: the same figures give the same answer.
//!
//! Intervals of medians and of ratios of medians are percentile bootstraps (Efron 1979); two groups are told apart by
//! Welch's t-test on logarithms together with the rank-sum test; many tests at once are corrected after Holm (1979).

mod bootstrap;
mod generator;
mod rank;
mod series;
mod student;

use serde::{Deserialize, Serialize};

pub use generator::Generator;
pub use rank::rank_sum_p;
pub use series::deviation_of_log;
use student::student_two_sided_p;
pub use student::{Difference, holm};

/// Every interval and every certainty is meant at this level.
pub const CONFIDENCE: f64 = 0.95;

/// Where the runs of one figure lie.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    pub median: f64,
    /// A 95 % bootstrap interval of the median. With `n` runs it can't be wider than from `min` to `max`.
    pub low: f64,
    pub high: f64,
    pub min: f64,
    pub max: f64,
    /// How many runs; of one alone the spread is unknown.
    pub n: u32,
}

/// A quotient of two medians with its 95 % bootstrap interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ratio {
    pub median: f64,
    pub low: f64,
    pub high: f64,
}

impl Spread {
    /// `None` of nothing, and if a figure is not a finite number.
    pub fn of(figures: &[f64]) -> Option<Spread> {
        bootstrap::spread(figures)
    }

    /// Half the interval's width as a share of the median; `None` if it is unknown.
    pub fn relative_half_width(&self) -> Option<f64> {
        (self.n > 1 && self.median > 0.0).then(|| (self.high - self.low) / 2.0 / self.median)
    }
}

impl Ratio {
    /// Of the medians of `over` and `under`; both sides are resampled. `None` without figures, or below zero.
    pub fn of(over: &[f64], under: &[f64]) -> Option<Ratio> {
        bootstrap::ratio(over, under)
    }

    /// One is outside of the interval. A ratio of single runs has no interval and decides nothing.
    pub fn is_decided(&self) -> bool {
        self.low < self.high && (self.low > 1.0 || self.high < 1.0)
    }
}
