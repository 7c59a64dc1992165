//! The event loop: what it asks the WAL to read, for whom, and what it answers.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};

use synod_engine::client::{ClientMessage, Reason, ServerMessage};
use synod_engine::codec;
use synod_engine::config::Config;
use synod_engine::driver::{CLIENT_MALFORMED_MAX, Driver, Stopped};
use synod_engine::ids::{Ballot, ClientId, Lsn, ReplicaId, Slot, Time};
use synod_engine::machine::LogMachine;
use synod_engine::message::{Chosen, Message, Record, StateHash, Value};
use synod_engine::recovery::{Hole, OnDisk, Recovery};
use synod_engine::seams::{Arrival, Frame, Lane, Network, Wal, WalFailed, WalRead};
use synod_engine::snapshot::NoSnapshots;

use super::one::{MS, chosen, config, fetch};

/// A disk and a network that note what they are asked.
#[derive(Default)]
struct World {
    durable: u64,
    /// Whether the reader takes no question.
    busy: bool,
    reads: Vec<(Slot, Slot)>,
    answers: VecDeque<WalRead>,
    sent: Vec<(ReplicaId, Message)>,
    replies: Vec<ServerMessage>,
    expelled: Vec<ClientId>,
}

#[derive(Clone, Default)]
struct Handle(Rc<RefCell<World>>);

impl Wal for Handle {
    fn append(&mut self, _lsn: Lsn, _record: &Record) {}

    fn submit(&mut self) {}

    fn durable(&mut self) -> Result<Lsn, WalFailed> {
        Ok(Lsn(self.0.borrow().durable))
    }

    fn read(&mut self, from: Slot, through: Slot, _bytes_max: usize) -> bool {
        let mut world = self.0.borrow_mut();
        if !world.busy {
            world.reads.push((from, through));
        }
        !world.busy
    }

    fn take_read(&mut self) -> Result<Option<WalRead>, WalFailed> {
        Ok(self.0.borrow_mut().answers.pop_front())
    }

    fn trim(&mut self, _floor: Slot) {}

    fn counters(&self, _report: &mut dyn FnMut(&'static str, u64)) {}
}

impl Network for Handle {
    fn send(&mut self, to: ReplicaId, _lane: Lane, frame: Frame) {
        let message = codec::decode(joined(&frame)).expect("our own frame");
        if !matches!(message, Message::Heartbeat(_)) {
            self.0.borrow_mut().sent.push((to, message));
        }
    }

    fn reply(&mut self, _client: ClientId, frame: Bytes) {
        let message = ServerMessage::decode(frame.slice(4..)).expect("our own frame");
        self.0.borrow_mut().replies.push(message);
    }

    fn expel(&mut self, client: ClientId) {
        self.0.borrow_mut().expelled.push(client);
    }

    fn announce(&mut self, _frame: Bytes) {}

    fn flush(&mut self) {}

    fn counters(&self, _report: &mut dyn FnMut(&'static str, u64)) {}
}

/// A frame as it comes in: without its length.
fn joined(frame: &Frame) -> Bytes {
    let mut joined = BytesMut::from(&frame.head[4..]);
    joined.extend_from_slice(&frame.body);
    joined.freeze()
}

fn arrival(from: u8, message: &Message) -> Arrival {
    Arrival::Peer {
        from: ReplicaId(from),
        frame: joined(&codec::encode(message)),
    }
}

/// Replica 1 of three with two slots chosen, of which `recover` says how they are recovered.
struct Fixture {
    driver: Driver<Handle, Handle, LogMachine>,
    world: Handle,
}

impl Fixture {
    fn new(config: Config, recover: impl FnOnce(&mut Recovery<LogMachine>)) -> Fixture {
        let world = Handle::default();
        let mut recovery = Recovery::new(config, LogMachine::default());
        recover(&mut recovery);
        let (wal, network) = (world.clone(), world.clone());
        let driver = recovery
            .start(
                Time(0),
                wal,
                network,
                NoSnapshots::default(),
                OnDisk {
                    // It took part before, so that it has a vote.
                    promised: super::ballot(0, 1),
                    ..OnDisk::default()
                },
            )
            .expect("nothing was trimmed");
        world.0.borrow_mut().durable = driver.replica().durable().0;
        Fixture { driver, world }
    }

    /// Both slots are in the WAL, and none of them in memory.
    fn with_two_slots() -> Fixture {
        let mut config = config(3);
        config.limits.cache_bytes_max = 0;
        Fixture::new(config, |recovery| {
            for slot in [1, 2].map(Slot) {
                let record = Record::Chosen {
                    slot,
                    value: no_command(),
                };
                recovery.visit(Lsn(slot.0), record);
            }
        })
    }

    fn turn(&mut self, ms: u64, mut arrivals: Vec<Arrival>) {
        self.driver
            .turn(Time(ms * MS), &mut arrivals)
            .expect("the disk does not fail");
    }

    fn answer(&mut self, from: u64, values: Vec<Value>) {
        let from = Slot(from);
        let answer = WalRead { from, values };
        self.world.0.borrow_mut().answers.push_back(answer);
    }

    fn count(&self, wanted: &str) -> u64 {
        let mut found = None;
        self.driver.report(&mut |name, value| {
            if name == wanted {
                found = Some(value);
            }
        });
        found.unwrap_or_else(|| panic!("nothing is called {wanted}"))
    }
}

/// A value that is not empty and does nothing.
fn no_command() -> Value {
    let mut value = BytesMut::new();
    super::one::request(0).put(&mut value);
    value.freeze()
}

#[test]
fn what_left_memory_is_read_for_the_peer_that_asked() {
    let mut fixture = Fixture::with_two_slots();
    fixture.turn(1, vec![arrival(2, &fetch(1, 9)), arrival(3, &fetch(2, 2))]);
    let reads = [(Slot(1), Slot(2)), (Slot(2), Slot(2))];
    assert_eq!(fixture.world.0.borrow().reads, reads);
    assert!(fixture.world.0.borrow().sent.is_empty());
    fixture.answer(1, vec![Value::from_static(b"a"), Value::from_static(b"b")]);
    fixture.turn(2, Vec::new());
    let sent = |fixture: &Fixture| fixture.world.0.borrow().sent.clone();
    let answered = vec![(ReplicaId(2), chosen(1, &["a", "b"]))];
    assert_eq!(sent(&fixture), answered);
    // What can't be read is not answered: the peer asks somebody else.
    fixture.answer(2, Vec::new());
    fixture.turn(3, Vec::new());
    assert_eq!(sent(&fixture), answered);
    assert_eq!(fixture.count("reads_dropped"), 0);
}

#[test]
fn only_so_many_reads_wait_and_the_rest_is_dropped_and_counted() {
    let mut fixture = Fixture::with_two_slots();
    let flood = || vec![arrival(2, &fetch(1, 2)); 18];
    fixture.turn(1, flood());
    assert_eq!(fixture.world.0.borrow().reads.len(), 16);
    assert_eq!(fixture.count("reads_dropped"), 2);
    fixture.answer(1, vec![no_command()]);
    fixture.turn(2, Vec::new());
    fixture.turn(3, flood());
    assert_eq!(fixture.world.0.borrow().reads.len(), 17);
    assert_eq!(fixture.count("reads_dropped"), 19);
    let mut busy = Fixture::with_two_slots();
    busy.world.0.borrow_mut().busy = true;
    busy.turn(1, flood());
    assert_eq!(busy.count("reads_dropped"), 18);
}

#[test]
fn what_it_wants_back_itself_is_asked_until_the_reader_takes_it_and_used_at_once() {
    let mut fixture = Fixture::new(config(3), |recovery| {
        let record = |slot| Record::Chosen {
            slot,
            value: no_command(),
        };
        recovery.visit(Lsn(1), record(Slot(1)));
        // Nothing above slot 1 is lost, so slot 2 can be read back.
        recovery.hole(Hole {
            next: Lsn(3),
            promised: Ballot::ZERO,
            trim_floor: Slot(1),
            slot_max: Slot(1),
        });
        recovery.visit(Lsn(3), record(Slot(2)));
    });
    assert_eq!(fixture.driver.state().applied(), Slot(1));
    fixture.world.0.borrow_mut().busy = true;
    fixture.turn(200, Vec::new());
    fixture.world.0.borrow_mut().busy = false;
    fixture.turn(201, Vec::new());
    assert_eq!(fixture.world.0.borrow().reads, [(Slot(2), Slot(2))]);
    fixture.answer(2, vec![no_command()]);
    fixture.turn(202, Vec::new());
    assert_eq!(fixture.driver.deadline(), Time(0));
    fixture.turn(202, Vec::new());
    assert_eq!(fixture.driver.state().applied(), Slot(2));
    assert!(fixture.driver.deadline() > Time(0));
    assert!(fixture.world.0.borrow().sent.is_empty());
    assert_eq!(fixture.count("turns"), 4);
}

#[test]
fn a_turn_is_due_when_the_disk_finished_something() {
    let mut fixture = Fixture::with_two_slots();
    assert!(!fixture.driver.has_durable_news());
    let prepare = super::one::prepare(super::ballot(1, 2));
    fixture.turn(1, vec![arrival(2, &prepare)]);
    assert!(!fixture.driver.has_durable_news());
    fixture.world.0.borrow_mut().durable += 1;
    assert!(fixture.driver.has_durable_news());
    assert!(fixture.world.0.borrow().sent.is_empty());
    fixture.turn(2, Vec::new());
    assert!(!fixture.driver.has_durable_news());
    assert_eq!(fixture.world.0.borrow().sent.len(), 1);
}

#[test]
fn a_client_of_a_follower_is_told_so_and_can_ask_for_the_counters() {
    let mut fixture = Fixture::with_two_slots();
    let client = ClientId(1);
    let frame = |message: ClientMessage| Arrival::Client {
        client,
        frame: message.encode().slice(4..),
    };
    let request = || frame(ClientMessage::Request(super::one::request(0)));
    let open = || frame(ClientMessage::Open { token: 7 });
    fixture.turn(1, vec![open(), request(), open(), request()]);
    for reply in std::mem::take(&mut fixture.world.0.borrow_mut().replies) {
        assert!(matches!(reply, ServerMessage::Refused(r) if r.reason == Reason::NotLeader));
    }
    assert_eq!(fixture.count("refused_not_leader"), 4);
    fixture.turn(2, vec![frame(ClientMessage::Status)]);
    match &fixture.world.0.borrow().replies[..] {
        [ServerMessage::StatusReply(values)] => {
            assert!(values.contains(&("refused_not_leader".to_owned(), 4)));
        }
        other => panic!("{other:?}"),
    };
}

#[test]
fn a_flood_of_questions_for_the_status_builds_one_answer_in_ten_milliseconds() {
    let mut fixture = Fixture::with_two_slots();
    let ask = |client| Arrival::Client {
        client: ClientId(client),
        frame: ClientMessage::Status.encode().slice(4..),
    };
    let mut flood = vec![ask(1); 1 << 16];
    flood.push(ask(2));
    fixture.turn(1, flood.clone());
    assert_eq!(fixture.count("status_built"), 1);
    assert_eq!(fixture.world.0.borrow().replies.len(), 2);
    fixture.turn(2, flood);
    assert_eq!(fixture.count("status_built"), 1);
    assert_eq!(fixture.driver.deadline(), Time(11 * MS));
    fixture.turn(11, Vec::new());
    assert_eq!(fixture.count("status_built"), 2);
    assert_eq!(fixture.world.0.borrow().replies.len(), 4);
    assert_eq!(fixture.count("status_coalesced"), 2 * ((1 << 16) - 1));
}

#[test]
fn a_client_whose_frames_are_no_messages_is_expelled_and_not_listened_to() {
    let mut fixture = Fixture::with_two_slots();
    let from = |client, frame: &'static [u8]| Arrival::Client {
        client: ClientId(client),
        frame: Bytes::from_static(frame),
    };
    let status = || Arrival::Client {
        client: ClientId(1),
        frame: ClientMessage::Status.encode().slice(4..),
    };
    let max = CLIENT_MALFORMED_MAX as usize;
    let mut arrivals = vec![from(1, b"garbage"); max - 1];
    arrivals.extend([from(2, b"garbage"), status()]);
    fixture.turn(1, arrivals);
    assert!(fixture.world.0.borrow().expelled.is_empty());
    assert_eq!(fixture.world.0.borrow().replies.len(), 1);
    fixture.turn(20, vec![from(1, b"garbage"); 1000]);
    assert_eq!(fixture.world.0.borrow().expelled, [ClientId(1)]);
    assert_eq!(fixture.count("clients_expelled"), 1);
    assert_eq!(fixture.count("frames_malformed"), max as u64 + 1);
    fixture.turn(40, vec![status()]);
    assert_eq!(fixture.world.0.borrow().replies.len(), 1);
}

/// Replica 1 of three, which compares states at every second slot, and applied slots 1 to 4 in one turn.
fn at_slot_four() -> Fixture {
    let mut config = config(3);
    config.limits.state_hash_slots = 2;
    let mut fixture = Fixture::new(config, |_| {});
    let mut values = Vec::new();
    values.resize(4, no_command());
    let chosen = Message::Chosen(Chosen {
        from: Slot(1),
        values,
    });
    fixture.turn(1, vec![arrival(2, &chosen)]);
    assert_eq!(fixture.driver.state().applied(), Slot(4));
    fixture
}

fn said(hash: StateHash) -> Message {
    Message::StateHash(hash)
}

#[test]
fn every_peer_is_told_the_state_at_every_so_many_slots_and_an_equal_one_is_counted() {
    let mut fixture = at_slot_four();
    let own = fixture.driver.state().hash();
    assert_eq!(own.slot, Slot(4));
    let sent = std::mem::take(&mut fixture.world.0.borrow_mut().sent);
    let told = |to: u8, slot: u64| {
        let of_it = |(peer, message): &&(ReplicaId, Message)| {
            *peer == ReplicaId(to)
                && matches!(message, Message::StateHash(hash) if hash.slot == Slot(slot))
        };
        sent.iter().filter(of_it).count()
    };
    for peer in [2, 3] {
        assert_eq!([1, 2, 3, 4].map(|slot| told(peer, slot)), [0, 1, 0, 1]);
    }
    assert!(sent.contains(&(ReplicaId(3), said(own))));
    fixture.turn(2, vec![arrival(2, &said(own)), arrival(3, &said(own))]);
    assert_eq!(fixture.count("state_hashes_equal"), 2);
    assert_eq!(fixture.count("state_divergences"), 0);
    // Nothing new is applied, nothing is said.
    let states = |fixture: &Fixture| {
        let world = fixture.world.0.borrow();
        let hashes =
            |(_, message): &&(ReplicaId, Message)| matches!(message, Message::StateHash(_));
        world.sent.iter().filter(hashes).count()
    };
    fixture.turn(100, Vec::new());
    assert_eq!(states(&fixture), 0);
}

#[test]
fn a_replica_that_two_others_contradict_stops_and_says_what_all_of_them_have() {
    let mut fixture = at_slot_four();
    let own = fixture.driver.state().hash();
    let other = StateHash {
        machine: 0xabc,
        ..own
    };
    fixture.turn(2, vec![arrival(2, &said(other))]);
    assert_eq!(fixture.count("state_divergences"), 1);
    let report = fixture.driver.take_divergence().expect("it is reported");
    assert!(report.to_string().contains("no majority"), "{report}");
    assert_eq!(fixture.driver.take_divergence(), None);
    let mut arrivals = vec![arrival(3, &said(other))];
    let stopped = fixture.driver.turn(Time(3 * MS), &mut arrivals);
    let Err(Stopped::Diverged(divergence)) = stopped else {
        panic!("{stopped:?}");
    };
    let text = divergence.to_string();
    let own = format!("replica 1 has machine {:016x}", own.machine);
    let wanted = ["(this one) after slot 4", &own, "--readmit"];
    for wanted in wanted
        .into_iter()
        .chain(["replica 3 has machine 0000000000000abc"])
    {
        assert!(text.contains(wanted), "{wanted} is missing: {text}");
    }
}

#[test]
fn what_peers_said_ahead_is_compared_when_this_replica_comes_there() {
    let mut fixture = at_slot_four();
    let ahead = StateHash {
        slot: Slot(6),
        machine: 1,
        sessions: 1,
    };
    fixture.turn(2, vec![arrival(2, &said(ahead)), arrival(3, &said(ahead))]);
    assert_eq!(fixture.count("state_divergences"), 0);
    let values = vec![no_command(), no_command()];
    let chosen = Message::Chosen(Chosen {
        from: Slot(5),
        values,
    });
    let mut arrivals = vec![arrival(2, &chosen)];
    let stopped = fixture.driver.turn(Time(3 * MS), &mut arrivals);
    assert!(matches!(stopped, Err(Stopped::Diverged(_))), "{stopped:?}");
}
