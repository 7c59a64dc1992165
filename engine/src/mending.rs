//! What a replica still has to find out after its WAL lost records in the middle (protocol-aware recovery, after
//! Alagappan et al., "Protocol-Aware Recovery for Consensus-Based Storage", FAST 2018).
//!
//! The lost records promised nothing that the group behind them does not tell, so the promise is known. But they may
//! have held values that this replica accepted. A slot whose newest record may be lost is *missing* until its chosen
//! value came from a peer. As long as one is, the replica gives no promise: it could not tell what it accepted. It does
//! accept, for what it accepts at the newest ballot stands by itself. What was lost is never taken for "nothing".

use std::collections::BTreeMap;

use crate::ids::{Ballot, Slot};
use crate::message::Value;

#[derive(Clone, Debug)]
pub struct Mending {
    /// The promise with which this replica restarted. Nothing that was lost was accepted above it.
    promised: Ballot,
    /// Every slot up to here is chosen, as records behind the hole say. Those that are not missing can be read back.
    chosen: Slot,
    /// Ranges of slots, first to last, whose newest record may be lost.
    missing: BTreeMap<Slot, Slot>,
    /// Accepted according to records behind every hole, and not known to be chosen. Bounded as ever by how far an
    /// acceptor goes ahead of its commit index.
    open: BTreeMap<Slot, (Ballot, Value)>,
    /// Whether the own WAL was asked for a part and has not answered.
    reading: bool,
}

impl Mending {
    /// A replay that came to a hole with every slot up to `commit_index` applied.
    pub fn new(commit_index: Slot) -> Mending {
        Mending {
            promised: Ballot::ZERO,
            chosen: commit_index,
            missing: BTreeMap::new(),
            open: BTreeMap::new(),
            reading: false,
        }
    }

    /// Records are lost, of slots up to `slot_max`. Those up to `chosen` had their last word before.
    pub fn hole(&mut self, slot_max: Slot) {
        self.open.clear();
        let first = self.chosen.next();
        if slot_max < first {
            return;
        }
        let before = self.missing.range(..first).next_back();
        let start = before
            .filter(|(_, last)| **last >= first)
            .map_or(first, |(start, _)| *start);
        // No record so far is of a higher slot than `slot_max`, so nothing missing lies behind it.
        self.missing.split_off(&start);
        self.missing.insert(start, slot_max);
    }

    /// A record behind the hole, of a writer whose commit index was `commit_index`.
    pub fn accepted(&mut self, slot: Slot, ballot: Ballot, value: Value, commit_index: Slot) {
        self.found(slot);
        self.open.insert(slot, (ballot, value));
        self.advance(commit_index);
    }

    pub fn learned(&mut self, slot: Slot) {
        self.found(slot);
        self.advance(slot);
    }

    /// The slots from `first`, the one after the commit index, through `last` are chosen, but neither a snapshot nor
    /// the WAL holds them any more.
    pub fn absent(&mut self, first: Slot, last: Slot) {
        let mut end = last;
        while let Some((start, known)) = self.missing.range(..=end).next_back() {
            let (start, known) = (*start, *known);
            end = end.max(known);
            self.missing.remove(&start);
        }
        self.missing.insert(first, end);
        self.advance(last);
    }

    fn advance(&mut self, commit_index: Slot) {
        if commit_index > self.chosen {
            self.chosen = commit_index;
            self.open = self.open.split_off(&commit_index.next());
        }
    }

    /// The newest record of `slot` is there after all.
    fn found(&mut self, slot: Slot) {
        let Some((first, last)) = self.missing.range(..=slot).next_back() else {
            return;
        };
        let (first, last) = (*first, *last);
        if last < slot {
            return;
        }
        self.missing.remove(&first);
        if first < slot {
            self.missing.insert(first, slot.previous());
        }
        if slot < last {
            self.missing.insert(slot.next(), last);
        }
    }

    /// The own record of `slot` turned out to be unreadable.
    pub fn lost(&mut self, slot: Slot) {
        self.missing.insert(slot, slot);
    }

    /// Every slot up to here is chosen.
    pub fn chosen(&self) -> Slot {
        self.chosen
    }

    /// The missing slots, in ranges from first to last.
    pub fn missing(&self) -> impl Iterator<Item = (Slot, Slot)> + '_ {
        self.missing.iter().map(|(first, last)| (*first, *last))
    }

    /// The last slot that can be read back together with `from`, if that one can.
    pub fn at_hand(&self, from: Slot) -> Option<Slot> {
        let before = self.missing.range(..=from).next_back();
        if from > self.chosen || before.is_some_and(|(_, last)| *last >= from) {
            return None;
        }
        let next = self.missing.range(from..).next();
        Some(next.map_or(self.chosen, |(first, _)| first.previous().min(self.chosen)))
    }

    /// The last slot of the missing range that holds `slot`.
    pub fn missing_through(&self, slot: Slot) -> Option<Slot> {
        let (_, last) = self.missing.range(..=slot).next_back()?;
        (*last >= slot).then_some(*last)
    }

    /// Whether to ask the own WAL now: one question at a time.
    pub fn may_read(&mut self) -> bool {
        !std::mem::replace(&mut self.reading, true)
    }

    pub fn read_ended(&mut self) {
        self.reading = false;
    }

    /// Whether everything up to `commit_index` being chosen and held leaves no question.
    pub fn done(&self, commit_index: Slot) -> bool {
        let missing = self.missing.values().next_back();
        commit_index >= self.chosen && missing.is_none_or(|last| *last <= commit_index)
    }

    /// The replay is over.
    pub fn restarted(&mut self, promised: Ballot) {
        self.promised = promised;
    }

    /// Whether a leader of `ballot`, whose chosen slots are all held here, settles what is missing: it was elected
    /// without this replica's knowledge and above everything that this replica accepted, so nothing that is not
    /// chosen by now can ever be chosen at a lower ballot.
    pub fn settled_by(&self, ballot: Ballot) -> bool {
        ballot > self.promised
    }

    /// What was accepted and is not known to be chosen, in slot order.
    pub fn into_open(self) -> impl Iterator<Item = (Slot, Ballot, Value)> {
        self.open
            .into_iter()
            .map(|(slot, (ballot, value))| (slot, ballot, value))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::ids::ReplicaId;

    /// What the records of a WAL with holes say, in their order.
    #[derive(Clone, Debug)]
    enum Said {
        Hole { above: u64 },
        Accepted { above: u64, chosen: u64 },
        Learned { above: u64 },
    }

    fn said() -> impl Strategy<Value = Said> {
        prop_oneof![
            (0u64..6).prop_map(|above| Said::Hole { above }),
            (0u64..6, 0u64..6).prop_map(|(above, chosen)| Said::Accepted { above, chosen }),
            (0u64..6).prop_map(|above| Said::Learned { above }),
        ]
    }

    /// The oracle: slot by slot.
    #[derive(Default)]
    struct Naive {
        chosen: u64,
        missing: BTreeSet<u64>,
        open: BTreeMap<u64, u64>,
    }

    impl Naive {
        fn advance(&mut self, chosen: u64) {
            self.chosen = self.chosen.max(chosen);
            let chosen = self.chosen;
            self.open.retain(|slot, _| *slot > chosen);
        }
    }

    fn ballot(round: u64) -> Ballot {
        Ballot {
            round,
            replica: ReplicaId(1),
        }
    }

    proptest! {
        #[test]
        fn what_is_missing_agrees_with_a_slot_by_slot_count(
            start in 0u64..5,
            records in proptest::collection::vec(said(), 0..30),
        ) {
            let mut mending = Mending::new(Slot(start));
            let mut naive = Naive { chosen: start, ..Naive::default() };
            let mut slot_max = start;
            for (round, record) in (1..).zip(records) {
                match record {
                    Said::Hole { above } => {
                        slot_max = slot_max.max(naive.chosen + above);
                        mending.hole(Slot(slot_max));
                        naive.open.clear();
                        naive.missing.extend(naive.chosen + 1..=slot_max);
                    }
                    Said::Accepted { above, chosen } => {
                        let slot = naive.chosen + 1 + above;
                        slot_max = slot_max.max(slot);
                        let chosen = naive.chosen + chosen.min(above);
                        mending.accepted(Slot(slot), ballot(round), Value::new(), Slot(chosen));
                        naive.missing.remove(&slot);
                        naive.open.insert(slot, round);
                        naive.advance(chosen);
                    }
                    Said::Learned { above } => {
                        let slot = naive.chosen + 1 + above;
                        slot_max = slot_max.max(slot);
                        mending.learned(Slot(slot));
                        naive.missing.remove(&slot);
                        naive.advance(slot);
                    }
                }
                let missing: BTreeSet<u64> = mending
                    .missing()
                    .flat_map(|(first, last)| first.0..=last.0)
                    .collect();
                prop_assert_eq!(&missing, &naive.missing);
                prop_assert_eq!(mending.chosen(), Slot(naive.chosen));
                for slot in 1..=slot_max + 1 {
                    let hand = (slot <= naive.chosen && !missing.contains(&slot)).then(|| {
                        let next = missing.range(slot..).next().copied();
                        next.map_or(naive.chosen, |next| naive.chosen.min(next - 1))
                    });
                    prop_assert_eq!(mending.at_hand(Slot(slot)), hand.map(Slot));
                    let all = naive.chosen <= slot && missing.range(slot + 1..).next().is_none();
                    prop_assert_eq!(mending.done(Slot(slot)), all);
                    let through = mending.missing_through(Slot(slot));
                    prop_assert_eq!(through.is_some(), missing.contains(&slot));
                }
            }
            let open: Vec<_> = mending.into_open().map(|(slot, ballot, _)| (slot.0, ballot.round)).collect();
            prop_assert_eq!(open, naive.open.into_iter().collect::<Vec<_>>());
        }
    }
}
