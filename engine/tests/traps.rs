//! Known ways to get Multi-Paxos wrong (the numbered rows of the table in `ARCHITECTURE.md`), each against the production loop.

mod doubles;

use bytes::Bytes;

use doubles::disk::DiskHandle;
use doubles::outbox::OutboxHandle;
use synod_engine::client::{ClientMessage, Reason, Request, ServerMessage};
use synod_engine::config::Config;
use synod_engine::driver::Driver;
use synod_engine::ids::{
    Ballot, ClientId, CommandNumber, Incarnation, Lsn, ReplicaId, SessionId, Slot, Time,
};
use synod_engine::machine::LogMachine;
use synod_engine::message::{Accept, Message, Prepare, Record};
use synod_engine::output::Output;
use synod_engine::recovery::{OnDisk, Recovery};
use synod_engine::replica::{Input, Replay};
use synod_engine::seams::Arrival;
use synod_engine::sessions::SESSIONS_MAX;
use synod_engine::snapshot::NoSnapshots;

#[test]
fn trap_4_to_accept_at_a_ballot_is_to_promise_it_even_across_a_restart() {
    let ballot = |round, replica| Ballot {
        round,
        replica: ReplicaId(replica),
    };
    let mut replay = Replay::new(Config::new(ReplicaId(1), 3, 1));
    let mut out = Output::default();
    let record = Record::Accepted(Accept {
        ballot: ballot(5, 2),
        slot: Slot(1),
        commit_index: Slot::ZERO,
        value: Bytes::from_static(b"v"),
    });
    replay.record(record, &mut out);
    let mut replica = replay.finish(Time(0), Lsn(1), Incarnation::FOUNDING, &[]);
    assert_eq!(replica.promised(), ballot(5, 2));
    let prepare = Message::Prepare(Prepare {
        ballot: ballot(4, 3),
        commit_index: Slot::ZERO,
    });
    let input = Input::Message {
        from: ReplicaId(3),
        message: prepare,
    };
    replica.step(Time(1), input, &mut out);
    assert_eq!(replica.promised(), ballot(5, 2));
    let rejected = out
        .messages
        .iter()
        .any(|outgoing| matches!(&outgoing.message, Message::Reject(reject) if reject.promised == ballot(5, 2)));
    assert!(rejected, "{:?}", out.messages);
}

/// A lone replica whose disk finishes only what it is told to.
struct Lone {
    driver: Driver<DiskHandle, OutboxHandle, LogMachine>,
    disk: DiskHandle,
    outbox: OutboxHandle,
    now: u64,
}

impl Lone {
    fn new(configure: impl Fn(&mut Config)) -> Lone {
        let mut config = Config::new(ReplicaId(1), 1, 1);
        configure(&mut config);
        config.check().expect("the test's configuration is valid");
        let (disk, outbox) = (DiskHandle::default(), OutboxHandle::default());
        let recovery = Recovery::new(config, LogMachine::default());
        let driver = recovery
            .start(
                Time(0),
                disk.clone(),
                outbox.clone(),
                NoSnapshots::default(),
                OnDisk::default(),
            )
            .expect("nothing was trimmed");
        let mut lone = Lone {
            driver,
            disk,
            outbox,
            now: 0,
        };
        for _ in 0..50 {
            lone.turn(Vec::new());
            lone.finish_disk();
        }
        assert!(lone.driver.replica().serves());
        lone
    }

    fn turn(&mut self, mut arrivals: Vec<Arrival>) {
        self.now += 10_000_000;
        self.driver
            .turn(Time(self.now), &mut arrivals)
            .expect("the disk works");
    }

    fn finish_disk(&mut self) {
        let mut disk = self.disk.0.borrow_mut();
        disk.durable = disk.submitted;
    }

    fn send(&mut self, message: ClientMessage) -> Vec<ServerMessage> {
        let frame = message.encode().slice(4..);
        self.turn(vec![Arrival::Client {
            client: ClientId(1),
            frame,
        }]);
        self.replies()
    }

    fn replies(&mut self) -> Vec<ServerMessage> {
        let replies = std::mem::take(&mut self.outbox.0.borrow_mut().replies);
        replies
            .into_iter()
            .map(|(_, frame)| ServerMessage::decode(frame).expect("our own frame"))
            .collect()
    }

    fn open(&mut self) -> SessionId {
        self.send(ClientMessage::Open { token: 3 });
        self.finish_disk();
        self.turn(Vec::new());
        match &self.replies()[..] {
            [ServerMessage::Opened { session, .. }] => *session,
            other => panic!("{other:?}"),
        }
    }
}

fn request(session: SessionId, number: u64, bytes: usize) -> ClientMessage {
    let mut command = number.to_le_bytes().to_vec();
    command.resize(bytes, 0);
    let mut commands = (bytes as u32).to_le_bytes().to_vec();
    commands.extend(command);
    ClientMessage::Request(Request {
        session,
        first: CommandNumber(number),
        acknowledged: CommandNumber(number),
        count: 1,
        commands: Bytes::from(commands),
    })
}

#[test]
fn trap_28_overload_is_refused_at_the_door_and_passes() {
    const BYTES: usize = 64 << 10;
    let mut lone = Lone::new(|config| {
        config.limits.intake_bytes_max = 2 << 20;
    });
    let session = lone.open();
    // Twice and more of what may wait is offered while the disk stands still.
    let mut next = 1;
    let mut refused = 0;
    for _ in 0..200 {
        for reply in lone.send(request(session, next, BYTES)) {
            match reply {
                ServerMessage::Refused(refusal) => {
                    assert!(
                        matches!(refusal.reason, Reason::Busy { retry_after_us } if retry_after_us > 0)
                    );
                    assert_eq!(refusal.expected, CommandNumber(next));
                    refused += 1;
                }
                other => panic!("{other:?}"),
            }
        }
        if refused == 0 {
            next += 1;
        }
    }
    assert!(refused > 100, "only {refused} were refused");
    let mut waiting = 0;
    lone.driver.report(&mut |name, value| {
        if name == "intake_bytes" {
            waiting = value;
        }
    });
    assert!(waiting <= 2 << 20, "{waiting} bytes wait");
    // The disk goes on: everything admitted is answered, and the door is open again.
    for _ in 0..100 {
        lone.finish_disk();
        lone.turn(Vec::new());
    }
    assert_eq!(lone.replies().len() as u64, next - 1);
    lone.send(request(session, next, BYTES));
    lone.finish_disk();
    lone.turn(Vec::new());
    assert!(matches!(&lone.replies()[..], [ServerMessage::Replies(_)]));
}

#[test]
fn commands_over_the_limit_are_refused_and_the_session_goes_on() {
    let mut lone = Lone::new(|_| {});
    let session = lone.open();
    let limit = 256 << 10;
    match &lone.send(request(session, 1, limit + 1))[..] {
        [ServerMessage::Refused(refused)] => {
            assert_eq!(
                refused.reason,
                Reason::OverLimit {
                    limit: limit as u32
                }
            );
        }
        other => panic!("{other:?}"),
    }
    lone.send(request(session, 1, limit));
    lone.finish_disk();
    lone.turn(Vec::new());
    assert!(matches!(&lone.replies()[..], [ServerMessage::Replies(_)]));
}

#[test]
fn trap_20_a_repeated_request_is_answered_from_the_table() {
    let mut lone = Lone::new(|_| {});
    let session = lone.open();
    lone.send(request(session, 1, 16));
    lone.finish_disk();
    lone.turn(Vec::new());
    let first = lone.replies();
    let records = lone.disk.0.borrow().records.len();
    assert_eq!(lone.send(request(session, 1, 16)), first);
    assert_eq!(
        lone.disk.0.borrow().records.len(),
        records,
        "it was proposed again"
    );
    match &lone.send(request(SessionId(77), 1, 16))[..] {
        [ServerMessage::Refused(refused)] => assert_eq!(refused.reason, Reason::NotAttached),
        other => panic!("{other:?}"),
    }
    let foreign = ClientMessage::Attach {
        session: SessionId(77),
        token: 1,
    };
    match &lone.send(foreign)[..] {
        [ServerMessage::Refused(refused)] => assert_eq!(refused.reason, Reason::UnknownSession),
        other => panic!("{other:?}"),
    }
    match &lone.send(request(session, 5, 16))[..] {
        [ServerMessage::Refused(refused)] => {
            assert_eq!(refused.reason, Reason::Gap);
            assert_eq!(refused.expected, CommandNumber(2));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn absurd_numbers_from_a_client_are_refused() {
    let mut lone = Lone::new(|_| {});
    let session = lone.open();
    for (number, acknowledged) in [(u64::MAX, 0), (u64::MAX, u64::MAX), (0, 0), (0, u64::MAX)] {
        let ClientMessage::Request(mut request) = request(session, number, 16) else {
            unreachable!("it is a request");
        };
        request.acknowledged = CommandNumber(acknowledged);
        lone.send(ClientMessage::Request(request));
        lone.finish_disk();
        lone.turn(Vec::new());
    }
    lone.replies();
    lone.send(request(session, 1, 16));
    lone.finish_disk();
    lone.turn(Vec::new());
    assert!(matches!(&lone.replies()[..], [ServerMessage::Replies(_)]));
}

#[test]
fn garbage_from_peers_and_clients_is_counted_and_changes_nothing() {
    let mut lone = Lone::new(|_| {});
    let session = lone.open();
    let garbage = Bytes::from_static(b"\xffgarbage");
    lone.turn(vec![
        Arrival::Client {
            client: ClientId(1),
            frame: garbage.clone(),
        },
        Arrival::Peer {
            from: ReplicaId(2),
            frame: garbage,
        },
    ]);
    let mut malformed = 0;
    lone.driver.report(&mut |name, value| {
        if name == "frames_malformed" {
            malformed = value;
        }
    });
    assert_eq!(malformed, 2);
    lone.send(request(session, 1, 16));
    lone.finish_disk();
    lone.turn(Vec::new());
    assert!(matches!(&lone.replies()[..], [ServerMessage::Replies(_)]));
}

#[test]
fn a_quiet_session_survives_more_visitors_than_there_may_be_sessions() {
    let mut lone = Lone::new(|_| {});
    let quiet = lone.open();
    for visitor in 0..SESSIONS_MAX as u64 + 300 {
        let open = ClientMessage::Open {
            token: 1_000 + visitor,
        };
        let client = ClientId(100 + visitor);
        lone.turn(vec![Arrival::Client {
            client,
            frame: open.encode().slice(4..),
        }]);
        lone.finish_disk();
        lone.turn(vec![Arrival::ClientGone { client }]);
    }
    lone.replies();
    lone.send(request(quiet, 1, 16));
    lone.finish_disk();
    lone.turn(Vec::new());
    assert!(matches!(&lone.replies()[..], [ServerMessage::Replies(_)]));
    assert_eq!(lone.driver.state().sessions.len(), SESSIONS_MAX);
}
