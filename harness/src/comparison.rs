//! `comparison.json`: what a comparison or a sweep found. Written next to the folders of its runs.

use serde::{Deserialize, Serialize};

use crate::environment::Environment;
use crate::load::load_file::Load;
use crate::statistics::{Ratio, Spread};

/// Raised when a key changes its meaning or goes away. Of version 1, in which intervals were percentile bootstraps and a
/// ratio was one of medians, only the runs count: summaries and ratios are made again from them.
pub const SCHEMA_VERSION: u32 = 2;
pub const OLDEST_SCHEMA_VERSION: u32 = 1;
pub const FILE_NAME: &str = "comparison.json";

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Comparison {
    pub schema_version: u32,
    pub kind: Kind,
    pub command_line: String,
    pub commit: String,
    pub unix_time_s: u64,
    pub machine: Environment,
    /// The system that every ratio has above the line.
    pub baseline_system: String,
    pub cells: Vec<Cell>,
    #[serde(default)]
    pub skipped: Vec<Skipped>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Systems side by side.
    Comparison,
    /// A matrix of systems, cluster sizes, payloads and loads.
    Sweep,
}

/// Runs of one system under one set of conditions.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Cell {
    pub system: String,
    pub version: String,
    /// `quic`, `tcp` or `own client`.
    pub transport: String,
    pub replicas: u8,
    pub payload_bytes: u32,
    pub load: Load,
    pub seconds: u32,
    pub warmup_s: u32,
    pub durability: String,
    pub state_machine: String,
    pub equality: Vec<Equality>,
    /// How the system was set up, in one line.
    pub settings: String,
    /// Folders of runs, relative to that of the comparison.
    pub runs: Vec<String>,
    pub summary: Summary,
    /// The baseline over this system; none for the baseline itself.
    #[serde(default)]
    pub ratio: Option<Ratios>,
    /// Why to trust this cell less.
    #[serde(default)]
    pub flags: Vec<String>,
}

/// One condition, and whether it is the same as for the baseline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Equality {
    pub what: String,
    pub value: String,
    pub equal: bool,
}

/// Over the runs of a cell. A figure that a system does not tell is absent.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    pub throughput_per_s: Spread,
    pub p50_us: Spread,
    pub p99_us: Spread,
    pub p999_us: Spread,
    /// Of all replicas together.
    #[serde(default)]
    pub replica_cpu_us_per_command: Option<Spread>,
    #[serde(default)]
    pub commands_per_sync: Option<Spread>,
    /// The longest time without an acknowledgement, of runs with a fault.
    #[serde(default)]
    pub gap_ms: Option<Spread>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ratios {
    pub throughput: Ratio,
    pub p99: Ratio,
    #[serde(default)]
    pub cpu: Option<Ratio>,
}

/// A system that was asked for and did not take part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    pub system: String,
    pub why: String,
}

impl Cell {
    /// The curve that the cell is a point of, as legends name it.
    pub fn series(&self) -> String {
        format!("{} ({})", self.system, self.transport)
    }
}
