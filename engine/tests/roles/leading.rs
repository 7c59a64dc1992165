//! A replica as proposer: standing, Phase 1, proposing.

use synod_engine::client::REQUEST_HEADER_BYTES;
use synod_engine::config::Config;
use synod_engine::ids::{Ballot, Slot};
use synod_engine::message::{HeartbeatRole, Message, Promise, Record, Value};
use synod_engine::output::Outgoing;
use synod_engine::persist::OWED_BYTES_MAX;
use synod_engine::replica::Input;

use super::ballot;
use super::one::{
    MS, One, accept, accepted, chosen, config, fetch, heartbeat, leading, prepare, promise, reject,
    request, to, value,
};

#[test]
fn it_stands_above_every_round_it_ever_saw() {
    let seen: [fn(&mut One); 4] = [
        |_| {},
        |one| {
            one.hear(2, heartbeat(ballot(7, 2), HeartbeatRole::Searching, 0));
        },
        |one| {
            one.hear(2, prepare(ballot(7, 2)));
        },
        |one| {
            one.hear(2, reject(ballot(7, 2)));
        },
    ];
    for (see, round) in seen.iter().zip([1, 8, 8, 8]) {
        let mut one = One::new(config(3));
        see(&mut one);
        one.at(1_000);
        assert_eq!(one.stand(), ballot(round, 1));
        assert_eq!(one.count("elections"), 1);
        let record = Record::Promised {
            ballot: ballot(round, 1),
        };
        assert_eq!(one.records.last(), Some(&record));
    }
}

#[test]
fn it_asks_nobody_before_its_own_promise_is_durable_whoever_promises() {
    let mut one = One::new(config(5));
    one.disk_hangs = true;
    let own = one.stand();
    assert_eq!(one.hear(2, promise(own, 0, &[])), []);
    assert_eq!(one.disk(), [to(&[3, 4, 5], prepare(own))]);
}

#[test]
fn it_asks_those_again_that_did_not_answer_after_a_while() {
    let mut one = One::new(config(5));
    // Nobody gives up within the time that this takes.
    one.config.timers.election_timeout_ns = 10_000 * MS;
    let mut one = One::new(one.config);
    one.hear_all();
    let own = ballot(1, 1);
    assert_eq!(one.tick(), [to(&[2, 3, 4, 5], prepare(own))]);
    assert_eq!(one.at(10).hear(3, promise(own, 0, &[])), []);
    assert_eq!(one.at(199).tick(), []);
    assert_eq!(one.at(200).tick(), [to(&[2, 4, 5], prepare(own))]);
    assert_eq!(one.at(399).tick(), []);
    assert_eq!(one.at(401).tick(), [to(&[2, 4, 5], prepare(own))]);
    assert_eq!(one.role(), HeartbeatRole::Standing);
}

#[test]
fn promises_for_another_ballot_change_nothing() {
    let mut one = One::new(config(3));
    let own = one.stand();
    let other = ballot(own.round + 1, 1);
    assert_eq!(one.hear(2, promise(other, 0, &[])), []);
    assert_eq!(one.count("leaderships"), 0);
    assert_eq!(
        one.hear(2, promise(own, 0, &[])),
        [to(&[2], accept(own, 1, 0, Value::new()))]
    );
    // Nor does a leader stream to whoever promised something else.
    assert_eq!(one.hear(3, promise(other, 0, &[])), []);
    let late = one.hear(3, promise(own, 0, &[]));
    assert_eq!(late, [to(&[3], accept(own, 1, 0, Value::new()))]);
    assert_eq!(one.count("accepts_resent"), 1);
}

#[test]
fn it_serves_once_everything_that_it_recovered_and_its_own_no_op_are_chosen() {
    let mut one = One::new(config(3));
    let own = one.stand();
    let old = ballot(0, 2);
    let sent = one.hear(2, promise(own, 0, &[(1, old, "a"), (3, old, "c")]));
    let values = [value("a"), Value::new(), value("c"), Value::new()];
    let proposed: Vec<Outgoing> = (1..)
        .zip(&values)
        .map(|(slot, value)| to(&[2], accept(own, slot, 0, value.clone())))
        .collect();
    assert_eq!(sent, proposed);
    assert_eq!((one.count("proposals"), one.count("no_ops")), (4, 2));
    one.hear(2, accepted(own, 3));
    assert!(!one.replica.serves());
    assert_eq!(one.replica.commit_index(), Slot(3));
    one.hear(2, accepted(own, 4));
    assert!(one.replica.serves());
    assert_eq!(one.replica.in_flight_slots(), 0);
}

#[test]
fn what_it_proposes_itself_may_go_ahead_as_far_as_it_must() {
    let mut config = config(3);
    config.limits.window_slots_max = 1;
    let count = config.accept_ahead_slots_max() + 2;
    let mut one = One::new(config);
    let own = one.stand();
    let old: Vec<_> = (1..=count).map(|slot| (slot, ballot(0, 2), "v")).collect();
    one.hear(2, promise(own, 0, &old));
    one.hear(2, accepted(own, count + 1));
    assert!(one.replica.serves());
}

#[test]
fn what_a_quorum_holds_as_chosen_is_fetched_before_anything_is_proposed() {
    let mut one = One::new(config(3));
    one.hear_all();
    one.hear(2, heartbeat(Ballot::ZERO, HeartbeatRole::Searching, 1));
    one.tick();
    let own = one.replica.promised();
    let fetched = one.hear(2, promise(own, 2, &[(3, ballot(0, 2), "c")]));
    assert_eq!(fetched, [to(&[2], fetch(1, 2))]);
    assert_eq!(one.count("leaderships"), 0);
    let sent = one.hear(2, chosen(1, &["a", "b"]));
    let proposed = [
        to(&[2], accept(own, 3, 2, value("c"))),
        to(&[2], accept(own, 4, 2, Value::new())),
    ];
    assert_eq!(sent, proposed);
}

#[test]
fn trap_7_it_gives_way_where_what_it_lacks_was_trimmed() {
    let mut one = One::new(config(3));
    let own = one.stand();
    let Message::Promise(promise) = promise(own, 9, &[]) else {
        unreachable!("it is a promise");
    };
    let trim_floor = Slot(5);
    one.hear(
        2,
        Message::Promise(Promise {
            trim_floor,
            ..promise
        }),
    );
    assert_eq!(one.count("prepare_below_trim_floor"), 1);
    assert_eq!(one.role(), HeartbeatRole::Searching);
    for (ms, elections) in [(299, 1), (300, 2)] {
        one.at(ms).hear_all();
        one.tick();
        assert_eq!(one.count("elections"), elections);
    }
}

#[test]
fn acknowledgements_of_another_ballot_or_of_nothing_proposed_do_not_count() {
    let (mut one, own) = One::elected(config(3));
    one.hear(2, accepted(ballot(own.round + 1, 1), 1));
    one.hear(2, accepted(ballot(0, 3), 1));
    assert_eq!(one.replica.commit_index(), Slot(0));
    one.hear(2, accepted(own, 2));
    one.hear(2, accepted(own, 9));
    assert_eq!(one.replica.commit_index(), Slot(0));
    one.hear(2, accepted(own, 1));
    assert_eq!(one.replica.commit_index(), Slot(1));
}

#[test]
fn a_reject_ends_what_is_below_it_only() {
    for (promised, ends) in [
        (ballot(1, 1), false),
        (ballot(0, 3), false),
        (ballot(1, 2), true),
    ] {
        let mut candidate = One::new(config(3));
        assert_eq!(candidate.stand(), ballot(1, 1));
        candidate.hear(2, reject(promised));
        assert_eq!(candidate.role() == HeartbeatRole::Searching, ends);
        let (mut leader, _) = One::established(config(3));
        leader.hear(2, reject(promised));
        assert_eq!(leader.replica.serves(), !ends);
        assert_eq!(leader.count("step_downs"), u64::from(ends));
    }
}

/// Whether it still stands at `ms`, with every other replica there.
fn stands(one: &mut One, ms: u64) -> bool {
    one.at(ms).hear_all();
    one.tick();
    one.role() == HeartbeatRole::Standing
}

#[test]
fn a_candidate_waits_for_its_own_disk_longer_than_for_others() {
    let mut one = One::new(config(3));
    one.disk_hangs = true;
    one.stand();
    assert!(stands(&mut one, 1_999));
    assert!(!stands(&mut one, 2_000));
}

#[test]
fn a_candidate_waits_for_promises_from_when_it_asked() {
    let mut one = One::new(config(3));
    one.disk_hangs = true;
    one.stand();
    one.at(500).disk();
    assert!(stands(&mut one, 799));
    assert!(!stands(&mut one, 800));
}

#[test]
fn a_candidate_that_fetches_waits_as_long_as_something_comes() {
    let mut one = One::new(config(3));
    let own = one.stand();
    one.at(200).hear(2, promise(own, 9, &[]));
    assert!(stands(&mut one, 400));
    one.at(450).hear(2, chosen(1, &["a"]));
    assert!(stands(&mut one, 749));
    assert!(!stands(&mut one, 750));
}

/// An established leader, with every other replica there at `ms`, when its deadline has come.
fn leads(one: &mut One, ms: u64) -> bool {
    one.at(ms).hear_all();
    one.tick();
    one.replica.serves()
}

#[test]
fn an_idle_leader_leads_as_long_as_a_quorum_hears_it() {
    let (mut one, _) = One::established(config(3));
    assert!(leads(&mut one, 5_000));
    // Only replica 2 is heard from here on, and then nobody.
    one.at(5_299)
        .hear(2, heartbeat(Ballot::ZERO, HeartbeatRole::Searching, 0));
    one.at(5_598).tick();
    assert!(one.replica.serves());
    one.at(5_599).tick();
    assert!(!one.replica.serves());
    assert_eq!((one.count("step_downs"), one.count("disk_stalls")), (1, 0));
}

#[test]
fn trap_11_a_leader_whose_disk_stalls_gives_way() {
    let (mut one, _) = One::established(config(3));
    one.at(10).disk_hangs = true;
    one.step(Input::Request(request(10)));
    assert!(leads(&mut one, 2_009));
    assert!(!leads(&mut one, 2_010));
    assert_eq!((one.count("step_downs"), one.count("disk_stalls")), (1, 1));
    one.disk();
    assert!(!stands(&mut one, 2_309));
    assert!(stands(&mut one, 2_310));
}

#[test]
fn a_leader_that_is_not_established_in_time_gives_up_whatever_is_repeated_to_it() {
    let mut one = One::new(config(5));
    let own = one.stand();
    for peer in [2, 3] {
        one.hear(peer, promise(own, 0, &[]));
    }
    assert_eq!(one.count("leaderships"), 1);
    for ms in (0..2_000).step_by(100) {
        one.at(ms).hear_all();
        one.hear(2, accepted(own, 1));
        one.tick();
    }
    assert_eq!(
        (one.count("step_downs"), one.role()),
        (0, HeartbeatRole::Standing)
    );
    one.at(2_000).hear_all();
    one.tick();
    assert_eq!((one.count("step_downs"), one.count("disk_stalls")), (1, 0));
}

#[test]
fn clients_are_told_when_it_leads_and_when_it_does_no_more() {
    let (mut one, own) = One::established(config(3));
    one.tick();
    assert_eq!(one.leaderships.len(), 1);
    one.hear(2, reject(ballot(own.round + 1, 2)));
    let told: Vec<_> = one
        .leaderships
        .iter()
        .map(|told| (told.ballot, told.leader))
        .collect();
    assert_eq!(told, [(own, Some(own.replica)), (own, None)]);
    // Of another one they hear once.
    let next = ballot(own.round + 1, 2);
    one.hear(2, leading(next, 1));
    one.hear(2, leading(next, 1));
    assert_eq!(one.leaderships.len(), 3);
    assert_eq!(one.leaderships[2].leader, Some(next.replica));
}

#[test]
fn a_disk_that_owes_too_much_holds_proposals_back_though_the_others_keep_up() {
    let mut config: Config = config(3);
    config.timers.disk_stall_ns = u64::MAX;
    config.limits.batch_bytes_max = 1 << 20;
    let (mut one, own) = One::established(config);
    one.hear(3, promise(own, 0, &[]));
    one.disk_hangs = true;
    let mut proposed = 1;
    for _ in 0..64 {
        one.step(Input::Request(request(512 << 10)));
        let next = 1 + one.count("proposals") - 1;
        for peer in [2, 3] {
            one.hear(peer, accepted(own, next));
        }
        proposed = next;
    }
    let owed: usize = (proposed as usize - 1) * ((512 << 10) + 32);
    assert!(owed >= OWED_BYTES_MAX, "only {owed} bytes were proposed");
    assert!(
        owed < OWED_BYTES_MAX + (1 << 20),
        "{owed} bytes were proposed"
    );
    assert_eq!(one.replica.commit_index(), Slot(proposed));
    one.disk();
    assert!(one.count("proposals") > proposed);
}

#[test]
fn requests_wait_up_to_a_limit_in_bytes() {
    let mut config = config(3);
    config.limits.intake_bytes_max = 2_000;
    let (mut one, _) = One::established(config);
    let room = |one: &One, bytes| {
        one.replica
            .has_room_for(&request(bytes - REQUEST_HEADER_BYTES))
    };
    assert!(room(&one, 2_000));
    assert!(!room(&one, 2_001));
    // The window takes two; what comes after waits.
    for _ in 0..4 {
        one.step(Input::Request(request(500 - REQUEST_HEADER_BYTES)));
    }
    assert_eq!(one.count("intake_bytes"), 1_000);
    assert!(room(&one, 1_000));
    assert!(!room(&one, 1_001));
}
