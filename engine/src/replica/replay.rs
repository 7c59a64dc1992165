//! A replica that is being rebuilt from its WAL, record by record.

use std::collections::VecDeque;

use crate::acceptor::Acceptor;
use crate::admission::Refusals;
use crate::batch::Intake;
use crate::config::Config;
use crate::election::Election;
use crate::fetching::Fetches;
use crate::ids::{Ballot, Incarnation, Lsn, Slot, Time};
use crate::learner::Learner;
use crate::members::Members;
use crate::mending::Mending;
use crate::message::{Accept, Record};
use crate::output::{Leadership, Output};
use crate::persist::{Persist, stored_bytes, value_bytes};
use crate::retention::Retention;
use crate::seams::SnapshotInfo;
use crate::slots::Slots;
use crate::tenure::Tenure;

use super::{CACHE_SLOTS_MAX, Counters, Replica, Role};

#[derive(Clone, Debug)]
pub struct Replay {
    config: Config,
    acceptor: Acceptor,
    slots: Slots,
    mending: Option<Mending>,
    round_seen: u64,
    /// What the snapshot covers from which this started; zero without one.
    covers: Slot,
    /// Bytes of records of slots above.
    bytes: u64,
}

impl Replay {
    pub fn new(config: Config) -> Replay {
        Replay::from_snapshot(config, Slot::ZERO, Members::default())
    }

    /// Starts where a snapshot at `covers` ends.
    pub fn from_snapshot(config: Config, covers: Slot, members: Members) -> Replay {
        Replay {
            config,
            acceptor: Acceptor::new(),
            slots: Slots::from_snapshot(covers, members),
            mending: None,
            round_seen: 0,
            covers,
            bytes: 0,
        }
    }

    /// Whether nobody could help out with what is lost.
    pub fn is_alone(&self) -> bool {
        self.config.replicas == 1
    }

    pub fn covers(&self) -> Slot {
        self.covers
    }

    pub fn trim_floor(&self) -> Slot {
        self.acceptor.trim_floor()
    }

    /// Takes the records in order; what they prove to be chosen comes out in slot order.
    pub fn record(&mut self, record: Record, out: &mut Output) {
        let slot = match &record {
            Record::Accepted(accept) => accept.slot,
            Record::Chosen { slot, .. } => *slot,
            Record::Promised { .. } | Record::Trimmed { .. } => Slot(u64::MAX),
        };
        if slot > self.covers {
            self.bytes += stored_bytes(value_bytes(&record));
        }
        match record {
            Record::Promised { ballot } => self.promise(ballot),
            // Part of the snapshot, or written again by a replica that mended: the ballot counts all the same.
            Record::Accepted(accept) if slot <= self.slots.commit_index() => {
                self.promise(accept.ballot);
            }
            Record::Chosen { .. } if slot <= self.slots.commit_index() => {}
            Record::Accepted(accept) => self.accepted(accept, out),
            Record::Chosen { slot, .. } if self.mending.is_some() => {
                if let Some(mending) = &mut self.mending {
                    mending.learned(slot);
                }
            }
            Record::Chosen { slot, .. } if slot.previous() > self.slots.last() => {
                self.absent(slot.previous());
                return self.record(record, out);
            }
            Record::Chosen { slot, value } => {
                self.slots
                    .advance(slot.previous().max(self.slots.commit_index()), out);
                self.slots.choose(slot, value, Lsn::ZERO, out);
            }
            Record::Trimmed { floor } => self.trim(floor),
        }
        // Whatever is replayed is durable: its entries carry no Lsn.
        self.slots.evict(
            self.config.limits.cache_bytes_max,
            CACHE_SLOTS_MAX,
            Lsn::ZERO,
        );
    }

    fn accepted(&mut self, accept: Accept, out: &mut Output) {
        self.promise(accept.ballot);
        if let Some(mending) = &mut self.mending {
            mending.accepted(
                accept.slot,
                accept.ballot,
                accept.value,
                accept.commit_index,
            );
            return;
        }
        if accept.commit_index > self.slots.last() || accept.slot > self.slots.last().next() {
            self.absent(accept.slot.previous().max(accept.commit_index));
            return self.accepted(accept, out);
        }
        self.slots
            .advance(accept.commit_index.max(self.slots.commit_index()), out);
        self.slots
            .accept(accept.slot, accept.ballot, accept.value, Lsn::ZERO);
    }

    /// Records are lost, of slots up to `slot_max`. What was accepted before may have been replaced by them; what is
    /// applied stands.
    pub fn hole(&mut self, slot_max: Slot) {
        let commit_index = self.slots.commit_index();
        self.slots.forget_open();
        self.mending
            .get_or_insert_with(|| Mending::new(commit_index))
            .hole(slot_max);
    }

    /// Slots up to `through` are chosen, but the snapshot that covered them is gone and so are their records: a peer
    /// has to help. What was accepted above stands.
    fn absent(&mut self, through: Slot) {
        let open = self.slots.open();
        let first = self.slots.commit_index().next();
        self.slots.forget_open();
        let mending = self
            .mending
            .get_or_insert_with(|| Mending::new(first.previous()));
        mending.absent(first, through);
        for accepted in open.into_iter().filter(|accepted| accepted.slot > through) {
            mending.accepted(accepted.slot, accepted.ballot, accepted.value, through);
        }
    }

    pub fn promise(&mut self, ballot: Ballot) {
        self.round_seen = self.round_seen.max(ballot.round);
        self.acceptor.raise_promise(ballot);
    }

    pub fn trim(&mut self, floor: Slot) {
        self.acceptor.trim(floor);
        if floor.previous() > self.slots.commit_index() {
            self.absent(floor.previous());
        }
    }

    /// `complete` are the snapshots on disk.
    pub fn finish(
        mut self,
        now: Time,
        last: Lsn,
        incarnation: Incarnation,
        complete: &[SnapshotInfo],
    ) -> Replica {
        self.acceptor.live_as(incarnation);
        // What the WAL holds of slots below may be stale: the snapshot may have come from a peer just before a crash. So
        // nobody is given any of it; the floor on disk, and with it what is kept, stays.
        self.acceptor.trim(self.covers.next());
        let mut learner = Learner::new();
        if let Some(mending) = &mut self.mending {
            mending.restarted(self.acceptor.promised());
            learner.hear(now, mending.chosen(), self.slots.commit_index());
        }
        // One above what this replica started from could not be restored.
        let usable = complete.partition_point(|snapshot| snapshot.slot <= self.covers);
        let owed_bytes_max = self.config.limits.owed_bytes_max;
        let retention = Retention::new(&self.config, &complete[..usable], self.bytes);
        let mut replica = Replica {
            role: Role::Follower,
            election: Election::new(&self.config, now),
            intake: Intake::new(self.config.limits.batch_bytes_max),
            config: self.config,
            mending: self.mending,
            newcomer: None,
            acceptor: self.acceptor,
            slots: self.slots,
            learner,
            fetches: Fetches::new(),
            persist: Persist::new(last, owed_bytes_max),
            tenure: Tenure::default(),
            retention,
            download: None,
            round_seen: self.round_seen,
            leadership: Leadership::UNKNOWN,
            announced: Leadership::UNKNOWN,
            to_self: VecDeque::new(),
            refusals: Refusals::default(),
            counters: Counters::default(),
        };
        replica.end_mending();
        replica
    }
}
