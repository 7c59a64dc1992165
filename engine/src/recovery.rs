//! From the newest snapshot and the records of a WAL back to a running replica.

use crate::config::Config;
use crate::driver::Driver;
use crate::ids::{Ballot, Incarnation, Lsn, Slot, Time};
use crate::message::Record;
use crate::output::Output;
use crate::replica::Replay;
use crate::seams::{Network, Origin, SnapshotStore, StateMachine, Wal};
use crate::snapshot::Restored;
use crate::state::State;

/// Takes a WAL's records in order and applies what they prove to be chosen, so that memory does not grow with the
/// length of the WAL.
pub struct Recovery<M> {
    replay: Replay,
    state: State<M>,
    out: Output,
    last: Lsn,
}

/// Records that were durable and cannot be read any more, with intact ones behind them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hole {
    /// The first record behind the hole.
    pub next: Lsn,
    /// No record up to there promised more, trimmed more, or was of a higher slot.
    pub promised: Ballot,
    pub trim_floor: Slot,
    pub slot_max: Slot,
}

/// What the disk says besides the records that it still has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OnDisk {
    pub incarnation: Incarnation,
    /// The last record, visited or not.
    pub last: Lsn,
    /// Carried over from segments that are gone, or were not read because the snapshot covers them.
    pub promised: Ballot,
    pub trim_floor: Slot,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecoveryError {
    #[error(
        "the WAL begins at {floor}, but the newest intact snapshot ends at {covers}, and a cluster of one replica has \
         nobody to fetch what lies between from: restore the data directory from a copy"
    )]
    Trimmed { floor: Slot, covers: Slot },
}

impl<M: StateMachine> Recovery<M> {
    pub fn new(config: Config, machine: M) -> Recovery<M> {
        Recovery {
            replay: Replay::new(config),
            state: State::new(machine),
            out: Output::default(),
            last: Lsn::ZERO,
        }
    }

    /// Starts from a snapshot. Only records of slots above [`Recovery::covers`] are needed besides.
    pub fn from_snapshot(config: Config, restored: Restored<M>) -> Recovery<M> {
        let covers = restored.state.applied();
        Recovery {
            replay: Replay::from_snapshot(config, covers, restored.members),
            state: restored.state,
            out: Output::default(),
            last: Lsn::ZERO,
        }
    }

    /// Every slot up to here is part of the snapshot; zero without one.
    pub fn covers(&self) -> Slot {
        self.replay.covers()
    }

    pub fn visit(&mut self, lsn: Lsn, record: Record) {
        assert!(lsn > self.last, "{lsn:?} came after {:?}", self.last);
        self.last = lsn;
        self.replay.record(record, &mut self.out);
        for (slot, value) in self.out.chosen.drain(..) {
            self.state.apply(slot, value, |_, _| {});
        }
    }

    /// The records up to `hole.next` are lost: what they may have held is fetched from peers before this replica gives
    /// a promise again (see [`crate::mending`]).
    pub fn hole(&mut self, hole: Hole) {
        assert!(hole.next > self.last, "a hole ends before {:?}", self.last);
        self.last = Lsn(hole.next.0 - 1);
        self.replay.promise(hole.promised);
        self.replay.trim(hole.trim_floor);
        self.replay.hole(hole.slot_max);
    }

    /// The replica at the end of its WAL. Slots that neither a snapshot nor the WAL holds any more come from a peer.
    pub fn start<W: Wal, N: Network, S: SnapshotStore>(
        mut self,
        now: Time,
        mut wal: W,
        network: N,
        mut snapshots: S,
        disk: OnDisk,
    ) -> Result<Driver<W, N, M, S>, RecoveryError> {
        let last = self.last.max(disk.last);
        self.replay.promise(disk.promised);
        self.replay.trim(disk.trim_floor);
        let (floor, covers) = (self.replay.trim_floor(), self.replay.covers());
        let is_alone = self.replay.is_alone();
        if is_alone && floor > covers.next() {
            return Err(RecoveryError::Trimmed { floor, covers });
        }
        // A crash may have come between the record of the floor and what follows from it. If the snapshot that stood
        // for the floor is damaged, the WAL may hold what a former one lacks: then that stays.
        wal.trim(floor.min(covers.next()));
        snapshots.drop_below(floor.previous().min(covers));
        let complete = snapshots.complete();
        let mut replica = self.replay.finish(now, last, disk.incarnation, complete);
        let is_ahead = covers > Slot::ZERO && snapshots.origin(covers) == Origin::Ahead;
        if is_ahead && floor <= covers && !is_alone {
            replica.started_ahead(now, covers, &mut self.out);
            for (lsn, record) in self.out.records.drain(..) {
                wal.append(lsn, &record);
            }
        }
        replica.arrive(now);
        Ok(Driver::new(replica, self.state, wal, network, snapshots))
    }
}
