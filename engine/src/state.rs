//! The replicated state: what is equal on every replica after the same slots.

use crate::batch;
use crate::client::Request;
use crate::ids::Slot;
use crate::message::{StateHash, Value};
use crate::reply::Scratch;
use crate::seams::StateMachine;
use crate::sessions::{Applied, Sessions};

#[derive(Debug, Default)]
pub struct State<M> {
    pub machine: M,
    pub sessions: Sessions,
    /// Every slot up to here is applied.
    applied: Slot,
    /// Values that were no batch, and so nothing, since the start.
    pub values_malformed: u64,
    /// Counts what was written, too.
    pub scratch: Scratch,
}

impl<M: StateMachine> State<M> {
    pub fn new(machine: M) -> State<M> {
        State::at(Slot::ZERO, machine, Sessions::default())
    }

    /// The state after `applied`, from its parts.
    pub fn at(applied: Slot, machine: M, sessions: Sessions) -> State<M> {
        State {
            machine,
            sessions,
            applied,
            values_malformed: 0,
            scratch: Scratch::default(),
        }
    }

    pub fn applied(&self) -> Slot {
        self.applied
    }

    /// A function of the applied slots alone: neither of how they were batched into turns, nor of restarts or snapshots.
    pub fn hash(&self) -> StateHash {
        StateHash {
            slot: self.applied,
            machine: self.machine.hash(),
            sessions: self.sessions.hash(),
        }
    }

    /// Applies the next slot; `done` is told what came of each request. A value that is no batch is nothing.
    pub fn apply(&mut self, slot: Slot, value: Value, mut done: impl FnMut(&Request, Applied)) {
        assert_eq!(slot, self.applied.next(), "slots are applied in order");
        self.applied = slot;
        let Ok(requests) = batch::requests(value) else {
            self.values_malformed += 1;
            return;
        };
        self.scratch.begin_slot();
        for (index, request) in requests.enumerate() {
            let applied =
                self.sessions
                    .apply(slot, index, &request, &mut self.machine, &mut self.scratch);
            done(&request, applied);
        }
    }
}
