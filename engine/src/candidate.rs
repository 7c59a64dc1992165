//! Phase 1: from a promise quorum to the values that a new leader has to propose again.

use std::collections::BTreeMap;

use crate::config::Timers;
use crate::ids::{Ballot, ReplicaId, ReplicaSet, Slot, Time};
use crate::message::{Promise, Value};
use crate::quorum::Quorums;

/// A proposer that asks for promises. Phase 1 runs once, for every slot above the commit index.
#[derive(Clone, Debug)]
pub struct Candidate {
    pub ballot: Ballot,
    pub since: Time,
    /// When to ask those again that have not answered.
    pub ask_at: Time,
    /// Whether this replica's own promise is durable: no other is asked before (a ballot must survive a restart
    /// before anyone hears of it).
    pub announced: bool,
    promised: ReplicaSet,
    /// Who promised, and up to where each holds what is chosen.
    commit_indexes: Vec<(ReplicaId, Slot)>,
    /// The highest trim floor in a promise: below it nothing can be fetched from that acceptor.
    trim_floor: Slot,
    /// Per slot the value accepted at the highest ballot.
    accepted: BTreeMap<Slot, (Ballot, Value)>,
}

/// Whether Phase 1 is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase1 {
    Waiting,
    /// The quorum knows of chosen slots up to `through` that are not held here: they have to be fetched.
    Behind {
        through: Slot,
    },
    /// Slots that are needed were trimmed everywhere: only a snapshot helps, so somebody else should lead.
    BelowTrimFloor,
    /// Done: propose these values at the new ballot, from the slot after the commit index on without a gap.
    Recovered(Vec<Value>),
}

impl Candidate {
    pub fn new(ballot: Ballot, now: Time) -> Candidate {
        Candidate {
            ballot,
            since: now,
            ask_at: now,
            announced: false,
            promised: ReplicaSet::EMPTY,
            commit_indexes: Vec::new(),
            trim_floor: Slot(1),
            accepted: BTreeMap::new(),
        }
    }

    /// When something is due: asking again, or giving up on the disk that owes this replica's own promise.
    pub fn deadline(&self, timers: &Timers) -> Time {
        if self.announced {
            self.ask_at
        } else {
            self.since.plus(timers.election_timeout_ns)
        }
    }

    pub fn promised(&self) -> ReplicaSet {
        self.promised
    }

    pub fn commit_indexes(&self) -> &[(ReplicaId, Slot)] {
        &self.commit_indexes
    }

    /// Notes a promise for this ballot. A repeated one changes nothing: a replica counts once.
    pub fn on_promise(&mut self, from: ReplicaId, promise: Promise) {
        assert_eq!(promise.ballot, self.ballot, "a promise for another ballot");
        if self.promised.contains(from) {
            return;
        }
        self.promised.insert(from);
        self.commit_indexes.push((from, promise.commit_index));
        self.trim_floor = self.trim_floor.max(promise.trim_floor);
        for accepted in promise.accepted {
            let best = self
                .accepted
                .entry(accepted.slot)
                .or_insert((Ballot::ZERO, Value::new()));
            if accepted.ballot > best.0 || best.0 == Ballot::ZERO {
                *best = (accepted.ballot, accepted.value);
            }
        }
    }

    /// A value may be chosen in a slot only if this quorum knows of it: it is above every commit index and then
    /// in somebody's accepted list, or at or below one and then to be fetched as chosen.
    pub fn progress(&self, quorums: Quorums, commit_index: Slot) -> Phase1 {
        if self.promised.len() < usize::from(quorums.prepare) {
            return Phase1::Waiting;
        }
        let through = self
            .commit_indexes
            .iter()
            .map(|(_, commit_index)| *commit_index)
            .max()
            .unwrap_or(Slot::ZERO);
        if through > commit_index {
            if self.trim_floor > commit_index.next() {
                return Phase1::BelowTrimFloor;
            }
            return Phase1::Behind { through };
        }
        let Some(last) = self.accepted.keys().next_back().copied() else {
            return Phase1::Recovered(Vec::new());
        };
        let values = (commit_index.next().0..=last.0)
            .map(|slot| match self.accepted.get(&Slot(slot)) {
                Some((_, value)) => value.clone(),
                // A gap: nothing can have been chosen here, so a no-op closes it.
                None => Value::new(),
            })
            .collect();
        Phase1::Recovered(values)
    }
}
