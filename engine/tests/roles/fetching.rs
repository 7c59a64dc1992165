//! Ranges that are asked for, in and out of order.

use std::collections::BTreeMap;

use proptest::prelude::*;

use synod_engine::fetching::{Fetches, Question};
use synod_engine::ids::{ReplicaId, Slot, Time};
use synod_engine::message::{HeartbeatRole, Message, Value};

use super::ballot;
use super::one::{One, accept, chosen, config, heartbeat, value};

const FULL: usize = 1_000;
const RETRY_NS: u64 = 40;
const TWO: ReplicaId = ReplicaId(2);

/// Asks as often as there is something to ask.
fn ask(fetches: &mut Fetches, now: u64, held: u64, goal: u64, max: usize) -> Vec<(u64, u64)> {
    let mut asked = Vec::new();
    while let Some(question) = fetches.next(Time(now), Slot(held), Slot(goal), max) {
        fetches.asked(question, TWO, Time(now + RETRY_NS));
        asked.push((question.from.0, question.through.0));
    }
    asked
}

fn values(count: u64, bytes: usize) -> Vec<Value> {
    vec![Value::from(vec![7; bytes]); count as usize]
}

/// Knows that four slots about fill an answer.
fn measured() -> Fetches {
    let mut fetches = Fetches::new();
    assert_eq!(ask(&mut fetches, 0, 0, 1_000, 4), [(1, 256)]);
    assert_eq!(fetches.answered(Slot(1), values(6, 200), FULL), Ok(()));
    assert_eq!(fetches.take(Slot(0)), Some((Slot(1), values(6, 200))));
    fetches
}

#[test]
fn one_question_finds_out_how_much_fits_an_answer_and_then_several_are_under_way() {
    let mut fetches = measured();
    let asked = ask(&mut fetches, 1, 6, 1_000, 3);
    assert_eq!(asked, [(7, 10), (11, 14), (15, 18)]);
    // One out of order is kept, and asked for are those that nobody was asked for.
    assert_eq!(fetches.answered(Slot(11), values(4, 200), FULL), Ok(()));
    assert_eq!(fetches.take(Slot(6)), None);
    assert_eq!(ask(&mut fetches, 2, 6, 1_000, 3), []);
    // The first ends early: what is missing of it comes first.
    assert_eq!(fetches.answered(Slot(7), values(2, 600), FULL), Ok(()));
    assert_eq!(fetches.take(Slot(6)), Some((Slot(7), values(2, 600))));
    assert_eq!(ask(&mut fetches, 3, 8, 1_000, 3), [(9, 9)]);
    assert_eq!(fetches.take(Slot(8)), None);
    assert_eq!(fetches.answered(Slot(9), values(1, 600), FULL), Ok(()));
    assert_eq!(fetches.take(Slot(8)), Some((Slot(9), values(1, 600))));
    // It is the lowest, so it is asked for however many wait for it.
    assert_eq!(ask(&mut fetches, 3, 9, 1_000, 1), [(10, 10)]);
}

#[test]
fn what_got_no_answer_is_asked_of_somebody_else() {
    let mut fetches = measured();
    ask(&mut fetches, 1, 6, 14, 4);
    assert_eq!(fetches.deadline(), Time(1 + RETRY_NS));
    let next = |fetches: &mut Fetches, at| fetches.next(Time(at), Slot(6), Slot(14), 4);
    assert_eq!(next(&mut fetches, RETRY_NS), None);
    let again = next(&mut fetches, 1 + RETRY_NS).expect("it is due");
    let (from, through) = (Slot(7), Slot(10));
    let except = Some(TWO);
    assert_eq!(
        again,
        Question {
            from,
            through,
            except
        }
    );
    // A late answer counts for whoever is asked now, a second one for nobody.
    fetches.asked(again, ReplicaId(3), Time(500));
    assert_eq!(fetches.answered(from, values(4, 1), FULL), Ok(()));
    assert!(fetches.answered(from, values(4, 1), FULL).is_err());
    assert!(fetches.answered(Slot(99), values(1, 1), FULL).is_err());
    assert!(fetches.answered(Slot(11), Vec::new(), FULL).is_err());
}

#[test]
fn during_a_pause_nothing_is_asked() {
    let mut fetches = measured();
    fetches.pause(TWO, Time(100));
    assert_eq!(ask(&mut fetches, 99, 6, 14, 4), []);
    assert_eq!(fetches.deadline(), Time(100));
    let question = fetches.next(Time(100), Slot(6), Slot(14), 4);
    assert_eq!(question.map(|question| question.except), Some(Some(TWO)));
    fetches.clear();
    assert_eq!(ask(&mut fetches, 5, 6, 8, 4), [(7, 8)]);
}

proptest! {
    /// Whatever order answers come in, however much each holds, and whichever get lost: every slot is learned once, in
    /// order, and what is under way stays bounded.
    #[test]
    fn everything_comes_in_order_whatever_the_network_does(
        goal in 1u64..120,
        ranges_max in 1usize..6,
        choices in proptest::collection::vec((any::<u16>(), 1u64..9, any::<u8>()), 0..400),
    ) {
        let mut fetches = Fetches::new();
        let (mut held, mut now) = (0, 0);
        let mut on_the_way: BTreeMap<u64, u64> = BTreeMap::new();
        let turns = choices.len();
        let gentle = (0..2_000).map(|_| (0, 8, 1));
        for (turn, (which, length, luck)) in choices.into_iter().chain(gentle).enumerate() {
            now += if turn < turns { 5 } else { RETRY_NS + 1 };
            for (from, through) in ask(&mut fetches, now, held, goal, ranges_max) {
                prop_assert!(held < from && from <= through && through <= goal);
                on_the_way.insert(from, through);
            }
            prop_assert!(held == goal || fetches.deadline() > Time(now), "it would spin");
            let Some((from, through)) = on_the_way
                .iter()
                .nth(usize::from(which) % on_the_way.len().max(1))
                .map(|(from, through)| (*from, *through)) else { continue };
            on_the_way.remove(&from);
            if luck % 4 == 0 {
                continue;
            }
            let count = length.min(through - from + 1);
            let answer = (from..from + count).map(|slot| Value::from(vec![slot as u8; 200])).collect();
            let _ = fetches.answered(Slot(from), answer, FULL);
            while let Some((from, values)) = fetches.take(Slot(held)) {
                for (slot, value) in (from.0..).zip(values) {
                    prop_assert_eq!(value[0], slot as u8);
                    held = held.max(if slot == held + 1 { slot } else { held });
                }
            }
        }
        prop_assert_eq!(held, goal);
    }
}

#[test]
fn a_replica_far_behind_has_several_fetches_under_way_and_none_at_the_leader() {
    let mut config = config(3);
    config.limits.fetch_bytes_max = 8;
    let mut one = One::new(config);
    one.hear(2, heartbeat(ballot(1, 2), HeartbeatRole::Leading, 5_000));
    one.hear(3, heartbeat(ballot(1, 2), HeartbeatRole::Following, 5_000));
    one.at(200);
    one.hear(2, heartbeat(ballot(1, 2), HeartbeatRole::Leading, 5_000));
    one.hear(3, heartbeat(ballot(1, 2), HeartbeatRole::Following, 5_000));
    assert_eq!(one.tick().len(), 1);
    let asked = one.hear(3, chosen(1, &["four", "more", "make", "full"]));
    let fetches_max = one.config.limits.fetches_max;
    assert_eq!(asked.len(), fetches_max);
    for outgoing in asked {
        assert!(outgoing.to.contains(ReplicaId(3)), "the leader is asked");
        assert!(matches!(outgoing.message, Message::Fetch(_)));
    }
    assert_eq!(one.replica.commit_index(), Slot(4));
}

#[test]
fn an_answer_that_waits_for_what_the_stream_brings_is_taken_then() {
    let mut config = config(3);
    config.limits.fetch_bytes_max = 2;
    let mut one = One::new(config);
    let leader = ballot(1, 2);
    let hear_both = |one: &mut One| {
        one.hear(2, heartbeat(leader, HeartbeatRole::Leading, 6));
        one.hear(3, heartbeat(leader, HeartbeatRole::Following, 6));
    };
    hear_both(&mut one);
    one.at(200);
    hear_both(&mut one);
    one.tick();
    one.hear(3, chosen(1, &["a", "b"]));
    // Slots 3 to 6 are asked for one by one; all but the first of them are answered, and that one comes by itself.
    for slot in 4..=6 {
        one.hear(3, chosen(slot, &["x"]));
    }
    assert_eq!(one.replica.commit_index(), Slot(2));
    one.hear(2, accept(leader, 3, 3, value("c")));
    for ms in 0..500 {
        one.at(300 + ms);
        hear_both(&mut one);
        one.tick();
        assert!(
            one.replica.deadline() > Time(one.now),
            "it spins at {ms} ms"
        );
    }
    assert_eq!(one.replica.commit_index(), Slot(6));
}
