//! What a review found, each as the sequence of events that showed it.

mod doubles;

use bytes::{Bytes, BytesMut};

use doubles::disk::DiskHandle;
use doubles::outbox::OutboxHandle;
use synod_engine::client::Request;
use synod_engine::codec;
use synod_engine::config::Config;
use synod_engine::driver::Driver;
use synod_engine::ids::{
    Ballot, CommandNumber, Incarnation, ReplicaId, ReplicaSet, SessionId, Slot, Time,
};
use synod_engine::machine::kv::KvCommand;
use synod_engine::machine::{KvMachine, LogMachine};
use synod_engine::message::{Accept, Chosen, Fetch, Heartbeat, HeartbeatRole, Message, Value};
use synod_engine::persist::{OWED_BYTES_MAX, OWED_RECORD_BYTES};
use synod_engine::recovery::{OnDisk, Recovery};
use synod_engine::reply::{REPLIES_BYTES_MAX, Scratch};
use synod_engine::seams::Arrival;
use synod_engine::sessions::{Applied, SESSIONS_MAX, Sessions, session_id};
use synod_engine::snapshot::NoSnapshots;

const OLD: Ballot = Ballot {
    round: 1,
    replica: ReplicaId(2),
};
const NEW: Ballot = Ballot {
    round: 2,
    replica: ReplicaId(3),
};

/// Replica 1 of 3, whose peers are played by the test and whose disk finishes only what it is told to.
struct One {
    driver: Driver<DiskHandle, OutboxHandle, LogMachine>,
    disk: DiskHandle,
    outbox: OutboxHandle,
    now: u64,
}

impl One {
    fn new(cache_bytes_max: usize) -> One {
        let mut config = Config::new(ReplicaId(1), 3, 1);
        config.limits.cache_bytes_max = cache_bytes_max;
        let (disk, outbox) = (DiskHandle::default(), OutboxHandle::default());
        let driver = Recovery::new(config, LogMachine::default())
            .start(
                Time(0),
                disk.clone(),
                outbox.clone(),
                NoSnapshots::default(),
                // It took part before, so that it has a vote.
                OnDisk {
                    promised: Ballot {
                        round: 0,
                        replica: ReplicaId(1),
                    },
                    ..OnDisk::default()
                },
            )
            .expect("nothing was trimmed");
        One {
            driver,
            disk,
            outbox,
            now: 0,
        }
    }

    fn turn(&mut self, arrivals: Vec<Arrival>) -> Vec<Message> {
        self.now += 1_000_000;
        let mut arrivals = arrivals;
        self.driver
            .turn(Time(self.now), &mut arrivals)
            .expect("the disk does not fail");
        let frames = std::mem::take(&mut self.outbox.0.borrow_mut().frames);
        frames
            .into_iter()
            .map(|(_, _, frame)| codec::decode(frame).expect("our own frame"))
            .collect()
    }

    fn hear(&mut self, from: u8, message: Message) -> Vec<Message> {
        let frame = codec::encode(&message);
        let mut whole = BytesMut::from(&frame.head[4..]);
        whole.extend_from_slice(&frame.body);
        self.turn(vec![Arrival::Peer {
            from: ReplicaId(from),
            frame: whole.freeze(),
        }])
    }

    fn finish_disk(&mut self) {
        let mut disk = self.disk.0.borrow_mut();
        disk.durable = disk.submitted;
    }
}

/// A value whose commands belong to no session, so that they are skipped.
fn value(byte: u8, bytes: usize) -> Value {
    let mut commands = (bytes as u32).to_le_bytes().to_vec();
    commands.resize(4 + bytes, byte);
    let mut out = BytesMut::new();
    let request = Request {
        session: SessionId(9),
        first: CommandNumber(1),
        acknowledged: CommandNumber(1),
        count: 1,
        commands: commands.into(),
    };
    request.put(&mut out);
    out.freeze()
}

fn accept(ballot: Ballot, slot: u64, commit_index: u64, value: Value) -> Message {
    Message::Accept(Accept {
        ballot,
        slot: Slot(slot),
        commit_index: Slot(commit_index),
        value,
    })
}

fn heartbeat(ballot: Ballot, role: HeartbeatRole, commit_index: u64) -> Message {
    Message::Heartbeat(Heartbeat {
        ballot,
        role,
        hears: ReplicaSet::first(3),
        commit_index: Slot(commit_index),
        received: Slot(commit_index),
        stored: Slot(commit_index),
        owed_bytes: 0,
        trim_floor: Slot(1),
    })
}

#[test]
fn an_acknowledgement_at_a_new_ballot_waits_for_the_record_of_that_ballot() {
    let acknowledged = |messages: Vec<Message>| {
        messages
            .iter()
            .any(|message| matches!(message, Message::Accepted(accepted) if accepted.ballot == NEW))
    };
    let mut one = One::new(1 << 20);
    one.hear(2, accept(OLD, 1, 0, value(1, 8)));
    one.finish_disk();
    one.hear(2, accept(OLD, 2, 1, value(2, 8)));
    one.finish_disk();
    one.turn(Vec::new());
    // A repeat of what is chosen, by a new leader: nothing to store but its ballot.
    assert!(!acknowledged(one.hear(3, accept(NEW, 1, 1, value(1, 8)))));
    assert!(!acknowledged(one.turn(Vec::new())));
    one.finish_disk();
    assert!(acknowledged(one.turn(Vec::new())));
}

#[test]
fn a_fetch_is_never_answered_with_a_value_that_was_not_chosen() {
    let mut one = One::new(100);
    // An old leader's value is accepted and durable, and never chosen.
    one.hear(2, accept(OLD, 1, 0, value(0xAA, 8)));
    one.finish_disk();
    one.turn(Vec::new());
    // From here on the disk hangs. A new leader's values come in and are chosen by the other two.
    for slot in 1..=20 {
        one.hear(3, accept(NEW, slot, slot - 1, value(slot as u8, 8)));
    }
    let fetch = Message::Fetch(Fetch {
        from: Slot(1),
        through: Slot(19),
    });
    let mut served = 0;
    for messages in [one.hear(2, fetch), one.turn(Vec::new())] {
        for message in messages {
            if let Message::Chosen(chosen) = message {
                assert_eq!(chosen.values[0], value(1, 8));
                served += 1;
            }
        }
    }
    assert_eq!(served, 1);
}

#[test]
fn a_replica_whose_disk_hangs_stops_fetching() {
    let mut one = One::new(32 << 20);
    one.hear(3, heartbeat(NEW, HeartbeatRole::Leading, 1_000));
    let part = value(7, 900 << 10);
    let mut fetched_bytes = 0;
    for _ in 0..2_000 {
        let mut messages = one.turn(Vec::new());
        messages.extend(one.hear(3, heartbeat(NEW, HeartbeatRole::Leading, 1_000)));
        while let Some(Message::Fetch(fetch)) =
            messages.iter().find(|m| matches!(m, Message::Fetch(_)))
        {
            let chosen = Message::Chosen(Chosen {
                from: fetch.from,
                values: vec![part.clone()],
            });
            fetched_bytes += part.len();
            messages = one.hear(3, chosen);
        }
    }
    assert!(fetched_bytes > OWED_BYTES_MAX, "too little was fetched");
    let mut owed_bytes = 0;
    one.driver.report(&mut |name, value| {
        if name == "owed_bytes" {
            owed_bytes = value as usize;
        }
    });
    assert!(
        owed_bytes <= OWED_BYTES_MAX + part.len() + OWED_RECORD_BYTES,
        "{owed_bytes} bytes wait for a disk that hangs"
    );
    // The disk goes on, and so does the catch-up.
    one.finish_disk();
    let mut again = false;
    for _ in 0..500 {
        let messages = one.hear(3, heartbeat(NEW, HeartbeatRole::Leading, 1_000));
        again |= messages.iter().any(|m| matches!(m, Message::Fetch(_)));
    }
    assert!(again, "it never fetched again");
}

#[test]
fn a_leader_that_never_gets_established_gives_up() {
    let mut one = One::new(32 << 20);
    for _ in 0..600 {
        one.hear(2, heartbeat(Ballot::ZERO, HeartbeatRole::Searching, 0));
        one.finish_disk();
        let messages = one.turn(Vec::new());
        if let Some(Message::Prepare(prepare)) =
            messages.iter().find(|m| matches!(m, Message::Prepare(_)))
        {
            let promise = synod_engine::message::Promise {
                ballot: prepare.ballot,
                incarnation: Incarnation::FOUNDING,
                commit_index: Slot(0),
                trim_floor: Slot(1),
                accepted: Vec::new(),
            };
            one.hear(2, Message::Promise(promise));
            break;
        }
    }
    let count = |one: &One, wanted: &str| {
        let mut found = 0;
        one.driver.report(&mut |name, value| {
            if name == wanted {
                found = value;
            }
        });
        found
    };
    assert_eq!(count(&one, "leaderships"), 1);
    // Its Accept was lost, and so was the Reject of a peer that promised higher meanwhile.
    for _ in 0..3_000 {
        one.hear(2, heartbeat(Ballot::ZERO, HeartbeatRole::Searching, 0));
    }
    assert!(
        count(&one, "step_downs") >= 1,
        "it leads for ever and serves nobody"
    );
}

fn request(session: SessionId, first: u64, commands: &[Bytes]) -> Request {
    let mut encoded = Vec::new();
    for command in commands {
        encoded.extend((command.len() as u32).to_le_bytes());
        encoded.extend_from_slice(command);
    }
    Request {
        session,
        first: CommandNumber(first),
        acknowledged: CommandNumber(first),
        count: commands.len() as u32,
        commands: encoded.into(),
    }
}

#[test]
fn a_small_request_cannot_blow_up_into_gigabytes_of_replies() {
    let mut sessions = Sessions::default();
    let mut machine = KvMachine::default();
    let mut scratch = Scratch::default();
    let mut slot = 0;
    let mut apply = |request: &Request| {
        slot += 1;
        sessions.apply(Slot(slot), 0, request, &mut machine, &mut scratch)
    };
    apply(&request(SessionId::NONE, 7, &[]));
    let session = session_id(Slot(1), 0);
    let put = KvCommand::Put {
        key: b"k",
        value: &vec![7; 250 << 10],
    };
    let get = KvCommand::Get { key: b"k" }.encode().expect("a short key");
    apply(&request(session, 1, &[put.encode().expect("a short key")]));
    match apply(&request(session, 2, &vec![get; 1_000])) {
        Applied::Executed(frame) => {
            assert!(frame.len() > REPLIES_BYTES_MAX / 2);
            assert!(
                frame.len() <= REPLIES_BYTES_MAX + 1_000 * 4,
                "{}",
                frame.len()
            );
        }
        other => panic!("{other:?}"),
    }
    // What found no room was neither copied nor hashed.
    assert!(scratch.bytes_written <= REPLIES_BYTES_MAX as u64);
    assert!(scratch.replies_dropped > 980, "{}", scratch.replies_dropped);
}

#[test]
fn a_flood_of_opens_evicts_the_longest_idle_and_keeps_the_table_bounded() {
    let mut sessions = Sessions::default();
    let mut machine = KvMachine::default();
    let mut scratch = Scratch::default();
    let open = request(SessionId::NONE, 7, &[]);
    for slot in 1..=2 * SESSIONS_MAX as u64 {
        sessions.apply(Slot(slot), 0, &open, &mut machine, &mut scratch);
    }
    assert_eq!(sessions.len(), SESSIONS_MAX);
    assert_eq!(
        sessions.last(session_id(Slot(SESSIONS_MAX as u64), 0)),
        None
    );
    assert!(
        sessions
            .last(session_id(Slot(SESSIONS_MAX as u64 + 1), 0))
            .is_some()
    );
}
