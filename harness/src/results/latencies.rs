//! `latency.hlog`: one histogram per second of the measured window, in the HdrHistogram log format.

use std::collections::BTreeMap;
use std::path::Path;

use base64::Engine;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

use crate::failure::usage;

/// Latencies in nanoseconds with how often they were seen. Sorted and without zeros: a histogram of ours has 35
/// thousand buckets, of which a second fills some hundred.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Latencies {
    pub seconds: Vec<Vec<(u64, u64)>>,
}

impl Latencies {
    pub fn parse(path: &Path, bytes: &[u8]) -> anyhow::Result<Latencies> {
        let refuse = |what: &str| {
            usage(format!(
                "{}: {what}: cut off or not a log of ours; take the file away to go on without it",
                path.display()
            ))
        };
        let mut deserializer = Deserializer::new();
        let mut seconds = Vec::new();
        for entry in IntervalLogIterator::new(bytes) {
            let entry = entry.map_err(|error| refuse(&format!("{error:?}")))?;
            let LogEntry::Interval(interval) = entry else {
                continue;
            };
            let packed = base64::engine::general_purpose::STANDARD
                .decode(interval.encoded_histogram())
                .map_err(|error| refuse(&error.to_string()))?;
            let histogram: Histogram<u64> = deserializer
                .deserialize(&mut packed.as_slice())
                .map_err(|error| refuse(&format!("{error:?}")))?;
            let filled = histogram.iter_recorded();
            seconds.push(
                filled
                    .map(|step| (step.value_iterated_to(), step.count_since_last_iteration()))
                    .collect(),
            );
        }
        Ok(Latencies { seconds })
    }

    /// All of several logs as one distribution.
    pub fn merged<'a>(logs: impl IntoIterator<Item = &'a Latencies>) -> Distribution {
        let mut counts = BTreeMap::new();
        for (value, count) in logs
            .into_iter()
            .flat_map(|log| log.seconds.iter().flatten())
        {
            *counts.entry(*value).or_insert(0) += count;
        }
        Distribution::new(counts.into_iter().collect())
    }
}

/// How many latencies there are up to each value.
pub struct Distribution {
    /// (nanoseconds, commands that took no longer)
    up_to: Vec<(u64, u64)>,
}

impl Distribution {
    fn new(mut counts: Vec<(u64, u64)>) -> Distribution {
        let mut total = 0;
        for (_, count) in &mut counts {
            total += *count;
            *count = total;
        }
        Distribution { up_to: counts }
    }

    pub fn count(&self) -> u64 {
        self.up_to.last().map_or(0, |(_, count)| *count)
    }

    /// In microseconds; 0 of nothing.
    pub fn quantile_us(&self, quantile: f64) -> f64 {
        let wanted = ((quantile * self.count() as f64).ceil() as u64).max(1);
        let index = self.up_to.partition_point(|(_, count)| *count < wanted);
        let found = self.up_to.get(index).or(self.up_to.last());
        found.map_or(0.0, |(value, _)| *value as f64 / 1e3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_logs_say_what_their_results_say() {
        for name in ["peak", "lone", "open", "kill"] {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("../results/published")
                .join(name);
            let path = folder.join("latency.hlog");
            let bytes = std::fs::read(&path).unwrap();
            let merged = Latencies::merged([&Latencies::parse(&path, &bytes).unwrap()]);
            let result = std::fs::read(folder.join("result.json")).unwrap();
            let result: serde_json::Value = serde_json::from_slice(&result).unwrap();
            let latency = &result["latency_us"];
            assert_eq!(Some(merged.count()), latency["count"].as_u64(), "{name}");
            for (quantile, key) in [(0.5, "p50"), (0.99, "p99"), (0.999, "p999")] {
                let expected = latency[key].as_f64().unwrap();
                let found = merged.quantile_us(quantile);
                assert!(
                    (found / expected - 1.0).abs() < 2e-3,
                    "{name} {key} {found} {expected}"
                );
            }
        }
    }

    #[test]
    fn damage_is_refused() {
        let path = Path::new("latency.hlog");
        for text in [
            "0.000,1.000,5.0,HISTFAAA\n",
            "0.000,1.000\n",
            "0.000,1.000,5.0,###\n",
        ] {
            let error = Latencies::parse(path, text.as_bytes()).unwrap_err();
            assert!(error.to_string().contains("latency.hlog"), "{error}");
        }
        assert_eq!(Latencies::merged([]).quantile_us(0.5), 0.0);
    }
}
