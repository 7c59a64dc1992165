//! What a few noisy figures allow to be said. Everything here is deterministic: the same figures give the same answer.
//!
//! Runs are the unit: what scatters is the run, not the command. One rule judges everywhere: geometric means of runs are
//! compared by Welch's t-test on logarithms, and all verdicts of one table are corrected together ([`Family`]). How much
//! runs scatter is learned from the runs at hand and never assumed, so of a single run nothing can be said.

mod family;
#[cfg(test)]
mod generator;
mod median;
mod student;
#[cfg(test)]
mod truth;

use serde::{Deserialize, Serialize};

pub use family::{Family, geometric_mean};
#[cfg(test)]
pub use generator::Generator;
pub use student::Difference;
use student::student_quantile;

/// The share of tables without a false verdict, and the least that an interval of a median covers if the runs suffice.
pub const CONFIDENCE: f64 = 0.95;

/// Where the runs of one figure lie.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    pub median: f64,
    /// An interval of the median between two of the runs.
    pub low: f64,
    pub high: f64,
    /// How often such an interval holds the true median: at least 0.95 from 6 runs on, 0.94 with 5, 0.75 with 3, 0 with
    /// one. Absent in older results, whose intervals were percentile bootstraps.
    #[serde(default)]
    pub coverage: f64,
    pub min: f64,
    pub max: f64,
    /// How many runs; of one alone the spread is unknown.
    pub n: u32,
}

/// A quotient of geometric means with its interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ratio {
    #[serde(alias = "median")]
    pub ratio: f64,
    pub low: f64,
    pub high: f64,
    /// Of this interval alone: so high that all ratios of one comparison hold together at 0.95. Absent in older results,
    /// whose intervals decide nothing.
    #[serde(default)]
    pub confidence: f64,
}

impl Spread {
    /// `None` of nothing, and if a figure is not a finite number.
    pub fn of(figures: &[f64]) -> Option<Spread> {
        median::spread(figures)
    }

    /// Half the interval's width as a share of the median; `None` if it is unknown.
    pub fn relative_half_width(&self) -> Option<f64> {
        (self.n > 1 && self.median > 0.0).then(|| (self.high - self.low) / 2.0 / self.median)
    }
}

impl Ratio {
    /// The interval leaves out 1.
    pub fn is_decided(&self) -> bool {
        self.confidence >= CONFIDENCE && (self.low > 1.0 || self.high < 1.0)
    }
}
