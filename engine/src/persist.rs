//! How far the WAL got: `durable ≤ appended`, and since when the disk owes something.

use crate::ids::{Lsn, Time};
use crate::message::Record;
use crate::output::Output;

#[derive(Clone, Debug)]
pub struct Persist {
    appended: Lsn,
    durable: Lsn,
    /// When the disk last finished something, or was first asked while it owed nothing.
    progress_at: Time,
}

impl Persist {
    /// After recovery everything that is in the WAL is durable.
    pub fn new(last: Lsn) -> Persist {
        Persist {
            appended: last,
            durable: last,
            progress_at: Time(0),
        }
    }

    pub fn append(&mut self, now: Time, record: Record, out: &mut Output) -> Lsn {
        if self.appended == self.durable {
            self.progress_at = now;
        }
        self.appended = self.appended.next();
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
        }
        news
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
