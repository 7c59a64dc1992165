//! From the records of a WAL back to a running replica.

use crate::config::Config;
use crate::driver::{Driver, State};
use crate::ids::{Ballot, Incarnation, Lsn, Slot, Time};
use crate::message::Record;
use crate::output::Output;
use crate::replica::Replay;
use crate::seams::{Network, StateMachine, Wal};

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
    /// Carried over from segments that are gone.
    pub promised: Ballot,
    pub trim_floor: Slot,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecoveryError {
    #[error(
        "the WAL begins at {floor}, but there is no snapshot of what came before: restore the data directory, or \
         remove it and start the replica as a new member"
    )]
    Trimmed { floor: Slot },
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

    /// The replica at the end of its WAL.
    pub fn start<W: Wal, N: Network>(
        mut self,
        now: Time,
        wal: W,
        network: N,
        disk: OnDisk,
    ) -> Result<Driver<W, N, M>, RecoveryError> {
        if disk.trim_floor > Slot(1) {
            let floor = disk.trim_floor;
            return Err(RecoveryError::Trimmed { floor });
        }
        self.replay.promise(disk.promised);
        let replica = self.replay.finish(now, self.last, disk.incarnation);
        Ok(Driver::new(replica, self.state, wal, network))
    }
}
