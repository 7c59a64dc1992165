//! Several replicas on the production loop, with simulated time, disks, links and clients.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::Bytes;

use synod_engine::codec;
use synod_engine::config::Config;
use synod_engine::driver::Driver;
use synod_engine::ids::{Ballot, ClientId, Lsn, ReplicaId, Time};
use synod_engine::message::Message;
use synod_engine::recovery::{OnDisk, Recovery};
use synod_engine::seams::{Arrival, Lane};

use super::checker::{History, Witness};
use super::client::Client;
use super::disk::DiskHandle;
use super::network::{Faults, Links, OutboxHandle};
use super::random::Random;

type SimulatedDriver = Driver<DiskHandle, OutboxHandle, Witness>;

const CLIENT_POLL_NS: u64 = 3_000_000;

pub struct Cluster {
    pub now: u64,
    pub random: Random,
    pub faults: Faults,
    pub links: Links,
    pub clients: Vec<Client>,
    pub trace: Vec<String>,
    pub tracing: bool,
    members: Vec<Member>,
    events: BTreeMap<(u64, u64), Event>,
    sequence: u64,
    history: Rc<RefCell<History>>,
    configure: fn(&mut Config),
    seed: u64,
}

struct Member {
    driver: Option<SimulatedDriver>,
    disk: DiskHandle,
    outbox: OutboxHandle,
    /// Counts restarts, so that events for a former life are dropped.
    life: u64,
    promised: Ballot,
    /// Its disk takes writes and finishes none.
    disk_hangs: bool,
    /// When the one pending wake-up of this life is due.
    wake_at: Option<u64>,
}

enum Event {
    Deliver {
        to: ReplicaId,
        life: u64,
        arrival: Arrival,
    },
    Durable {
        at: ReplicaId,
        life: u64,
        lsn: Lsn,
    },
    Wake {
        at: ReplicaId,
        life: u64,
    },
    ToClient {
        client: ClientId,
        frame: Bytes,
    },
    PollClients,
}

impl Cluster {
    pub fn new(replicas: u8, seed: u64, faults: Faults) -> Cluster {
        Cluster::configured(replicas, seed, faults, |_| {})
    }

    pub fn configured(
        replicas: u8,
        seed: u64,
        faults: Faults,
        configure: fn(&mut Config),
    ) -> Cluster {
        let members = (0..replicas)
            .map(|_| Member {
                driver: None,
                disk: DiskHandle::default(),
                outbox: OutboxHandle::default(),
                life: 0,
                promised: Ballot::ZERO,
                disk_hangs: false,
                wake_at: None,
            })
            .collect();
        let mut cluster = Cluster {
            now: 0,
            random: Random::new(seed),
            faults,
            links: Links::default(),
            clients: Vec::new(),
            trace: Vec::new(),
            tracing: false,
            members,
            events: BTreeMap::new(),
            sequence: 0,
            history: Rc::default(),
            configure,
            seed,
        };
        for replica in 1..=replicas {
            cluster.start(ReplicaId(replica));
        }
        cluster.schedule(0, Event::PollClients);
        cluster
    }

    pub fn replicas(&self) -> u8 {
        self.members.len() as u8
    }

    pub fn add_client(&mut self, total: u64, window: u64) {
        let id = self.clients.len() as u64 + 1;
        self.clients.push(Client::new(id, total, window));
    }

    pub fn alive(&self, replica: ReplicaId) -> bool {
        self.members[usize::from(replica.0) - 1].driver.is_some()
    }

    pub fn driver(&self, replica: ReplicaId) -> Option<&SimulatedDriver> {
        self.members[usize::from(replica.0) - 1].driver.as_ref()
    }

    pub fn disk(&self, replica: ReplicaId) -> &DiskHandle {
        &self.members[usize::from(replica.0) - 1].disk
    }

    pub fn serving(&self) -> Option<ReplicaId> {
        (1..=self.replicas()).map(ReplicaId).find(|replica| {
            self.driver(*replica)
                .is_some_and(|driver| driver.replica().serves())
        })
    }

    pub fn counter(&self, replica: ReplicaId, wanted: &str) -> u64 {
        let mut found = 0;
        if let Some(driver) = self.driver(replica) {
            driver.report(&mut |name, value| {
                if name == wanted {
                    found = value;
                }
            });
        }
        found
    }

    pub fn executed(&self) -> usize {
        self.history.borrow().executed.len()
    }

    pub fn start(&mut self, replica: ReplicaId) {
        let count = self.replicas();
        let seed = self.seed ^ self.members[usize::from(replica.0) - 1].life;
        let mut config = Config::new(replica, count, seed);
        (self.configure)(&mut config);
        config.check().expect("the test's configuration is valid");
        let member = &mut self.members[usize::from(replica.0) - 1];
        assert!(member.driver.is_none(), "{replica} runs already");
        let mut recovery = Recovery::new(config, Witness::new(&self.history));
        for (lsn, record) in &member.disk.0.borrow().records {
            recovery.visit(*lsn, record.clone());
        }
        member.outbox = OutboxHandle::default();
        let driver = recovery.start(
            Time(self.now),
            member.disk.clone(),
            member.outbox.clone(),
            OnDisk::default(),
        );
        let driver = driver.expect("nothing was trimmed");
        assert!(
            driver.replica().promised() >= member.promised,
            "{replica} forgot a promise that it had made durable"
        );
        member.driver = Some(driver);
        member.wake_at = None;
        let life = member.life;
        self.wake(replica, life, self.now);
    }

    /// Wakes a replica at its deadline, unless it is woken earlier anyway.
    fn wake(&mut self, at: ReplicaId, life: u64, deadline: u64) {
        let member = &mut self.members[usize::from(at.0) - 1];
        if member.wake_at.is_none_or(|pending| deadline < pending) {
            member.wake_at = Some(deadline);
            self.schedule(deadline, Event::Wake { at, life });
        }
    }

    pub fn hang_disk(&mut self, replica: ReplicaId) {
        self.members[usize::from(replica.0) - 1].disk_hangs = true;
    }

    /// Stops a replica at once. Of what its disk had not finished, a random part survives.
    pub fn crash(&mut self, replica: ReplicaId) {
        let index = usize::from(replica.0) - 1;
        let member = &mut self.members[index];
        if let Some(driver) = member.driver.take() {
            let pending = driver.replica().appended().0 - driver.replica().durable().0;
            let keep = self.random.below(pending + 1) as usize;
            member.disk.0.borrow_mut().crash(keep);
            member.life += 1;
        }
    }

    /// Runs for so many milliseconds of simulated time.
    pub fn run_ms(&mut self, ms: u64) {
        let mut events = 0u64;
        let end = self.now + ms * 1_000_000;
        while let Some(entry) = self.events.first_entry() {
            if entry.key().0 > end {
                break;
            }
            let ((at, _), event) = entry.remove_entry();
            self.now = at.max(self.now);
            events += 1;
            assert!(
                events < 1_000_000,
                "seed {}: a replica spins at {}",
                self.seed,
                self.now
            );
            self.handle(event);
        }
        self.now = end;
    }

    /// Runs until `done`, and fails after `ms` milliseconds of simulated time.
    pub fn run_until(&mut self, ms: u64, what: &str, done: impl Fn(&Cluster) -> bool) {
        let end = self.now + ms * 1_000_000;
        while !done(self) {
            assert!(
                self.now < end,
                "seed {}: no {what} within {ms} ms",
                self.seed
            );
            self.run_ms(5);
        }
    }

    fn schedule(&mut self, at: u64, event: Event) {
        self.sequence += 1;
        self.events.insert((at, self.sequence), event);
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Deliver { to, life, arrival } => self.turn(to, life, vec![arrival]),
            Event::Durable { at, life, lsn } => {
                let member = &self.members[usize::from(at.0) - 1];
                if member.life == life && !member.disk_hangs {
                    let mut disk = member.disk.0.borrow_mut();
                    disk.durable = disk.durable.max(lsn);
                    drop(disk);
                    self.turn(at, life, Vec::new());
                }
            }
            Event::Wake { at, life } => {
                let member = &mut self.members[usize::from(at.0) - 1];
                if member.life == life && member.wake_at == Some(self.now) {
                    member.wake_at = None;
                    self.turn(at, life, Vec::new());
                }
            }
            Event::ToClient { client, frame } => {
                self.clients[client.0 as usize - 1].on_message(frame);
            }
            Event::PollClients => self.poll_clients(),
        }
    }

    fn poll_clients(&mut self) {
        let replicas = self.replicas();
        for index in 0..self.clients.len() {
            let polled = self.clients[index].poll(self.now, replicas, &mut self.random);
            let client = self.clients[index].id;
            if let Some((to, frame)) = polled {
                let life = self.members[usize::from(to.0) - 1].life;
                let arrival = Arrival::Client { client, frame };
                let delay = self.random.between(20, 200) * 1_000;
                self.schedule(self.now + delay, Event::Deliver { to, life, arrival });
            }
        }
        self.schedule(self.now + CLIENT_POLL_NS, Event::PollClients);
    }

    fn turn(&mut self, at: ReplicaId, life: u64, mut arrivals: Vec<Arrival>) {
        let member = &mut self.members[usize::from(at.0) - 1];
        let Some(driver) = member.driver.as_mut().filter(|_| member.life == life) else {
            return;
        };
        let before = driver.replica().promised();
        if driver.turn(Time(self.now), &mut arrivals).is_err() {
            return self.crash(at);
        }
        assert!(driver.replica().promised() >= before, "a promise went back");
        let deadline = driver.deadline().0.max(self.now + 1);
        let submitted = member.disk.0.borrow().submitted;
        self.wake(at, life, deadline);
        if submitted > member_durable(&self.members, at) {
            let delay = self
                .random
                .between(self.faults.disk_min_us, self.faults.disk_max_us);
            let event = Event::Durable {
                at,
                life,
                lsn: submitted,
            };
            self.schedule(self.now + delay * 1_000, event);
        }
        self.post(at);
    }

    /// Picks up what a replica sent: checks it, and hands it to the links.
    fn post(&mut self, from: ReplicaId) {
        let outbox = self.members[usize::from(from.0) - 1].outbox.clone();
        let mut outbox = outbox.0.borrow_mut();
        for (to, lane, frame) in outbox.frames.drain(..) {
            self.check_sent(from, to, &frame);
            self.deliver(from, to, lane, frame);
        }
        for (client, frame) in outbox.replies.drain(..) {
            let delay = self.random.between(20, 200) * 1_000;
            self.schedule(self.now + delay, Event::ToClient { client, frame });
        }
        if let Some(frame) = outbox.announced.take() {
            for index in 0..self.clients.len() {
                let client = self.clients[index].id;
                let frame = frame.clone();
                self.schedule(self.now + 100_000, Event::ToClient { client, frame });
            }
        }
    }

    fn deliver(&mut self, from: ReplicaId, to: ReplicaId, lane: Lane, frame: Bytes) {
        let life = self.members[usize::from(to.0) - 1].life;
        let times = self
            .links
            .arrivals(self.now, from, to, lane, &self.faults, &mut self.random);
        for at in times {
            let arrival = Arrival::Peer {
                from,
                frame: frame.clone(),
            };
            self.schedule(at, Event::Deliver { to, life, arrival });
        }
    }

    /// No Promise and no Accepted leaves before what it says is on disk (trap 1).
    fn check_sent(&mut self, from: ReplicaId, to: ReplicaId, frame: &Bytes) {
        let message = codec::decode(frame.clone()).expect("replicas send well-formed frames");
        let member = &mut self.members[usize::from(from.0) - 1];
        let disk = member.disk.0.borrow();
        match &message {
            Message::Promise(promise) => {
                member.promised = member.promised.max(promise.ballot);
                let durable = disk.durable;
                assert!(
                    disk.records.iter().any(|(lsn, record)| *lsn <= durable
                        && format!("{record:?}").contains(&format!("{:?}", promise.ballot))),
                    "{from} promised {} before it was durable",
                    promise.ballot
                );
            }
            Message::Accepted(accepted) => assert!(
                disk.holds(accepted.through),
                "{from} acknowledged {} before it was durable",
                accepted.through
            ),
            _ => {}
        }
        if self.tracing {
            let line = format!("{} {from}->{to} {message:?}", self.now);
            self.trace.push(line);
        }
    }
}

fn member_durable(members: &[Member], at: ReplicaId) -> Lsn {
    members[usize::from(at.0) - 1].disk.0.borrow().durable
}
