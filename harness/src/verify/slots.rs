//! Which record of a WAL holds each slot's value, and whether the replicas agree on it.

use std::path::Path;

use synod_engine::ids::{Lsn, ReplicaId, Slot};
use synod_engine::message::{Record, Value};
use synod_storage::Replayed;
use xxhash_rust::xxh3::xxh3_64;

use super::Verdict;

/// The newest record of each slot from 1 up to the commit index.
pub struct Slots {
    pub replica: ReplicaId,
    /// Index 0 is slot 1. `Lsn::ZERO`: no record.
    newest: Vec<Newest>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Newest {
    lsn: Lsn,
    hash: u64,
}

impl Slots {
    pub fn new(replica: ReplicaId, commit_index: Slot) -> Slots {
        Slots {
            replica,
            newest: vec![Newest::default(); commit_index.0 as usize],
        }
    }

    /// With `holes`, damage in the middle is no error: what was lost there must have been written again behind it, or
    /// the slot is missing, or an older value stands there that differs from the other replicas'.
    pub fn read(
        replica: ReplicaId,
        directory: &Path,
        commit_index: Slot,
        holes: bool,
    ) -> anyhow::Result<Slots> {
        let mut slots = Slots::new(replica, commit_index);
        let mut floor = Slot(1);
        let report = synod_storage::scan(directory, &mut |replayed| {
            let Replayed::Record(at, record) = replayed else {
                return;
            };
            if let Record::Trimmed { floor: trimmed } = record {
                floor = floor.max(trimmed);
            }
            slots.note(at.lsn, &record);
        })?;
        if let Some(hole) = report.holes.first().filter(|_| !holes) {
            anyhow::bail!(
                "{}, offset {}: damaged ({}); only a whole WAL can be checked",
                hole.file.display(),
                hole.offset,
                hole.why
            );
        }
        anyhow::ensure!(
            floor <= Slot(1),
            "the slots below {} were trimmed; only a whole WAL can be checked",
            floor.0
        );
        Ok(slots)
    }

    /// A later record of a slot replaces an earlier one.
    pub fn note(&mut self, lsn: Lsn, record: &Record) {
        let Some((slot, value)) = slot_value(record) else {
            return;
        };
        if let Some(newest) = self.newest.get_mut((slot.0 as usize).wrapping_sub(1)) {
            *newest = Newest {
                lsn,
                hash: xxh3_64(value),
            };
        }
    }

    /// The slot whose newest record is the one at `lsn`, if any.
    pub fn is_newest(&self, slot: Slot, lsn: Lsn) -> bool {
        self.newest
            .get((slot.0 as usize).wrapping_sub(1))
            .is_some_and(|newest| newest.lsn == lsn)
    }

    pub fn has(&self, slot: Slot) -> bool {
        self.newest
            .get((slot.0 as usize).wrapping_sub(1))
            .is_some_and(|newest| newest.lsn != Lsn::ZERO)
    }

    pub fn count(&self) -> u64 {
        self.newest.len() as u64
    }
}

pub fn slot_value(record: &Record) -> Option<(Slot, &Value)> {
    match record {
        Record::Accepted(accept) => Some((accept.slot, &accept.value)),
        Record::Chosen { slot, value } => Some((*slot, value)),
        Record::Promised { .. } | Record::Trimmed { .. } => None,
    }
}

/// Counts each slot that a replica lacks, or holds otherwise than the first replica that has it.
pub fn compare(tables: &[Slots], verdict: &mut Verdict) {
    let slots = tables.first().map_or(0, |table| table.newest.len());
    for index in 0..slots {
        let held = tables
            .iter()
            .map(|table| table.newest[index])
            .find(|newest| newest.lsn != Lsn::ZERO);
        for table in tables {
            let newest = table.newest[index];
            let what = if newest.lsn == Lsn::ZERO {
                "lacks"
            } else if held.is_some_and(|held| held.hash != newest.hash) {
                "holds another value of"
            } else {
                continue;
            };
            verdict.diverged += 1;
            verdict.finding(|| format!("replica {} {what} slot {}", table.replica.0, index + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(slot: u64, value: &'static [u8]) -> Record {
        Record::Chosen {
            slot: Slot(slot),
            value: Value::from_static(value),
        }
    }

    fn table(replica: u8, records: &[Record]) -> Slots {
        let mut table = Slots::new(ReplicaId(replica), Slot(3));
        for (index, record) in records.iter().enumerate() {
            table.note(Lsn(index as u64 + 1), record);
        }
        table
    }

    fn diverged(tables: &[Slots]) -> (u64, Vec<String>) {
        let mut verdict = Verdict::default();
        compare(tables, &mut verdict);
        (verdict.diverged, verdict.findings)
    }

    #[test]
    fn equal_replicas_agree_whatever_they_overwrote() {
        let first = table(1, &[chosen(1, b"a"), chosen(2, b"b"), chosen(3, b"")]);
        let other = [
            chosen(1, b"a"),
            chosen(2, b"x"),
            chosen(3, b""),
            chosen(2, b"b"),
        ];
        let second = table(2, &other);
        assert!(second.is_newest(Slot(2), Lsn(4)) && !second.is_newest(Slot(2), Lsn(2)));
        assert_eq!(diverged(&[first, second]).0, 0);
    }

    #[test]
    fn a_different_value_is_found() {
        let first = table(1, &[chosen(1, b"a"), chosen(2, b"b"), chosen(3, b"c")]);
        let second = table(2, &[chosen(1, b"a"), chosen(2, b"B"), chosen(3, b"c")]);
        let (count, findings) = diverged(&[first, second]);
        assert_eq!(count, 1);
        assert_eq!(findings, ["replica 2 holds another value of slot 2"]);
    }

    #[test]
    fn a_missing_slot_is_found_even_at_the_end_or_on_all_replicas() {
        let first = table(1, &[chosen(1, b"a"), chosen(2, b"b")]);
        let second = table(2, &[chosen(1, b"a"), chosen(2, b"b"), chosen(3, b"c")]);
        assert_eq!(diverged(&[first, second]).0, 1);
        let both = [table(1, &[chosen(1, b"a")]), table(2, &[chosen(1, b"a")])];
        assert_eq!(diverged(&both).0, 4);
    }

    #[test]
    fn slots_beyond_the_commit_index_are_nobodys_promise() {
        let first = table(
            1,
            &[
                chosen(1, b"a"),
                chosen(2, b"b"),
                chosen(3, b"c"),
                chosen(4, b"d"),
            ],
        );
        let second = table(
            2,
            &[
                chosen(1, b"a"),
                chosen(2, b"b"),
                chosen(3, b"c"),
                chosen(0, b"z"),
            ],
        );
        assert_eq!(diverged(&[first, second]).0, 0);
    }
}
