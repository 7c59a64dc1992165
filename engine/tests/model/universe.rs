//! Every local state, message and step met so far, each computed once by the production code and then remembered:
//! the core is deterministic, so the same event in the same state gives the same result. A state of the cluster is
//! then a handful of numbers (as in Guerraoui and Yabandeh, "Model checking a networked system without the network",
//! NSDI 2011, though here all interleavings are still walked).

use std::rc::Rc;

use synod_engine::ids::{Ballot, ReplicaId, ReplicaSet, Slot};
use synod_engine::message::{Heartbeat, HeartbeatRole, Message};

use crate::model::agreement::{self, Facts};
use crate::model::fingerprint::{self, Fingerprint, Role};
use crate::model::intern::{Interner, QuickMap};
use crate::model::node::{Event, Node, Sent};
use crate::model::property::{Property, Violation, check};
use crate::model::scope::{Bug, REPLICAS, Scope};
use crate::model::{tampering, words};

/// A local state of one replica.
pub struct Core {
    pub node: Node,
    pub role: Role,
    /// The peers to which a leader sends no Accepts yet.
    pub paused: ReplicaSet,
    facts: u32,
}

pub struct Envelope {
    pub from: ReplicaId,
    pub message: Message,
}

/// An event of one replica, by numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Move {
    Deliver(u32),
    Fetch(u32),
    /// The heartbeat that this peer sent before anything happened arrives, late.
    HearEarly(ReplicaId),
    Durable(u32),
    Crash {
        keep: u32,
    },
    Stand,
    Request(u8),
}

/// What a move leads to: the next local state, and what is sent to each replica.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    pub core: u32,
    pub posts: [u16; REPLICAS as usize],
}

/// The number of the mail without envelopes.
pub const EMPTY: u16 = 0;

pub type Steps = Rc<[(Move, Step)]>;

pub struct Universe {
    pub scope: Scope,
    /// What each replica's heartbeats said before anything happened.
    early: Vec<(ReplicaId, Message)>,
    cores: Interner<Fingerprint, Core>,
    facts: Interner<Facts, Facts>,
    envelopes: Interner<String, Envelope>,
    /// Sets of envelopes from one replica to another: what one step sends, and what the network keeps. Number 0 is
    /// the empty set.
    mails: Interner<Vec<u32>, Vec<u32>>,
    steps: QuickMap<(u32, Move), Option<Step>>,
    arrivals: QuickMap<(u32, u16), Steps>,
    posted: QuickMap<(u16, u16), u16>,
    alive: QuickMap<(u16, u32), u16>,
    immortals: QuickMap<u32, u32>,
    agreed: QuickMap<([u32; REPLICAS as usize], u8), ()>,
}

impl Universe {
    /// With the replicas as they are when each has heard of the others, and nothing tampered with yet.
    pub fn new(scope: &Scope) -> Universe {
        let scope = Scope {
            bug: None,
            ..scope.clone()
        };
        let mut nodes: Vec<Node> = (1..=REPLICAS)
            .map(|id| Node::new(&scope, ReplicaId(id)))
            .collect();
        let early = early_heartbeats(&scope, &mut nodes);
        let mut universe = Universe {
            scope,
            early,
            cores: Interner::new(),
            facts: Interner::new(),
            envelopes: Interner::new(),
            mails: Interner::new(),
            steps: QuickMap::default(),
            arrivals: QuickMap::default(),
            posted: QuickMap::default(),
            alive: QuickMap::default(),
            immortals: QuickMap::default(),
            agreed: QuickMap::default(),
        };
        for node in nodes {
            universe.core_of(node);
        }
        assert_eq!(universe.cores.len(), usize::from(REPLICAS));
        assert_eq!(universe.mail_of(Vec::new()), EMPTY);
        universe
    }

    /// From here on things go as the scope says, bug included.
    pub fn begin(&mut self, bug: Option<Bug>) {
        self.scope.bug = bug;
        self.steps.clear();
        self.arrivals.clear();
        self.alive.clear();
    }

    /// The numbers of the local states that the replicas begin with.
    pub fn beginning(&self) -> [u32; REPLICAS as usize] {
        std::array::from_fn(|index| index as u32)
    }

    pub fn core(&self, number: u32) -> &Core {
        self.cores.get(number)
    }

    pub fn mail(&self, number: u16) -> &[u32] {
        self.mails.get(u32::from(number))
    }

    pub fn envelope(&self, number: u32) -> &Envelope {
        self.envelopes.get(number)
    }

    /// Distinct local states, and distinct steps of the production code.
    pub fn sizes(&self) -> (usize, usize) {
        (self.cores.len(), self.steps.len())
    }

    /// What the mail of another replica can do to this one.
    pub fn arrivals(&mut self, core: u32, mail: u16) -> Result<Steps, Violation> {
        if let Some(steps) = self.arrivals.get(&(core, mail)) {
            return Ok(steps.clone());
        }
        let mut steps = Vec::new();
        for envelope in self.mail(mail).to_vec() {
            let mut moves = vec![Move::Deliver(envelope)];
            let heartbeat = matches!(self.envelope(envelope).message, Message::Heartbeat(_));
            if heartbeat && self.scope.fetches && self.core(core).role == Role::Follower {
                moves.push(Move::Fetch(envelope));
            }
            for event in moves {
                if let Some(step) = self.step(core, event)?
                    && (step.core != core || step.posts != [EMPTY; REPLICAS as usize])
                {
                    steps.push((event, step));
                }
            }
        }
        let steps: Steps = steps.into();
        self.arrivals.insert((core, mail), steps.clone());
        Ok(steps)
    }

    /// A move of the replica in this local state, if it is possible.
    pub fn step(&mut self, core: u32, event: Move) -> Result<Option<Step>, Violation> {
        if let Some(step) = self.steps.get(&(core, event)) {
            return Ok(*step);
        }
        let after = self.after(core, event)?;
        let step = after.map(|(node, sent)| Step {
            posts: self.posts_of(node.id(), sent),
            core: self.core_of(node),
        });
        self.steps.insert((core, event), step);
        Ok(step)
    }

    fn after(&self, core: u32, event: Move) -> Result<Option<(Node, Sent)>, Violation> {
        let node = &self.core(core).node;
        let scope = &self.scope;
        match event {
            Move::Deliver(number) => {
                let envelope = self.envelope(number);
                match scope.bug {
                    None => node.after(scope, Event::Deliver(envelope.from, &envelope.message)),
                    Some(bug) => tampering::deliver(scope, bug, node, envelope),
                }
            }
            Move::Fetch(number) => {
                let envelope = self.envelope(number);
                node.after(scope, Event::Fetch(envelope.from, &envelope.message))
            }
            Move::HearEarly(from) => {
                let (_, message) = &self.early[usize::from(from.0) - 1];
                node.after(scope, Event::Deliver(from, message))
            }
            Move::Durable(count) => node.after(scope, Event::Durable(count as usize)),
            Move::Crash { keep } => node.after(
                scope,
                Event::Crash {
                    keep: keep as usize,
                },
            ),
            Move::Stand => {
                let mut heard = self.early.clone();
                heard.retain(|(from, _)| *from != node.id());
                node.after(scope, Event::Stand(&heard))
            }
            Move::Request(index) => node.after(scope, Event::Request(index)),
        }
    }

    /// The same local state when the replica may not crash any more.
    pub fn immortal(&mut self, core: u32) -> u32 {
        if let Some(immortal) = self.immortals.get(&core) {
            return *immortal;
        }
        let immortal = self.core_of(self.core(core).node.immortal(&self.scope));
        self.immortals.insert(core, immortal);
        immortal
    }

    fn core_of(&mut self, node: Node) -> u32 {
        let (fingerprint, role, paused) = fingerprint::of(&self.scope, &node);
        let facts = Facts {
            votes: node.votes(),
            learned: node.learned().to_vec(),
        };
        let facts = self.facts.number(facts, Facts::clone);
        self.cores.number(fingerprint, |_| Core {
            node,
            role,
            paused,
            facts,
        })
    }

    fn posts_of(&mut self, from: ReplicaId, sent: Sent) -> [u16; REPLICAS as usize] {
        let mut posts: [Vec<u32>; REPLICAS as usize] = Default::default();
        for (to, message) in sent {
            let Some(message) = self.relevant(from, message) else {
                continue;
            };
            let key = format!("{from} {to} {message:?}");
            let number = self.envelopes.number(key, |_| Envelope { from, message });
            let post = &mut posts[usize::from(to.0) - 1];
            if let Err(place) = post.binary_search(&number) {
                post.insert(place, number);
            }
        }
        posts.map(|post| self.mail_of(post))
    }

    /// The message as the model keeps it, or nothing for one that is lost. Of the heartbeats only those of leaders are
    /// kept, since they tell followers what is chosen; the others let leaders send again what the network repeats
    /// anyway. Fields that nobody reads who can receive it are made equal: what a leader received and what its disk owes, whom
    /// it hears.
    fn relevant(&self, from: ReplicaId, message: Message) -> Option<Message> {
        match message {
            Message::Heartbeat(heartbeat) if heartbeat.role == HeartbeatRole::Leading => {
                Some(Message::Heartbeat(Heartbeat {
                    hears: ReplicaSet::one(from),
                    received: heartbeat.commit_index,
                    stored: heartbeat.commit_index,
                    owed_bytes: 0,
                    ..heartbeat
                }))
            }
            Message::Heartbeat(_) => None,
            Message::Reject(_) => self.scope.rejects.then_some(message),
            Message::Prepare(_)
            | Message::Promise(_)
            | Message::Accept(_)
            | Message::Accepted(_)
            | Message::Fetch(_)
            | Message::Chosen(_) => Some(message),
            Message::FetchSnapshot(_) | Message::SnapshotPart(_) => {
                unreachable!("nothing is trimmed in so short a history")
            }
            Message::StateHash(_) => unreachable!("the event loop says it, not the core"),
            Message::Known(_) => unreachable!("nobody loses a disk here"),
        }
    }

    fn mail_of(&mut self, envelopes: Vec<u32>) -> u16 {
        let number = self.mails.number(envelopes, Vec::clone);
        u16::try_from(number).expect("fewer than 65,536 sets of messages")
    }

    /// The mail after one more post. What a ballot proposes in a slot must not change.
    pub fn posted(&mut self, mail: u16, post: u16) -> Result<u16, Violation> {
        if let Some(mail) = self.posted.get(&(mail, post)) {
            return Ok(*mail);
        }
        let mut numbers = self.mail(mail).to_vec();
        for number in self.mail(post).to_vec() {
            let repeated = self.check_repeated(&numbers, number)?;
            if (!repeated || self.scope.resends)
                && let Err(place) = numbers.binary_search(&number)
            {
                numbers.insert(place, number);
            }
        }
        let next = self.mail_of(numbers);
        self.posted.insert((mail, post), next);
        Ok(next)
    }

    /// The part of the mail to a replica that can still make a difference there, now or ever.
    pub fn alive(&mut self, mail: u16, core: u32) -> u16 {
        if let Some(alive) = self.alive.get(&(mail, core)) {
            return *alive;
        }
        let mut numbers = self.mail(mail).to_vec();
        numbers.retain(|number| !self.dead(&self.envelope(*number).message, self.core(core)));
        let alive = self.mail_of(numbers);
        self.alive.insert((mail, core), alive);
        alive
    }

    /// Whether a message makes no difference any more. Answers to a proposer count for the candidacy or leadership at
    /// its promise only, and none comes back. A Prepare, Accept or heartbeat below a promise that no crash can take
    /// back is refused for ever. What says nothing new says nothing.
    fn dead(&self, message: &Message, core: &Core) -> bool {
        let node = &core.node;
        let commit_index = node.replica.commit_index();
        let proposes_at =
            |ballot: Ballot| core.role != Role::Follower && ballot == core.node.replica.promised();
        let refused = |ballot: Ballot| !self.scope.rejects && ballot < node.bound_to();
        let known = |slot: Slot| !node.mortal() && slot <= commit_index;
        match message {
            Message::Promise(promise) => !proposes_at(promise.ballot),
            Message::Accepted(accepted) => {
                self.scope.bug != Some(Bug::StaleAcknowledgement)
                    && !(proposes_at(accepted.ballot) && accepted.through > commit_index)
            }
            Message::Prepare(prepare) => refused(prepare.ballot),
            Message::Accept(accept) => {
                refused(accept.ballot)
                    || known(accept.commit_index) && node.has_accepted(accept.ballot, accept.slot)
            }
            Message::Heartbeat(heartbeat) => {
                let old = heartbeat.ballot <= node.replica.promised();
                refused(heartbeat.ballot) || old && known(heartbeat.commit_index)
            }
            Message::Reject(_)
            | Message::Known(_)
            | Message::Fetch(_)
            | Message::Chosen(_)
            | Message::FetchSnapshot(_)
            | Message::SnapshotPart(_)
            | Message::StateHash(_) => false,
        }
    }

    /// Whether this is a Promise, or an Accept of a slot, at a ballot that was answered, or sent, before.
    fn check_repeated(&self, before: &[u32], number: u32) -> Result<bool, Violation> {
        let envelope = self.envelope(number);
        let mut repeated = false;
        for earlier in before.iter().map(|number| self.envelope(*number)) {
            match (&earlier.message, &envelope.message) {
                (Message::Promise(known), Message::Promise(promise)) => {
                    repeated |= known.ballot == promise.ballot;
                }
                (Message::Accept(known), Message::Accept(accept))
                    if (known.ballot, known.slot) == (accept.ballot, accept.slot) =>
                {
                    repeated = true;
                    check(known.value == accept.value, Property::BallotReuse, || {
                        let (slot, ballot) = (accept.slot, accept.ballot);
                        let one = words::of_value(&known.value);
                        let other = words::of_value(&accept.value);
                        format!(
                            "{} proposed both {one} and {other} in {slot} at {ballot}",
                            envelope.from
                        )
                    })?;
                }
                _ => {}
            }
        }
        Ok(repeated)
    }

    pub fn check_agreement(
        &mut self,
        cores: [u32; REPLICAS as usize],
        requests: u8,
    ) -> Result<(), Violation> {
        let numbers = cores.map(|core| self.core(core).facts);
        if self.agreed.contains_key(&(numbers, requests)) {
            return Ok(());
        }
        let facts = numbers.map(|number| self.facts.get(number));
        agreement::check_all(&self.scope, facts, requests)?;
        self.agreed.insert((numbers, requests), ());
        Ok(())
    }
}

/// What each replica says when it has heard of all others, before anything else happens.
fn early_heartbeats(scope: &Scope, nodes: &mut [Node]) -> Vec<(ReplicaId, Message)> {
    let mut heartbeats: Vec<(ReplicaId, Message)> = Vec::new();
    // First what each says by itself, then what it says having heard that.
    for _ in 0..2 {
        let before = std::mem::take(&mut heartbeats);
        for node in nodes.iter_mut() {
            let id = node.id();
            let mut sent = Sent::new();
            for (from, message) in before.iter().filter(|(from, _)| *from != id) {
                let event = Event::Deliver(*from, message);
                let after = node.after(scope, event).expect("nothing can go wrong yet");
                (*node, sent) = after.expect("messages can always arrive");
            }
            if before.is_empty() {
                let after = node.after(scope, Event::Durable(0));
                (*node, sent) = after
                    .expect("nothing can go wrong yet")
                    .expect("it is possible");
            }
            let (_, heartbeat) = sent.pop().expect("a heartbeat is always due");
            heartbeats.push((id, heartbeat));
        }
    }
    for (id, message) in &heartbeats {
        let Message::Heartbeat(heartbeat) = message else {
            panic!("{id} sent {message:?} before anything happened");
        };
        assert_eq!(heartbeat.hears, ReplicaSet::first(REPLICAS));
        assert_eq!(heartbeat.role, HeartbeatRole::Searching);
    }
    heartbeats
}
