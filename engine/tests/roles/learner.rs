//! The learner: what is known to be chosen, and since when it is behind.

use synod_engine::ids::{Ballot, Slot, Time};
use synod_engine::learner::Learner;

use super::ballot;

const PATIENCE_NS: u64 = 100;

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
    assert_eq!(learner.impatient_at(PATIENCE_NS), None);
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
    assert_eq!(learner.impatient_at(PATIENCE_NS), None);
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
fn it_gets_impatient_when_what_is_missing_does_not_come() {
    let learner = behind();
    assert_eq!(learner.impatient_at(PATIENCE_NS), Some(Time(110)));
    assert!(!learner.is_impatient(Time(109), PATIENCE_NS));
    assert!(learner.is_impatient(Time(110), PATIENCE_NS));
    let mut content = Learner::new();
    content.hear(Time(0), Slot(3), Slot(3));
    assert_eq!(content.impatient_at(0), None);
    assert!(!content.is_impatient(Time(1_000), 0));
}

#[test]
fn what_nobody_holds_who_is_heard_is_not_waited_for() {
    let mut learner = behind();
    learner.lower(Slot(9), Slot(3));
    assert_eq!(learner.known(), Slot(5));
    learner.lower(Slot(4), Slot(3));
    assert_eq!(
        (learner.known(), learner.behind_ns(Time(30))),
        (Slot(4), 20)
    );
    learner.lower(Slot(1), Slot(3));
    assert_eq!((learner.known(), learner.behind_ns(Time(30))), (Slot(3), 0));
    learner.hear(Time(40), Slot(4), Slot(3));
    assert_eq!(learner.behind_ns(Time(50)), 10);
}
