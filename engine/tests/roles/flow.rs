//! What a slow or hung disk may cost: in memory here, and of what a leader sends.

use synod_engine::config::Config;
use synod_engine::ids::{ReplicaId, ReplicaSet, Slot, Time};
use synod_engine::leader::Leader;
use synod_engine::message::{Heartbeat, HeartbeatRole, Message, Value};
use synod_engine::persist::{OWED_PROMISE_BYTES_MAX, OWED_RECORD_BYTES};
use synod_engine::slots::Slots;

use super::ballot;
use super::one::{MS, One, accept, chosen, config, leading, prepare, value};

const VALUE_BYTES: usize = 64 << 10;
const OWED_MAX: usize = 1 << 20;

fn bounded() -> Config {
    let mut config = config(3);
    config.limits.owed_bytes_max = OWED_MAX;
    config.limits.batch_bytes_max = VALUE_BYTES;
    config
}

#[test]
fn a_follower_whose_disk_hangs_owes_a_bounded_amount_however_long_it_is_fed() {
    let mut one = One::new(bounded());
    one.disk_hangs = true;
    let payload = Value::from(vec![7; VALUE_BYTES]);
    let mut slot = 1;
    // Leaders come and go, and each sends all it has: its window is as if the follower kept up.
    for round in 1..=100 {
        let leader = ballot(round, 2 + (round % 2) as u8);
        let from = leader.replica.0;
        one.hear(from, prepare(leader));
        for _ in 0..40 {
            one.now += MS;
            one.hear(from, accept(leader, slot, slot - 1, payload.clone()));
            one.hear(from, leading(leader, slot));
            slot = one.replica.commit_index().0 + 1;
        }
        one.hear(from, chosen(slot, &["fetched"]));
    }
    one.now += 1_000 * MS;
    one.hear(2, prepare(ballot(1, 2)));
    let told = one.told.as_ref().expect("it tells").owed_bytes as usize;
    let limit = OWED_MAX + VALUE_BYTES + OWED_RECORD_BYTES + OWED_PROMISE_BYTES_MAX;
    assert!((OWED_MAX..=limit).contains(&told), "{told} bytes are owed");
    assert_eq!(one.count("owed_bytes") as usize, told);
    assert!(one.count("accepts_without_room") > 1_000);
    assert!(one.count("chosen_without_room") > 0);
    // The disk goes on, and so does the follower.
    one.disk();
    let (leader, next) = (ballot(200, 3), one.replica.commit_index().0 + 1);
    let before = one.records.len();
    one.hear(3, accept(leader, next, next - 1, payload));
    assert!(one.records.len() > before);
    assert_eq!(one.count("owed_bytes") > 0, one.disk_hangs);
}

#[test]
fn candidacies_without_end_leave_a_hung_disk_a_bounded_number_of_promises() {
    let mut one = One::new(bounded());
    one.disk_hangs = true;
    for round in 1..=100_000 {
        one.hear(2, prepare(ballot(round, 2)));
    }
    let owed = one.count("owed_bytes") as usize;
    assert!(owed <= OWED_MAX + OWED_PROMISE_BYTES_MAX, "{owed}");
    assert!(one.count("promises_without_room") > 0);
    // An Accept at a new ballot is a promise as well.
    let records = one.records.len();
    one.hear(2, accept(ballot(200_000, 2), 1, 0, value("v")));
    assert_eq!(one.records.len(), records);
    one.disk();
    one.hear(2, prepare(ballot(200_001, 2)));
    assert_eq!(one.records.len(), records + 1);
}

#[test]
fn heartbeats_tell_what_is_chosen_and_what_of_that_is_durable() {
    let mut one = One::new(bounded());
    let leader = ballot(1, 2);
    let mut at = 0;
    let mut told = |one: &mut One, chosen| {
        at += 100;
        one.at(at).hear(2, leading(leader, chosen));
        let told = one.told.as_ref().expect("it tells");
        (told.commit_index.0, told.stored.0)
    };
    one.hear(2, accept(leader, 1, 0, value("a")));
    one.hear(2, accept(leader, 2, 1, value("b")));
    // Slot 2 is durable, but not known to be chosen.
    assert_eq!(told(&mut one, 1), (1, 1));
    one.disk_hangs = true;
    assert_eq!(told(&mut one, 2), (2, 2));
    for slot in 3..=5 {
        one.hear(2, accept(leader, slot, slot - 1, value("c")));
    }
    assert_eq!(told(&mut one, 5), (5, 2));
    one.hear(3, chosen(6, &["d"]));
    assert_eq!(told(&mut one, 5), (6, 2));
    one.disk();
    assert_eq!(told(&mut one, 5), (6, 6));
}

fn from_follower(leader: &Leader, received: u64, stored: u64, owed_bytes: usize) -> Heartbeat {
    Heartbeat {
        ballot: leader.ballot,
        role: HeartbeatRole::Following,
        hears: ReplicaSet::first(3),
        commit_index: Slot(received),
        received: Slot(received),
        stored: Slot(stored),
        owed_bytes: owed_bytes as u32,
        trim_floor: Slot(1),
    }
}

/// Bytes sent to replica 3, whose heartbeats say what `says` makes of the newest slot, while replica 2 keeps up.
fn sent_to_slow(config: &Config, says: impl Fn(&Leader, u64) -> Heartbeat) -> usize {
    let own = ballot(1, 1);
    let mut leader = Leader::new(own, config, Time(0), Slot(1), Slot(1));
    for peer in [2, 3] {
        leader.stream_from(Time(0), ReplicaId(peer), Slot(1));
    }
    let mut sent = 0;
    for round in 1..=2_000 {
        let (slot, to) = leader.propose(Time(round), VALUE_BYTES, config);
        sent += usize::from(to.contains(ReplicaId(3))) * VALUE_BYTES;
        for replica in [1, 2] {
            leader.on_accepted(Time(round), ReplicaId(replica), slot, 2);
        }
        assert!(to.contains(ReplicaId(2)), "who keeps up is served at once");
        leader.on_chosen(Time(round), slot);
        let heartbeat = says(&leader, slot.0);
        let slots = Slots::new();
        leader.on_heartbeat(Time(round), ReplicaId(3), &heartbeat, &slots, config);
    }
    sent
}

#[test]
fn a_commit_index_that_is_only_in_memory_frees_no_window() {
    let config = config(3);
    let sent = sent_to_slow(&config, |leader, slot| from_follower(leader, slot, 0, 0));
    assert!(sent <= config.limits.peer_bytes_max + VALUE_BYTES, "{sent}");
    let sent = sent_to_slow(&config, |leader, slot| from_follower(leader, slot, slot, 0));
    assert_eq!(sent, 2_000 * VALUE_BYTES);
}

#[test]
fn a_peer_whose_disk_owes_too_much_is_sent_nothing_until_it_caught_up() {
    let config = config(3);
    let half = config.limits.owed_bytes_max / 2;
    let owing = |owed: usize| {
        sent_to_slow(&config, |leader, slot| {
            from_follower(leader, slot, slot, if slot < 1_000 { owed } else { 0 })
        })
    };
    assert_eq!(owing(half - 1), 2_000 * VALUE_BYTES);
    assert!(owing(half) < 1_001 * VALUE_BYTES);
}

#[test]
fn who_could_not_get_its_own_promise_to_disk_does_not_stand() {
    let mut one = One::new(bounded());
    one.disk_hangs = true;
    one.hear(2, accept(ballot(1, 2), 1, 0, value("v")));
    let timeout_ms = one.config.timers.election_timeout_ns / 1_000_000;
    let stands = |one: &mut One, at| {
        one.at(at);
        one.hear_all();
        let before = one.count("elections");
        let asked = one.tick();
        assert!(
            !asked
                .iter()
                .any(|sent| matches!(sent.message, Message::Prepare(_)))
        );
        one.count("elections") > before
    };
    assert!(!stands(&mut one, timeout_ms + 50));
    one.disk();
    assert!(stands(&mut one, 2 * timeout_ms + 100));
}
