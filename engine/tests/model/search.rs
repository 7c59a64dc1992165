//! The search: breadth first over every interleaving within a scope, so that a violation has the shortest path.

use std::fmt::{self, Write};
use std::hash::{Hash, Hasher};
use std::time::{Duration, Instant};

use synod_engine::ids::ReplicaId;

use crate::model::intern::QuickMap;
use crate::model::property::Violation;
use crate::model::scope::{Bug, REPLICAS, Scope};
use crate::model::universe::{EMPTY, Move, Step, Universe};
use crate::model::words;

/// The whole cluster, as numbers of the universe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    cores: [u32; REPLICAS as usize],
    /// What the network keeps, by sender and then receiver: everything ever sent that can still make a difference.
    mails: Mails,
    spent: Spent,
}

type Mails = [[u16; REPLICAS as usize]; REPLICAS as usize];

const NO_MAIL: Mails = [[EMPTY; REPLICAS as usize]; REPLICAS as usize];

/// What the scope bounds, as far as it is used up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Spent {
    requests: u8,
    crashes: u8,
}

impl Hash for State {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let [one, two, three] = self.cores.map(u64::from);
        let spent = u64::from(self.spent.requests) << 8 | u64::from(self.spent.crashes);
        hasher.write_u64(one << 32 | two);
        hasher.write_u64(three << 32 | spent);
        // Nobody writes to itself.
        let [[_, a, b], [c, _, d], [e, f, _]] = self.mails.map(|mails| mails.map(u64::from));
        hasher.write_u64(a << 48 | b << 32 | c << 16 | d);
        hasher.write_u64(e << 16 | f);
    }
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
    name: &'static str,
    pub states: usize,
    pub transitions: u64,
    /// Moves on the longest of the shortest paths.
    pub depth: u32,
    local_states: usize,
    local_steps: usize,
    took: Duration,
}

/// A violation with a shortest path to it, in words.
#[derive(Debug)]
pub struct Found {
    pub violation: Violation,
    path: String,
}

impl fmt::Display for Explored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} states, {} transitions, depth {}; {} local states, {} steps of the core; {:.1} s",
            self.name,
            self.states,
            self.transitions,
            self.depth,
            self.local_states,
            self.local_steps,
            self.took.as_secs_f64()
        )
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n{}", self.violation, self.path)
    }
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
            name: scope.name,
            states: search.seen.len(),
            transitions: search.transitions,
            depth,
            local_states,
            local_steps,
            took: started.elapsed(),
        })
    }

    fn new(scope: &Scope) -> Search {
        let universe = Universe::new(scope);
        let state = State {
            cores: universe.beginning(),
            mails: NO_MAIL,
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
        search.universe.begin(scope.bug);
        search.seen.insert(state, 0);
        search.arrivals.push(Arrival {
            before: 0,
            replica: 0,
            by: Move::Stand,
        });
        search.next.push((state, 0));
        search
    }

    /// Replica 1 leads, and everything that was sent has arrived and is durable: the first leader of a cluster on a
    /// calm day. What was sent may arrive again.
    fn lead(&mut self, state: State) -> State {
        let mut state = self.calm(state, 0, Move::Stand);
        loop {
            let before = state;
            for replica in 0..usize::from(REPLICAS) {
                let node = &self.universe.core(state.cores[replica]).node;
                if node.durable() < node.wal().len() {
                    let all = node.wal().len() as u32;
                    state = self.calm(state, replica, Move::Durable(all));
                }
                for other in 0..usize::from(REPLICAS) {
                    for number in self.universe.mail(state.mails[other][replica]).to_vec() {
                        state = self.calm(state, replica, Move::Deliver(number));
                    }
                }
            }
            if state == before {
                return state;
            }
        }
    }

    fn calm(&mut self, state: State, replica: usize, by: Move) -> State {
        let step = self.universe.step(state.cores[replica], by);
        step.and_then(|step| {
            let step = step.expect("on a calm day everything is possible");
            self.after(state, replica, step, state.spent)
        })
        .unwrap_or_else(|violation| panic!("on a calm day: {violation}"))
    }

    /// Takes every move that is possible in a state.
    fn expand(&mut self, state: State, number: u32) -> Result<(), Box<Found>> {
        for replica in 0..usize::from(REPLICAS) {
            for other in (0..usize::from(REPLICAS)).filter(|other| *other != replica) {
                let mail = state.mails[other][replica];
                let arrivals = self.universe.arrivals(state.cores[replica], mail);
                let arrivals = arrivals.map_err(|violation| {
                    self.found(
                        violation,
                        number,
                        Some(format!("r{} gets its mail", replica + 1)),
                    )
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
        let (paused, serves) = (core.paused, core.node.replica.serves());
        let mortal = core.node.mortal();
        let spent = state.spent;
        let scope = self.universe.scope.clone();
        for count in durable + 1..=appended {
            self.attempt(state, number, replica, Move::Durable(count), spent)?;
        }
        for peer in paused.iter() {
            self.attempt(state, number, replica, Move::HearEarly(peer), spent)?;
        }
        if mortal && spent.crashes < scope.crashes {
            let after = Spent {
                crashes: spent.crashes + 1,
                ..spent
            };
            let lost = u32::from(scope.bug == Some(Bug::DiskLosesDurable));
            for keep in durable.saturating_sub(lost)..=appended {
                self.attempt(state, number, replica, Move::Crash { keep }, after)?;
            }
        }
        self.attempt(state, number, replica, Move::Stand, spent)?;
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
        let after = self.after(state, replica, step, spent);
        let after = after.map_err(|violation| {
            let words = self.words(replica, by);
            self.found(violation, before, Some(words))
        })?;
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
        self.universe
            .check_agreement(after.cores, after.spent.requests)
            .map_err(|violation| self.found(violation, number, None))?;
        self.next.push((after, number));
        Ok(())
    }

    /// The state after a step of one replica: its mail is posted, and what became of no use is forgotten.
    fn after(
        &mut self,
        state: State,
        replica: usize,
        step: Step,
        spent: Spent,
    ) -> Result<State, Violation> {
        let mut after = State { spent, ..state };
        after.cores[replica] = step.core;
        for other in (0..usize::from(REPLICAS)).filter(|other| *other != replica) {
            let incoming = &mut after.mails[other][replica];
            *incoming = self.universe.alive(*incoming, step.core);
            if step.posts[other] != EMPTY {
                let outgoing = &mut after.mails[replica][other];
                let posted = self.universe.posted(*outgoing, step.posts[other])?;
                *outgoing = self.universe.alive(posted, after.cores[other]);
            }
        }
        if spent.crashes > state.spent.crashes && spent.crashes == self.universe.scope.crashes {
            after.cores = after.cores.map(|core| self.universe.immortal(core));
        }
        Ok(after)
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
        Box::new(Found { violation, path })
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
                format!(
                    "{id} gets from {}: {message}; it asks for what it lacks",
                    envelope.from
                )
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
