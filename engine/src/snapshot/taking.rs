//! A snapshot that is being taken, step by step between the turns' other work.

use bytes::Bytes;

use crate::config::Limits;
use crate::ids::{Lsn, Slot};
use crate::members::Members;
use crate::seams::{Origin, SnapshotStore, StateMachine};
use crate::state::State;

use super::body::{Kind, Writer};

/// Bytes of one append.
const APPEND_BYTES_MAX: usize = 1 << 20;

pub struct Taking {
    slot: Slot,
    /// Once the WAL is durable up to here, it holds everything that this covers.
    covered_by: Lsn,
    writer: Writer,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Sessions,
    Machine,
}

/// What a step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    More,
    /// Everything is with the store.
    Written,
    /// Commands overwrote more than may be kept for it: given up.
    OverLimit,
}

impl Taking {
    /// Fixes the state as it is now. Costs about as much as one command.
    pub fn begin<M: StateMachine>(
        state: &mut State<M>,
        members: &Members,
        appended: Lsn,
        store: &mut impl SnapshotStore,
    ) -> Taking {
        let slot = state.applied();
        state.sessions.begin_snapshot();
        state.machine.begin_snapshot();
        let (writer, header) = Writer::new(slot, members);
        store.begin(slot);
        store.append(header);
        Taking {
            slot,
            covered_by: appended,
            writer,
            phase: Phase::Sessions,
        }
    }

    pub fn slot(&self) -> Slot {
        self.slot
    }

    /// Hands about `bytes_max` more bytes to the store, if that keeps up. What commands changed meanwhile waits here,
    /// within its limit.
    pub fn step<M: StateMachine>(
        &mut self,
        state: &mut State<M>,
        store: &mut impl SnapshotStore,
        bytes_max: usize,
        limits: &Limits,
        durable: Lsn,
    ) -> Step {
        if kept_bytes(state) > limits.snapshot_kept_bytes_max {
            return Step::OverLimit;
        }
        if store.backlog() >= limits.snapshot_backlog_bytes_max {
            return Step::More;
        }
        let mut more = false;
        let piece = match self.phase {
            Phase::Sessions => self.writer.piece(Kind::Sessions, |piece| {
                more = state.sessions.write_snapshot(bytes_max, piece);
            }),
            Phase::Machine => self.writer.piece(Kind::Machine, |piece| {
                more = state.machine.write_snapshot(bytes_max, piece);
            }),
        };
        append(store, piece);
        match (more, self.phase) {
            (true, _) => Step::More,
            (false, Phase::Sessions) => {
                self.phase = Phase::Machine;
                Step::More
            }
            (false, Phase::Machine) => {
                let (end, checksum) = self.writer.end();
                store.append(end);
                // Not waited for: a WAL that waits for room gets it from this snapshot.
                let is_ahead = durable < self.covered_by;
                store.finish(
                    checksum,
                    if is_ahead {
                        Origin::Ahead
                    } else {
                        Origin::Replayable
                    },
                );
                Step::Written
            }
        }
    }
}

/// Bytes that are kept for the snapshot under way.
pub fn kept_bytes<M: StateMachine>(state: &State<M>) -> usize {
    state.sessions.snapshot_bytes() + state.machine.snapshot_bytes()
}

fn append(store: &mut impl SnapshotStore, mut piece: Bytes) {
    while piece.len() > APPEND_BYTES_MAX {
        store.append(piece.split_to(APPEND_BYTES_MAX));
    }
    store.append(piece);
}
