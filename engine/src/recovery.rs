//! From the records of a WAL back to a running replica.

use crate::config::Config;
use crate::driver::{Driver, State};
use crate::ids::{Ballot, Lsn, Slot, Time};
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

    /// The replica at the end of its WAL. `promised` and `trim_floor` are what the WAL carries over from segments
    /// that it no longer has.
    pub fn start<W: Wal, N: Network>(
        mut self,
        now: Time,
        wal: W,
        network: N,
        promised: Ballot,
        trim_floor: Slot,
    ) -> Result<Driver<W, N, M>, RecoveryError> {
        if trim_floor > Slot(1) {
            return Err(RecoveryError::Trimmed { floor: trim_floor });
        }
        self.replay.promise(promised);
        let replica = self.replay.finish(now, self.last);
        Ok(Driver::new(replica, self.state, wal, network))
    }
}
