//! A candidate: whose promises count, and what it may conclude from them.

use synod_engine::candidate::{Candidate, Phase1};
use synod_engine::config::Config;
use synod_engine::ids::{Incarnation, ReplicaId, ReplicaSet, Slot, Time};
use synod_engine::members::{Members, Readmission};
use synod_engine::message::{AcceptedValue, Promise, Value};
use synod_engine::quorum::Quorums;

use super::ballot;

fn promise(commit_index: u64, trim_floor: u64) -> Promise {
    Promise {
        ballot: ballot(9, 1),
        incarnation: Incarnation::FOUNDING,
        commit_index: Slot(commit_index),
        trim_floor: Slot(trim_floor),
        accepted: Vec::new(),
    }
}

/// A candidate that has its own promise and one of replica 2.
fn with_promises(own: u64, other: Promise) -> Candidate {
    let mut candidate = Candidate::new(ballot(9, 1), Time(0));
    candidate.on_promise(ReplicaId(1), promise(own, 1));
    candidate.on_promise(ReplicaId(2), other);
    candidate
}

fn progress(candidate: &Candidate, commit_index: u64) -> Phase1 {
    let members = Members::default();
    candidate.progress(Quorums::majority(3), &members, Slot(commit_index))
}

#[test]
fn it_waits_for_its_own_disk_first_and_asks_again_later() {
    let timers = Config::new(ReplicaId(1), 3, 0).timers;
    let mut candidate = Candidate::new(ballot(9, 1), Time(5));
    assert_eq!(
        candidate.deadline(&timers),
        Time(5).plus(timers.disk_stall_ns)
    );
    candidate.announced = true;
    candidate.ask_at = Time(77);
    assert_eq!(candidate.deadline(&timers), Time(77));
}

#[test]
fn what_others_hold_as_chosen_has_to_be_fetched_first() {
    let behind = |through| Phase1::Behind {
        through: Slot(through),
    };
    let candidate = with_promises(4, promise(6, 1));
    assert_eq!(progress(&candidate, 4), behind(6));
    assert_eq!(progress(&candidate, 5), behind(6));
    assert_eq!(progress(&candidate, 6), Phase1::Recovered(Vec::new()));
    assert_eq!(progress(&candidate, 7), Phase1::Recovered(Vec::new()));
}

#[test]
fn trap_7_only_slots_at_or_above_the_trim_floor_can_be_fetched() {
    for (floor, fetchable) in [(1, true), (4, true), (5, true), (6, false), (7, false)] {
        let wanted = if fetchable {
            Phase1::Behind { through: Slot(9) }
        } else {
            Phase1::BelowTrimFloor
        };
        let candidate = with_promises(4, promise(9, floor));
        assert_eq!(progress(&candidate, 4), wanted, "floor {floor}");
        // Whoever holds everything needs nothing from below the floor.
        assert_eq!(progress(&candidate, 9), Phase1::Recovered(Vec::new()));
    }
}

#[test]
fn it_proposes_again_only_what_is_above_its_commit_index() {
    let mut other = promise(2, 1);
    for slot in 3..=6 {
        other.accepted.push(AcceptedValue {
            slot: Slot(slot),
            ballot: ballot(1, 2),
            value: Value::from(format!("{slot}")),
        });
    }
    let candidate = with_promises(4, other);
    let values = vec![Value::from("5"), Value::from("6")];
    assert_eq!(progress(&candidate, 4), Phase1::Recovered(values));
}

#[test]
fn it_knows_how_far_each_one_that_counts_holds_what_is_chosen() {
    let members = Members::default();
    let mut candidate = with_promises(4, promise(6, 1));
    // The promise of a life that is over: replica 3 has not lost its disk as far as anyone knows.
    let other_life = Promise {
        incarnation: Incarnation(8),
        ..promise(7, 1)
    };
    candidate.on_promise(ReplicaId(3), other_life);
    // A repeated one changes nothing, even if it says something else.
    candidate.on_promise(ReplicaId(2), promise(9, 1));
    let known: Vec<_> = candidate.commit_indexes(&members).collect();
    assert_eq!(known, [(ReplicaId(1), Slot(4)), (ReplicaId(2), Slot(6))]);
    assert_eq!(candidate.promised(&members), ReplicaSet::first(2));
    // In its present life it counts, whatever came before.
    candidate.on_promise(ReplicaId(3), promise(8, 1));
    assert_eq!(candidate.promised(&members), ReplicaSet::first(3));
    assert_eq!(
        candidate.commit_indexes(&members).last(),
        Some((ReplicaId(3), Slot(8)))
    );
}

#[test]
fn a_readmission_voids_the_earlier_promise_of_that_replica_only() {
    let readmission = Readmission {
        replica: ReplicaId(3),
        incarnation: Incarnation(5),
    };
    let mut own = promise(0, 1);
    own.accepted.push(AcceptedValue {
        slot: Slot(1),
        ballot: ballot(1, 2),
        value: readmission.encode(),
    });
    let mut candidate = Candidate::new(ballot(9, 1), Time(0));
    candidate.on_promise(ReplicaId(1), own);
    candidate.on_promise(ReplicaId(2), promise(0, 1));
    candidate.on_promise(ReplicaId(3), promise(0, 1));
    let members = Members::default();
    assert_eq!(candidate.promised(&members), ReplicaSet::first(2));
    let values = vec![readmission.encode()];
    assert_eq!(progress(&candidate, 0), Phase1::Recovered(values));
}

#[test]
#[should_panic(expected = "another ballot")]
fn a_promise_for_another_ballot_is_none() {
    let other = Promise {
        ballot: ballot(8, 1),
        ..promise(0, 1)
    };
    with_promises(0, other);
}
