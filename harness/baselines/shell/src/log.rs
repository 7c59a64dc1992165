//! The part of the replicated log that is in memory: which ballot each slot was written at, and the newest values.
//!
//! Terms of Raft and ballots of Paxos are both kept as a [`Ballot`]; a term has replica 0.

use std::collections::VecDeque;

use synod_engine::ids::{Ballot, Lsn, Slot};
use synod_engine::message::Value;

/// Values in memory, whatever their size: Synod's bound for the same purpose.
const TAIL_SLOTS_MAX: usize = 65_536;

#[derive(Debug, Default)]
pub struct Log {
    /// The first slot of each run of slots with the same ballot. Grows by one with each change of leader.
    runs: Vec<(Slot, Ballot)>,
    last: Slot,
    /// The values up to `last`.
    tail: VecDeque<Held>,
    tail_bytes: usize,
}

#[derive(Debug)]
struct Held {
    /// Its record in the WAL.
    lsn: Lsn,
    value: Value,
}

impl Log {
    /// The last slot written.
    pub fn last(&self) -> Slot {
        self.last
    }

    /// The ballot of a slot; zero for "before the first slot", `None` beyond the last.
    pub fn ballot(&self, slot: Slot) -> Option<Ballot> {
        if slot > self.last {
            return None;
        }
        let at = self.runs.partition_point(|(first, _)| *first <= slot);
        Some(match at.checked_sub(1) {
            Some(at) => self.runs[at].1,
            None => Ballot::ZERO,
        })
    }

    /// The first slot whose value is in memory.
    pub fn tail_first(&self) -> Slot {
        Slot(self.last.0 + 1 - self.tail.len() as u64)
    }

    /// A value, if it is still in memory.
    pub fn value(&self, slot: Slot) -> Option<&Value> {
        let at = slot.0.checked_sub(self.tail_first().0)?;
        Some(&self.tail.get(at as usize)?.value)
    }

    /// Writes the next slot. `lsn` is its record.
    pub fn push(&mut self, ballot: Ballot, lsn: Lsn, value: Value) {
        self.last = self.last.next();
        if self.runs.last().map(|(_, last)| *last) != Some(ballot) {
            self.runs.push((self.last, ballot));
        }
        self.tail_bytes += value.len();
        self.tail.push_back(Held { lsn, value });
    }

    /// Forgets every slot above `last`: another leader writes them anew.
    pub fn truncate(&mut self, last: Slot) {
        while self.last > last {
            let held = self.tail.pop_back();
            let held = held.expect("what may be rewritten is not chosen, so it is in memory");
            self.tail_bytes -= held.value.len();
            self.last = self.last.previous();
        }
        while self.runs.last().is_some_and(|(first, _)| *first > last) {
            self.runs.pop();
        }
    }

    /// Drops the oldest values until the rest fits into `bytes_max`, but none that is not durable or not applied yet:
    /// those can't be read back, or will be asked for at once.
    pub fn evict(&mut self, applied: Slot, durable: Lsn, bytes_max: usize) {
        while self.tail_bytes > bytes_max || self.tail.len() > TAIL_SLOTS_MAX {
            let first = self.tail_first();
            let Some(oldest) = self.tail.front() else {
                return;
            };
            if oldest.lsn > durable || first > applied {
                return;
            }
            self.tail_bytes -= oldest.value.len();
            self.tail.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use synod_engine::ids::ReplicaId;

    use super::*;

    fn ballot(round: u64) -> Ballot {
        Ballot {
            round,
            replica: ReplicaId(0),
        }
    }

    fn log(rounds: &[u64]) -> Log {
        let mut log = Log::default();
        for (round, lsn) in rounds.iter().zip(1..) {
            log.push(ballot(*round), Lsn(lsn), Value::from_static(b"1234"));
        }
        log
    }

    #[test]
    fn each_slot_keeps_its_ballot_over_truncation() {
        let mut log = log(&[1, 1, 3, 3, 4]);
        let rounds = |log: &Log| -> Vec<u64> {
            (0..=log.last().0)
                .map(|slot| log.ballot(Slot(slot)).expect("it is there").round)
                .collect()
        };
        assert_eq!(rounds(&log), [0, 1, 1, 3, 3, 4]);
        assert_eq!(log.ballot(Slot(6)), None);
        log.truncate(Slot(2));
        log.push(ballot(5), Lsn(6), Value::new());
        assert_eq!(rounds(&log), [0, 1, 1, 5]);
    }

    #[test]
    fn only_what_is_durable_and_applied_leaves_memory() {
        let mut log = log(&[1; 6]);
        log.evict(Slot(6), Lsn(2), 0);
        assert_eq!(log.tail_first(), Slot(3));
        log.evict(Slot(3), Lsn(6), 0);
        assert_eq!(log.tail_first(), Slot(4));
        log.evict(Slot(6), Lsn(6), 8);
        assert_eq!(log.tail_first(), Slot(5));
        assert_eq!(log.value(Slot(4)), None);
        assert!(log.value(Slot(6)).is_some());
        log.evict(Slot(6), Lsn(6), 0);
        assert_eq!((log.tail_first(), log.last()), (Slot(7), Slot(6)));
    }
}
