//! Verdicts that stand beside each other: the more of them, the more each has to show.

use super::{CONFIDENCE, Difference, Ratio};

/// The comparisons that one table makes. Each is judged at a level at which all of them together mislead in at most
/// one of twenty tables (Bonferroni), and the interval that is printed is the one that the verdict was read from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Family {
    /// Of each interval.
    confidence: f64,
}

/// How often a change of the size that is asked for shall be found.
const POWER: f64 = 0.9;
/// More runs than this nobody makes; the scatter has to come down instead.
const RUNS_MAX: u32 = 400;

impl Family {
    pub fn of(comparisons: usize) -> Family {
        Family {
            confidence: 1.0 - (1.0 - CONFIDENCE) / comparisons.max(1) as f64,
        }
    }

    /// Of each single interval.
    pub fn confidence(self) -> f64 {
        self.confidence
    }

    /// `over ÷ under`, each the geometric mean of its runs. `None` if the scatter of either side is unknown, which it is
    /// of a single run, or if a figure is not above 0.
    pub fn ratio(self, over: &[f64], under: &[f64]) -> Option<Ratio> {
        Some(self.of_difference(&Difference::between(under, over)?))
    }

    /// As [`Family::ratio`]; without a known scatter the quotient alone, which decides nothing.
    pub fn ratio_or_estimate(self, over: &[f64], under: &[f64]) -> Option<Ratio> {
        self.ratio(over, under).or_else(|| {
            let ratio = geometric_mean(over)? / geometric_mean(under)?;
            Some(Ratio {
                ratio,
                low: ratio,
                high: ratio,
                confidence: 0.0,
            })
        })
    }

    pub fn of_difference(self, difference: &Difference) -> Ratio {
        let reach = difference.reach(self.confidence);
        Ratio {
            ratio: difference.log_ratio.exp(),
            low: (difference.log_ratio - reach).exp(),
            high: (difference.log_ratio + reach).exp(),
            confidence: self.confidence,
        }
    }

    /// How many runs on each side find a change of the share `effect` in nine of ten cases, if runs go on to scatter as
    /// these did. `None` if that is more than anybody makes.
    pub fn runs_to_find(self, effect: f64, difference: &Difference) -> Option<u32> {
        let wanted = (1.0 + effect).ln();
        let scatter = difference.scatter;
        (2..=RUNS_MAX).find(|runs| {
            let degrees = (2.0 * f64::from(*runs) - 3.0).max(1.0);
            let error = scatter * (2.0 / f64::from(*runs)).sqrt();
            let decided = super::student_quantile((1.0 + self.confidence) / 2.0, degrees);
            let found = super::student_quantile(POWER, degrees);
            (decided + found) * error <= wanted
        })
    }
}

/// `None` of nothing, or of a figure that is not above 0.
pub fn geometric_mean(figures: &[f64]) -> Option<f64> {
    let usable = |figure: &f64| *figure > 0.0 && figure.is_finite();
    if figures.is_empty() || !figures.iter().all(usable) {
        return None;
    }
    let logs: f64 = figures.iter().map(|figure| figure.ln()).sum();
    Some((logs / figures.len() as f64).exp())
}
