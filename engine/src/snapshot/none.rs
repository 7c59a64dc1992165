//! No place for snapshots: every one fails at once, so the WAL is never trimmed.

use bytes::Bytes;

use crate::ids::Slot;
use crate::seams::{Origin, SnapshotEvent, SnapshotInfo, SnapshotStore};

/// For replicas whose whole WAL is kept: benchmarks, and tests of something else.
#[derive(Clone, Debug, Default)]
pub struct NoSnapshots {
    refused: Option<Slot>,
}

impl SnapshotStore for NoSnapshots {
    fn complete(&self) -> &[SnapshotInfo] {
        &[]
    }

    fn begin(&mut self, slot: Slot) {
        self.refused = Some(slot);
    }

    fn append(&mut self, _bytes: Bytes) {}

    fn backlog(&self) -> usize {
        0
    }

    fn finish(&mut self, _checksum: u64, _origin: Origin) {}

    fn origin(&self, _slot: Slot) -> Origin {
        Origin::Replayable
    }

    fn abandon(&mut self) {
        self.refused = None;
    }

    fn read(&mut self, _slot: Slot, _offset: u64, _bytes_max: usize) -> bool {
        false
    }

    fn poll(&mut self) -> Option<SnapshotEvent> {
        let slot = self.refused.take()?;
        let why = "this replica keeps no snapshots".to_string();
        Some(SnapshotEvent::Failed { slot, why })
    }

    fn drop_below(&mut self, _slot: Slot) {}

    fn counters(&self, _report: &mut dyn FnMut(&'static str, u64)) {}
}
