//! Replicas that come back with an empty disk, of real processes: by `--readmit`, and by `--init` as if they were new.

mod common;

use std::path::Path;

use common::{Files, Replica, directory, one_at_a_time, wait_until};

const KEYS: usize = 100;

fn wipe(files: &Files, id: u8) {
    std::fs::remove_dir_all(files.data(id)).expect("its data directory");
}

fn readmit(files: &Files, id: u8) -> Replica {
    let log = std::fs::File::create(files.log(id)).expect("a file");
    files.start_with(id, false, log, |command| {
        command.arg("--readmit");
    })
}

fn votes(files: &Files, id: u8) -> bool {
    files.counter(id, "voting") == Some(1)
}

fn put_keys(files: &Files) {
    let puts: String = (0..KEYS)
        .map(|key| format!("put k{key} v{key}\n"))
        .collect();
    let put = files.repl(&puts);
    assert_eq!(put.stdout.matches("ok").count(), KEYS, "{}", put.stderr);
}

fn check_keys(files: &Files) {
    let gets: String = (0..KEYS).map(|key| format!("get k{key}\n")).collect();
    let expected: String = (0..KEYS).map(|key| format!("v{key}\n")).collect();
    assert_eq!(files.repl(&gets).stdout, expected);
}

fn log(files: &Files, id: u8) -> String {
    std::fs::read_to_string(Path::new(&files.log(id))).expect("utf-8")
}

#[test]
fn a_wiped_replica_that_is_started_as_if_new_is_refused_and_nothing_is_lost() {
    let _turn = one_at_a_time();
    let directory = directory();
    let files = Files::make(directory.path(), 3);
    let one = files.start(1, true);
    let two = files.start(2, true);
    let three = files.start(3, true);
    wait_until("everybody votes", || (1..=3).all(|id| votes(&files, id)));
    assert_eq!(three.stop(), Some(0));
    put_keys(&files);
    assert_eq!(two.stop(), Some(0));
    wipe(&files, 2);
    let two = files.start(2, true);
    assert_eq!(two.ended(), Some(2));
    let said = log(&files, 2);
    assert!(
        said.contains("replica 1 knows that it took part before"),
        "{said}"
    );
    assert!(said.contains("--readmit"), "{said}");
    // Neither with the others up.
    let three = files.start(3, false);
    wait_until("the values are there", || votes(&files, 3));
    wipe(&files, 2);
    assert_eq!(files.start(2, true).ended(), Some(2));
    // What the message says helps.
    wipe(&files, 2);
    let two = readmit(&files, 2);
    wait_until("it is readmitted", || votes(&files, 2));
    drop(one);
    check_keys(&files);
    drop((two, three));
}

#[test]
fn a_replica_is_readmitted_as_often_as_its_disk_is_lost() {
    let _turn = one_at_a_time();
    let directory = directory();
    let files = Files::make(directory.path(), 3);
    let mut replicas: Vec<Replica> = (1..=3).map(|id| files.start(id, true)).collect();
    wait_until("everybody votes", || (1..=3).all(|id| votes(&files, id)));
    put_keys(&files);
    for _ in 0..3 {
        let last = replicas.pop().expect("three of them");
        assert_eq!(last.stop(), Some(0));
        wipe(&files, 3);
        replicas.push(readmit(&files, 3));
        wait_until("it is readmitted", || votes(&files, 3));
    }
    replicas.remove(0);
    check_keys(&files);
}
