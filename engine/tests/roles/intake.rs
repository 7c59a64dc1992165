//! The door: what is taken in, what is answered again, and what is refused with which reason.

mod fixture;

use bytes::{BufMut, Bytes, BytesMut};

use synod_engine::client::{REQUEST_HEADER_BYTES, Reason, Request, ServerMessage};
use synod_engine::config::Limits;
use synod_engine::ids::{ClientId, CommandNumber, Owner, SessionId, Slot};
use synod_engine::intake::{
    Admission, Attaching, Closing, Counters, Door, Opening, REPEATED_BYTES_PER_TURN_MAX,
};
use synod_engine::machine::LogMachine;
use synod_engine::reply::Scratch;
use synod_engine::sessions::{
    Applied, SESSION_OUTSTANDING_MAX, SESSION_REPLY_BYTES_MAX, SESSIONS_MAX, Sessions, session_id,
};

use fixture::{Fixture, request};

const CLIENT: ClientId = ClientId(3);

fn refused(expected: u64, reason: Reason) -> Admission {
    let expected = CommandNumber(expected);
    Admission::Refuse { expected, reason }
}

#[test]
fn numbers_are_taken_in_one_after_the_other() {
    let mut fixture = Fixture::new();
    assert_eq!(fixture.admit(2, 1), refused(1, Reason::Gap));
    assert_eq!(fixture.admit(1, 2), fixture.admitted(1, 2));
    assert_eq!(fixture.admit(4, 1), refused(3, Reason::Gap));
    // Taken in and not executed yet: the reply comes in time.
    assert_eq!(fixture.admit(1, 2), Admission::Repeat(Vec::new()));
    assert_eq!(fixture.admit(1, 1), Admission::Repeat(Vec::new()));
    assert_eq!(fixture.admit(2, 3), fixture.admitted(3, 2));
    assert_eq!(fixture.admit(5, 1), fixture.admitted(5, 1));
    let counted = Counters {
        requests_admitted: 3,
        requests_repeated: 2,
        refused_gap: 2,
        ..Counters::default()
    };
    assert_eq!(fixture.door.counters, counted);
    assert_eq!(fixture.door.route(fixture.session), Some(CLIENT));
    assert_eq!(fixture.door.route(SessionId(77)), None);
}

#[test]
fn what_has_executed_is_answered_from_the_table() {
    let mut fixture = Fixture::new();
    let (first, second) = (fixture.frame(1, 2), fixture.frame(3, 1));
    let both = vec![first, second.clone()];
    assert_eq!(fixture.admit(1, 3), Admission::Repeat(both.clone()));
    assert_eq!(fixture.admit(3, 1), Admission::Repeat(vec![second.clone()]));
    let rest = request(fixture.session, 4, 1, 1);
    assert_eq!(fixture.admit(2, 3), Admission::Partly(both, rest));
    let rest = request(fixture.session, 5, 2, 1);
    assert_eq!(fixture.admit(3, 4), Admission::Partly(vec![second], rest));
    assert_eq!(fixture.admit(7, 1), fixture.admitted(7, 1));
    assert_eq!(fixture.door.counters.requests_admitted, 3);
    assert_eq!(fixture.door.counters.requests_repeated, 2);
}

#[test]
fn a_late_copy_of_what_its_client_has_replies_to_is_ignored() {
    let mut fixture = Fixture::new();
    fixture.frame(1, 2);
    let mut acknowledging = request(fixture.session, 3, 1, 1);
    acknowledging.acknowledged = CommandNumber(3);
    let Applied::Executed(third) = fixture.execute(&acknowledging) else {
        panic!("command 3 is next");
    };
    assert_eq!(fixture.admit(1, 2), Admission::Repeat(Vec::new()));
    assert_eq!(fixture.admit(2, 2), Admission::Repeat(vec![third.clone()]));
    let rest = request(fixture.session, 4, 1, 1);
    assert_eq!(fixture.admit(2, 3), Admission::Partly(vec![third], rest));
    // Whoever claims replies that do not exist yet loses nothing by it.
    let mut claiming = request(fixture.session, 5, 1, 1);
    claiming.acknowledged = CommandNumber(u64::MAX);
    fixture.execute(&request(fixture.session, 4, 1, 1));
    fixture.execute(&claiming);
    fixture.door.forget_admitted();
    assert_eq!(fixture.admit(6, 1), fixture.admitted(6, 1));
}

#[test]
fn whose_reply_is_gone_must_not_believe_that_nothing_executed() {
    let mut fixture = Fixture::new();
    let run = SESSION_OUTSTANDING_MAX as u32;
    let mut first = 1;
    let mut cached = 0;
    while cached <= SESSION_REPLY_BYTES_MAX {
        cached += fixture.frame(first, run).len();
        first += u64::from(run);
    }
    let gone = |first, end| {
        let message = ServerMessage::Gone {
            session: session_id(Slot(1), 0),
            first: CommandNumber(first),
            end: CommandNumber(end),
        };
        message.encode()
    };
    for _ in 0..2 {
        assert_eq!(fixture.admit(1, 1), Admission::Repeat(vec![gone(1, 2)]));
    }
    // Of a request that is half gone, the other half is answered.
    let (one, two) = (CommandNumber(1), CommandNumber(2));
    let kept = fixture.sessions.cached(fixture.session, one, two);
    let kept = kept.expect("the session is open").from.0;
    let ask = |first, count| {
        let mut request = request(session_id(Slot(1), 0), first, count, 1);
        request.acknowledged = CommandNumber(first);
        request
    };
    let Admission::Repeat(frames) = fixture.offer(ask(kept - 2, 4)) else {
        panic!("all of it was executed");
    };
    assert_eq!(frames.len(), 2);
    assert_eq!(frames[0], gone(kept - 2, kept));
    let Admission::Partly(frames, fresh) = fixture.offer(ask(first - 1, 2)) else {
        panic!("half of it is new");
    };
    assert_eq!((frames.len(), fresh.first.0), (1, first));
}

#[test]
fn a_session_is_used_by_the_connection_that_knows_its_token_and_by_no_other() {
    let mut fixture = Fixture::new();
    let (session, other) = (fixture.session, ClientId(4));
    let frame = fixture.frame(1, 1);
    let mut acknowledging = request(session, 2, 1, 1);
    acknowledging.acknowledged = CommandNumber(u64::MAX);
    let door = fixture.door.clone();
    for (token, reason) in [(2, Reason::UnknownSession), (0, Reason::UnknownSession)] {
        assert_eq!(
            fixture.attach(other, session, token),
            Attaching::Refused(reason)
        );
        let (sessions, limits) = (&fixture.sessions, &fixture.limits);
        for request in [acknowledging.clone(), request(session, 1, 1, 1)] {
            let admission = fixture
                .door
                .admit(other, request.clone(), sessions, true, limits);
            assert_eq!(admission, refused(request.first.0, Reason::NotAttached));
        }
        let closing = fixture.door.close(other, session, sessions);
        assert_eq!(closing, Closing::Refused(Reason::NotAttached));
    }
    // No route, no number and no reply went with that.
    fixture.door.counters = door.counters.clone();
    assert_eq!(format!("{:?}", fixture.door), format!("{door:?}"));
    assert_eq!(fixture.admit(1, 1), Admission::Repeat(vec![frame]));
    assert_eq!(fixture.admit(2, 1), fixture.admitted(2, 1));
    // Its own client over another connection takes it along.
    assert_eq!(fixture.attach(other, session, 1), Attaching::Attached);
    assert_eq!(fixture.admit(3, 1), refused(3, Reason::NotAttached));
    assert_eq!(fixture.door.route(session), Some(other));
    fixture.door.client_gone(CLIENT);
    assert_eq!(fixture.door.route(session), Some(other));
}

#[test]
fn that_a_session_is_over_is_said_only_if_the_log_says_so() {
    let mut fixture = Fixture::new();
    let never = session_id(Slot(1), 7);
    let over = Attaching::Refused(Reason::UnknownSession);
    assert_eq!(fixture.attach(CLIENT, never, 1), over);
    // A later leader may have opened it already.
    let later = session_id(Slot(2), 0);
    assert_eq!(fixture.attach(CLIENT, later, 1), Attaching::Unknown);
    assert_eq!(
        fixture.attach(CLIENT, SessionId::MEMBERS, 1),
        Attaching::Unknown
    );
    assert_eq!(fixture.attach(CLIENT, SessionId::NONE, 0), over);
}

#[test]
fn a_session_is_closed_once_and_its_client_is_told() {
    let mut fixture = Fixture::new();
    let session = fixture.session;
    let close = |fixture: &mut Fixture| fixture.door.close(CLIENT, session, &fixture.sessions);
    assert_eq!(close(&mut fixture), Closing::New(1));
    assert_eq!(close(&mut fixture), Closing::UnderWay);
    // Under another token it would be somebody else's.
    assert_eq!(
        fixture.execute(&Request::close(session, 2)),
        Applied::Skipped
    );
    let end = Request::close(session, 1);
    let applied = fixture.execute(&end);
    assert_eq!(applied, Applied::Closed);
    let closed = ServerMessage::Closed { session }.encode();
    assert_eq!(fixture.door.answer(&end, applied), Some((CLIENT, closed)));
    assert_eq!(fixture.execute(&end), Applied::Unknown);
    assert_eq!(fixture.door.route(session), None);
    assert_eq!(fixture.sessions.counters.sessions_closed, 1);
    assert!(fixture.sessions.is_empty());
    let over = Attaching::Refused(Reason::UnknownSession);
    assert_eq!(fixture.attach(CLIENT, session, 1), over);
}

#[test]
fn without_room_only_repeats_are_answered() {
    let mut fixture = Fixture::new();
    fixture.frame(1, 1);
    fixture.has_room = false;
    for count in 1..=2 {
        match fixture.admit(2, 1) {
            Admission::Refuse { expected, reason } => {
                assert_eq!(expected, CommandNumber(2));
                assert!(matches!(reason, Reason::Busy { retry_after_us } if retry_after_us > 0));
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(fixture.door.counters.refused_busy, count);
    }
    assert!(matches!(fixture.admit(1, 1), Admission::Repeat(frames) if frames.len() == 1));
    fixture.has_room = true;
    assert_eq!(fixture.admit(2, 1), fixture.admitted(2, 1));
}

#[test]
fn requests_and_commands_have_limits_in_bytes() {
    let mut fixture = Fixture::new();
    fixture.limits.request_bytes_max = 1_000;
    fixture.limits.command_bytes_max = 400;
    let over = |limit| refused(1, Reason::OverLimit { limit });
    let mut offer = |count, bytes| fixture.offer(request(fixture.session, 1, count, bytes));
    // Two commands and their lengths, and the header.
    let largest = (1_000 - REQUEST_HEADER_BYTES) / 2 - 4;
    assert_eq!(offer(2, largest + 1), over(1_000));
    assert_eq!(offer(2, largest), over(400));
    assert_eq!(offer(1, 401), over(400));
    assert_eq!(offer(2, 401), over(400));
    assert_eq!(fixture.door.counters.refused_over_limit, 4);
    let fits = request(fixture.session, 1, 2, 400);
    assert_eq!(fixture.offer(fits.clone()), Admission::Admit(fits));
    // Commands that make exactly the limit of a request.
    fixture.limits.command_bytes_max = 1_000;
    let fits = request(fixture.session, 3, 2, largest);
    assert_eq!(fixture.offer(fits.clone()), Admission::Admit(fits));
    assert_eq!(fixture.door.counters.refused_over_limit, 4);
}

#[test]
fn so_many_commands_may_be_outstanding_and_no_more() {
    let mut fixture = Fixture::new();
    let most = SESSION_OUTSTANDING_MAX as u32;
    let mut outstanding = request(fixture.session, 1, most, 0);
    outstanding.acknowledged = CommandNumber(1);
    let mut more = request(fixture.session, 1, most + 1, 0);
    more.acknowledged = CommandNumber(1);
    let limit = Reason::OverLimit { limit: most };
    assert_eq!(fixture.offer(more), refused(1, limit));
    assert_eq!(
        fixture.offer(outstanding.clone()),
        Admission::Admit(outstanding)
    );
}

/// The session of `token` is open: who is told.
fn opened(door: &mut Door, token: u64) -> Option<ClientId> {
    let session = session_id(Slot(1_000), token as usize);
    let answer = door.answer(
        &Request::open(token, Owner::UNNAMED),
        Applied::Opened(session),
    );
    answer.map(|(client, _)| client)
}

#[test]
fn a_token_opens_one_session_for_one_client() {
    let mut door = Door::default();
    assert_eq!(door.opening(7, ClientId(1)), Opening::New);
    assert_eq!(door.opening(7, ClientId(1)), Opening::UnderWay);
    assert_eq!(door.opening(7, ClientId(2)), Opening::Refused);
    assert_eq!(opened(&mut door, 7), Some(ClientId(1)));
    assert_eq!(opened(&mut door, 7), None);
    assert_eq!(door.opening(7, ClientId(2)), Opening::New);
}

#[test]
fn only_so_many_sessions_wait_to_be_opened() {
    let mut door = Door::default();
    let waiting = (0..1_000).take_while(|token| door.opening(*token, CLIENT) == Opening::New);
    assert_eq!(waiting.count(), 256);
    // One that waits already is no further one.
    assert_eq!(door.opening(0, CLIENT), Opening::UnderWay);
    opened(&mut door, 0);
    assert_eq!(door.opening(999, CLIENT), Opening::New);
    assert_eq!(door.opening(1_000, CLIENT), Opening::Refused);
}

#[test]
fn a_client_that_is_gone_waits_for_nothing() {
    let mut fixture = Fixture::new();
    fixture.admit(1, 1);
    fixture.door.opening(7, CLIENT);
    fixture.door.opening(8, ClientId(4));
    fixture.door.client_gone(ClientId(4));
    assert_eq!(fixture.door.route(fixture.session), Some(CLIENT));
    assert_eq!(opened(&mut fixture.door, 8), None);
    assert_eq!(fixture.door.opening(7, CLIENT), Opening::UnderWay);
    fixture.door.client_gone(CLIENT);
    assert_eq!(fixture.door.route(fixture.session), None);
    assert_eq!(opened(&mut fixture.door, 7), None);
}

#[test]
fn a_new_leadership_starts_from_what_has_executed() {
    let mut fixture = Fixture::new();
    fixture.frame(1, 1);
    fixture.admit(2, 3);
    fixture.door.opening(7, CLIENT);
    fixture.door.forget_admitted();
    assert_eq!(opened(&mut fixture.door, 7), None);
    assert_eq!(fixture.admit(2, 1), fixture.admitted(2, 1));
    // Where replies go is known still.
    assert_eq!(fixture.door.route(fixture.session), Some(CLIENT));
}

#[test]
fn what_belongs_to_sessions_that_are_gone_is_dropped_once_it_is_the_larger_part() {
    let mut fixture = Fixture::new();
    let opened = |fixture: &mut Fixture| match fixture.execute(&Request::open(1, Owner::UNNAMED)) {
        Applied::Opened(session) => {
            fixture.attach(CLIENT, session, 1);
            session
        }
        other => panic!("{other:?}"),
    };
    fixture.offer(request(fixture.session, 1, 1, 1));
    while fixture.door.taken() < 2 * SESSIONS_MAX {
        let session = opened(&mut fixture);
        fixture.offer(request(session, 1, 1, 1));
    }
    fixture.door.tidy(&fixture.sessions);
    assert_eq!(fixture.door.taken(), 2 * SESSIONS_MAX);
    let one = opened(&mut fixture);
    fixture.offer(request(one, 1, 1, 1));
    fixture.door.tidy(&fixture.sessions);
    assert_eq!(fixture.door.taken(), SESSIONS_MAX);
    assert_eq!(fixture.door.route(one), Some(CLIENT));
    // What was taken in of the sessions that are still there is known.
    let again = request(one, 1, 1, 1);
    assert_eq!(fixture.offer(again), Admission::Repeat(Vec::new()));
}

#[test]
fn requests_that_come_again_after_a_reconnect_cost_one_frame_each() {
    const REQUESTS: u64 = 2_000;
    let mut fixture = Fixture::new();
    for number in 1..=REQUESTS {
        fixture.frame(number, 1);
    }
    for number in 1..=REQUESTS {
        match fixture.admit(number, 1) {
            Admission::Repeat(frames) => assert_eq!(frames.len(), 1),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(fixture.door.counters.replies_repeated, REQUESTS);
}

#[test]
fn so_many_bytes_are_sent_again_in_one_turn_and_the_rest_comes_back_later() {
    let mut fixture = Fixture::new();
    // One frame of 200 KB, as the replies to that many commands.
    let frame = fixture.frame(1, 50_000);
    let mut sent = 0;
    // Four mebibytes of short requests: each asks for a frame that is thousands of times as long.
    for _ in 0..100_000 {
        match fixture.admit(1, 1) {
            Admission::Repeat(frames) => sent += frames.iter().map(Bytes::len).sum::<usize>(),
            Admission::Refuse { expected, reason } => {
                assert_eq!(expected, CommandNumber(1));
                assert!(matches!(reason, Reason::Busy { .. }));
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(sent < REPEATED_BYTES_PER_TURN_MAX + frame.len(), "{sent}");
    fixture.door.tidy(&fixture.sessions);
    assert!(matches!(fixture.admit(1, 1), Admission::Repeat(_)));
}

#[test]
fn who_is_connected_is_kept_though_it_says_nothing_and_others_come_and_go() {
    let mut fixture = Fixture::new();
    let quiet = fixture.session;
    let mut touched = 0;
    for visitor in 0..2 * SESSIONS_MAX as u64 {
        let client = ClientId(100 + visitor);
        assert_eq!(fixture.door.opening(visitor, client), Opening::New);
        for session in fixture.door.to_touch(Owner::UNNAMED, &fixture.sessions) {
            assert_eq!(session, quiet);
            touched += 1;
            // As long as it is on its way it is not taken in again.
            let again = fixture.door.to_touch(Owner::UNNAMED, &fixture.sessions);
            assert!(again.is_empty());
            let touch = Request::touch(session);
            let applied = fixture.execute(&touch);
            assert_eq!(fixture.door.answer(&touch, applied), None);
        }
        let open = Request::open(visitor, Owner::UNNAMED);
        let applied = fixture.execute(&open);
        fixture.door.answer(&open, applied);
        fixture.door.client_gone(client);
    }
    assert_eq!(fixture.sessions.len(), SESSIONS_MAX);
    assert_eq!(fixture.sessions.last(quiet), Some(CommandNumber(0)));
    // Once each time that it comes to be the first to go.
    assert_eq!(touched, 2);
    // Of a session without a client nothing is known.
    fixture.door.client_gone(CLIENT);
    assert!(
        fixture
            .door
            .to_touch(Owner::UNNAMED, &fixture.sessions)
            .is_empty()
    );
}

#[test]
fn who_finds_no_room_among_active_sessions_is_told_to_come_back() {
    let mut fixture = Fixture::new();
    fixture.door.opening(7, CLIENT);
    let open = Request::open(7, Owner::UNNAMED);
    let (client, frame) = fixture
        .door
        .answer(&open, Applied::Crowded)
        .expect("it waits");
    assert_eq!(client, CLIENT);
    match ServerMessage::decode(frame.slice(4..)) {
        Ok(ServerMessage::Refused(refused)) => {
            assert_eq!(refused.session, SessionId::NONE);
            assert!(matches!(refused.reason, Reason::Busy { .. }));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(fixture.door.opening(7, CLIENT), Opening::New);
}
