//! Segments are made ahead, dropped by trims and used again: how many there are, and of which files.

mod common;

use common::{History, MemoryWal, accepted, counter, disk, open, options, scan, trimmed};
use synod_engine::ids::Slot;
use synod_engine::seams::Wal;
use synod_storage::backend::MemoryDisk;
use synod_storage::config::{Options, SEGMENTS_RESERVED};
use synod_storage::disk::Disk;
use synod_storage::format::Sequence;

/// The smallest segment takes one record of this length and no second one.
const SEGMENT_BYTES: u64 = 16 << 10;
const RECORD_BYTES: usize = 8000;
/// As `common::options` says.
const RECYCLED_MAX: u64 = 5;

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
        assert_eq!(counter(&wal, "wal_segments_dropped"), slots - 1);
        assert_eq!(counter(&wal, "wal_segments_deleted"), slots - 1 - kept);
        assert_eq!(count(&disk, "ready-"), kept, "of {slots} segments");
        assert!(kept <= RECYCLED_MAX);
    }
}

/// Appends until a record stays undurable; how many segments were begun meanwhile.
fn write_until_it_waits(wal: &mut MemoryWal, history: &mut History, from: u64) -> u64 {
    let begun = counter(wal, "wal_segments");
    for slot in from.. {
        history.append(wal, accepted(slot, RECORD_BYTES));
        wal.submit();
        (0..3).for_each(|_| assert!(wal.durable().is_ok(), "a full disk is no failure"));
        if counter(wal, "wal_durable_lsn") < history.last().0 {
            break;
        }
    }
    counter(wal, "wal_segments") - begun
}

/// Trap 32. It waits with a segment in reserve, and goes on by itself when there is room.
#[test]
fn on_a_full_disk_the_wal_uses_what_it_kept_then_waits_for_room() {
    let options = Options {
        segments_ready: 2,
        ..options(SEGMENT_BYTES)
    };
    let (disk, mut wal, mut history) = filled(options, 12);
    trim(&mut wal, &mut history);
    let trimmed = history.records.len() - 2;
    disk.fill(true);
    let files = count(&disk, "");
    let more = write_until_it_waits(&mut wal, &mut history, 101);
    assert_eq!(more, RECYCLED_MAX + 2 - SEGMENTS_RESERVED as u64);
    assert_eq!(count(&disk, "ready-"), 0);
    assert_eq!(count(&disk, ""), files, "no attempt left a file");
    assert_eq!(
        counter(&wal, "wal_segments_ready"),
        SEGMENTS_RESERVED as u64
    );
    assert_eq!(counter(&wal, "wal_disk_full"), 1);
    let notes = wal.notes().take();
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(
        notes[0].contains("preparing segment /memory/wal-"),
        "{notes:?}"
    );
    disk.fill(false);
    (0..3).for_each(|_| assert!(wal.durable().is_ok()));
    assert_eq!(counter(&wal, "wal_durable_lsn"), history.last().0);
    assert_eq!(counter(&wal, "wal_disk_full"), 0);
    assert_eq!(wal.notes().take(), ["there is room for segments again"]);
    let crashed = disk.crash(|_| false, |_| false);
    assert_eq!(scan(&crashed).unwrap(), history.records[trimmed..]);
}

/// Room that a trim makes counts as well: that is how a replica gets out of it that only waits for its snapshot.
#[test]
fn a_trim_lets_a_wal_on_a_full_disk_go_on() {
    let (disk, mut wal, mut history) = filled(options(SEGMENT_BYTES), 4);
    disk.fill(true);
    history.write(&mut wal, trimmed(4));
    write_until_it_waits(&mut wal, &mut history, 5);
    assert_eq!(counter(&wal, "wal_disk_full"), 1);
    wal.trim(Slot(4));
    (0..3).for_each(|_| assert!(wal.durable().is_ok()));
    assert_eq!(counter(&wal, "wal_durable_lsn"), history.last().0);
}

/// Trap 32: the segment of an earlier life is never gone on in, so a start needs one of its own.
#[test]
fn a_replica_starts_on_a_full_disk_with_the_segment_in_reserve() {
    let options = Options {
        segments_ready: 2,
        ..options(SEGMENT_BYTES)
    };
    let (disk, mut wal, mut history) = filled(options, 3);
    disk.fill(true);
    write_until_it_waits(&mut wal, &mut history, 101);
    let durable = history.through(synod_engine::ids::Lsn(counter(&wal, "wal_durable_lsn")));
    drop(wal);
    let crashed = disk.crash(|_| false, |_| false);
    crashed.fill(true);
    let (mut wal, records, _) = open(&crashed, options).unwrap();
    assert_eq!(records, durable);
    let mut after = History { records };
    after.write(&mut wal, accepted(201, 100));
    // Once more, with nothing in reserve: it opens and waits.
    drop(wal);
    let (mut wal, records, _) = open(&crashed, options).unwrap();
    assert_eq!(records, after.records);
    write_until_it_waits(&mut wal, &mut after, 202);
    assert_eq!(counter(&wal, "wal_disk_full"), 1);
    crashed.fill(false);
    (0..3).for_each(|_| assert!(wal.durable().is_ok()));
    assert_eq!(counter(&wal, "wal_durable_lsn"), after.last().0);
}

/// The peak of a run is its steady state: after the first trims no file is made and none is removed.
#[test]
fn in_the_steady_state_no_file_is_made_and_none_is_removed() {
    // A round takes a segment for each record, and the floor's.
    let round_segments = RECYCLED_MAX + 1;
    let options = Options {
        segments_recycled_max: round_segments as usize,
        ..options(SEGMENT_BYTES)
    };
    let (disk, mut wal, mut history) = filled(options, 1);
    let mut counts = Vec::new();
    for round in 1..=20u64 {
        for i in 0..RECYCLED_MAX {
            let slot = 1 + round * RECYCLED_MAX + i;
            history.write(&mut wal, accepted(slot, RECORD_BYTES));
        }
        let floor = 1 + round * RECYCLED_MAX;
        history.write(&mut wal, trimmed(floor));
        wal.trim(Slot(floor));
        wal.durable().unwrap();
        let counters = ["created", "recycled", "deleted"];
        counts.push(counters.map(|name| counter(&wal, &format!("wal_segments_{name}"))));
    }
    let (early, late) = (counts[2], counts[19]);
    assert_eq!((late[0], late[2]), (early[0], early[2]), "{counts:?}");
    assert_eq!(late[1] - early[1], 17 * round_segments);
    let records = scan(&disk.crash(|_| false, |_| false)).unwrap();
    assert_eq!(records.last(), history.records.last());
}

/// A limit that was lowered, or a crash between a rename and its removal, leaves more files than are wanted.
#[test]
fn surplus_files_are_removed_with_the_next_trim() {
    let (disk, mut wal, mut history) = filled(options(SEGMENT_BYTES), 12);
    trim(&mut wal, &mut history);
    assert_eq!(count(&disk, "ready-"), RECYCLED_MAX);
    drop(wal);
    let options = Options {
        segments_recycled_max: 1,
        ..options(SEGMENT_BYTES)
    };
    let (mut wal, _, _) = open(&disk, options).unwrap();
    (301..=303).for_each(|slot| history.write(&mut wal, accepted(slot, RECORD_BYTES)));
    let floor = 303;
    history.write(&mut wal, trimmed(floor));
    wal.trim(Slot(floor));
    wal.durable().unwrap();
    assert_eq!(count(&disk, "ready-"), 1);
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
