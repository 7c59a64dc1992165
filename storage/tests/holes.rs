//! Which damage is a hole, which is refused, and which is no damage but a cut (the rule: `recovery/mod.rs`).

mod common;

use bytes::Bytes;
use common::{
    History, MemoryWal, Records, accepted, ballot, check_around_holes, counter, disk, open,
    options, promised, scan_holes, settle, trimmed, value,
};
use synod_engine::ids::{Incarnation, Lsn, Slot};
use synod_engine::message::{Accept, Record};
use synod_engine::seams::Wal;
use synod_storage::backend::{MemoryBackend, MemoryDisk};
use synod_storage::format::{GROUPS_AT, PAGE, SegmentHeader};
use synod_storage::{Hole, OpenError, initialise, initialise_readmitted, scan_disk};

const SEGMENT_BYTES: u64 = 32 << 10;

fn segment(number: u64) -> String {
    format!("wal-{number:016}.seg")
}

/// The page of the `n`-th group of a segment whose groups have one page each.
fn page(n: usize) -> std::ops::Range<usize> {
    n * PAGE..(n + 1) * PAGE
}

/// As a disk loses it: no stamp is left, so that it looks never written.
fn zero(disk: &MemoryDisk, number: u64, group: usize) {
    disk.tamper(&segment(number), |bytes| bytes[page(group)].fill(0));
}

/// A changed bit in the middle: the group is there, and wrong.
fn rot(disk: &MemoryDisk, number: u64, group: usize) {
    disk.tamper(&segment(number), |bytes| bytes[page(group)][2000] ^= 4);
}

/// One lsn, one group, one page each, durable one after the other: each header knows the one before.
fn in_a_row(records: u64) -> (MemoryDisk, MemoryWal, History) {
    let options = options(SEGMENT_BYTES);
    let disk = disk(&options);
    let (mut wal, _, _) = open(&disk, options).unwrap();
    let mut history = History::default();
    for lsn in 1..=records {
        let record = if lsn == 2 {
            promised(9)
        } else {
            accepted(lsn, 3000)
        };
        history.write(&mut wal, record);
    }
    (disk, wal, history)
}

/// As before for the first one; the others are under way together, so that no header knows of any but the first.
fn at_once(records: u64) -> (MemoryDisk, MemoryWal, History) {
    let (disk, mut wal, mut history) = in_a_row(1);
    wal.backend_mut().hold();
    for lsn in 2..=records {
        history.append(&mut wal, accepted(lsn, 3000));
        wal.submit();
    }
    assert_eq!(wal.backend_mut().under_way() as u64, records - 1);
    (disk, wal, history)
}

/// The lsns that each hole takes.
fn lost(disk: &MemoryDisk, history: &[(Lsn, Record)], what: &str) -> Vec<(u64, u64)> {
    let (records, holes) = scan_holes(disk).unwrap_or_else(|error| panic!("{what}: {error}"));
    check_around_holes(&records, &holes, history, what);
    holes
        .iter()
        .map(|hole| (hole.first.0, hole.next.0 - 1))
        .collect()
}

fn refusal(disk: &MemoryDisk) -> String {
    let error = scan_holes(disk).expect_err("durable data is lost");
    assert!(matches!(
        error,
        OpenError::Damaged { .. } | OpenError::SegmentMissing { .. }
    ));
    let message = error.to_string();
    assert!(
        message.contains("--readmit") && message.contains("slots above "),
        "{message}"
    );
    message
}

#[test]
fn a_lost_group_is_a_hole_if_a_header_behind_knew_it_durable() {
    for damage in [zero, rot] {
        for (groups, holes) in [
            (vec![1], vec![(1, 1)]),
            (vec![3], vec![(3, 3)]),
            (vec![2, 3, 4], vec![(2, 4)]),
            (vec![1, 3, 5], vec![(1, 1), (3, 3), (5, 5)]),
        ] {
            let (disk, _, history) = in_a_row(6);
            groups.iter().for_each(|group| damage(&disk, 1, *group));
            let what = format!("groups {groups:?}");
            assert_eq!(lost(&disk, &history.records, &what), holes, "{what}");
        }
    }
}

#[test]
fn damage_at_the_end_is_refused() {
    let (disk, _, _) = in_a_row(6);
    rot(&disk, 1, 6);
    let message = refusal(&disk);
    assert!(
        message.contains(&format!("{}, offset 24744", segment(1))),
        "{message}"
    );
    assert!(message.contains("slots above 5;"), "{message}");
    // A hole before does not help: nothing intact is behind.
    rot(&disk, 1, 5);
    rot(&disk, 1, 2);
    assert!(refusal(&disk).contains("slots above 4;"));
}

#[test]
fn what_was_never_durable_is_cut_though_groups_stand_behind() {
    let (disk, _, history) = at_once(5);
    // The second is torn, the others arrived.
    let crashed = disk.crash(|sector| sector != 3, |_| true);
    assert_eq!(lost(&crashed, history.through(Lsn(1)), "torn"), []);
}

/// A sector is written whole or not at all: a group with all its stamps was on disk whole, whoever knew.
#[test]
fn a_group_that_was_written_whole_and_is_wrong_is_a_hole() {
    let (disk, _, history) = at_once(5);
    let crashed = disk.copy();
    rot(&crashed, 1, 2);
    rot(&crashed, 1, 3);
    assert_eq!(lost(&crashed, &history.records, "rotten"), [(2, 3)]);
    // Not if what is between the damage and the next group is torn: that one may never have been durable.
    let crashed = disk.crash(|sector| !(8..16).contains(&sector), |_| true);
    rot(&crashed, 1, 2);
    assert!(refusal(&crashed).contains("slots above 1;"));
}

#[test]
fn a_header_far_behind_proves_what_lay_between() {
    let (disk, mut wal, mut history) = at_once(5);
    (0..4).for_each(|_| wal.backend_mut().complete(0));
    wal.durable().unwrap();
    for group in 2..=4 {
        let lost = disk.copy();
        zero(&lost, 1, group);
        let (records, holes) = scan_holes(&lost).unwrap();
        assert!(holes.is_empty(), "nobody knows that it was durable");
        assert_eq!(records, history.records[..group - 1]);
    }
    history.append(&mut wal, accepted(6, 3000));
    wal.submit();
    wal.backend_mut().complete(0);
    for group in 2..=5 {
        let lsn = group as u64;
        let tampered = disk.copy();
        zero(&tampered, 1, group);
        assert_eq!(lost(&tampered, &history.records, "one group"), [(lsn, lsn)]);
    }
}

#[test]
fn if_only_part_of_it_was_durable_it_is_refused() {
    let (disk, mut wal, mut history) = at_once(4);
    wal.backend_mut().complete(0);
    wal.durable().unwrap();
    history.append(&mut wal, accepted(5, 3000));
    wal.submit();
    // The fifth knew the second to be durable, not the third, which never arrived.
    let crashed = disk.crash(|sector| !(0..8).contains(&sector), |_| true);
    assert_eq!(scan_holes(&crashed).unwrap().0, history.through(Lsn(2)));
    zero(&crashed, 1, 2);
    assert!(refusal(&crashed).contains("lsn 2 was durable"));
}

/// A life that cut lsn 2 and gave it again, in segment 2, with other records; lsns 3 and 4 of the first life stand
/// intact in segment 1. Returns the history of the second life.
fn with_dead_groups() -> (MemoryDisk, MemoryWal, History) {
    let (disk, wal, mut history) = at_once(4);
    drop(wal);
    let disk = disk.crash(|sector| sector >= 8, |_| true);
    let (mut wal, records, opened) = open(&disk, options(SEGMENT_BYTES)).unwrap();
    assert!(records.len() == 1 && opened.cut.is_some());
    history.records.truncate(1);
    for lsn in 2..=7 {
        history.write(&mut wal, accepted(100 + lsn, 3000));
    }
    (disk, wal, history)
}

#[test]
fn dead_groups_stay_dead_when_the_segment_behind_is_damaged() {
    let (disk, mut wal, mut history) = with_dead_groups();
    for damage in [zero, rot] {
        for (groups, hole) in [(1..=1, (2, 2)), (1..=2, (2, 3)), (1..=3, (2, 4))] {
            let tampered = disk.copy();
            groups.for_each(|group| damage(&tampered, 2, group));
            assert_eq!(
                lost(&tampered, &history.records, "groups of segment 2"),
                [hole]
            );
        }
    }
    // A third segment, and nothing of the second can be read.
    history.write(&mut wal, accepted(200, 3000));
    history.write(&mut wal, accepted(201, 3000));
    assert_eq!(counter(&wal, "wal_segments"), 2);
    type Damage = fn(&MemoryDisk);
    let damages: [Damage; 4] = [
        |disk| disk.tamper(&segment(2), |bytes| bytes[20] ^= 1),
        |disk| disk.tamper(&segment(2), |bytes| bytes.truncate(5000)),
        |disk| disk.tamper(&segment(2), Vec::clear),
        |disk| disk.lose(&segment(2)),
    ];
    for damage in damages {
        let tampered = disk.copy();
        damage(&tampered);
        assert_eq!(lost(&tampered, &history.records, "segment 2"), [(2, 8)]);
        let (_, holes) = scan_holes(&tampered).unwrap();
        assert!(holes[0].file.ends_with(segment(2)), "{holes:?}");
    }
}

#[test]
fn a_damaged_segment_at_the_end_is_refused_used_or_not() {
    let (disk, _, _) = in_a_row(6);
    let unused = segment(2);
    for damage in [0, 20, GROUPS_AT as usize] {
        let tampered = disk.copy();
        // Of an unused one, only the header counts.
        tampered.tamper(&unused, |bytes| bytes[damage] ^= 1);
        if damage < GROUPS_AT as usize {
            assert!(refusal(&tampered).contains(&unused));
        } else {
            assert_eq!(scan_holes(&tampered).unwrap().0.len(), 6);
        }
    }
}

/// Found by the random damage of `recovery.rs`: the front was said to be a hole of no records.
#[test]
fn a_lost_segment_that_held_no_record_is_no_hole() {
    let options = options(SEGMENT_BYTES);
    let disk = disk(&options);
    let (mut wal, _, _) = open(&disk, options).unwrap();
    wal.durable().unwrap();
    wal.backend_mut().hold();
    wal.append(Lsn(1), &accepted(1, 3000));
    wal.submit();
    // All that arrives of the only group is its header.
    let disk = disk.crash(|sector| sector == 0, |_| true);
    let (mut wal, _, _) = open(&disk, options).unwrap();
    let mut history = History::default();
    history.write(&mut wal, accepted(10, 3000));
    history.write(&mut wal, accepted(11, 3000));
    disk.lose(&segment(1));
    assert_eq!(lost(&disk, &history.records, "nothing"), []);
}

/// Whatever of the front is gone, what is left tells of its promise; and dropped segments are no hole.
#[test]
fn the_front_may_be_trimmed_or_lost() {
    let options = options(SEGMENT_BYTES);
    let disk = disk(&options);
    let (mut wal, _, _) = open(&disk, options).unwrap();
    let mut history = History::default();
    history.write(&mut wal, promised(9));
    for slot in 1..=24 {
        history.write(&mut wal, accepted(slot, 3000));
    }
    assert!(counter(&wal, "wal_segments") >= 4);
    // The floor stands in the newest group alone.
    history.write(&mut wal, trimmed(10));
    wal.trim(Slot(10));
    wal.durable().unwrap();
    let (records, holes) = scan_holes_from_anywhere(&disk);
    assert!(holes.is_empty(), "{holes:?}");
    let first = records[0].0;
    assert_eq!(first, Lsn(8), "the first segment was dropped");
    assert_eq!(records, history.records[first.0 as usize - 1..]);
    // The next one went without a trim.
    let tampered = disk.copy();
    tampered.lose(&segment(2));
    assert_eq!(lost(&tampered, &history.records, "lost"), [(1, 14)]);
    for damaged in [20, PAGE + 20] {
        let tampered = disk.copy();
        tampered.tamper(&segment(2), |bytes| bytes[damaged] ^= 1);
        let (_, holes) = scan_holes_from_anywhere(&tampered);
        let next = if damaged < PAGE { 15 } else { 9 };
        assert_eq!(
            (holes.len(), holes[0].first, holes[0].next),
            (1, Lsn(1), Lsn(next))
        );
        assert_eq!(holes[0].carried.promised, ballot(9));
    }
    let gone = disk.copy();
    (2..=4).for_each(|number| gone.lose(&segment(number)));
    refusal(&gone);
}

/// [`scan_holes`] for a WAL whose front was trimmed.
fn scan_holes_from_anywhere(disk: &MemoryDisk) -> (Records, Vec<Hole>) {
    let mut records = Records::new();
    let report = scan_disk(disk, &mut |replayed| {
        records.extend(common::record_of(replayed))
    });
    (records, report.unwrap().holes)
}

#[test]
fn a_wal_with_holes_goes_on_and_finds_them_again() {
    let (disk, _, mut history) = in_a_row(20);
    let (short, wrong) = (segment(1), segment(2));
    disk.tamper(&short, |bytes| bytes.truncate(9000));
    disk.tamper(&wrong, |bytes| bytes[60] ^= 1);
    rot(&disk, 3, 3);
    let expected = [(1, 14), (17, 17)];
    for round in 0..3 {
        let (mut wal, _, opened) = open(&disk, options(SEGMENT_BYTES)).unwrap();
        assert_eq!(opened.last, history.last(), "round {round}");
        assert_eq!(opened.holes.len(), 2);
        assert_eq!(
            opened.carried.promised,
            ballot(9),
            "which only a hole holds"
        );
        for slot in [30, 31, 32] {
            history.write(&mut wal, accepted(10 * round + slot, 3000));
        }
        assert_eq!(
            lost(&disk, &history.records, "again"),
            expected,
            "round {round}"
        );
    }
    // Damaged files are trimmed away like others, and never used again as they are.
    let (mut wal, _, _) = open(&disk, options(SEGMENT_BYTES)).unwrap();
    history.write(&mut wal, trimmed(1000));
    for slot in 1001..=1060 {
        history.write(&mut wal, accepted(slot, 3000));
        wal.trim(Slot(1000));
    }
    settle(&mut wal, history.last());
    let (records, holes) = scan_holes_from_anywhere(&disk);
    assert!(holes.is_empty(), "{holes:?}");
    assert_eq!(records, history.records[records[0].0.0 as usize - 1..]);
}

/// Even a client that knew all secrets of the WAL could not place a group in its value.
#[test]
fn bytes_of_a_client_are_never_a_group() {
    let (disk, mut wal, mut history) = in_a_row(2);
    let image = disk.contents(&segment(1));
    let identity = SegmentHeader::decode(&image[..PAGE]).unwrap().identity;
    // Copies of the first group, at the starts of pages, with the right stamps of groups for those places.
    let (group_at, value_at) = (3 * PAGE, 112 + 31 * 8 + 48);
    let mut forged = vec![1; PAGE - value_at];
    for number in 1..4u64 {
        let mut copy = image[page(1)].to_vec();
        let sector = (group_at / 512) as u64 + 8 * number;
        copy[..8].copy_from_slice(&identity.stamp(sector, true).to_le_bytes());
        copy[24..32].copy_from_slice(&(3 + number).to_le_bytes());
        let crc = crc32c::crc32c(&copy[16..112]);
        copy[12..16].copy_from_slice(&crc.to_le_bytes());
        forged.extend_from_slice(&copy);
    }
    forged.truncate(4 * PAGE - value_at);
    let forgery = Record::Accepted(Accept {
        ballot: ballot(3),
        slot: Slot(3),
        commit_index: Slot(1),
        value: Bytes::from(forged),
    });
    history.write(&mut wal, forgery);
    history.write(&mut wal, accepted(4, 100));
    let written = disk.contents(&segment(1));
    let copied = (0..3).all(|n| written[4 * PAGE + n * PAGE + 8..][..4] == *b"SGRP");
    assert!(copied, "the forged headers stand at the starts of pages");
    // The header that says how far the real group reaches is gone.
    disk.tamper(&segment(1), |bytes| bytes[group_at..group_at + 512].fill(0));
    assert_eq!(lost(&disk, &history.records, "forged"), [(3, 3)]);
}

#[test]
fn the_hole_comes_before_the_records_behind_it() {
    let (disk, _, _) = in_a_row(4);
    rot(&disk, 1, 2);
    let mut order = Vec::new();
    let opened = MemoryBackend::open(&disk, options(SEGMENT_BYTES), &mut |replayed| {
        order.push(match replayed {
            synod_storage::Replayed::Record(at, _) => at.lsn.0,
            synod_storage::Replayed::Hole(hole) => 1000 + hole.first.0,
        });
    });
    let (mut wal, opened) = opened.unwrap();
    assert_eq!(order, [1, 1002, 3, 4]);
    assert_eq!(opened.incarnation, Incarnation::FOUNDING);
    assert_eq!(
        common::read(&mut wal, 3, 4, 1 << 20).values,
        [value(3, 3000), value(4, 3000)]
    );
}

#[test]
fn a_readmitted_disk_keeps_its_incarnation_and_nothing_is_ever_initialised_twice() {
    let options = options(SEGMENT_BYTES);
    let again = Incarnation(7);
    let disk = MemoryDisk::new();
    initialise_readmitted(&disk, &options, again).unwrap();
    let (_, _, opened) = open(&disk, options).unwrap();
    assert_eq!(opened.incarnation, again);
    let (founding, _, _) = in_a_row(1);
    let (_, _, opened) = open(&founding, options).unwrap();
    assert_eq!(opened.incarnation, Incarnation::FOUNDING);
    for disk in [&disk, &founding] {
        for outcome in [
            initialise_readmitted(disk, &options, again),
            initialise(disk, &options),
        ] {
            assert!(matches!(outcome, Err(OpenError::AlreadyInitialised { .. })));
        }
    }
    founding.lose("identity");
    assert!(matches!(
        initialise_readmitted(&founding, &options, again),
        Err(OpenError::Remains { .. })
    ));
}
