//! The learner: what is known to be chosen elsewhere, and since when it did not come by itself.

use crate::ids::{Ballot, Slot, Time};

#[derive(Clone, Debug)]
pub struct Learner {
    /// The highest slot that any replica is known to hold as chosen.
    known: Slot,
    /// What the leader of a ballot said is chosen: what was accepted at that ballot up to there is.
    by_leader: (Ballot, Slot),
    /// Since when this replica has been behind `known` without progress.
    behind_since: Option<Time>,
}

impl Learner {
    pub fn new() -> Learner {
        Learner {
            known: Slot::ZERO,
            by_leader: (Ballot::ZERO, Slot::ZERO),
            behind_since: None,
        }
    }

    pub fn known(&self) -> Slot {
        self.known
    }

    pub fn by_leader(&self) -> (Ballot, Slot) {
        self.by_leader
    }

    /// Some replica holds every slot up to `commit_index` as chosen.
    pub fn hear(&mut self, now: Time, commit_index: Slot, own: Slot) {
        self.known = self.known.max(commit_index);
        if self.known > own && self.behind_since.is_none() {
            self.behind_since = Some(now);
        }
    }

    /// The leader of `ballot` says that every slot up to `commit_index` is chosen.
    pub fn hear_leader(&mut self, now: Time, ballot: Ballot, commit_index: Slot, own: Slot) {
        if ballot > self.by_leader.0 {
            self.by_leader = (ballot, commit_index);
        } else if ballot == self.by_leader.0 {
            self.by_leader.1 = self.by_leader.1.max(commit_index);
        }
        self.hear(now, commit_index, own);
    }

    /// The commit index of this replica moved to `own`.
    pub fn progressed(&mut self, now: Time, own: Slot) {
        self.behind_since = (self.known > own).then_some(now);
    }

    /// For how long this replica has been behind without progress.
    pub fn behind_ns(&self, now: Time) -> u64 {
        self.behind_since.map_or(0, |since| now.since(since))
    }

    /// Whether to fetch what a stream might have brought.
    pub fn is_impatient(&self, now: Time, patience_ns: u64) -> bool {
        self.behind_since
            .is_some_and(|since| now.since(since) >= patience_ns)
    }

    /// When [`Learner::is_impatient`] becomes true.
    pub fn impatient_at(&self, patience_ns: u64) -> Option<Time> {
        self.behind_since.map(|since| since.plus(patience_ns))
    }

    /// Nobody who is heard holds more than `known`: whoever said so is gone, or was wrong.
    pub fn lower(&mut self, known: Slot, own: Slot) {
        self.known = self.known.min(known.max(own));
        if self.known <= own {
            self.behind_since = None;
        }
    }
}

impl Default for Learner {
    fn default() -> Learner {
        Learner::new()
    }
}
