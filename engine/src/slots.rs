//! The recent part of the replicated log: what this replica accepted and what it knows to be chosen.

use std::collections::VecDeque;

use crate::ids::{Ballot, Lsn, ReplicaId, Slot};
use crate::members::{Members, Readmission};
use crate::message::{AcceptedValue, Value};
use crate::output::Output;

/// Values of consecutive slots: a bounded tail of chosen ones, kept for peers that lag, then the open ones.
///
/// There is never a hole: an acceptor takes the slots of a ballot in order from its commit index on.
#[derive(Clone, Debug)]
pub struct Slots {
    /// The slot of `entries[0]`.
    base: Slot,
    entries: VecDeque<Entry>,
    /// Every slot up to here is chosen, and held in memory or in the WAL.
    commit_index: Slot,
    /// Every slot up to here is chosen, and durable here as that.
    stored: Slot,
    /// Bytes of the values at or below the commit index.
    chosen_bytes: usize,
    /// Bytes of the values above it.
    open_bytes: usize,
    /// What the values up to the commit index say about who takes part.
    members: Members,
}

#[derive(Clone, Debug)]
pub struct Entry {
    pub ballot: Ballot,
    pub value: Value,
    /// The record that holds this value.
    lsn: Lsn,
}

impl Slots {
    /// Of a replica that knows of no slot yet.
    pub fn new() -> Slots {
        Slots {
            base: Slot(1),
            entries: VecDeque::new(),
            commit_index: Slot::ZERO,
            stored: Slot::ZERO,
            chosen_bytes: 0,
            open_bytes: 0,
            members: Members::default(),
        }
    }

    /// Of a replica whose state is that of a snapshot at `slot`.
    pub fn from_snapshot(slot: Slot, members: Members) -> Slots {
        Slots {
            base: slot.next(),
            commit_index: slot,
            stored: slot,
            members,
            ..Slots::new()
        }
    }

    pub fn members(&self) -> &Members {
        &self.members
    }

    pub fn commit_index(&self) -> Slot {
        self.commit_index
    }

    pub fn stored(&self) -> Slot {
        self.stored
    }

    /// Every record up to `durable` is on disk.
    pub fn note_durable(&mut self, durable: Lsn) {
        // What left memory is durable.
        self.stored = self.stored.max(self.base.previous());
        while self.stored < self.commit_index
            && self
                .get(self.stored.next())
                .is_some_and(|entry| entry.lsn <= durable)
        {
            self.stored = self.stored.next();
        }
    }

    pub fn open_bytes(&self) -> usize {
        self.open_bytes
    }

    /// The highest slot with a value, chosen or not.
    pub fn last(&self) -> Slot {
        Slot(self.base.0 + self.entries.len() as u64 - 1)
    }

    /// The lowest slot whose value is in memory.
    pub fn base(&self) -> Slot {
        self.base
    }

    pub fn get(&self, slot: Slot) -> Option<&Entry> {
        let index = slot.0.checked_sub(self.base.0)?;
        self.entries.get(index as usize)
    }

    /// Notes an accepted value, held by the record `lsn`: of the next slot, or in place of one accepted at a lower
    /// ballot.
    pub fn accept(&mut self, slot: Slot, ballot: Ballot, value: Value, lsn: Lsn) {
        assert!(
            slot > self.commit_index,
            "{slot} is chosen and cannot be accepted again"
        );
        assert!(slot <= self.last().next(), "{slot} would leave a hole");
        self.open_bytes += value.len();
        let entry = Entry { ballot, value, lsn };
        if slot > self.last() {
            self.entries.push_back(entry);
        } else {
            let old = &mut self.entries[(slot.0 - self.base.0) as usize];
            assert!(
                old.ballot <= ballot,
                "{slot} was accepted at {} and cannot be at {ballot}",
                old.ballot
            );
            self.open_bytes -= old.value.len();
            *old = entry;
        }
    }

    /// Notes the chosen value of the slot after the commit index, whatever was accepted for it.
    pub fn choose(&mut self, slot: Slot, value: Value, lsn: Lsn, out: &mut Output) {
        assert_eq!(
            slot,
            self.commit_index.next(),
            "chosen values are learned in slot order"
        );
        let accepted = self.get(slot).map_or(Ballot::ZERO, |entry| entry.ballot);
        self.accept(slot, accepted, value, lsn);
        self.advance(slot, out);
    }

    /// Moves the commit index to `through`; the values held up to there are the chosen ones.
    pub fn advance(&mut self, through: Slot, out: &mut Output) {
        assert!(through <= self.last(), "{through} has no value here");
        while self.commit_index < through {
            let slot = self.commit_index.next();
            let value = self.entries[(slot.0 - self.base.0) as usize].value.clone();
            self.open_bytes -= value.len();
            self.chosen_bytes += value.len();
            self.commit_index = slot;
            self.members.note(slot, &value);
            out.chosen.push((slot, value));
        }
    }

    /// Goes on from a snapshot at `slot`, which says what is chosen up to there. What was accepted above stands: it may
    /// be chosen by this replica's word.
    pub fn install(&mut self, slot: Slot, members: Members) {
        assert!(
            slot > self.commit_index,
            "{slot} is chosen and held: a snapshot of it would be a step back"
        );
        while self.base <= slot
            && let Some(entry) = self.entries.pop_front()
        {
            if self.base <= self.commit_index {
                self.chosen_bytes -= entry.value.len();
            } else {
                self.open_bytes -= entry.value.len();
            }
            self.base = self.base.next();
        }
        self.base = slot.next();
        self.commit_index = slot;
        self.stored = slot;
        self.members = members;
    }

    /// Forgets what was accepted and is not known to be chosen: records that replaced it may be lost.
    pub fn forget_open(&mut self) {
        let chosen = (self.commit_index.next().0 - self.base.0) as usize;
        self.entries.truncate(chosen);
        self.open_bytes = 0;
    }

    /// Forgets the oldest chosen values until the rest fits `bytes_max`. They stay in the WAL: one that is not
    /// durable there yet is kept, for until then the WAL may know an older value of its slot, one that was accepted
    /// and never chosen.
    pub fn evict(&mut self, bytes_max: usize, slots_max: u64, durable: Lsn) {
        while self.base <= self.commit_index
            && self
                .entries
                .front()
                .is_some_and(|entry| entry.lsn <= durable)
            && (self.chosen_bytes > bytes_max || self.commit_index.0 - self.base.0 >= slots_max)
        {
            let entry = self.entries.pop_front().expect("chosen slots have values");
            self.chosen_bytes -= entry.value.len();
            self.base = self.base.next();
        }
    }

    /// Bytes of the values above the commit index, up to and without `slot`.
    pub fn open_bytes_below(&self, slot: Slot) -> usize {
        (self.commit_index.next().0..slot.0)
            .filter_map(|open| self.get(Slot(open)))
            .map(|entry| entry.value.len())
            .sum()
    }

    /// Whether a readmission of this replica is proposed and not known to be chosen, as whatever.
    pub fn open_readmission(&self, replica: ReplicaId) -> bool {
        let first = (self.commit_index.next().0 - self.base.0) as usize;
        self.entries
            .range(first..)
            .filter_map(|entry| Readmission::decode(&entry.value))
            .any(|readmission| readmission.replica == replica)
    }

    /// Everything accepted and not known to be chosen, in slot order.
    pub fn open(&self) -> Vec<AcceptedValue> {
        let first = self.commit_index.next();
        (first.0..=self.last().0)
            .map(|slot| {
                let entry = &self.entries[(slot - self.base.0) as usize];
                AcceptedValue {
                    slot: Slot(slot),
                    ballot: entry.ballot,
                    value: entry.value.clone(),
                }
            })
            .collect()
    }

    /// Values of consecutive slots from `from` on, up to `through` and about `bytes_max` bytes, if in memory.
    pub fn run(&self, from: Slot, through: Slot, bytes_max: usize) -> Vec<Value> {
        let mut values = Vec::new();
        let mut bytes = 0;
        let mut slot = from;
        while slot <= through && (values.is_empty() || bytes < bytes_max) {
            let Some(entry) = self.get(slot) else { break };
            bytes += entry.value.len();
            values.push(entry.value.clone());
            slot = slot.next();
        }
        values
    }
}

impl Default for Slots {
    fn default() -> Slots {
        Slots::new()
    }
}
