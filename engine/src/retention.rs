//! What has to be kept: which snapshots are complete, how far the WAL may be trimmed, and when the next one is due.
//!
//! The floor follows the older of the two newest snapshots, never a peer that is slow or gone (Paxos Made Moderately
//! Complex, §4.2, trims by the slowest). Only a peer to which a snapshot is on its way holds it up, within bounds: the
//! slots behind that snapshot are what it needs next, and without them it would have to start over for ever
//! (openraft#1706, braft#423).

use crate::config::{Config, Limits};
use crate::ids::{Lsn, ReplicaId, Slot, Time};
use crate::message::FetchSnapshot;
use crate::output::PartForPeer;
use crate::seams::SnapshotInfo;
use crate::snapshot::PART_BYTES_MAX;

/// Election timeouts without a sign of progress after which nothing is kept for a peer any more.
const PIN_TIMEOUTS: u64 = 10;
/// After a snapshot failed, the next one is due this part of the distance later.
const RETRY_SHARE: u64 = 4;

#[derive(Clone, Debug)]
pub struct Retention {
    /// Oldest first.
    complete: Vec<SnapshotInfo>,
    pins: Vec<Pin>,
    /// The snapshot after this many bytes of WAL is the next one.
    due_at_bytes: u64,
    /// The record of the newest floor, until it is durable.
    trimming: Option<(Lsn, Slot)>,
    installed: Slot,
    pub counters: Counters,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub snapshots_taken: u64,
    pub snapshots_failed: u64,
    pub snapshots_installed: u64,
    /// Peers for which slots were kept until they gave no sign any more, or until it was too much.
    pub pins_expired: u64,
}

#[derive(Clone, Copy, Debug)]
struct Pin {
    peer: ReplicaId,
    /// The peer holds every slot up to here, or will once its snapshot arrived.
    slot: Slot,
    /// When it last gave a sign.
    at: Time,
    since_bytes: u64,
}

impl Retention {
    /// Replicas take their snapshots at different times: each one's first is due a share of the distance later.
    /// `replayed_bytes` of WAL stand behind the snapshot that this replica started from.
    pub fn new(config: &Config, complete: &[SnapshotInfo], replayed_bytes: u64) -> Retention {
        let distance = config.limits.snapshot_distance_bytes;
        let share = distance / u64::from(config.replicas) * u64::from(config.replica.0 - 1);
        let newest = complete.last().map_or(0, |snapshot| snapshot.bytes);
        Retention {
            complete: complete.to_vec(),
            pins: Vec::new(),
            due_at_bytes: (distance + share)
                .max(newest)
                .saturating_sub(replayed_bytes),
            trimming: None,
            installed: Slot::ZERO,
            counters: Counters::default(),
        }
    }

    /// Whether a snapshot is due. Behind a large one the next is due later, so that snapshots write no more than the
    /// WAL does.
    pub fn due(&self, appended_bytes: u64, commit_index: Slot) -> bool {
        appended_bytes >= self.due_at_bytes && self.newest().slot < commit_index
    }

    /// The newest complete one; of slot zero and no bytes if there is none.
    pub fn newest(&self) -> SnapshotInfo {
        self.complete.last().copied().unwrap_or(SnapshotInfo {
            slot: Slot::ZERO,
            bytes: 0,
            checksum: 0,
        })
    }

    /// A snapshot that this replica took begins: the distance to the next one is counted from here.
    pub fn begun(&mut self, limits: &Limits, appended_bytes: u64) {
        let distance = limits.snapshot_distance_bytes.max(self.newest().bytes);
        self.due_at_bytes = appended_bytes.saturating_add(distance);
    }

    pub fn taken(&mut self, snapshot: SnapshotInfo) {
        self.counters.snapshots_taken += 1;
        self.add(snapshot);
    }

    pub fn failed(&mut self, limits: &Limits, appended_bytes: u64) {
        self.counters.snapshots_failed += 1;
        let pause = limits.snapshot_distance_bytes / RETRY_SHARE;
        self.due_at_bytes = appended_bytes.saturating_add(pause);
    }

    pub fn installed(&mut self, snapshot: SnapshotInfo, limits: &Limits, appended_bytes: u64) {
        self.counters.snapshots_installed += 1;
        self.installed = snapshot.slot;
        self.add(snapshot);
        self.begun(limits, appended_bytes);
    }

    pub fn installed_slot(&self) -> Slot {
        self.installed
    }

    fn add(&mut self, snapshot: SnapshotInfo) {
        assert!(
            self.newest().slot <= snapshot.slot,
            "the snapshot of {} came after that of {}",
            snapshot.slot,
            self.newest().slot
        );
        self.complete.retain(|known| known.slot < snapshot.slot);
        self.complete.push(snapshot);
    }

    /// A complete one turned out to be unreadable.
    pub fn lost(&mut self, slot: Slot) {
        self.complete.retain(|known| known.slot != slot);
    }

    /// Slots below the returned one are needed neither here nor for a peer that is being helped.
    pub fn floor(&mut self, now: Time, config: &Config, appended_bytes: u64) -> Slot {
        let Some(older) = self.complete.len().checked_sub(2) else {
            return Slot(1);
        };
        let floor = self.complete[older].slot.next();
        let longest = PIN_TIMEOUTS * config.timers.election_timeout_ns;
        let pinned = self.pins.len();
        self.pins.retain(|pin| {
            now.since(pin.at) < longest
                && appended_bytes - pin.since_bytes <= config.limits.snapshot_pin_bytes_max
        });
        self.counters.pins_expired += (pinned - self.pins.len()) as u64;
        let needed = self.pins.iter().map(|pin| pin.slot.next());
        needed.fold(floor, Slot::min)
    }

    /// What to send to a peer that asks for a part: of the snapshot it wants, or else the beginning of the newest.
    pub fn serve(
        &mut self,
        now: Time,
        to: ReplicaId,
        fetch: &FetchSnapshot,
        appended_bytes: u64,
    ) -> Option<PartForPeer> {
        let newest = *self.complete.last()?;
        let wanted = fetch
            .snapshot
            .filter(|wanted| self.complete.contains(wanted));
        let (snapshot, offset) = wanted.map_or((newest, 0), |wanted| (wanted, fetch.offset));
        match self.pins.iter_mut().find(|pin| pin.peer == to) {
            Some(pin) => {
                pin.at = now;
                pin.slot = pin.slot.max(snapshot.slot);
            }
            None => self.pins.push(Pin {
                peer: to,
                slot: snapshot.slot,
                at: now,
                since_bytes: appended_bytes,
            }),
        }
        (offset < snapshot.bytes).then_some(PartForPeer {
            to,
            snapshot,
            offset,
            bytes: (fetch.bytes as usize).clamp(1, PART_BYTES_MAX),
        })
    }

    /// A peer holds every slot up to `commit_index`. Once it is beyond the newest snapshot, it needs no help any more.
    pub fn hear(&mut self, now: Time, peer: ReplicaId, commit_index: Slot) {
        if self.pins.is_empty() {
            return;
        }
        let newest = self.newest().slot;
        self.pins
            .retain(|pin| pin.peer != peer || commit_index < newest.max(pin.slot));
        for pin in self.pins.iter_mut().filter(|pin| pin.peer == peer) {
            if commit_index > pin.slot {
                pin.slot = commit_index;
                pin.at = now;
            }
        }
    }

    /// The record `lsn` says that the floor is `floor`.
    pub fn trimming(&mut self, lsn: Lsn, floor: Slot) {
        self.trimming = Some((lsn, floor));
        // The newest snapshot at the floor or below is the one that stands for the slots below.
        self.complete.retain(|known| known.slot >= floor.previous());
    }

    pub fn is_trimming(&self) -> bool {
        self.trimming.is_some()
    }

    /// The floor whose record became durable by now, once.
    pub fn trimmed(&mut self, durable: Lsn) -> Option<Slot> {
        let (_, floor) = self.trimming.take_if(|(lsn, _)| *lsn <= durable)?;
        Some(floor)
    }
}
