//! A recycled segment is full of valid groups of its earlier life, at the very places where the new ones go. None of
//! them is ever read, whatever a crash tears and whatever bit flips (trap 14).

mod common;

use common::{
    History, MemoryWal, Records, accepted, counter, disk, open, options, promised, record_of, scan,
    trimmed,
};
use synod_engine::ids::{Lsn, Slot};
use synod_engine::seams::Wal;
use synod_storage::backend::MemoryDisk;
use synod_storage::format::{PAGE, Sequence};
use synod_storage::scan_disk;

const SEGMENT_BYTES: u64 = 32 << 10;
/// Segments of the log that the tests look at: all of them were used before.
const ROUNDS: u64 = 12;

/// One round fills a segment with groups of one, two and three pages, then drops all before it.
fn round(wal: &mut MemoryWal, history: &mut History, slot: &mut u64) {
    for bytes in [3000, 7000, 2000] {
        *slot += 1;
        history.write(wal, accepted(*slot, bytes));
    }
    history.write(wal, promised(*slot));
    history.write(wal, trimmed(*slot - 1));
    wal.trim(Slot(*slot - 1));
    wal.durable().unwrap();
}

/// A log in its steady state. Its newest segment has room for a few pages more.
fn steady() -> (MemoryDisk, MemoryWal, History) {
    let options = options(SEGMENT_BYTES);
    let disk = disk(&options);
    let (mut wal, _, _) = open(&disk, options).unwrap();
    let mut history = History::default();
    let mut slot = 0;
    for _ in 0..ROUNDS {
        round(&mut wal, &mut history, &mut slot);
    }
    assert!(counter(&wal, "wal_segments_recycled") > 5);
    assert!(counter(&wal, "wal_segments_created") <= 4);
    (disk, wal, history)
}

fn newest_segment(wal: &MemoryWal) -> String {
    let begun = counter(wal, "wal_segments");
    Sequence(begun).segment_name()
}

/// What a scan finds before it is refused or ends, and whether it was refused.
fn found(disk: &MemoryDisk) -> (Records, usize, bool) {
    let (mut records, mut holes) = (Records::new(), 0);
    let refused = scan_disk(disk, &mut |replayed| match record_of(replayed) {
        Some(record) => records.push(record),
        None => holes += 1,
    })
    .is_err();
    (records, holes, refused)
}

/// The states that a crash can leave of the last two groups, over an earlier life's bytes: every sector of one of them,
/// a share of all for both.
#[test]
fn a_torn_write_over_an_earlier_life_is_cut() {
    let (disk, mut wal, mut history) = steady();
    let durable = history.last();
    wal.backend_mut().hold();
    for slot in 1000..1002 {
        history.append(&mut wal, accepted(slot, 3000));
        wal.submit();
    }
    assert_eq!(wal.backend_mut().under_way(), 2);
    assert_eq!(disk.at_risk().0, 16);
    let first = scan(&disk.crash(|_| false, |_| false)).unwrap()[0].0;
    let subsets = (0..256u32).chain((0..256).map(|i| i << 8));
    for subset in subsets.chain((0..2048).map(|i| i * 31 + 7)) {
        let crashed = disk.crash(|sector| subset >> sector & 1 == 1, |_| false);
        let records = scan(&crashed).unwrap_or_else(|error| panic!("{subset:016b}: {error}"));
        let whole = match subset {
            _ if subset & 0xffff == 0xffff => 2,
            _ if subset & 0xff == 0xff => 1,
            _ => 0,
        };
        let last = Lsn(durable.0 + whole);
        let expected = &history.records[first.0 as usize - 1..last.0 as usize];
        assert_eq!(records, expected, "{subset:016b}");
    }
}

/// A flipped bit anywhere in a recycled segment: in what was written it is told, in what is stale it changes nothing,
/// and nowhere does it make a record.
#[test]
fn a_flipped_bit_never_brings_an_earlier_life_back() {
    let (disk, wal, _) = steady();
    let segment = newest_segment(&wal);
    let expected = scan(&disk).unwrap();
    let used = PAGE as u64..disk.contents(&segment).len() as u64;
    let (mut told, mut stale) = (0, 0);
    for place in used.step_by(5) {
        let damaged = disk.copy();
        damaged.tamper(&segment, |bytes| bytes[place as usize] ^= 1 << (place % 8));
        let (records, holes, refused) = found(&damaged);
        let known = records.iter().all(|record| expected.contains(record));
        assert!(known, "byte {place}: a record that was never written");
        match refused || holes > 0 {
            true => told += 1,
            false => {
                assert_eq!(records, expected, "byte {place}: a loss that was not told");
                stale += 1;
            }
        }
    }
    assert!(told > 1000 && stale > 500, "{told} told, {stale} stale");
}

/// The header of a recycled file as it was: the rename that gave it its new name came through, its header did not.
#[test]
fn an_old_header_under_a_new_name_is_no_segment_of_this_log() {
    let (disk, mut wal, mut history) = steady();
    // Whatever a disk loses of a prepared segment's header, the one before stays in place.
    let prepared = Sequence(counter(&wal, "wal_segments") + 1).segment_name();
    let older = disk.contents(&newest_segment(&wal));
    history.write(&mut wal, accepted(2000, 100));
    let expected = scan(&disk).unwrap();
    disk.tamper(&prepared, |bytes| bytes.copy_from_slice(&older));
    let (records, _, refused) = found(&disk);
    assert!(refused, "durable data may have been there");
    assert!(expected.starts_with(&records));
}
