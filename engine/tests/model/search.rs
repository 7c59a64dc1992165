//! The search: breadth first over every interleaving within a scope, so that a violation has the shortest path.

use std::fmt::Write;
use std::time::{Duration, Instant};

use synod_engine::ids::ReplicaId;

use crate::model::fingerprint::Role;
use crate::model::intern::QuickMap;
use crate::model::node::peers;
use crate::model::property::Violation;
use crate::model::scope::{Bug, PROPOSERS, REPLICAS, Scope};
use crate::model::universe::{Move, Step, Universe};
use crate::model::words;

/// The whole cluster, as numbers of the universe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct State {
    cores: [u32; REPLICAS as usize],
    /// Everything that each replica ever sent.
    mails: [u32; REPLICAS as usize],
    spent: Spent,
}

/// What the scope bounds, as far as it is used up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Spent {
    stands: [u8; PROPOSERS as usize],
    requests: u8,
    crashes: u8,
}

/// How a state was reached first.
#[derive(Clone, Copy)]
struct Arrival {
    before: u32,
    replica: u8,
    by: Move,
}

/// What a search that found no violation has seen.
#[derive(Clone, Copy, Debug)]
pub struct Explored {
    pub states: usize,
    pub transitions: u64,
    /// Moves on the longest shortest path.
    pub depth: u32,
    pub local_states: usize,
    pub local_steps: usize,
    /// States in which some replica knows of each number of chosen slots.
    pub took: Duration,
}

/// A violation with the shortest path to it, in words.
#[derive(Debug)]
pub struct Found {
    pub violation: Violation,
    pub path: String,
    pub moves: usize,
}

pub struct Search {
    universe: Universe,
    seen: QuickMap<State, u32>,
    arrivals: Vec<Arrival>,
    next: Vec<(State, u32)>,
    transitions: u64,
}

impl Search {
    /// Walks through the whole scope, or up to the first violation.
    pub fn run(scope: &Scope) -> Result<Explored, Box<Found>> {
        let started = Instant::now();
        let mut search = Search::new(scope);
        let mut depth = 0;
        let mut now = std::mem::take(&mut search.next);
        loop {
            for (state, number) in now.drain(..) {
                search.expand(state, number)?;
            }
            if search.next.is_empty() {
                break;
            }
            depth += 1;
            std::mem::swap(&mut now, &mut search.next);
        }
        let (local_states, local_steps) = search.universe.sizes();
        Ok(Explored {
            states: search.seen.len(),
            transitions: search.transitions,
            depth,
            local_states,
            local_steps,
            took: started.elapsed(),
        })
    }

    fn new(scope: &Scope) -> Search {
        let universe = Universe::new(scope.clone());
        let state = State {
            cores: universe.beginning(),
            mails: [0; REPLICAS as usize],
            spent: Spent::default(),
        };
        let mut search = Search {
            universe,
            seen: QuickMap::default(),
            arrivals: Vec::new(),
            next: Vec::new(),
            transitions: 0,
        };
        let state = if scope.led { search.lead(state) } else { state };
        search.seen.insert(state, 0);
        search.arrivals.push(Arrival {
            before: 0,
            replica: 0,
            by: Move::Stand,
        });
        search.next.push((state, 0));
        search
    }

    /// Replica 1 leads, everything it sent has arrived and is durable, and the network is empty: the first leader
    /// of a cluster on a calm day.
    fn lead(&mut self, mut state: State) -> State {
        let mut step = |search: &mut Search, state: &mut State, replica: usize, by: Move| {
            let step = search
                .universe
                .step(state.cores[replica], by)
                .unwrap_or_else(|violation| panic!("on a calm day: {violation}"));
            let Some(step) = step else { return };
            state.cores[replica] = step.core;
            state.mails[replica] = search
                .universe
                .posted(state.mails[replica], step.post)
                .unwrap_or_else(|violation| panic!("on a calm day: {violation}"));
        };
        step(self, &mut state, 0, Move::Stand);
        loop {
            let before = state;
            for replica in 0..usize::from(REPLICAS) {
                let node = &self.universe.core(state.cores[replica]).node;
                if node.durable() < node.wal().len() {
                    let all = node.wal().len() as u32;
                    step(self, &mut state, replica, Move::Durable(all));
                }
                for other in peers(ReplicaId(replica as u8 + 1)) {
                    let mail = state.mails[usize::from(other.0) - 1];
                    for number in self.universe.mail(mail).envelopes.clone() {
                        if usize::from(self.universe.envelope(number).to.0) == replica + 1 {
                            step(self, &mut state, replica, Move::Deliver(number));
                        }
                    }
                }
            }
            if state == before {
                state.mails = [0; REPLICAS as usize];
                return state;
            }
        }
    }

    /// Takes every move that is possible in a state.
    fn expand(&mut self, state: State, number: u32) -> Result<(), Box<Found>> {
        for replica in 0..usize::from(REPLICAS) {
            for other in (0..usize::from(REPLICAS)).filter(|other| *other != replica) {
                let arrivals = self
                    .universe
                    .arrivals(state.cores[replica], state.mails[other]);
                let arrivals = arrivals.map_err(|violation| {
                    self.found(violation, number, Some(format!("r{} gets its mail", replica + 1)))
                })?;
                for (by, step) in arrivals.iter() {
                    self.go(state, number, replica, *by, *step, state.spent)?;
                }
            }
            self.own_moves(state, number, replica)?;
        }
        Ok(())
    }

    /// What a replica does without a message: its disk, its clock, its clients, its power supply.
    fn own_moves(&mut self, state: State, number: u32, replica: usize) -> Result<(), Box<Found>> {
        let core = self.universe.core(state.cores[replica]);
        let (durable, appended) = (core.node.durable() as u32, core.node.wal().len() as u32);
        let (role, serves) = (core.role, core.node.replica.serves());
        let spent = state.spent;
        let scope = self.universe.scope.clone();
        for count in durable + 1..=appended {
            self.attempt(state, number, replica, Move::Durable(count), spent)?;
        }
        if role == Role::Leader {
            for peer in peers(ReplicaId(replica as u8 + 1)) {
                let (core, mail) = (state.cores[replica], state.mails[replica]);
                if !self.universe.streams_to(core, mail, peer) {
                    self.attempt(state, number, replica, Move::HearEarly(peer), spent)?;
                }
            }
        }
        if spent.crashes < scope.crashes {
            let after = Spent {
                crashes: spent.crashes + 1,
                ..spent
            };
            let lost = scope.bug == Some(Bug::DiskLosesDurable);
            for keep in if lost { 0 } else { durable }..=appended {
                self.attempt(state, number, replica, Move::Crash { keep }, after)?;
            }
        }
        if replica < usize::from(PROPOSERS) && spent.stands[replica] < scope.stands[replica] {
            let mut after = spent;
            after.stands[replica] += 1;
            self.attempt(state, number, replica, Move::Stand, after)?;
        }
        if serves && spent.requests < scope.requests {
            let after = Spent {
                requests: spent.requests + 1,
                ..spent
            };
            let request = Move::Request(spent.requests);
            self.attempt(state, number, replica, request, after)?;
        }
        Ok(())
    }

    fn attempt(
        &mut self,
        state: State,
        number: u32,
        replica: usize,
        by: Move,
        spent: Spent,
    ) -> Result<(), Box<Found>> {
        let step = self.universe.step(state.cores[replica], by);
        match step {
            Ok(Some(step)) => self.go(state, number, replica, by, step, spent),
            Ok(None) => Ok(()),
            Err(violation) => {
                let words = self.words(replica, by);
                Err(self.found(violation, number, Some(words)))
            }
        }
    }

    /// One transition: the state after it, checked if it is new.
    fn go(
        &mut self,
        state: State,
        before: u32,
        replica: usize,
        by: Move,
        step: Step,
        spent: Spent,
    ) -> Result<(), Box<Found>> {
        self.transitions += 1;
        let mail = self.universe.posted(state.mails[replica], step.post);
        let mail = mail.map_err(|violation| {
            let words = self.words(replica, by);
            self.found(violation, before, Some(words))
        })?;
        let mut after = State { spent, ..state };
        after.cores[replica] = step.core;
        after.mails[replica] = mail;
        let number = self.arrivals.len() as u32;
        let entry = self.seen.entry(after).or_insert(number);
        if *entry != number {
            return Ok(());
        }
        self.arrivals.push(Arrival {
            before,
            replica: replica as u8,
            by,
        });
        self.check(state, after, replica, by)
            .map_err(|violation| self.found(violation, number, None))?;
        self.next.push((after, number));
        Ok(())
    }

    fn check(
        &mut self,
        before: State,
        after: State,
        replica: usize,
        by: Move,
    ) -> Result<(), Violation> {
        let core = after.cores[replica];
        if by == Move::Stand {
            self.universe.check_fresh(core, before.mails[replica])?;
        }
        self.universe.check_backed(core, after.mails[replica])?;
        self.universe
            .check_agreement(after.cores, after.spent.requests)
    }

    fn found(&self, violation: Violation, at: u32, last: Option<String>) -> Box<Found> {
        let mut moves = Vec::new();
        let mut number = at;
        while number != 0 {
            let arrival = self.arrivals[number as usize];
            moves.push(self.words(usize::from(arrival.replica), arrival.by));
            number = arrival.before;
        }
        moves.reverse();
        moves.extend(last);
        let mut path = String::new();
        for (index, words) in moves.iter().enumerate() {
            let _ = writeln!(path, "{:>4}. {words}", index + 1);
        }
        Box::new(Found {
            violation,
            path,
            moves: moves.len(),
        })
    }

    fn words(&self, replica: usize, by: Move) -> String {
        let id = ReplicaId(replica as u8 + 1);
        match by {
            Move::Deliver(number) => {
                let envelope = self.universe.envelope(number);
                let message = words::of_message(&envelope.message);
                format!("{id} gets from {}: {message}", envelope.from)
            }
            Move::Fetch(number) => {
                let envelope = self.universe.envelope(number);
                let message = words::of_message(&envelope.message);
                format!("{id} gets from {}: {message}; it asks for what it lacks", envelope.from)
            }
            Move::HearEarly(from) => format!("{id} gets an early heartbeat of {from}"),
            Move::Durable(count) => format!("{id}'s disk has finished {count} records"),
            Move::Crash { keep } => {
                format!("{id} crashes and starts again with {keep} records")
            }
            Move::Stand => format!("{id}'s time is over and it stands"),
            Move::Request(index) => {
                format!("a client sends {} to {id}", char::from(b'A' + index))
            }
        }
    }
}
