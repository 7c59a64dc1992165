//! Whether a run was as fast at its end as at its beginning, and without a standstill between.

use crate::results::run_folder::RunFolder;

/// The last third of a steady run is as fast as the first, but for this share.
const DRIFT_MAX: f64 = 0.15;
/// No part of a steady run is slower than this share of its median part.
const STALL: f64 = 0.5;
/// How many parts a run is cut into, if it is long enough; then a part is a second at the most, so that a standstill in the
/// middle of a long run is seen as well.
const PARTS_MIN: usize = 10;
/// Fewer intervals than this are too short a run to say anything, and it says that.
const INTERVALS_MIN: usize = 6;

/// A run with a fault is not meant to be steady, and without a timeline nobody knows.
pub fn is_steady(run: &RunFolder) -> bool {
    let Some(timeline) = &run.timeline else {
        return true;
    };
    if !run.result.hardships().is_empty() || run.result.surge.is_some() {
        return true;
    }
    are_steady(&timeline.rates(), timeline.intervals_per_second())
}

/// `rates` of equal intervals.
fn are_steady(rates: &[f64], intervals_per_second: usize) -> bool {
    if rates.len() < INTERVALS_MIN {
        return false;
    }
    let third = rates.len() / 3;
    let (first, last) = (mean(&rates[..third]), mean(&rates[rates.len() - third..]));
    if (last - first).abs() > DRIFT_MAX * first.max(last) {
        return false;
    }
    let part = (rates.len() / PARTS_MIN).clamp(1, intervals_per_second.max(1));
    let mut parts: Vec<f64> = rates.chunks_exact(part).map(mean).collect();
    parts.sort_by(f64::total_cmp);
    parts[0] >= STALL * parts[parts.len() / 2]
}

fn mean(part: &[f64]) -> f64 {
    part.iter().sum::<f64>() / part.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(of: &[f64]) -> Vec<f64> {
        of.iter().flat_map(|rate| [*rate; 10]).collect()
    }

    #[test]
    fn drift_and_standstills_are_seen_at_any_length() {
        let steady = [100.0, 103.0, 98.0, 101.0];
        assert!(are_steady(&seconds(&steady), 10));
        assert!(are_steady(&seconds(&steady.repeat(15)), 10));
        // Of the first four seconds of a run that begins slowly.
        assert!(!are_steady(&seconds(&[44.0, 48.0, 62.0, 64.0]), 10));
        // One second of a minute in which nothing came back, with both ends alike.
        let mut minute = steady.repeat(15);
        minute[31] = 0.0;
        assert!(!are_steady(&seconds(&minute), 10));
        let mut short = seconds(&steady);
        short[20..24].fill(0.0);
        assert!(!are_steady(&short, 10));
        assert!(!are_steady(&[100.0; 3], 10));
    }
}
