//! The client protocol survives the wire, and garbage on it is an error, not a panic.

use proptest::prelude::*;

use bytes::{BufMut, Bytes, BytesMut};
use synod_engine::client::{ClientMessage, Reason, Refused, Replies, Request, ServerMessage};
use synod_engine::ids::{Ballot, CommandNumber, ReplicaId, SessionId};
use synod_engine::reply::{RepliesFrame, Scratch};

fn run(items: &[Vec<u8>]) -> Bytes {
    let mut out = BytesMut::new();
    for item in items {
        out.put_u32_le(item.len() as u32);
        out.put_slice(item);
    }
    out.freeze()
}

proptest! {
    #[test]
    fn requests_and_replies_survive_the_wire(
        session in any::<u64>(),
        first in any::<u32>(),
        items in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..20), 0..10),
    ) {
        let session = SessionId(session);
        let first = CommandNumber(u64::from(first));
        let request = ClientMessage::Request(Request {
            session,
            first,
            acknowledged: first,
            count: items.len() as u32,
            commands: run(&items),
        });
        prop_assert_eq!(ClientMessage::decode(request.encode().slice(4..)), Ok(request));
        let mut scratch = Scratch::default();
        let mut frame = RepliesFrame::new(&mut scratch, session, first);
        for item in &items {
            frame.push(|out| out.put_slice(item));
        }
        let replies = Replies {
            session,
            first,
            count: items.len() as u32,
            replies: run(&items),
        };
        let read: Vec<&[u8]> = replies.iter().collect();
        prop_assert_eq!(read, items);
        let wanted = ServerMessage::Replies(replies.clone());
        let built = frame.finish();
        prop_assert_eq!(&wanted.encode(), &built);
        prop_assert_eq!(ServerMessage::decode(built.slice(4..)), Ok(wanted));
    }

    #[test]
    fn garbage_is_an_error_not_a_panic(garbage in proptest::collection::vec(any::<u8>(), 0..80)) {
        let _ = ClientMessage::decode(Bytes::from(garbage.clone()));
        let _ = ServerMessage::decode(Bytes::from(garbage));
    }
}

#[test]
fn every_other_message_survives_the_wire() {
    let session = SessionId(1);
    for message in [
        ClientMessage::Open { token: 9 },
        ClientMessage::Attach { session, token: 9 },
        ClientMessage::Close { session },
        ClientMessage::Status,
    ] {
        assert_eq!(
            ClientMessage::decode(message.encode().slice(4..)),
            Ok(message)
        );
    }
    let refused = |reason| {
        ServerMessage::Refused(Refused {
            session: SessionId(1),
            expected: CommandNumber(2),
            reason,
        })
    };
    let leader = |leader| ServerMessage::Leader {
        ballot: Ballot {
            round: 3,
            replica: ReplicaId(2),
        },
        leader,
    };
    for message in [
        refused(Reason::Busy { retry_after_us: 5 }),
        refused(Reason::Gap),
        refused(Reason::NotLeader),
        refused(Reason::UnknownSession),
        refused(Reason::NotAttached),
        refused(Reason::OverLimit { limit: 7 }),
        ServerMessage::Closed { session },
        ServerMessage::Gone {
            session,
            first: CommandNumber(3),
            end: CommandNumber(5),
        },
        leader(None),
        leader(Some(ReplicaId(2))),
        ServerMessage::Opened {
            token: 1,
            session: SessionId(2),
        },
        ServerMessage::StatusReply(vec![("applied".into(), 7)]),
    ] {
        assert_eq!(
            ServerMessage::decode(message.encode().slice(4..)),
            Ok(message)
        );
    }
}

/// Whether a frame is refused when it ends early, or goes on after its end.
fn refuses_any_other_length(frame: &Bytes, decodes: impl Fn(Bytes) -> bool) {
    let frame = frame.slice(4..);
    for length in 0..frame.len() {
        assert!(!decodes(frame.slice(..length)), "{length} of {frame:?}");
    }
    let mut longer = BytesMut::from(&frame[..]);
    longer.put_u8(0);
    assert!(!decodes(longer.freeze()), "one byte more than {frame:?}");
    assert!(decodes(frame));
}

#[test]
fn a_frame_that_ends_early_or_late_is_refused() {
    let items = run(&[b"ab".to_vec(), Vec::new(), b"c".to_vec()]);
    let (session, first) = (SessionId(1), CommandNumber(2));
    let request = Request {
        session,
        first,
        acknowledged: first,
        count: 3,
        commands: items.clone(),
    };
    let replies = Replies {
        session,
        first,
        count: 3,
        replies: items,
    };
    let client = |frame: Bytes| ClientMessage::decode(frame).is_ok();
    refuses_any_other_length(&ClientMessage::Open { token: 1 }.encode(), client);
    refuses_any_other_length(&ClientMessage::Request(request).encode(), client);
    refuses_any_other_length(&ClientMessage::Status.encode(), client);
    let server = |frame: Bytes| ServerMessage::decode(frame).is_ok();
    refuses_any_other_length(&ServerMessage::Replies(replies).encode(), server);
    let status = vec![("applied".into(), 7), (String::new(), 8)];
    refuses_any_other_length(&ServerMessage::StatusReply(status).encode(), server);
    let opened = ServerMessage::Opened { token: 1, session };
    refuses_any_other_length(&opened.encode(), server);
}

#[test]
fn a_run_holds_as_many_commands_as_it_says() {
    for count in 0..5 {
        let request = ClientMessage::Request(Request {
            session: SessionId(1),
            first: CommandNumber(1),
            acknowledged: CommandNumber(1),
            count,
            commands: run(&[b"ab".to_vec(), b"c".to_vec()]),
        });
        let decoded = ClientMessage::decode(request.encode().slice(4..));
        assert_eq!(decoded.is_ok(), count == 2, "{count}");
    }
}
