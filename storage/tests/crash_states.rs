//! Every state that a crash can leave of a log of 64 records: recovery finds all that was durable, of the rest a
//! prefix, and nothing else.

mod common;

use common::{
    History, MemoryWal, accepted, counter, disk, open, options, promised, scan, scan_holes, settle,
};
use synod_engine::message::Record;
use synod_engine::seams::Wal;
use synod_storage::backend::MemoryDisk;

const SEGMENT_BYTES: u64 = 48 << 10;
const RECORDS: u64 = 64;
/// Sectors of which every subset is tried.
const SECTORS_AT_RISK: usize = 12;

/// 64 records in groups of one to four: promises, empty values, values of a sector and of many.
fn script() -> Vec<Vec<Record>> {
    let mut groups = Vec::new();
    let mut lsn = 1;
    while lsn <= RECORDS {
        let count = 1 + (lsn * 5 % 4).min(RECORDS - lsn);
        let group = (lsn..lsn + count).map(|lsn| match lsn % 7 {
            0 => promised(lsn),
            1 => accepted(lsn, 0),
            2 | 5 => accepted(lsn, 3000),
            3 => accepted(lsn, 464),
            4 => accepted(lsn, 7000),
            _ => accepted(lsn, 90),
        });
        groups.push(group.collect());
        lsn += count;
    }
    groups
}

/// A disk with the first groups durable, each by itself, and the WAL still open.
fn written(groups: &[Vec<Record>]) -> (MemoryDisk, MemoryWal, History) {
    let options = options(SEGMENT_BYTES);
    let disk = disk(&options);
    let (mut wal, _, _) = open(&disk, options).unwrap();
    let mut history = History::default();
    for group in groups {
        submit(&mut wal, &mut history, group);
        settle(&mut wal, history.last());
    }
    (disk, wal, history)
}

fn submit(wal: &mut MemoryWal, history: &mut History, group: &[Record]) {
    for record in group {
        history.append(wal, record.clone());
    }
    wal.submit();
}

/// Where each group of the last used segment ends, and the lsn that it ends with.
fn ends_in_last_segment(groups: &[Vec<Record>]) -> (String, Vec<(usize, u64)>) {
    let mut name = String::new();
    let mut ends = Vec::new();
    for through in 1..=groups.len() {
        let (disk, _, _) = written(&groups[..through]);
        let report = synod_storage::scan_disk(&disk, &mut |_| {}).unwrap();
        let [.., before, last] = &report.segments[..] else {
            continue;
        };
        let its_name = last.sequence.segment_name();
        if its_name != name {
            // What it begins with may be the rest of a group that the segment before had no room for.
            ends = vec![(4096, before.last.0)];
            name = its_name;
        }
        ends.push((last.end as usize, last.last.0));
    }
    (name, ends)
}

#[test]
fn any_byte_prefix_of_the_last_segment_leaves_the_groups_before() {
    let groups = script();
    let (disk, _, history) = written(&groups);
    assert_eq!(history.last().0, RECORDS);
    let (last, ends) = ends_in_last_segment(&groups);
    assert!(
        ends.len() > 3 && last != "wal-0000000000000001.seg",
        "{last}: {ends:?}"
    );
    let whole = disk.contents(&last);
    for from in (0..=whole.len()).rev() {
        disk.tamper(&last, |contents| contents[from..].fill(0));
        let unchanged = disk.contents(&last) == whole;
        let kept = ends.iter().rev().find(|(end, _)| *end <= from || unchanged);
        match scan(&disk) {
            Ok(records) => {
                // The header of the segment alone ends in zeros as well.
                let kept = kept.unwrap_or(&ends[0]);
                // A group may end in zeros: without them it is whole still.
                let count = records.len() as u64;
                let next = ends.iter().find(|(end, _)| *end > from);
                assert!(
                    count == kept.1 || next.is_some_and(|next| count == next.1),
                    "from {from}"
                );
                assert_eq!(records, history.records[..records.len()], "from {from}");
            }
            // A sector that was written in part is damage; so is a segment without its header.
            Err(error) => {
                assert!(
                    !from.is_multiple_of(512) || from < 512,
                    "from {from}: {error}"
                );
                assert!(error.to_string().contains(".seg, offset "), "{error}");
            }
        }
    }
}

#[test]
fn a_last_segment_cut_at_any_byte_is_refused() {
    let (disk, _, _) = written(&script());
    let (last, _) = ends_in_last_segment(&script());
    for bytes in (0..SEGMENT_BYTES as usize).rev() {
        disk.tamper(&last, |contents| contents.truncate(bytes));
        let error = scan(&disk).expect_err("a short segment is damage");
        let place = format!("{last}, offset {bytes}: ");
        assert!(error.to_string().contains(&place), "{error}");
    }
}

#[test]
fn any_subset_of_unsynced_sectors_leaves_everything_durable_and_what_follows_whole() {
    let groups = script();
    let mut in_two_groups = 0;
    for point in (0..groups.len()).step_by(4) {
        let (disk, mut wal, mut history) = written(&groups[..point]);
        let durable = history.records.len();
        wal.durable().unwrap();
        wal.backend_mut().hold();
        // What is under way: where the sectors of each group end, and how many records there are then.
        let mut under_way = Vec::new();
        for group in groups[point..].iter().take(3) {
            submit(&mut wal, &mut history, group);
            if wal.backend_mut().under_way() > under_way.len() {
                // Of a group that its segment has no room for, a part may wait.
                let sealed = counter(&wal, "wal_sealed_lsn") as usize;
                under_way.push((disk.at_risk().0, sealed));
            }
        }
        in_two_groups += usize::from(under_way.len() > 1);
        let sectors = under_way.last().expect("something is under way").0;
        let tried = sectors.min(SECTORS_AT_RISK);
        // At the front, and around the end of the first group.
        let middle = under_way[0]
            .0
            .saturating_sub(tried / 2)
            .min(sectors - tried);
        for (from, others) in [(0, false), (0, true), (middle, true)] {
            for subset in 0..1u32 << tried {
                let keeps = |i: usize| match i.checked_sub(from) {
                    Some(i) if i < tried => subset >> i & 1 == 1,
                    Some(_) | None => others,
                };
                let mut whole = under_way.iter().filter(|(end, _)| (0..*end).all(keeps));
                let expected = whole.next_back().map_or(durable, |(_, records)| *records);
                let found = scan_holes(&disk.crash(keeps, |_| true));
                let what =
                    format!("group {point}, subset {subset:#x} from {from}, others {others}");
                let (records, holes) = found.unwrap_or_else(|error| panic!("{what}: {error}"));
                assert!(holes.is_empty(), "{what}: {holes:?}");
                assert_eq!(records.len(), expected, "{what}");
                assert_eq!(records, history.records[..expected], "{what}");
            }
        }
    }
    assert!(in_two_groups > 2);
}
