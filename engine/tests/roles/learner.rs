//! The learner: since when it is behind, and when it asks whom.

use synod_engine::ids::{Ballot, ReplicaId, Slot, Time};
use synod_engine::learner::Learner;

use super::ballot;

const PATIENCE_NS: u64 = 100;
const RETRY_NS: u64 = 40;

/// Behind since 10: slot 5 is chosen, slot 3 is held.
fn behind() -> Learner {
    let mut learner = Learner::new();
    learner.hear(Time(10), Slot(5), Slot(3));
    learner
}

#[test]
fn it_is_behind_from_the_first_word_of_what_it_lacks() {
    let mut learner = Learner::new();
    assert_eq!(learner.known(), Slot::ZERO);
    learner.hear(Time(5), Slot(3), Slot(3));
    assert_eq!(learner.known(), Slot(3));
    assert_eq!(learner.behind_ns(Time(50)), 0);
    assert_eq!(learner.deadline(PATIENCE_NS), None);
    learner.hear(Time(10), Slot(5), Slot(3));
    learner.hear(Time(20), Slot(6), Slot(3));
    learner.hear(Time(30), Slot(4), Slot(3));
    assert_eq!(learner.known(), Slot(6));
    assert_eq!(learner.behind_ns(Time(50)), 40);
}

#[test]
fn progress_restarts_the_clock_and_the_end_stops_it() {
    let mut learner = behind();
    learner.progressed(Time(30), Slot(4));
    assert_eq!(learner.behind_ns(Time(50)), 20);
    learner.progressed(Time(60), Slot(5));
    assert_eq!(learner.behind_ns(Time(90)), 0);
    assert_eq!(learner.deadline(PATIENCE_NS), None);
    learner.progressed(Time(60), Slot(6));
    assert_eq!(learner.behind_ns(Time(90)), 0);
}

#[test]
fn of_the_leaders_the_highest_ballot_counts_and_never_goes_back() {
    let mut learner = Learner::new();
    assert_eq!(learner.by_leader(), (Ballot::ZERO, Slot::ZERO));
    let mut hear = |ballot, commit_index| {
        learner.hear_leader(Time(0), ballot, Slot(commit_index), Slot::ZERO);
        (learner.by_leader(), learner.known())
    };
    let (old, new) = (ballot(1, 2), ballot(2, 1));
    assert_eq!(hear(old, 4), ((old, Slot(4)), Slot(4)));
    assert_eq!(hear(old, 3), ((old, Slot(4)), Slot(4)));
    assert_eq!(hear(old, 6), ((old, Slot(6)), Slot(6)));
    // What the new one says is less: what was accepted at its ballot is chosen no further.
    assert_eq!(hear(new, 2), ((new, Slot(2)), Slot(6)));
    assert_eq!(hear(old, 9), ((new, Slot(2)), Slot(9)));
    assert_eq!(hear(new, 3), ((new, Slot(3)), Slot(9)));
    assert_eq!(learner.behind_ns(Time(7)), 7);
}

#[test]
fn it_asks_once_its_patience_is_over_and_again_when_no_answer_comes() {
    let mut learner = behind();
    let asks = |learner: &Learner, at| learner.should_fetch(Time(at), PATIENCE_NS);
    assert_eq!(learner.deadline(PATIENCE_NS), Some(Time(110)));
    assert!(!asks(&learner, 109));
    assert!(asks(&learner, 110));
    assert_eq!(learner.gave_no_answer(Time(110)), None);
    learner.fetch_sent(Time(110), ReplicaId(2), RETRY_NS);
    assert_eq!(learner.deadline(PATIENCE_NS), Some(Time(150)));
    assert!(!asks(&learner, 149));
    assert_eq!(learner.gave_no_answer(Time(149)), None);
    assert!(asks(&learner, 150));
    assert_eq!(learner.gave_no_answer(Time(150)), Some(ReplicaId(2)));
    // A question asked early does not make it less patient.
    learner.fetch_sent(Time(20), ReplicaId(2), RETRY_NS);
    assert_eq!(learner.deadline(PATIENCE_NS), Some(Time(110)));
}

#[test]
fn an_answer_counts_once() {
    let mut learner = behind();
    assert!(!learner.fetch_answered());
    learner.fetch_sent(Time(110), ReplicaId(2), RETRY_NS);
    assert!(learner.fetch_answered());
    assert!(!learner.fetch_answered());
    assert!(learner.should_fetch(Time(111), PATIENCE_NS));
    assert_eq!(learner.gave_no_answer(Time(500)), None);
}

#[test]
fn who_lacks_nothing_asks_nobody() {
    let mut learner = Learner::new();
    learner.hear(Time(0), Slot(3), Slot(3));
    assert!(!learner.should_fetch(Time(1_000), 0));
}
