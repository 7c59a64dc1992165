//! The library's log: records go to Synod's WAL with the next turn, one sync for all that gathered.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use openraft::OptionalSend;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use synod_engine::ids::Slot;
use synod_engine::message::Value;
use tokio::sync::oneshot;

use crate::shared::Shared;
use crate::types::{Entry, LogId, Types, Vote, log_id_of, slot_of};

/// Bytes of entries in one request to a follower: Synod's bound for a batch, as raft-rs' `max_size_per_msg` here.
const REQUEST_BYTES_MAX: usize = 1 << 20;

#[derive(Clone)]
pub struct LogStore(pub Arc<Shared>);

impl LogStore {
    /// Entries from `from` on, below `to`: as many as `bytes_max` allows, at least one if there is one.
    async fn some(&self, from: Slot, to: Slot, bytes_max: usize) -> io::Result<Vec<Entry>> {
        let reading = {
            let mut state = self.0.lock();
            let to = to.min(state.log.last().next());
            let tail_first = state.log.tail_first();
            if from >= to {
                return Ok(Vec::new());
            }
            if from >= tail_first {
                let values = (from.0..to.0).map(|slot| {
                    let value = state.log.value(Slot(slot));
                    value.expect("it is in the tail").clone()
                });
                return Ok(self.entries(&state.log, from, values, bytes_max));
            }
            let (sender, receiver) = oneshot::channel();
            state.reads.push((from, to.min(tail_first).previous()));
            state.reading.push_back(sender);
            receiver
        };
        self.0.woken.notify_one();
        let values = reading.await.map_err(io::Error::other)?;
        let state = self.0.lock();
        Ok(self.entries(&state.log, from, values.into_iter(), bytes_max))
    }

    fn entries(
        &self,
        log: &synod_baseline_shell::Log,
        from: Slot,
        values: impl Iterator<Item = Value>,
        bytes_max: usize,
    ) -> Vec<Entry> {
        let mut bytes = 0;
        let mut entries = Vec::new();
        for (value, slot) in values.zip(from.0..) {
            bytes += value.len();
            if bytes > bytes_max && !entries.is_empty() {
                break;
            }
            let slot = Slot(slot);
            let ballot = log.ballot(slot).expect("a slot of the log");
            entries.push(self.0.entry(slot, ballot, value));
        }
        entries
    }
}

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<R>(&mut self, range: R) -> Result<Vec<Entry>, io::Error>
    where
        R: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let from = match range.start_bound() {
            Bound::Included(from) => slot_of(*from),
            Bound::Excluded(before) => slot_of(before + 1),
            Bound::Unbounded => Slot(1),
        };
        let to = match range.end_bound() {
            Bound::Included(last) => slot_of(last + 1),
            Bound::Excluded(to) => slot_of(*to),
            Bound::Unbounded => Slot(u64::MAX),
        };
        let mut entries = Vec::new();
        loop {
            let next = Slot(from.0 + entries.len() as u64);
            let some = self.some(next, to, usize::MAX).await?;
            if some.is_empty() {
                return Ok(entries);
            }
            entries.extend(some);
        }
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, io::Error> {
        self.some(slot_of(start), slot_of(end), REQUEST_BYTES_MAX)
            .await
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.0.lock().vote)
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = LogStore;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, io::Error> {
        let state = self.0.lock();
        let last = state.log.last();
        let ballot = state.log.ballot(last).unwrap_or_default();
        Ok(LogState {
            last_purged_log_id: None,
            last_log_id: (last > Slot::ZERO).then(|| log_id_of(last, ballot)),
        })
    }

    async fn get_log_reader(&mut self) -> LogStore {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let waiting = self.0.lock().save_vote(*vote);
        if let Some(synced) = waiting {
            self.0.woken.notify_one();
            synced.await.map_err(io::Error::other)?;
        }
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        if let Some(committed) = committed {
            let mut state = self.0.lock();
            state.committed = state.committed.max(slot_of(committed.index));
        }
        Ok(())
    }

    /// Returns at once; the disk is told with the next turn, and `done` when it has everything.
    async fn append<I>(&mut self, entries: I, done: IOFlushed<Types>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        self.0.lock().append(entries.into_iter(), done);
        self.0.woken.notify_one();
        Ok(())
    }

    /// The record of what is written next says it to a restart.
    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        let last = last.map_or(Slot::ZERO, |last| slot_of(last.index));
        self.0.lock().log.truncate(last);
        Ok(())
    }

    /// Never: the log is whole, as Synod's is today.
    async fn purge(&mut self, _up_to: LogId) -> Result<(), io::Error> {
        Ok(())
    }
}
