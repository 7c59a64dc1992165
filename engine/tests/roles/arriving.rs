//! The first start of a replica, and one that only looks like it because its disk was emptied.

use synod_engine::ids::{Ballot, Incarnation, ReplicaId, Slot, Time};
use synod_engine::members::Readmission;
use synod_engine::message::{HeartbeatRole, Known, Message, Record, Value};

use super::ballot;
use super::one::{ME, One, chosen, config, heartbeat, leading, prepare, set, value};

const LEADERS: Ballot = Ballot {
    round: 1,
    replica: ReplicaId(3),
};
/// By which the disk knows that it has a vote.
const VOTE: Record = Record::Promised {
    ballot: Ballot {
        round: 0,
        replica: ME,
    },
};

fn arriving(replicas: u8) -> One {
    let mut one = One::new(config(replicas));
    one.replica.arrive(Time(0));
    one.tick();
    assert_eq!(one.role(), HeartbeatRole::Founding);
    one
}

fn known(took_part: bool, commit_index: u64) -> Message {
    Message::Known(Known {
        took_part,
        commit_index: Slot(commit_index),
    })
}

fn has_a_vote(one: &mut One) -> bool {
    let asked = prepare(ballot(9, 3));
    let answers = !one.hear(3, asked).is_empty();
    assert_eq!(answers, one.replica.may_promise());
    answers
}

#[test]
fn a_newcomer_votes_once_everybody_answered_that_nobody_knows_it() {
    let mut one = arriving(3);
    assert!(!has_a_vote(&mut one));
    one.hear(2, known(false, 0));
    one.hear(2, known(false, 0));
    assert!(!has_a_vote(&mut one));
    one.hear(3, known(false, 0));
    assert_eq!(one.records, [VOTE]);
    one.tick();
    assert_eq!(one.role(), HeartbeatRole::Searching);
    assert!(has_a_vote(&mut one));
}

#[test]
fn where_nothing_is_chosen_a_quorum_need_not_wait_for_the_others() {
    let mut one = arriving(3);
    one.hear(2, known(false, 0));
    one.at(299).tick();
    assert!(!has_a_vote(&mut one));
    one.at(300).tick();
    assert!(has_a_vote(&mut one));
    // But a quorum it takes.
    let mut one = arriving(5);
    one.hear(2, known(false, 0));
    one.at(60_000).tick();
    assert!(!has_a_vote(&mut one));
    one.hear(3, known(false, 0));
    assert!(has_a_vote(&mut one));
}

#[test]
fn where_something_is_chosen_it_needs_somebody_of_each_quorum_and_what_they_hold() {
    let mut one = arriving(3);
    one.hear(2, known(false, 2));
    one.at(60_000).tick();
    assert!(!has_a_vote(&mut one));
    one.hear(3, known(false, 1));
    assert!(!has_a_vote(&mut one));
    // It learns like anybody else, but acknowledges nothing.
    one.hear(3, leading(LEADERS, 2));
    one.hear(3, chosen(1, &["a", "b"]));
    assert!(one.records.contains(&VOTE));
    assert!(has_a_vote(&mut one));
    // Of five, three others are in every quorum of three that it may have been part of.
    let mut one = arriving(5);
    for (peer, has) in [(2, false), (3, false), (4, true)] {
        one.hear(peer, known(false, 0));
        one.hear(peer, known(false, 7));
        assert_eq!(one.replica.may_promise(), has, "{peer}");
    }
}

#[test]
fn one_that_is_known_never_votes_and_says_who_knows_it() {
    let mut one = arriving(3);
    one.hear(2, known(false, 0));
    assert_eq!(one.replica.disowned_by(), None);
    one.hear(3, known(true, 0));
    one.hear(3, known(false, 0));
    assert_eq!(one.replica.disowned_by(), Some(ReplicaId(3)));
    one.at(60_000).tick();
    assert!(!has_a_vote(&mut one));
    assert_eq!(one.records, []);
}

#[test]
fn nobody_hears_of_a_vote_before_the_disk_knows_of_it() {
    let mut one = arriving(3);
    one.disk_hangs = true;
    one.hear(2, known(false, 0));
    one.hear(3, known(false, 0));
    one.at(100).tick();
    assert_eq!(
        (one.records.len(), one.role()),
        (1, HeartbeatRole::Founding)
    );
    assert!(!one.replica.may_promise());
    one.disk_hangs = false;
    one.disk();
    assert!(has_a_vote(&mut one));
}

#[test]
fn only_a_founding_member_without_a_promise_that_is_not_alone_asks() {
    let arrives = |replicas, incarnation, replayed: &[Record]| {
        let incarnation = Incarnation(incarnation);
        let mut one = One::restarted(config(replicas), incarnation, |replay, out| {
            for record in replayed {
                replay.record(record.clone(), out);
            }
        });
        one.replica.arrive(Time(0));
        one.tick();
        one.told
            .is_some_and(|told| told.role == HeartbeatRole::Founding)
    };
    assert!(arrives(3, 0, &[]));
    assert!(!arrives(1, 0, &[]));
    assert!(!arrives(3, 7, &[]));
    assert!(!arrives(3, 0, &[VOTE]));
    // What it only fetched gives it no vote: it may have died before it had one.
    let fetched = Record::Chosen {
        slot: Slot(1),
        value: value("a"),
    };
    assert!(arrives(3, 0, &[fetched]));
}

fn ask(one: &mut One, from: u8) -> (bool, u64) {
    let sent = one.hear(from, heartbeat(Ballot::ZERO, HeartbeatRole::Founding, 0));
    let [outgoing] = &sent[..] else {
        panic!("one answer, not {sent:?}");
    };
    let Message::Known(known) = outgoing.message else {
        panic!("an answer, not {sent:?}");
    };
    assert_eq!(outgoing.to, set(&[from]));
    (known.took_part, known.commit_index.0)
}

#[test]
fn a_peer_knows_whom_it_heard_with_a_vote() {
    let mut one = One::new(config(3));
    assert_eq!(ask(&mut one, 2), (false, 0));
    // Questions tell of no vote.
    assert_eq!(ask(&mut one, 2), (false, 0));
    one.at(30).tick();
    assert_eq!(one.told.as_ref().map(|told| told.hears), Some(set(&[1])));
    one.hear(2, heartbeat(Ballot::ZERO, HeartbeatRole::Searching, 0));
    assert_eq!(ask(&mut one, 2), (true, 0));
    assert_eq!(ask(&mut one, 3), (false, 0));
    assert_eq!(one.count("newcomers_refused"), 1);
}

#[test]
fn a_peer_knows_who_took_part_from_its_own_disk() {
    let restarted = |replicas, replayed: Vec<Record>| {
        One::restarted(config(replicas), Incarnation::FOUNDING, |replay, out| {
            for record in replayed {
                replay.record(record, out);
            }
        })
    };
    let learnt = |value: Value| Record::Chosen {
        slot: Slot(1),
        value,
    };
    // Something is chosen, by whomever.
    let mut one = restarted(3, vec![learnt(value("a"))]);
    assert_eq!(
        (ask(&mut one, 2), ask(&mut one, 3)),
        ((false, 1), (false, 1))
    );
    // By everybody.
    let mut one = restarted(2, vec![learnt(value("a"))]);
    assert_eq!(ask(&mut one, 2), (true, 1));
    // Readmitted.
    let readmission = Readmission {
        replica: ReplicaId(2),
        incarnation: Incarnation(5),
    };
    let mut one = restarted(3, vec![learnt(readmission.encode())]);
    assert_eq!(
        (ask(&mut one, 2), ask(&mut one, 3)),
        ((true, 1), (false, 1))
    );
    // Stood, or led.
    let mut one = restarted(3, vec![Record::Promised { ballot: LEADERS }]);
    assert_eq!(
        (ask(&mut one, 2), ask(&mut one, 3)),
        ((false, 0), (true, 0))
    );
}
