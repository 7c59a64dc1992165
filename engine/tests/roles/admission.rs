//! Well-formed messages of any content, from any peer, to a replica in each of its states: they may be believed, answered
//! or dropped, but never stop it, neither now nor at its next start. What is certainly wrong is refused and counted.

mod said;

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use synod_engine::client::{ClientMessage, Request};
use synod_engine::codec;
use synod_engine::config::BATCH_BYTES_CEILING;
use synod_engine::driver::Driver;
use synod_engine::ids::{
    Ballot, ClientId, CommandNumber, Incarnation, Lsn, ReplicaId, ReplicaSet, SessionId, Slot, Time,
};
use synod_engine::machine::KvMachine;
use synod_engine::members::Readmission;
use synod_engine::message::{
    Accept, Accepted, AcceptedValue, Chosen, Fetch, FetchSnapshot, Heartbeat, HeartbeatRole, Known,
    Message, Prepare, Promise, Record, Reject, SnapshotPart, StateHash, Value,
};
use synod_engine::recovery::{OnDisk, Recovery};
use synod_engine::replica::Input;
use synod_engine::seams::{Arrival, SnapshotInfo};
use synod_engine::snapshot::NoSnapshots;

use super::doubles::disk::DiskHandle;
use super::doubles::outbox::OutboxHandle;
use super::one::{
    MS, One, accept, accepted, chosen, config, heartbeat, leading, prepare, promise, reject,
    request, value,
};
use super::{ballot, rejoining};

use said::{Said, said};

/// What happens to the replica.
#[derive(Clone, Debug)]
enum Event {
    Says(Said),
    Disk,
    Waits { ms: u64 },
    Client { kind: u8, session: u64, first: u64 },
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        12 => said().prop_map(Event::Says),
        1 => Just(Event::Disk),
        2 => (0u64..900).prop_map(|ms| Event::Waits { ms }),
        1 => (0u8..3, 0u64..3, prop_oneof![0u64..3, any::<u64>()])
            .prop_map(|(kind, session, first)| Event::Client { kind, session, first }),
    ]
}

const STATES: u8 = 8;

/// A replica of three in one of its states.
fn in_state(state: u8) -> One {
    match state {
        0 => One::new(config(3)),
        1 => {
            let mut one = One::new(config(3));
            one.stand();
            one
        }
        2 => {
            let mut one = One::new(config(3));
            let own = one.stand();
            one.hear(2, promise(own, 2, &[(3, ballot(0, 2), "c")]));
            one
        }
        3 => One::elected(config(3)).0,
        4 => {
            let mut one = One::established(config(3)).0;
            one.step(Input::Request(request(10)));
            one
        }
        5 => rejoining::with_a_hole(),
        6 => rejoining::of_incarnation(5, None, Ballot::ZERO),
        _ => {
            let mut one = One::new(config(3));
            let part_bytes = one.config.limits.snapshot_part_bytes as usize;
            let part = SnapshotPart {
                snapshot: SnapshotInfo {
                    slot: Slot(9),
                    bytes: 1 << 30,
                    checksum: 1,
                },
                offset: 0,
                bytes: vec![0; part_bytes].into(),
            };
            one.hear(2, Message::SnapshotPart(part));
            assert_eq!(one.count("downloads_begun"), 1);
            one
        }
    }
}

fn happen(one: &mut One, event: &Event) {
    match event {
        Event::Says(said) => {
            let message = said.message(one.replica.promised(), one.replica.commit_index());
            one.hear(said.from, message);
        }
        Event::Disk => {
            one.disk_hangs = !one.disk_hangs;
            if one.replica.durable() < one.replica.appended() {
                one.disk();
            }
        }
        Event::Waits { ms } => {
            one.now += ms * MS;
            one.tick();
        }
        Event::Client { .. } => {
            if one.replica.serves() && one.replica.has_room_for(&request(10)) {
                one.step(Input::Request(request(10)));
            }
        }
    }
    // What it wants to read back from its WAL can't be read.
    for read in std::mem::take(&mut one.reads) {
        if read.to == one.config.replica {
            let (from, values) = (read.from, Vec::new());
            one.step(Input::Recalled { from, values });
        }
    }
}

/// The whole event loop, with clients, a state machine and a disk that is replayed in the end.
struct Loop {
    driver: Driver<DiskHandle, OutboxHandle, KvMachine>,
    disk: DiskHandle,
    now: u64,
}

impl Loop {
    fn start(disk: DiskHandle) -> Loop {
        let mut recovery = Recovery::new(config(3), KvMachine::default());
        for (lsn, record) in &disk.0.borrow().records {
            recovery.visit(*lsn, record.clone());
        }
        let driver = recovery
            .start(
                Time(0),
                disk.clone(),
                OutboxHandle::default(),
                NoSnapshots::default(),
                OnDisk::default(),
            )
            .expect("nothing was trimmed");
        let mut started = Loop {
            driver,
            disk,
            now: 0,
        };
        started.turn(Vec::new());
        started
    }

    fn turn(&mut self, mut arrivals: Vec<Arrival>) {
        self.driver
            .turn(Time(self.now), &mut arrivals)
            .expect("the disk is fine");
        let mut disk = self.disk.0.borrow_mut();
        disk.durable = disk.submitted;
    }

    fn hear(&mut self, from: u8, message: &Message) {
        let frame = codec::encode(message);
        let mut whole = BytesMut::from(&frame.head[4..]);
        whole.extend_from_slice(&frame.body);
        let (from, frame) = (ReplicaId(from), whole.freeze());
        self.turn(vec![Arrival::Peer { from, frame }]);
    }

    /// Leads from here on.
    fn lead(&mut self) {
        for peer in [2, 3] {
            let known = Known {
                took_part: false,
                commit_index: Slot::ZERO,
            };
            self.hear(peer, &Message::Known(known));
        }
        for peer in [2, 3] {
            self.hear(peer, &heartbeat(Ballot::ZERO, HeartbeatRole::Searching, 0));
        }
        self.now += 200 * MS;
        self.turn(Vec::new());
        self.turn(Vec::new());
        let own = self.driver.replica().promised();
        self.hear(2, &promise(own, 0, &[]));
        self.turn(Vec::new());
        self.hear(2, &accepted(own, 1));
        assert!(self.driver.replica().serves());
    }

    fn happen(&mut self, event: &Event) {
        match event {
            Event::Says(said) => {
                let replica = self.driver.replica();
                let message = said.message(replica.promised(), replica.commit_index());
                self.hear(said.from, &message);
            }
            Event::Disk => self.turn(Vec::new()),
            Event::Waits { ms } => {
                self.now += ms * MS;
                self.turn(Vec::new());
            }
            Event::Client {
                kind,
                session,
                first,
            } => {
                let message = match kind {
                    0 => ClientMessage::Open { token: *first },
                    1 => ClientMessage::Status,
                    _ => ClientMessage::Request(Request {
                        session: SessionId(session << 16),
                        first: CommandNumber(*first),
                        acknowledged: CommandNumber(0),
                        count: 1,
                        commands: Bytes::from_static(b"\x01\0\0\0x"),
                    }),
                };
                let (client, frame) = (ClientId(*session), message.encode().slice(4..));
                self.turn(vec![Arrival::Client { client, frame }]);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn no_message_of_a_peer_stops_a_replica_whatever_it_is_doing(
        state in 0..STATES,
        events in proptest::collection::vec(event(), 0..40),
    ) {
        let mut one = in_state(state);
        for event in &events {
            happen(&mut one, event);
        }
    }

    #[test]
    fn no_frame_of_a_peer_stops_the_event_loop_or_its_next_start(
        leads in any::<bool>(),
        events in proptest::collection::vec(event(), 0..40),
    ) {
        let mut running = Loop::start(DiskHandle::default());
        if leads {
            running.lead();
        }
        for event in &events {
            running.happen(event);
        }
        running.turn(Vec::new());
        let again = Loop::start(running.disk.clone());
        prop_assert!(again.driver.replica().promised() >= running.driver.replica().promised());
    }
}

#[test]
fn what_is_said_in_anothers_name_or_out_of_bounds_is_refused_by_its_reason() {
    let far = ballot(u64::MAX, 2);
    let too_long = Value::from(vec![0; BATCH_BYTES_CEILING + 1]);
    for (message, reason) in [
        (prepare(ballot(5, 3)), "ballot"),
        (prepare(far), "round"),
        (accept(ballot(5, 0), 1, 0, value("v")), "ballot"),
        (accept(ballot(5, 16), 1, 0, value("v")), "ballot"),
        (accept(far, 1, 0, value("v")), "round"),
        (accept(ballot(5, 2), 1, 0, too_long.clone()), "bytes"),
        (accept(ballot(5, 2), 0, 0, value("v")), "slot"),
        (accept(ballot(5, 2), u64::MAX, 0, value("v")), "slot"),
        (leading(ballot(5, 3), 0), "ballot"),
        (leading(far, 0), "round"),
        (leading(ballot(5, 2), u64::MAX), "slot"),
        (
            heartbeat(ballot(5, 3), HeartbeatRole::Standing, 0),
            "ballot",
        ),
        (
            heartbeat(ballot(5, 4), HeartbeatRole::Following, 0),
            "ballot",
        ),
        (reject(far), "round"),
        (reject(ballot(5, 4)), "ballot"),
        (accepted(ballot(0, 2), 1), "ballot"),
        (
            promise(ballot(1, 1), 0, &[(u64::MAX, ballot(0, 2), "v")]),
            "count",
        ),
        (
            promise(
                ballot(1, 1),
                0,
                &[(2, ballot(0, 2), "v"), (1, ballot(0, 2), "v")],
            ),
            "count",
        ),
        (
            promise(ballot(1, 1), 0, &[(1, ballot(2, 2), "v")]),
            "ballot",
        ),
        (
            Message::Chosen(Chosen {
                from: Slot(1),
                values: vec![too_long],
            }),
            "bytes",
        ),
        (chosen(u64::MAX, &["v"]), "slot"),
    ] {
        for state in 0..STATES {
            let mut one = in_state(state);
            let (promised, appended) = (one.replica.promised(), one.replica.appended());
            let answers = one.hear(2, message.clone());
            assert_eq!(answers, [], "{state}: {message:?}");
            let counted = one.count(&format!("messages_refused_{reason}"));
            assert_eq!(counted, 1, "{state}: {message:?}");
            let after = (one.replica.promised(), one.replica.appended());
            assert_eq!(after, (promised, appended), "{state}: {message:?}");
        }
    }
}

#[test]
fn no_round_of_a_peer_ends_all_elections() {
    let mut one = One::new(config(3));
    // The highest that is believed, again and again.
    for _ in 0..4 {
        let round = one.replica.promised().round + (1 << 48);
        one.hear(2, prepare(ballot(round, 2)));
        one.now += 5_000 * MS;
        assert_eq!(one.stand().round, round + 1);
    }
}

#[test]
fn a_value_that_is_no_batch_is_nothing_now_and_at_the_next_start() {
    let mut running = Loop::start(DiskHandle::default());
    running.lead();
    running.happen(&Event::Client {
        kind: 0,
        session: 0,
        first: 1,
    });
    let own = running.driver.replica().promised();
    running.hear(2, &accepted(own, 2));
    // Another leads, with a bug: the value of slot 3 is cut off, that of slot 4 is not.
    let leader = ballot(own.round + 1, 3);
    for (slot, poison) in [(3, "no batch"), (4, "")] {
        running.hear(3, &accept(leader, slot, slot - 1, value(poison)));
    }
    running.hear(3, &leading(leader, 4));
    let applied = |running: &Loop| {
        let state = running.driver.state();
        (
            state.applied(),
            state.values_malformed,
            state.sessions.len(),
        )
    };
    assert_eq!(applied(&running), (Slot(4), 1, 1));
    let records = &running.disk.0.borrow().records.clone();
    assert!(
        records
            .iter()
            .any(|(_, record)| matches!(record, Record::Accepted(a) if a.value == "no batch")),
        "{records:?}"
    );
    assert!(running.driver.replica().durable() > Lsn::ZERO);
    // The record of another slot proves to the next start what is chosen.
    running.hear(3, &accept(leader, 5, 4, Value::new()));
    let again = Loop::start(running.disk.clone());
    assert_eq!(applied(&again), (Slot(4), 1, 1));
}
