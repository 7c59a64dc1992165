//! What happens, and when.

use std::cmp::Ordering;

use bytes::Bytes;

use synod_engine::ids::{ClientId, ReplicaId, Slot};
use synod_engine::seams::Arrival;

use crate::faults::Fault;

pub enum Event {
    Deliver {
        to: ReplicaId,
        life: u64,
        arrival: Arrival,
    },
    Turn {
        at: ReplicaId,
        life: u64,
    },
    Wake {
        at: ReplicaId,
        life: u64,
    },
    Written {
        at: ReplicaId,
        life: u64,
        write: u64,
    },
    /// The place of snapshots finished something.
    Stored {
        at: ReplicaId,
        life: u64,
    },
    ToClient {
        connection: ClientId,
        frame: Bytes,
    },
    Client {
        index: usize,
    },
    Connect {
        client: usize,
        replica: ReplicaId,
    },
    Start {
        replica: ReplicaId,
        life: u64,
    },
    Resume {
        replica: ReplicaId,
    },
    Strike {
        fault: Fault,
    },
    Mend {
        mending: Mending,
    },
}

/// How a condition ends.
pub enum Mending {
    Links(Vec<(ReplicaId, ReplicaId)>),
    Slow(ReplicaId, ReplicaId),
    /// Data lanes.
    Data(Vec<(ReplicaId, ReplicaId)>),
    /// A disk is fast again.
    Limp(ReplicaId),
    /// A flapping link goes up or down once more.
    Flap {
        from: ReplicaId,
        to: ReplicaId,
        is_cut: bool,
        left: u64,
    },
    Room(ReplicaId),
    /// The snapshot at `slot`, with which a replica was ahead of its WAL, gets lost.
    SnapshotAhead {
        replica: ReplicaId,
        slot: Slot,
    },
    /// A crowd of new sessions goes on to come, in so many bursts.
    Crowd {
        left: u64,
    },
}

/// Events are taken in the order of their time, and in the order they were scheduled where that is the same.
pub struct Entry {
    pub at: u64,
    pub sequence: u64,
    pub event: Event,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Entry) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Entry) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The earliest is the greatest: what a heap gives first.
impl Ord for Entry {
    fn cmp(&self, other: &Entry) -> Ordering {
        (other.at, other.sequence).cmp(&(self.at, self.sequence))
    }
}
