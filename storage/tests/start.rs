//! A start with a snapshot reads nothing of the segments that lie below it, misses nothing above it, and gives nobody
//! what it passed over.

mod common;

use common::{
    History, MemoryWal, Records, accepted, counter, disk, options, promised, read, record_of, scan,
    settle, trimmed, value,
};
use proptest::prelude::*;
use synod_engine::ids::{Lsn, Slot};
use synod_engine::message::Record;
use synod_engine::seams::Wal;
use synod_storage::backend::{Fault, MemoryBackend, MemoryDisk};
use synod_storage::config::Options;
use synod_storage::format::Sequence;
use synod_storage::wal::Opened;
use synod_storage::{OpenError, Replayed};

const SEGMENT_BYTES: u64 = 16 << 10;
const VALUE_BYTES: usize = 3000;

fn open_above(
    disk: &MemoryDisk,
    options: Options,
    covers: u64,
) -> Result<(MemoryWal, Records, Opened), OpenError> {
    let mut records = Records::new();
    let (wal, opened) =
        MemoryBackend::open_above(disk, options, Slot(covers), &mut |replayed: Replayed| {
            records.extend(record_of(replayed));
        })?;
    Ok((wal, records, opened))
}

fn slot_of(record: &Record) -> Option<u64> {
    match record {
        Record::Accepted(accept) => Some(accept.slot.0),
        Record::Chosen { slot, .. } => Some(slot.0),
        Record::Promised { .. } | Record::Trimmed { .. } => None,
    }
}

/// Everything above `covers` was visited, in order and without a gap, and what was promised is known.
fn check(history: &[(Lsn, Record)], covers: u64, records: &Records, opened: &Opened) {
    let first = history.len() - records.len();
    assert_eq!(records[..], history[first..], "covers {covers}");
    for (lsn, record) in &history[..first] {
        let slot = slot_of(record).unwrap_or(0);
        assert!(slot <= covers, "{lsn:?} is of slot {slot}, above {covers}");
    }
    let mut carried = synod_storage::group::Carried::default();
    history
        .iter()
        .for_each(|(_, record)| carried.absorb(record));
    assert_eq!(opened.carried, carried, "covers {covers}");
}

/// A slot for each record of `VALUE_BYTES`, three or so to a segment; a promise and a floor now and then.
fn long(slots: u64) -> (MemoryDisk, Options, History) {
    let options = options(SEGMENT_BYTES);
    let disk = disk(&options);
    let (mut wal, _, _) = open_above(&disk, options, 0).unwrap();
    let mut history = History::default();
    for slot in 1..=slots {
        if slot % 10 == 1 {
            history.write(&mut wal, promised(slot));
        }
        history.write(&mut wal, accepted(slot, VALUE_BYTES));
    }
    (disk, options, history)
}

#[test]
fn a_replay_starts_with_the_segment_of_the_first_slot_above_the_snapshot() {
    let (disk, options, history) = long(100);
    for covers in 0..=102 {
        let (wal, records, opened) = open_above(&disk.copy(), options, covers).unwrap();
        check(&history.records, covers, &records, &opened);
        // Three records to a segment, or four pages of it with a promise.
        let above = 100u64.saturating_sub(covers);
        let most = if covers == 0 {
            110
        } else {
            above + above / 10 + 4
        };
        assert!(
            records.len() as u64 <= most,
            "{} of {covers}",
            records.len()
        );
        assert!(opened.bytes <= (records.len() as u64 + 2) * SEGMENT_BYTES);
        let skipped = opened.segments_skipped;
        assert!(counter(&wal, "wal_segments_live") > skipped);
    }
}

/// Below the snapshot a damaged group may hide the newest record of a slot: an older one must not pass for it. Whoever
/// asks is given the snapshot instead.
#[test]
fn what_was_passed_over_is_never_read() {
    let (disk, options, _) = long(60);
    let (mut wal, records, opened) = open_above(&disk, options, 55).unwrap();
    assert!(opened.segments_skipped > 10);
    let visited = records.iter().filter_map(|(_, record)| slot_of(record));
    let first = visited.min().unwrap();
    for from in 1..=60 {
        wal.durable().unwrap();
        let values = read(&mut wal, from, 60, 1 << 20).values;
        let expected: Vec<_> = (from..=60).map(|slot| value(slot, VALUE_BYTES)).collect();
        assert_eq!(values, if from < first { Vec::new() } else { expected });
    }
}

/// Damage below the snapshot is none of the replay's business, and hides no promise.
#[test]
fn damage_below_the_snapshot_costs_nothing() {
    let (disk, options, history) = long(60);
    for what in 0..3 {
        let damaged = disk.copy();
        for number in 2..=6 {
            let name = Sequence(number).segment_name();
            match what {
                0 => damaged.tamper(&name, |bytes| bytes[5000] ^= 1),
                1 => damaged.tamper(&name, |bytes| bytes[100] ^= 1),
                _ => damaged.lose(&name),
            }
        }
        let (mut wal, records, opened) = open_above(&damaged, options, 50).unwrap();
        check(&history.records, 50, &records, &opened);
        assert!(opened.holes.is_empty() && opened.cut.is_none());
        let mut after = History {
            records: history.records.clone(),
        };
        after.write(&mut wal, accepted(61, VALUE_BYTES));
        // A trim drops the damaged segments like others.
        after.write(&mut wal, trimmed(50));
        wal.trim(Slot(50));
        wal.durable().unwrap();
        let records = scan(&damaged.crash(|_| false, |_| false)).unwrap();
        assert_eq!(records.last(), after.records.last());
    }
}

/// An older snapshot than the one that was trimmed by: what is missing between them is told by the floor.
#[test]
fn a_snapshot_below_the_floor_is_told_by_the_floor() {
    let (disk, options, mut history) = long(60);
    let (mut wal, _, _) = open_above(&disk, options, 0).unwrap();
    history.write(&mut wal, trimmed(40));
    wal.trim(Slot(40));
    wal.durable().unwrap();
    drop(wal);
    for covers in [0, 20, 38, 39, 45] {
        let (_, records, opened) = open_above(&disk.copy(), options, covers).unwrap();
        assert_eq!(opened.carried.trim_floor, Slot(40), "covers {covers}");
        assert!(opened.holes.is_empty());
        let from = covers.max(39) + 1;
        for slot in from..=60 {
            let found = records
                .iter()
                .any(|(_, record)| slot_of(record) == Some(slot));
            assert!(found, "slot {slot} of {covers}");
        }
    }
}

/// After the install of a snapshot slots jump, and everything below may be trimmed at once.
#[test]
fn slots_may_jump_over_what_a_snapshot_brought() {
    let (disk, options, mut history) = long(20);
    let (mut wal, _, _) = open_above(&disk, options, 0).unwrap();
    history.write(&mut wal, trimmed(1001));
    wal.trim(Slot(1001));
    for slot in 1001..=1010 {
        history.write(&mut wal, accepted(slot, VALUE_BYTES));
    }
    wal.durable().unwrap();
    assert!(counter(&wal, "wal_segments_live") <= 6);
    let values = read(&mut wal, 1001, 2000, 1 << 20).values;
    assert_eq!(values.len(), 10);
    assert_eq!(read(&mut wal, 20, 2000, 1 << 20).values.len(), 0);
    drop(wal);
    let (_, records, opened) =
        open_above(&disk.crash(|_| false, |_| false), options, 1000).unwrap();
    check(&history.records, 1000, &records, &opened);
}

/// The segment to start with may hold nothing but a torn group: its header is true all the same.
#[test]
fn a_torn_first_group_is_a_place_to_start() {
    let options = options(SEGMENT_BYTES);
    let disk = disk(&options);
    let (mut wal, _, _) = open_above(&disk, options, 0).unwrap();
    let mut history = History::default();
    (1..=3).for_each(|slot| history.write(&mut wal, accepted(slot, 9000)));
    wal.durable().unwrap();
    wal.backend_mut().hold();
    history.append(&mut wal, accepted(4, 9000));
    wal.submit();
    drop(wal);
    // Of the last group only the sector of its header arrives.
    let crashed = disk.crash(|sector| sector == 0, |_| false);
    let (mut wal, records, opened) = open_above(&crashed, options, 3).unwrap();
    assert_eq!((records, opened.last), (Records::new(), Lsn(3)));
    assert!(opened.cut.is_some());
    let mut after = History {
        records: history.through(Lsn(3)).to_vec(),
    };
    after.write(&mut wal, accepted(4, 8000));
    drop(wal);
    for covers in 0..=5 {
        let (_, records, opened) = open_above(&crashed.copy(), options, covers).unwrap();
        check(&after.records, covers, &records, &opened);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    /// Any history, with slots accepted again and out of order, cut by any crash: no slot above the snapshot is missed.
    #[test]
    fn no_record_above_the_snapshot_is_missed(
        steps in prop::collection::vec((0u8..10, 1u64..30, 100usize..6000), 1..60),
        crash in any::<u64>(),
        covers in 0u64..40,
    ) {
        let options = options(SEGMENT_BYTES);
        let disk = disk(&options);
        let (mut wal, _, _) = open_above(&disk, options, 0).unwrap();
        let mut history = History::default();
        for (i, (kind, slot, bytes)) in steps.iter().enumerate() {
            let record = match kind {
                0 => promised(*slot),
                _ => accepted(slot + i as u64 / 4, *bytes),
            };
            history.append(&mut wal, record);
            if kind % 3 == 0 {
                wal.submit();
                wal.durable().unwrap();
            }
        }
        settle(&mut wal, history.last());
        wal.backend_mut().hold();
        let durable = history.last();
        for slot in 40..44 {
            history.append(&mut wal, accepted(slot, 2000));
            wal.submit();
        }
        drop(wal);
        disk.inject(&[Fault::None]);
        let crashed = disk.crash(|sector| crash >> (sector % 64) & 1 == 1, |_| true);
        let whole = scan(&crashed).unwrap();
        prop_assert!(whole.len() as u64 >= durable.0);
        let (_, records, opened) = open_above(&crashed, options, covers).unwrap();
        check(&whole, covers, &records, &opened);
    }
}
