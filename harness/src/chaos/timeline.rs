//! Throughput and latency over time, from the history, with the faults beside them.

use std::fmt::Write;

use synod_engine::ids::ReplicaId;
use synod_simulator::linearizability::Operation;

use super::shared::FaultReport;
use crate::load::event::{Latency, TimelineSummary};

pub const INTERVAL_MS: u64 = 100;
const NANOS_PER_MS: u64 = 1_000_000;

/// One row: what was answered in an interval.
#[derive(Clone, Debug, Default, PartialEq)]
struct Interval {
    /// In nanoseconds, sorted.
    latencies: Vec<u64>,
    /// Operations begun here whose outcome never became known.
    unknown: u64,
}

pub struct Timeline {
    intervals: Vec<Interval>,
    /// Sorted, in nanoseconds.
    latencies: Vec<u64>,
    /// When replies came, sorted.
    replies_ns: Vec<u64>,
    end_ns: u64,
}

impl Timeline {
    pub fn new(history: &[Operation], end_ms: u64) -> Timeline {
        let mut intervals = vec![Interval::default(); end_ms.div_ceil(INTERVAL_MS) as usize];
        let last = intervals.len() - 1;
        let of = |at_ns: u64| ((at_ns / NANOS_PER_MS / INTERVAL_MS) as usize).min(last);
        let mut latencies = Vec::new();
        let mut replies_ns = Vec::new();
        for operation in history {
            let Some(returned) = &operation.returned else {
                intervals[of(operation.invoked_ns)].unknown += 1;
                continue;
            };
            let latency = returned.at_ns - operation.invoked_ns;
            intervals[of(returned.at_ns)].latencies.push(latency);
            latencies.push(latency);
            replies_ns.push(returned.at_ns);
        }
        for interval in &mut intervals {
            interval.latencies.sort_unstable();
        }
        latencies.sort_unstable();
        replies_ns.sort_unstable();
        Timeline {
            intervals,
            latencies,
            replies_ns,
            end_ns: end_ms * NANOS_PER_MS,
        }
    }

    /// One row per interval; what is unknown there stays empty.
    pub fn csv(&self, faults: &[FaultReport], leaders: &[(u64, Option<ReplicaId>)]) -> String {
        let mut csv =
            String::from("start_ms,acknowledged,p50_us,p99_us,max_us,unknown,leader,faults\n");
        for (index, interval) in self.intervals.iter().enumerate() {
            let start_ms = index as u64 * INTERVAL_MS;
            let end_ms = start_ms + INTERVAL_MS;
            let at = |permille| match interval.latencies.is_empty() {
                true => String::new(),
                false => micros(quantile(&interval.latencies, permille)).to_string(),
            };
            let leader = leaders
                .iter()
                .take_while(|(at_ms, _)| *at_ms < end_ms)
                .last();
            let leader = leader.and_then(|(_, leader)| *leader);
            let struck = faults
                .iter()
                .filter(|f| f.from_ms < end_ms && f.to_ms >= start_ms);
            let faults: Vec<String> = struck.map(|fault| fault.fault.name()).collect();
            writeln!(
                csv,
                "{start_ms},{},{},{},{},{},{},{}",
                interval.latencies.len(),
                at(500),
                at(990),
                at(1_000),
                interval.unknown,
                leader.map_or(String::new(), |leader| leader.0.to_string()),
                faults.join(" ")
            )
            .expect("a string takes every row");
        }
        csv
    }

    pub fn latency(&self) -> Latency {
        let at = |permille| micros(quantile(&self.latencies, permille));
        let sum: u64 = self.latencies.iter().sum();
        let count = self.latencies.len() as u64;
        Latency {
            p50: at(500),
            p90: at(900),
            p99: at(990),
            p999: at(999),
            max: at(1_000),
            mean: micros(sum.checked_div(count).unwrap_or(0)),
            count,
        }
    }

    pub fn summary(&self) -> TimelineSummary {
        let mut counts: Vec<u64> = self
            .intervals
            .iter()
            .map(|i| i.latencies.len() as u64)
            .collect();
        counts.sort_unstable();
        TimelineSummary {
            interval_ms: INTERVAL_MS,
            intervals: counts.len() as u64,
            acknowledged_min: counts.first().copied().unwrap_or(0),
            acknowledged_median: counts.get(counts.len() / 2).copied().unwrap_or(0),
            acknowledged_max: counts.last().copied().unwrap_or(0),
        }
    }

    /// The longest time without any reply, in milliseconds, that overlaps the given time.
    pub fn longest_gap_ms(&self, from_ms: u64, to_ms: u64) -> f64 {
        let (from, to) = (from_ms * NANOS_PER_MS, to_ms * NANOS_PER_MS);
        let ends = self.replies_ns.iter().copied().chain([self.end_ns]);
        let mut begin = 0;
        let mut longest = 0;
        for end in ends {
            if begin <= to && end >= from {
                longest = longest.max(end.saturating_sub(begin));
            }
            begin = end;
        }
        (longest as f64 / 1e4).round() / 1e2
    }
}

/// Of sorted values, the smallest that `permille` of them do not exceed; 0 of none.
fn quantile(sorted: &[u64], permille: u64) -> u64 {
    let rank = (sorted.len() as u64 * permille).div_ceil(1_000).max(1);
    sorted.get(rank as usize - 1).copied().unwrap_or(0)
}

/// Nanoseconds as microseconds with one decimal.
fn micros(nanos: u64) -> f64 {
    (nanos as f64 / 100.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chaos::fault::{Fault, Lane};
    use synod_simulator::linearizability::{Action, Reply, Returned};

    fn operation(from_ms: u64, to_ms: Option<u64>) -> Operation {
        Operation {
            client: 1,
            key: Vec::new(),
            action: Action::Get,
            invoked_ns: from_ms * NANOS_PER_MS,
            returned: to_ms.map(|to_ms| Returned {
                at_ns: to_ms * NANOS_PER_MS,
                reply: Reply::NotFound,
            }),
        }
    }

    #[test]
    fn rows_show_what_was_answered_lost_and_done() {
        let history = [
            operation(0, Some(10)),
            operation(20, Some(50)),
            operation(60, None),
            operation(70, Some(250)),
        ];
        let fault = FaultReport {
            fault: Fault::Kill,
            lane: Lane::Processes,
            what: String::new(),
            replicas: vec![2],
            planned_at_ms: 55,
            from_ms: 60,
            to_ms: 120,
            struck: true,
            evidence: String::new(),
        };
        let timeline = Timeline::new(&history, 300);
        let csv = timeline.csv(&[fault], &[(0, Some(ReplicaId(2))), (150, None)]);
        let rows: Vec<&str> = csv.lines().skip(1).collect();
        assert_eq!(
            rows,
            [
                "0,2,10000,30000,30000,1,2,kill",
                "100,0,,,,0,,kill",
                "200,1,180000,180000,180000,0,,"
            ]
        );
        assert_eq!(timeline.longest_gap_ms(0, 300), 200.0);
        assert_eq!(timeline.longest_gap_ms(0, 20), 40.0);
        assert_eq!(timeline.longest_gap_ms(260, 300), 50.0);
        assert_eq!(timeline.latency().max, 180_000.0);
        assert_eq!(timeline.summary().acknowledged_max, 2);
    }
}
