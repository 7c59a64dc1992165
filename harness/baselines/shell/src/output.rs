//! What one turn of a protocol asks for: plain data, reused from turn to turn.

use bytes::Bytes;
use synod_engine::ids::{Lsn, ReplicaId, Slot};
use synod_engine::message::{Record, Value};
use synod_engine::seams::{Frame, Lane};

#[derive(Debug)]
pub struct Output {
    appended: Lsn,
    pub(crate) records: Vec<(Lsn, Record)>,
    pub(crate) frames: Vec<(ReplicaId, Lane, Frame)>,
    pub(crate) chosen: Vec<Value>,
    pub(crate) reads: Vec<(Slot, Slot)>,
}

impl Output {
    /// `appended` is the last record that the WAL holds.
    pub(crate) fn new(appended: Lsn) -> Output {
        Output {
            appended,
            records: Vec::new(),
            frames: Vec::new(),
            chosen: Vec::new(),
            reads: Vec::new(),
        }
    }

    /// Appends a record to the WAL. It is durable when [`crate::Protocol::durable`] was given its number.
    pub fn append(&mut self, record: Record) -> Lsn {
        self.appended = self.appended.next();
        self.records.push((self.appended, record));
        self.appended
    }

    /// The last record appended so far.
    pub fn appended(&self) -> Lsn {
        self.appended
    }

    /// Sends `head` and `body`, back to back, to a peer. `head` starts with the length of the rest, u32 little-endian.
    pub fn send(&mut self, to: ReplicaId, lane: Lane, head: Bytes, body: Bytes) {
        self.frames.push((to, lane, Frame { head, body }));
    }

    /// The value of the next slot is chosen; an empty one is a no-op.
    pub fn choose(&mut self, value: Value) {
        self.chosen.push(value);
    }

    /// Asks for values that are durable and no longer in memory.
    pub fn read(&mut self, from: Slot, through: Slot) {
        self.reads.push((from, through));
    }
}
