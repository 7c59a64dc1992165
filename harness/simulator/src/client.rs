//! A simulated client: the production session, a workload, and a check of each reply as it comes.

use std::collections::VecDeque;

use bytes::{BufMut, Bytes, BytesMut};

use synod_engine::client::{ClientMessage, Replies, Request, ServerMessage};
use synod_engine::codec::FRAME_PREFIX_BYTES;
use synod_engine::ids::{ClientId, CommandNumber, ReplicaId, ReplicaSet, SessionId, Time};
use synod_engine::machine::kv::KvCommand;
use xxhash_rust::xxh3::xxh3_64;

use crate::checker::{Agreement, LINEARIZABLE, Model, Violation};
use crate::production_client::session::{Event, Session, SessionConfig};
use crate::random::Random;
use crate::swarm::ClientPlan;

/// Commands that no reply came for are only reported by the session, never given up: the exact time means little.
const DEADLINE_NS: u64 = 10_000_000_000;

/// Mean pause between the last submissions, when what is waited for is the cluster and not the client.
const FINISHING_THINK_NS: u64 = 20_000_000;

pub struct Client {
    pub index: usize,
    pub plan: ClientPlan,
    session: Session,
    session_id: Option<SessionId>,
    token: u64,
    replicas: u8,
    connections: Vec<Option<ClientId>>,
    operations: VecDeque<Operation>,
    submit_at: u64,
    /// Commands that it may still submit.
    pub left: u64,
    /// Commands whose reply came and was checked.
    pub completed: u64,
    /// The request that was sent last, and the number after the last one ever sent.
    last_request: Option<Bytes>,
    sent_end: CommandNumber,
    /// Unique per command of this client.
    serial: u64,
    /// The value it wrote last: what a compare-and-swap expects.
    last_value: Option<Bytes>,
    random: Random,
    pub tick_at: Option<u64>,
}

struct Operation {
    number: CommandNumber,
    command: u64,
    invoked: u64,
}

impl Client {
    pub fn new(index: usize, plan: ClientPlan, replicas: u8, mut random: Random) -> Client {
        let token = random.draw();
        Client {
            index,
            plan,
            session: session(&plan, replicas, token),
            session_id: None,
            token,
            replicas,
            connections: vec![None; usize::from(replicas)],
            operations: VecDeque::new(),
            submit_at: random.below(plan.think_ns.max(1)),
            left: u64::MAX,
            completed: 0,
            last_request: None,
            sent_end: CommandNumber(1),
            serial: 0,
            last_value: None,
            random,
            tick_at: None,
        }
    }

    pub fn done(&self) -> bool {
        self.left == 0 && self.operations.is_empty()
    }

    pub fn outstanding(&self) -> usize {
        self.operations.len()
    }

    /// Commands submitted so far in all its sessions but abandoned ones.
    pub fn submitted(&self) -> u64 {
        self.completed + self.operations.len() as u64
    }

    pub fn retries(&self) -> u64 {
        self.session.counters().retries
    }

    /// Whom it takes for the leader.
    pub fn leader(&self) -> Option<ReplicaId> {
        self.session.leader()
    }

    pub fn connection(&self, replica: ReplicaId) -> Option<ClientId> {
        self.connections[usize::from(replica.0) - 1]
    }

    pub fn connected(&mut self, now: u64, replica: ReplicaId, connection: ClientId) {
        self.connections[usize::from(replica.0) - 1] = Some(connection);
        self.session.on_connected(Time(now), replica);
    }

    pub fn disconnected(&mut self, replica: ReplicaId) -> Option<ClientId> {
        let connection = self.connections[usize::from(replica.0) - 1].take();
        if connection.is_some() {
            self.session.on_disconnected(replica);
        }
        connection
    }

    /// Leaves its session and whatever is under way there, and opens another one.
    pub fn abandon(&mut self, now: u64) {
        self.token = self.random.draw();
        self.session = session(&self.plan, self.replicas, self.token);
        self.session_id = None;
        self.operations.clear();
        self.last_request = None;
        self.sent_end = CommandNumber(1);
        for replica in (1..=self.replicas).map(ReplicaId) {
            if self.connection(replica).is_some() {
                self.session.on_connected(Time(now), replica);
            }
        }
    }

    /// Closes its session, and opens another one once that is over. Returns whether there is one to close.
    pub fn leave(&mut self, now: u64) -> bool {
        self.session.close(Time(now))
    }

    /// Does everything that is due, and hands over what is to be sent.
    pub fn act(&mut self, now: u64, mut send: impl FnMut(ReplicaId, Bytes)) {
        self.session.tick(Time(now));
        self.submit_if_due(now);
        while let Some((to, frame)) = self.session.poll(Time(now)) {
            let mut whole = BytesMut::with_capacity(frame.len());
            whole.extend_from_slice(&frame.head[FRAME_PREFIX_BYTES..]);
            whole.extend_from_slice(&frame.body);
            let whole = whole.freeze();
            if let Ok(ClientMessage::Request(request)) = ClientMessage::decode(whole.clone()) {
                self.sent_end = self.sent_end.max(request.end());
                self.last_request = Some(whole.clone());
            }
            send(to, whole);
        }
    }

    /// From now on so many more commands, in quick succession.
    pub fn finish_with(&mut self, now: u64, commands: u64) {
        self.left = commands;
        self.plan.think_ns = self.plan.think_ns.min(FINISHING_THINK_NS);
        self.submit_at = self.submit_at.min(now + FINISHING_THINK_NS);
    }

    /// When [`Client::act`] has something to do again.
    pub fn due(&self, now: u64) -> u64 {
        let mut due = self
            .session
            .deadline()
            .map_or(u64::MAX, |deadline| deadline.0);
        let has_room = self.operations.len() < self.plan.window as usize;
        if self.session.is_open() && self.left > 0 && has_room {
            due = due.min(self.submit_at);
        }
        due.max(now + 1_000)
    }

    fn submit_if_due(&mut self, now: u64) {
        let room = u64::from(self.plan.window).saturating_sub(self.operations.len() as u64);
        let count = self
            .random
            .between(1, u64::from(self.plan.run))
            .min(room)
            .min(self.left);
        if now < self.submit_at || count == 0 || !self.session.is_open() {
            return;
        }
        let mut commands = BytesMut::new();
        let mut hashes = Vec::new();
        for _ in 0..count {
            let command = self.command();
            commands.put_u32_le(command.len() as u32);
            commands.put_slice(&command);
            hashes.push(xxh3_64(&command));
        }
        let first = self
            .session
            .submit(Time(now), commands.freeze(), count as u32)
            .expect("the session is open and has room");
        for (number, command) in (first.0..).map(CommandNumber).zip(hashes) {
            self.operations.push_back(Operation {
                number,
                command,
                invoked: now,
            });
        }
        self.left -= count;
        self.submit_at = now + self.random.exponential(self.plan.think_ns);
    }

    /// A command on one of few keys; what it writes is unique.
    fn command(&mut self) -> Bytes {
        let key = [b'k', self.random.below(self.plan.keys) as u8];
        let value = self.value();
        let kind = self.random.below(100);
        let command = match kind {
            0..50 => KvCommand::Put {
                key: &key,
                value: &value,
            },
            50..80 => KvCommand::Get { key: &key },
            80..90 => KvCommand::Delete { key: &key },
            _ => KvCommand::Cas {
                key: &key,
                expected: self.last_value.as_deref(),
                value: &value,
            },
        };
        let command = command.encode().expect("the key is short");
        if kind < 50 {
            self.last_value = Some(value);
        }
        command
    }

    fn value(&mut self) -> Bytes {
        self.serial += 1;
        let mut value = BytesMut::new();
        value.put_u32_le(self.index as u32);
        value.put_u64_le(self.serial);
        let padding = self.random.below(self.plan.value_bytes + 1) as usize;
        value.put_bytes(b'.', padding);
        value.freeze()
    }

    /// Takes what a replica sent, and checks every reply against the model. Returns how many were checked.
    pub fn on_message(
        &mut self,
        now: u64,
        from: ReplicaId,
        message: ServerMessage,
        agreement: &Agreement,
        model: &Model,
    ) -> Result<u64, Violation> {
        if let ServerMessage::Opened { token, session } = message
            && token == self.token
        {
            self.session_id.get_or_insert(session);
        }
        self.session.on_message(Time(now), from, message);
        let mut checked = 0;
        while let Some(event) = self.session.event() {
            match event {
                Event::Opened => self.submit_at = now,
                Event::Replies(replies) => {
                    checked += u64::from(replies.count);
                    self.check_replies(now, &replies, agreement, model)?;
                }
                // It may still come, and is waited for.
                Event::TimedOut { .. } => {}
                Event::Closed => {
                    self.abandon(now);
                    break;
                }
                Event::Gone { first, count } => {
                    checked += u64::from(count);
                    self.check_gone(now, first, count, agreement, model)?;
                }
                // What became of its commands it is not told: it goes on in a new session.
                Event::Failed(_) if self.session_id.is_some_and(|id| model.evicted(id)) => {
                    self.abandon(now);
                    break;
                }
                Event::Failed(failed) => {
                    let what = format!("client {} lost its session: {failed}", self.index);
                    return Err(Violation::new(LINEARIZABLE, what));
                }
            }
        }
        self.completed += checked;
        Ok(checked)
    }

    /// Each operation took effect in a slot that was committed between its invocation and now; with the replies equal
    /// to those of the slot order, that is linearizability.
    fn check_replies(
        &mut self,
        now: u64,
        replies: &Replies,
        agreement: &Agreement,
        model: &Model,
    ) -> Result<(), Violation> {
        let wrong = |what: String| Err(Violation::new(LINEARIZABLE, what));
        for (number, reply) in (replies.first.0..).map(CommandNumber).zip(replies.iter()) {
            let Some(operation) = self.operations.pop_front().filter(|o| o.number == number) else {
                return wrong(format!(
                    "client {} gets a reply to {number:?}, which it never sent",
                    self.index
                ));
            };
            let Some((executed, slot)) = model.lookup(replies.session, number) else {
                return wrong(format!(
                    "client {}'s {number:?} is acknowledged and in no slot",
                    self.index
                ));
            };
            if executed.reply != xxh3_64(reply) {
                return wrong(format!(
                    "client {}'s {number:?} has another reply than in {slot}",
                    self.index
                ));
            }
            if executed.command != operation.command {
                return wrong(format!(
                    "client {}'s {number:?} is another command in {slot}",
                    self.index
                ));
            }
            let committed_at = agreement.committed_at(slot).unwrap_or(u64::MAX);
            if committed_at < operation.invoked || committed_at > now {
                return wrong(format!(
                    "client {}'s {number:?} ran from {} to {now}, {slot} was committed at {committed_at}",
                    self.index, operation.invoked
                ));
            }
        }
        Ok(())
    }

    /// Commands whose replies were not kept were executed all the same.
    fn check_gone(
        &mut self,
        now: u64,
        first: CommandNumber,
        count: u32,
        agreement: &Agreement,
        model: &Model,
    ) -> Result<(), Violation> {
        for number in (first.0..first.0 + u64::from(count)).map(CommandNumber) {
            let operation = self.operations.pop_front().filter(|o| o.number == number);
            let session = self.session_id.unwrap_or_default();
            let executed = model.lookup(session, number).filter(|(executed, slot)| {
                let at = agreement.committed_at(*slot).unwrap_or(u64::MAX);
                operation.as_ref().is_some_and(|operation| {
                    executed.command == operation.command && (operation.invoked..=now).contains(&at)
                })
            });
            if executed.is_none() {
                let what = format!(
                    "client {} is told that {number:?} was executed, and it was not",
                    self.index
                );
                return Err(Violation::new(LINEARIZABLE, what));
            }
        }
        Ok(())
    }

    /// What this client says first over a connection.
    pub fn attach(&self) -> Option<Bytes> {
        let message = ClientMessage::Attach {
            session: self.session_id?,
            token: self.token,
        };
        Some(message.encode().slice(FRAME_PREFIX_BYTES..))
    }

    /// The request sent last, as somebody else may send it from elsewhere.
    pub fn last_request(&self) -> Option<Bytes> {
        self.last_request.clone()
    }

    /// A request for numbers that this client has sent and seen no reply of, with other commands: what somebody would
    /// send who guessed its session.
    pub fn forged_request(&mut self) -> Option<Bytes> {
        let session = self.session_id?;
        let first = self.operations.front()?.number;
        let count = self
            .sent_end
            .0
            .checked_sub(first.0)
            .filter(|count| *count > 0)?;
        let mut commands = BytesMut::new();
        for _ in 0..count {
            let command = self.command();
            commands.put_u32_le(command.len() as u32);
            commands.put_slice(&command);
        }
        let request = Request {
            session,
            first,
            acknowledged: first,
            count: count as u32,
            commands: commands.freeze(),
        };
        let frame = ClientMessage::Request(request).encode();
        Some(frame.slice(FRAME_PREFIX_BYTES..))
    }
}

fn session(plan: &ClientPlan, replicas: u8, token: u64) -> Session {
    Session::new(SessionConfig {
        replicas: ReplicaSet::first(replicas),
        token,
        outstanding_max: plan.window,
        retry_after_ns: plan.retry_after_ns,
        deadline_ns: DEADLINE_NS,
    })
}
