//! One replica whose peers are played by the test, and whose disk is done at once unless it is told to hang.

use synod_engine::config::Config;
use synod_engine::ids::{Ballot, Incarnation, Lsn, ReplicaId, ReplicaSet, SessionId, Slot, Time};
use synod_engine::message::{
    Accept, Accepted, AcceptedValue, Chosen, Fetch, Heartbeat, HeartbeatRole, Message, Prepare,
    Promise, Record, Reject, Value,
};
use synod_engine::output::{Leadership, Outgoing, Output, ReadForPeer};
use synod_engine::replica::{Input, Replay, Replica};

pub const ME: ReplicaId = ReplicaId(1);
pub const MS: u64 = 1_000_000;

pub struct One {
    pub replica: Replica,
    pub config: Config,
    pub now: u64,
    pub disk_hangs: bool,
    pub records: Vec<Record>,
    pub chosen: Vec<(Slot, Value)>,
    pub reads: Vec<ReadForPeer>,
    /// What the last heartbeat said.
    pub told: Option<Heartbeat>,
    /// What clients were told, each time.
    pub leaderships: Vec<Leadership>,
}

/// Without randomness, so that the tests say who stands when.
pub fn config(replicas: u8) -> Config {
    let mut config = Config::new(ME, replicas, 7);
    config.timers.election_jitter_ns = 1;
    config
}

impl One {
    pub fn new(config: Config) -> One {
        One::restarted(config, Incarnation::FOUNDING, |_, _| {})
    }

    /// After a restart with what `replay` takes from the WAL.
    pub fn restarted(
        config: Config,
        incarnation: Incarnation,
        replay: impl FnOnce(&mut Replay, &mut Output),
    ) -> One {
        let mut replayed = Replay::new(config.clone());
        let mut out = Output::default();
        replay(&mut replayed, &mut out);
        One {
            replica: replayed.finish(Time(0), Lsn(100), incarnation, &[]),
            config,
            now: 0,
            disk_hangs: false,
            records: Vec::new(),
            chosen: out.chosen,
            reads: Vec::new(),
            told: None,
            leaderships: Vec::new(),
        }
    }

    /// One turn; what is sent besides heartbeats.
    pub fn step(&mut self, input: Input) -> Vec<Outgoing> {
        let mut out = Output::default();
        self.replica.step(Time(self.now), input, &mut out);
        self.replica.flush(Time(self.now), &mut out);
        let mut sent = self.collect(out);
        if !self.disk_hangs && self.replica.durable() < self.replica.appended() {
            sent.extend(self.disk());
        }
        sent
    }

    fn collect(&mut self, out: Output) -> Vec<Outgoing> {
        self.records
            .extend(out.records.into_iter().map(|(_, record)| record));
        self.chosen.extend(out.chosen);
        self.reads.extend(out.reads);
        self.leaderships.extend(out.leadership);
        let mut sent = Vec::new();
        for outgoing in out.messages {
            match outgoing.message {
                Message::Heartbeat(heartbeat) => self.told = Some(heartbeat),
                _ => sent.push(outgoing),
            }
        }
        sent
    }

    /// Everything appended is durable.
    pub fn disk(&mut self) -> Vec<Outgoing> {
        self.step(Input::Durable(self.replica.appended()))
    }

    pub fn hear(&mut self, from: u8, message: Message) -> Vec<Outgoing> {
        let from = ReplicaId(from);
        self.step(Input::Message { from, message })
    }

    pub fn at(&mut self, ms: u64) -> &mut One {
        self.now = ms * MS;
        self
    }

    pub fn tick(&mut self) -> Vec<Outgoing> {
        self.step(Input::Deadline)
    }

    /// Every other replica is there and searches for a leader.
    pub fn hear_all(&mut self) {
        for peer in 2..=self.config.replicas {
            self.hear(peer, heartbeat(Ballot::ZERO, HeartbeatRole::Searching, 0));
        }
    }

    /// Becomes a candidate that asks for promises, and says for which ballot.
    pub fn stand(&mut self) -> Ballot {
        self.hear_all();
        self.tick();
        let ballot = self.replica.promised();
        assert_eq!((self.role(), ballot.replica), (HeartbeatRole::Standing, ME));
        ballot
    }

    /// A leader of three that proposed its no-op in slot 1.
    pub fn elected(config: Config) -> (One, Ballot) {
        let mut one = One::new(config);
        let ballot = one.stand();
        one.hear(2, promise(ballot, 0, &[]));
        assert_eq!(one.count("leaderships"), 1);
        (one, ballot)
    }

    /// The same, once the no-op is chosen.
    pub fn established(config: Config) -> (One, Ballot) {
        let (mut one, ballot) = One::elected(config);
        one.hear(2, accepted(ballot, 1));
        assert!(one.replica.serves());
        (one, ballot)
    }

    /// What the last heartbeat said that this replica is.
    pub fn role(&self) -> HeartbeatRole {
        self.told.as_ref().expect("it told something").role
    }

    pub fn count(&self, wanted: &str) -> u64 {
        let mut found = None;
        self.replica.report(&mut |name, value| {
            if name == wanted {
                found = Some(value);
            }
        });
        found.unwrap_or_else(|| panic!("nothing is called {wanted}"))
    }
}

/// What was sent to one replica, or to several at once.
pub fn to(replicas: &[u8], message: Message) -> Outgoing {
    Outgoing {
        to: set(replicas),
        message,
    }
}

pub fn set(replicas: &[u8]) -> ReplicaSet {
    replicas.iter().copied().map(ReplicaId).collect()
}

pub fn value(text: &'static str) -> Value {
    Value::from_static(text.as_bytes())
}

/// A value of so many bytes that belongs to no session.
pub fn request(bytes: usize) -> synod_engine::client::Request {
    synod_engine::client::Request {
        session: SessionId(9),
        first: synod_engine::ids::CommandNumber(1),
        acknowledged: synod_engine::ids::CommandNumber(1),
        count: 0,
        commands: vec![0; bytes].into(),
    }
}

pub fn prepare(ballot: Ballot) -> Message {
    Message::Prepare(Prepare {
        ballot,
        commit_index: Slot::ZERO,
    })
}

pub fn promise(
    ballot: Ballot,
    commit_index: u64,
    accepted: &[(u64, Ballot, &'static str)],
) -> Message {
    Message::Promise(Promise {
        ballot,
        incarnation: Incarnation::FOUNDING,
        commit_index: Slot(commit_index),
        trim_floor: Slot(1),
        accepted: accepted
            .iter()
            .map(|(slot, ballot, text)| AcceptedValue {
                slot: Slot(*slot),
                ballot: *ballot,
                value: value(text),
            })
            .collect(),
    })
}

pub fn accept(ballot: Ballot, slot: u64, commit_index: u64, value: Value) -> Message {
    Message::Accept(Accept {
        ballot,
        slot: Slot(slot),
        commit_index: Slot(commit_index),
        value,
    })
}

pub fn accepted(ballot: Ballot, through: u64) -> Message {
    Message::Accepted(Accepted {
        ballot,
        through: Slot(through),
    })
}

pub fn reject(promised: Ballot) -> Message {
    Message::Reject(Reject { promised })
}

pub fn fetch(from: u64, through: u64) -> Message {
    Message::Fetch(Fetch {
        from: Slot(from),
        through: Slot(through),
    })
}

pub fn chosen(from: u64, texts: &[&'static str]) -> Message {
    Message::Chosen(Chosen {
        from: Slot(from),
        values: texts.iter().map(|text| value(text)).collect(),
    })
}

/// Of a replica that hears everyone.
pub fn heartbeat(ballot: Ballot, role: HeartbeatRole, commit_index: u64) -> Message {
    Message::Heartbeat(Heartbeat {
        ballot,
        role,
        hears: ReplicaSet::first(15),
        commit_index: Slot(commit_index),
        received: Slot(commit_index),
        stored: Slot(commit_index),
        owed_bytes: 0,
        trim_floor: Slot(1),
    })
}

/// Of the leader of `ballot`, which holds every slot up to `commit_index`.
pub fn leading(ballot: Ballot, commit_index: u64) -> Message {
    heartbeat(ballot, HeartbeatRole::Leading, commit_index)
}
