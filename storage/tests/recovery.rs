//! Recovery opens to a prefix with everything durable, or refuses with file and offset (traps 13 and 14).

mod common;

use common::{
    History, MemoryWal, accepted, check_around_holes, counter, disk, open, options, promised, scan,
    scan_holes, trimmed,
};
use proptest::prelude::*;
use synod_engine::ids::{Lsn, Slot};
use synod_engine::seams::Wal;
use synod_storage::backend::MemoryDisk;
use synod_storage::disk::Disk;
use synod_storage::group::Carried;
use synod_storage::{OpenError, Replayed};

const SEGMENT_BYTES: u64 = 32 << 10;
const LAST: &str = "wal-0000000000000002.seg";

/// Two used segments; the last one filled, but for a page, with durable groups of one, two and three pages.
fn written() -> (MemoryDisk, History) {
    let options = options(SEGMENT_BYTES);
    let disk = disk(&options);
    let (mut wal, _, _) = open(&disk, options).unwrap();
    let mut history = History::default();
    history.write(&mut wal, promised(4));
    for (slot, bytes) in [(1, 9000), (2, 9000), (3, 8200), (4, 0), (5, 5000)] {
        history.write(&mut wal, accepted(slot, bytes));
    }
    assert_eq!(counter(&wal, "wal_segments"), 2);
    (disk, history)
}

/// Durable data is complete, or a hole or a refusal says where it is not. Never a panic, a loss, an invention.
fn complete_or_told(disk: &MemoryDisk, history: &History, what: &str) -> bool {
    match scan_holes(disk) {
        Ok((records, holes)) => {
            check_around_holes(&records, &holes, &history.records, what);
            holes.is_empty()
        }
        Err(error) => {
            let message = error.to_string();
            let placed = message.contains(".seg, offset ") && message.contains("slots above ");
            assert!(placed, "{what}: refused without a place: {message}");
            false
        }
    }
}

#[test]
fn a_flipped_bit_at_any_byte_loses_nothing_in_silence() {
    let (disk, history) = written();
    let contents = disk.contents(LAST);
    let zeros = contents.iter().rev().take_while(|byte| **byte == 0);
    let end = (contents.len() - zeros.count()).next_multiple_of(4096);
    for byte in 0..SEGMENT_BYTES as usize {
        let bit = 1u8 << ((byte * 5) % 8);
        disk.tamper(LAST, |bytes| bytes[byte] ^= bit);
        let what = format!("bit {bit:#x} of byte {byte} flipped");
        let opened = complete_or_told(&disk, &history, &what);
        // Header, stamps, tables, records, padding: no byte of them may change unseen.
        assert_eq!(opened, byte >= end, "{what}");
        disk.tamper(LAST, |bytes| bytes[byte] ^= bit);
    }
    assert!(complete_or_told(&disk, &history, "restored"));
}

#[test]
fn one_group_of_zeros_before_others_is_a_hole_not_a_tail() {
    let (disk, history) = written();
    for (page, lsn) in [(1, 4), (2, 4), (3, 4), (4, 5)] {
        let tampered = disk.copy();
        tampered.tamper(LAST, |contents| contents[page * 4096..][..4096].fill(0));
        let (records, holes) = scan_holes(&tampered).expect("a group behind is intact");
        assert_eq!((holes.len(), holes[0].first), (1, Lsn(lsn)));
        assert!(holes[0].file.ends_with(LAST), "{holes:?}");
        check_around_holes(&records, &holes, &history.records, &format!("page {page}"));
    }
}

#[test]
fn damage_in_an_earlier_segment_is_never_a_tail() {
    let (disk, history) = written();
    let name = "wal-0000000000000001.seg";
    let end = SEGMENT_BYTES as usize;
    for sector in (0..end).step_by(512) {
        let tampered = disk.copy();
        let mut used = false;
        tampered.tamper(name, |contents| {
            used = contents[sector..sector + 512].iter().any(|byte| *byte != 0);
            contents[sector..sector + 512].fill(0);
        });
        let (records, holes) = scan_holes(&tampered).expect("the next segment is intact");
        check_around_holes(
            &records,
            &holes,
            &history.records,
            &format!("sector {sector}"),
        );
        assert_eq!(holes.len(), usize::from(used), "sector {sector}");
        assert!(
            holes.iter().all(|hole| hole.file.ends_with(name)),
            "{holes:?}"
        );
    }
}

#[test]
fn a_missing_segment_is_a_hole_or_refused() {
    let (disk, history) = written();
    for lost in 1..=3 {
        let tampered = disk.copy();
        let name = format!("wal-{lost:016}.seg");
        tampered.lose(&name);
        match scan_holes(&tampered) {
            Ok((records, holes)) => {
                check_around_holes(&records, &holes, &history.records, &name);
                // The third was prepared and never used: as if it had not been prepared yet.
                assert_eq!((holes.len(), lost == 2), (usize::from(lost == 1), false));
            }
            Err(error) => {
                assert!(matches!(error, OpenError::SegmentMissing { .. }), "{error}");
                assert!(error.to_string().contains(&name), "{error}");
                assert_eq!(lost, 2, "{error}");
            }
        }
    }
    for lost in 1..=3 {
        disk.lose(&format!("wal-{lost:016}.seg"));
    }
    assert!(matches!(scan(&disk), Err(OpenError::SegmentMissing { .. })));
}

/// Holds two groups back: one of a page, one of two. Returns what was durable before them.
fn torn_tail(disk: &MemoryDisk, history: &mut History) -> (MemoryWal, Lsn) {
    let (mut wal, _, _) = open(disk, options(SEGMENT_BYTES)).unwrap();
    history.write(&mut wal, accepted(1, 100));
    history.write(&mut wal, accepted(2, 3000));
    let durable = history.last();
    wal.backend_mut().hold();
    history.append(&mut wal, accepted(3, 2500));
    history.append(&mut wal, promised(8));
    wal.submit();
    history.append(&mut wal, accepted(4, 700));
    wal.submit();
    assert_eq!(wal.backend_mut().under_way(), 2);
    (wal, durable)
}

#[test]
fn a_group_behind_a_torn_one_stays_dead_when_the_wal_goes_on() {
    let disk = disk(&options(SEGMENT_BYTES));
    let mut history = History::default();
    let (wal, durable) = torn_tail(&disk, &mut history);
    drop(wal);
    // Only the second group arrived.
    let disk = disk.crash(|i| i >= 8, |_| true);
    for round in 0..4 {
        let (mut wal, records, opened) = open(&disk, options(SEGMENT_BYTES)).unwrap();
        history.records.truncate(durable.0 as usize + round);
        assert_eq!(records, history.records, "round {round}");
        assert_eq!(opened.cut.is_some(), round == 0, "{:?}", opened.cut);
        // As long as the record of the lost group, so that it would fill the hole exactly.
        history.write(&mut wal, accepted(50 + round as u64, 2500 + 64));
    }
}

#[test]
fn bytes_of_an_earlier_life_of_a_segment_are_never_records() {
    let options = options(SEGMENT_BYTES);
    let disk = disk(&options);
    let (mut wal, _, _) = open(&disk, options).unwrap();
    let mut history = History::default();
    for slot in 1..=40 {
        history.write(&mut wal, accepted(slot, 3000));
    }
    history.write(&mut wal, trimmed(39));
    wal.trim(Slot(39));
    // Recycled files are full of valid groups of the same size as those written now.
    for slot in 41..=200 {
        history.write(&mut wal, accepted(slot, 3000));
        if slot % 10 == 0 {
            history.write(&mut wal, trimmed(slot - 5));
            wal.trim(Slot(slot - 5));
        }
        if slot > 60 {
            let crashed = disk.crash(|_| false, |_| false);
            let records = scan(&crashed).unwrap_or_else(|error| panic!("slot {slot}: {error}"));
            let first = records[0].0.0 as usize;
            assert_eq!(records, history.records[first - 1..], "slot {slot}");
        }
    }
    assert!(counter(&wal, "wal_segments_recycled") > 10);
}

#[test]
fn the_same_seed_at_each_opening_revives_nothing() {
    let options = options(SEGMENT_BYTES);
    let mut disk = disk(&options);
    let mut history = History::default();
    for round in 0..6u64 {
        let (mut wal, records, _) = open(&disk, options).unwrap();
        assert_eq!(records, history.records, "round {round}");
        // The renewed segment is there before the first record.
        wal.durable().unwrap();
        wal.backend_mut().hold();
        for slot in 1..=3 {
            wal.append(
                Lsn(history.last().0 + slot),
                &accepted(10 * round + slot, 3000),
            );
            wal.submit();
        }
        assert_eq!(wal.backend_mut().under_way(), 3);
        drop(wal);
        // The first group never arrives, the others do; the segment is used again with its number.
        disk = disk.crash(|i| i >= 8, |_| true);
        if round == 3 {
            let (mut wal, _, _) = open(&disk, options).unwrap();
            history.write(&mut wal, accepted(1000, 3000));
        }
    }
}

/// Rot, a lost sector, or a lost file, anywhere.
fn damage(disk: &MemoryDisk, next: &mut impl FnMut() -> usize) {
    let files = disk.list().unwrap();
    let names: Vec<_> = files
        .iter()
        .filter(|(name, _)| name.starts_with("wal-"))
        .collect();
    if names.is_empty() {
        return;
    }
    let name = &names[next() % names.len()].0;
    // Mostly near the front, where the groups are, and at the starts of groups.
    let sectors = SEGMENT_BYTES as usize / 512;
    let sector = match next() % 3 {
        0 => next() % sectors,
        1 => next() % 24,
        _ => next() % (sectors / 8) * 8,
    };
    match next() % 9 {
        0 => disk.lose(name),
        1..=4 => disk.tamper(name, |bytes| bytes[sector * 512..][..512].fill(0)),
        _ => disk.tamper(name, |bytes| {
            bytes[sector * 512 + next() % 512] ^= 1 << (next() % 8)
        }),
    }
}

/// Damage may be refused, be a hole, or look like a torn tail; but every record that is found is the history's, none
/// of a group that was cut, and a hole tells of at least what it may hide.
fn invents_nothing(disk: &MemoryDisk, history: &History) {
    let found = synod_storage::scan_disk(disk, &mut |replayed| match replayed {
        Replayed::Record(at, record) => {
            assert_eq!((at.lsn, record), history.records[at.lsn.0 as usize - 1]);
        }
        Replayed::Hole(hole) => {
            let mut hidden = Carried::default();
            let through = history.through(Lsn(hole.next.0 - 1));
            through.iter().for_each(|(_, record)| hidden.absorb(record));
            assert!(
                hole.first < hole.next && hole.carried == hidden,
                "{hole:?}, not {hidden:?}"
            );
        }
    });
    if let Err(error) = found {
        assert!(error.to_string().contains("--readmit"), "{error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    /// Random histories, crashes that keep random sectors of what was under way, again and again on one disk.
    #[test]
    fn crashes_lose_nothing_durable_and_invent_nothing(
        seed in any::<u64>(),
        steps in prop::collection::vec((0u8..10, 0usize..7000), 1..120),
    ) {
        let options = options(SEGMENT_BYTES);
        let mut disk = disk(&options);
        let mut history = History::default();
        let (mut wal, _, _) = open(&disk, options).unwrap();
        wal.backend_mut().hold();
        let mut random = seed;
        let mut next = move || {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (random >> 33) as usize
        };
        let mut durable = Lsn(0);
        let mut slot = 0;
        for (step, bytes) in steps {
            match step {
                0..=4 => {
                    slot += 1;
                    history.append(&mut wal, accepted(slot, bytes));
                    wal.submit();
                }
                5 => history.append(&mut wal, promised(bytes as u64)),
                6 => {
                    let floor = slot.saturating_sub(10);
                    history.append(&mut wal, trimmed(floor));
                    wal.trim(Slot(floor));
                }
                7 | 8 => {
                    let under_way = wal.backend_mut().under_way();
                    if under_way > 0 {
                        wal.backend_mut().complete(next() % under_way);
                    }
                    durable = wal.durable().unwrap();
                }
                _ => {
                    drop(wal);
                    disk = disk.crash(|_| next() % 3 > 0, |_| true);
                    for _ in 0..8 {
                        let tampered = disk.copy();
                        (0..1 + next() % 3).for_each(|_| damage(&tampered, &mut next));
                        invents_nothing(&tampered, &history);
                    }
                    let (reopened, records, opened) = open(&disk, options).unwrap();
                    // What is left after a trim may be the header of a torn group alone, which tells the rest.
                    let last = opened.last;
                    prop_assert!(last >= durable, "{:?} of {:?}", last, durable);
                    let first = records.first().map_or(last.next(), |(lsn, _)| *lsn).0 as usize;
                    prop_assert_eq!(&records[..], &history.records[first - 1..last.0 as usize]);
                    let mut carried = Carried::default();
                    history.through(last).iter().for_each(|(_, record)| carried.absorb(record));
                    prop_assert_eq!(opened.carried, carried);
                    history.records.truncate(last.0 as usize);
                    durable = last;
                    wal = reopened;
                    wal.backend_mut().hold();
                }
            }
        }
    }
}
