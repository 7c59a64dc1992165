//! The session against replicas that fail in every way a script can name: whatever happens, each command is
//! executed once and answered once, in order.

mod session_world;

use std::collections::{HashMap, HashSet, VecDeque};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use proptest::prelude::*;
use synod_engine::client::{ClientMessage, Reason, Refused, Replies, Request, ServerMessage};
use synod_engine::ids::{Ballot, CommandNumber, ReplicaId, ReplicaSet, SessionId, Time};
use synod_transport::client::session::{Event, Session, SessionConfig, SessionFailed};

use session_world::{Act, World, acts};

const REPLICAS: u8 = 3;
const MS: u64 = 1_000_000;
const SESSION: SessionId = SessionId(9);

fn refused(session: SessionId, expected: u64, reason: Reason) -> ServerMessage {
    ServerMessage::Refused(Refused {
        session,
        expected: CommandNumber(expected),
        reason,
    })
}

fn open_world() -> World {
    let mut world = World::new();
    world.lead(1);
    for act in [
        Act::Connect(1),
        Act::Connect(2),
        Act::Connect(3),
        Act::Down(1),
        Act::Up(1),
        Act::Down(1),
    ] {
        world.act(&act);
    }
    assert!(world.session.is_open());
    world
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    #[test]
    fn every_command_is_executed_and_answered_once_and_in_order(acts in acts()) {
        let mut world = World::new();
        world.lead(1);
        for act in &acts {
            world.act(act);
        }
        world.heal();
        world.submit(3);
        world.settle();
        world.heal();
        prop_assert_eq!(world.replied, world.submitted);
        prop_assert_eq!(world.executed.len() as u64, world.submitted);
    }
}

#[test]
fn one_refusal_of_many_requests_causes_one_resend() {
    let mut world = open_world();
    world.busy = 1;
    for _ in 0..10 {
        world.act(&Act::Submit(1));
    }
    // The first is refused Busy, the nine behind it are refused for the gap.
    for _ in 0..10 {
        world.act(&Act::Up(1));
    }
    world.act(&Act::Down(1));
    assert_eq!(world.connected[&1].up.len(), 0, "it was told to wait");
    world.act(&Act::Pass(2));
    assert_eq!(
        world.connected[&1].up.len(),
        1,
        "one request carries all ten again"
    );
    // The refusals for the gap are heard only after that.
    for _ in 0..9 {
        world.act(&Act::Down(1));
    }
    assert_eq!(world.connected[&1].up.len(), 1, "a resend was repeated");
    assert_eq!(world.session.counters().resent, 10);
    world.heal();
    assert_eq!(world.replied, 10);
}

#[test]
fn nothing_is_sent_while_a_busy_leader_asks_to_wait() {
    let mut world = open_world();
    world.busy = 1;
    world.act(&Act::Submit(1));
    world.act(&Act::Up(1));
    world.act(&Act::Down(1));
    world.act(&Act::Submit(1));
    assert!(world.connected[&1].up.is_empty());
    assert_eq!(world.session.deadline(), Some(world.now.plus(2 * MS)));
}

/// Otherwise everything that waits would go out after each pause, only to be refused again.
#[test]
fn after_busy_no_more_is_on_the_way_than_was_taken_in_and_then_more_by_and_by() {
    const RUN: u32 = 10_000;
    let mut world = open_world();
    for _ in 0..10 {
        world.act(&Act::Submit(RUN));
    }
    let sent = |world: &mut World| {
        let streams = world.connected.get_mut(&1).expect("connected");
        std::mem::take(&mut streams.up).len()
    };
    assert_eq!(sent(&mut world), 10);
    // It holds two of the ten, and no more has room.
    let busy = Reason::Busy {
        retry_after_us: 2_000,
    };
    let taken_in = u64::from(2 * RUN);
    let refusal = refused(SESSION, taken_in + 1, busy);
    world.session.on_message(world.now, ReplicaId(1), refusal);
    world.act(&Act::Pass(2));
    assert_eq!(sent(&mut world), 0);
    let mut replies = BytesMut::new();
    for number in 1..=u64::from(RUN) {
        replies.put_u32_le(8);
        replies.put_u64_le(number);
    }
    let replies = ServerMessage::Replies(Replies {
        session: SESSION,
        first: CommandNumber(1),
        count: RUN,
        replies: replies.freeze(),
    });
    world.session.on_message(world.now, ReplicaId(1), replies);
    world.settle();
    assert_eq!(sent(&mut world), 2);
}

#[test]
fn an_unknown_session_fails_everything_and_is_never_reopened() {
    let mut world = open_world();
    world.act(&Act::Submit(5));
    let unknown = refused(SESSION, 1, Reason::UnknownSession);
    world.session.on_message(world.now, ReplicaId(1), unknown);
    let failure = SessionFailed::Unknown(SESSION);
    assert_eq!(world.session.event(), Some(Event::Failed(failure)));
    world.now = world.now.plus(10_000 * MS);
    world.session.tick(world.now);
    assert_eq!(world.session.poll(world.now), None);
    assert!(world.session.submit(world.now, Bytes::new(), 0).is_err());
    assert_eq!(world.session.deadline(), None);
}

#[test]
fn a_command_that_times_out_is_reported_once_and_still_answered() {
    let mut world = open_world();
    world.act(&Act::Submit(2));
    world.now = world.now.plus(3_600_000 * MS);
    world.session.tick(world.now);
    let late = Event::TimedOut {
        first: CommandNumber(1),
        count: 2,
    };
    assert_eq!(world.session.event(), Some(late));
    world.session.tick(world.now);
    assert_eq!(world.session.event(), None);
    world.act(&Act::Submit(1));
    world.heal();
    assert_eq!(world.replied, 3);
}

#[test]
fn silence_is_answered_by_resends_that_become_rarer() {
    let mut world = open_world();
    world.act(&Act::Submit(1));
    let mut waits = Vec::new();
    for _ in 0..6 {
        let at = world.session.deadline().expect("a retry");
        waits.push(at.since(world.now) / MS);
        world.now = at;
        world.settle();
    }
    assert_eq!(waits, [500, 1_000, 2_000, 4_000, 4_000, 4_000]);
    assert_eq!(world.session.counters().retries, 6);
    // Each of them asked somebody: all three were tried.
    for replica in 1..=3 {
        assert!(!world.connected[&replica].up.is_empty());
    }
}

/// How many frames wait for a replica.
fn waiting(world: &World, replica: u8) -> usize {
    world.connected[&replica].up.len()
}

/// Everything sent to a follower and back would be the last thing that a leader with a slow disk needs.
#[test]
fn a_leader_that_stalls_is_asked_again_for_the_oldest_request_only() {
    const RUN: u32 = 10_000;
    let mut world = open_world();
    for _ in 0..10 {
        world.act(&Act::Submit(RUN));
    }
    assert_eq!(waiting(&world, 1), 10);
    world.now = world.session.deadline().expect("a retry");
    world.settle();
    // Who it is, and the oldest request.
    assert_eq!(waiting(&world, 2), 2);
    for _ in 0..2 {
        world.act(&Act::Up(2));
    }
    world.act(&Act::Down(2));
    world.act(&Act::Down(2));
    assert_eq!(waiting(&world, 1), 12);
    // The leader goes on, and so does the session.
    for _ in 0..12 {
        world.act(&Act::Up(1));
    }
    world.heal();
    assert_eq!(world.replied, u64::from(10 * RUN));
}

#[test]
fn no_replica_sends_a_client_away_for_longer_than_a_second() {
    let mut world = open_world();
    world.act(&Act::Submit(1));
    let retry_after_us = u32::MAX;
    let refusal = refused(SESSION, 1, Reason::Busy { retry_after_us });
    world.session.on_message(world.now, ReplicaId(1), refusal);
    assert!(world.session.deadline() <= Some(world.now.plus(1_000 * MS)));
}

#[test]
fn a_new_leader_is_told_whose_session_it_is_though_nothing_is_to_be_sent() {
    let mut world = open_world();
    world.act(&Act::Lead(2));
    // Who led before, and who leads now.
    world.act(&Act::Down(2));
    world.act(&Act::Down(2));
    assert_eq!(waiting(&world, 2), 1);
    world.act(&Act::Up(2));
    assert!(world.attached.contains(&2));
    // One that forgot is told again, once, and gets everything again.
    world.attached.clear();
    for _ in 0..3 {
        world.act(&Act::Submit(10_000));
    }
    for _ in 0..3 {
        world.act(&Act::Up(2));
    }
    for _ in 0..3 {
        world.act(&Act::Down(2));
    }
    assert_eq!(waiting(&world, 2), 4);
    world.heal();
    assert_eq!(world.replied, 30_000);
}

#[test]
fn of_commands_whose_replies_are_gone_it_is_told_that_they_were_executed_and_the_session_goes_on() {
    let mut world = open_world();
    world.act(&Act::Submit(3));
    let gone = |first, end| ServerMessage::Gone {
        session: SESSION,
        first: CommandNumber(first),
        end: CommandNumber(end),
    };
    for (first, end) in [(1, 3), (1, 3), (1, 9), (3, 3)] {
        world
            .session
            .on_message(world.now, ReplicaId(1), gone(first, end));
    }
    let lost = Event::Gone {
        first: CommandNumber(1),
        count: 2,
    };
    assert_eq!(world.session.event(), Some(lost));
    assert_eq!(world.session.event(), None);
    assert_eq!(world.session.outstanding(), 1);
    assert!(world.session.is_open());
}

#[test]
fn a_session_that_closes_says_so_to_whoever_leads_until_it_is_closed() {
    let mut world = open_world();
    world.act(&Act::Submit(1));
    assert!(world.session.close(world.now));
    assert!(!world.session.close(world.now));
    world.settle();
    // Behind what was sent before.
    assert_eq!(waiting(&world, 1), 2);
    world.act(&Act::Disconnect(1));
    world.act(&Act::Lead(2));
    // Who led before, and who leads now.
    world.act(&Act::Down(2));
    world.act(&Act::Down(2));
    assert_eq!(waiting(&world, 2), 3);
    for _ in 0..3 {
        world.act(&Act::Up(2));
    }
    assert!(world.closed);
    world.act(&Act::Down(2));
    world.act(&Act::Down(2));
    assert_eq!(world.session.id(), None);
    assert_eq!(world.session.deadline(), None);
}
