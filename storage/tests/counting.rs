//! What the WAL counts, how full its groups are, and what a read is given.

mod common;

use common::{
    History, MemoryWal, accepted, counter, disk, open, options, promised, read, trimmed, value,
};
use synod_engine::ids::Slot;
use synod_engine::seams::Wal;
use synod_storage::backend::MemoryDisk;
use synod_storage::config::GROUP_BYTES_MAX;
use synod_storage::format::PAGE;
use synod_storage::group::capacity;
use synod_storage::wal::group_bytes_max;

const SEGMENT_BYTES: u64 = 32 << 10;
const GROUP_BYTES: usize = 28 << 10;
const HEAD_BYTES: usize = 48;

fn held() -> (MemoryDisk, MemoryWal, History) {
    let options = options(SEGMENT_BYTES);
    let disk = disk(&options);
    let (mut wal, _, _) = open(&disk, options).unwrap();
    wal.durable().unwrap();
    wal.backend_mut().hold();
    (disk, wal, History::default())
}

fn counters(wal: &MemoryWal, names: &[&str]) -> Vec<u64> {
    let value = |name: &&str| counter(wal, &format!("wal_{name}"));
    names.iter().map(value).collect()
}

#[test]
fn each_counter_counts_what_its_name_says() {
    let (_, mut wal, mut history) = held();
    let lsns = ["appended_lsn", "sealed_lsn", "durable_lsn"];
    let written = ["groups", "records", "bytes", "syncs"];
    let waiting = [
        "writes_in_flight",
        "bytes_in_flight",
        "pending_bytes",
        "pending_bytes_peak",
    ];
    let record = |bytes: u64| bytes + HEAD_BYTES as u64;
    history.append(&mut wal, accepted(1, 100));
    history.append(&mut wal, accepted(2, 200));
    assert_eq!(counters(&wal, &lsns), [2, 0, 0]);
    assert_eq!(
        counters(&wal, &waiting),
        [0, 0, record(100) + record(200), record(100) + record(200)]
    );
    wal.submit();
    history.append(&mut wal, accepted(3, 5000));
    wal.submit();
    history.append(&mut wal, promised(1));
    wal.submit();
    assert_eq!(counters(&wal, &lsns), [4, 4, 0]);
    assert_eq!(counters(&wal, &written), [3, 4, 4 * 4096, 0]);
    assert_eq!(counters(&wal, &waiting), [3, 4 * 4096, 0, record(5000)]);
    assert_eq!(counter(&wal, "wal_index_slots"), 0, "nothing is durable");
    wal.backend_mut().complete(1);
    wal.durable().unwrap();
    // Its bytes are off the disk's queue, though the group waits for the one before it.
    assert_eq!(counters(&wal, &waiting), [3, 2 * 4096, 0, record(5000)]);
    assert_eq!(counters(&wal, &written), [3, 4, 4 * 4096, 1]);
    wal.backend_mut().complete(0);
    wal.backend_mut().complete(0);
    wal.durable().unwrap();
    assert_eq!(counters(&wal, &lsns), [4, 4, 4]);
    assert_eq!(counters(&wal, &written), [3, 4, 4 * 4096, 3]);
    assert_eq!(counters(&wal, &waiting), [0, 0, 0, record(5000)]);
    assert_eq!(
        counters(&wal, &["index_slots", "segments", "segments_live"]),
        [3, 1, 1]
    );
}

#[test]
fn waits_for_depth_and_reads_are_counted() {
    let (_, mut wal, mut history) = held();
    for slot in 1..=6 {
        history.append(&mut wal, accepted(slot, 100));
        wal.submit();
    }
    assert_eq!(
        counter(&wal, "wal_waits_for_depth"),
        2,
        "four writes are under way"
    );
    let reads = ["reads", "reads_refused", "reads_damaged"];
    (0..8).for_each(|_| assert!(wal.read(Slot(1), Slot(1), 1)));
    (0..3).for_each(|_| assert!(!wal.read(Slot(1), Slot(1), 1)));
    assert_eq!(counters(&wal, &reads), [8, 3, 0]);
    (0..8).for_each(|_| assert!(wal.take_read().unwrap().is_some()));
    assert!(wal.take_read().unwrap().is_none());
    assert!(wal.read(Slot(1), Slot(1), 1), "there is room again");
    assert_eq!(counters(&wal, &reads), [9, 3, 0]);
}

#[test]
fn the_largest_group_fits_its_segment_in_whole_pages() {
    let max = GROUP_BYTES_MAX as u64;
    for (segment, group) in [
        (16 << 10, 12 << 10),
        (SEGMENT_BYTES, GROUP_BYTES),
        (20_000, 12 << 10),
        (max, GROUP_BYTES_MAX - PAGE),
        (max + 4096, GROUP_BYTES_MAX),
        (64 << 20, GROUP_BYTES_MAX),
    ] {
        assert_eq!(
            group_bytes_max(segment),
            group,
            "segments of {segment} bytes"
        );
    }
}

/// The records that each group takes when all of them wait at once.
fn groups_of(sizes: &[usize]) -> Vec<u64> {
    let (_, mut wal, mut history) = held();
    for (slot, bytes) in (1..).zip(sizes) {
        history.append(&mut wal, accepted(slot, *bytes));
    }
    let mut groups = Vec::new();
    let mut before = 0;
    wal.submit();
    while wal.backend_mut().under_way() > 0 {
        wal.backend_mut().complete(0);
        let durable = wal.durable().unwrap().0;
        groups.push(durable - before);
        before = durable;
    }
    assert_eq!(before, sizes.len() as u64);
    groups
}

#[test]
fn a_group_takes_all_that_fits_and_no_more() {
    let room = capacity(GROUP_BYTES);
    let half = room / 2 - HEAD_BYTES;
    let rest = room - half - 2 * HEAD_BYTES;
    assert_eq!(
        groups_of(&[half, rest, 10]),
        [2, 1],
        "two fill it to the last byte"
    );
    assert_eq!(groups_of(&[half, rest + 1, 10]), [1, 2]);
    assert_eq!(groups_of(&[half, rest - 1, 10]), [2, 1]);
    assert_eq!(groups_of(&[room - HEAD_BYTES; 3]), [1, 1, 1]);
    assert_eq!(groups_of(&[10; 30]), [30]);
}

#[test]
fn a_read_gives_as_many_slots_as_its_bytes_allow() {
    let (_, mut wal, mut history) = held();
    for slot in 1..=4 {
        history.append(&mut wal, accepted(slot, 500));
    }
    wal.submit();
    wal.backend_mut().complete(0);
    wal.durable().unwrap();
    for (from, through, bytes_max, found) in [
        (1, 4, 2000, 4),
        (1, 4, 1000, 2),
        (1, 4, 999, 1),
        (1, 4, 1001, 2),
        (1, 4, 0, 1),
        (2, 2, 1000, 1),
        (3, 2, 1000, 0),
        (5, 9, 1000, 0),
    ] {
        let values: Vec<_> = (from..).take(found).map(|slot| value(slot, 500)).collect();
        let read = read(&mut wal, from, through, bytes_max);
        assert_eq!(
            (read.from, read.values),
            (Slot(from), values),
            "{from} through {through}"
        );
    }
}

/// The groups of all segments start at the same offset.
#[test]
fn a_read_goes_through_segments() {
    let (_, mut wal, mut history) = held();
    for slot in 1..=9 {
        history.append(
            &mut wal,
            accepted(slot, if slot < 5 { 20_000 } else { 9_000 }),
        );
        wal.submit();
        wal.backend_mut().complete(0);
        wal.durable().unwrap();
    }
    assert!(counter(&wal, "wal_segments") > 5);
    let all: Vec<_> = (1..=9)
        .map(|slot| value(slot, if slot < 5 { 20_000 } else { 9_000 }))
        .collect();
    assert_eq!(read(&mut wal, 1, 9, 1 << 20).values, all);
    assert_eq!(counter(&wal, "wal_reads_damaged"), 0);
}

#[test]
fn the_index_forgets_what_a_trim_dropped() {
    let (_, mut wal, mut history) = held();
    let append = |wal: &mut MemoryWal, history: &mut History, record| {
        history.append(wal, record);
        wal.submit();
        wal.backend_mut().complete(0);
        wal.durable().unwrap();
    };
    for slot in 1..=9 {
        append(&mut wal, &mut history, accepted(slot, 20_000));
    }
    assert_eq!(counter(&wal, "wal_index_slots"), 9);
    append(&mut wal, &mut history, trimmed(6));
    wal.trim(Slot(6));
    assert_eq!(counter(&wal, "wal_index_slots"), 4, "slots 6 to 9");
    assert_eq!(read(&mut wal, 5, 9, 1 << 20).values.len(), 0);
    assert_eq!(read(&mut wal, 6, 9, 1 << 20).values.len(), 4);
}
