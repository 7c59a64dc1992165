//! Real files: a directory is locked, its snapshots come back, and its WAL goes on above them.

mod common;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use common::{History, accepted, counter, promised, read, record_of, settle, trimmed};
use synod_engine::ids::{ClusterId, ReplicaId, Slot};
use synod_engine::seams::{Origin, SnapshotEvent, SnapshotStore, Wal};
use synod_storage::disk::{Disk, OpenMode, RealDisk};
use synod_storage::snapshot::format::name;
use synod_storage::{BackendChoice, Config, DataDirectory, FileSnapshots, OpenError, init, open};

fn config(directory: &Path) -> Config {
    Config {
        segment_bytes: 256 << 10,
        ..Config::new(directory.join("data"), ClusterId(0xc1), ReplicaId(2), 7)
    }
}

fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary directory")
}

fn body(bytes: usize) -> Bytes {
    (0..bytes)
        .map(|i| (i ^ (i >> 8)) as u8)
        .collect::<Vec<u8>>()
        .into()
}

fn next_event(store: &mut FileSnapshots) -> SnapshotEvent {
    for _ in 0..60_000 {
        if let Some(event) = store.poll() {
            return event;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    panic!("nothing came of it");
}

fn write(store: &mut FileSnapshots, slot: u64, body: &Bytes) {
    store.begin(Slot(slot));
    for at in (0..body.len()).step_by(1 << 20) {
        store.append(body.slice(at..body.len().min(at + (1 << 20))));
    }
    store.finish(slot, Origin::Replayable);
    let event = next_event(store);
    assert!(
        matches!(event, SnapshotEvent::Durable(info) if info.slot == Slot(slot)),
        "{event:?}"
    );
}

fn restored(store: &mut FileSnapshots) -> Option<(Slot, bool)> {
    let found = store.restore(|_, parts| Ok(parts.collect::<Vec<_>>().concat()));
    found.map(|(info, whole)| (info.slot, whole == body(whole.len())))
}

/// Everything at once, twice: a snapshot far larger than what the writer takes at a time, and a WAL trimmed by it.
#[test]
fn a_replica_goes_on_from_its_snapshot() {
    let directory = directory();
    let config = config(directory.path());
    init(&config).unwrap();
    let mut history = History::default();
    let mut covers = Slot::ZERO;
    for round in 1..=2u64 {
        let data = DataDirectory::open(config.clone()).unwrap();
        let mut store = data.open_snapshots().unwrap();
        let expected = (covers > Slot::ZERO).then_some((covers, true));
        assert_eq!(restored(&mut store), expected);
        let mut records = Vec::new();
        let (mut wal, report) = data
            .open_wal(covers, &mut |replayed| records.extend(record_of(replayed)))
            .unwrap();
        assert_eq!(report.notes, [""; 0]);
        assert_eq!(
            records,
            history.records[history.records.len() - records.len()..]
        );
        assert!(
            records.len() < 60,
            "{} records were replayed",
            records.len()
        );
        for slot in covers.0 + 1..=covers.0 + 1000 {
            history.append(&mut wal, accepted(slot, 5000));
            if slot % 7 == 0 {
                wal.submit();
            }
        }
        history.append(&mut wal, promised(round));
        wal.submit();
        settle(&mut wal, history.last());
        covers = Slot(covers.0 + 1000);
        write(&mut store, covers.0, &body(20 << 20));
        history.write(&mut wal, trimmed(covers.0 - 30));
        wal.trim(Slot(covers.0 - 30));
        store.drop_below(covers);
        assert_eq!(store.complete().len(), 1);
        assert!(store.read(covers, 5 << 20, 1 << 20));
        let event = next_event(&mut store);
        let expected = body(20 << 20).slice(5 << 20..6 << 20);
        let is_read = matches!(&event, SnapshotEvent::Read { bytes, .. } if *bytes == expected);
        assert!(is_read, "{}", &format!("{event:?}")[..200]);
        assert_eq!(read(&mut wal, covers.0, covers.0, 1 << 20).values.len(), 1);
        assert_eq!(store.notes().take(), [""; 0]);
    }
}

/// The lock holds as long as anything of the directory is open.
#[test]
fn whatever_is_open_holds_the_lock() {
    let directory = directory();
    let config = config(directory.path());
    init(&config).unwrap();
    let locked = || {
        matches!(
            DataDirectory::open(config.clone()),
            Err(OpenError::Locked { .. })
        )
    };
    let data = DataDirectory::open(config.clone()).unwrap();
    let store = data.open_snapshots().unwrap();
    assert!(locked());
    drop(data);
    assert!(locked(), "the store is open");
    drop(store);
    let data = DataDirectory::open(config.clone()).unwrap();
    let store = data.open_snapshots().unwrap();
    let (wal, _) = data.open_wal(Slot::ZERO, &mut |_| {}).unwrap();
    drop(store);
    assert!(locked(), "the WAL is open");
    drop(wal);
    assert!(!locked());
}

#[test]
fn what_a_killed_process_left_is_removed_and_a_damaged_snapshot_is_told() {
    let directory = directory();
    let config = config(directory.path());
    init(&config).unwrap();
    let data = DataDirectory::open(config.clone()).unwrap();
    let mut store = data.open_snapshots().unwrap();
    write(&mut store, 5, &body(3000));
    write(&mut store, 9, &body(700_000));
    store.begin(Slot(12));
    store.append(body(900_000));
    drop(store);
    drop(data);
    let temporary = config.directory.join("snap-new.tmp");
    assert!(temporary.exists(), "a snapshot was under way");
    let damaged = config.directory.join(name(Slot(9)));
    let mut bytes = std::fs::read(&damaged).unwrap();
    bytes[300_000] ^= 4;
    std::fs::write(&damaged, bytes).unwrap();
    let data = DataDirectory::open(config.clone()).unwrap();
    assert!(!temporary.exists());
    let mut store = data.open_snapshots().unwrap();
    assert_eq!(restored(&mut store), Some((Slot(5), true)));
    let notes = store.notes().take();
    assert!(
        notes.len() == 1 && notes[0].contains(&damaged.display().to_string()),
        "{notes:?}"
    );
}

/// A directory with a snapshot and nothing else is what is left of a replica, and no place for a new one.
#[test]
fn init_does_not_run_over_a_snapshot() {
    let directory = directory();
    let config = config(directory.path());
    std::fs::create_dir_all(&config.directory).unwrap();
    std::fs::write(config.directory.join(name(Slot(3))), "").unwrap();
    assert!(matches!(init(&config), Err(OpenError::Remains { .. })));
    assert!(matches!(
        open(config, &mut |_| {}),
        Err(OpenError::Remains { .. })
    ));
}

/// In the steady state of real files, through both backends, no file is made.
#[test]
fn recycled_files_carry_the_log() {
    for backend in [BackendChoice::Auto, BackendChoice::Blocking] {
        let directory = directory();
        let config = Config {
            backend,
            ..config(directory.path())
        };
        init(&config).unwrap();
        let (mut wal, _) = open(config.clone(), &mut |_| {}).unwrap();
        let mut history = History::default();
        let mut created = Vec::new();
        for slot in 1..=600 {
            history.write(&mut wal, accepted(slot, 20_000));
            if slot % 20 == 0 {
                history.write(&mut wal, trimmed(slot));
                wal.trim(Slot(slot));
            }
            if slot % 200 == 0 {
                created.push(counter(&wal, "wal_segments_created"));
            }
        }
        assert!(created[0] <= 16, "{created:?}");
        assert_eq!(created[1], created[2], "{created:?}");
        assert_eq!(counter(&wal, "wal_segments_deleted"), 0);
        assert!(counter(&wal, "wal_segments_recycled") > 20);
        drop(wal);
        let mut last = None;
        let (_, report) = open(config, &mut |replayed| last = record_of(replayed)).unwrap();
        assert_eq!(
            (last, report.notes),
            (history.records.last().cloned(), vec![])
        );
    }
}

/// Keeper, snapshot writer and reader are threads of their own in one directory.
#[test]
fn a_listing_does_not_mind_files_that_come_and_go() {
    let directory = directory();
    let disk = RealDisk::new(directory.path(), false, false);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                for i in 0..20 {
                    disk.open(&format!("{i}"), OpenMode::Create).unwrap();
                }
                (0..20).for_each(|i| disk.remove(&format!("{i}")).unwrap());
            }
        });
        let listed = (0..2000).try_for_each(|_| disk.list().map(drop));
        stop.store(true, Ordering::Relaxed);
        listed.unwrap();
    });
}
