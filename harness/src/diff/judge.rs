//! How far two cells are apart in each figure, and what that is known from.
//!
//! Runs are the unit: what scatters is the run, not the command, so a million commands of one run are still one run.

use crate::results::{Figure, Latencies, LoadedCell, RunFolder};
use crate::statistics::{CONFIDENCE, Difference, deviation_of_log, rank_sum_p};

/// In words, [`Evidence::WithinRuns`] assumes this of [`run_noise`].
pub const ASSUMED: &str = "4 % (p99: 20 %, p99.9: 40 %)";

pub struct Judged {
    pub figure: Figure,
    /// The geometric mean of the runs.
    pub before: f64,
    pub after: f64,
    pub difference: Option<Difference>,
    /// The rank-sum test, which assumes nothing about the noise, does not contradict.
    pub ranks_agree: bool,
    pub evidence: Evidence,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// Several runs on both sides.
    Repeats,
    /// Several runs on one side, whose spread stands for both.
    RepeatsOfOneSide,
    /// One run each, and samples along them.
    WithinRuns,
    /// One run each, and one figure in each.
    Nothing,
    /// Only the summary of a comparison is there.
    NoRuns,
}

impl Evidence {
    pub fn label(self) -> &'static str {
        match self {
            Evidence::Repeats => "repeats",
            Evidence::RepeatsOfOneSide => "repeats of one side",
            Evidence::WithinRuns => "within runs",
            Evidence::Nothing => "one run each",
            Evidence::NoRuns => "no runs",
        }
    }

    /// What a change is then said to be.
    pub fn certainty(self) -> &'static str {
        match self {
            Evidence::WithinRuns => "certain if runs scatter as assumed",
            Evidence::Repeats
            | Evidence::RepeatsOfOneSide
            | Evidence::Nothing
            | Evidence::NoRuns => "certain",
        }
    }

    /// Why nothing can be told.
    pub fn lack(self) -> &'static str {
        match self {
            Evidence::NoRuns => "the folders of the runs are not there",
            Evidence::Repeats
            | Evidence::RepeatsOfOneSide
            | Evidence::WithinRuns
            | Evidence::Nothing => "one run each, spread unknown",
        }
    }
}

impl Judged {
    pub fn p(&self) -> Option<f64> {
        self.difference.map(|difference| difference.p())
    }
}

/// Every figure that both sides tell.
pub fn cell(before: &LoadedCell, after: &LoadedCell) -> Vec<Judged> {
    let figures = Figure::ALL.into_iter();
    figures
        .filter_map(|figure| judge(figure, before, after))
        .collect()
}

fn judge(figure: Figure, before: &LoadedCell, after: &LoadedCell) -> Option<Judged> {
    let told = |loaded: &LoadedCell| -> Vec<f64> {
        let runs = loaded.runs.iter();
        runs.filter_map(|run| figure.of_run(&run.result)).collect()
    };
    let (a, b) = (told(before), told(after));
    let without_runs = |loaded: &LoadedCell| {
        let spread = figure.of_summary(&loaded.cell.summary);
        spread
            .map(|spread| spread.median)
            .filter(|median| *median > 0.0)
    };
    if a.is_empty() || b.is_empty() {
        return Some(Judged {
            figure,
            before: without_runs(before)?,
            after: without_runs(after)?,
            difference: None,
            ranks_agree: false,
            evidence: Evidence::NoRuns,
        });
    }
    let (difference, evidence) = match (&before.runs[..], &after.runs[..]) {
        ([old], [new]) => match within_runs(figure, old, new) {
            Some(difference) => (Some(difference), Evidence::WithinRuns),
            None => (None, Evidence::Nothing),
        },
        _ => match Difference::between(&a, &b) {
            Some(difference) if a.len() > 1 && b.len() > 1 => (Some(difference), Evidence::Repeats),
            Some(difference) => (Some(difference), Evidence::RepeatsOfOneSide),
            None => (None, Evidence::Nothing),
        },
    };
    Some(Judged {
        figure,
        before: geometric_mean(&a),
        after: geometric_mean(&b),
        difference,
        ranks_agree: evidence != Evidence::Repeats || ranks_agree(&a, &b),
        evidence,
    })
}

fn geometric_mean(figures: &[f64]) -> f64 {
    let logs: f64 = figures.iter().map(|figure| figure.ln()).sum();
    (logs / figures.len() as f64).exp()
}

/// With few runs the rank test can't be certain whatever it sees: then the groups have to lie apart entirely, which is
/// all that it could ask for.
fn ranks_agree(a: &[f64], b: &[f64]) -> bool {
    let low = |figures: &[f64]| figures.iter().copied().fold(f64::INFINITY, f64::min);
    let high = |figures: &[f64]| figures.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    rank_sum_p(a, b) < 1.0 - CONFIDENCE || high(a) < low(b) || high(b) < low(a)
}

/// How far runs of one build lie apart by themselves, as the standard deviation of their logarithms. One run can't
/// tell. These are what repeats on a shared machine showed, at their better hours; tails scatter most.
fn run_noise(figure: Figure) -> f64 {
    match figure {
        Figure::Throughput | Figure::P50 => 0.04,
        Figure::P99 => 0.2,
        Figure::P999 => 0.4,
        // Nothing along a run tells them, so this is not reached for a verdict.
        Figure::ReplicaCpu | Figure::CommandsPerSync | Figure::Gap => f64::INFINITY,
    }
}

fn within_runs(figure: Figure, before: &RunFolder, after: &RunFolder) -> Option<Difference> {
    let (value_before, value_after) = (
        figure.of_run(&before.result)?,
        figure.of_run(&after.result)?,
    );
    let (deviation_before, seconds_before) = deviation(figure, before)?;
    let (deviation_after, seconds_after) = deviation(figure, after)?;
    let noise = 2.0 * run_noise(figure).powi(2);
    let error = (deviation_before.powi(2) + deviation_after.powi(2) + noise).sqrt();
    Some(Difference {
        log_ratio: (value_after / value_before).ln(),
        error,
        degrees_of_freedom: (seconds_before + seconds_after - 2) as f64,
    })
}

/// Of the figure's logarithm over one run, and how many seconds that is known from.
fn deviation(figure: Figure, run: &RunFolder) -> Option<(f64, usize)> {
    let quantile = match figure {
        Figure::Throughput => {
            let timeline = run.timeline.as_ref()?;
            let rates = timeline.rates();
            let block = timeline.intervals_per_second();
            let mean = |drawn: &[usize]| drawn.iter().map(|index| rates[*index]).sum::<f64>();
            let deviation = deviation_of_log(rates.len(), block, mean)?;
            return Some((deviation, rates.len() / block));
        }
        Figure::P50 => 0.5,
        Figure::P99 => 0.99,
        Figure::P999 => 0.999,
        Figure::ReplicaCpu | Figure::CommandsPerSync | Figure::Gap => return None,
    };
    let latencies = run.latencies.as_ref()?;
    let seconds = latencies.seconds.len();
    let resampled = Resampled::new(latencies);
    let deviation = deviation_of_log(seconds, 1, |drawn| resampled.quantile(drawn, quantile))?;
    Some((deviation, seconds))
}

/// The histograms of seconds over the values that any of them has, so that adding them up is cheap.
struct Resampled {
    values: Vec<u64>,
    /// For each second the index of a value and how often it was seen.
    seconds: Vec<Vec<(usize, u64)>>,
}

impl Resampled {
    fn new(latencies: &Latencies) -> Resampled {
        let all = latencies.seconds.iter().flatten();
        let mut values: Vec<u64> = all.map(|(value, _)| *value).collect();
        values.sort_unstable();
        values.dedup();
        let place = |value: &u64| values.binary_search(value).expect("it was collected");
        let seconds = latencies.seconds.iter().map(|second| {
            second
                .iter()
                .map(|(value, count)| (place(value), *count))
                .collect()
        });
        Resampled {
            seconds: seconds.collect(),
            values,
        }
    }

    /// 0 of nothing.
    fn quantile(&self, drawn: &[usize], quantile: f64) -> f64 {
        let mut counts = vec![0u64; self.values.len()];
        for (index, count) in drawn.iter().flat_map(|second| &self.seconds[*second]) {
            counts[*index] += count;
        }
        let total: u64 = counts.iter().sum();
        let wanted = ((quantile * total as f64).ceil() as u64).max(1);
        let mut reached = 0;
        let found = counts.iter().position(|count| {
            reached += count;
            reached >= wanted
        });
        found.map_or(0.0, |index| self.values[index] as f64)
    }
}
