//! The traits below which the engine knows nothing: disk, network, application.

use bytes::{Bytes, BytesMut};

use crate::ids::{ClientId, Lsn, Owner, ReplicaId, Slot};
use crate::message::{Record, Value};
use crate::reply::Reply;

/// The append-only write-ahead log of one replica.
///
/// Appending never blocks: records gather in memory until [`Wal::submit`] hands them to the disk, and become
/// durable in order of their [`Lsn`]. A failed write or sync is final: every later call reports it, and the
/// process has to stop (a second fsync that "succeeds" after a failed one proves nothing).
pub trait Wal {
    /// Queues a record. `lsn` is the one after the previously appended record's.
    fn append(&mut self, lsn: Lsn, record: &Record);

    /// Bytes of records that may be appended and not be durable. One that bounds them says so.
    fn pending_bytes_max(&self) -> usize {
        usize::MAX
    }

    /// Starts writing what was appended, as far as the depth of writes in flight allows; the rest follows as
    /// earlier writes finish. Called once per turn.
    fn submit(&mut self);

    /// Every record up to the returned one is on disk. Also collects finished writes.
    fn durable(&mut self) -> Result<Lsn, WalFailed>;

    /// Asks for the values of consecutive slots from `from` through `through`, up to about `bytes_max` bytes but
    /// at least one. The answer arrives by [`Wal::take_read`]. Returns false when too many reads are under way.
    fn read(&mut self, from: Slot, through: Slot, bytes_max: usize) -> bool;

    /// The next finished read, in the order they were asked for.
    fn take_read(&mut self) -> Result<Option<WalRead>, WalFailed>;

    /// Frees the segments in which every slot is below `floor`. The floor itself is made durable by a
    /// [`Record::Trimmed`] before.
    fn trim(&mut self, floor: Slot);

    /// Reports every counter by its name.
    fn counters(&self, report: &mut dyn FnMut(&'static str, u64));
}

/// The newest record of each slot that was found, from `from` on without a gap; empty if `from` is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalRead {
    pub from: Slot,
    pub values: Vec<Value>,
}

/// The WAL can no longer promise anything: what was being done, to which file, and what the system said.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the write-ahead log failed and the replica must stop: {0}")]
pub struct WalFailed(pub String);

/// A complete snapshot on disk. Slot, length and checksum name its content: no two contents share all three.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// Every slot up to here is part of it.
    pub slot: Slot,
    pub bytes: u64,
    /// Of all its bytes, as the engine computed it.
    pub checksum: u64,
}

/// Whether replay could stand in for a snapshot that gets lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// When it was finished, the durable WAL held everything that it covers.
    Replayable,
    /// It came from a peer, or was finished before the WAL was durable as far: of what it covers the WAL may hold values
    /// that were never chosen, or nothing.
    Ahead,
}

/// What a [`SnapshotStore`] finished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnapshotEvent {
    /// Written, synced, renamed, and the directory synced: from here on it outlives a crash.
    Durable(SnapshotInfo),
    /// It could not be written; nothing of it is left. The replica goes on and tries again later.
    Failed { slot: Slot, why: String },
    Read {
        slot: Slot,
        offset: u64,
        bytes: Bytes,
    },
    /// A part of it can't be read (any more). It is not listed as complete from here on.
    Unreadable { slot: Slot, why: String },
}

/// The snapshots of one replica: written beside the loop, complete or not there at all.
///
/// No call blocks. At most one snapshot is being written, and the engine decides which complete ones go.
pub trait SnapshotStore {
    /// Those that are complete and durable, oldest first.
    fn complete(&self) -> &[SnapshotInfo];

    /// Starts to write a snapshot that covers every slot up to `slot`. An earlier one of that slot is replaced when
    /// this one is complete.
    fn begin(&mut self, slot: Slot);

    /// The next bytes of the one being written. Ignored after it failed.
    fn append(&mut self, bytes: Bytes);

    /// Bytes appended and not handed to the disk yet.
    fn backlog(&self) -> usize;

    /// Everything is appended: makes it durable under this checksum, and with it where it came from. The answer is
    /// `Durable` or `Failed`.
    fn finish(&mut self, checksum: u64, origin: Origin);

    /// Where the complete one of `slot` came from.
    fn origin(&self, slot: Slot) -> Origin;

    /// Drops the one being written; nothing is reported about it any more.
    fn abandon(&mut self);

    /// Asks for up to `bytes_max` bytes of a complete one; fewer come only at its end. Returns false when too many
    /// reads are under way.
    fn read(&mut self, slot: Slot, offset: u64, bytes_max: usize) -> bool;

    /// The next thing that ended, in the order of their ends.
    fn poll(&mut self) -> Option<SnapshotEvent>;

    /// Complete snapshots of slots below `slot` are no longer needed.
    fn drop_below(&mut self, slot: Slot);

    /// Reports every counter by its name.
    fn counters(&self, report: &mut dyn FnMut(&'static str, u64));
}

/// Which of a link's independent streams a frame travels on. Order holds within a lane only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Small and urgent: elections, heartbeats, acknowledgements. Overtakes the others.
    Control,
    /// Accepts.
    Data,
    /// Catch-up: may be starved by the others.
    Bulk,
}

impl Lane {
    pub const ALL: [Lane; 3] = [Lane::Control, Lane::Data, Lane::Bulk];
}

/// One encoded message: `head` then `body`, back to back on the wire. `head` starts with the length of the rest.
/// Both are reference-counted, so one encoding serves every receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub head: Bytes,
    pub body: Bytes,
}

impl Frame {
    /// Bytes on the wire.
    pub fn len(&self) -> usize {
        self.head.len() + self.body.len()
    }

    pub fn is_empty(&self) -> bool {
        self.head.is_empty() && self.body.is_empty()
    }
}

/// What came in from the network, still encoded, without its length prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arrival {
    Peer {
        from: ReplicaId,
        frame: Bytes,
    },
    Client {
        client: ClientId,
        frame: Bytes,
    },
    /// Comes before the first frame of a client, unless that has no name of its own.
    ClientNamed {
        client: ClientId,
        owner: Owner,
    },
    ClientGone {
        client: ClientId,
    },
}

/// Links to peers and clients. It may drop frames (a full queue, a broken link; counted), but never reorders
/// within a lane. Nothing needs to move before [`Network::flush`], which is called once per turn.
pub trait Network {
    fn send(&mut self, to: ReplicaId, lane: Lane, frame: Frame);

    /// Sends a frame (length prefix included) to one client, if it is still connected.
    fn reply(&mut self, client: ClientId, frame: Bytes);

    /// Disconnects a client that breaks the protocol. What it sent before may still arrive.
    fn expel(&mut self, client: ClientId);

    /// Sends a frame to every connected client, and to each later one first of all, until the next announcement.
    fn announce(&mut self, frame: Bytes);

    fn flush(&mut self);

    /// Reports every counter by its name.
    fn counters(&self, report: &mut dyn FnMut(&'static str, u64));
}

/// The replicated application. Deterministic: the same commands in the same order give the same replies and hash.
///
/// A snapshot of it is taken in steps while commands go on executing: [`StateMachine::begin_snapshot`] fixes the
/// moment, and whatever a later command changes before its turn has come is written as it was.
pub trait StateMachine {
    /// Executes one command and writes its reply (possibly nothing). Only what is kept of the reply may count for
    /// [`StateMachine::hash`]: that is equal on all replicas, and bounded.
    fn apply(&mut self, command: &[u8], reply: &mut Reply<'_>);

    /// A hash over everything that the commands so far did.
    fn hash(&self) -> u64;

    /// An empty machine of this kind, to be filled from a snapshot.
    fn empty(&self) -> Self
    where
        Self: Sized;

    /// Fixes the present state for a snapshot; must take no longer than a command. A former one is given up.
    fn begin_snapshot(&mut self);

    /// Appends the next piece of that state, of about `bytes_max` bytes, to `out`. Returns whether more is to come.
    fn write_snapshot(&mut self, bytes_max: usize, out: &mut BytesMut) -> bool;

    /// Bytes kept for the snapshot that is under way: what commands overwrote before its turn came.
    fn snapshot_bytes(&self) -> usize;

    /// Gives up the snapshot that is under way, if any.
    fn end_snapshot(&mut self);

    /// Takes one piece, as [`StateMachine::write_snapshot`] wrote it; pieces come in their order. Returns false if it
    /// can't be one.
    fn restore(&mut self, piece: &[u8]) -> bool;
}
