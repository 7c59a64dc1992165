//! The WAL works beside the loop: nothing waits for a sync (trap 27), and only the contiguous front is durable.

mod common;

use common::{
    History, MemoryWal, accepted, counter, disk, open, options, promised, read, scan, settle,
    trimmed, value,
};
use synod_engine::ids::{Lsn, Slot};
use synod_engine::seams::Wal;
use synod_storage::backend::{Fault, MemoryDisk};

const SEGMENT_BYTES: u64 = 8 << 20;

fn held(segment_bytes: u64) -> (MemoryDisk, MemoryWal, History) {
    let options = options(segment_bytes);
    let disk = disk(&options);
    let (mut wal, _, _) = open(&disk, options).unwrap();
    // The first segment is there before the first record.
    wal.durable().unwrap();
    wal.backend_mut().hold();
    (disk, wal, History::default())
}

#[test]
fn appending_and_submitting_go_on_while_syncs_hang() {
    let (_, mut wal, mut history) = held(SEGMENT_BYTES);
    for slot in 1..=1000 {
        history.append(&mut wal, accepted(slot, 100));
        wal.submit();
        assert_eq!(wal.backend_mut().under_way() as u64, slot.min(4));
        assert_eq!(wal.durable().unwrap(), Lsn(0));
    }
    assert_eq!(counter(&wal, "wal_pending_bytes"), 996 * (100 + 48));
    // One sync makes room for one group, and that carries everything that waited.
    wal.backend_mut().complete(0);
    assert_eq!(wal.durable().unwrap(), Lsn(1));
    assert_eq!(counter(&wal, "wal_pending_bytes"), 0);
    assert_eq!(counter(&wal, "wal_groups"), 5);
}

#[test]
fn big_groups_do_not_queue_on_the_disk() {
    let (_, mut wal, mut history) = held(SEGMENT_BYTES);
    for slot in 1..=5 {
        history.append(&mut wal, accepted(slot, 400 << 10));
        wal.submit();
    }
    assert_eq!(
        wal.backend_mut().under_way(),
        1,
        "256 KiB in flight are enough"
    );
    wal.backend_mut().complete(0);
    assert_eq!(wal.durable().unwrap(), Lsn(1));
    assert_eq!(wal.backend_mut().under_way(), 1);
    assert_eq!(
        counter(&wal, "wal_records"),
        5,
        "all that waited in one group"
    );
}

#[test]
fn only_the_contiguous_front_is_durable() {
    let (disk, mut wal, mut history) = held(SEGMENT_BYTES);
    for slot in 1..=4 {
        history.append(&mut wal, accepted(slot, 100));
        wal.submit();
    }
    for _ in 0..3 {
        wal.backend_mut().complete(1);
        assert_eq!(wal.durable().unwrap(), Lsn(0));
    }
    let crashed = disk.crash(|_| false, |_| false);
    assert_eq!(
        scan(&crashed).unwrap(),
        [],
        "what overtook a lost group is cut"
    );
    assert_eq!(read(&mut wal, 2, 4, 1000).values.len(), 0);
    wal.backend_mut().complete(0);
    assert_eq!(wal.durable().unwrap(), Lsn(4));
    let crashed = disk.crash(|_| false, |_| false);
    assert_eq!(scan(&crashed).unwrap(), history.records);
}

/// Recovery takes a segment with a successor for complete: the successor must wait.
#[test]
fn a_segment_begins_only_when_the_one_before_is_durable() {
    let (disk, mut wal, mut history) = held(32 << 10);
    for slot in 1..=4 {
        history.append(&mut wal, accepted(slot, 11_000));
        wal.submit();
    }
    // Two groups of three pages fill the segment's seven.
    assert_eq!(wal.backend_mut().under_way(), 2);
    assert_eq!(counter(&wal, "wal_segments"), 1);
    wal.backend_mut().complete(1);
    wal.durable().unwrap();
    assert_eq!(
        wal.backend_mut().under_way(),
        1,
        "the first one hangs still"
    );
    wal.backend_mut().complete(0);
    assert_eq!(wal.durable().unwrap(), Lsn(2));
    assert_eq!(counter(&wal, "wal_segments"), 2);
    assert_eq!(wal.backend_mut().under_way(), 1);
    assert_eq!(wal.durable().unwrap(), Lsn(2));
    let crashed = disk.crash(|_| false, |_| false);
    assert_eq!(scan(&crashed).unwrap(), history.through(Lsn(2)));
}

#[test]
fn reads_give_the_newest_durable_value_of_each_slot() {
    let (_, mut wal, mut history) = held(SEGMENT_BYTES);
    for slot in [1, 2, 3, 5, 2] {
        let bytes = if history.records.len() == 4 { 77 } else { 500 };
        history.append(&mut wal, accepted(slot, bytes));
        wal.submit();
        if slot != 2 || bytes != 77 {
            wal.backend_mut().complete(0);
        }
        wal.durable().unwrap();
    }
    let values =
        |wal: &mut MemoryWal, from, through, bytes_max| read(wal, from, through, bytes_max).values;
    let old = [value(1, 500), value(2, 500), value(3, 500)];
    assert_eq!(values(&mut wal, 1, 9, 1 << 20), old, "up to the gap");
    wal.backend_mut().complete(0);
    wal.durable().unwrap();
    let new = [value(1, 500), value(2, 77), value(3, 500)];
    assert_eq!(values(&mut wal, 1, 9, 1 << 20), new);
    assert_eq!(values(&mut wal, 1, 2, 1 << 20), new[..2]);
    assert_eq!(values(&mut wal, 1, 9, 600), new[..2], "about bytes_max");
    assert_eq!(values(&mut wal, 1, 9, 1), new[..1], "at least one");
    assert_eq!(values(&mut wal, 4, 9, 1 << 20).len(), 0);
    for _ in 0..8 {
        assert!(wal.read(Slot(1), Slot(3), 1 << 20));
    }
    assert!(!wal.read(Slot(1), Slot(3), 1 << 20), "reads are bounded");
}

#[test]
fn a_trim_waits_until_its_floor_is_durable() {
    let (disk, mut wal, mut history) = held(32 << 10);
    for slot in 1..=10 {
        history.append(&mut wal, accepted(slot, 11_000));
        wal.submit();
        wal.backend_mut().complete(0);
        wal.durable().unwrap();
    }
    let live = counter(&wal, "wal_segments_live");
    history.append(&mut wal, trimmed(9));
    wal.submit();
    wal.trim(Slot(9));
    assert_eq!(counter(&wal, "wal_segments_live"), live);
    wal.backend_mut().complete(0);
    wal.durable().unwrap();
    assert!(counter(&wal, "wal_segments_live") < live);
    assert_eq!(read(&mut wal, 9, 10, 1 << 20).values.len(), 2);
    let records = scan(&disk.crash(|_| false, |_| false)).unwrap();
    assert_eq!(records.last(), history.records.last());
}

/// Traps 15 and 16: whatever fails, and however it fails, the WAL has failed for good.
#[test]
fn a_failed_write_is_final_though_later_ones_succeed() {
    for fault in [Fault::Io, Fault::Short(4096)] {
        let (disk, mut wal, mut history) = held(SEGMENT_BYTES);
        for slot in 1..=3 {
            history.append(&mut wal, accepted(slot, 100));
            wal.submit();
        }
        wal.backend_mut().complete(0);
        assert_eq!(wal.durable().unwrap(), Lsn(1));
        disk.inject(&[fault]);
        wal.backend_mut().complete(0);
        wal.backend_mut().complete(0);
        let failed = wal.durable().unwrap_err();
        for part in ["wal-0000000000000001.seg", "offset 8192"] {
            assert!(failed.0.contains(part), "{failed}");
        }
        let groups = counter(&wal, "wal_groups");
        for slot in 4..=9 {
            history.append(&mut wal, accepted(slot, 100));
            wal.submit();
            assert_eq!(wal.durable(), Err(failed.clone()));
            assert_eq!(wal.take_read(), Err(failed.clone()));
        }
        assert_eq!(
            counter(&wal, "wal_groups"),
            groups,
            "nothing is written any more"
        );
        assert_eq!(counter(&wal, "wal_durable_lsn"), 1);
    }
}

/// A full disk is none: on a file system that copies on write it is met by any write, and the log waits.
#[test]
fn a_write_without_room_waits_and_what_follows_waits_for_it() {
    let (disk, mut wal, mut history) = held(SEGMENT_BYTES);
    for slot in 1..=3 {
        history.append(&mut wal, accepted(slot, 100));
        wal.submit();
    }
    wal.backend_mut().complete(0);
    assert_eq!(wal.durable().unwrap(), Lsn(1));
    disk.inject(&[Fault::Full, Fault::None, Fault::Full, Fault::Full]);
    // The second group finds no room, the third one does.
    wal.backend_mut().complete(0);
    wal.backend_mut().complete(1);
    for _ in 0..3 {
        assert_eq!(wal.durable().unwrap(), Lsn(1), "the third waits for it");
        assert_eq!(counter(&wal, "wal_disk_full"), 1);
        if wal.backend_mut().under_way() > 0 && counter(&wal, "wal_write_full_tries") < 3 {
            wal.backend_mut().complete(0);
        }
    }
    assert_eq!(counter(&wal, "wal_write_full_tries"), 3);
    let notes = wal.notes().take();
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(notes[0].contains("wal-0000000000000001.seg"), "{notes:?}");
    // A crash now keeps nothing that it was not told of.
    let survived = scan(&disk.crash(|_| false, |_| false)).unwrap();
    assert_eq!(survived.len(), 1);
    wal.backend_mut().complete(0);
    assert_eq!(wal.durable().unwrap(), Lsn(3));
    assert_eq!(counter(&wal, "wal_disk_full"), 0);
    assert!(wal.notes().take()[0].contains("room again"));
    history.append(&mut wal, accepted(4, 100));
    wal.submit();
    wal.backend_mut().complete(0);
    assert_eq!(wal.durable().unwrap(), Lsn(4));
    let survived = scan(&disk.crash(|_| false, |_| false)).unwrap();
    assert_eq!(survived, history.records);
}

/// A full disk is no failure: nothing was promised of the new segment.
#[test]
fn a_segment_that_cannot_be_prepared_fails_the_wal() {
    for fault in [Fault::Io, Fault::Full, Fault::Short(512)] {
        // Every call of the keeper in turn: create, zeros, header, sync, rename, directory sync.
        for call in 0..6 {
            let options = options(32 << 10);
            let disk = disk(&options);
            let mut faults = vec![Fault::None; 2 + call];
            faults.push(fault);
            disk.inject(&faults);
            let (mut wal, _, _) = open(&disk, options).unwrap();
            let mut history = History::default();
            let mut failed = None;
            for slot in 1..=20 {
                history.append(&mut wal, accepted(slot, 9000));
                wal.submit();
                failed = wal.durable().err().or(failed);
            }
            if fault == Fault::Full {
                assert_eq!(failed, None, "call {call}");
                assert_eq!(counter(&wal, "wal_disk_full_tries"), 1);
                settle(&mut wal, history.last());
                assert_eq!(scan(&disk).unwrap(), history.records);
                continue;
            }
            let failed = failed.expect("the fault is told");
            assert!(failed.0.contains("/memory/wal-"), "{failed}");
            assert_eq!(wal.durable(), Err(failed));
        }
    }
}

/// Damage found while running ends the read, not the process: another replica has the value.
#[test]
fn a_damaged_group_ends_the_read_and_nothing_else() {
    let options = options(SEGMENT_BYTES);
    let disk = disk(&options);
    let (mut wal, _, _) = open(&disk, options).unwrap();
    let mut history = History::default();
    history.write(&mut wal, promised(1));
    for slot in 1..=4 {
        history.write(&mut wal, accepted(slot, 3000));
    }
    let segment = "wal-0000000000000001.seg";
    disk.tamper(segment, |bytes| bytes[3 * 4096 + 2000] ^= 1);
    let before = [value(1, 3000)];
    for (from, found) in [(1, &before[..]), (2, &[])] {
        assert_eq!(read(&mut wal, from, 4, 1 << 20).values, found);
        let notes = wal.notes().take();
        assert_eq!(notes.len(), 1);
        assert!(
            notes[0].contains(segment) && notes[0].contains("offset 12288"),
            "{notes:?}"
        );
    }
    assert_eq!(counter(&wal, "wal_reads_damaged"), 2);
    assert_eq!(
        read(&mut wal, 3, 4, 1 << 20).values,
        [value(3, 3000), value(4, 3000)]
    );
    disk.lose(segment);
    assert_eq!(read(&mut wal, 3, 4, 1 << 20).values.len(), 0);
    assert_eq!(wal.notes().take().len(), 1);
    history.write(&mut wal, accepted(5, 3000));
}

/// What drops a segment is a durable group in a later one, which carries promise and floor.
#[test]
fn the_segment_with_the_newest_durable_group_is_never_dropped() {
    let (disk, mut wal, mut history) = held(32 << 10);
    let step = |wal: &mut MemoryWal, history: &mut History, record| {
        history.append(wal, record);
        wal.submit();
        wal.backend_mut().complete(0);
        wal.durable().unwrap();
    };
    step(&mut wal, &mut history, promised(5));
    step(&mut wal, &mut history, accepted(1, 11_000));
    step(&mut wal, &mut history, trimmed(100));
    wal.trim(Slot(100));
    assert_eq!(
        counter(&wal, "wal_segments_live"),
        1,
        "all its slots are trimmed"
    );
    history.append(&mut wal, accepted(100, 11_000));
    wal.submit();
    wal.durable().unwrap();
    assert_eq!(counter(&wal, "wal_segments"), 2);
    assert_eq!(
        counter(&wal, "wal_segments_live"),
        2,
        "the second holds nothing durable"
    );
    let crashed = disk.crash(|_| false, |_| false);
    assert_eq!(scan(&crashed).unwrap(), history.through(Lsn(3)));
    wal.backend_mut().complete(0);
    wal.durable().unwrap();
    assert_eq!(counter(&wal, "wal_segments_live"), 1);
    let crashed = disk.crash(|_| false, |_| false);
    assert_eq!(scan(&crashed).unwrap(), history.records[3..]);
    let (_, _, opened) = open(&crashed, options(32 << 10)).unwrap();
    assert_eq!(opened.carried.promised, common::ballot(5));
    assert_eq!(opened.carried.trim_floor, Slot(100));
}
