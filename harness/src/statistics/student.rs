//! Student's distribution, and Welch's comparison of two groups with it.

/// How far two groups are apart on the scale of logarithms.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Difference {
    /// The logarithm of `b / a`.
    pub log_ratio: f64,
    /// Of `log_ratio`, as a standard deviation.
    pub error: f64,
    pub degrees_of_freedom: f64,
    /// Of single runs, as a standard deviation of logarithms: what both groups together show.
    pub scatter: f64,
}

impl Difference {
    /// Welch (1947) on logarithms: a slowdown is a factor, and so is noise. `None` if either group has fewer than two
    /// figures, since then its scatter is unknown, or if a figure is not above 0.
    pub fn between(a: &[f64], b: &[f64]) -> Option<Difference> {
        let (mean_a, variance_a) = moments_of_logs(a)?;
        let (mean_b, variance_b) = moments_of_logs(b)?;
        let (count_a, count_b) = (a.len() as f64, b.len() as f64);
        let (part_a, part_b) = (variance_a / count_a, variance_b / count_b);
        let sum = part_a + part_b;
        let weights = part_a.powi(2) / (count_a - 1.0) + part_b.powi(2) / (count_b - 1.0);
        let pooled = count_a + count_b - 2.0;
        let welch = if weights > 0.0 {
            sum * sum / weights
        } else {
            pooled
        };
        // Far out in the tails, where many verdicts at once are judged, Welch's degrees of freedom are a little too many
        // if one group scatters much more than the other: `truth.rs` has what one less does, and docs/statistics.md.
        let least = count_a.min(count_b) - 1.0;
        let squares = variance_a * (count_a - 1.0) + variance_b * (count_b - 1.0);
        Some(Difference {
            log_ratio: mean_b - mean_a,
            error: sum.sqrt(),
            degrees_of_freedom: (welch - 1.0).max(least),
            scatter: (squares / pooled).sqrt(),
        })
    }

    /// The probability of such a difference, or a larger one, between groups that do not differ.
    pub fn p(&self) -> f64 {
        if self.error > 0.0 {
            student_two_sided_p(self.log_ratio / self.error, self.degrees_of_freedom)
        } else if self.log_ratio == 0.0 {
            1.0
        } else {
            0.0
        }
    }

    /// How far the interval of this confidence reaches to either side of `log_ratio`.
    pub fn reach(&self, confidence: f64) -> f64 {
        student_quantile((1.0 + confidence) / 2.0, self.degrees_of_freedom) * self.error
    }
}

/// Mean and variance of at least two figures.
fn moments_of_logs(figures: &[f64]) -> Option<(f64, f64)> {
    let usable = |figure: &f64| *figure > 0.0 && figure.is_finite();
    if figures.len() < 2 || !figures.iter().all(usable) {
        return None;
    }
    let count = figures.len() as f64;
    let mean = figures.iter().map(|figure| figure.ln()).sum::<f64>() / count;
    let squares = figures.iter().map(|figure| (figure.ln() - mean).powi(2));
    Some((mean, squares.sum::<f64>() / (count - 1.0)))
}

/// The probability that a Student variable is farther from 0 than `t`.
pub fn student_two_sided_p(t: f64, degrees_of_freedom: f64) -> f64 {
    let ratio = degrees_of_freedom / (degrees_of_freedom + t * t);
    incomplete_beta(degrees_of_freedom / 2.0, 0.5, ratio)
}

/// Where `probability` (0.5 or more) of a Student variable lies below.
pub fn student_quantile(probability: f64, degrees_of_freedom: f64) -> f64 {
    let outside = 2.0 * (1.0 - probability);
    let (mut low, mut high) = (0.0f64, 1e6f64);
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        if student_two_sided_p(middle, degrees_of_freedom) > outside {
            low = middle;
        } else {
            high = middle;
        }
    }
    high
}

/// The regularised incomplete beta function, by its continued fraction (DLMF 8.17.22).
fn incomplete_beta(a: f64, b: f64, x: f64) -> f64 {
    if x <= 0.0 {
        return 0.0;
    }
    if x >= 1.0 {
        return 1.0;
    }
    // The fraction converges fast on this side only; the other one follows by symmetry.
    if x > (a + 1.0) / (a + b + 2.0) {
        return 1.0 - incomplete_beta(b, a, 1.0 - x);
    }
    let log_front = a * x.ln() + b * (1.0 - x).ln() - a.ln() - log_beta(a, b);
    log_front.exp() / beta_fraction(a, b, x)
}

/// `1 + d1/(1 + d2/(1 + …))`, evaluated from its far end.
fn beta_fraction(a: f64, b: f64, x: f64) -> f64 {
    const DEPTH: u32 = 120;
    let mut value = 1.0;
    for index in (1..=DEPTH).rev() {
        let m = f64::from(index / 2);
        let term = if index % 2 == 0 {
            m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m))
        } else {
            -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0))
        };
        value = 1.0 + term / value;
    }
    value
}

fn log_beta(a: f64, b: f64) -> f64 {
    log_gamma(a) + log_gamma(b) - log_gamma(a + b)
}

/// Stirling's series (DLMF 5.11.1), after raising the argument to where it is exact to double precision.
fn log_gamma(x: f64) -> f64 {
    let mut shifted = x;
    let mut product = 1.0f64;
    while shifted < 15.0 {
        product *= shifted;
        shifted += 1.0;
    }
    let inverse = 1.0 / shifted;
    let square = inverse * inverse;
    let series = inverse * (1.0 / 12.0 - square * (1.0 / 360.0 - square / 1_260.0));
    let half_log_two_pi = (2.0 * std::f64::consts::PI).ln() / 2.0;
    (shifted - 0.5) * shifted.ln() - shifted + half_log_two_pi + series - product.ln()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The values of every printed table.
    #[test]
    fn quantiles_of_student() {
        for (degrees, quantile) in [
            (1.0, 12.7062),
            (2.0, 4.30265),
            (4.0, 2.77645),
            (8.0, 2.30600),
            (30.0, 2.04227),
            (10_000.0, 1.96020),
        ] {
            let found = student_quantile(0.975, degrees);
            assert!((found - quantile).abs() < 2e-4, "{degrees}: {found}");
        }
        assert!((student_two_sided_p(1.0, 1.0) - 0.5).abs() < 1e-9);
    }

    proptest! {
        /// Against the density of the distribution, added up in small steps.
        #[test]
        fn probabilities_are_areas(t in 0.0..6.0f64, degrees in 1.0..40.0f64) {
            let density = |x: f64| (1.0 + x * x / degrees).powf(-(degrees + 1.0) / 2.0);
            let area = |from: f64, to: f64| {
                let steps = 4_000;
                let width = (to - from) / f64::from(steps);
                (0..steps).map(|step| density(from + (f64::from(step) + 0.5) * width)).sum::<f64>() * width
            };
            // The far tail in the variable 1/x.
            let tail = |from: f64| {
                let steps = 4_000;
                let width = 1.0 / from / f64::from(steps);
                (0..steps)
                    .map(|step| (f64::from(step) + 0.5) * width)
                    .map(|u| density(1.0 / u) / (u * u))
                    .sum::<f64>() * width
            };
            let beyond = if t < 1.0 { area(t, 1.0) + tail(1.0) } else { tail(t) };
            let all = area(0.0, 1.0) + tail(1.0);
            prop_assert!((student_two_sided_p(t, degrees) - beyond / all).abs() < 1e-4);
        }
    }

    #[test]
    fn groups_apart_and_together() {
        let a = [100.0, 102.0, 98.0];
        let slower: Vec<f64> = a.iter().map(|figure| figure * 0.8).collect();
        let difference = Difference::between(&a, &slower).unwrap();
        assert!((difference.log_ratio - 0.8f64.ln()).abs() < 1e-9);
        assert!((difference.scatter - 0.02).abs() < 1e-3);
        assert!(difference.reach(0.95) < difference.reach(0.99));
        assert!(difference.p() < 0.001);
        assert_eq!(Difference::between(&a, &a).unwrap().p(), 1.0);
        assert_eq!(Difference::between(&[1.0], &[2.0]), None);
        assert_eq!(Difference::between(&a, &[80.0]), None);
        assert_eq!(Difference::between(&a, &[80.0, 0.0]), None);
    }
}
