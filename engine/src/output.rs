//! What one turn of the core asks for: plain data, reused from turn to turn.

use crate::ids::{Ballot, Lsn, ReplicaId, ReplicaSet, Slot};
use crate::message::{Message, Record, Value};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// To append to the WAL, in this order.
    pub records: Vec<(Lsn, Record)>,
    /// To send now. Replies that wait for the disk are not here yet: the acceptor holds them.
    pub messages: Vec<Outgoing>,
    /// Newly chosen, in slot order without a gap: to apply.
    pub chosen: Vec<(Slot, Value)>,
    /// Chosen values that a peer asked for and that are only in the WAL.
    pub reads: Vec<ReadForPeer>,
    /// Set when what clients should be told about the leader changed.
    pub leadership: Option<Leadership>,
}

/// One message, encoded once for all its receivers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    pub to: ReplicaSet,
    pub message: Message,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadForPeer {
    pub to: ReplicaId,
    pub from: Slot,
    pub through: Slot,
}

/// Who leads, as far as this replica knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leadership {
    pub ballot: Ballot,
    pub leader: Option<ReplicaId>,
}

impl Leadership {
    pub const UNKNOWN: Leadership = Leadership {
        ballot: Ballot::ZERO,
        leader: None,
    };
}

impl Output {
    pub fn send(&mut self, to: ReplicaId, message: Message) {
        self.broadcast(ReplicaSet::one(to), message);
    }

    pub fn broadcast(&mut self, to: ReplicaSet, message: Message) {
        if !to.is_empty() {
            self.messages.push(Outgoing { to, message });
        }
    }

    pub fn clear(&mut self) {
        self.records.clear();
        self.messages.clear();
        self.chosen.clear();
        self.reads.clear();
        self.leadership = None;
    }
}
