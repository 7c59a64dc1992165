//! What the parts of a run share. One thread, so no locks.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use synod_engine::ids::ReplicaId;
use synod_simulator::linearizability::Operation;
use tokio::time::Instant;

use super::fault::{Fault, Lane};
use super::schedule::Planned;

pub struct Shared {
    /// Where the run's clock begins, which is when the load does. Every time is counted from here.
    origin: Cell<Instant>,
    /// Nothing new is asked for from here on.
    pub end_ms: u64,
    /// Who leads, as far as the monitor knows.
    pub leader: Cell<Option<ReplicaId>>,
    /// The leader over time, one entry per change.
    pub leaders: RefCell<Vec<(u64, Option<ReplicaId>)>>,
    /// What is being done right now.
    pub now: RefCell<BTreeMap<&'static str, String>>,
    pub history: RefCell<Vec<Operation>>,
    pub acknowledged: Cell<u64>,
    pub reports: RefCell<Vec<FaultReport>>,
    processes: Cell<u64>,
}

/// One fault as it happened, in milliseconds from the start of the load.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FaultReport {
    pub fault: Fault,
    pub lane: Lane,
    /// Whom and how, in words.
    pub what: String,
    pub replicas: Vec<u8>,
    pub planned_at_ms: u64,
    pub from_ms: u64,
    /// When it was undone.
    pub to_ms: u64,
    /// Whether it was seen to do anything.
    pub struck: bool,
    /// What was seen.
    pub evidence: String,
}

impl Shared {
    pub fn new(seconds: u32) -> Shared {
        Shared {
            origin: Cell::new(Instant::now()),
            end_ms: u64::from(seconds) * 1_000,
            leader: Cell::new(None),
            leaders: RefCell::default(),
            now: RefCell::default(),
            history: RefCell::default(),
            acknowledged: Cell::new(0),
            reports: RefCell::default(),
            processes: Cell::new(0),
        }
    }

    /// The load begins now, with this leader.
    pub fn start(&self, leader: ReplicaId) {
        self.origin.set(Instant::now());
        self.leader.set(Some(leader));
        self.leaders.borrow_mut().push((0, Some(leader)));
    }

    pub fn now_ns(&self) -> u64 {
        self.origin.get().elapsed().as_nanos() as u64
    }

    pub fn now_ms(&self) -> u64 {
        self.origin.get().elapsed().as_millis() as u64
    }

    pub fn at(&self, ms: u64) -> Instant {
        self.origin.get() + Duration::from_millis(ms)
    }

    pub fn over(&self) -> bool {
        self.now_ms() >= self.end_ms
    }

    /// The number of a client process: every session gets its own.
    pub fn next_process(&self) -> u64 {
        self.processes.set(self.processes.get() + 1);
        self.processes.get()
    }

    /// Says what `lane` does from now on, for the progress line.
    pub fn begin(&self, lane: Lane, what: &str) {
        self.now.borrow_mut().insert(lane.name(), what.to_owned());
    }

    /// The fault is undone; returns its report, which begins at `from_ms` and ends now.
    pub fn end(&self, planned: &Planned, from_ms: u64, strike: Strike) {
        let lane = planned.fault.lane();
        self.now.borrow_mut().remove(lane.name());
        self.reports.borrow_mut().push(FaultReport {
            fault: planned.fault,
            lane,
            what: strike.what,
            replicas: strike.replicas.iter().map(|id| id.0).collect(),
            planned_at_ms: planned.at_ms,
            from_ms,
            to_ms: self.now_ms(),
            struck: strike.struck,
            evidence: strike.evidence,
        });
    }
}

/// What a fault did.
#[derive(Clone, Debug)]
pub struct Strike {
    pub what: String,
    pub replicas: Vec<ReplicaId>,
    pub struck: bool,
    pub evidence: String,
}
