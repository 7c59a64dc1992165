//! What one turn of the core asks for: plain data, reused from turn to turn.

use bytes::Bytes;

use crate::ids::{Ballot, Lsn, ReplicaId, ReplicaSet, Slot};
use crate::message::{Message, Record, StateHash, Value};
use crate::seams::SnapshotInfo;

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
    /// Parts of complete snapshots that peers asked for.
    pub parts: Vec<PartForPeer>,
    /// What came in of a snapshot to be installed here, in order.
    pub incoming: Vec<Incoming>,
    /// The floor that became durable: the WAL may free what is below, and older snapshots may go.
    pub trim: Option<Slot>,
    /// What peers said about their states, to be compared with the own one.
    pub hashes: Vec<(ReplicaId, StateHash)>,
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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartForPeer {
    pub to: ReplicaId,
    pub snapshot: SnapshotInfo,
    pub offset: u64,
    pub bytes: usize,
}

/// What to do about the snapshot that a peer sends. It counts for nothing before it is durable: then
/// [`crate::replica::Replica::install`] makes it this replica's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    Begin(SnapshotInfo),
    Part(Bytes),
    /// Every part came.
    Complete,
    Abandon,
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
        self.parts.clear();
        self.incoming.clear();
        self.hashes.clear();
        self.trim = None;
        self.leadership = None;
    }
}
