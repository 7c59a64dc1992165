//! Who stops when states differ, who only says so, and what never counts.

use proptest::prelude::*;

use synod_engine::config::Config;
use synod_engine::divergence::{Comparison, Divergence, NOTES_MAX, REPORT_EVERY_NS, Verdict};
use synod_engine::ids::{ReplicaId, Slot, Time};
use synod_engine::message::StateHash;

fn hash(slot: u64, machine: u64) -> StateHash {
    StateHash {
        slot: Slot(slot),
        machine,
        sessions: 7,
    }
}

/// Replica 1 of so many.
fn comparison(replicas: u8) -> Comparison {
    Comparison::new(&Config::new(ReplicaId(1), replicas, 0))
}

fn hear(comparison: &mut Comparison, from: u8, hash: StateHash) -> Result<(), Divergence> {
    comparison.hear(Time(0), ReplicaId(from), hash)
}

fn verdict(comparison: &mut Comparison) -> Option<Verdict> {
    comparison.take_report().map(|report| report.verdict)
}

#[test]
fn the_one_that_a_majority_contradicts_stops_and_the_majority_says_so() {
    let mut wrong = comparison(3);
    assert_eq!(wrong.note(Time(0), hash(8, 1)), Ok(()));
    assert_eq!(hear(&mut wrong, 2, hash(8, 2)), Ok(()));
    let stopped = hear(&mut wrong, 3, hash(8, 2)).expect_err("it is alone");
    assert_eq!(stopped.verdict, Verdict::OwnIsWrong);
    assert_eq!(stopped.slot, Slot(8));
    let said = [(1, 1), (2, 2), (3, 2)].map(|(id, of)| (ReplicaId(id), hash(8, of)));
    assert_eq!(stopped.said, said);

    let mut right = comparison(3);
    assert_eq!(hear(&mut right, 2, hash(8, 1)), Ok(()));
    assert_eq!(hear(&mut right, 3, hash(8, 2)), Ok(()));
    assert_eq!(right.note(Time(0), hash(8, 1)), Ok(()));
    assert_eq!(verdict(&mut right), Some(Verdict::OthersAreWrong));
    assert_eq!((right.counters.equal, right.counters.different), (1, 1));
}

#[test]
fn it_stops_as_well_when_it_comes_to_the_slot_last() {
    let mut wrong = comparison(3);
    assert_eq!(hear(&mut wrong, 2, hash(8, 2)), Ok(()));
    assert_eq!(hear(&mut wrong, 3, hash(8, 2)), Ok(()));
    let stopped = wrong.note(Time(0), hash(8, 1)).expect_err("it is alone");
    assert_eq!(stopped.verdict, Verdict::OwnIsWrong);
}

#[test]
fn a_difference_in_the_sessions_alone_counts() {
    let mut wrong = comparison(3);
    let other = StateHash {
        sessions: 8,
        ..hash(8, 1)
    };
    assert_eq!(wrong.note(Time(0), hash(8, 1)), Ok(()));
    assert_eq!(hear(&mut wrong, 2, other), Ok(()));
    assert!(hear(&mut wrong, 3, other).is_err());
}

#[test]
fn without_a_majority_nobody_stops_and_everybody_says_so() {
    let mut two = comparison(2);
    assert_eq!(two.note(Time(0), hash(8, 1)), Ok(()));
    assert_eq!(hear(&mut two, 2, hash(8, 2)), Ok(()));
    assert_eq!(verdict(&mut two), Some(Verdict::Undecided));

    let mut three = comparison(3);
    assert_eq!(three.note(Time(0), hash(8, 1)), Ok(()));
    assert_eq!(hear(&mut three, 2, hash(8, 2)), Ok(()));
    assert_eq!(hear(&mut three, 3, hash(8, 3)), Ok(()));
    assert_eq!(verdict(&mut three), Some(Verdict::Undecided));
    assert_eq!(three.counters.different, 2);

    // The two who did not say anything may agree with this one.
    let mut five = comparison(5);
    assert_eq!(five.note(Time(0), hash(8, 1)), Ok(()));
    assert_eq!(hear(&mut five, 2, hash(8, 2)), Ok(()));
    assert_eq!(hear(&mut five, 3, hash(8, 2)), Ok(()));
    assert_eq!(verdict(&mut five), Some(Verdict::Undecided));
    assert!(hear(&mut five, 4, hash(8, 2)).is_err());
}

#[test]
fn one_peer_counts_once_whatever_it_repeats_and_strangers_do_not_count() {
    let mut right = comparison(3);
    assert_eq!(right.note(Time(0), hash(8, 1)), Ok(()));
    for machine in [2, 2, 2, 3, 2] {
        for from in [2, 4, 0, 255] {
            assert_eq!(hear(&mut right, from, hash(8, machine)), Ok(()));
        }
    }
    assert_eq!(right.counters.different, 5);
    // Nobody speaks for this replica but itself.
    assert_eq!(hear(&mut right, 1, hash(8, 2)), Ok(()));
    assert_eq!(hear(&mut right, 3, hash(8, 1)), Ok(()));
}

#[test]
fn slots_that_this_replica_was_not_at_are_ignored() {
    let mut late = comparison(3);
    assert_eq!(late.note(Time(0), hash(8, 1)), Ok(()));
    for from in [2, 3] {
        assert_eq!(hear(&mut late, from, hash(4, 2)), Ok(()));
        assert_eq!(hear(&mut late, from, hash(9, 2)), Ok(()));
        assert_eq!(hear(&mut late, from, hash(1 << 40, 2)), Ok(()));
    }
    assert_eq!(late.counters.different, 0);
    assert_eq!(verdict(&mut late), None);
    // One that two others told of before, and all three agree.
    assert_eq!(late.note(Time(0), hash(9, 2)), Ok(()));
    assert_eq!(late.counters.equal, 2);
}

#[test]
fn what_was_noted_before_a_snapshot_took_its_place_is_forgotten() {
    let mut restored = comparison(3);
    assert_eq!(restored.note(Time(0), hash(8, 1)), Ok(()));
    restored.replaced();
    assert_eq!(hear(&mut restored, 2, hash(8, 2)), Ok(()));
    assert_eq!(hear(&mut restored, 3, hash(8, 2)), Ok(()));
    assert_eq!(restored.note(Time(0), hash(16, 5)), Ok(()));
    assert_eq!(hear(&mut restored, 2, hash(16, 5)), Ok(()));
    let counters = restored.counters;
    assert_eq!((counters.equal, counters.different), (1, 0));
}

#[test]
fn a_peer_that_was_restored_means_what_it_says_last() {
    let mut right = comparison(3);
    assert_eq!(right.note(Time(0), hash(8, 1)), Ok(()));
    assert_eq!(hear(&mut right, 2, hash(8, 2)), Ok(()));
    assert_eq!(hear(&mut right, 2, hash(8, 1)), Ok(()));
    assert_eq!(hear(&mut right, 3, hash(8, 2)), Ok(()));
    assert_eq!(verdict(&mut right), Some(Verdict::OthersAreWrong));
}

#[test]
fn the_same_is_reported_once_in_a_while_and_counted_always() {
    let mut right = comparison(3);
    let mut reports = 0;
    let slots = 3 * NOTES_MAX as u64;
    for slot in 1..=slots {
        let now = Time(slot * REPORT_EVERY_NS / 64);
        assert_eq!(right.note(now, hash(slot, 1)), Ok(()));
        assert_eq!(right.hear(now, ReplicaId(3), hash(slot, 1)), Ok(()));
        assert_eq!(right.hear(now, ReplicaId(2), hash(slot, 2)), Ok(()));
        reports += u64::from(right.take_report().is_some());
    }
    assert_eq!(right.counters.different, slots);
    assert_eq!(reports, slots / 64);
}

#[test]
fn so_many_notes_are_kept_and_no_more() {
    let mut flooded = comparison(3);
    for slot in 1..=10_000 {
        assert_eq!(hear(&mut flooded, 2, hash(slot, slot)), Ok(()));
        assert_eq!(flooded.note(Time(0), hash(slot, slot)), Ok(()));
    }
    assert_eq!(flooded.kept(), 2 * NOTES_MAX);
    // A flood of one costs what others said nothing.
    assert_eq!(hear(&mut flooded, 3, hash(10_001, 1)), Ok(()));
    for slot in 20_000..30_000 {
        assert_eq!(hear(&mut flooded, 2, hash(slot, 1)), Ok(()));
    }
    let equal = flooded.counters.equal;
    assert_eq!(flooded.note(Time(0), hash(10_001, 1)), Ok(()));
    assert_eq!(flooded.counters.equal, equal + 1);
}

proptest! {
    /// Every replica hears every other, in any order; some messages get lost. Counted once more by hand: exactly those
    /// stop that a majority of the cluster contradicts, if they heard it.
    #[test]
    fn exactly_those_stop_that_a_majority_contradicts(
        states in proptest::collection::vec(0u64..3, 1..8),
        order in any::<u64>(),
        lost in proptest::collection::vec(any::<bool>(), 8),
    ) {
        let replicas = states.len();
        let mut one = comparison(replicas as u8);
        let mut heard: Vec<usize> = (0..replicas).filter(|id| *id == 0 || !lost[*id]).collect();
        let first = (order as usize) % heard.len();
        heard.rotate_left(first);
        let mut outcome = Ok(());
        for id in &heard {
            let said = hash(8, states[*id]);
            let now = match *id {
                0 => one.note(Time(0), said),
                _ => hear(&mut one, *id as u8 + 1, said),
            };
            outcome = outcome.and(now);
        }
        let majority_against = (0..3).any(|state| {
            let agree = heard.iter().filter(|id| states[**id] == state).count();
            state != states[0] && agree > replicas / 2
        });
        prop_assert_eq!(outcome.is_err(), majority_against);
        let different = heard.iter().filter(|id| states[**id] != states[0]).count();
        if !majority_against {
            prop_assert_eq!(one.counters.different, different as u64);
            prop_assert_eq!(one.take_report().is_some(), different > 0);
        }
    }
}
