//! raft-rs' view of the log: the tail in memory, what is older from the WAL.

use std::cell::RefCell;
use std::collections::VecDeque;

use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{Error, GetEntriesContext, RaftState, Result, Storage, StorageError};
use synod_baseline_shell::{Log, Output, Recovered};
use synod_engine::ids::{Ballot, ReplicaId, Slot};
use synod_engine::message::{Accept, Record, Value};
use synod_engine::seams::WalRead;

/// Answers of the WAL that are kept for followers that lag: one for each of a few.
const FETCHED_MAX: usize = 4;
/// Fetches under way; a follower beyond asks again with its next heartbeat.
const FETCHES_MAX: usize = 4;

pub struct Store {
    pub log: Log,
    hard_state: HardState,
    conf_state: ConfState,
    /// What followers need that is no longer in memory. Filled behind a shared reference.
    fetches: RefCell<VecDeque<Fetch>>,
    /// How many of them the WAL was asked for.
    asked: usize,
    fetched: VecDeque<WalRead>,
}

struct Fetch {
    from: Slot,
    through: Slot,
    context: GetEntriesContext,
}

impl Store {
    pub fn new(recovered: Recovered, replicas: u8) -> Store {
        let mut hard_state = HardState::default();
        let Ballot { round, replica } = recovered.promised;
        hard_state.set_term(round);
        hard_state.set_vote(u64::from(replica.0));
        hard_state.set_commit(recovered.commit_index.0);
        let mut conf_state = ConfState::default();
        conf_state.set_voters((1..=u64::from(replicas)).collect());
        Store {
            log: recovered.log,
            hard_state,
            conf_state,
            fetches: RefCell::default(),
            asked: 0,
            fetched: VecDeque::new(),
        }
    }

    /// Makes a changed term or vote a record. A commit index alone is none: the next entry carries it.
    pub fn set_hard_state(&mut self, hard_state: &HardState, out: &mut Output) {
        let before = std::mem::replace(&mut self.hard_state, hard_state.clone());
        if (before.term, before.vote) != (hard_state.term, hard_state.vote) {
            let ballot = Ballot {
                round: hard_state.term,
                replica: ReplicaId(hard_state.vote as u8),
            };
            out.append(Record::Promised { ballot });
        }
    }

    /// Writes an entry over whatever the log had from its index on.
    pub fn append(&mut self, entry: Entry, committed: u64, out: &mut Output) {
        let slot = Slot(entry.index);
        let ballot = term(entry.term);
        if slot <= self.log.last() {
            self.log.truncate(slot.previous());
        }
        assert!(slot == self.log.last().next(), "a gap before entry {slot}");
        let lsn = out.append(Record::Accepted(Accept {
            ballot,
            slot,
            commit_index: Slot(committed).min(slot.previous()),
            value: entry.data.clone(),
        }));
        self.log.push(ballot, lsn, entry.data);
    }

    /// Asks the WAL for what followers need.
    pub fn fetch(&mut self, out: &mut Output) {
        let fetches = self.fetches.get_mut();
        for fetch in fetches.iter().skip(self.asked) {
            out.read(fetch.from, fetch.through);
        }
        self.asked = fetches.len();
    }

    /// Keeps an answer of the WAL, and says whom to send it to.
    pub fn fetched(&mut self, read: WalRead) -> Option<GetEntriesContext> {
        let fetch = self.fetches.get_mut().pop_front()?;
        self.asked -= 1;
        if self.fetched.len() == FETCHED_MAX {
            self.fetched.pop_front();
        }
        self.fetched.push_back(read);
        Some(fetch.context)
    }

    fn entry(&self, slot: Slot, value: Value) -> Entry {
        let ballot = self.log.ballot(slot).expect("a slot of the log");
        Entry {
            index: slot.0,
            term: ballot.round,
            data: value,
            ..Entry::default()
        }
    }

    fn held_in_memory(&self, from: Slot, to: Slot, bytes_max: u64) -> Vec<Entry> {
        let values = (from.0..to.0).map(|slot| {
            let slot = Slot(slot);
            let value = self.log.value(slot).expect("in the tail");
            (slot, value)
        });
        self.limited(values, bytes_max)
    }

    /// As many entries as `bytes_max` allows, at least one.
    fn limited<'a>(
        &self,
        values: impl Iterator<Item = (Slot, &'a Value)>,
        bytes_max: u64,
    ) -> Vec<Entry> {
        let mut bytes = 0;
        let mut entries = Vec::new();
        for (slot, value) in values {
            bytes += value.len() as u64;
            if bytes > bytes_max && !entries.is_empty() {
                break;
            }
            entries.push(self.entry(slot, value.clone()));
        }
        entries
    }

    fn held_from_fetch(&self, from: Slot, to: Slot, bytes_max: u64) -> Option<Vec<Entry>> {
        self.fetched.iter().find_map(|read| {
            let skipped = from.0.checked_sub(read.from.0)? as usize;
            let values = read.values.get(skipped..).filter(|rest| !rest.is_empty())?;
            let values = (from.0..to.0).map(Slot).zip(values);
            Some(self.limited(values, bytes_max))
        })
    }
}

impl Storage for Store {
    fn initial_state(&self) -> Result<RaftState> {
        Ok(RaftState {
            hard_state: self.hard_state.clone(),
            conf_state: self.conf_state.clone(),
        })
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        context: GetEntriesContext,
    ) -> Result<Vec<Entry>> {
        let (from, to) = (Slot(low), Slot(high));
        let bytes_max = max_size.into().unwrap_or(u64::MAX);
        if from >= self.log.tail_first() {
            return Ok(self.held_in_memory(from, to, bytes_max));
        }
        if let Some(entries) = self.held_from_fetch(from, to, bytes_max) {
            return Ok(entries);
        }
        if !context.can_async() {
            return Err(Error::Store(StorageError::Unavailable));
        }
        let mut fetches = self.fetches.borrow_mut();
        if fetches.len() < FETCHES_MAX && fetches.iter().all(|fetch| fetch.from != from) {
            fetches.push_back(Fetch {
                from,
                through: to.min(self.log.tail_first()).previous(),
                context,
            });
        }
        Err(Error::Store(StorageError::LogTemporarilyUnavailable))
    }

    fn term(&self, index: u64) -> Result<u64> {
        match self.log.ballot(Slot(index)) {
            Some(ballot) => Ok(ballot.round),
            None => Err(Error::Store(StorageError::Unavailable)),
        }
    }

    fn first_index(&self) -> Result<u64> {
        Ok(1)
    }

    fn last_index(&self) -> Result<u64> {
        Ok(self.log.last().0)
    }

    /// Never asked for: the log is whole, as Synod's is today.
    fn snapshot(&self, _request_index: u64, _to: u64) -> Result<Snapshot> {
        Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable))
    }
}

fn term(round: u64) -> Ballot {
    Ballot {
        round,
        replica: ReplicaId(0),
    }
}

#[cfg(test)]
mod tests {
    use synod_engine::ids::Lsn;

    use super::*;

    #[test]
    fn what_left_memory_is_fetched_once_and_then_served() {
        let mut recovered = Recovered::default();
        for lsn in 1..=6 {
            let value = Value::from_static(b"1234");
            recovered.log.push(term(1), Lsn(lsn), value);
        }
        recovered.log.evict(Slot(6), Lsn(6), 8);
        let mut store = Store::new(recovered, 3);
        let ask = |store: &Store, low| store.entries(low, 7, None, GetEntriesContext::empty(true));
        assert_eq!(ask(&store, 5).expect("in memory").len(), 2);
        for _ in 0..2 {
            assert!(ask(&store, 2).is_err());
        }
        assert_eq!(store.fetches.borrow().len(), 1);
        assert_eq!(store.fetches.borrow()[0].through, Slot(4));
        let values = vec![Value::from_static(b"read"); 3];
        let from = Slot(2);
        assert!(store.fetched(WalRead { from, values }).is_some());
        let entries = ask(&store, 3).expect("fetched");
        assert_eq!(
            (entries.len(), entries[0].index, entries[0].term),
            (2, 3, 1)
        );
        // Nobody waits for what can't be awaited.
        let context = GetEntriesContext::empty(false);
        assert!(store.entries(1, 2, None, context).is_err());
        assert!(store.fetches.borrow().is_empty());
    }
}
