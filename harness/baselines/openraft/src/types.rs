//! The library's types, and how they map to Synod's.

use std::fmt;

use openraft::vote::RaftLeaderId;
use openraft::{EmptyNode, alias};
use serde::{Deserialize, Serialize};
use synod_engine::ids::{Ballot, ReplicaId, Slot};
use synod_engine::message::Value;

openraft::declare_raft_types!(
    pub Types:
        D = Batch,
        R = (),
        NodeId = u64,
        Node = EmptyNode,
        AsyncRuntime = openraft_rt_tokio::TokioRuntime,
);

pub type LogId = alias::LogIdOf<Types>;
pub type Vote = alias::VoteOf<Types>;
pub type Entry = alias::EntryOf<Types>;
pub type LeaderId = alias::LeaderIdOf<Types>;
pub type Members = openraft::Membership<u64, EmptyNode>;

/// What the library replicates: the value of one slot.
#[derive(Clone, Serialize, Deserialize)]
pub struct Batch {
    /// Travels with the entry; the value itself travels beside the message.
    pub bytes: u32,
    #[serde(skip)]
    pub value: Value,
}

impl Batch {
    pub fn new(value: Value) -> Batch {
        Batch {
            bytes: value.len() as u32,
            value,
        }
    }
}

impl fmt::Display for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.bytes)
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The library counts from 0, Synod from 1.
pub fn slot_of(index: u64) -> Slot {
    Slot(index + 1)
}

pub fn ballot_of(leader: &LeaderId) -> Ballot {
    Ballot {
        round: leader.term,
        replica: ReplicaId(leader.node_id as u8),
    }
}

pub fn leader_of(ballot: Ballot) -> LeaderId {
    LeaderId::new(ballot.round, u64::from(ballot.replica.0))
}

/// The id of the entry in a slot that was written at `ballot`.
pub fn log_id_of(slot: Slot, ballot: Ballot) -> LogId {
    LogId {
        leader_id: leader_of(ballot),
        index: slot.0 - 1,
    }
}
