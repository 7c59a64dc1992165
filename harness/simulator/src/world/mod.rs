//! A whole cluster with its clients in simulated time: one queue of events, everything else follows.

mod clients;
mod disks;
mod event;
mod healing;
mod lives;
pub mod shapes;
mod strikes;
mod watch;

use std::collections::{BTreeSet, BinaryHeap};

use bytes::Bytes;

use synod_engine::divergence::Divergence;
use synod_engine::driver::Stopped;
use synod_engine::ids::{ClientId, ReplicaId, Slot};
use synod_engine::seams::{Arrival, Lane, WalFailed};

use crate::checker::{Agreement, EQUAL_STATE, MEMORY, Model, Violation, check_work};
use crate::client::Client;
use crate::clock::{Clock, RATE_TRUE_PPM};
use crate::disk;
use crate::faults::{Fault, Strikes};
use crate::links::Links;
use crate::member::{Member, SimulatedDriver};
use crate::milestones::Milestones;
use crate::outbox::Sent;
use crate::random::Random;
use crate::seams::{Honest, Seams};
use crate::swarm::Plan;
use crate::trace::Trace;

use clients::Connection;
use event::{Entry, Event};

/// Frames that wait for a replica that stands still; what comes beyond is dropped, as a full socket would.
const INBOX_FRAMES_MAX: usize = 10_000;

/// Events without an end within one instant are a replica that spins.
const EVENTS_AT_ONCE_MAX: u64 = 200_000;

/// Streams of randomness; each fault has one of its own above these.
mod stream {
    pub const LINKS: u64 = 1;
    pub const DISKS: u64 = 2;
    pub const TURNS: u64 = 3;
    pub const CLIENTS: u64 = 4;
    pub const HEALING: u64 = 5;
    pub const CLOCKS: u64 = 6;
    pub const STORES: u64 = 7;
    pub const CLIENT: u64 = 100;
    pub const FAULT: u64 = 1_000;
}

pub struct World<S: Seams = Honest> {
    pub plan: Plan,
    pub now: u64,
    pub strikes: Strikes,
    pub links: Links,
    pub members: Vec<Member<S>>,
    pub clients: Vec<Client>,
    /// Replies that reached a client and were checked.
    pub operations: u64,
    pub agreement: Agreement,
    pub model: Model,
    /// What replicas said about the states of each other.
    pub divergences: Vec<Divergence>,
    trace: Trace,
    seams: S,
    events: BinaryHeap<Entry>,
    sequence: u64,
    events_at_once: u64,
    violation: Option<Violation>,
    connections: Vec<Connection>,
    sent: Sent,
    /// Random faults are over: what is broken now stays broken, the rest works.
    healed: bool,
    opens_flooded: u64,
    /// Clients that the turn which is being looked at told the status.
    told_status: BTreeSet<ClientId>,
    disks: Random,
    stores: Random,
    turns: Random,
    client_links: Random,
    /// One per fault.
    faults: Vec<Random>,
}

impl World<Honest> {
    pub fn new(plan: Plan) -> World<Honest> {
        World::with(plan, Honest, Trace::default())
    }
}

impl<S: Seams> World<S> {
    /// Starts all replicas and connects the clients of the plan.
    pub fn with(plan: Plan, seams: S, trace: Trace) -> World<S> {
        let seed = plan.seed;
        let links = Random::new(seed, stream::LINKS);
        let mut world = World {
            now: 0,
            strikes: Strikes::default(),
            links: Links::new(plan.replicas, plan.links, links),
            members: Vec::new(),
            clients: Vec::new(),
            operations: 0,
            agreement: Agreement::new(plan.quorums.accept),
            model: Model::default(),
            divergences: Vec::new(),
            trace,
            seams,
            events: BinaryHeap::new(),
            sequence: 0,
            events_at_once: 0,
            violation: None,
            connections: Vec::new(),
            sent: Sent::default(),
            healed: false,
            opens_flooded: 0,
            told_status: BTreeSet::new(),
            disks: Random::new(seed, stream::DISKS),
            stores: Random::new(seed, stream::STORES),
            turns: Random::new(seed, stream::TURNS),
            client_links: Random::new(seed, stream::CLIENTS),
            faults: Fault::ALL
                .iter()
                .map(|fault| Random::new(seed, stream::FAULT + *fault as u64))
                .collect(),
            plan,
        };
        world.add_members();
        for client in world.plan.clients.clone() {
            world.add_client(client);
        }
        for replica in world.replicas() {
            world.start(replica);
        }
        world.schedule_strikes();
        world
    }

    fn add_members(&mut self) {
        let mut clocks = Random::new(self.plan.seed, stream::CLOCKS);
        for id in self.replicas() {
            let shown = clocks.below(1 << 40);
            let mut rate = RATE_TRUE_PPM;
            if self.plan.faults.contains(Fault::ClockDrift) {
                rate = clocks.between(RATE_TRUE_PPM * 9 / 10, RATE_TRUE_PPM * 11 / 10);
                self.strikes.note(Fault::ClockDrift);
            }
            let mut stale_files = 0;
            if self.plan.faults.contains(Fault::StaleSegment) {
                stale_files = self.faults[Fault::StaleSegment as usize].between(1, 3) as usize;
            }
            let disk = disk::initialised(&self.plan, id, stale_files);
            let clock = Clock::new(shown, rate);
            self.members.push(Member::new(id, disk, clock, stale_files));
        }
    }

    /// Every replica of the cluster, running or not.
    pub fn replicas(&self) -> impl Iterator<Item = ReplicaId> + use<S> {
        (1..=self.plan.replicas).map(ReplicaId)
    }

    pub fn member(&self, replica: ReplicaId) -> &Member<S> {
        &self.members[usize::from(replica.0) - 1]
    }

    pub fn member_mut(&mut self, replica: ReplicaId) -> &mut Member<S> {
        &mut self.members[usize::from(replica.0) - 1]
    }

    pub fn alive(&self, replica: ReplicaId) -> bool {
        self.member(replica).running.is_some()
    }

    pub fn driver(&self, replica: ReplicaId) -> Option<&SimulatedDriver<S>> {
        let running = self.member(replica).running.as_ref();
        running.map(|running| &running.driver)
    }

    /// A replica that serves clients, as far as it knows: with the highest promise if there are several.
    pub fn serving(&self) -> Option<ReplicaId> {
        self.replicas()
            .filter(|replica| self.driver(*replica).is_some_and(|d| d.replica().serves()))
            .max_by_key(|replica| self.driver(*replica).map(|d| d.replica().promised()))
    }

    pub fn counter(&self, replica: ReplicaId, name: &str) -> u64 {
        self.member(replica).counter(name)
    }

    pub fn milestones(&self) -> Milestones {
        let mut milestones = Milestones {
            sessions_evicted: self.model.evictions(),
            ..Milestones::default()
        };
        for member in &self.members {
            milestones.merge(&member.milestones);
            milestones.snapshots_durable += member.snapshots.kept();
            milestones.states_compared += member.counter("state_hashes_equal");
        }
        milestones
    }

    /// Commands that the agreed log executes.
    pub fn executed(&self) -> usize {
        self.model.operations()
    }

    /// Cuts both directions between two replicas.
    pub fn cut_both(&mut self, a: ReplicaId, b: ReplicaId) {
        self.links.cut(a, b);
        self.links.cut(b, a);
    }

    /// Runs for so many milliseconds of simulated time.
    pub fn run_ms(&mut self, ms: u64) -> Result<(), Violation> {
        self.run_to(self.now + ms * 1_000_000)
    }

    /// Runs until `done`; it is a violation if that is not within `ms` milliseconds of simulated time.
    pub fn run_until(
        &mut self,
        ms: u64,
        what: &str,
        done: impl Fn(&World<S>) -> bool,
    ) -> Result<(), Violation> {
        let end = self.now + ms * 1_000_000;
        while !done(self) {
            if self.now >= end {
                let what = format!("no {what} within {ms} ms");
                return Err(Violation::new(crate::checker::LIVENESS, what));
            }
            self.run_ms(5)?;
        }
        Ok(())
    }

    /// Runs to this moment of simulated time, in nanoseconds.
    pub fn run_to(&mut self, end: u64) -> Result<(), Violation> {
        while let Some(entry) = self.events.peek() {
            if entry.at > end {
                break;
            }
            let entry = self.events.pop().expect("it was just seen");
            if entry.at > self.now {
                self.now = entry.at;
                self.events_at_once = 0;
            }
            self.events_at_once += 1;
            if self.events_at_once > EVENTS_AT_ONCE_MAX {
                let what = "events follow each other without end".to_string();
                return Err(Violation::new(crate::checker::LIVENESS, what));
            }
            self.handle(entry.event);
            if let Some(violation) = self.violation.take() {
                self.trace_line(format_args!("VIOLATION {violation}"));
                return Err(violation);
            }
        }
        self.now = self.now.max(end);
        Ok(())
    }

    fn trace_line(&mut self, what: std::fmt::Arguments<'_>) {
        self.trace.line(self.now, what);
    }

    fn schedule(&mut self, at: u64, event: Event) {
        self.sequence += 1;
        self.events.push(Entry {
            at,
            sequence: self.sequence,
            event,
        });
    }

    fn violate(&mut self, outcome: Result<(), Violation>) {
        if let Err(violation) = outcome {
            self.violation.get_or_insert(violation);
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Deliver { to, life, arrival } => self.deliver(to, life, arrival),
            Event::Turn { at, life } => {
                let member = self.member_mut(at);
                if member.life == life {
                    member.turn_at = None;
                    self.turn(at);
                }
            }
            Event::Wake { at, life } => self.wake(at, life),
            Event::Written { at, life, write } => self.written(at, life, write),
            Event::Stored { at, life } => self.stored(at, life),
            Event::ToClient { connection, frame } => self.hand_to_client(connection, frame),
            Event::Client { index } => self.client_due(index),
            Event::Connect { client, replica } => self.connect(client, replica),
            Event::Start { replica, life } => {
                if self.member(replica).life == life && !self.alive(replica) {
                    self.start(replica);
                }
            }
            Event::Resume { replica } => self.resume(replica),
            Event::Strike { fault } => self.strike(fault),
            Event::Mend { mending } => self.mend(mending),
        }
    }

    fn deliver(&mut self, to: ReplicaId, life: u64, arrival: Arrival) {
        let member = self.member_mut(to);
        if member.life != life || member.running.is_none() {
            return;
        }
        if member.inbox.len() < INBOX_FRAMES_MAX {
            member.inbox.push(arrival);
        }
        self.turn_soon(to);
    }

    /// Everything that comes until then is taken in one turn.
    fn turn_soon(&mut self, at: ReplicaId) {
        if self.member(at).turn_at.is_none() {
            let due = self.now + self.turns.below(self.plan.turn_ns);
            let member = self.member_mut(at);
            let due = due.max(member.paused_until);
            member.turn_at = Some(due);
            let life = member.life;
            self.schedule(due, Event::Turn { at, life });
        }
    }

    fn wake(&mut self, at: ReplicaId, life: u64) {
        let now = self.now;
        let member = self.member_mut(at);
        if member.life != life || member.wake_at != Some(now) {
            return;
        }
        member.wake_at = None;
        let Some(running) = &member.running else {
            return;
        };
        // The deadline may have moved on since; then this was for nothing.
        if member.clock.at(now) >= running.driver.deadline() {
            self.turn(at);
        } else {
            self.wake_at_deadline(at);
        }
    }

    /// Wakes a replica at its deadline, unless it is woken earlier anyway.
    fn wake_at_deadline(&mut self, at: ReplicaId) {
        let now = self.now;
        let member = self.member_mut(at);
        let Some(running) = &member.running else {
            return;
        };
        let due = member.clock.when(running.driver.deadline(), now + 1);
        let due = due.max(member.paused_until);
        if member.wake_at.is_none_or(|pending| due < pending) {
            member.wake_at = Some(due);
            let life = member.life;
            self.schedule(due, Event::Wake { at, life });
        }
    }

    fn turn(&mut self, at: ReplicaId) {
        let now = self.now;
        let index = usize::from(at.0) - 1;
        let member = &mut self.members[index];
        let Some(running) = &mut member.running else {
            return;
        };
        if now < member.paused_until {
            let life = member.life;
            member.turn_at = Some(member.paused_until);
            let due = member.paused_until;
            return self.schedule(due, Event::Turn { at, life });
        }
        let local = member.clock.at(now);
        // What came during a pause lies in the socket, which is read after the first turn.
        let woke = std::mem::take(&mut member.woke);
        let mut nothing = Vec::new();
        let inbox = if woke {
            &mut nothing
        } else {
            &mut member.inbox
        };
        let outcome = running.driver.turn(local, inbox);
        let divergence = running.driver.take_divergence();
        match outcome {
            Ok(()) => {}
            Err(Stopped::Wal(WalFailed(why))) => return self.wal_failed(at, &why),
            Err(Stopped::Diverged(divergence)) => {
                self.note_divergence(divergence);
                self.member_mut(at).gone = true;
                return self.crash(at);
            }
        }
        if let Some(divergence) = divergence {
            self.note_divergence(divergence);
        }
        let member = &mut self.members[index];
        let running = member.running.as_ref().expect("it goes on");
        let work = running.driver.work();
        let observed = member.observe(now, &mut self.agreement, &mut self.model);
        self.violate(observed);
        self.violate(check_work(at, &work));
        self.start_writes(at);
        self.start_storing(at);
        self.post(at);
        self.wake_at_deadline(at);
        if woke {
            self.turn_soon(at);
        }
    }

    fn note_divergence(&mut self, divergence: Divergence) {
        self.trace_line(format_args!("{divergence}"));
        if self.plan.misapplies.is_none() {
            self.violate(Err(Violation::new(EQUAL_STATE, divergence.to_string())));
        }
        self.divergences.push(divergence);
    }

    fn wal_failed(&mut self, at: ReplicaId, why: &str) {
        let member = self.member(at);
        if !member.failure_expected && !member.disk_is_full {
            let what = format!("the WAL of {at} fails, its disk is sound: {why}");
            self.violate(Err(Violation::new(MEMORY, what)));
        }
        self.trace_line(format_args!("{at} stops: {why}"));
        self.stop_and_restart(at);
    }

    /// Picks up what a replica sent: checks it, and hands it to links and clients.
    fn post(&mut self, from: ReplicaId) {
        let mut sent = std::mem::take(&mut self.sent);
        self.member_mut(from).take_sent(&mut sent);
        if !sent.is_empty() {
            let mut last_checked: *const u8 = std::ptr::null();
            for (to, lane, frame) in sent.frames.drain(..) {
                if frame.as_ptr() != last_checked {
                    self.check_frame(from, &frame);
                    last_checked = frame.as_ptr();
                }
                self.trace_frame(from, to, &frame);
                self.transmit(from, to, lane, frame);
            }
            self.told_status.clear();
            for (client, frame) in sent.replies.drain(..) {
                self.reply(from, client, frame);
            }
            for client in sent.expelled.drain(..) {
                self.expel(from, client);
            }
            if let Some(frame) = sent.announced.take() {
                self.announce(from, frame);
            }
        }
        self.sent = sent;
    }

    fn transmit(&mut self, from: ReplicaId, to: ReplicaId, lane: Lane, frame: Bytes) {
        let life = self.member(to).life;
        let World {
            links,
            strikes,
            events,
            sequence,
            now,
            ..
        } = self;
        links.transmit(*now, (from, to, lane), frame, strikes, |at, frame| {
            *sequence += 1;
            let arrival = Arrival::Peer { from, frame };
            let event = Event::Deliver { to, life, arrival };
            events.push(Entry {
                at,
                sequence: *sequence,
                event,
            });
        });
    }

    /// Every slot up to here was committed by some replica.
    pub fn committed_through(&self) -> Slot {
        self.agreement.committed_through()
    }
}
