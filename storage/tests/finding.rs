//! What a recovery reports: counts, places, and whom it blames for what is lost.

mod common;

use common::{History, MemoryWal, accepted, counter, disk, open, options, promised, trimmed};
use synod_engine::ids::{Lsn, Slot};
use synod_engine::seams::Wal;
use synod_storage::backend::MemoryDisk;
use synod_storage::disk::{Disk, OpenMode};
use synod_storage::format::{PAGE, SegmentHeader, SegmentIdentity, Sequence};
use synod_storage::group::{Carried, GroupHeader, build, records_at};
use synod_storage::{OpenError, Replayed, ScanReport, scan_disk};

/// Seven groups of a page fill a segment.
const SEGMENT_BYTES: u64 = 32 << 10;
const END: u64 = SEGMENT_BYTES;

fn segment(number: u64) -> String {
    Sequence(number).segment_name()
}

/// One lsn, one group, one page each.
fn written(records: u64) -> (MemoryDisk, MemoryWal, History) {
    let options = options(SEGMENT_BYTES);
    let disk = disk(&options);
    let (mut wal, _, _) = open(&disk, options).unwrap();
    let mut history = History::default();
    (1..=records).for_each(|slot| history.write(&mut wal, accepted(slot, 3000)));
    (disk, wal, history)
}

fn zero(disk: &MemoryDisk, number: u64, group: usize) {
    disk.tamper(&segment(number), |bytes| {
        bytes[group * PAGE..][..PAGE].fill(0)
    });
}

/// A changed bit in the header of a group, whose stamp stays right.
fn rot_header(disk: &MemoryDisk, number: u64, group: usize) {
    disk.tamper(&segment(number), |bytes| bytes[group * PAGE + 60] ^= 1);
}

fn report(disk: &MemoryDisk) -> ScanReport {
    scan_disk(disk, &mut |_| {}).unwrap_or_else(|error| panic!("{error}"))
}

fn refusal(disk: &MemoryDisk) -> String {
    let error = scan_disk(disk, &mut |_| {}).expect_err("this must be refused");
    error.to_string()
}

/// Segment, offset, first and last lsn of a hole.
type Place = (u64, u64, u64, u64);

fn holes(disk: &MemoryDisk) -> Vec<Place> {
    let number = |hole: &synod_storage::Hole| {
        let name = hole.file.file_name().unwrap().to_str().unwrap();
        Sequence::of_segment_name(name).unwrap().0
    };
    let holes = report(disk).holes;
    let place = |hole| (number(hole), hole.offset, hole.first.0, hole.next.0 - 1);
    holes.iter().map(place).collect()
}

#[test]
fn a_report_counts_segments_groups_records_and_bytes() {
    let (disk, mut wal, mut history) = written(16);
    history.append(&mut wal, promised(1));
    history.append(&mut wal, accepted(30, 10));
    wal.submit();
    wal.durable().unwrap();
    let mut places = Vec::new();
    let report = scan_disk(&disk, &mut |replayed| match replayed {
        Replayed::Record(at, _) => places.push((at.lsn.0, at.offset)),
        Replayed::Hole(hole) => panic!("{hole:?}"),
    });
    let report = report.unwrap();
    let segments = report.segments.iter();
    let told: Vec<_> = segments
        .map(|s| (s.sequence.0, s.end, s.groups, s.last.0, s.slot_max.0))
        .collect();
    let third = 4 * PAGE as u64;
    assert_eq!(
        told,
        [
            (1, END, 7, 7, 7),
            (2, END, 7, 14, 14),
            (3, third, 3, 18, 30)
        ]
    );
    assert!(report.segments.iter().all(|segment| segment.readable));
    assert_eq!((report.records, report.bytes), (18, 2 * END + third));
    assert_eq!((report.last_lsn, report.tail), (Lsn(18), None));
    assert_eq!(report.empty_segments, [Sequence(4)]);
    let at = records_at(8) as u64;
    let offset = |lsn: u64| (1 + (lsn - 1) % 7) * PAGE as u64 + at;
    let mut expected: Vec<_> = (1..=17).map(|lsn| (lsn, offset(lsn))).collect();
    expected.push((18, offset(17) + 32));
    assert_eq!(places, expected);
}

#[test]
fn groups_around_a_hole_are_counted() {
    let (disk, ..) = written(16);
    zero(&disk, 1, 3);
    zero(&disk, 2, 7);
    rot_header(&disk, 3, 1);
    let groups: Vec<_> = report(&disk).segments.iter().map(|s| s.groups).collect();
    assert_eq!(groups, [6, 6, 1]);
}

#[test]
fn kept_files_are_reported_and_unfinished_ones_are_not() {
    let (disk, mut wal, mut history) = written(16);
    history.write(&mut wal, trimmed(15));
    wal.trim(Slot(15));
    wal.durable().unwrap();
    disk.open("ready-probe.tmp", OpenMode::Create).unwrap();
    let kept = [Sequence(1).ready_name(), Sequence(2).ready_name()];
    assert_eq!(report(&disk).ready_files, kept);
}

#[test]
fn a_hole_tells_where_the_damage_is() {
    let page = PAGE as u64;
    type Damage = fn(&MemoryDisk);
    let cases: [(Damage, Place, &str); 8] = [
        (
            |disk| zero(disk, 3, 2),
            (3, 2 * page, 16, 16),
            "a group is lost",
        ),
        (
            |disk| zero(disk, 2, 3),
            (2, 3 * page, 10, 10),
            "a group is lost",
        ),
        (
            |disk| zero(disk, 1, 7),
            (1, 7 * page, 7, 7),
            "a group is lost",
        ),
        (
            |disk| zero(disk, 2, 1),
            (2, page, 8, 8),
            "its first group is missing",
        ),
        (
            |disk| disk.tamper(&segment(1), |bytes| bytes[PAGE + 1024..][..512].fill(0)),
            (1, page + 1024, 1, 1),
            "a sector of a group is lost",
        ),
        (
            |disk| rot_header(disk, 2, 1),
            (2, page, 8, 8),
            "the group's header is wrong",
        ),
        (
            |disk| disk.tamper(&segment(2), |bytes| bytes.truncate(5000)),
            (2, 5000, 8, 14),
            "the file has 5000 bytes",
        ),
        (
            |disk| disk.lose(&segment(2)),
            (2, 0, 8, 14),
            "the file is missing",
        ),
    ];
    let (intact, ..) = written(17);
    for (damage, place, why) in cases {
        let disk = intact.copy();
        damage(&disk);
        assert_eq!(holes(&disk), [place], "{why}");
        let told = report(&disk).holes[0].why.clone();
        assert!(told.contains(why), "{told:?} instead of {why:?}");
    }
}

#[test]
fn a_lost_front_is_named_by_the_segment_before() {
    let (disk, ..) = written(30);
    (1..=3).for_each(|number| disk.lose(&segment(number)));
    assert_eq!(holes(&disk), [(3, 0, 1, 21)]);
    // Nothing tells any more what was before.
    rot_header(&disk, 4, 1);
    zero(&disk, 4, 2);
    (3..=7).for_each(|group| zero(&disk, 4, group));
    (1..=2).for_each(|group| zero(&disk, 5, group));
    let message = refusal(&disk);
    let missing = "no intact group is left in the segments after it";
    assert!(
        message.contains(&segment(3)) && message.contains(missing),
        "{message}"
    );
}

/// The slot that the floor names is not dropped with those below it.
#[test]
fn a_front_was_trimmed_only_if_all_its_slots_are_below_the_floor() {
    for told_by_a_header in [false, true] {
        for (floor, trimmed_away) in [(14, false), (15, true), (16, true)] {
            let (disk, mut wal, mut history) = written(20);
            history.write(&mut wal, trimmed(floor));
            if told_by_a_header {
                (22..=23).for_each(|slot| history.write(&mut wal, accepted(slot, 3000)));
                assert_eq!(counter(&wal, "wal_segments"), 4);
            }
            // Slots 1 to 14.
            (1..=2).for_each(|number| disk.lose(&segment(number)));
            let expected: &[_] = if trimmed_away { &[] } else { &[(2, 0, 1, 14)] };
            assert_eq!(holes(&disk), expected, "floor {floor}, {told_by_a_header}");
        }
    }
}

#[test]
fn what_is_left_of_a_trimmed_wal_may_be_one_group() {
    let (disk, mut wal, mut history) = written(7);
    history.write(&mut wal, trimmed(8));
    wal.trim(Slot(8));
    wal.durable().unwrap();
    let report = report(&disk);
    assert_eq!((report.records, report.last_lsn), (1, Lsn(8)));
    assert_eq!((report.segments.len(), report.holes.len()), (1, 0));
    assert_eq!(report.trim_floor, Slot(8));
}

#[test]
fn a_wrong_first_group_of_the_last_segment_is_refused() {
    let (disk, ..) = written(8);
    disk.tamper(&segment(2), |bytes| bytes[PAGE + 2000] ^= 1);
    assert!(refusal(&disk).contains(&segment(2)));
    // Though the group before it is lost as well.
    let (disk, ..) = written(8);
    zero(&disk, 1, 7);
    rot_header(&disk, 2, 1);
    let message = refusal(&disk);
    assert!(
        message.contains(&format!("{}, offset 4096", segment(2))),
        "{message}"
    );
}

/// The segment must not be taken for an unused one, which is overwritten.
#[test]
fn groups_behind_a_lost_first_group_survive_any_number_of_openings() {
    for damage in [zero, rot_header] {
        let (disk, wal, history) = written(11);
        drop(wal);
        damage(&disk, 2, 1);
        for round in 0..3 {
            let (_, records, opened) = open(&disk, options(SEGMENT_BYTES)).unwrap();
            assert_eq!(records.len(), 10, "round {round}");
            assert_eq!(records[7..], history.records[8..]);
            assert_eq!((opened.holes.len(), opened.last), (1, Lsn(11)));
        }
    }
}

#[test]
fn a_file_with_a_made_up_number_is_refused_at_once() {
    for (number, why) in [
        (3 + 65536, "segments after it are there"),
        (3 + 65537, "too many segments are missing"),
    ] {
        let (disk, ..) = written(3);
        assert_eq!(report(&disk).empty_segments, [Sequence(2)]);
        disk.open(&segment(number), OpenMode::Create).unwrap();
        let error = scan_disk(&disk, &mut |_| {}).unwrap_err();
        let message = error.to_string();
        assert!(
            matches!(error, OpenError::SegmentMissing { .. }),
            "{message}"
        );
        assert!(
            message.contains(&segment(3)) && message.contains(why),
            "{message}"
        );
    }
}

fn identity_of(disk: &MemoryDisk, number: u64) -> SegmentIdentity {
    let image = disk.contents(&segment(number));
    SegmentHeader::decode(&image[..PAGE]).unwrap().identity
}

/// Replaces a group by an intact one with other contents, as no WAL would ever write it there.
fn forge(disk: &MemoryDisk, number: u64, group: usize, first: Lsn, preceding_end: u64) {
    let record = accepted(first.0 + 100, 3000);
    let header = GroupHeader {
        bytes: PAGE,
        records: 1,
        records_bytes: 3048,
        first,
        durable: Lsn::ZERO,
        preceding_end,
        carried: Carried::default(),
    };
    let (offset, identity) = ((group * PAGE) as u64, identity_of(disk, number));
    disk.tamper(&segment(number), |bytes| {
        let page = &mut bytes[group * PAGE..][..PAGE];
        build(page, &header, identity, offset, [record].iter(), |_, _| {});
    });
}

#[test]
fn a_header_of_impossible_places_makes_its_segment_unreadable() {
    for (first, preceding_end) in [(Lsn(0), END), (Lsn(8), END + 4096)] {
        let (disk, ..) = written(16);
        forge(&disk, 2, 1, first, preceding_end);
        assert_eq!(holes(&disk), [(2, 4096, 8, 14)]);
        assert!(report(&disk).holes[0].why.contains("impossible places"));
    }
    let (disk, ..) = written(16);
    forge(&disk, 2, 1, Lsn(8), END);
    assert_eq!(holes(&disk), []);
}

#[test]
fn a_segment_that_ends_too_early_is_blamed_and_not_its_successor() {
    let options = options(SEGMENT_BYTES);
    let disk = disk(&options);
    let (mut wal, _, _) = open(&disk, options).unwrap();
    let mut history = History::default();
    (1..=6).for_each(|slot| history.write(&mut wal, accepted(slot, 3000)));
    // Two records in the last group of the first segment, of which the forged one has but the first.
    history.append(&mut wal, accepted(7, 1000));
    history.append(&mut wal, accepted(8, 1000));
    wal.submit();
    (9..=10).for_each(|slot| history.write(&mut wal, accepted(slot, 3000)));
    assert_eq!(counter(&wal, "wal_segments"), 2);
    forge(&disk, 1, 7, Lsn(7), 0);
    assert_eq!(holes(&disk), [(1, END, 8, 8)]);
}
