//! Agreement from the acceptors' own records: a value is chosen when an accept quorum has it durable at one ballot
//! (Paxos Made Simple), and once chosen, no other value is, ever. Nobody's word is taken for it.

use synod_engine::ids::{Ballot, ReplicaId, ReplicaSet, Slot};
use synod_engine::message::Value;
use xxhash_rust::xxh3::xxh3_64;

use super::{AGREEMENT, Violation};

pub struct Agreement {
    /// Acceptances that make a value chosen.
    accept_quorum: usize,
    slots: Vec<SlotHistory>,
    /// Every slot up to here was committed by some replica.
    committed: Slot,
}

#[derive(Default)]
struct SlotHistory {
    votes: Vec<Vote>,
    chosen: Option<u64>,
    /// When a replica first acted on it, in nanoseconds of simulated time.
    committed_at: u64,
}

struct Vote {
    ballot: Ballot,
    hash: u64,
    value: Value,
    durable_at: ReplicaSet,
}

impl Agreement {
    pub fn new(accept_quorum: u8) -> Agreement {
        Agreement {
            accept_quorum: usize::from(accept_quorum),
            slots: Vec::new(),
            committed: Slot::ZERO,
        }
    }

    pub fn hash_of(value: &Value) -> u64 {
        xxh3_64(value)
    }

    fn slot_mut(&mut self, slot: Slot) -> &mut SlotHistory {
        let index = slot.0 as usize - 1;
        if self.slots.len() <= index {
            self.slots.resize_with(index + 1, SlotHistory::default);
        }
        &mut self.slots[index]
    }

    fn slot(&self, slot: Slot) -> Option<&SlotHistory> {
        self.slots.get((slot.0 as usize).checked_sub(1)?)
    }

    /// Somebody proposes or accepts this value: a ballot has one value per slot.
    pub fn proposed(
        &mut self,
        slot: Slot,
        ballot: Ballot,
        hash: u64,
        value: &Value,
    ) -> Result<(), Violation> {
        let history = self.slot_mut(slot);
        match history.votes.iter().find(|vote| vote.ballot == ballot) {
            None => history.votes.push(Vote {
                ballot,
                hash,
                value: value.clone(),
                durable_at: ReplicaSet::EMPTY,
            }),
            Some(known) if known.hash == hash => {}
            Some(_) => {
                let what = format!("two values are proposed for {slot} at {ballot}");
                return Err(Violation::new(AGREEMENT, what));
            }
        }
        Ok(())
    }

    /// The acceptance of `acceptor` is on its disk.
    pub fn accepted(
        &mut self,
        acceptor: ReplicaId,
        slot: Slot,
        ballot: Ballot,
        hash: u64,
    ) -> Result<(), Violation> {
        let quorum = self.accept_quorum;
        let history = self.slot_mut(slot);
        let vote = history
            .votes
            .iter_mut()
            .find(|vote| vote.ballot == ballot && vote.hash == hash);
        let Some(vote) = vote else {
            let what =
                format!("{acceptor} has a value for {slot} at {ballot} that nobody proposed");
            return Err(Violation::new(AGREEMENT, what));
        };
        vote.durable_at.insert(acceptor);
        if vote.durable_at.len() < quorum || history.chosen == Some(hash) {
            return Ok(());
        }
        if history.chosen.is_some() {
            let what = format!("two values are chosen for {slot}, the later one at {ballot}");
            return Err(Violation::new(AGREEMENT, what));
        }
        history.chosen = Some(hash);
        Ok(())
    }

    /// `replica` holds `slot` as chosen with this value. Returns the value the first time anyone does.
    pub fn committed(
        &mut self,
        now: u64,
        replica: ReplicaId,
        slot: Slot,
        hash: u64,
    ) -> Result<Option<Value>, Violation> {
        let first = slot > self.committed;
        let committed = self.committed;
        let history = self.slot_mut(slot);
        if history.chosen != Some(hash) {
            let what = match history.chosen {
                None => format!("{replica} takes {slot} for chosen, but no quorum has accepted it"),
                Some(_) => format!("{replica} holds another value for {slot} than the chosen one"),
            };
            return Err(Violation::new(AGREEMENT, what));
        }
        if !first {
            return Ok(None);
        }
        if slot != committed.next() {
            let what = format!("{replica} commits {slot}, the one before was never committed");
            return Err(Violation::new(AGREEMENT, what));
        }
        history.committed_at = now;
        let vote = history.votes.iter().find(|vote| vote.hash == hash);
        let value = vote.expect("what is chosen was proposed").value.clone();
        self.committed = slot;
        Ok(Some(value))
    }

    /// The hash of the chosen value, if an accept quorum has it.
    pub fn chosen(&self, slot: Slot) -> Option<u64> {
        self.slot(slot)?.chosen
    }

    /// Every slot up to here was committed by some replica.
    pub fn committed_through(&self) -> Slot {
        self.committed
    }

    /// When a replica first acted on `slot`, if any did.
    pub fn committed_at(&self, slot: Slot) -> Option<u64> {
        (slot <= self.committed).then(|| self.slot(slot).map_or(0, |history| history.committed_at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOT: Slot = Slot(1);

    fn ballot(round: u64) -> Ballot {
        Ballot {
            round,
            replica: ReplicaId(1),
        }
    }

    /// Proposes `value` at `round` and lets these replicas accept it.
    fn vote(
        agreement: &mut Agreement,
        round: u64,
        value: &'static [u8],
        by: &[u8],
    ) -> Result<(), Violation> {
        let value = Value::from_static(value);
        let hash = Agreement::hash_of(&value);
        agreement.proposed(SLOT, ballot(round), hash, &value)?;
        by.iter()
            .try_for_each(|r| agreement.accepted(ReplicaId(*r), SLOT, ballot(round), hash))
    }

    #[test]
    fn a_second_choice_is_found_and_a_repeated_one_is_none() {
        let mut agreement = Agreement::new(2);
        vote(&mut agreement, 1, b"a", &[1]).expect("no quorum yet");
        vote(&mut agreement, 2, b"b", &[2, 3]).expect("the first choice");
        vote(&mut agreement, 3, b"b", &[1, 2]).expect("the same value again");
        let error = vote(&mut agreement, 4, b"a", &[1, 3]).expect_err("another value");
        assert!(
            error.to_string().contains("two values are chosen"),
            "{error}"
        );
    }

    #[test]
    fn a_ballot_with_two_values_is_found() {
        let mut agreement = Agreement::new(2);
        vote(&mut agreement, 1, b"a", &[]).expect("one value");
        vote(&mut agreement, 1, b"b", &[]).expect_err("another value at the same ballot");
    }

    #[test]
    fn acting_on_what_no_quorum_accepted_is_found() {
        let mut agreement = Agreement::new(2);
        let (a, b) = (Value::from_static(b"a"), Value::from_static(b"b"));
        let (a, b) = (Agreement::hash_of(&a), Agreement::hash_of(&b));
        vote(&mut agreement, 1, b"a", &[1]).expect("no quorum yet");
        agreement
            .committed(7, ReplicaId(1), SLOT, a)
            .expect_err("one of three is no quorum");
        // The same acceptor twice counts once.
        vote(&mut agreement, 1, b"a", &[1]).expect("a repeat");
        agreement
            .committed(7, ReplicaId(1), SLOT, a)
            .expect_err("still one of three");
        vote(&mut agreement, 1, b"a", &[2]).expect("the quorum");
        agreement
            .committed(7, ReplicaId(1), SLOT, b)
            .expect_err("not the chosen value");
        let value = agreement
            .committed(7, ReplicaId(1), SLOT, a)
            .expect("chosen");
        assert_eq!(value, Some(Value::from_static(b"a")));
        assert_eq!(agreement.committed(9, ReplicaId(2), SLOT, a), Ok(None));
        assert_eq!(agreement.committed_at(SLOT), Some(7));
    }
}
