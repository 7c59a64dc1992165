//! What replicas say to each other. One variant per message, each with only its own fields.

use bytes::Bytes;

use crate::ids::{Ballot, Incarnation, ReplicaSet, Slot};
use crate::seams::SnapshotInfo;

/// The encoded commands of one slot (see [`crate::batch`]). Empty means no-op.
pub type Value = Bytes;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    Prepare(Prepare),
    Promise(Promise),
    Reject(Reject),
    Accept(Accept),
    Accepted(Accepted),
    Heartbeat(Heartbeat),
    Fetch(Fetch),
    Chosen(Chosen),
    FetchSnapshot(FetchSnapshot),
    SnapshotPart(SnapshotPart),
    StateHash(StateHash),
    Known(Known),
}

/// Phase 1a, once per leader, over every slot above `commit_index`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepare {
    pub ballot: Ballot,
    /// Every slot up to here is chosen and held by the proposer.
    pub commit_index: Slot,
}

/// Phase 1b: "I accept nothing below `ballot` any more, and this is what I accepted so far".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Promise {
    pub ballot: Ballot,
    /// Whose promise it is: one from before the loss of a disk does not count.
    pub incarnation: Incarnation,
    /// Every slot up to here is chosen and held by the acceptor; none of them is listed in `accepted`.
    pub commit_index: Slot,
    /// Slots below this one are gone from the acceptor's WAL: they were chosen, never "nothing accepted".
    pub trim_floor: Slot,
    /// Everything accepted above the acceptor's `commit_index`, in slot order.
    pub accepted: Vec<AcceptedValue>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcceptedValue {
    pub slot: Slot,
    pub ballot: Ballot,
    pub value: Value,
}

/// The answer to a Prepare or Accept whose ballot is below `promised`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reject {
    pub promised: Ballot,
}

/// Phase 2a. Encoded once: the same buffer goes to every peer and into the WAL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accept {
    pub ballot: Ballot,
    pub slot: Slot,
    pub commit_index: Slot,
    pub value: Value,
}

/// Phase 2b, cumulative: every slot up to `through` is durable here, at `ballot` or as chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    pub ballot: Ballot,
    pub through: Slot,
}

/// Sent by every replica to every other on the control lane; never waits for data or disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// The ballot this replica leads, or follows.
    pub ballot: Ballot,
    pub role: HeartbeatRole,
    /// The replicas that this one heard within an election timeout, itself included.
    pub hears: ReplicaSet,
    /// Of a leader: every slot up to here is chosen. Of a follower: chosen and held here.
    pub commit_index: Slot,
    /// Every slot up to here was received at `ballot` or is chosen and held (durable or not).
    pub received: Slot,
    /// Every slot up to here is chosen and durable here.
    pub stored: Slot,
    /// What the records that the disk of this replica owes cost in its memory, in bytes.
    pub owed_bytes: u32,
    pub trim_floor: Slot,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeartbeatRole {
    /// Leads `ballot` and hears a quorum.
    Leading,
    /// Hears the leader of `ballot`, or hears of it from it within an election timeout.
    Following,
    /// Asks for promises for `ballot`, or has them and is not established yet: others leave it the time.
    Standing,
    /// Knows of no live leader.
    Searching,
    /// Has the empty disk of a founding member, and no vote until enough others said that they do not know it.
    Founding,
    /// Lost its disk, has no vote, and asks the leader to readmit it as what it is now.
    Readmitting { incarnation: Incarnation },
}

/// "Send me what was chosen from `from` on": catch-up of a replica that lags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    pub from: Slot,
    /// No slot above this one is asked for.
    pub through: Slot,
}

/// Chosen values of consecutive slots from `from` on, as the answer to a Fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    pub from: Slot,
    pub values: Vec<Value>,
}

/// "Send me the part of a snapshot that begins at `offset`": catch-up of a replica below the trim floor. Every byte
/// below the offset of the earliest part that is asked for has arrived. One at the snapshot's end says that everything
/// arrived and the receiver still needs the slots behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchSnapshot {
    /// `None` for the newest one: the answer says which that is.
    pub snapshot: Option<SnapshotInfo>,
    pub offset: u64,
    /// How long the part should be; shorter only at the snapshot's end.
    pub bytes: u32,
}

/// One part of a snapshot. Of a newer one than was asked for, from its beginning, if the sender lacks that one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotPart {
    pub snapshot: SnapshotInfo,
    pub offset: u64,
    pub bytes: Bytes,
}

/// "This is what my state was after `slot`": whoever was there, too, compares it with its own ([`crate::divergence`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateHash {
    pub slot: Slot,
    /// Of the state machine.
    pub machine: u64,
    /// Of the session table.
    pub sessions: u64,
}

/// The answer to a heartbeat of a replica that says [`HeartbeatRole::Founding`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// Whether the sender knows that the asker had a vote before: then its disk is no new one, but lost what it held.
    pub took_part: bool,
    /// Every slot up to here is chosen and held by the sender.
    pub commit_index: Slot,
}

/// What one replica writes to its WAL. The WAL stores it and interprets none of it but `slot`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// Promised `ballot`: nothing below it is accepted after this.
    Promised { ballot: Ballot },
    /// Accepted `value` at `ballot`. Its `commit_index` is this replica's own: every slot up to there is chosen, and
    /// the newest record of each in this WAL holds the chosen value. That is what lets a restart replay by itself.
    Accepted(Accept),
    /// Learned that `value` is chosen for `slot`, at whatever ballot.
    Chosen { slot: Slot, value: Value },
    /// Slots below `floor` are no longer needed from this WAL: a durable snapshot covers them. What earlier records say
    /// of them proves nothing any more: the snapshot may be a peer's.
    Trimmed { floor: Slot },
}
