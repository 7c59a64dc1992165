//! Turns what was recorded into files and numbers.

use std::fmt::Write;
use std::path::Path;

use anyhow::Context;
use hdrhistogram::Histogram;

use crate::load::client_loop::ClientEnd;
use crate::load::event::{Latency, LoadMinute, LoadResult, Offer, SurgeResult, TimelineSummary};
use crate::load::recorder::{
    INTERVAL_MS, INTERVALS_PER_SECOND, Percentiles, Recorder, SECONDS_PER_MINUTE,
};

pub fn write_files(out: &Path, recorder: &Recorder, unix_seconds: u64) -> anyhow::Result<()> {
    let write = |name: &str, bytes: &[u8]| {
        let path = out.join(name);
        std::fs::write(&path, bytes).with_context(|| format!("{}: not written", path.display()))
    };
    write("latency.hlog", &recorder.interval_log(unix_seconds))?;
    write("timeline.csv", timeline(recorder).as_bytes())
}

/// One row per interval; first the percentiles of the second that a row is in, then those of the interval. Those of a
/// second stand in all of its rows: in one of ten they would look like spikes.
fn timeline(recorder: &Recorder) -> String {
    let mut csv = String::from(
        "start_ms,acknowledged,second_p50_us,second_p99_us,second_max_us,p50_us,p99_us,max_us\n",
    );
    for (index, acknowledged) in recorder.intervals().iter().enumerate() {
        let start_ms = index as u64 * INTERVAL_MS;
        let second = recorder.seconds().get(index / INTERVALS_PER_SECOND);
        let interval = recorder.percentiles_of_intervals().get(index);
        // Without a reply there is no latency.
        let interval = interval.filter(|percentiles| percentiles.max_ns > 0);
        let row = writeln!(
            csv,
            "{start_ms},{acknowledged},{},{}",
            fields(second),
            fields(interval)
        );
        row.expect("a string takes every row");
    }
    csv
}

fn fields(percentiles: Option<&Percentiles>) -> String {
    match percentiles {
        Some(Percentiles {
            p50_ns,
            p99_ns,
            max_ns,
        }) => format!(
            "{},{},{}",
            micros(*p50_ns),
            micros(*p99_ns),
            micros(*max_ns)
        ),
        None => ",,".into(),
    }
}

pub fn result(recorder: &Recorder, client_cpu_us: u64, ends: Vec<ClientEnd>) -> LoadResult {
    let submitted_total = ends.iter().map(|end| end.account.submitted).sum();
    let acknowledged_total: u64 = ends.iter().map(|end| end.account.acknowledged).sum();
    let mut client_counters = std::collections::BTreeMap::new();
    for (name, value) in ends.iter().flat_map(|end| &end.counters) {
        *client_counters.entry((*name).to_owned()).or_insert(0) += value;
    }
    LoadResult {
        acknowledged: recorder.count(),
        acknowledged_total,
        submitted_total,
        failed: submitted_total - acknowledged_total,
        latency_us: latency(recorder.merged()),
        longest_gap_ms: recorder.longest_gap_ns() as f64 / 1e6,
        client_cpu_us,
        held_back: ends.iter().map(|end| end.held_back).sum(),
        offer: offer(ends.iter().map(books)),
        surge: surge(recorder),
        timeline: summary(recorder.intervals()),
        minutes: minutes(recorder),
        accounts: ends.iter().map(|end| end.account).collect(),
        client_counters,
        errors: ends.into_iter().filter_map(|end| end.error).collect(),
        silences: Vec::new(),
        generator: None,
        start_uncertainty_us: None,
        incomplete: None,
        // Synod's are read from the disks.
        read_back: None,
    }
}

fn books(end: &ClientEnd) -> Option<Offer> {
    let books = end.offered?;
    Some(Offer {
        offered: books.offered,
        admitted: books.offered - books.refused,
        refused: books.refused,
    })
}

/// The sum; `None` if somebody kept no such books.
pub fn offer(mut parts: impl Iterator<Item = Option<Offer>>) -> Option<Offer> {
    let none = Offer {
        offered: 0,
        admitted: 0,
        refused: 0,
    };
    parts.try_fold(none, |sum, part| {
        let part = part?;
        Some(Offer {
            offered: sum.offered + part.offered,
            admitted: sum.admitted + part.admitted,
            refused: sum.refused + part.refused,
        })
    })
}

fn surge(recorder: &Recorder) -> Option<SurgeResult> {
    let watch = recorder.surge()?;
    let (surge, latency) = (watch.surge(), watch.latency());
    let goodput = |from_ms: u64, to_ms: u64| {
        let (from, to) = (
            (from_ms / INTERVAL_MS) as usize,
            (to_ms / INTERVAL_MS) as usize,
        );
        let intervals = recorder.intervals().get(from..to).unwrap_or_default();
        let seconds = intervals.len() as f64 / INTERVALS_PER_SECOND as f64;
        per_second(intervals.iter().sum(), seconds)
    };
    Some(SurgeResult {
        surge,
        goodput_per_s: goodput(surge.at_ms, surge.end_ms()),
        goodput_before_per_s: goodput(0, surge.at_ms),
        p50_us: micros(latency.p50_ns),
        p99_us: micros(latency.p99_ns),
        max_us: micros(latency.max_ns),
        normal_after_ms: watch.normal_after_ms(),
    })
}

fn per_second(count: u64, seconds: f64) -> f64 {
    (count as f64 / seconds.max(1e-9) * 10.0).round() / 10.0
}

pub fn latency(histogram: &Histogram<u64>) -> Latency {
    let at = |quantile| micros(histogram.value_at_quantile(quantile));
    Latency {
        p50: at(0.5),
        p90: at(0.9),
        p99: at(0.99),
        p999: at(0.999),
        max: micros(histogram.max()),
        mean: (histogram.mean() / 100.0).round() / 10.0,
        count: histogram.len(),
    }
}

pub fn minutes(recorder: &Recorder) -> Vec<LoadMinute> {
    let counted = recorder
        .intervals()
        .chunks(INTERVALS_PER_SECOND * SECONDS_PER_MINUTE);
    let minutes = counted.zip(recorder.minutes());
    minutes
        .map(|(intervals, latency)| {
            let acknowledged: u64 = intervals.iter().sum();
            let seconds = intervals.len() as f64 / INTERVALS_PER_SECOND as f64;
            LoadMinute {
                acknowledged,
                throughput_per_s: per_second(acknowledged, seconds),
                p50_us: micros(latency.p50_ns),
                p99_us: micros(latency.p99_ns),
                max_us: micros(latency.max_ns),
            }
        })
        .collect()
}

/// Nanoseconds as microseconds with one decimal.
fn micros(nanos: u64) -> f64 {
    (nanos as f64 / 100.0).round() / 10.0
}

pub fn summary(intervals: &[u64]) -> TimelineSummary {
    let mut sorted = intervals.to_vec();
    sorted.sort_unstable();
    TimelineSummary {
        interval_ms: INTERVAL_MS,
        intervals: intervals.len() as u64,
        acknowledged_min: sorted.first().copied().unwrap_or(0),
        acknowledged_median: sorted.get(sorted.len() / 2).copied().unwrap_or(0),
        acknowledged_max: sorted.last().copied().unwrap_or(0),
    }
}
