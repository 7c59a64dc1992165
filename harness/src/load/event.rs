//! What the load process tells the run: one JSON object per line on stdout.

use serde::{Deserialize, Serialize};

use crate::load::punctuality::Generator;
use crate::load::surge::Surge;
use crate::verify::ClientAccount;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// Every client has its session.
    Connected,
    /// The process's own monotonic clock, when it was asked.
    Clock {
        now_ns: u64,
    },
    /// The measured window begins.
    WindowStart,
    /// Once per second of the load.
    Progress {
        phase: Phase,
        second: u64,
        acknowledged: u64,
        outstanding: u64,
    },
    /// The measured window is over; what is in flight is awaited.
    WindowEnd,
    Result(Box<LoadResult>),
}

/// What a part of a load is told, a line of stdin each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "snake_case")]
pub enum Order {
    /// Say what your clock says.
    Clock,
    /// Begin at this time of your clock.
    Start { at_ns: u64 },
    /// Submit nothing more, and report what there is.
    Stop,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    Warmup,
    Measured,
    Draining,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LoadResult {
    /// Inside the measured window.
    pub acknowledged: u64,
    /// Over the whole load.
    pub acknowledged_total: u64,
    pub submitted_total: u64,
    /// Submitted, and without a reply by the deadline.
    pub failed: u64,
    pub latency_us: Latency,
    pub longest_gap_ms: f64,
    /// Over the measured window.
    pub client_cpu_us: u64,
    /// Open loop: the most commands of a client that had to wait at once because too many were outstanding.
    pub held_back: u64,
    /// Of an open loop, over all clients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offer: Option<Offer>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub surge: Option<SurgeResult>,
    pub timeline: TimelineSummary,
    /// Of the measured window; the last one may be shorter.
    #[serde(default)]
    pub minutes: Vec<LoadMinute>,
    pub accounts: Vec<ClientAccount>,
    /// What the client library counted, over all clients.
    pub client_counters: std::collections::BTreeMap<String, u64>,
    /// Why a client stopped early, if one did.
    pub errors: Vec<String>,
    /// The longer times without an acknowledgement, in nanoseconds of the window.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub silences: Vec<(u64, u64)>,
    /// How late the load process itself was; absent if it did not look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generator: Option<Generator>,
    /// Of a load in parts: their windows begin at the same time, give or take this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_uncertainty_us: Option<f64>,
    /// Why the load was ended before its time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incomplete: Option<String>,
    /// Of systems whose disks can't be checked: what the load found when it read its writes back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_back: Option<ReadBack>,
}

/// What became of the commands that were meant to start in the measured window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    pub offered: u64,
    /// Submitted. Those that a replica refused with Busy and that were sent again are among them, measured from their
    /// intended start.
    pub admitted: u64,
    /// Never submitted, for want of room; they have no latency.
    pub refused: u64,
}

/// What a surge of the rate did.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SurgeResult {
    pub surge: Surge,
    /// Acknowledged while it lasted.
    pub goodput_per_s: f64,
    /// Of the commands that were meant to start in it and were admitted.
    pub p50_us: f64,
    pub p99_us: f64,
    pub max_us: f64,
    /// Acknowledged before it.
    pub goodput_before_per_s: f64,
    /// From its end until nothing was refused any more and no command took longer than the longest before it; absent if
    /// that was not seen.
    pub normal_after_ms: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadBack {
    /// Acknowledged writes that had to be there.
    pub checked: u64,
    /// Those that were not.
    pub lost: u64,
    /// Found more than once: attempts that were repeated although they had happened.
    pub repeated: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
    pub mean: f64,
    /// Commands that started inside the measured window and were answered.
    pub count: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoadMinute {
    pub acknowledged: u64,
    pub throughput_per_s: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    pub max_us: f64,
}

/// Acknowledged per interval of the measured window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimelineSummary {
    pub interval_ms: u64,
    pub intervals: u64,
    pub acknowledged_min: u64,
    pub acknowledged_median: u64,
    pub acknowledged_max: u64,
}
