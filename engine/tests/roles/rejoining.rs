//! The way back of a replica that lost some records, or its whole disk.

use synod_engine::ids::{Ballot, Incarnation, ReplicaId, ReplicaSet, Slot};
use synod_engine::members::Readmission;
use synod_engine::message::{Accept, HeartbeatRole, Message, Record, Value};
use synod_engine::output::{Output, ReadForPeer};
use synod_engine::persist::OWED_BYTES_MAX;
use synod_engine::replica::{Input, Replay};

use super::ballot;
use super::one::{
    ME, One, accept, accepted, chosen, config, fetch, heartbeat, leading, prepare, promise,
    request, set, to, value,
};

const OLD: Ballot = Ballot {
    round: 1,
    replica: ReplicaId(2),
};
const NEW: Ballot = Ballot {
    round: 2,
    replica: ReplicaId(3),
};

fn learn(replay: &mut Replay, out: &mut Output, slot: u64, value: Value) {
    let slot = Slot(slot);
    replay.record(Record::Chosen { slot, value }, out);
}

fn accept_record(
    replay: &mut Replay,
    out: &mut Output,
    slot: u64,
    commit: u64,
    text: &'static str,
) {
    let accept = Accept {
        ballot: OLD,
        slot: Slot(slot),
        commit_index: Slot(commit),
        value: value(text),
    };
    replay.record(Record::Accepted(accept), out);
}

fn readmission(replica: u8, incarnation: u64) -> Readmission {
    Readmission {
        replica: ReplicaId(replica),
        incarnation: Incarnation(incarnation),
    }
}

/// Replica 1 of three as `own`, whose log readmits it as `readmitted`.
pub(super) fn of_incarnation(own: u64, readmitted: Option<u64>, promised: Ballot) -> One {
    One::restarted(config(3), Incarnation(own), |replay, out| {
        learn(replay, out, 1, value("a"));
        learn(replay, out, 2, value("b"));
        if let Some(readmitted) = readmitted {
            learn(replay, out, 3, readmission(1, readmitted).encode());
        }
        replay.promise(promised);
    })
}

#[test]
fn only_the_life_that_the_log_knows_takes_part_and_only_with_a_ballot() {
    for (own, readmitted, promised, admitted, superseded) in [
        (0, None, Ballot::ZERO, true, false),
        (0, None, OLD, true, false),
        (5, None, Ballot::ZERO, false, false),
        (5, Some(5), Ballot::ZERO, false, false),
        (5, Some(5), OLD, true, false),
        // Only the log says which is later, whatever the numbers are.
        (7, Some(5), Ballot::ZERO, false, false),
        (5, Some(7), Ballot::ZERO, false, false),
        (7, Some(5), OLD, false, true),
        (5, Some(7), OLD, false, true),
        (0, Some(6), Ballot::ZERO, false, true),
        (0, Some(6), OLD, false, true),
    ] {
        let mut one = of_incarnation(own, readmitted, promised);
        let case = format!("{own} {readmitted:?} {promised}");
        assert_eq!(one.replica.may_promise(), admitted, "{case}");
        assert_eq!(one.replica.superseded(), superseded, "{case}");
        assert_eq!(one.replica.incarnation(), Incarnation(own), "{case}");
        one.tick();
        // A remnant asks for nothing: zero is what no leader readmits.
        let asks_as = Incarnation(if superseded { 0 } else { own });
        let asks = HeartbeatRole::Readmitting {
            incarnation: asks_as,
        };
        assert_eq!(one.role() == asks, !admitted, "{case}");
        // Without a vote it answers nothing, and does not stand either.
        let answers = one.hear(3, prepare(NEW));
        assert_eq!(!answers.is_empty(), admitted, "{case}");
        assert_eq!(one.count("votes_withheld"), u64::from(!admitted), "{case}");
        one.at(1_000).hear_all();
        one.tick();
        assert_eq!(one.count("elections"), u64::from(admitted), "{case}");
    }
}

#[test]
fn without_a_vote_it_accepts_nothing_but_hears_what_is_chosen() {
    let mut one = One::restarted(config(3), Incarnation(5), |_, _| {});
    for _ in 0..2 {
        assert_eq!(one.hear(2, accept(OLD, 1, 4, value("a"))), []);
    }
    assert_eq!(one.count("votes_withheld"), 2);
    assert_eq!(
        (one.records.len(), one.replica.promised()),
        (0, Ballot::ZERO)
    );
    one.at(200)
        .hear(2, heartbeat(OLD, HeartbeatRole::Following, 4));
    assert_eq!(one.tick(), [to(&[2], fetch(1, 4))]);
}

#[test]
fn it_takes_part_from_the_word_of_a_leader_that_its_readmission_is_chosen() {
    let mut one = of_incarnation(7, Some(7), Ballot::ZERO);
    one.hear(3, leading(NEW, 2));
    assert!(!one.replica.may_promise());
    one.hear(3, leading(NEW, 3));
    assert!(one.replica.may_promise());
    let records = [Record::Promised { ballot: NEW }];
    assert_eq!(one.records, records);
    assert_eq!(one.replica.promised(), NEW);
    // That was it: the next leader's ballot is promised when it is asked for.
    one.hear(2, leading(ballot(5, 2), 3));
    assert_eq!(one.records, records);
}

#[test]
fn nobody_else_starts_with_a_leaders_ballot() {
    for (own, readmitted) in [(0, None), (7, None), (7, Some(8)), (0, Some(8))] {
        let mut one = of_incarnation(own, readmitted, Ballot::ZERO);
        one.hear(3, leading(NEW, 3));
        assert_eq!(one.records, [], "{own} {readmitted:?}");
        assert_eq!(one.replica.promised(), Ballot::ZERO);
    }
}

/// Of replica 3 or another, which holds every slot up to `held`.
fn readmitting_at(incarnation: u64, held: u64) -> Message {
    let incarnation = Incarnation(incarnation);
    heartbeat(
        Ballot::ZERO,
        HeartbeatRole::Readmitting { incarnation },
        held,
    )
}

fn readmitting(incarnation: u64) -> Message {
    readmitting_at(incarnation, 0)
}

#[test]
fn a_readmission_under_the_number_of_a_clock_of_2099_locks_nobody_out() {
    let (mut one, own) = One::established(config(3));
    let microseconds_in_2099 = 4_070_908_800_000_000;
    for (index, incarnation) in [microseconds_in_2099, 5, u64::MAX, 1]
        .into_iter()
        .enumerate()
    {
        let slot = index as u64 + 2;
        let value = readmission(3, incarnation).encode();
        assert_eq!(
            one.hear(3, readmitting_at(incarnation, slot - 1)),
            [to(&[2], accept(own, slot, slot - 1, value))]
        );
        one.hear(2, accepted(own, slot));
    }
    assert_eq!(one.count("readmissions_proposed"), 4);
}

#[test]
fn a_late_question_of_a_former_life_readmits_nobody() {
    let (mut one, own) = One::established(config(3));
    assert_eq!(one.hear(3, readmitting(9)).len(), 1);
    // Not while another one is open.
    assert_eq!(one.hear(3, readmitting(7)), []);
    one.hear(2, accepted(own, 2));
    // Not without the slot that readmitted the present life.
    assert_eq!(one.hear(3, readmitting_at(7, 1)), []);
    assert_eq!(one.hear(3, readmitting_at(9, 2)), []);
    // A new disk gets that slot first, and then asks again.
    assert_eq!(one.hear(3, readmitting_at(7, 2)).len(), 1);
    // Meanwhile others may be readmitted.
    assert_eq!(one.hear(2, readmitting(7)).len(), 1);
}

#[test]
fn one_that_has_to_get_back_to_its_own_readmission_is_not_superseded() {
    let lost_slot_3 = |own| {
        One::restarted(config(3), Incarnation(own), |replay, out| {
            learn(replay, out, 1, value("a"));
            learn(replay, out, 2, readmission(1, 5).encode());
            replay.promise(OLD);
            replay.hole(Slot(3));
        })
    };
    let mut one = lost_slot_3(7);
    assert!(!one.replica.superseded());
    one.tick();
    let incarnation = Incarnation::FOUNDING;
    assert_eq!(one.role(), HeartbeatRole::Readmitting { incarnation });
    // A founding member comes before any readmission.
    assert!(lost_slot_3(0).replica.superseded());
}

#[test]
fn a_leader_proposes_a_readmission_once() {
    let (mut one, own) = One::established(config(3));
    // Nothing was lost by a founding member.
    assert_eq!(one.hear(3, readmitting(0)), []);
    let proposed = one.hear(3, readmitting(7));
    let value = readmission(3, 7).encode();
    assert_eq!(proposed, [to(&[2], accept(own, 2, 1, value))]);
    assert_eq!(one.hear(3, readmitting(7)), []);
    one.hear(2, accepted(own, 2));
    // Nor once it is chosen.
    assert_eq!(one.hear(3, readmitting_at(7, 2)), []);
    assert_eq!(one.count("readmissions_proposed"), 1);
    one.hear(3, readmitting_at(8, 2));
    assert_eq!(one.count("readmissions_proposed"), 2);
    // Such a replica is no link that anyone could rely on.
    one.at(250)
        .hear(2, heartbeat(own, HeartbeatRole::Following, 2));
    one.at(310).hear(3, readmitting(8));
    let hears = one.told.as_ref().map(|told| told.hears);
    assert_eq!(hears, Some(set(&[1, 2])));
}

#[test]
fn who_does_not_serve_readmits_nobody() {
    let (mut one, own) = One::elected(config(3));
    assert_eq!(one.hear(3, readmitting(7)), []);
    one.hear(2, accepted(own, 1));
    assert_eq!(one.hear(3, readmitting(7)).len(), 1);
    let mut follower = One::new(config(3));
    assert_eq!(follower.hear(3, readmitting(7)), []);
}

#[test]
fn a_readmission_waits_for_room_like_any_proposal() {
    let (mut one, own) = One::established(config(3));
    // The window holds two slots.
    one.step(Input::Request(request(10)));
    one.step(Input::Request(request(10)));
    assert_eq!(one.hear(3, readmitting(7)), []);
    one.hear(2, accepted(own, 2));
    assert_eq!(one.hear(3, readmitting(7)).len(), 1);
}

#[test]
fn a_readmission_waits_for_the_disk_like_any_proposal() {
    let mut config = config(5);
    config.timers.disk_stall_ns = u64::MAX;
    let mut one = One::new(config);
    let own = one.stand();
    for peer in [2, 3] {
        one.hear(peer, promise(own, 0, &[]));
    }
    let acknowledge = |one: &mut One| {
        let proposed = one.count("proposals");
        for peer in [2, 3, 4] {
            one.hear(peer, accepted(own, proposed));
        }
    };
    acknowledge(&mut one);
    one.disk_hangs = true;
    for _ in 0..OWED_BYTES_MAX / (512 << 10) {
        one.step(Input::Request(request(512 << 10)));
        acknowledge(&mut one);
    }
    assert_eq!(one.hear(5, readmitting(7)), []);
    one.disk();
    assert_eq!(one.hear(5, readmitting(7)).len(), 1);
}

#[test]
fn the_last_replica_of_the_largest_cluster_can_be_readmitted() {
    let mut members = synod_engine::members::Members::default();
    members.note(Slot(4), &readmission(15, 9).encode());
    assert_eq!(members.incarnation(ReplicaId(15)), Incarnation(9));
    assert_eq!(members.since(ReplicaId(15)), Slot(4));
}

/// Restarted with slot 1 applied, the record of slot 2 lost, those of 3 and 4 at hand, and 5 accepted and open.
pub(super) fn with_a_hole() -> One {
    One::restarted(config(3), Incarnation::FOUNDING, |replay, out| {
        learn(replay, out, 1, value("a"));
        replay.promise(OLD);
        replay.hole(Slot(2));
        accept_record(replay, out, 3, 1, "c");
        learn(replay, out, 4, value("d"));
        accept_record(replay, out, 5, 4, "e");
    })
}

fn read(from: u64, through: u64) -> ReadForPeer {
    ReadForPeer {
        to: ME,
        from: Slot(from),
        through: Slot(through),
    }
}

fn recall(one: &mut One, from: u64, texts: &[&'static str]) {
    let values = texts.iter().map(|text| value(text)).collect();
    let from = Slot(from);
    one.step(Input::Recalled { from, values });
}

/// Fetches the slot that is missing, so that the rest is at hand.
fn fetch_the_missing_slot(one: &mut One) {
    one.hear(2, leading(OLD, 4));
    assert_eq!(one.at(200).tick(), [to(&[2], fetch(2, 2))]);
    one.hear(2, chosen(2, &["b"]));
}

#[test]
fn what_is_missing_is_fetched_and_the_rest_read_back() {
    let mut one = with_a_hole();
    assert_eq!(one.chosen, [(Slot(1), value("a"))]);
    assert_eq!(
        (one.replica.slots_missing(), one.count("slots_missing")),
        (1, 1)
    );
    assert_eq!((one.replica.may_promise(), one.count("voting")), (false, 0));
    fetch_the_missing_slot(&mut one);
    assert_eq!(one.reads, [read(3, 4)]);
    // One question at a time.
    one.at(600).tick();
    assert_eq!(one.reads.len(), 1);
    assert!(!one.replica.may_promise());
    recall(&mut one, 3, &["c", "d"]);
    let values: Vec<_> = ["a", "b", "c", "d"].map(value).into();
    let applied: Vec<_> = one.chosen.iter().map(|(_, value)| value.clone()).collect();
    assert_eq!(applied, values);
    assert_eq!(
        (one.count("slots_recalled"), one.count("slots_unreadable")),
        (2, 0)
    );
    // What was read back is durable where it stands; only what was fetched is written.
    let written = Record::Chosen {
        slot: Slot(2),
        value: value("b"),
    };
    assert_eq!(one.records, [written]);
    // It votes again, and tells what it accepted.
    assert!(one.replica.may_promise());
    let tells = [to(&[3], promise(NEW, 4, &[(5, OLD, "e")]))];
    assert_eq!(one.hear(3, prepare(NEW)), tells);
}

#[test]
fn what_turns_out_to_be_unreadable_is_fetched_as_well() {
    let mut one = with_a_hole();
    fetch_the_missing_slot(&mut one);
    recall(&mut one, 3, &[]);
    assert_eq!(one.count("slots_unreadable"), 1);
    one.at(400).hear(2, leading(OLD, 4));
    assert_eq!(one.tick(), [to(&[2], fetch(3, 3))]);
    one.hear(2, chosen(3, &["c"]));
    assert_eq!(one.reads, [read(3, 4), read(4, 4)]);
    recall(&mut one, 4, &["d"]);
    assert!(one.replica.may_promise());
    assert_eq!(
        (one.count("slots_recalled"), one.replica.commit_index()),
        (1, Slot(4))
    );
}

#[test]
fn a_part_that_was_read_back_is_followed_by_the_next() {
    let mut one = with_a_hole();
    fetch_the_missing_slot(&mut one);
    recall(&mut one, 3, &["c"]);
    assert_eq!(one.reads, [read(3, 4), read(4, 4)]);
    // More than was asked for: what is not known to be chosen is not taken for chosen.
    recall(&mut one, 4, &["d", "e"]);
    assert_eq!(one.replica.commit_index(), Slot(4));
    assert_eq!(one.count("slots_recalled"), 2);
}

#[test]
fn what_came_from_a_peer_meanwhile_is_passed_over() {
    for answer in [&["c", "d"][..], &[]] {
        let mut one = with_a_hole();
        fetch_the_missing_slot(&mut one);
        one.hear(2, chosen(3, &["c"]));
        recall(&mut one, 3, answer);
        let through = if answer.is_empty() { 3 } else { 4 };
        assert_eq!(one.replica.commit_index(), Slot(through));
        // Slot 3 could not be read, and need not be any more.
        assert_eq!(one.count("slots_unreadable"), 0);
    }
}

#[test]
fn an_answer_that_nobody_waits_for_is_ignored() {
    let mut one = One::new(config(3));
    recall(&mut one, 1, &["a"]);
    assert_eq!(one.replica.commit_index(), Slot(0));
}

#[test]
fn every_missing_slot_is_counted() {
    let one = One::restarted(config(3), Incarnation::FOUNDING, |replay, out| {
        learn(replay, out, 1, value("a"));
        replay.hole(Slot(9));
        accept_record(replay, out, 5, 1, "e");
    });
    // Slots 2 to 4 and 6 to 9.
    assert_eq!(one.replica.slots_missing(), 7);
}

#[test]
fn what_the_present_leader_sent_meanwhile_is_newer_than_what_was_open() {
    let mut one = with_a_hole();
    for (slot, text) in (2..).zip(["b", "c", "d", "new"]) {
        one.hear(3, accept(NEW, slot, slot - 1, value(text)));
    }
    assert!(one.replica.may_promise());
    let newest = ballot(3, 2);
    let tells = [to(&[2], promise(newest, 4, &[(5, NEW, "new")]))];
    assert_eq!(one.hear(2, prepare(newest)), tells);
}

#[test]
fn what_was_open_before_the_hole_is_forgotten() {
    let one = One::restarted(config(3), Incarnation::FOUNDING, |replay, out| {
        learn(replay, out, 1, value("a"));
        accept_record(replay, out, 2, 1, "b");
        accept_record(replay, out, 3, 1, "c");
        replay.hole(Slot(3));
    });
    assert_eq!(one.replica.slots_missing(), 2);
    let mut one = one;
    // Its record may have been replaced by a lost one, so the leader's word alone does not make it chosen.
    one.hear(2, leading(OLD, 2));
    assert_eq!(one.replica.commit_index(), Slot(1));
}

/// Restarted with slot 1 applied, and a hole that may have held slot 2.
fn with_a_question() -> One {
    One::restarted(config(3), Incarnation::FOUNDING, |replay, out| {
        learn(replay, out, 1, value("a"));
        replay.promise(OLD);
        replay.hole(Slot(2));
    })
}

#[test]
fn a_new_leader_that_says_what_is_chosen_settles_the_question() {
    let settled = |leader, chosen| {
        let mut one = with_a_question();
        assert_eq!(one.replica.slots_missing(), 1);
        one.hear(
            leader,
            leading(ballot(u64::from(leader) - 1, leader), chosen),
        );
        one
    };
    // The leader of the ballot that was promised before may still propose what was lost.
    assert!(!settled(2, 1).replica.may_promise());
    // Slot 2 is chosen, and not held here.
    assert!(!settled(3, 2).replica.may_promise());
    let one = settled(3, 1);
    assert!(one.replica.may_promise());
    // From here on it accepts nothing below.
    assert_eq!(one.records, [Record::Promised { ballot: NEW }]);
    assert_eq!(one.replica.promised(), NEW);
    assert_eq!(one.replica.slots_missing(), 0);
}

#[test]
fn a_leader_that_lags_behind_what_is_known_to_be_chosen_settles_nothing() {
    let mut one = with_a_hole();
    one.hear(3, leading(NEW, 1));
    assert!(!one.replica.may_promise());
    assert_eq!(one.records, []);
}

#[test]
fn a_settled_question_does_not_lower_or_repeat_the_promise() {
    let mut one = with_a_question();
    // Out of order, so nothing is accepted, but its ballot is promised.
    one.hear(3, accept(NEW, 5, 1, value("e")));
    assert_eq!(one.records, [Record::Promised { ballot: NEW }]);
    one.hear(3, leading(NEW, 1));
    assert!(one.replica.may_promise());
    assert_eq!(one.records.len(), 1);
}

#[test]
fn a_replica_that_mends_is_heard_but_does_not_stand() {
    let mut one = with_a_question();
    one.at(1_000).hear_all();
    one.at(1_030).tick();
    assert_eq!(
        (one.count("elections"), one.role()),
        (0, HeartbeatRole::Searching)
    );
    let hears = one.told.as_ref().map(|told| told.hears);
    assert_eq!(hears, Some(ReplicaSet::first(3)));
}

#[test]
fn who_has_no_vote_yet_promises_nothing_when_its_question_is_settled() {
    let mut one = One::restarted(config(3), Incarnation(7), |replay, out| {
        learn(replay, out, 1, value("a"));
        replay.hole(Slot(2));
    });
    one.hear(3, leading(NEW, 1));
    assert_eq!(one.records, []);
    assert_eq!(one.replica.promised(), Ballot::ZERO);
    assert!(!one.replica.may_promise());
}
