//! A replica as acceptor and learner, whoever leads.

use synod_engine::ids::{Ballot, Incarnation, ReplicaId, Slot};
use synod_engine::message::{Accept, Chosen, FetchSnapshot, HeartbeatRole, Message, Record, Value};
use synod_engine::output::ReadForPeer;
use synod_engine::seams::SnapshotInfo;

use super::ballot;
use super::one::{
    MS, One, accept, accepted, chosen, config, fetch, heartbeat, leading, prepare, promise, reject,
    set, to, value,
};

/// Replica 1 of three, which restarted with slots 1 to `count` chosen.
fn with_chosen(count: u64, cache_bytes_max: usize) -> One {
    let mut config = config(3);
    config.limits.cache_bytes_max = cache_bytes_max;
    One::restarted(config, Incarnation::FOUNDING, |replay, out| {
        for slot in 1..=count {
            let (slot, value) = (Slot(slot), value("v"));
            replay.record(Record::Chosen { slot, value }, out);
        }
    })
}

#[test]
fn a_small_value_is_copied_out_of_the_packets_that_brought_it() {
    const PINNING_BYTES_MIN: usize = 16 << 10;
    let packets = Value::from(vec![7; 1 << 20]);
    let leader = ballot(1, 2);
    let mut one = One::new(config(3));
    for (slot, bytes) in (1..).zip([1, PINNING_BYTES_MIN - 1, PINNING_BYTES_MIN, 100_000]) {
        let sent = packets.slice(..bytes);
        one.hear(2, accept(leader, slot, 0, sent.clone()));
        let Some(Record::Accepted(Accept { value, .. })) = one.records.last() else {
            panic!("nothing was accepted");
        };
        assert_eq!(*value, sent);
        let copied = value.as_ptr() != packets.as_ptr();
        assert_eq!(copied, bytes < PINNING_BYTES_MIN, "{bytes} bytes");
    }
}

#[test]
fn a_repeated_prepare_is_answered_once_while_the_disk_works_and_at_once_after() {
    let mut one = One::new(config(3));
    one.disk_hangs = true;
    let asked = ballot(4, 2);
    for _ in 0..3 {
        assert_eq!(one.hear(2, prepare(asked)), []);
    }
    assert_eq!(one.records, [Record::Promised { ballot: asked }]);
    let promised = [to(&[2], promise(asked, 0, &[]))];
    assert_eq!(one.disk(), promised);
    assert_eq!(one.hear(2, prepare(asked)), promised);
    assert_eq!(one.records.len(), 1);
    let rejected = [to(&[3], reject(asked))];
    assert_eq!(one.hear(3, prepare(ballot(3, 3))), rejected);
    let late = accept(ballot(3, 3), 1, 0, value("v"));
    assert_eq!(one.hear(3, late), rejected);
    assert_eq!(one.count("rejects"), 2);
}

#[test]
fn an_accept_at_a_higher_ballot_ends_a_leadership_and_makes_a_follower() {
    let (mut one, own) = One::established(config(3));
    let higher = ballot(own.round + 1, 3);
    one.hear(3, accept(higher, 2, 1, value("v")));
    assert!(!one.replica.serves());
    assert_eq!(one.count("step_downs"), 1);
    assert_eq!(one.role(), HeartbeatRole::Following);
    assert_eq!(one.told.as_ref().map(|told| told.ballot), Some(higher));
    // It counts as a sign of life of that leader: nobody stands for an election timeout.
    one.at(299).hear_all();
    one.tick();
    assert_eq!(one.count("elections"), 1);
    one.at(300).hear_all();
    one.tick();
    assert_eq!(one.count("elections"), 2);
}

#[test]
fn a_promise_that_rises_without_a_value_has_a_record_of_its_own() {
    let mut one = One::new(config(3));
    let (first, second) = (ballot(1, 2), ballot(2, 3));
    one.hear(2, accept(first, 1, 0, value("v")));
    // Out of order at the same ballot: nothing new was promised.
    one.hear(2, accept(first, 3, 0, value("v")));
    assert_eq!(one.records.len(), 1);
    one.hear(3, accept(second, 3, 0, value("v")));
    assert_eq!(one.records.len(), 2);
    assert_eq!(one.records[1], Record::Promised { ballot: second });
    assert_eq!(one.replica.promised(), second);
    // A repeated one says nothing new either.
    one.hear(3, accept(second, 3, 0, value("v")));
    assert_eq!(one.records.len(), 2);
}

#[test]
fn a_record_tells_what_this_replica_knew_to_be_chosen_not_what_the_leader_knows() {
    let mut one = One::new(config(3));
    let leader = ballot(1, 2);
    let commits = |one: &One| -> Vec<u64> {
        let commit = |record: &Record| match record {
            Record::Accepted(accept) => accept.commit_index.0,
            other => panic!("{other:?}"),
        };
        one.records.iter().map(commit).collect()
    };
    for slot in 1..=3 {
        one.hear(2, accept(leader, slot, slot - 1, value("v")));
    }
    assert_eq!(commits(&one), [0, 0, 1]);
    assert_eq!(one.replica.commit_index(), Slot(2));
    assert_eq!(one.chosen, [(Slot(1), value("v")), (Slot(2), value("v"))]);
    // A repeated Accept is acknowledged again and tells the commit index like any other.
    let acknowledged = to(&[2], accepted(leader, 3));
    assert_eq!(
        one.hear(2, accept(leader, 3, 3, value("v"))),
        [acknowledged]
    );
    assert_eq!(one.replica.commit_index(), Slot(3));
    assert_eq!(one.count("accepts_duplicate"), 1);
}

#[test]
fn only_what_was_accepted_at_the_leaders_ballot_is_chosen_by_its_word() {
    let mut one = One::new(config(3));
    one.hear(2, accept(ballot(1, 2), 1, 0, value("old")));
    one.hear(3, leading(ballot(2, 3), 1));
    assert_eq!(one.replica.commit_index(), Slot(0));
    one.hear(3, accept(ballot(2, 3), 1, 1, value("new")));
    assert_eq!(one.chosen, [(Slot(1), value("new"))]);
}

#[test]
fn others_may_go_ahead_by_two_windows_and_no_further() {
    let mut config = config(3);
    config.limits.window_slots_max = 1;
    let limit = config.accept_ahead_slots_max();
    let mut one = One::new(config);
    for slot in 1..=limit + 1 {
        one.hear(2, accept(ballot(1, 2), slot, 0, value("v")));
    }
    assert_eq!(one.records.len() as u64, limit);
    assert_eq!(one.count("accepts_too_far_ahead"), 1);
}

#[test]
fn it_fetches_what_does_not_come_though_the_leaders_heartbeats_do() {
    let mut one = One::new(config(3));
    let leader = ballot(1, 2);
    let asked = [to(&[2], fetch(1, 5))];
    for ms in (0..200).step_by(20) {
        assert_eq!(one.at(ms).hear(2, leading(leader, 5)), []);
        assert_eq!(one.tick(), []);
    }
    assert_eq!(one.at(200).tick(), asked);
    assert_eq!(one.count("fetches_sent"), 1);
    // No answer: asked again after a while, and not before.
    one.at(399).hear(2, leading(leader, 5));
    assert_eq!(one.tick(), []);
    assert_eq!(one.at(400).tick(), asked);
    assert_eq!(one.count("fetches_sent"), 2);
}

#[test]
fn another_one_is_asked_when_no_answer_comes() {
    let mut one = One::new(config(3));
    one.hear(2, leading(ballot(1, 2), 5));
    one.hear(3, heartbeat(ballot(1, 2), HeartbeatRole::Following, 4));
    assert_eq!(one.at(200).tick(), [to(&[2], fetch(1, 5))]);
    assert_eq!(one.at(299).tick(), []);
    one.at(299).hear(2, leading(ballot(1, 2), 5));
    one.hear(3, heartbeat(ballot(1, 2), HeartbeatRole::Following, 4));
    assert_eq!(one.at(400).tick(), [to(&[3], fetch(1, 5))]);
}

#[test]
fn an_answer_is_learned_in_order_and_asks_for_the_rest_at_once() {
    let mut one = One::new(config(3));
    one.hear(2, leading(ballot(1, 2), 5));
    one.at(200).tick();
    assert_eq!(one.hear(2, chosen(1, &["a", "b"])), [to(&[2], fetch(3, 5))]);
    let learned = |slot, text| Record::Chosen {
        slot: Slot(slot),
        value: value(text),
    };
    assert_eq!(one.records, [learned(1, "a"), learned(2, "b")]);
    // What is known already is passed over, and brings no haste.
    assert_eq!(one.hear(2, chosen(1, &["a", "b"])), []);
    assert_eq!(one.records.len(), 2);
    // What leaves a gap is of no use.
    assert_eq!(one.hear(2, chosen(4, &["d"])), []);
    assert_eq!(one.records.len(), 2);
    // Nobody asked for this one: it is learned, and that is all.
    assert_eq!(one.hear(2, chosen(2, &["b", "c"])), []);
    assert_eq!(one.records.len(), 3);
    assert_eq!(one.count("slots_fetched"), 3);
    assert_eq!(one.replica.commit_index(), Slot(3));
}

#[test]
fn what_was_learned_restarts_the_clock_and_what_was_known_does_not() {
    let mut one = One::new(config(3));
    one.hear(2, leading(ballot(1, 2), 5));
    one.at(100).hear(2, chosen(1, &["a"]));
    assert_eq!(one.at(299).hear(2, leading(ballot(1, 2), 5)), []);
    assert_eq!(one.hear(2, chosen(1, &["a"])), []);
    assert_eq!(one.tick(), []);
    assert_eq!(one.at(300).tick(), [to(&[2], fetch(2, 5))]);
}

#[test]
fn a_leader_learns_nothing_from_answers() {
    let (mut one, _) = One::established(config(3));
    one.hear(2, chosen(2, &["stray"]));
    assert_eq!(one.replica.commit_index(), Slot(1));
}

#[test]
fn a_fetch_is_answered_from_memory_or_from_the_wal_as_far_as_it_is_chosen() {
    let mut one = with_chosen(5, 3);
    // Slots 3 to 5 are in memory.
    let answer = |from, count: usize| {
        let values = vec![value("v"); count];
        let from = Slot(from);
        [to(&[2], Message::Chosen(Chosen { from, values }))]
    };
    assert_eq!(one.hear(2, fetch(3, 9)), answer(3, 3));
    assert_eq!(one.hear(2, fetch(3, 4)), answer(3, 2));
    assert_eq!(one.hear(2, fetch(5, 5)), answer(5, 1));
    assert_eq!(one.hear(2, fetch(6, 9)), []);
    assert_eq!(one.count("fetches_served"), 3);
    assert_eq!(one.reads, []);
    assert_eq!(one.hear(2, fetch(2, 4)), []);
    assert_eq!(one.hear(2, fetch(0, 9)), []);
    let read = |from, through| ReadForPeer {
        to: ReplicaId(2),
        from: Slot(from),
        through: Slot(through),
    };
    // Never more than what left memory: of a later slot the WAL may know an older value (simulator, seed 601).
    assert_eq!(one.reads, [read(2, 2), read(1, 2)]);
    assert_eq!(one.count("fetches_served"), 5);
}

#[test]
fn what_was_trimmed_is_not_served() {
    let mut one = One::restarted(config(3), Incarnation::FOUNDING, |replay, out| {
        for slot in 1..=5 {
            let (slot, value) = (Slot(slot), value("v"));
            replay.record(Record::Chosen { slot, value }, out);
        }
        replay.record(Record::Trimmed { floor: Slot(3) }, out);
    });
    assert_eq!(one.replica.trim_floor(), Slot(3));
    assert_eq!(one.hear(2, fetch(2, 5)), []);
    assert_eq!(one.hear(2, fetch(3, 3)), [to(&[2], chosen(3, &["v"]))]);
    assert_eq!(one.hear(2, fetch(4, 4)), [to(&[2], chosen(4, &["v"]))]);
}

#[test]
fn who_stands_at_the_promise_or_above_is_left_the_time() {
    for (candidate, waits) in [
        (ballot(5, 3), true),
        (ballot(6, 3), true),
        (ballot(4, 3), false),
    ] {
        let mut one = One::new(config(3));
        one.hear(3, prepare(ballot(5, 3)));
        one.at(310).hear_all();
        one.hear(3, heartbeat(candidate, HeartbeatRole::Standing, 0));
        one.tick();
        let stands = one.role() == HeartbeatRole::Standing;
        assert_eq!(stands, !waits, "{candidate}");
        one.at(609).hear_all();
        one.tick();
        assert_eq!(one.role() == HeartbeatRole::Standing, !waits);
        one.at(610).hear_all();
        one.tick();
        assert!(one.count("elections") >= 1);
    }
}

#[test]
fn a_leader_that_was_deposed_is_told_so() {
    let mut one = One::new(config(3));
    one.hear(3, prepare(ballot(5, 3)));
    let rejected = to(&[2], reject(ballot(5, 3)));
    assert_eq!(one.hear(2, leading(ballot(5, 2), 0)), [rejected]);
    assert_eq!(one.role(), HeartbeatRole::Searching);
    assert_eq!(one.hear(3, leading(ballot(5, 3), 0)), []);
    assert_eq!(one.role(), HeartbeatRole::Following);
    assert_eq!(one.hear(2, leading(ballot(6, 2), 0)), []);
}

#[test]
fn clients_are_told_of_the_leader_of_the_highest_ballot() {
    let mut one = One::new(config(3));
    for (ballot, leader) in [(ballot(2, 2), 2), (ballot(3, 3), 3), (ballot(2, 2), 2)] {
        one.hear(leader, leading(ballot, 0));
    }
    let told: Vec<_> = one
        .leaderships
        .iter()
        .map(|told| (told.ballot, told.leader))
        .collect();
    let leader = |ballot: Ballot| (ballot, Some(ballot.replica));
    assert_eq!(told, [leader(ballot(2, 2)), leader(ballot(3, 3))]);
}

#[test]
fn word_of_a_leader_at_a_higher_ballot_ends_a_leadership() {
    for (round, ends) in [(0, false), (1, true)] {
        let (mut one, own) = One::established(config(3));
        let follows = heartbeat(ballot(own.round + round, 1), HeartbeatRole::Following, 1);
        one.hear(2, follows);
        assert_eq!(one.replica.serves(), !ends);
    }
}

#[test]
fn its_heartbeat_says_what_it_is() {
    let mut one = One::new(config(3));
    one.tick();
    assert_eq!(one.role(), HeartbeatRole::Searching);
    let own = one.at(100).stand();
    assert_eq!(one.role(), HeartbeatRole::Standing);
    one.hear(2, promise(own, 0, &[]));
    // It leads, and is not established: nobody should count on it yet.
    assert_eq!(one.role(), HeartbeatRole::Standing);
    assert_eq!(one.told.as_ref().map(|told| told.ballot), Some(own));
    one.hear(2, accepted(own, 1));
    assert_eq!(one.role(), HeartbeatRole::Leading);
    let told = one.told.clone().expect("it told something");
    assert_eq!(
        (told.ballot, told.commit_index.0, told.received.0),
        (own, 1, 1)
    );
    assert_eq!(told.hears, set(&[1, 2, 3]));
    let next = ballot(own.round + 1, 2);
    one.hear(2, leading(next, 1));
    assert_eq!(one.role(), HeartbeatRole::Following);
    assert_eq!(one.told.as_ref().map(|told| told.ballot), Some(next));
    one.now += 300 * MS;
    one.tick();
    assert_eq!(one.role(), HeartbeatRole::Searching);
    assert_eq!(one.told.as_ref().map(|told| told.ballot), Some(own));
}

#[test]
fn a_follower_says_its_last_acknowledgement_again_with_each_heartbeat() {
    let mut one = One::new(config(3));
    let leader = ballot(1, 2);
    let acknowledged = to(&[2], accepted(leader, 1));
    assert_eq!(
        one.hear(2, accept(leader, 1, 0, value("v"))).last(),
        Some(&acknowledged)
    );
    let told = one.told.take().expect("its role changed");
    assert_eq!((told.received, told.commit_index), (Slot(1), Slot(0)));
    assert_eq!(one.at(29).tick(), []);
    assert_eq!(one.told, None);
    assert_eq!(one.at(30).tick(), [acknowledged]);
    assert!(one.told.is_some());
}

#[test]
fn a_slot_that_can_be_read_nowhere_makes_a_snapshot_due() {
    let mut one = with_chosen(5, 0);
    let mut out = synod_engine::output::Output::default();
    let mut offer = |one: &mut One, from| {
        let now = synod_engine::ids::Time(one.now);
        one.replica
            .offer_snapshot(now, ReplicaId(2), Slot(from), &mut out);
        one.replica.snapshot_due()
    };
    assert!(!offer(&mut one, 6), "what is not chosen is no reason");
    assert!(offer(&mut one, 3));
    one.replica.snapshot_begun();
    assert!(!one.replica.snapshot_due());
    one.replica.snapshot_failed();
    assert!(offer(&mut one, 3), "it is asked for again, and tried again");
}

#[test]
fn a_snapshot_that_is_lost_below_the_floor_makes_the_next_one_due_and_so_does_who_asks_for_it() {
    let mut one = with_chosen(5, 0);
    for slot in [3, 4] {
        one.replica.snapshot_begun();
        one.replica.snapshot_taken(snapshot(slot));
    }
    one.tick();
    one.disk();
    assert_eq!(one.replica.trim_floor(), Slot(4));
    assert!(!one.replica.snapshot_due());
    one.replica.snapshot_lost(Slot(3));
    assert!(!one.replica.snapshot_due(), "a newer one is there");
    one.replica.snapshot_lost(Slot(4));
    assert!(one.replica.snapshot_due());
    // The disk takes none yet, and nothing is written that would make one due later.
    one.replica.snapshot_begun();
    one.replica.snapshot_failed();
    assert!(!one.replica.snapshot_due());
    let fetch = FetchSnapshot {
        snapshot: None,
        offset: 0,
        bytes: 100,
    };
    assert_eq!(one.hear(2, Message::FetchSnapshot(fetch)), []);
    assert!(one.replica.snapshot_due());
}

fn snapshot(slot: u64) -> SnapshotInfo {
    SnapshotInfo {
        slot: Slot(slot),
        bytes: 10,
        checksum: slot,
    }
}

#[test]
fn a_source_that_is_silent_is_given_up_for_the_next_one() {
    let mut one = One::new(config(3));
    let mut asked = Vec::new();
    for _ in 0..40 {
        for (peer, floor) in [(2, 90), (3, 80)] {
            let Message::Heartbeat(mut said) =
                heartbeat(ballot(1, 2), HeartbeatRole::Following, 99)
            else {
                unreachable!("it is a heartbeat");
            };
            said.trim_floor = Slot(floor);
            one.hear(peer, Message::Heartbeat(said));
        }
        let now = one.now / MS;
        let sent = one.at(now + 50).tick();
        let fetches = sent
            .iter()
            .filter(|outgoing| matches!(outgoing.message, Message::FetchSnapshot(_)));
        asked.extend(fetches.map(|outgoing| outgoing.to));
    }
    asked.dedup();
    assert!(asked.len() > 2, "{asked:?}");
    let (first, second) = (set(&[2]), set(&[3]));
    assert_eq!(asked[..3], [first, second, first], "{asked:?}");
}

/// By what the peers say that they hear, and not by silence: one lost packet must not cost a whole snapshot.
#[test]
fn who_is_not_heard_by_the_only_one_with_the_slots_takes_a_snapshot_of_another() {
    let mut one = One::new(config(3));
    let mut asked = Vec::new();
    for _ in 0..10 {
        for (peer, floor, hears) in [(2, 1, set(&[2])), (3, 80, set(&[1, 2, 3]))] {
            let Message::Heartbeat(mut said) =
                heartbeat(ballot(1, 2), HeartbeatRole::Following, 99)
            else {
                unreachable!("it is a heartbeat");
            };
            said.trim_floor = Slot(floor);
            said.hears = hears;
            one.hear(peer, Message::Heartbeat(said));
        }
        let now = one.now / MS;
        let sent = one.at(now + 50).tick();
        let questions = sent.iter().filter(|outgoing| {
            matches!(
                outgoing.message,
                Message::Fetch(_) | Message::FetchSnapshot(_)
            )
        });
        asked.extend(questions.map(|outgoing| outgoing.to));
    }
    asked.dedup();
    assert_eq!(asked, [set(&[3])]);
}
