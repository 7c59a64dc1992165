//! Where a test can put something between a replica and its disk or network, such as a bug made by hand.

use synod_engine::ids::ReplicaId;
use synod_engine::seams::{Network, SnapshotStore, Wal};

use crate::outbox::Outbox;
use crate::snapshots::SimulatedStore;
use crate::wal::SimulatedWal;

/// What each replica's driver is given in place of the simulated disk and network.
pub trait Seams: 'static {
    type Wal: Wal;
    type Network: Network;
    type Snapshots: SnapshotStore;

    fn wal(&self, replica: ReplicaId, wal: SimulatedWal) -> Self::Wal;
    fn network(&self, replica: ReplicaId, outbox: Outbox) -> Self::Network;
    fn snapshots(&self, replica: ReplicaId, store: SimulatedStore) -> Self::Snapshots;
}

/// Nothing between them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Honest;

impl Seams for Honest {
    type Wal = SimulatedWal;
    type Network = Outbox;
    type Snapshots = SimulatedStore;

    fn wal(&self, _replica: ReplicaId, wal: SimulatedWal) -> SimulatedWal {
        wal
    }

    fn network(&self, _replica: ReplicaId, outbox: Outbox) -> Outbox {
        outbox
    }

    fn snapshots(&self, _replica: ReplicaId, store: SimulatedStore) -> SimulatedStore {
        store
    }
}
