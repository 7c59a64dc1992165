//! The library's storage: writes become records of Synod's WAL, reads come from memory.
//!
//! The ballot of a record is the round in which its entry was accepted. A round that was accepted without a new entry
//! writes the last entry once more, so that a restart finds both the round and where the log ends.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use omnipaxos::ballot_leader_election::Ballot;
use omnipaxos::storage::{NoSnapshot, StopSign, Storage, StorageOp, StorageResult};
use synod_baseline_shell::{Log, Recovered};
use synod_engine::ids::{self, Lsn, ReplicaId, Slot};
use synod_engine::message::{Accept, Record, Value};

use crate::codec::Batch;

/// The only configuration: a baseline is not reconfigured.
pub const CONFIGURATION: u32 = 1;

/// Shared with the adapter, which carries the records to the WAL.
pub struct Shared {
    pub log: Log,
    /// Older values that somebody needs, read back from the WAL.
    pub recalled: BTreeMap<Slot, Value>,
    /// Written and not handed on yet.
    pub records: Vec<Record>,
    /// The number of the last of them.
    pub appended: Lsn,
    /// Entries that are not durable yet.
    owed: VecDeque<(Lsn, Slot)>,
    durable: Slot,
    promise: Option<Ballot>,
    accepted_round: Option<Ballot>,
    decided: usize,
}

#[derive(Clone)]
pub struct Store(Rc<RefCell<Shared>>);

impl Shared {
    /// Every entry up to here is durable, as accepted in the current round.
    pub fn durable_idx(&self) -> usize {
        self.durable.0 as usize
    }

    pub fn durable(&mut self, lsn: Lsn) {
        while let Some((_, slot)) = self.owed.pop_front_if(|(owed, _)| *owed <= lsn) {
            self.durable = slot;
        }
    }

    fn append(&mut self, record: Record) -> Lsn {
        self.records.push(record);
        self.appended = self.appended.next();
        self.appended
    }

    fn push(&mut self, value: Value) {
        let slot = self.log.last().next();
        let ballot = to_synod(self.accepted_round.expect("entries belong to a round"));
        let lsn = self.append(Record::Accepted(Accept {
            ballot,
            slot,
            commit_index: Slot(self.decided as u64).min(slot.previous()),
            value: value.clone(),
        }));
        self.log.push(ballot, lsn, value);
        self.owed.push_back((lsn, slot));
    }

    fn truncate(&mut self, last: Slot) {
        self.log.truncate(last);
        self.durable = self.durable.min(last);
        while self.owed.pop_back_if(|(_, slot)| *slot > last).is_some() {}
    }

    fn rewrite_last(&mut self) {
        let last = self.log.last();
        if last > Slot::ZERO {
            let value = self
                .log
                .value(last)
                .expect("the last value stays in memory");
            let value = value.clone();
            self.truncate(last.previous());
            self.push(value);
        }
    }

    fn set_promise(&mut self, promise: Ballot) {
        if self.promise.unwrap_or_default() != promise {
            let ballot = to_synod(promise);
            self.append(Record::Promised { ballot });
        }
        self.promise = Some(promise);
    }

    /// Nothing counts as durable in the new round before a record says that it was accepted in it: the same entry
    /// accepted in an older round may lose against another log.
    fn set_accepted_round(&mut self, round: Ballot) {
        if self.accepted_round != Some(round) {
            self.accepted_round = Some(round);
            self.durable = Slot::ZERO;
            self.owed.clear();
        }
    }

    fn apply(&mut self, op: StorageOp<Batch>) {
        match op {
            StorageOp::AppendEntry(entry) => self.push(entry.value),
            StorageOp::AppendEntries(entries) => {
                entries.into_iter().for_each(|entry| self.push(entry.value));
            }
            StorageOp::AppendOnPrefix(from_idx, entries) => {
                self.truncate(Slot(from_idx as u64));
                entries.into_iter().for_each(|entry| self.push(entry.value));
            }
            StorageOp::SetPromise(promise) => self.set_promise(promise),
            StorageOp::SetDecidedIndex(decided) => self.decided = decided,
            StorageOp::SetAcceptedRound(round) => self.set_accepted_round(round),
            StorageOp::SetCompactedIdx(_)
            | StorageOp::Trim(_)
            | StorageOp::SetStopsign(_)
            | StorageOp::SetSnapshot(_) => {
                unreachable!("a baseline neither trims nor is reconfigured")
            }
        }
    }

    fn value(&self, slot: Slot) -> Option<Value> {
        let recalled = || self.recalled.get(&slot);
        self.log.value(slot).or_else(recalled).cloned()
    }

    /// Empty if they are not all there, as the library wants it.
    fn entries(&self, from: usize, to: usize) -> Vec<Batch> {
        let slots = (from + 1)..=to.min(self.log.last().0 as usize);
        let values = slots.map(|slot| self.value(Slot(slot as u64)));
        values
            .map(|value| value.map(Batch::new))
            .collect::<Option<_>>()
            .unwrap_or_default()
    }
}

impl Store {
    pub fn new(recovered: Recovered) -> Store {
        let Recovered {
            log,
            promised,
            commit_index,
            last,
        } = recovered;
        let accepted = log.ballot(log.last()).filter(|_| log.last() > Slot::ZERO);
        Store(Rc::new(RefCell::new(Shared {
            durable: log.last(),
            log,
            recalled: BTreeMap::new(),
            records: Vec::new(),
            appended: last,
            owed: VecDeque::new(),
            promise: (promised != ids::Ballot::ZERO).then(|| to_omni(promised)),
            accepted_round: accepted.map(to_omni),
            decided: commit_index.0 as usize,
        })))
    }

    pub fn shared(&self) -> std::cell::RefMut<'_, Shared> {
        self.0.borrow_mut()
    }
}

impl Storage<Batch> for Store {
    fn write_atomically(&mut self, ops: Vec<StorageOp<Batch>>) -> StorageResult<()> {
        let mut shared = self.shared();
        let (round, records) = (shared.accepted_round, shared.records.len());
        let length = shared.log.last();
        ops.into_iter().for_each(|op| shared.apply(op));
        let silent = shared.records.len() == records;
        if silent && (shared.accepted_round != round || shared.log.last() != length) {
            shared.rewrite_last();
        }
        Ok(())
    }

    fn append_entry(&mut self, entry: Batch) -> StorageResult<()> {
        self.shared().push(entry.value);
        Ok(())
    }

    fn append_entries(&mut self, entries: Vec<Batch>) -> StorageResult<()> {
        self.shared().apply(StorageOp::AppendEntries(entries));
        Ok(())
    }

    fn append_on_prefix(&mut self, from_idx: usize, entries: Vec<Batch>) -> StorageResult<()> {
        self.write_atomically(vec![StorageOp::AppendOnPrefix(from_idx, entries)])
    }

    fn set_promise(&mut self, promise: Ballot) -> StorageResult<()> {
        self.shared().set_promise(promise);
        Ok(())
    }

    fn set_decided_idx(&mut self, decided: usize) -> StorageResult<()> {
        self.shared().decided = decided;
        Ok(())
    }

    fn get_decided_idx(&self) -> StorageResult<usize> {
        Ok(self.shared().decided)
    }

    fn set_accepted_round(&mut self, round: Ballot) -> StorageResult<()> {
        self.write_atomically(vec![StorageOp::SetAcceptedRound(round)])
    }

    fn get_accepted_round(&self) -> StorageResult<Option<Ballot>> {
        Ok(self.shared().accepted_round)
    }

    fn get_entries(&self, from: usize, to: usize) -> StorageResult<Vec<Batch>> {
        Ok(self.shared().entries(from, to))
    }

    fn get_log_len(&self) -> StorageResult<usize> {
        Ok(self.shared().log.last().0 as usize)
    }

    fn get_suffix(&self, from: usize) -> StorageResult<Vec<Batch>> {
        let shared = self.shared();
        let suffix = shared.entries(from, usize::MAX);
        let length = shared.log.last().0 as usize;
        assert!(
            suffix.len() == length.saturating_sub(from),
            "a suffix was asked for that nobody recalled"
        );
        Ok(suffix)
    }

    fn get_promise(&self) -> StorageResult<Option<Ballot>> {
        Ok(self.shared().promise)
    }

    fn set_stopsign(&mut self, _stopsign: Option<StopSign>) -> StorageResult<()> {
        unreachable!("a baseline is not reconfigured")
    }

    fn get_stopsign(&self) -> StorageResult<Option<StopSign>> {
        Ok(None)
    }

    fn trim(&mut self, _idx: usize) -> StorageResult<()> {
        unreachable!("a baseline does not trim")
    }

    fn set_compacted_idx(&mut self, _idx: usize) -> StorageResult<()> {
        unreachable!("a baseline does not trim")
    }

    fn get_compacted_idx(&self) -> StorageResult<usize> {
        Ok(0)
    }

    fn set_snapshot(&mut self, _snapshot: Option<NoSnapshot>) -> StorageResult<()> {
        unreachable!("a baseline has no snapshots")
    }

    fn get_snapshot(&self) -> StorageResult<Option<NoSnapshot>> {
        Ok(None)
    }
}

/// Both order by round, then by replica: all priorities are 0.
pub fn to_synod(ballot: Ballot) -> ids::Ballot {
    ids::Ballot {
        round: u64::from(ballot.n),
        replica: ReplicaId(ballot.pid as u8),
    }
}

fn to_omni(ballot: ids::Ballot) -> Ballot {
    Ballot::with(
        CONFIGURATION,
        ballot.round as u32,
        0,
        u64::from(ballot.replica.0),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(n: u32) -> Ballot {
        Ballot::with(CONFIGURATION, n, 0, 1)
    }

    fn batches(values: &[&'static [u8]]) -> Vec<Batch> {
        let batch = |value: &&'static [u8]| Batch::new(Value::from_static(value));
        values.iter().map(batch).collect()
    }

    fn sync(store: &mut Store, n: u32, decided: usize, from: usize, values: &[&'static [u8]]) {
        let ops = vec![
            StorageOp::SetAcceptedRound(round(n)),
            StorageOp::SetDecidedIndex(decided),
            StorageOp::AppendOnPrefix(from, batches(values)),
        ];
        store.write_atomically(ops).expect("written");
    }

    #[test]
    fn a_round_without_new_entries_is_on_the_disk_before_anything_counts_in_it() {
        let mut store = Store::new(Recovered::default());
        sync(&mut store, 1, 0, 0, &[b"a", b"b", b"c"]);
        store.shared().durable(Lsn(3));
        assert_eq!(store.shared().durable_idx(), 3);
        // Another leader's log ends after the second entry.
        sync(&mut store, 2, 1, 2, &[]);
        let shared = store.shared();
        assert_eq!((shared.log.last(), shared.durable_idx()), (Slot(2), 0));
        assert_eq!(
            shared.records.last(),
            Some(&Record::Accepted(Accept {
                ballot: to_synod(round(2)),
                slot: Slot(2),
                commit_index: Slot(1),
                value: Value::from_static(b"b"),
            }))
        );
        drop(shared);
        store.shared().durable(Lsn(4));
        assert_eq!(store.shared().durable_idx(), 2);
    }

    #[test]
    fn a_promise_is_a_record_once() {
        let mut store = Store::new(Recovered::default());
        store.set_promise(Ballot::default()).expect("written");
        store.set_promise(round(4)).expect("written");
        store.set_promise(round(4)).expect("written");
        let promised = Record::Promised {
            ballot: to_synod(round(4)),
        };
        assert_eq!(store.shared().records, [promised]);
    }
}
