//! A replica that is being rebuilt from its WAL, record by record.

use std::collections::VecDeque;

use crate::acceptor::Acceptor;
use crate::batch::Intake;
use crate::config::Config;
use crate::election::Election;
use crate::ids::{Ballot, Incarnation, Lsn, Slot, Time};
use crate::learner::Learner;
use crate::mending::Mending;
use crate::message::{Accept, Record};
use crate::output::{Leadership, Output};
use crate::persist::Persist;
use crate::slots::Slots;

use super::{CACHE_SLOTS_MAX, Counters, Replica, Role};

#[derive(Clone, Debug)]
pub struct Replay {
    config: Config,
    acceptor: Acceptor,
    slots: Slots,
    mending: Option<Mending>,
    round_seen: u64,
}

impl Replay {
    pub fn new(config: Config) -> Replay {
        Replay {
            config,
            acceptor: Acceptor::new(),
            slots: Slots::new(),
            mending: None,
            round_seen: 0,
        }
    }

    /// Takes the records in order; what they prove to be chosen comes out in slot order.
    pub fn record(&mut self, record: Record, out: &mut Output) {
        match record {
            Record::Promised { ballot } => self.promise(ballot),
            Record::Accepted(accept) => self.accepted(accept, out),
            Record::Chosen { slot, .. } if self.mending.is_some() => {
                if let Some(mending) = &mut self.mending {
                    mending.learned(slot);
                }
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

    pub fn promise(&mut self, ballot: Ballot) {
        self.round_seen = self.round_seen.max(ballot.round);
        self.acceptor.raise_promise(ballot);
    }

    pub fn trim(&mut self, floor: Slot) {
        self.acceptor.replay_trim(floor);
    }

    pub fn finish(mut self, now: Time, last: Lsn, incarnation: Incarnation) -> Replica {
        self.acceptor.live_as(incarnation);
        let mut learner = Learner::new();
        if let Some(mending) = &mut self.mending {
            mending.restarted(self.acceptor.promised());
            learner.hear(now, mending.chosen(), self.slots.commit_index());
        }
        let mut replica = Replica {
            role: Role::Follower,
            election: Election::new(&self.config, now),
            intake: Intake::new(self.config.limits.batch_bytes_max),
            config: self.config,
            mending: self.mending,
            acceptor: self.acceptor,
            slots: self.slots,
            learner,
            persist: Persist::new(last),
            round_seen: self.round_seen,
            leadership: Leadership::UNKNOWN,
            announced: Leadership::UNKNOWN,
            to_self: VecDeque::new(),
            counters: Counters::default(),
        };
        replica.end_mending();
        replica
    }
}
