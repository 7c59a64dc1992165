//! The figures that are summarised, drawn and compared: their names, units, and which way is better.

use crate::comparison::Summary;
use crate::results::run_result::RunResult;
use crate::statistics::Spread;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Figure {
    Throughput,
    P50,
    P99,
    P999,
    ReplicaCpu,
    CommandsPerSync,
    Gap,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    More,
    Less,
    /// It explains others and is no aim of its own.
    Neither,
}

impl Figure {
    pub const ALL: [Figure; 7] = [
        Figure::Throughput,
        Figure::P50,
        Figure::P99,
        Figure::P999,
        Figure::ReplicaCpu,
        Figure::CommandsPerSync,
        Figure::Gap,
    ];

    /// As JSON, CSV and file names have it.
    pub fn key(self) -> &'static str {
        match self {
            Figure::Throughput => "throughput_per_s",
            Figure::P50 => "p50_us",
            Figure::P99 => "p99_us",
            Figure::P999 => "p999_us",
            Figure::ReplicaCpu => "replica_cpu_us_per_command",
            Figure::CommandsPerSync => "commands_per_sync",
            Figure::Gap => "gap_ms",
        }
    }

    pub fn label(self) -> &'static str {
        match self {
            Figure::Throughput => "throughput",
            Figure::P50 => "p50 latency",
            Figure::P99 => "p99 latency",
            Figure::P999 => "p99.9 latency",
            Figure::ReplicaCpu => "replica CPU per command",
            Figure::CommandsPerSync => "commands per sync",
            Figure::Gap => "longest gap",
        }
    }

    pub fn better(self) -> Better {
        match self {
            Figure::Throughput => Better::More,
            Figure::P50 | Figure::P99 | Figure::P999 | Figure::ReplicaCpu | Figure::Gap => {
                Better::Less
            }
            Figure::CommandsPerSync => Better::Neither,
        }
    }

    /// Words for a figure that rose and for one that fell.
    pub fn words(self) -> (&'static str, &'static str) {
        match self {
            Figure::Throughput => ("faster", "slower"),
            Figure::P50 | Figure::P99 | Figure::P999 => ("slower", "faster"),
            Figure::ReplicaCpu => ("costlier", "cheaper"),
            Figure::CommandsPerSync => ("more", "fewer"),
            Figure::Gap => ("longer", "shorter"),
        }
    }

    /// `None` if the run did not tell it, or if it means nothing there: without a fault the longest gap is a hiccup
    /// of the machine.
    pub fn of_run(self, run: &RunResult) -> Option<f64> {
        let value = match self {
            Figure::Throughput => run.throughput_per_s,
            Figure::P50 => run.latency_us.p50,
            Figure::P99 => run.latency_us.p99,
            Figure::P999 => run.latency_us.p999,
            Figure::ReplicaCpu => run.replica_cpu_us_per_command,
            Figure::CommandsPerSync => run.commands_per_sync,
            Figure::Gap if run.faults.is_empty() => return None,
            Figure::Gap => run.longest_gap_ms,
        };
        (value > 0.0 && value.is_finite()).then_some(value)
    }

    pub fn of_summary(self, summary: &Summary) -> Option<Spread> {
        match self {
            Figure::Throughput => Some(summary.throughput_per_s),
            Figure::P50 => Some(summary.p50_us),
            Figure::P99 => Some(summary.p99_us),
            Figure::P999 => Some(summary.p999_us),
            Figure::ReplicaCpu => summary.replica_cpu_us_per_command,
            Figure::CommandsPerSync => summary.commands_per_sync,
            Figure::Gap => summary.gap_ms,
        }
    }
}
