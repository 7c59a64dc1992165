//! Snapshots of real replicas: who stayed away too long gets one, a bad one is told and passed over, and a disk without
//! room for one costs nothing but the attempt.

mod common;

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use common::{Files, Replica, directory, one_at_a_time, run, wait_until};
use rustix::process::{Resource, Rlimit, getrlimit, prlimit};

/// Small, so that a few hundred commands go through several snapshots, and are soon gone from memory as well.
const TABLES: &str = "[limits]\nsnapshot_distance_bytes = 262144\ncache_bytes_max = 65536\n\
                      batch_bytes_max = 65536\nrequest_bytes_max = 65536\ncommand_bytes_max = 32768\n\
                      [storage]\nsegment_bytes = 131072\n";
const VALUE_BYTES: usize = 8_192;

/// Overwrites `keys` keys in turn, so that the log grows and the state does not.
fn write(files: &Files, from: usize, count: usize, keys: usize) {
    let filling = "x".repeat(VALUE_BYTES);
    let input: String = (from..from + count)
        .map(|number| format!("put key-{} {number}-{filling}\n", number % keys))
        .collect();
    let finished = files.repl(&input);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    let done = finished.stdout.lines().filter(|line| *line == "ok").count();
    assert_eq!(done, count, "{}", finished.stderr);
}

/// The number in the value of a key.
fn number_of(files: &Files, key: usize) -> String {
    let found = files.client(&["get", &format!("key-{key}")]);
    assert_eq!(found.code, Some(0), "{}", found.stderr);
    let number = found.stdout.split('-').next();
    number.expect("a number").to_owned()
}

/// Complete ones, oldest first.
fn snapshots(files: &Files, id: u8) -> Vec<PathBuf> {
    let found = std::fs::read_dir(files.data(id)).expect("a directory");
    let mut found: Vec<PathBuf> = found.map(|file| file.expect("readable").path()).collect();
    found.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "snap")
    });
    found.sort();
    found
}

/// A cluster of one that has two snapshots and a trimmed log.
fn trimmed(files: &Files) -> Replica {
    files.configure(TABLES);
    let replica = files.start(1, true);
    let mut from = 0;
    wait_until("it does not trim", || {
        write(files, from, 40, 16);
        from += 40;
        snapshots(files, 1).len() == 2 && files.counter(1, "trim_floor") > Some(1)
    });
    write(files, 10_000, 16, 16);
    replica
}

fn log_of(files: &Files, id: u8) -> String {
    std::fs::read_to_string(files.log(id)).expect("a log")
}

fn flip(path: &Path, offset: u64) {
    let file = std::fs::File::options().read(true).write(true).open(path);
    let file = file.expect("our file");
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).expect("long enough");
    file.write_all_at(&[!byte[0]], offset).expect("writable");
}

/// Every replica answers with the same state and the same slot.
fn equal(files: &Files, replicas: u8) -> bool {
    let status = files.status();
    let of = |name: &str| -> Vec<Option<u64>> {
        let each = 1..=replicas;
        each.map(|id| status.counter(id, name)).collect()
    };
    let same = |values: &[Option<u64>]| {
        values[0].is_some() && values.iter().all(|value| *value == values[0])
    };
    same(&of("applied")) && same(&of("state_hash"))
}

#[test]
fn who_was_away_beyond_the_trim_floor_catches_up_by_snapshot_and_suffix() {
    let _turn = one_at_a_time();
    let directory = directory();
    let files = Files::make(directory.path(), 3);
    files.configure(TABLES);
    let first = files.start(1, true);
    let second = files.start(2, true);
    let third = files.start(3, true);
    write(&files, 0, 20, 16);
    wait_until("the replicas are not equal", || equal(&files, 3));
    let left_at = files.counter(3, "applied").expect("it runs");
    drop(third);

    let mut from = 100;
    wait_until("the others do not trim", || {
        write(&files, from, 60, 16);
        from += 60;
        let status = files.status();
        let floors = [1, 2].map(|id| status.counter(id, "trim_floor"));
        floors.iter().all(|floor| *floor > Some(left_at + 1))
    });
    let _third = files.start(3, false);
    // Load goes on meanwhile: what comes after the snapshot is the suffix.
    write(&files, 20_000, 60, 16);
    wait_until("it does not catch up", || equal(&files, 3));
    let installed = files.counter(3, "snapshots_installed");
    assert!(installed >= Some(1), "{installed:?}: {}", log_of(&files, 3));
    assert_eq!(number_of(&files, 20_059 % 16), "20059");
    drop((first, second));
}

#[test]
fn a_damaged_snapshot_is_told_and_the_older_one_is_used() {
    let _turn = one_at_a_time();
    let directory = directory();
    let files = Files::make(directory.path(), 1);
    assert_eq!(trimmed(&files).stop(), Some(0));
    let newest = snapshots(&files, 1).pop().expect("two of them");
    flip(&newest, 9_000);

    let replica = files.start(1, false);
    let log = log_of(&files, 1);
    let line = log.lines().find(|line| line.contains("damaged"));
    let line = line.unwrap_or_else(|| panic!("nothing is told: {log}"));
    for part in [newest.to_str().expect("utf-8"), "offset", "is tried"] {
        assert!(line.contains(part), "`{line}` lacks `{part}`");
    }
    for number in 10_000..10_016 {
        assert_eq!(number_of(&files, number % 16), number.to_string());
    }
    drop(replica);
}

#[test]
fn snapshots_of_others_and_of_other_versions_are_told_and_left_alone() {
    let _turn = one_at_a_time();
    let (ours, theirs) = (directory(), directory());
    let files = Files::make(ours.path(), 1);
    let others = Files::make(theirs.path(), 1);
    assert_eq!(trimmed(&files).stop(), Some(0));
    let newest = snapshots(&files, 1).pop().expect("two of them");
    // A later one of another cluster: its name is part of it.
    let other = trimmed(&others);
    let name = |path: &Path| path.file_name().expect("a name").to_owned();
    let mut from = 20_000;
    wait_until("the other cluster stays behind", || {
        write(&others, from, 40, 16);
        from += 40;
        let newest_there = snapshots(&others, 1).pop().expect("two of them");
        name(&newest_there) > name(&newest)
    });
    assert_eq!(other.stop(), Some(0));
    let theirs = snapshots(&others, 1).pop().expect("two of them");
    let foreign = files.data(1).join(name(&theirs));
    std::fs::copy(theirs, &foreign).expect("copied");
    let newer_version = std::fs::File::options().write(true).open(&newest);
    let newer_version = newer_version.expect("our file");
    newer_version.write_all_at(&[77], 8).expect("writable");

    let replica = files.start(1, false);
    let log = log_of(&files, 1);
    for part in [foreign.to_str().expect("utf-8"), "format version 77"] {
        assert!(log.contains(part), "`{part}` is not told: {log}");
    }
    assert_eq!(number_of(&files, 10_015 % 16), "10015");
    drop(replica);
    assert!(foreign.exists(), "it is not ours to remove");
    assert!(newest.exists(), "the build that wrote it can read it");
}

#[test]
fn without_any_usable_snapshot_a_lone_replica_refuses_to_start() {
    let _turn = one_at_a_time();
    let directory = directory();
    let files = Files::make(directory.path(), 1);
    assert_eq!(trimmed(&files).stop(), Some(0));
    for snapshot in snapshots(&files, 1) {
        flip(&snapshot, 9_000);
    }
    let config = files.config(1);
    let config = config.to_str().expect("utf-8");
    let finished = run(&["replica", "--exit-with-parent", "--config", config]);
    assert_eq!(finished.code, Some(2), "{}", finished.stderr);
    assert!(
        finished.complaint().contains("newest intact snapshot"),
        "{}",
        finished.stderr
    );
}

/// A limit on the size of files, which any process may set for its children: room for segments, none for a snapshot.
#[test]
fn a_disk_without_room_for_a_snapshot_costs_the_attempt_only() {
    let _turn = one_at_a_time();
    let directory = directory();
    let files = Files::make(directory.path(), 1);
    files.configure(TABLES);
    let replica = files.start(1, true);
    let limit = Rlimit {
        current: Some(200_000),
        maximum: getrlimit(Resource::Fsize).maximum,
    };
    let before = prlimit(Some(replica.id()), Resource::Fsize, limit).expect("a limit");
    let mut from = 0;
    wait_until("no snapshot fails", || {
        write(&files, from, 48, 48);
        from += 48;
        files.counter(1, "snapshot_files_failed") >= Some(1)
    });
    assert_eq!(snapshots(&files, 1).len(), 0);
    let log = log_of(&files, 1);
    assert!(log.contains("could not be written"), "{log}");
    let temporary = files.data(1).join("snap-new.tmp");
    wait_until("what was written stays", || !temporary.exists());

    prlimit(Some(replica.id()), Resource::Fsize, before).expect("no limit");
    wait_until("it does not try again", || {
        write(&files, from, 48, 48);
        from += 48;
        !snapshots(&files, 1).is_empty()
    });
    assert_eq!(number_of(&files, (from - 1) % 48), (from - 1).to_string());
    assert_eq!(replica.stop(), Some(0));
}
