//! Phase 1: from a promise quorum to the values that a new leader has to propose again.

use std::collections::BTreeMap;

use crate::admission::PROMISE_SLOTS_MAX;
use crate::config::Timers;
use crate::ids::{Ballot, Incarnation, ReplicaId, ReplicaSet, Slot, Time};
use crate::members::{Members, Readmission};
use crate::message::{Promise, Value};
use crate::quorum::Quorums;

/// A proposer that asks for promises. Phase 1 runs once, for every slot above the commit index.
#[derive(Clone, Debug)]
pub struct Candidate {
    pub ballot: Ballot,
    /// When this replica stood; once announced, when it asked.
    pub since: Time,
    /// When to ask those again that have not answered.
    pub ask_at: Time,
    /// Whether this replica's own promise is durable: no other is asked before (a ballot must survive a restart
    /// before anyone hears of it).
    pub announced: bool,
    promises: Vec<Promised>,
    /// Per slot the value accepted at the highest ballot.
    accepted: BTreeMap<Slot, (Ballot, Value)>,
}

/// Who promised, as which incarnation, and up to where it holds what is chosen.
#[derive(Clone, Copy, Debug)]
struct Promised {
    replica: ReplicaId,
    incarnation: Incarnation,
    commit_index: Slot,
    /// Below it nothing can be fetched from that acceptor but a snapshot.
    trim_floor: Slot,
}

/// Whether Phase 1 is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase1 {
    Waiting,
    /// The quorum knows of chosen slots up to `through` that are not held here: they have to be fetched.
    Behind {
        through: Slot,
    },
    /// Slots that are needed were trimmed wherever they are chosen: only a snapshot helps.
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
            promises: Vec::new(),
            accepted: BTreeMap::new(),
        }
    }

    /// When something is due: asking again, or giving up on the disk that owes this replica's own promise.
    pub fn deadline(&self, timers: &Timers) -> Time {
        if self.announced {
            self.ask_at
        } else {
            self.since.plus(timers.disk_stall_ns)
        }
    }

    /// Whose promises count. One that a replica gave before it lost its disk does not, once this candidate knows that
    /// the replica was readmitted since, from what is chosen or from what another one accepted; see
    /// [`crate::members`].
    pub fn promised(&self, members: &Members) -> ReplicaSet {
        self.counted(members)
            .map(|promised| promised.replica)
            .collect()
    }

    /// Up to where each of them holds what is chosen.
    pub fn commit_indexes(
        &self,
        members: &Members,
    ) -> impl Iterator<Item = (ReplicaId, Slot)> + use<'_> {
        let counted: Vec<Promised> = self.counted(members).collect();
        counted
            .into_iter()
            .map(|promised| (promised.replica, promised.commit_index))
    }

    fn counted<'a>(&'a self, members: &'a Members) -> impl Iterator<Item = Promised> + 'a {
        self.promises
            .iter()
            .filter(|promised| promised.incarnation == self.incarnation(promised.replica, members))
            .copied()
    }

    fn incarnation(&self, replica: ReplicaId, members: &Members) -> Incarnation {
        self.accepted
            .values()
            .rev()
            .filter_map(|(_, value)| Readmission::decode(value))
            .find(|readmission| readmission.replica == replica)
            .map_or(members.incarnation(replica), |latest| latest.incarnation)
    }

    /// Notes a promise for this ballot. A repeated one changes nothing: a replica counts once.
    pub fn on_promise(&mut self, from: ReplicaId, promise: Promise) {
        assert_eq!(promise.ballot, self.ballot, "a promise for another ballot");
        let incarnation = promise.incarnation;
        let repeated = |known: &Promised| known.replica == from && known.incarnation == incarnation;
        if self.promises.iter().any(repeated) {
            return;
        }
        self.promises.push(Promised {
            replica: from,
            incarnation,
            commit_index: promise.commit_index,
            trim_floor: promise.trim_floor,
        });
        for accepted in promise.accepted {
            let best = self
                .accepted
                .entry(accepted.slot)
                .or_insert((Ballot::ZERO, Value::new()));
            if accepted.ballot > best.0 {
                *best = (accepted.ballot, accepted.value);
            }
        }
    }

    /// A value may be chosen in a slot only if this quorum knows of it: it is above every commit index and then
    /// in somebody's accepted list, or at or below one and then to be fetched as chosen.
    pub fn progress(&self, quorums: Quorums, members: &Members, commit_index: Slot) -> Phase1 {
        if self.promised(members).len() < usize::from(quorums.prepare) {
            return Phase1::Waiting;
        }
        let through = self
            .counted(members)
            .map(|promised| promised.commit_index)
            .max()
            .unwrap_or(Slot::ZERO);
        if through > commit_index {
            let mut ahead = self
                .counted(members)
                .filter(|promised| promised.commit_index > commit_index);
            if ahead.all(|promised| promised.trim_floor > commit_index.next()) {
                return Phase1::BelowTrimFloor;
            }
            return Phase1::Behind { through };
        }
        // Each promise that counts tells of so many slots at most above its sender's commit index, and that is held
        // here. What is further up comes from a former life that does not count.
        let end = Slot(commit_index.0.saturating_add(PROMISE_SLOTS_MAX));
        let Some((last, _)) = self.accepted.range(..=end).next_back() else {
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::message::AcceptedValue;

    /// What one acceptor accepted: slot, round and proposer; the value is named after them, as in real Paxos a
    /// ballot proposes one value per slot.
    type Accepted = Vec<(u64, u64, u8)>;

    fn value(slot: u64, round: u64, replica: u8) -> Value {
        Value::from(format!("{slot}/{round}.{replica}"))
    }

    /// The oracle: looks at every acceptor for the highest ballot of each slot.
    fn naive(promises: &[Accepted]) -> Vec<Value> {
        let last = promises
            .iter()
            .flatten()
            .map(|(slot, ..)| *slot)
            .max()
            .unwrap_or(0);
        (1..=last)
            .map(|wanted| {
                promises
                    .iter()
                    .flatten()
                    .filter(|(slot, ..)| *slot == wanted)
                    .max_by_key(|(_, round, replica)| (*round, *replica))
                    .map_or(Value::new(), |(slot, round, replica)| {
                        value(*slot, *round, *replica)
                    })
            })
            .collect()
    }

    proptest! {
        #[test]
        fn trap_5_phase_1_recovers_the_value_of_the_highest_ballot_per_slot(
            promises in proptest::collection::vec(
                proptest::collection::vec((1u64..8, 1u64..5, 1u8..6), 0..8), 3),
            repeated in any::<bool>(),
        ) {
            let ballot = Ballot { round: 9, replica: ReplicaId(1) };
            let mut candidate = Candidate::new(ballot, Time(0));
            for (index, accepted) in promises.iter().enumerate() {
                let promise = Promise {
                    ballot,
                    incarnation: Incarnation::FOUNDING,
                    commit_index: Slot::ZERO,
                    trim_floor: Slot(1),
                    accepted: accepted
                        .iter()
                        .map(|(slot, round, replica)| AcceptedValue {
                            slot: Slot(*slot),
                            ballot: Ballot { round: *round, replica: ReplicaId(*replica) },
                            value: value(*slot, *round, *replica),
                        })
                        .collect(),
                };
                prop_assert_eq!(candidate.progress(Quorums::majority(5), &Members::default(), Slot::ZERO), Phase1::Waiting);
                candidate.on_promise(ReplicaId(index as u8 + 1), promise.clone());
                if repeated {
                    candidate.on_promise(ReplicaId(index as u8 + 1), promise);
                }
            }
            let progress = candidate.progress(Quorums::majority(5), &Members::default(), Slot::ZERO);
            prop_assert_eq!(progress, Phase1::Recovered(naive(&promises)));
        }
    }

    #[test]
    fn a_promise_from_before_the_loss_of_a_disk_does_not_count() {
        let ballot = Ballot {
            round: 9,
            replica: ReplicaId(1),
        };
        let promise = |incarnation, accepted: Option<Value>| Promise {
            ballot,
            incarnation: Incarnation(incarnation),
            commit_index: Slot::ZERO,
            trim_floor: Slot(1),
            accepted: accepted
                .map(|value| AcceptedValue {
                    slot: Slot(1),
                    ballot: Ballot {
                        round: 3,
                        replica: ReplicaId(2),
                    },
                    value,
                })
                .into_iter()
                .collect(),
        };
        let readmission = Readmission {
            replica: ReplicaId(3),
            incarnation: Incarnation(5),
        };
        let quorums = Quorums::majority(3);
        let founding = Members::default();
        let mut candidate = Candidate::new(ballot, Time(0));
        candidate.on_promise(ReplicaId(3), promise(0, None));
        candidate.on_promise(ReplicaId(2), promise(0, Some(readmission.encode())));
        // Replica 2 accepted that 3 was readmitted, so the promise of 3 in its former life is void.
        assert_eq!(
            candidate.progress(quorums, &founding, Slot::ZERO),
            Phase1::Waiting
        );
        assert_eq!(candidate.promised(&founding), ReplicaSet::one(ReplicaId(2)));
        candidate.on_promise(ReplicaId(3), promise(5, None));
        assert_eq!(
            candidate.progress(quorums, &founding, Slot::ZERO),
            Phase1::Recovered(vec![readmission.encode()])
        );
        // The same where the readmission is chosen already.
        let mut members = Members::default();
        members.note(Slot(1), &readmission.encode());
        let mut candidate = Candidate::new(ballot, Time(0));
        candidate.on_promise(ReplicaId(2), promise(0, None));
        candidate.on_promise(ReplicaId(3), promise(0, None));
        assert_eq!(
            candidate.progress(quorums, &members, Slot::ZERO),
            Phase1::Waiting
        );
    }
}
