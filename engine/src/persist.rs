//! How far the WAL got: `durable ≤ appended`, and since when the disk owes something.

use std::collections::VecDeque;

use crate::ids::{Lsn, Time};
use crate::message::Record;
use crate::output::Output;

/// The default of [`crate::config::Limits::owed_bytes_max`].
pub const OWED_BYTES_MAX: usize = 16 << 20;

/// What may be owed beyond the limit in records without a value. A promise that comes when the limit is met is still
/// given; thousands of them, of elections while a disk hangs, are not.
pub const OWED_PROMISE_BYTES_MAX: usize = 256 << 10;

/// What a record costs in memory besides its value while the disk owes it: its places here, in the WAL, among the held
/// replies and among the slots.
pub const OWED_RECORD_BYTES: usize = 256;

#[derive(Clone, Debug)]
pub struct Persist {
    appended: Lsn,
    durable: Lsn,
    /// When the disk last finished something, or was first asked while it owed nothing.
    progress_at: Time,
    /// Records that are not durable, and what each costs in memory.
    owed: VecDeque<(Lsn, usize)>,
    owed_bytes: usize,
    /// From here on nothing is taken that a hung or slow disk could make a queue of: leaders stop proposing, followers
    /// drop what they are sent, and replicas that catch up stop fetching.
    owed_bytes_max: usize,
    /// Bytes of every record appended so far, about as the WAL stores them.
    appended_bytes: u64,
}

/// About what the WAL adds to the value of a record.
const RECORD_OVERHEAD_BYTES: u64 = 64;

impl Persist {
    /// After recovery everything that is in the WAL is durable.
    pub fn new(last: Lsn, owed_bytes_max: usize) -> Persist {
        Persist {
            appended: last,
            durable: last,
            progress_at: Time(0),
            owed: VecDeque::new(),
            owed_bytes: 0,
            owed_bytes_max,
            appended_bytes: 0,
        }
    }

    pub fn append(&mut self, now: Time, record: Record, out: &mut Output) -> Lsn {
        if self.appended == self.durable {
            self.progress_at = now;
        }
        self.appended = self.appended.next();
        let bytes = value_bytes(&record);
        self.appended_bytes += stored_bytes(bytes);
        self.owed
            .push_back((self.appended, OWED_RECORD_BYTES + bytes));
        self.owed_bytes += OWED_RECORD_BYTES + bytes;
        out.records.push((self.appended, record));
        self.appended
    }

    /// Returns whether anything new became durable.
    pub fn advance(&mut self, now: Time, durable: Lsn) -> bool {
        assert!(
            durable <= self.appended,
            "{durable:?} is durable but only {:?} was appended",
            self.appended
        );
        assert!(
            durable >= self.durable,
            "durable went back from {:?} to {durable:?}",
            self.durable
        );
        let news = durable > self.durable;
        if news {
            self.durable = durable;
            self.progress_at = now;
            while let Some((lsn, bytes)) = self.owed.front().copied() {
                if lsn > durable {
                    break;
                }
                self.owed.pop_front();
                self.owed_bytes -= bytes;
            }
        }
        news
    }

    /// Whether the disk keeps up well enough to be given another value.
    pub fn has_room(&self) -> bool {
        self.owed_bytes < self.owed_bytes_max
    }

    /// The same for a promise.
    pub fn has_room_for_promise(&self) -> bool {
        self.owed_bytes < self.owed_bytes_max + OWED_PROMISE_BYTES_MAX
    }

    /// What the records that are not durable cost in memory.
    pub fn owed_bytes(&self) -> usize {
        self.owed_bytes
    }

    /// Bytes of every record since the start, about as the WAL stores them.
    pub fn appended_bytes(&self) -> u64 {
        self.appended_bytes
    }

    pub fn durable(&self) -> Lsn {
        self.durable
    }

    pub fn appended(&self) -> Lsn {
        self.appended
    }

    /// Whether the disk owes something and finished nothing for `stall_ns`.
    pub fn stalled(&self, now: Time, stall_ns: u64) -> bool {
        self.durable < self.appended && now.since(self.progress_at) >= stall_ns
    }

    /// When [`Persist::stalled`] would become true.
    pub fn stall_at(&self, stall_ns: u64) -> Option<Time> {
        (self.durable < self.appended).then(|| self.progress_at.plus(stall_ns))
    }
}

pub fn value_bytes(record: &Record) -> usize {
    match record {
        Record::Accepted(accept) => accept.value.len(),
        Record::Chosen { value, .. } => value.len(),
        Record::Promised { .. } | Record::Trimmed { .. } => 0,
    }
}

/// About what a record with a value of so many bytes takes in the WAL.
pub fn stored_bytes(value_bytes: usize) -> u64 {
    value_bytes as u64 + RECORD_OVERHEAD_BYTES
}
