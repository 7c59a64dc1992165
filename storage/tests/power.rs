//! The power fails at each call that changes the disk; whatever was not synced may be lost, names too (trap 17).

mod common;

use common::{History, accepted, counter, disk, open, options, promised, scan, trimmed};
use synod_engine::ids::{Lsn, Slot};
use synod_engine::seams::Wal;
use synod_storage::backend::MemoryDisk;
use synod_storage::config::Options;
use synod_storage::disk::Disk;
use synod_storage::{initialise, scan_disk};

const SEGMENT_BYTES: u64 = 16 << 10;

/// Rolls, trims, recycles, removes, reopens; until something fails. Returns what was durable.
fn live(disk: &MemoryDisk, options: Options, history: &mut History) -> Lsn {
    live_on(disk, options, history, 0, 2)
}

/// The same for some lives, behind what is there, which goes up to this slot.
fn live_on(
    disk: &MemoryDisk,
    options: Options,
    history: &mut History,
    mut slot: u64,
    lives: u64,
) -> Lsn {
    let mut durable = history.last();
    for life in 1..=lives {
        let Ok((mut wal, _, _)) = open(disk, options) else {
            return durable;
        };
        history.append(&mut wal, promised(life));
        for _ in 0..16 {
            slot += 1;
            history.append(&mut wal, accepted(slot, 3500));
            if slot.is_multiple_of(4) {
                history.append(&mut wal, trimmed(slot - 1));
            }
            wal.submit();
            match wal.durable() {
                Ok(lsn) => durable = lsn,
                Err(_) => return durable,
            }
            if slot.is_multiple_of(4) {
                wal.trim(Slot(slot - 1));
            }
        }
    }
    durable
}

/// What is left must open to a prefix with everything durable, but for what was trimmed; and go on.
fn check(crashed: &MemoryDisk, options: Options, history: &History, durable: Lsn, what: &str) {
    let records = scan(crashed).unwrap_or_else(|error| panic!("{what}: {error}"));
    let last = records.last().map_or(Lsn(0), |(lsn, _)| *lsn);
    assert!(
        last >= durable,
        "{what}: durable {durable:?}, found {last:?}"
    );
    let first = records.first().map_or(1, |(lsn, _)| lsn.0) as usize;
    assert_eq!(
        records,
        history.records[first - 1..last.0 as usize],
        "{what}"
    );
    let mut promises = 0;
    for (_, record) in history.through(durable) {
        if let synod_engine::message::Record::Promised { ballot } = record {
            promises = ballot.round.max(promises);
        }
    }
    let (mut wal, again, opened) = open(crashed, options).unwrap_or_else(|e| panic!("{what}: {e}"));
    assert_eq!(again, records, "{what}");
    assert!(
        opened.carried.promised.round >= promises,
        "{what}: the promise is gone"
    );
    let mut after = History {
        records: history.through(last).to_vec(),
    };
    after.write(&mut wal, accepted(10_000, 3500));
    after.write(&mut wal, accepted(10_001, 3500));
    let records =
        scan(&crashed.crash(|_| false, |_| false)).unwrap_or_else(|e| panic!("{what}: {e}"));
    let first = records[0].0.0 as usize;
    assert_eq!(records, after.records[first - 1..], "{what}");
}

#[test]
fn the_power_may_fail_at_any_call() {
    let options = options(SEGMENT_BYTES);
    let calls = {
        let disk = disk(&options);
        let before = disk.changes();
        let mut history = History::default();
        assert_eq!(live(&disk, options, &mut history), history.last());
        disk.changes() - before
    };
    assert!(calls > 100);
    for call in 1..=calls {
        let disk = disk(&options);
        let mut history = History::default();
        disk.power_off_at(disk.changes() + call);
        let durable = live(&disk, options, &mut history);
        for choice in 0..8u32 {
            // Nothing, everything, and mixtures of sectors and names.
            let crashed = disk.crash(
                |i| choice == 1 || choice > 1 && !(i as u32 * 7 + choice).is_multiple_of(3),
                |i| choice == 1 || choice > 1 && choice >> (i % 3) & 1 == 1,
            );
            let what = format!("power off at call {call}, choice {choice}");
            check(&crashed, options, &history, durable, &what);
        }
    }
}

#[test]
fn an_init_cut_short_is_done_again() {
    let options = options(SEGMENT_BYTES);
    let calls = disk(&options).changes();
    for call in 1..=calls {
        for keep in [false, true] {
            let disk = MemoryDisk::new();
            disk.power_off_at(call);
            initialise(&disk, &options).unwrap_err();
            let crashed = disk.crash(|_| keep, |_| keep);
            let what = format!("power off at call {call}, {keep}");
            if scan_disk(&crashed, &mut |_| {}).is_err() {
                initialise(&crashed, &options).unwrap_or_else(|error| panic!("{what}: {error}"));
            }
            let (mut wal, _, _) =
                open(&crashed, options).unwrap_or_else(|error| panic!("{what}: {error}"));
            History::default().write(&mut wal, promised(1));
        }
    }
}

/// A disk whose segments were all used before, so that every write goes over the valid groups of an earlier life.
fn warm(options: Options) -> (MemoryDisk, History, u64) {
    let disk = disk(&options);
    let mut history = History::default();
    let lives = 6;
    assert_eq!(
        live_on(&disk, options, &mut history, 0, lives),
        history.last()
    );
    let files = |prefix: &str| {
        let files = disk.list().unwrap();
        files
            .iter()
            .filter(|(name, _)| name.starts_with(prefix))
            .count()
    };
    assert!(files("ready-") > 0, "something waits to be used again");
    (disk, history, 16 * lives)
}

/// Traps 14 and 17: preparing a recycled file, rolling to it, dropping it again, at each call. What the power leaves is
/// what was written in this life or nothing, though an earlier life's groups stand at the same places.
#[test]
fn the_power_may_fail_at_any_call_in_the_steady_state() {
    let options = options(SEGMENT_BYTES);
    let (disk, history, slot) = warm(options);
    let calls = {
        let disk = disk.copy();
        let before = disk.changes();
        let mut history = History {
            records: history.records.clone(),
        };
        let durable = live_on(&disk, options, &mut history, slot, 1);
        assert_eq!(durable, history.last());
        let (wal, _, _) = open(&disk, options).unwrap();
        assert_eq!(
            counter(&wal, "wal_segments_created"),
            0,
            "nothing new is made"
        );
        disk.changes() - before
    };
    assert!(calls > 50);
    for call in 1..=calls {
        for choice in 0..8u32 {
            let disk = disk.copy();
            let mut history = History {
                records: history.records.clone(),
            };
            disk.power_off_at(disk.changes() + call);
            let durable = live_on(&disk, options, &mut history, slot, 1);
            let crashed = disk.crash(
                |i| choice == 1 || choice > 1 && !(i as u32 * 7 + choice).is_multiple_of(3),
                |i| choice == 1 || choice > 1 && choice >> (i % 3) & 1 == 1,
            );
            let what = format!("power off at call {call}, choice {choice}");
            check(&crashed, options, &history, durable, &what);
        }
    }
}
