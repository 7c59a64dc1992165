//! Real files, both backends.

mod common;

use std::path::Path;

use common::{
    History, accepted, ballot, counter, promised, read, record_of, settle, trimmed, value,
};
use synod_engine::ids::{ClusterId, Lsn, ReplicaId, Slot};
use synod_engine::message::Record;
use synod_engine::seams::Wal;
use synod_storage::{
    BackendChoice, Config, Durability, FileWal, OpenError, OpenReport, Replayed, init, open, scan,
    scan_directory,
};

fn config(directory: &Path, backend: BackendChoice) -> Config {
    let directory = directory.join("wal");
    Config {
        backend,
        segment_bytes: 256 << 10,
        ..Config::new(directory, ClusterId(0xc1), ReplicaId(2), 7)
    }
}

fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary directory")
}

fn reopen(config: &Config) -> (FileWal, OpenReport, Vec<(Lsn, Record)>) {
    let mut records = Vec::new();
    let (wal, report) = open(config.clone(), &mut |replayed| {
        records.extend(record_of(replayed))
    })
    .unwrap_or_else(|error| panic!("{error}"));
    (wal, report, records)
}

fn on_both_backends(test: impl Fn(Config)) {
    for backend in [BackendChoice::Blocking, BackendChoice::Uring] {
        let directory = directory();
        test(config(directory.path(), backend));
    }
    let directory = directory();
    test(Config {
        durability: Durability::None,
        ..config(directory.path(), BackendChoice::Auto)
    });
}

#[test]
fn what_was_appended_is_there_after_reopening() {
    on_both_backends(|config| {
        init(&config).unwrap();
        let mut history = History::default();
        for round in 0..3 {
            let (mut wal, report, records) = reopen(&config);
            assert_eq!(records, history.records, "round {round}: {report:?}");
            assert_eq!(report.last_lsn, history.last());
            history.append(&mut wal, promised(round + 1));
            for slot in 1..=400u64 {
                let slot = round * 400 + slot;
                history.append(&mut wal, accepted(slot, (slot as usize * 37) % 9000));
                if slot.is_multiple_of(3) {
                    wal.submit();
                }
            }
            wal.submit();
            settle(&mut wal, history.last());
            assert!(counter(&wal, "wal_segments") > 4);
            let found = read(&mut wal, round * 400 + 1, u64::MAX, 1 << 30);
            assert_eq!(found.values.len(), 400);
        }
        let (_, report, records) = reopen(&config);
        assert_eq!(records, history.records);
        assert_eq!(report.promised, ballot(3));
        assert_eq!(report.notes, Vec::<String>::new());
    });
}

#[test]
fn dropped_segments_take_neither_promise_nor_floor_along() {
    on_both_backends(|config| {
        init(&config).unwrap();
        let (mut wal, _, _) = reopen(&config);
        let mut history = History::default();
        history.write(&mut wal, promised(9));
        for slot in 1..=300 {
            history.write(&mut wal, accepted(slot, 5000));
        }
        history.write(&mut wal, trimmed(250));
        let before = counter(&wal, "wal_segments_live");
        wal.trim(Slot(250));
        assert!(counter(&wal, "wal_segments_live") <= before - 4);
        assert_eq!(read(&mut wal, 100, 110, 1 << 20).values.len(), 0);
        for slot in 301..=600 {
            history.write(&mut wal, accepted(slot, 5000));
        }
        drop(wal);
        let (mut wal, report, records) = reopen(&config);
        assert_eq!(report.promised, ballot(9));
        assert_eq!(report.trim_floor, Slot(250));
        let first = records[0].0.0 as usize;
        assert!(first > 100, "the first segments are gone");
        assert_eq!(records, history.records[first - 1..]);
        let found = read(&mut wal, 300, 310, 1 << 20);
        assert_eq!(found.values.len(), 11);
        assert_eq!(found.values[0], value(300, 5000));
    });
}

#[test]
fn a_directory_in_use_is_refused() {
    let directory = directory();
    let config = config(directory.path(), BackendChoice::Auto);
    init(&config).unwrap();
    let (wal, _, _) = reopen(&config);
    let error = open(config.clone(), &mut |_| {}).err().unwrap();
    assert!(matches!(error, OpenError::Locked { .. }), "{error}");
    let pid = format!("process {}", std::process::id());
    assert!(error.to_string().contains(&pid), "{error}");
    let error = scan(&config.directory, &mut |_| {}).unwrap_err();
    assert!(matches!(error, OpenError::Locked { .. }), "{error}");
    scan_directory(&config.directory, true, &mut |_| {}).unwrap();
    drop(wal);
    reopen(&config);
}

/// Names and contents of everything in a directory.
fn image(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|item| {
            let path = item.unwrap().path();
            (path.display().to_string(), std::fs::read(&path).unwrap())
        })
        .collect();
    files.sort();
    files
}

#[test]
fn a_foreign_directory_is_refused_and_left_as_it_is() {
    let directory = directory();
    let config = config(directory.path(), BackendChoice::Auto);
    init(&config).unwrap();
    let before = image(&config.directory);
    let refused = |config: Config| {
        let error = open(config.clone(), &mut |_| {}).err().unwrap();
        let message = error.to_string();
        assert!(
            message.contains(&*config.directory.to_string_lossy()),
            "{message}"
        );
        assert!(
            !message.contains('\n') && message.contains("; "),
            "{message}"
        );
        error
    };
    let mut other = config.clone();
    other.cluster = ClusterId(0xc2);
    assert!(matches!(refused(other), OpenError::WrongCluster { .. }));
    let mut other = config.clone();
    other.replica = ReplicaId(3);
    assert!(matches!(refused(other), OpenError::WrongReplica { .. }));
    assert!(matches!(
        init(&config),
        Err(OpenError::AlreadyInitialised { .. })
    ));
    assert_eq!(image(&config.directory), before);

    let identity = config.directory.join("identity");
    let mut later = std::fs::read(&identity).unwrap();
    later[8] = 7;
    std::fs::write(&identity, &later).unwrap();
    let error = refused(config.clone());
    assert!(
        matches!(error, OpenError::Version { found: 7, .. }),
        "{error}"
    );
    std::fs::remove_file(&identity).unwrap();
    let (mut wal_missing, mut init_refused) = (false, false);
    wal_missing |= matches!(refused(config.clone()), OpenError::NotInitialised { .. });
    // Nothing was ever written: init may start over.
    init_refused |= init(&config).is_err();
    assert!(wal_missing && !init_refused);
}

#[test]
fn what_is_no_wal_is_named_as_such() {
    let directory = directory();
    let mut config = config(directory.path(), BackendChoice::Auto);
    let error = open(config.clone(), &mut |_| {}).err().unwrap();
    assert!(matches!(error, OpenError::NotInitialised { .. }), "{error}");
    assert!(error.to_string().contains("--init"), "{error}");
    config.directory = directory.path().join("file");
    std::fs::write(&config.directory, "x").unwrap();
    for error in [
        open(config.clone(), &mut |_| {}).err().unwrap(),
        init(&config).unwrap_err(),
    ] {
        assert!(matches!(error, OpenError::NotADirectory { .. }), "{error}");
    }
}

#[test]
fn init_does_not_run_over_the_remains_of_a_wal() {
    let directory = directory();
    let config = config(directory.path(), BackendChoice::Blocking);
    init(&config).unwrap();
    let (mut wal, _, _) = reopen(&config);
    History::default().write(&mut wal, promised(1));
    drop(wal);
    std::fs::remove_file(config.directory.join("identity")).unwrap();
    assert!(matches!(init(&config), Err(OpenError::Remains { .. })));
    let error = open(config, &mut |_| {}).err().unwrap();
    assert!(matches!(error, OpenError::Remains { .. }), "{error}");
}

#[test]
fn a_scan_finds_what_an_open_finds() {
    let directory = directory();
    let config = config(directory.path(), BackendChoice::Auto);
    init(&config).unwrap();
    let (mut wal, _, _) = reopen(&config);
    let mut history = History::default();
    for slot in 1..=100 {
        history.write(&mut wal, accepted(slot, 4000));
    }
    drop(wal);
    let before = image(&config.directory);
    let mut records = Vec::new();
    let report = scan(&config.directory, &mut |replayed| {
        if let Replayed::Record(at, _) = &replayed {
            assert!(at.file.exists() && at.offset >= 4096);
        }
        records.extend(record_of(replayed));
    })
    .unwrap();
    assert_eq!(records, history.records);
    assert_eq!(report.records, 100);
    assert_eq!(report.tail, None);
    assert_eq!(image(&config.directory), before, "a scan changes nothing");
}

#[test]
fn the_event_tells_of_durable_groups_and_of_reads() {
    on_both_backends(|config| {
        init(&config).unwrap();
        let (mut wal, _, _) = reopen(&config);
        let mut history = History::default();
        history.append(&mut wal, accepted(1, 100));
        wal.submit();
        while wal.durable().unwrap() < history.last() {
            wait(&wal);
        }
        assert!(wal.read(Slot(1), Slot(1), 1));
        loop {
            if let Some(read) = wal.take_read().unwrap() {
                assert_eq!(read.values, [value(1, 100)]);
                break;
            }
            wait(&wal);
        }
    });
}

/// Sleeps until the event is raised; an event that never comes fails the test.
fn wait(wal: &FileWal) {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let fd = wal.event_fd();
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    let patience = Timespec {
        tv_sec: 20,
        tv_nsec: 0,
    };
    assert_eq!(poll(&mut fds, Some(&patience)), Ok(1), "no event");
    wal.acknowledge_event();
}
