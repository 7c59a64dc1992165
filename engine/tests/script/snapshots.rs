//! Snapshots in the scripts: what the core is told of them, and what it asks for.

use std::fmt::Write;

use synod_engine::ids::{ReplicaId, Slot, Time};
use synod_engine::members::Members;
use synod_engine::message::SnapshotPart;
use synod_engine::output::{Incoming, Output, PartForPeer};
use synod_engine::seams::SnapshotInfo;

use super::Script;

/// Bytes of one part of a snapshot in the scripts.
pub(super) const PART_BYTES: u64 = 100;

impl Script {
    pub(super) fn print_snapshots(
        &mut self,
        replica: ReplicaId,
        parts: &[PartForPeer],
        incoming: &[Incoming],
        trim: Option<Slot>,
    ) {
        for part in parts {
            let (slot, offset) = (part.snapshot.slot, part.offset);
            let _ = writeln!(
                self.printed,
                "{replica} is to send {} the snapshot of {slot} from byte {offset}",
                part.to
            );
        }
        for incoming in incoming {
            let what = match incoming {
                Incoming::Begin(snapshot) => format!("begins the snapshot of {}", snapshot.slot),
                Incoming::Part(bytes) => format!("stores {} bytes of it", bytes.len()),
                Incoming::Complete => "has all of it".into(),
                Incoming::Abandon => "gives it up".into(),
            };
            let _ = writeln!(self.printed, "{replica} {what}");
        }
        if let Some(floor) = trim {
            let _ = writeln!(self.printed, "{replica} trims its WAL to {floor}");
        }
    }

    pub(super) fn snapshot(&mut self, replica: ReplicaId, bytes: u64) {
        let member = self.member(replica);
        let running = member.replica.as_mut().expect("it runs");
        running.snapshot_begun();
        running.snapshot_taken(info(running.commit_index(), bytes));
        self.turn(replica);
    }

    pub(super) fn install(&mut self, replica: ReplicaId, snapshot: SnapshotInfo) {
        let now = Time(self.now);
        let mut out = Output::default();
        let running = self.member(replica).replica.as_mut().expect("it runs");
        running.install(now, snapshot, Members::default(), &mut out);
        running.flush(now, &mut out);
        self.collect(replica, out);
    }
}

/// A snapshot as the scripts have them: named by its slot.
pub(super) fn info(slot: Slot, bytes: u64) -> SnapshotInfo {
    SnapshotInfo {
        slot,
        bytes,
        checksum: slot.0,
    }
}

pub(super) fn part(slot: Slot, total: u64, offset: u64) -> SnapshotPart {
    let bytes = (total - offset).min(PART_BYTES);
    SnapshotPart {
        snapshot: info(slot, total),
        offset,
        bytes: vec![0; bytes as usize].into(),
    }
}
