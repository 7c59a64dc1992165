//! Samples along one run. Neighbours are correlated, so they are drawn in blocks (Künsch 1989), around the end as
//! well (Politis and Romano 1992).

use super::Generator;

const RESAMPLES: usize = 500;
const SEED: u64 = 0x5eed_b10c;

/// The standard deviation of the logarithm of `figure`, which is computed from the indices of resampled samples.
/// `None` with fewer than 3 blocks, or if a resample has no figure above 0.
pub fn deviation_of_log(
    samples: usize,
    block: usize,
    mut figure: impl FnMut(&[usize]) -> f64,
) -> Option<f64> {
    let blocks = samples / block.max(1);
    if blocks < 3 {
        return None;
    }
    let mut generator = Generator::new(SEED);
    let mut logs = Vec::with_capacity(RESAMPLES);
    for _ in 0..RESAMPLES {
        let value = figure(&resample_blocks(samples, block, &mut generator));
        if !(value > 0.0 && value.is_finite()) {
            return None;
        }
        logs.push(value.ln());
    }
    let mean = logs.iter().sum::<f64>() / RESAMPLES as f64;
    let squares = logs.iter().map(|log| (log - mean).powi(2)).sum::<f64>();
    // Resampling `blocks` blocks sees their variance about their own mean, which is too small by this factor.
    let lost = blocks as f64 / (blocks as f64 - 1.0);
    Some((squares / (RESAMPLES as f64 - 1.0) * lost).sqrt())
}

/// As many indices as there are samples, in blocks that begin anywhere.
fn resample_blocks(samples: usize, block: usize, generator: &mut Generator) -> Vec<usize> {
    let mut drawn = Vec::with_capacity(samples + block);
    while drawn.len() < samples {
        let start = generator.below(samples);
        drawn.extend((start..start + block).map(|index| index % samples));
    }
    drawn.truncate(samples);
    drawn
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mean_of(series: &[f64]) -> impl FnMut(&[usize]) -> f64 {
        |drawn| drawn.iter().map(|index| series[*index]).sum::<f64>() / drawn.len() as f64
    }

    /// Ten equal neighbours carry no more than one of them: single draws would be too sure of themselves.
    #[test]
    fn blocks_see_that_neighbours_are_alike() {
        let mut generator = Generator::new(7);
        let seconds: Vec<f64> = (0..40)
            .map(|_| 900.0 + generator.below(200) as f64)
            .collect();
        let series: Vec<f64> = seconds.iter().flat_map(|second| [*second; 10]).collect();
        let deviation =
            |values: &[f64], block| deviation_of_log(values.len(), block, mean_of(values)).unwrap();
        let truth = deviation(&seconds, 1);
        let blocks = deviation(&series, 10);
        let singles = deviation(&series, 1);
        assert!((blocks / truth - 1.0).abs() < 0.3, "{blocks} {truth}");
        assert!(singles < truth / 2.0, "{singles} {truth}");
    }

    #[test]
    fn short_or_silent_series_say_nothing() {
        assert_eq!(deviation_of_log(20, 10, |_| 1.0), None);
        assert_eq!(deviation_of_log(40, 10, |_| 0.0), None);
        let mut generator = Generator::new(1);
        assert_eq!(resample_blocks(25, 10, &mut generator).len(), 25);
    }
}
