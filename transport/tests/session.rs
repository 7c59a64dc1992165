//! The session against replicas that fail in every way a script can name: whatever happens, each command is
//! executed once and answered once, in order.

use std::collections::{HashMap, HashSet, VecDeque};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use proptest::prelude::*;
use synod_engine::client::{ClientMessage, Reason, Refused, Replies, Request, ServerMessage};
use synod_engine::ids::{Ballot, CommandNumber, ReplicaId, ReplicaSet, SessionId, Time};
use synod_transport::client::session::{Event, Session, SessionConfig, SessionFailed};

const REPLICAS: u8 = 3;
const MS: u64 = 1_000_000;
const SESSION: SessionId = SessionId(9);

/// The cluster as the session sees it: one replicated table, one leader, a stream each way per replica.
struct World {
    now: Time,
    session: Session,
    ballot: Ballot,
    leader: Option<ReplicaId>,
    connected: HashMap<u8, Streams>,
    /// What was executed: replicated, so it survives everything.
    executed: Vec<u64>,
    /// Requests that the leader answers Busy before it takes any.
    busy: u32,
    /// The replicas that know this client at present.
    attached: HashSet<u8>,
    closed: bool,
    submitted: u64,
    replied: u64,
}

#[derive(Default)]
struct Streams {
    up: VecDeque<Bytes>,
    down: VecDeque<ServerMessage>,
}

#[derive(Clone, Debug)]
enum Act {
    Submit(u32),
    /// The replica handles one frame.
    Up(u8),
    /// The client hears one message.
    Down(u8),
    Connect(u8),
    Disconnect(u8),
    Lead(u8),
    LoseLeader,
    Busy(u32),
    /// The last replies are lost with their stream, or come twice.
    RepeatReplies(u8),
    Pass(u64),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let replica = 1..=REPLICAS;
    let act = prop_oneof![
        6 => (1u32..6).prop_map(Act::Submit),
        8 => replica.clone().prop_map(Act::Up),
        8 => replica.clone().prop_map(Act::Down),
        2 => replica.clone().prop_map(Act::Connect),
        2 => replica.clone().prop_map(Act::Disconnect),
        2 => replica.clone().prop_map(Act::Lead),
        1 => Just(Act::LoseLeader),
        1 => (1u32..4).prop_map(Act::Busy),
        1 => replica.prop_map(Act::RepeatReplies),
        2 => (1u64..900).prop_map(Act::Pass),
    ];
    prop::collection::vec(act, 0..200)
}

impl World {
    fn new() -> World {
        let config = SessionConfig {
            replicas: ReplicaSet::first(REPLICAS),
            token: 4,
            outstanding_max: 1_000_000,
            retry_after_ns: 500 * MS,
            deadline_ns: 3_600_000 * MS,
        };
        World {
            now: Time(1),
            session: Session::new(config),
            ballot: Ballot::ZERO,
            leader: None,
            connected: HashMap::new(),
            executed: Vec::new(),
            busy: 0,
            attached: HashSet::new(),
            closed: false,
            submitted: 0,
            replied: 0,
        }
    }

    fn act(&mut self, act: &Act) {
        match act {
            Act::Submit(count) => self.submit(*count),
            Act::Up(replica) => self.up(*replica),
            Act::Down(replica) => self.down(*replica),
            Act::Connect(replica) => self.connect(*replica),
            Act::Disconnect(replica) => {
                if self.connected.remove(replica).is_some() {
                    self.attached.remove(replica);
                    self.session.on_disconnected(ReplicaId(*replica));
                }
            }
            Act::Lead(replica) => self.lead(*replica),
            Act::LoseLeader => self.leader = None,
            Act::Busy(times) => self.busy = *times,
            Act::RepeatReplies(replica) => {
                if let Some(streams) = self.connected.get_mut(replica)
                    && let Some(last) = streams.down.back().cloned()
                {
                    streams.down.push_back(last);
                }
            }
            Act::Pass(millis) => self.now = self.now.plus(millis * MS),
        }
        self.settle();
    }

    fn submit(&mut self, count: u32) {
        let mut run = BytesMut::new();
        for number in self.submitted + 1..=self.submitted + u64::from(count) {
            run.put_u32_le(8);
            run.put_u64_le(number);
        }
        if let Ok(first) = self.session.submit(self.now, run.freeze(), count) {
            assert_eq!(first, CommandNumber(self.submitted + 1));
            self.submitted += u64::from(count);
        }
    }

    fn connect(&mut self, replica: u8) {
        if self.connected.contains_key(&replica) {
            return;
        }
        let mut streams = Streams::default();
        streams.down.push_back(self.announcement());
        self.connected.insert(replica, streams);
        self.session.on_connected(self.now, ReplicaId(replica));
    }

    fn lead(&mut self, replica: u8) {
        self.leader = Some(ReplicaId(replica));
        self.ballot = Ballot {
            round: self.ballot.round + 1,
            replica: ReplicaId(replica),
        };
        let announcement = self.announcement();
        for streams in self.connected.values_mut() {
            streams.down.push_back(announcement.clone());
        }
    }

    fn announcement(&self) -> ServerMessage {
        ServerMessage::Leader {
            ballot: self.ballot,
            leader: self.leader,
        }
    }

    fn up(&mut self, replica: u8) {
        let frame = self
            .connected
            .get_mut(&replica)
            .and_then(|streams| streams.up.pop_front());
        let Some(mut frame) = frame else { return };
        assert_eq!(frame.get_u32_le() as usize, frame.len());
        let message = ClientMessage::decode(frame).expect("well-formed");
        let leads = self.leader == Some(ReplicaId(replica));
        let answer = match message {
            ClientMessage::Attach { session, token } => {
                assert_eq!((session, token), (SESSION, 4));
                self.attached.insert(replica);
                return;
            }
            ClientMessage::Close { session } if leads => {
                assert_eq!(session, SESSION);
                self.closed = true;
                ServerMessage::Closed { session }
            }
            ClientMessage::Close { session } => refused(session, u64::MAX, Reason::NotLeader),
            ClientMessage::Open { token } if leads => {
                self.attached.insert(replica);
                ServerMessage::Opened {
                    token,
                    session: SESSION,
                }
            }
            ClientMessage::Open { .. } => refused(SessionId::NONE, 0, Reason::NotLeader),
            ClientMessage::Request(request) if leads && !self.attached.contains(&replica) => {
                refused(SESSION, request.first.0, Reason::NotAttached)
            }
            ClientMessage::Request(request) => self.request(&request, leads),
            ClientMessage::Status => panic!("nobody asked"),
        };
        let streams = self.connected.get_mut(&replica).expect("connected");
        streams.down.push_back(answer);
    }

    fn request(&mut self, request: &Request, leads: bool) -> ServerMessage {
        assert_eq!(request.session, SESSION);
        assert!(
            request.acknowledged.0 <= self.replied + 1,
            "acknowledged what it never saw"
        );
        let expected = self.executed.len() as u64 + 1;
        if !leads {
            return refused(SESSION, expected, Reason::NotLeader);
        }
        if self.busy > 0 {
            self.busy -= 1;
            // At the door, nobody knows what the session's next command is.
            return refused(
                SESSION,
                request.first.0,
                Reason::Busy {
                    retry_after_us: 2_000,
                },
            );
        }
        if request.first.0 > expected {
            return refused(SESSION, expected, Reason::Gap);
        }
        let mut replies = BytesMut::new();
        for (number, command) in (request.first.0..).zip(request.iter()) {
            if number > self.executed.len() as u64 {
                self.executed
                    .push(u64::from_le_bytes(command.try_into().expect("a number")));
            }
            replies.put_u32_le(8);
            replies.put_u64_le(number);
        }
        ServerMessage::Replies(Replies {
            session: SESSION,
            first: request.first,
            count: request.count,
            replies: replies.freeze(),
        })
    }

    fn down(&mut self, replica: u8) {
        let message = self
            .connected
            .get_mut(&replica)
            .and_then(|streams| streams.down.pop_front());
        if let Some(message) = message {
            self.session
                .on_message(self.now, ReplicaId(replica), message);
        }
    }

    /// What the shell does after each event.
    fn settle(&mut self) {
        self.session.tick(self.now);
        while let Some((to, frame)) = self.session.poll(self.now) {
            let mut whole = BytesMut::from(&frame.head[..]);
            whole.put_slice(&frame.body);
            let streams = self
                .connected
                .get_mut(&to.0)
                .expect("sent to a connected replica");
            streams.up.push_back(whole.freeze());
        }
        while let Some(event) = self.session.event() {
            match event {
                Event::Opened => {}
                Event::Replies(replies) => {
                    assert_eq!(
                        replies.first.0,
                        self.replied + 1,
                        "a reply is missing or repeated"
                    );
                    assert_eq!(replies.iter().count(), replies.count as usize);
                    for reply in replies.iter() {
                        self.replied += 1;
                        assert_eq!(reply, self.replied.to_le_bytes());
                    }
                }
                Event::Gone { .. } => panic!("every reply was kept"),
                Event::Closed => {}
                Event::TimedOut { .. } | Event::Failed(_) => panic!("unexpected: {event:?}"),
            }
        }
        let expected: Vec<u64> = (1..=self.executed.len() as u64).collect();
        assert_eq!(self.executed, expected, "executed twice, or out of order");
    }

    /// Everything heals; the session has to finish.
    fn heal(&mut self) {
        self.busy = 0;
        for replica in 1..=REPLICAS {
            self.act(&Act::Connect(replica));
        }
        if self.leader.is_none() {
            self.lead(2);
        }
        for _ in 0..2_000 {
            for replica in 1..=REPLICAS {
                self.act(&Act::Up(replica));
                self.act(&Act::Down(replica));
            }
            let idle = self
                .connected
                .values()
                .all(|s| s.up.is_empty() && s.down.is_empty());
            if idle && self.session.is_open() && self.session.outstanding() == 0 {
                return;
            }
            if idle {
                self.now = self
                    .session
                    .deadline()
                    .expect("it waits for something")
                    .max(self.now);
                self.settle();
            }
        }
        panic!("the session does not finish");
    }
}

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
