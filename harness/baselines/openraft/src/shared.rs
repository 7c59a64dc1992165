//! Where the library's tasks and the shell's turns meet.
//!
//! The library calls its log store, state machine and network from tasks of its own. They leave what has to be done
//! here and wake the loop, which carries it out in its next turn. All of them share one thread, so the lock is never
//! contended.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use openraft::EntryPayload;
use openraft::raft::{StreamAppendResult, VoteResponse};
use openraft::storage::IOFlushed;
use synod_baseline_shell::{Log, Recovered};
use synod_engine::ids::{Ballot, Lsn, ReplicaId, Slot};
use synod_engine::message::{Accept, Record, Value};
use synod_engine::seams::Lane;
use tokio::sync::{Notify, mpsc, oneshot};

use crate::codec::{self, Rpc};
use crate::types::{
    Batch, Entry, LogId, Members, Types, Vote, ballot_of, leader_of, log_id_of, slot_of,
};

pub struct Shared {
    state: Mutex<State>,
    pub woken: Notify,
    /// A proposal came to nothing.
    pub refused: AtomicBool,
    /// Fixed: slot 1 of every log holds it.
    pub members: Members,
    last_id: AtomicU64,
}

pub struct State {
    pub log: Log,
    pub vote: Option<Vote>,
    /// As far as the library said; the next record carries it.
    pub committed: Slot,
    /// The last entry that was given to the state machine.
    pub applied: Option<LogId>,
    pub durable: Lsn,
    appended: Lsn,

    // What the next turn carries out.
    pub records: Vec<Record>,
    pub frames: Vec<(ReplicaId, Lane, Bytes, Bytes)>,
    pub chosen: Vec<Value>,
    pub reads: Vec<(Slot, Slot)>,

    // Who waits for what.
    flushed: VecDeque<(Lsn, IOFlushed<Types>)>,
    synced: VecDeque<(Lsn, oneshot::Sender<()>)>,
    pub reading: VecDeque<oneshot::Sender<Vec<Value>>>,
    pub votes: HashMap<u64, oneshot::Sender<VoteResponse<Types>>>,
    pub streams: HashMap<u64, mpsc::UnboundedSender<StreamAppendResult<Types>>>,
}

impl Shared {
    pub fn new(recovered: Recovered, members: Members, first_id: u64) -> Arc<Shared> {
        let Recovered {
            log,
            promised,
            commit_index,
            last,
        } = recovered;
        let vote = (promised != Ballot::ZERO).then(|| Vote {
            leader_id: leader_of(promised),
            // Whether a quorum granted it is not kept: another election finds out.
            committed: false,
        });
        let ballot = log.ballot(commit_index).unwrap_or(Ballot::ZERO);
        let applied = (commit_index > Slot::ZERO).then(|| log_id_of(commit_index, ballot));
        Arc::new(Shared {
            state: Mutex::new(State {
                log,
                vote,
                committed: commit_index,
                applied,
                durable: last,
                appended: last,
                records: Vec::new(),
                frames: Vec::new(),
                chosen: Vec::new(),
                reads: Vec::new(),
                flushed: VecDeque::new(),
                synced: VecDeque::new(),
                reading: VecDeque::new(),
                votes: HashMap::new(),
                streams: HashMap::new(),
            }),
            woken: Notify::new(),
            refused: AtomicBool::new(false),
            members,
            last_id: AtomicU64::new(first_id),
        })
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of the state panics")
    }

    /// A number for a question to a peer. Different from those of this replica's process before.
    pub fn next_id(&self) -> u64 {
        self.last_id.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub fn send(&self, to: ReplicaId, lane: Lane, rpc: Rpc) {
        let (head, body) = codec::encode(rpc);
        self.lock().frames.push((to, lane, head, body));
        self.woken.notify_one();
    }

    /// The entry of a slot.
    pub fn entry(&self, slot: Slot, ballot: Ballot, value: Value) -> Entry {
        let payload = match slot {
            Slot(1) => EntryPayload::Membership(self.members.clone()),
            _ if value.is_empty() => EntryPayload::Blank,
            _ => EntryPayload::Normal(Batch::new(value)),
        };
        Entry {
            log_id: log_id_of(slot, ballot),
            payload,
        }
    }
}

impl State {
    pub fn has_news(&self) -> bool {
        !(self.records.is_empty()
            && self.frames.is_empty()
            && self.chosen.is_empty()
            && self.reads.is_empty())
    }

    /// Makes entries records; `done` is told when the last of them is durable.
    pub fn append(&mut self, entries: impl Iterator<Item = Entry>, done: IOFlushed<Types>) {
        for entry in entries {
            let (slot, ballot) = (
                slot_of(entry.log_id.index),
                ballot_of(&entry.log_id.leader_id),
            );
            let value = match entry.payload {
                EntryPayload::Normal(batch) => batch.value,
                EntryPayload::Blank | EntryPayload::Membership(_) => Value::new(),
            };
            self.log.truncate(slot.previous());
            let lsn = self.record(Record::Accepted(Accept {
                ballot,
                slot,
                commit_index: self.committed.min(slot.previous()),
                value: value.clone(),
            }));
            self.log.push(ballot, lsn, value);
        }
        self.flushed.push_back((self.appended, done));
    }

    /// Makes a vote a record; `None` if it is one already.
    pub fn save_vote(&mut self, vote: Vote) -> Option<oneshot::Receiver<()>> {
        let before = self.vote.replace(vote);
        if before.is_some_and(|before| before.leader_id == vote.leader_id) {
            return None;
        }
        let ballot = ballot_of(&vote.leader_id);
        let lsn = self.record(Record::Promised { ballot });
        let (sender, receiver) = oneshot::channel();
        self.synced.push_back((lsn, sender));
        Some(receiver)
    }

    /// Tells those who waited for records up to `lsn`.
    pub fn durable(&mut self, lsn: Lsn) {
        self.durable = lsn;
        while let Some((_, done)) = self.flushed.pop_front_if(|(waits, _)| *waits <= lsn) {
            done.io_completed(Ok(()));
        }
        while let Some((_, done)) = self.synced.pop_front_if(|(waits, _)| *waits <= lsn) {
            // Whoever gave up waiting needs no answer.
            let _ = done.send(());
        }
    }

    fn record(&mut self, record: Record) -> Lsn {
        self.records.push(record);
        self.appended = self.appended.next();
        self.appended
    }
}
