//! Which record of a WAL holds each slot's value, and whether the replicas agree on it.

use std::collections::VecDeque;
use std::path::Path;

use synod_engine::ids::{Lsn, ReplicaId, Slot};
use synod_engine::message::{Record, Value};
use synod_storage::Replayed;
use xxhash_rust::xxh3::xxh3_64;

use super::Verdict;

/// The newest record of each slot that a WAL still has, up to the commit index.
pub struct Slots {
    pub replica: ReplicaId,
    /// From here on the WAL must have every slot. What is below stands in a snapshot.
    pub floor: Slot,
    commit_index: Slot,
    /// The slot of the first entry.
    base: u64,
    /// Memory goes with what the WAL holds, not with all that ever was. `Lsn::ZERO`: no record.
    newest: VecDeque<Newest>,
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
            floor: Slot(1),
            commit_index,
            base: 1,
            newest: VecDeque::new(),
        }
    }

    /// With `holes`, damage in the middle is no error: what was lost there must have been written again behind it, or
    /// the slot is missing, or an older value stands there that differs from the other replicas'. That holds above the
    /// replica's newest snapshot, of slot `covered`: nobody mends what is below.
    pub fn read(
        replica: ReplicaId,
        directory: &Path,
        commit_index: Slot,
        holes: bool,
        covered: Slot,
    ) -> anyhow::Result<Slots> {
        let mut slots = Slots::new(replica, commit_index);
        let report = synod_storage::scan(directory, &mut |replayed| {
            let Replayed::Record(at, record) = replayed else {
                return;
            };
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
        slots.floor = slots.floor.max(report.trim_floor);
        if !report.holes.is_empty() {
            slots.floor = slots.floor.max(covered.next());
        }
        Ok(slots)
    }

    /// A later record of a slot replaces an earlier one.
    pub fn note(&mut self, lsn: Lsn, record: &Record) {
        let Some((slot, value)) = slot_value(record) else {
            return;
        };
        if slot < Slot(1) || slot > self.commit_index {
            return;
        }
        if self.newest.is_empty() {
            self.base = slot.0;
        }
        while slot.0 < self.base {
            self.newest.push_front(Newest::default());
            self.base -= 1;
        }
        let at = (slot.0 - self.base) as usize;
        if at >= self.newest.len() {
            self.newest.resize(at + 1, Newest::default());
        }
        self.newest[at] = Newest {
            lsn,
            hash: xxh3_64(value),
        };
    }

    fn newest(&self, slot: Slot) -> Newest {
        let at = slot.0.checked_sub(self.base);
        let newest = at.and_then(|at| self.newest.get(at as usize));
        newest.copied().unwrap_or_default()
    }

    /// The slot whose newest record is the one at `lsn`, if any.
    pub fn is_newest(&self, slot: Slot, lsn: Lsn) -> bool {
        self.newest(slot).lsn == lsn
    }

    pub fn has(&self, slot: Slot) -> bool {
        self.newest(slot).lsn != Lsn::ZERO
    }

    pub fn commit_index(&self) -> Slot {
        self.commit_index
    }
}

pub fn slot_value(record: &Record) -> Option<(Slot, &Value)> {
    match record {
        Record::Accepted(accept) => Some((accept.slot, &accept.value)),
        Record::Chosen { slot, value } => Some((*slot, value)),
        Record::Promised { .. } | Record::Trimmed { .. } => None,
    }
}

/// Counts each slot that a replica lacks, or holds otherwise than the first replica that has it. Of each replica only
/// the slots count that its WAL must still have.
pub fn compare(tables: &[Slots], verdict: &mut Verdict) {
    let lowest = tables.iter().map(|table| table.floor.0).min();
    let last = tables.first().map_or(0, |table| table.commit_index.0);
    for slot in (lowest.unwrap_or(1)..=last).map(Slot) {
        let having = || tables.iter().filter(|table| slot >= table.floor);
        let held = having()
            .map(|table| table.newest(slot))
            .find(|newest| newest.lsn != Lsn::ZERO);
        for table in having() {
            let newest = table.newest(slot);
            let what = if newest.lsn == Lsn::ZERO {
                "lacks"
            } else if held.is_some_and(|held| held.hash != newest.hash) {
                "holds another value of"
            } else {
                continue;
            };
            verdict.diverged += 1;
            verdict.finding(|| format!("replica {} {what} slot {}", table.replica.0, slot.0));
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
    fn below_its_floor_a_replica_may_lack_slots_or_hold_stale_ones() {
        let whole = [chosen(1, b"a"), chosen(2, b"b"), chosen(3, b"c")];
        let trimmed = |floor, records: &[Record]| {
            let mut table = table(2, records);
            table.floor = Slot(floor);
            table
        };
        let late = trimmed(3, &[chosen(3, b"c"), chosen(1, b"stale")]);
        assert!(late.has(Slot(1)) && !late.has(Slot(2)));
        assert_eq!(diverged(&[table(1, &whole), late]).0, 0);
        let late = trimmed(2, &[chosen(3, b"c")]);
        let (count, findings) = diverged(&[table(1, &whole), late]);
        assert_eq!(count, 1);
        assert_eq!(findings, ["replica 2 lacks slot 2"]);
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
