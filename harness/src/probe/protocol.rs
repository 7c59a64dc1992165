//! What the two ends of an ssh connection tell each other: JSON.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::probe::facts::Facts;

/// A line to `synod probe serve`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum Question {
    Clock,
    Facts,
    /// Round trips to each target, `count` one after the other.
    Ping {
        targets: Vec<SocketAddr>,
        count: u32,
    },
}

/// A line from it: one as it begins, then one per question.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// Ports that somebody else has.
    Ready {
        taken: Vec<u16>,
    },
    Clock {
        unix_ns: u64,
    },
    Facts(Box<Facts>),
    Ping {
        paths: Vec<RoundTrips>,
    },
}

/// To one target, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RoundTrips {
    pub target: SocketAddr,
    pub sent: u32,
    pub received: u32,
    pub min_us: f64,
    pub median_us: f64,
}

/// What became of a process that was to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stopped {
    NotRunning,
    ByItself,
    Killed,
    /// It was only to stand still, or to go on.
    GoesOn,
}

/// How a program was while it was to stand still.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paused {
    /// Soon after the signal.
    pub stopped: bool,
    /// Just before it went on.
    pub still: bool,
}

/// How a replica is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaState {
    /// `None`: it does not run.
    pub pid: Option<i32>,
    pub unit: Option<String>,
    /// Why a running one does not answer.
    pub problem: Option<String>,
    pub counters: BTreeMap<String, u64>,
}
