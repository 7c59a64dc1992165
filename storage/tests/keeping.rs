//! Segments are made ahead, dropped by trims and used again: how many there are, and of which files.

mod common;

use common::{History, MemoryWal, accepted, counter, disk, open, options, scan, trimmed};
use synod_engine::ids::Slot;
use synod_engine::seams::Wal;
use synod_storage::backend::MemoryDisk;
use synod_storage::config::{Options, READY_FILES_MAX};
use synod_storage::disk::Disk;
use synod_storage::format::Sequence;

/// The smallest segment takes one record of this length and no second one.
const SEGMENT_BYTES: u64 = 16 << 10;
const RECORD_BYTES: usize = 8000;
const READY_FILES: u64 = 1 + READY_FILES_MAX as u64;

/// One segment for each of the slots `1..=slots`.
fn filled(options: Options, slots: u64) -> (MemoryDisk, MemoryWal, History) {
    let disk = disk(&options);
    let (mut wal, _, _) = open(&disk, options).unwrap();
    let mut history = History::default();
    (1..=slots).for_each(|slot| history.write(&mut wal, accepted(slot, RECORD_BYTES)));
    assert_eq!(counter(&wal, "wal_segments"), slots);
    (disk, wal, history)
}

/// Drops all but the last two segments; the floor's record takes one of its own.
fn trim(wal: &mut MemoryWal, history: &mut History) {
    let floor = history.last().0;
    history.write(wal, trimmed(floor));
    wal.trim(Slot(floor));
    wal.durable().unwrap();
}

fn count(disk: &MemoryDisk, prefix: &str) -> u64 {
    let files = disk.list().unwrap();
    files
        .iter()
        .filter(|(name, _)| name.starts_with(prefix))
        .count() as u64
}

#[test]
fn as_many_segments_are_ready_as_were_asked_for() {
    for ready in [1, 3] {
        let options = Options {
            segments_ready: ready,
            ..options(SEGMENT_BYTES)
        };
        let (disk, mut wal, _) = filled(options, 5);
        wal.durable().unwrap();
        assert_eq!(counter(&wal, "wal_segments_ready"), ready as u64);
        assert_eq!(count(&disk, "wal-"), 5 + ready as u64);
    }
}

#[test]
fn a_segment_has_its_full_size_and_no_more() {
    // Zeros are written in pieces that do not divide this.
    let segment_bytes = 300 << 10;
    let disk = disk(&options(segment_bytes));
    let (mut wal, _, _) = open(&disk, options(segment_bytes)).unwrap();
    History::default().write(&mut wal, accepted(1, 100));
    let files = disk.list().unwrap();
    let segments = files.iter().filter(|(name, _)| name.starts_with("wal-"));
    let sizes: Vec<_> = segments.map(|(_, bytes)| *bytes).collect();
    assert_eq!(sizes, [segment_bytes; 2]);
}

#[test]
fn a_few_dropped_files_are_kept_and_the_rest_is_removed() {
    for (slots, kept) in [(4, 3), (6, 5), (7, 5), (12, 5)] {
        let (disk, mut wal, mut history) = filled(options(SEGMENT_BYTES), slots);
        trim(&mut wal, &mut history);
        assert_eq!(counter(&wal, "wal_segments_recycled"), slots - 1);
        assert_eq!(count(&disk, "ready-"), kept, "of {slots} segments");
        assert!(kept <= READY_FILES);
    }
}

#[test]
fn on_a_full_disk_the_wal_goes_on_with_the_files_it_kept() {
    let (disk, mut wal, mut history) = filled(options(SEGMENT_BYTES), 12);
    trim(&mut wal, &mut history);
    disk.fill(true);
    let ready = counter(&wal, "wal_segments_ready");
    let begun = counter(&wal, "wal_segments");
    for slot in 101.. {
        history.append(&mut wal, accepted(slot, RECORD_BYTES));
        wal.submit();
        if let Err(failed) = wal.durable() {
            assert!(failed.0.contains("preparing segment"), "{failed}");
            break;
        }
    }
    let more = counter(&wal, "wal_segments") - begun;
    assert!(
        (READY_FILES..=READY_FILES + ready + 1).contains(&more),
        "{more} more"
    );
    assert_eq!(count(&disk, "ready-"), 0);
}

#[test]
fn a_kept_file_that_was_changed_is_not_used_again() {
    type Damage = fn(&mut Vec<u8>);
    let damages: [Damage; 3] = [
        |bytes| bytes.truncate(4096),
        |bytes| bytes.extend([0; 4096]),
        |bytes| bytes[50] ^= 1,
    ];
    for damage in damages {
        let (disk, mut wal, mut history) = filled(options(SEGMENT_BYTES), 4);
        trim(&mut wal, &mut history);
        for number in 1..=3 {
            disk.tamper(&Sequence(number).ready_name(), damage);
        }
        let first = history.records.len() - 2;
        for slot in 101..=104 {
            history.write(&mut wal, accepted(slot, RECORD_BYTES));
        }
        let segments = disk.list().unwrap();
        let full =
            |(name, bytes): &(String, u64)| !name.starts_with("wal-") || *bytes == SEGMENT_BYTES;
        assert!(segments.iter().all(full), "{segments:?}");
        assert_eq!(count(&disk, "ready-"), 0);
        assert_eq!(scan(&disk).unwrap(), history.records[first..]);
    }
}

#[test]
fn a_wait_for_a_segment_is_counted_once() {
    let options = options(SEGMENT_BYTES);
    let disk = disk(&options);
    let (mut wal, _, _) = open(&disk, options).unwrap();
    let mut history = History::default();
    assert_eq!(counter(&wal, "wal_waits_for_segment"), 0);
    for slot in 1..=3 {
        // What the keeper made is taken in with the next question for what is durable.
        history.append(&mut wal, accepted(slot, 1000));
        wal.submit();
        assert_eq!(counter(&wal, "wal_waits_for_segment"), 1);
    }
    wal.durable().unwrap();
    assert_eq!(counter(&wal, "wal_segments"), 1);
    assert_eq!(counter(&wal, "wal_waits_for_segment"), 1);
}

#[test]
fn a_wal_goes_on_through_any_number_of_segments() {
    let (disk, mut wal, mut history) = filled(options(SEGMENT_BYTES), 600);
    trim(&mut wal, &mut history);
    for slot in 601..=620 {
        history.write(&mut wal, accepted(slot, RECORD_BYTES));
    }
    let live = counter(&wal, "wal_segments_live");
    assert!(live <= 600 - 256 + 22, "{live} segments are left");
    let crashed = disk.crash(|_| false, |_| false);
    let records = scan(&crashed).unwrap();
    assert_eq!(records.last(), history.records.last());
}

/// The trim's work takes the keeper's whole queue just when segments are needed.
#[test]
fn a_large_trim_does_not_keep_segments_from_being_made() {
    let (_, mut wal, mut history) = filled(options(SEGMENT_BYTES), 600);
    let floor = history.last().0;
    history.write(&mut wal, trimmed(floor));
    for slot in 601..=620 {
        wal.trim(Slot(floor));
        history.append(&mut wal, accepted(slot, RECORD_BYTES));
        wal.submit();
        for _ in 0..4 {
            wal.durable().unwrap();
        }
        let durable = counter(&wal, "wal_durable_lsn");
        assert_eq!(durable, history.last().0, "the WAL stands still");
    }
}
