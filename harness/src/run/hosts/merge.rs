//! Puts the results of several client machines together.
//!
//! Each measured its latencies on its own clock. Their windows begin together, so what happened in the same second or
//! interval of the window is added up; no time of one clock is ever compared with a time of another.

use std::path::Path;

use anyhow::Context;
use base64::Engine;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

use crate::load::event::{LoadResult, ReadBack};
use crate::load::publish;
use crate::load::punctuality::Generator;
use crate::load::recorder::{INTERVAL_MS, INTERVALS_PER_SECOND, Recorder, SILENCE_NS_MIN};
use crate::results::timeline::Timeline;

/// The results of one machine, as it wrote them.
pub struct PartFiles {
    /// When its window began, by its own clock.
    start_s: Option<u64>,
    seconds: Vec<Histogram<u64>>,
    intervals: Vec<u64>,
}

impl PartFiles {
    pub fn read(latencies: &Path, timeline: &Path) -> anyhow::Result<PartFiles> {
        let bytes = |path: &Path| {
            std::fs::read(path).with_context(|| format!("{}: cannot be read", path.display()))
        };
        let log = bytes(latencies)?;
        Ok(PartFiles {
            start_s: start_s(&log),
            seconds: histograms(&log).with_context(|| latencies.display().to_string())?,
            intervals: Timeline::parse(timeline, &bytes(timeline)?)?.acknowledged,
        })
    }
}

/// `#[StartTime: 1700000000.000 (seconds since epoch)]`
fn start_s(log: &[u8]) -> Option<u64> {
    const MARK: &[u8] = b"#[StartTime: ";
    let mut lines = log.split(|byte| *byte == b'\n');
    let rest = lines.find_map(|line| line.strip_prefix(MARK))?;
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit());
    let digits: Vec<u8> = digits.copied().collect();
    std::str::from_utf8(&digits).ok()?.parse().ok()
}

fn histograms(log: &[u8]) -> anyhow::Result<Vec<Histogram<u64>>> {
    let mut deserializer = Deserializer::new();
    let mut seconds = Vec::new();
    for entry in IntervalLogIterator::new(log) {
        let entry = entry.map_err(|error| anyhow::anyhow!("no log of ours: {error:?}"))?;
        let LogEntry::Interval(interval) = entry else {
            continue;
        };
        let packed = base64::engine::general_purpose::STANDARD
            .decode(interval.encoded_histogram())
            .map_err(|error| anyhow::anyhow!("no histogram of ours: {error}"))?;
        let histogram = deserializer.deserialize(&mut packed.as_slice());
        seconds
            .push(histogram.map_err(|error| anyhow::anyhow!("no histogram of ours: {error:?}"))?);
    }
    Ok(seconds)
}

/// Writes the merged `latency.hlog` and `timeline.csv`, and returns the merged result. There is at least one part.
pub fn merge(parts: &[(LoadResult, PartFiles)], results: &Path) -> anyhow::Result<LoadResult> {
    // A part that ended early bounds what all have in common.
    let intervals = parts
        .iter()
        .map(|(_, files)| files.intervals.len())
        .min()
        .unwrap_or(0);
    let window_ns = intervals as u64 * INTERVAL_MS * 1_000_000;
    let mut recorder = Recorder::new(0, window_ns)?;
    for (_, files) in parts {
        recorder.add_intervals(&files.intervals[..intervals]);
    }
    let seconds = intervals.div_ceil(INTERVALS_PER_SECOND);
    for second in 0..seconds {
        recorder.add_second(
            parts
                .iter()
                .filter_map(|(_, files)| files.seconds.get(second)),
        )?;
    }
    recorder.finish_minutes();
    // The windows began together; clocks of day may differ, and the earliest of them is no later than any interval.
    let start_s = parts.iter().filter_map(|(_, files)| files.start_s).min();
    let start_s = start_s.unwrap_or_else(crate::utc::unix_seconds_now);
    publish::write_files(results, &recorder, start_s)?;
    let sum = |of: fn(&LoadResult) -> u64| parts.iter().map(|(part, _)| of(part)).sum();
    let mut client_counters = std::collections::BTreeMap::new();
    for (name, value) in parts.iter().flat_map(|(part, _)| &part.client_counters) {
        *client_counters.entry(name.clone()).or_insert(0) += value;
    }
    let results = || parts.iter().map(|(part, _)| part);
    Ok(LoadResult {
        acknowledged: recorder.count(),
        acknowledged_total: sum(|part| part.acknowledged_total),
        submitted_total: sum(|part| part.submitted_total),
        failed: sum(|part| part.failed),
        latency_us: publish::latency(recorder.merged()),
        longest_gap_ms: longest_gap_ns(results()) as f64 / 1e6,
        client_cpu_us: sum(|part| part.client_cpu_us),
        held_back: results().map(|part| part.held_back).max().unwrap_or(0),
        offer: publish::offer(results().map(|part| part.offer)),
        surge: None,
        timeline: publish::summary(recorder.intervals()),
        minutes: publish::minutes(&recorder),
        accounts: results().flat_map(|part| part.accounts.clone()).collect(),
        client_counters,
        errors: results().flat_map(|part| part.errors.clone()).collect(),
        read_back: read_back(results()),
        silences: common_silences(results()),
        generator: Generator::worst(results().map(|part| part.generator.clone())),
        start_uncertainty_us: None,
        incomplete: None,
    })
}

/// What all machines together found, if each looked; of our own replicas the disks are read instead.
fn read_back<'a>(parts: impl Iterator<Item = &'a LoadResult>) -> Option<ReadBack> {
    parts
        .map(|part| part.read_back)
        .try_fold(ReadBack::default(), |sum, part| {
            let part = part?;
            Some(ReadBack {
                checked: sum.checked + part.checked,
                lost: sum.lost + part.lost,
                repeated: sum.repeated + part.repeated,
            })
        })
}

/// The longest time in which no machine had an acknowledgement. Silences that no machine remembered are shorter than
/// those it did: then the shortest of the machines' longest is told, which it cannot exceed.
fn longest_gap_ns<'a>(mut parts: impl Iterator<Item = &'a LoadResult>) -> u64 {
    let Some(first) = parts.next() else {
        return 0;
    };
    let mut bound = (first.longest_gap_ms * 1e6) as u64;
    let mut common = first.silences.clone();
    for part in parts {
        bound = bound.min((part.longest_gap_ms * 1e6) as u64);
        common = intersect(&common, &part.silences);
    }
    let longest = common.iter().map(|(begin, end)| end - begin).max();
    longest.unwrap_or_else(|| bound.min(SILENCE_NS_MIN))
}

/// When no machine had an acknowledgement.
fn common_silences<'a>(mut parts: impl Iterator<Item = &'a LoadResult>) -> Vec<(u64, u64)> {
    let first = parts.next().map(|part| part.silences.clone());
    parts.fold(first.unwrap_or_default(), |common, part| {
        intersect(&common, &part.silences)
    })
}

/// Both lists are in order, and neither overlaps itself.
fn intersect(left: &[(u64, u64)], right: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let (mut common, mut i, mut j) = (Vec::new(), 0, 0);
    while let (Some(a), Some(b)) = (left.get(i), right.get(j)) {
        let (begin, end) = (a.0.max(b.0), a.1.min(b.1));
        if begin < end {
            common.push((begin, end));
        }
        if a.1 < b.1 {
            i += 1;
        } else {
            j += 1;
        }
    }
    common
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn only_silence_of_all_is_silence() {
        let left = [(0, 10), (20, 30), (40, 90)];
        let right = [(5, 25), (28, 50), (60, 65)];
        assert_eq!(
            intersect(&left, &right),
            [(5, 10), (20, 25), (28, 30), (40, 50), (60, 65)]
        );
        assert_eq!(intersect(&left, &[]), []);
    }

    /// What one machine would have recorded of everything is what the parts merge to.
    #[test]
    fn two_machines_merge_to_what_one_would_have_seen() {
        let directory = tempfile::tempdir().unwrap();
        let window_ns = 2_000 * MS;
        let mut whole = Recorder::new(0, window_ns).unwrap();
        let mut parts = Vec::new();
        let mut recorders = [
            Recorder::new(0, window_ns).unwrap(),
            Recorder::new(0, window_ns).unwrap(),
        ];
        for step in 0..190u64 {
            // Nobody hears anything in the second half of the first second.
            let now = step * 10 * MS + 7;
            if (500 * MS..1_000 * MS).contains(&now) {
                continue;
            }
            let latency = (step % 17 + 1) * MS;
            for recorder in [&mut whole, &mut recorders[step as usize % 2]] {
                recorder.acknowledged(now, step);
                recorder.latency(now.saturating_sub(latency), now, step);
            }
        }
        whole.finish().unwrap();
        for (index, mut recorder) in recorders.into_iter().enumerate() {
            recorder.finish().unwrap();
            let folder = directory.path().join(index.to_string());
            std::fs::create_dir(&folder).unwrap();
            publish::write_files(&folder, &recorder, 1_700_000_001 - index as u64).unwrap();
            let mut result = publish::result(&recorder, 5, Vec::new());
            result.silences = recorder.silences();
            result.read_back = Some(ReadBack {
                checked: 10,
                lost: index as u64,
                repeated: 2,
            });
            let files = PartFiles::read(&folder.join("latency.hlog"), &folder.join("timeline.csv"))
                .unwrap();
            parts.push((result, files));
        }
        let merged = merge(&parts, directory.path()).unwrap();
        let expected = publish::result(&whole, 10, Vec::new());
        assert_eq!(merged.acknowledged, expected.acknowledged);
        assert_eq!(merged.latency_us, expected.latency_us);
        assert_eq!(merged.timeline, expected.timeline);
        assert_eq!(merged.longest_gap_ms, expected.longest_gap_ms);
        assert_eq!(merged.client_cpu_us, 10);
        let read_back = ReadBack {
            checked: 20,
            lost: 1,
            repeated: 4,
        };
        assert_eq!(merged.read_back, Some(read_back));
        parts[1].0.read_back = None;
        assert_eq!(
            merge(&parts, directory.path()).unwrap().read_back,
            None,
            "one of them did not look"
        );
        let log = std::fs::read(directory.path().join("latency.hlog")).unwrap();
        assert_eq!(
            start_s(&log),
            Some(1_700_000_000),
            "the earliest of the parts"
        );
        let log = String::from_utf8(log).unwrap();
        let first = log.lines().find(|line| line.starts_with("0.000,1.000,"));
        // The longest latency of the first second is 17 ms, and tools expect milliseconds there.
        let most: f64 = first.unwrap().split(',').nth(2).unwrap().parse().unwrap();
        assert!((most - 17.0).abs() < 0.1, "{most}");
        let text = std::fs::read_to_string(directory.path().join("timeline.csv")).unwrap();
        assert_eq!(text.lines().count(), 1 + 20);
    }
}
