//! Golden traces of the core: scripts of events, and everything the replicas answer.
//!
//! Each file under `golden/` is a list of `> command` lines, each followed by what it printed. After an intended
//! change, `SYNOD_UPDATE_GOLDEN=1 cargo test -p synod-engine --test golden` rewrites them, to be read in review.

mod script;

use std::path::Path;

fn check(name: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    let file = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    let actual = script::replay(&file);
    if std::env::var_os("SYNOD_UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, actual).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        return;
    }
    for (number, (wanted, got)) in file.lines().zip(actual.lines()).enumerate() {
        assert_eq!(got, wanted, "{name}, line {}", number + 1);
    }
    assert_eq!(
        actual.lines().count(),
        file.lines().count(),
        "{name}: the trace has another length; it is now:\n{actual}"
    );
}

#[test]
fn normal_case() {
    check("normal.txt");
}

#[test]
fn leader_change_recovers_the_highest_ballot_and_closes_gaps() {
    check("leader_change.txt");
}

#[test]
fn two_candidates_duel_and_one_wins() {
    check("duel.txt");
}

#[test]
fn lost_and_repeated_messages_change_nothing() {
    check("lost_and_repeated.txt");
}

#[test]
fn a_replica_that_lags_catches_up() {
    check("catch_up.txt");
}

#[test]
fn replies_wait_for_the_disk_and_are_fenced_by_ballot() {
    check("durable_before_reply.txt");
}

#[test]
fn a_candidate_below_the_trim_floor_does_not_lead() {
    check("trim_floor.txt");
}

#[test]
fn the_wal_is_trimmed_behind_durable_snapshots_only() {
    check("trim.txt");
}

#[test]
fn a_replica_below_the_floor_is_brought_back_by_a_snapshot() {
    check("catch_up_by_snapshot.txt");
}

#[test]
fn a_hole_in_the_wal_is_filled_before_the_replica_promises() {
    check("hole.txt");
}

#[test]
fn a_replica_without_its_disk_is_readmitted_through_the_log() {
    check("readmission.txt");
}

#[test]
fn the_window_lets_batches_grow() {
    check("window.txt");
}
