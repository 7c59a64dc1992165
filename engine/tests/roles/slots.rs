//! The table of slots, against one list of everything that ever happened.

use proptest::prelude::*;

use synod_engine::ids::{Incarnation, Lsn, ReplicaId, Slot};
use synod_engine::members::Readmission;
use synod_engine::message::{AcceptedValue, Value};
use synod_engine::output::Output;
use synod_engine::slots::Slots;

use super::ballot;

#[derive(Clone, Copy, Debug)]
enum Event {
    /// A value of the `above`-th slot above the commit index, as far as that leaves no hole.
    Accept {
        above: u64,
        bytes: usize,
    },
    /// The same, of a value that readmits replica 2.
    Readmit {
        above: u64,
        incarnation: u64,
    },
    Choose {
        bytes: usize,
    },
    Advance {
        by: u64,
    },
    Forget,
    Evict {
        bytes_max: usize,
        slots_max: u64,
        behind: u64,
    },
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => (1u64..6, 0usize..9).prop_map(|(above, bytes)| Event::Accept { above, bytes }),
        1 => (1u64..6, 1u64..4)
            .prop_map(|(above, incarnation)| Event::Readmit { above, incarnation }),
        1 => (0usize..9).prop_map(|bytes| Event::Choose { bytes }),
        3 => (0u64..4).prop_map(|by| Event::Advance { by }),
        1 => Just(Event::Forget),
        2 => (0usize..20, 1u64..6, 0u64..4).prop_map(|(bytes_max, slots_max, behind)| {
            Event::Evict { bytes_max, slots_max, behind }
        }),
    ]
}

#[derive(Clone, Debug)]
struct Entry {
    round: u64,
    value: Value,
    lsn: u64,
}

/// The oracle: every slot from 1 on, nothing ever evicted; `base` only says where memory would begin.
struct Naive {
    entries: Vec<Entry>,
    commit: usize,
    base: usize,
    lsn: u64,
}

fn readmission(incarnation: u64) -> Readmission {
    Readmission {
        replica: ReplicaId(2),
        incarnation: Incarnation(incarnation),
    }
}

impl Naive {
    fn value(&self, slot: usize) -> &Value {
        &self.entries[slot - 1].value
    }

    fn bytes(&self, slots: impl Iterator<Item = usize>) -> usize {
        slots.map(|slot| self.value(slot).len()).sum()
    }

    fn last(&self) -> usize {
        self.entries.len()
    }

    fn accept(&mut self, slots: &mut Slots, slot: usize, value: Value) {
        self.lsn += 1;
        let round = self.lsn;
        let lsn = Lsn(self.lsn);
        slots.accept(Slot(slot as u64), ballot(round, 1), value.clone(), lsn);
        self.entries.truncate(self.last().max(slot - 1));
        let entry = Entry {
            round,
            value,
            lsn: self.lsn,
        };
        if slot > self.last() {
            self.entries.push(entry);
        } else {
            self.entries[slot - 1] = entry;
        }
    }

    /// What stays open for `above`: the slot, without leaving a hole.
    fn slot(&self, above: u64) -> usize {
        (self.commit + above as usize).min(self.last() + 1)
    }

    /// The oracle of one `evict`, and whether each step of it was allowed.
    fn evict(&mut self, bytes_max: usize, slots_max: u64, durable: u64) {
        while self.base <= self.commit {
            let in_memory = self.commit - self.base + 1;
            let too_many = in_memory as u64 > slots_max;
            let too_much = self.bytes(self.base..=self.commit) > bytes_max;
            if !(too_many || too_much) || self.entries[self.base - 1].lsn > durable {
                return;
            }
            self.base += 1;
        }
    }

    fn step(&mut self, slots: &mut Slots, event: Event) -> Vec<(Slot, Value)> {
        let mut out = Output::default();
        match event {
            Event::Accept { above, bytes } => {
                let slot = self.slot(above);
                let value = Value::from(vec![self.lsn as u8; bytes]);
                self.accept(slots, slot, value);
            }
            Event::Readmit { above, incarnation } => {
                let slot = self.slot(above);
                self.accept(slots, slot, readmission(incarnation).encode());
            }
            Event::Choose { bytes } => {
                let slot = self.commit + 1;
                let value = Value::from(vec![self.lsn as u8; bytes]);
                self.lsn += 1;
                let lsn = self.lsn;
                let round = self.entries.get(slot - 1).map_or(0, |entry| entry.round);
                let entry = Entry {
                    round,
                    value: value.clone(),
                    lsn,
                };
                self.entries
                    .splice(slot - 1..self.last().min(slot), [entry]);
                self.commit = slot;
                slots.choose(Slot(slot as u64), value, Lsn(lsn), &mut out);
            }
            Event::Advance { by } => {
                self.commit = (self.commit + by as usize).min(self.last());
                slots.advance(Slot(self.commit as u64), &mut out);
            }
            Event::Forget => {
                self.entries.truncate(self.commit);
                slots.forget_open();
            }
            Event::Evict {
                bytes_max,
                slots_max,
                behind,
            } => {
                let durable = self.lsn.saturating_sub(behind);
                self.evict(bytes_max, slots_max, durable);
                slots.evict(bytes_max, slots_max, Lsn(durable));
            }
        }
        out.chosen
    }

    fn open(&self) -> Vec<AcceptedValue> {
        (self.commit + 1..=self.last())
            .map(|slot| {
                let Entry { round, value, .. } = &self.entries[slot - 1];
                AcceptedValue {
                    slot: Slot(slot as u64),
                    ballot: ballot(*round, u8::from(*round > 0)),
                    value: value.clone(),
                }
            })
            .collect()
    }

    fn run(&self, from: usize, through: usize, bytes_max: usize) -> Vec<Value> {
        let mut values: Vec<Value> = Vec::new();
        if from < self.base {
            return values;
        }
        for slot in from..=through.min(self.last()) {
            let bytes: usize = values.iter().map(|value| value.len()).sum();
            if !values.is_empty() && bytes >= bytes_max {
                break;
            }
            values.push(self.value(slot).clone());
        }
        values
    }

    /// Where replica 2 was readmitted last, and as what.
    fn readmitted(&self) -> Option<(usize, Readmission)> {
        let mut chosen = (1..=self.commit).rev();
        chosen.find_map(|slot| Some((slot, Readmission::decode(self.value(slot))?)))
    }
}

fn check_watermarks(slots: &Slots, naive: &Naive) -> Result<(), TestCaseError> {
    prop_assert_eq!(slots.commit_index(), Slot(naive.commit as u64));
    prop_assert_eq!(slots.last(), Slot(naive.last() as u64));
    prop_assert_eq!(slots.base(), Slot(naive.base as u64));
    prop_assert_eq!(slots.open(), naive.open());
    let open = naive.commit + 1..=naive.last();
    prop_assert_eq!(slots.open_bytes(), naive.bytes(open));
    for slot in naive.commit + 1..=naive.last() + 1 {
        let below = slots.open_bytes_below(Slot(slot as u64));
        prop_assert_eq!(below, naive.bytes(naive.commit + 1..slot));
    }
    Ok(())
}

fn check_values(slots: &Slots, naive: &Naive) -> Result<(), TestCaseError> {
    for slot in 0..=naive.last() + 1 {
        let held = (naive.base..=naive.last()).contains(&slot);
        let value = slots.get(Slot(slot as u64)).map(|entry| &entry.value);
        prop_assert_eq!(value, held.then(|| naive.value(slot)));
    }
    for from in 1..=naive.last() + 1 {
        for (through, bytes_max) in [(naive.last(), 0), (from + 1, 12), (naive.commit, 1_000)] {
            let run = slots.run(Slot(from as u64), Slot(through as u64), bytes_max);
            prop_assert_eq!(run, naive.run(from, through, bytes_max));
        }
    }
    Ok(())
}

fn check_members(slots: &Slots, naive: &Naive) -> Result<(), TestCaseError> {
    let of = |value: &Value| Readmission::decode(value).map(|readmission| readmission.replica);
    for replica in (1..4).map(ReplicaId) {
        let open =
            (naive.commit + 1..=naive.last()).any(|slot| of(naive.value(slot)) == Some(replica));
        prop_assert_eq!(slots.open_readmission(replica), open);
    }
    let (since, incarnation) = naive
        .readmitted()
        .map_or((0, Incarnation::FOUNDING), |(slot, readmission)| {
            (slot as u64, readmission.incarnation)
        });
    prop_assert_eq!(slots.members().incarnation(ReplicaId(2)), incarnation);
    prop_assert_eq!(slots.members().since(ReplicaId(2)), Slot(since));
    prop_assert_eq!(
        slots.members().incarnation(ReplicaId(1)),
        Incarnation::FOUNDING
    );
    Ok(())
}

proptest! {
    #[test]
    fn the_table_agrees_with_a_list_of_every_slot(
        events in proptest::collection::vec(event(), 0..30),
    ) {
        let mut slots = Slots::new();
        let mut naive = Naive { entries: Vec::new(), commit: 0, base: 1, lsn: 0 };
        for event in events {
            let before = naive.commit;
            let chosen = naive.step(&mut slots, event);
            let wanted: Vec<_> = (before + 1..=naive.commit)
                .map(|slot| (Slot(slot as u64), naive.value(slot).clone()))
                .collect();
            prop_assert_eq!(chosen, wanted);
            check_watermarks(&slots, &naive)?;
            check_values(&slots, &naive)?;
            check_members(&slots, &naive)?;
        }
    }
}
