//! Where the newest durable record of each slot stands, by runs of slots: what one group holds is mostly one run, so
//! memory goes with the groups of the WAL and not with its slots.

use std::collections::BTreeMap;

use synod_engine::ids::Slot;

use crate::format::{SegmentIdentity, Sequence};

/// Runs forgotten at once: a trim of gigabytes must not hold up the loop.
const FORGET_AT_ONCE: usize = 512;

/// Where records are read from: a group, and a record in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Location {
    pub sequence: Sequence,
    pub identity: SegmentIdentity,
    /// Of the group in its segment.
    pub offset: u64,
    pub group_bytes: u32,
    /// Of a record in the group.
    pub at: u32,
}

/// Consecutive slots whose records follow each other in one group; only records without a slot stand between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    pub first: Slot,
    pub last: Slot,
    /// Of the record of the first slot, or of an earlier one if newer records replaced the front of the run.
    pub location: Location,
    /// No more than the values take together.
    pub bytes: u32,
}

impl Run {
    pub fn one(slot: Slot, location: Location, bytes: usize) -> Run {
        Run {
            first: slot,
            last: slot,
            location,
            bytes: bytes as u32,
        }
    }

    /// Takes in the next record of the same group; false if it starts a run of its own.
    pub fn extend(&mut self, slot: Slot, bytes: usize) -> bool {
        let follows = slot == self.last.next();
        if follows {
            self.last = slot;
            self.bytes += bytes as u32;
        }
        follows
    }
}

/// Adds a record to the runs of its group.
pub fn gather(runs: &mut Vec<Run>, slot: Slot, location: Location, bytes: usize) {
    let joined = runs.last_mut().is_some_and(|run| run.extend(slot, bytes));
    if !joined {
        runs.push(Run::one(slot, location, bytes));
    }
}

/// Bounded by what the live segments hold: a run for each group, and one more for each change of ballot or order within
/// a group.
#[derive(Default)]
pub struct Index {
    /// By their first slots. They do not overlap.
    runs: BTreeMap<Slot, Run>,
    slots: u64,
    /// What is below is gone, though not yet forgotten here.
    floor: Slot,
}

impl Index {
    /// Later records of slots replace the earlier ones.
    pub fn insert(&mut self, run: Run) {
        self.remove(run.first, run.last);
        self.put(run);
    }

    /// Runs of consecutive slots from `from` on, until the first gap or `through`, or until there are `runs_max` or they
    /// hold more than `bytes_max`.
    pub fn find(&self, from: Slot, through: Slot, runs_max: usize, bytes_max: usize) -> Vec<Run> {
        let mut found = Vec::new();
        if from > through || from < self.floor {
            return found;
        }
        let start = match self.runs.range(..=from).next_back() {
            Some((first, run)) if run.last >= from => *first,
            Some(_) | None => from,
        };
        let (mut expected, mut bytes) = (from, 0);
        for run in self.runs.range(start..=through).map(|(_, run)| *run) {
            if run.first > expected || bytes > bytes_max || found.len() == runs_max {
                break;
            }
            // What is cut off at the ends has an unknown part of the bytes.
            let whole = run.first == expected && run.last <= through;
            bytes += if whole { run.bytes as usize } else { 0 };
            found.push(Run {
                first: expected,
                last: run.last.min(through),
                ..run
            });
            expected = run.last.next();
        }
        found
    }

    /// Nothing below `floor` is found any more.
    pub fn forget_below(&mut self, floor: Slot) {
        self.floor = self.floor.max(floor);
        self.forget_some();
    }

    /// Gives back some of the memory of what is below the floor; called once a turn.
    pub fn forget_some(&mut self) {
        for _ in 0..FORGET_AT_ONCE {
            let Some((_, run)) = self.runs.first_key_value() else {
                return;
            };
            let run = *run;
            if run.first >= self.floor {
                return;
            }
            self.take(run.first);
            if run.last >= self.floor {
                self.put(cut(run, self.floor, run.last));
            }
        }
    }

    pub fn slots(&self) -> u64 {
        self.slots
    }

    pub fn runs(&self) -> usize {
        self.runs.len()
    }

    /// Takes the slots out of whatever runs they are in.
    fn remove(&mut self, first: Slot, last: Slot) {
        let before = self.runs.range(..first).next_back();
        if let Some(before) = before.map(|(_, run)| *run).filter(|run| run.last >= first) {
            self.take(before.first);
            self.put(cut(before, before.first, first.previous()));
            if before.last > last {
                self.put(cut(before, last.next(), before.last));
                return;
            }
        }
        while let Some((start, run)) = self.runs.range(first..=last).next() {
            let (start, run) = (*start, *run);
            self.take(start);
            if run.last > last {
                self.put(cut(run, last.next(), run.last));
                return;
            }
        }
    }

    fn put(&mut self, run: Run) {
        assert!(run.first <= run.last, "a run of no slots");
        self.slots += run.last.0 - run.first.0 + 1;
        self.runs.insert(run.first, run);
    }

    fn take(&mut self, start: Slot) {
        if let Some(run) = self.runs.remove(&start) {
            self.slots -= run.last.0 - run.first.0 + 1;
        }
    }
}

/// A part of a run. How many bytes it has only the group knows.
fn cut(run: Run, first: Slot, last: Slot) -> Run {
    Run {
        first,
        last,
        bytes: 0,
        ..run
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn location(at: u32) -> Location {
        Location {
            sequence: Sequence(1),
            identity: SegmentIdentity(1),
            offset: 4096,
            group_bytes: 4096,
            at,
        }
    }

    fn run(first: u64, last: u64, at: u32) -> Run {
        Run {
            first: Slot(first),
            last: Slot(last),
            location: location(at),
            bytes: (last - first + 1) as u32 * 10,
        }
    }

    proptest! {
        /// The index against a plain map from slot to what was inserted last.
        #[test]
        fn the_newest_run_of_each_slot_is_found(
            steps in prop::collection::vec((0u8..6, 1u64..40, 0u64..12), 1..60),
        ) {
            let mut index = Index::default();
            let mut naive: BTreeMap<u64, u32> = BTreeMap::new();
            let mut floor = 0;
            for (number, (kind, first, more)) in steps.into_iter().enumerate() {
                if kind == 0 {
                    index.forget_below(Slot(first));
                    floor = floor.max(first);
                } else {
                    index.insert(run(first, first + more, number as u32));
                    naive.extend((first..=first + more).map(|slot| (slot, number as u32)));
                    index.forget_some();
                }
                naive.retain(|slot, _| *slot >= floor);
                prop_assert_eq!(index.slots(), naive.len() as u64);
                prop_assert!(index.runs() <= naive.len());
                for from in 1..52 {
                    let through = from + more;
                    let mut found = Vec::new();
                    for run in index.find(Slot(from), Slot(through), 100, 1 << 20) {
                        found.extend((run.first.0..=run.last.0).map(|s| (s, run.location.at)));
                    }
                    let expected: Vec<_> = (from..=through)
                        .map_while(|slot| Some((slot, *naive.get(&slot)?)))
                        .collect();
                    prop_assert_eq!(found, expected);
                }
            }
        }
    }

    #[test]
    fn a_group_of_consecutive_slots_is_one_run() {
        let mut runs = Vec::new();
        for (slot, at) in [(5, 100), (6, 200), (7, 300), (7, 400), (3, 500), (4, 600)] {
            gather(&mut runs, Slot(slot), location(at), 10);
        }
        assert_eq!(runs, [run(5, 7, 100), run(7, 7, 400), run(3, 4, 500)]);
    }

    #[test]
    fn what_was_trimmed_is_not_found_and_forgotten_in_steps() {
        let mut index = Index::default();
        let count = 3 * FORGET_AT_ONCE as u64;
        (1..=count).for_each(|slot| index.insert(run(2 * slot, 2 * slot, 0)));
        index.forget_below(Slot(2 * count));
        assert!(index.find(Slot(2), Slot(2), 1, 1).is_empty());
        assert_eq!(index.runs(), 2 * FORGET_AT_ONCE);
        (0..2).for_each(|_| index.forget_some());
        assert_eq!((index.runs(), index.slots()), (1, 1));
        index.forget_some();
        assert_eq!(index.find(Slot(2 * count), Slot(2 * count), 1, 1).len(), 1);
    }

    #[test]
    fn a_search_ends_at_its_limits() {
        let mut index = Index::default();
        for i in 0..5 {
            index.insert(run(10 * i + 1, 10 * i + 10, i as u32));
        }
        let count = |runs_max, bytes_max| {
            let found = index.find(Slot(3), Slot(50), runs_max, bytes_max);
            assert_eq!(found[0].first, Slot(3));
            found.len()
        };
        assert_eq!(count(100, usize::MAX), 5);
        assert_eq!(count(2, usize::MAX), 2);
        // The first run is cut, so none of its bytes are sure; each further one has 100.
        assert_eq!(count(100, 0), 2);
        assert_eq!(count(100, 100), 3);
        assert_eq!(count(100, 99), 2);
    }
}
