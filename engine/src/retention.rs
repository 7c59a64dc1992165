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
    /// A peer needs a snapshot that reaches so far: what it asked for can't be read.
    wanted: Option<Slot>,
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
            wanted: None,
            installed: Slot::ZERO,
            counters: Counters::default(),
        }
    }

    /// Whether a snapshot is due. Behind a large one the next is due later, so that snapshots write no more than the
    /// WAL does.
    pub fn due(&self, appended_bytes: u64, commit_index: Slot) -> bool {
        let newest = self.newest().slot;
        let is_wanted = self.wanted.is_some_and(|slot| newest < slot);
        (appended_bytes >= self.due_at_bytes || is_wanted) && newest < commit_index
    }

    /// A peer asked for `slot`, which can be read from nowhere here: the next snapshot is due, however little was
    /// written since the last one.
    pub fn want(&mut self, slot: Slot) {
        self.wanted = self.wanted.max(Some(slot));
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
        self.wanted = None;
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

    /// A complete one turned out to be unreadable. The WAL may be trimmed on its strength: another is due, though
    /// nothing is written any more.
    pub fn lost(&mut self, slot: Slot) {
        self.complete.retain(|known| known.slot != slot);
        self.want(slot);
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

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: ReplicaId = ReplicaId(3);

    fn config() -> Config {
        let mut config = Config::new(ReplicaId(1), 3, 1);
        config.limits.snapshot_distance_bytes = 1_000;
        config.limits.snapshot_pin_bytes_max = 5_000;
        config
    }

    fn info(slot: u64, bytes: u64) -> SnapshotInfo {
        SnapshotInfo {
            slot: Slot(slot),
            bytes,
            checksum: slot,
        }
    }

    fn with(slots: &[u64]) -> Retention {
        let mut retention = Retention::new(&config(), &[], 0);
        for slot in slots {
            retention.taken(info(*slot, 100));
        }
        retention
    }

    fn floor(retention: &mut Retention, now: u64, bytes: u64) -> u64 {
        retention.floor(Time(now), &config(), bytes).0
    }

    fn newest() -> FetchSnapshot {
        FetchSnapshot {
            snapshot: None,
            offset: 0,
            bytes: 10,
        }
    }

    #[test]
    fn the_floor_is_that_of_the_older_of_the_two_newest() {
        assert_eq!(floor(&mut with(&[]), 0, 0), 1);
        assert_eq!(floor(&mut with(&[5]), 0, 0), 1);
        assert_eq!(floor(&mut with(&[5, 9]), 0, 0), 6);
        assert_eq!(floor(&mut with(&[5, 9, 12]), 0, 0), 10);
        let mut lost = with(&[5, 9, 12]);
        lost.lost(Slot(12));
        assert_eq!(floor(&mut lost, 0, 0), 6);
    }

    #[test]
    fn snapshots_are_due_by_distance_and_behind_large_ones_later() {
        let mut retention = with(&[]);
        assert!(!retention.due(999, Slot(4)));
        assert!(retention.due(1_000, Slot(4)));
        retention.begun(&config().limits, 1_000);
        retention.taken(info(4, 3_000));
        assert!(!retention.due(2_000, Slot(4)), "nothing is new");
        assert!(retention.due(2_000, Slot(5)));
        retention.begun(&config().limits, 2_000);
        assert!(!retention.due(4_999, Slot(9)));
        assert!(retention.due(5_000, Slot(9)));
        retention.failed(&config().limits, 5_100);
        assert!(!retention.due(5_349, Slot(9)));
        assert!(retention.due(5_350, Slot(9)));
    }

    #[test]
    fn replicas_take_their_first_one_at_different_times() {
        let due = |replica| {
            let mut config = config();
            config.replica = ReplicaId(replica);
            Retention::new(&config, &[], 0).due_at_bytes
        };
        assert_eq!([due(1), due(2), due(3)], [1_000, 1_333, 1_666]);
        assert_eq!(
            Retention::new(&config(), &[info(3, 10)], 700).due_at_bytes,
            300
        );
    }

    #[test]
    fn trap_31_what_a_peer_needs_behind_its_snapshot_is_pinned_within_bounds() {
        let pinned = || {
            let mut retention = with(&[5, 9]);
            let part = retention.serve(Time(0), PEER, &newest(), 100);
            assert_eq!(part.map(|part| part.snapshot.slot), Some(Slot(9)));
            retention.taken(info(12, 100));
            retention.taken(info(15, 100));
            assert_eq!(floor(&mut retention, 1, 100), 10);
            retention
        };
        // Without a sign of life, or with too much WAL behind, it is given up.
        let timeout = config().timers.election_timeout_ns;
        assert_eq!(floor(&mut pinned(), PIN_TIMEOUTS * timeout, 100), 13);
        assert_eq!(floor(&mut pinned(), 2, 5_100), 10);
        let mut expired = pinned();
        assert_eq!(floor(&mut expired, 2, 5_101), 13);
        assert_eq!(expired.counters.pins_expired, 1);
        // While it catches up, the floor follows it.
        let mut followed = pinned();
        followed.hear(Time(2), PEER, Slot(10));
        assert_eq!(floor(&mut followed, 3, 100), 11);
        followed.hear(Time(4), ReplicaId(2), Slot(99));
        assert_eq!(floor(&mut followed, 5, 100), 11);
        followed.hear(Time(6), PEER, Slot(15));
        assert_eq!(floor(&mut followed, 7, 100), 13);
    }

    #[test]
    fn a_peer_gets_the_part_it_asks_for_or_the_beginning_of_the_newest() {
        let mut retention = with(&[5, 9]);
        let ask = |snapshot, offset| FetchSnapshot {
            snapshot,
            offset,
            bytes: 10,
        };
        let mut serve = |fetch| {
            let part = retention.serve(Time(0), PEER, &fetch, 0)?;
            Some((part.snapshot.slot.0, part.offset, part.bytes))
        };
        assert_eq!(serve(ask(Some(info(5, 100)), 40)), Some((5, 40, 10)));
        assert_eq!(serve(ask(Some(info(5, 99)), 40)), Some((9, 0, 10)));
        assert_eq!(serve(ask(Some(info(4, 100)), 40)), Some((9, 0, 10)));
        assert_eq!(serve(ask(Some(info(9, 100)), 100)), None);
        assert_eq!(with(&[]).serve(Time(0), PEER, &newest(), 0), None);
    }

    #[test]
    fn a_floor_is_reported_once_when_its_record_is_durable() {
        let mut retention = with(&[5, 9]);
        retention.trimming(Lsn(4), Slot(6));
        assert!(retention.is_trimming());
        assert_eq!(retention.trimmed(Lsn(3)), None);
        assert_eq!(retention.trimmed(Lsn(4)), Some(Slot(6)));
        assert_eq!(retention.trimmed(Lsn(5)), None);
        assert!(!retention.is_trimming());
    }
}
