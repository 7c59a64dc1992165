//! One replica of the model: the production core, its disk, and what it ever learned.

use std::panic::{AssertUnwindSafe, catch_unwind};

use synod_engine::ids::{Ballot, Incarnation, Lsn, ReplicaId, Slot, Time};
use synod_engine::message::{Chosen, Message, Promise, Record, Value};
use synod_engine::output::Output;
use synod_engine::replica::{Input, Replay, Replica};

use crate::model::given::Given;
use crate::model::property::{Property, Violation, check};
use crate::model::scope::{Bug, JUMP_NS, REPLICAS, Scope};
use crate::model::words;

#[derive(Clone)]
pub struct Node {
    pub replica: Replica,
    /// This replica's clock. It stands still but for jumps by [`JUMP_NS`].
    now: Time,
    /// Every record appended and not lost; the record at index `i` has the Lsn `i + 1`.
    wal: Vec<Record>,
    /// How many of them the disk has reported as durable.
    durable: usize,
    /// The chosen value of each slot, as far as this replica ever learned it: kept across crashes, to compare with.
    learned: Vec<Value>,
    given: Given,
    /// How often it may still stand.
    stands: u8,
    /// Whether it may still crash. If not, nobody will ever read its WAL again.
    mortal: bool,
}

/// What can happen to a replica. Messages come with their sender.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    Deliver(ReplicaId, &'a Message),
    /// So many records are durable now.
    Durable(usize),
    /// The power fails; of the records that are not durable only those up to `keep` got to the disk. The replica
    /// starts again from its WAL.
    Crash {
        keep: usize,
    },
    /// Silence until every timer is over, then these heartbeats, by which the replica knows itself connected.
    Stand(&'a [(ReplicaId, Message)]),
    /// Silence until every timer is over, then a heartbeat of a leader, then the deadline: time to ask for what is
    /// missing.
    Fetch(ReplicaId, &'a Message),
    /// A client's value of this number arrives at an established leader.
    Request(u8),
}

/// What a replica sent in one event, in order.
pub type Sent = Vec<(ReplicaId, Message)>;

impl Node {
    pub fn new(scope: &Scope, replica: ReplicaId) -> Node {
        Node {
            replica: Replay::new(scope.config(replica)).finish(
                Time(0),
                Lsn::ZERO,
                Incarnation::FOUNDING,
                &[],
            ),
            now: Time(0),
            wal: Vec::new(),
            durable: 0,
            learned: Vec::new(),
            given: Given::default(),
            stands: scope.stands_of(replica),
            mortal: scope.mortal(replica),
        }
    }

    pub fn id(&self) -> ReplicaId {
        self.replica.config().replica
    }

    pub fn now(&self) -> Time {
        self.now
    }

    pub fn wal(&self) -> &[Record] {
        &self.wal
    }

    pub fn durable(&self) -> usize {
        self.durable
    }

    pub fn learned(&self) -> &[Value] {
        &self.learned
    }

    pub fn stands(&self) -> u8 {
        self.stands
    }

    pub fn mortal(&self) -> bool {
        self.mortal
    }

    /// The same replica when it may not crash any more. What it gave its word for is of no use now, for nothing that is
    /// durable gets lost; nor is what it learned and then forgot, if it is checked that a quorum had it on disk.
    pub fn immortal(&self, scope: &Scope) -> Node {
        let mut node = self.clone();
        node.mortal = false;
        node.given = Given::default();
        if !scope.agreement_only {
            let known = self.replica.commit_index().0 as usize;
            node.learned.truncate(known);
        }
        node
    }

    pub fn given(&self) -> &Given {
        &self.given
    }

    /// This replica after an event and what it sent, or nothing if the event is not possible.
    pub fn after(&self, scope: &Scope, event: Event) -> Result<Option<(Node, Sent)>, Violation> {
        let mut node = self.clone();
        let mut sent = Sent::new();
        let outcome = catch_unwind(AssertUnwindSafe(|| node.apply(scope, event, &mut sent)));
        match outcome {
            Ok(possible) => Ok(possible?.then_some((node, sent))),
            Err(panic) => {
                let what = panic
                    .downcast_ref::<String>()
                    .cloned()
                    .or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string()))
                    .unwrap_or_else(|| "a panic without words".into());
                Err(Violation {
                    property: Property::Assertion,
                    what: format!("{}: {what}", self.id()),
                })
            }
        }
    }

    fn apply(&mut self, scope: &Scope, event: Event, sent: &mut Sent) -> Result<bool, Violation> {
        match event {
            Event::Deliver(from, message) => {
                let message = message.clone();
                self.turn(scope, vec![Input::Message { from, message }], sent)?;
            }
            Event::Durable(count) => {
                self.durable = count;
                if scope.bug != Some(Bug::RepliesBeforeSync) {
                    self.turn(scope, vec![Input::Durable(Lsn(count as u64))], sent)?;
                }
            }
            Event::Crash { keep } => self.restart(scope, keep)?,
            Event::Stand(heard) => return self.stand(scope, heard, sent),
            Event::Fetch(from, message) => {
                self.now = self.now.plus(JUMP_NS);
                let promised = self.replica.promised();
                let message = message.clone();
                let inputs = vec![Input::Message { from, message }, Input::Deadline];
                self.turn(scope, inputs, sent)?;
                let asks = |sent: &Sent| sent.iter().any(|(_, m)| matches!(m, Message::Fetch(_)));
                return Ok(asks(sent) && self.stood_at(promised).is_none());
            }
            Event::Request(index) => {
                if !self.replica.serves() {
                    return Ok(false);
                }
                self.turn(scope, vec![Input::Request(words::request(index))], sent)?;
            }
        }
        Ok(true)
    }

    /// A leader or candidate whose time is over steps down first.
    fn stand(
        &mut self,
        scope: &Scope,
        heard: &[(ReplicaId, Message)],
        sent: &mut Sent,
    ) -> Result<bool, Violation> {
        let Some(stands) = self.stands.checked_sub(1) else {
            return Ok(false);
        };
        self.stands = stands;
        self.now = self.now.plus(JUMP_NS);
        let promised = self.replica.promised();
        self.turn(scope, vec![Input::Deadline], sent)?;
        let mut inputs: Vec<Input> = heard
            .iter()
            .map(|(from, message)| Input::Message {
                from: *from,
                message: message.clone(),
            })
            .collect();
        inputs.push(Input::Deadline);
        let used = self.given.used;
        self.turn(scope, inputs, sent)?;
        let Some(ballot) = self.stood_at(promised) else {
            return Ok(false);
        };
        check(ballot > used, Property::BallotReuse, || {
            format!("{} stands at {ballot}, having used {used}", self.id())
        })?;
        Ok(true)
    }

    /// The ballot of a candidacy that began after `promised` was promised.
    fn stood_at(&self, promised: Ballot) -> Option<Ballot> {
        let ballot = self.replica.promised();
        (ballot > promised && ballot.replica == self.id()).then_some(ballot)
    }

    /// One turn of the event loop: inputs, then the flush, then what comes out.
    fn turn(
        &mut self,
        scope: &Scope,
        inputs: Vec<Input>,
        sent: &mut Sent,
    ) -> Result<(), Violation> {
        let mut out = Output::default();
        for input in inputs {
            self.replica.step(self.now, input, &mut out);
        }
        self.replica.flush(self.now, &mut out);
        if scope.bug == Some(Bug::RepliesBeforeSync) {
            let appended = self.replica.appended();
            self.replica
                .step(self.now, Input::Durable(appended), &mut out);
        }
        self.take(scope, out, sent)
    }

    fn take(&mut self, scope: &Scope, out: Output, sent: &mut Sent) -> Result<(), Violation> {
        for (lsn, record) in out.records {
            assert_eq!(lsn.0, self.wal.len() as u64 + 1, "records are numbered");
            self.wal.push(match record {
                // A record that changes nothing stands in for the one that gets lost.
                Record::Promised { .. } if scope.bug == Some(Bug::PromisesNotWritten) => {
                    Record::Trimmed { floor: Slot(1) }
                }
                record => record,
            });
        }
        for (slot, value) in out.chosen {
            self.learn(slot, value)?;
        }
        for outgoing in out.messages {
            if !scope.agreement_only {
                self.check_leaving(&outgoing.message)?;
            }
            if self.mortal {
                self.given.note(&outgoing.message);
            }
            for to in outgoing.to.iter() {
                sent.push((to, outgoing.message.clone()));
            }
        }
        for read in out.reads {
            let values = self.read(read.from, read.through);
            let from = read.from;
            sent.push((read.to, Message::Chosen(Chosen { from, values })));
        }
        self.check_watermarks(scope)
    }

    /// As the WAL does it: from what is durable, the newest record of each slot.
    fn read(&self, from: Slot, through: Slot) -> Vec<Value> {
        (from.0..=through.0)
            .map_while(|slot| self.newest(Slot(slot)).map(|(_, value)| value.clone()))
            .collect()
    }

    fn learn(&mut self, slot: Slot, value: Value) -> Result<(), Violation> {
        let index = slot.0 as usize - 1;
        check(index <= self.learned.len(), Property::CommitIndex, || {
            format!("{} learned {slot}, but not the slot before it", self.id())
        })?;
        match self.learned.get(index) {
            None => self.learned.push(value),
            Some(known) => check(*known == value, Property::Agreement, || {
                let (known, value) = (words::of_value(known), words::of_value(&value));
                let id = self.id();
                format!("{id} learned {value} in {slot}, where it had learned {known}")
            })?,
        }
        Ok(())
    }

    fn restart(&mut self, scope: &Scope, keep: usize) -> Result<(), Violation> {
        self.wal.truncate(keep);
        self.durable = keep;
        let mut out = Output::default();
        let replay = self.replay(scope, &mut out);
        self.replica = replay.finish(self.now, Lsn(keep as u64), Incarnation::FOUNDING, &[]);
        for (slot, value) in out.chosen {
            self.learn(slot, value)?;
        }
        self.check_watermarks(scope)
    }

    /// What the production code makes of the durable records.
    pub fn replay(&self, scope: &Scope, out: &mut Output) -> Replay {
        let mut replay = Replay::new(scope.config(self.id()));
        for record in &self.wal[..self.durable] {
            match record {
                Record::Accepted(accept) if scope.bug == Some(Bug::RestartForgetsAccepted) => {
                    replay.promise(accept.ballot);
                }
                record => replay.record(record.clone(), out),
            }
        }
        replay
    }

    /// The newest durable record of a slot: at which ballot it was accepted, if it was, and the value.
    fn newest(&self, wanted: Slot) -> Option<(Option<Ballot>, &Value)> {
        self.wal[..self.durable]
            .iter()
            .rev()
            .find_map(|record| match record {
                Record::Accepted(accept) if accept.slot == wanted => {
                    Some((Some(accept.ballot), &accept.value))
                }
                Record::Chosen { slot, value } if *slot == wanted => Some((None, value)),
                Record::Accepted(_)
                | Record::Chosen { .. }
                | Record::Promised { .. }
                | Record::Trimmed { .. } => None,
            })
    }

    fn check_leaving(&self, message: &Message) -> Result<(), Violation> {
        let claimed = match message {
            Message::Promise(promise) => {
                self.check_promise(promise)?;
                promise.commit_index
            }
            Message::Accepted(accepted) => {
                self.check_kept(accepted.ballot, accepted.through)?;
                Slot::ZERO
            }
            Message::Prepare(prepare) => prepare.commit_index,
            Message::Accept(accept) => accept.commit_index,
            Message::Heartbeat(heartbeat) => heartbeat.commit_index,
            Message::Reject(_)
            | Message::Known(_)
            | Message::Fetch(_)
            | Message::Chosen(_)
            | Message::FetchSnapshot(_)
            | Message::SnapshotPart(_)
            | Message::StateHash(_) => Slot::ZERO,
        };
        check(
            claimed <= self.replica.commit_index(),
            Property::CommitIndex,
            || format!("{} claims {claimed} in {message:?}", self.id()),
        )
    }

    /// What a Promise says is on disk, and it says all that is on disk.
    fn check_promise(&self, promise: &Promise) -> Result<(), Violation> {
        let (id, ballot) = (self.id(), promise.ballot);
        let durable = self.written();
        check(durable >= ballot, Property::DurablePromise, || {
            format!("{id} sends a Promise of {ballot}, but on its disk is only {durable}")
        })?;
        for (slot, accepted, _) in self.votes() {
            let told = promise.accepted.iter().find(|told| told.slot == slot);
            check(
                slot <= promise.commit_index || told.is_some_and(|told| told.ballot >= accepted),
                Property::DurablePromise,
                || {
                    format!(
                        "{id} hides in its Promise of {ballot} what it accepted in {slot} at {accepted}"
                    )
                },
            )?;
        }
        Ok(())
    }

    /// The ballot is durable, and so is every slot: at that ballot or a later one, or as the chosen value.
    fn check_kept(&self, ballot: Ballot, through: Slot) -> Result<(), Violation> {
        check(self.written() >= ballot, Property::DurablePromise, || {
            format!(
                "{} acknowledged at {ballot} before it was on disk",
                self.id()
            )
        })?;
        for slot in (1..=through.0).map(Slot) {
            let chosen = self.learned.get(slot.0 as usize - 1);
            let kept = match self.newest(slot) {
                None => false,
                Some((at, value)) => at.is_some_and(|at| at >= ballot) || chosen == Some(value),
            };
            check(kept, Property::DurablePromise, || {
                format!(
                    "{} acknowledged {slot} at {ballot}, which is not on its disk",
                    self.id()
                )
            })?;
        }
        Ok(())
    }

    fn check_watermarks(&self, scope: &Scope) -> Result<(), Violation> {
        if scope.agreement_only {
            return Ok(());
        }
        let (id, promised) = (self.id(), self.replica.promised());
        let given = self.given.promise;
        check(promised >= given, Property::DurablePromise, || {
            format!("{id} sent a Promise of {given}, and now it is bound to {promised} only")
        })?;
        for (ballot, through) in self.given.accepted.iter().filter(|_| self.mortal) {
            self.check_kept(*ballot, *through)?;
        }
        let written = highest_ballot(&self.wal);
        check(promised >= written, Property::PromisedBelowAccepted, || {
            format!("{id} promised {promised}, but wrote {written}")
        })?;
        let commit_index = self.replica.commit_index();
        check(
            commit_index.0 <= self.learned.len() as u64,
            Property::CommitIndex,
            || format!("{id} has the commit index {commit_index} and never said what is there"),
        )
    }

    /// The highest ballot on the disk.
    fn written(&self) -> Ballot {
        highest_ballot(&self.wal[..self.durable])
    }

    /// Whether this was accepted, durably or not.
    pub fn has_accepted(&self, ballot: Ballot, slot: Slot) -> bool {
        self.wal.iter().any(|record| {
            matches!(record, Record::Accepted(accept) if (accept.ballot, accept.slot) == (ballot, slot))
        })
    }

    /// The highest ballot that no crash can take back.
    pub fn bound_to(&self) -> Ballot {
        if self.mortal {
            self.written()
        } else {
            self.replica.promised()
        }
    }

    /// Everything that this replica accepted durably, at whatever ballot.
    pub fn votes(&self) -> Vec<(Slot, Ballot, Value)> {
        let mut votes: Vec<(Slot, Ballot, Value)> = self.wal[..self.durable]
            .iter()
            .filter_map(|record| match record {
                Record::Accepted(accept) => {
                    Some((accept.slot, accept.ballot, accept.value.clone()))
                }
                Record::Promised { .. } | Record::Chosen { .. } | Record::Trimmed { .. } => None,
            })
            .collect();
        votes.sort();
        votes.dedup();
        votes
    }
}

fn highest_ballot(records: &[Record]) -> Ballot {
    records
        .iter()
        .map(|record| match record {
            Record::Promised { ballot } => *ballot,
            Record::Accepted(accept) => accept.ballot,
            Record::Chosen { .. } | Record::Trimmed { .. } => Ballot::ZERO,
        })
        .max()
        .unwrap_or(Ballot::ZERO)
}

/// The other replicas.
pub fn peers(of: ReplicaId) -> impl Iterator<Item = ReplicaId> {
    (1..=REPLICAS).map(ReplicaId).filter(move |id| *id != of)
}
