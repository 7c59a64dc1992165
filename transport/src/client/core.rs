//! What the tasks of one client share: the session, the queues to the replicas, and who waits for what.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use bytes::Bytes;
use synod_engine::client::{ClientMessage, Replies, ServerMessage};
use synod_engine::ids::{CommandNumber, REPLICAS_MAX, ReplicaId, Time};
use tokio::sync::{Notify, oneshot};

use super::connection::Refused;
use super::error::ClientError;
use super::session::{Event, Session, SessionFailed};
use crate::outqueue::{OutQueue, Pushed};

/// Bytes that wait for one replica before the session is asked for more. What waits in the session can still be
/// sent elsewhere.
const QUEUE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The queue itself takes a request beyond that, and status questions.
pub const QUEUE_BYTES_LIMIT: usize = 2 * QUEUE_BYTES_MAX;

/// Attempts in a row that find no place until it is said that there is none.
const CROWDED_LOOKS: u32 = 3;

pub type Status = Vec<(String, u64)>;

pub struct Shared {
    core: Mutex<Core>,
    start: Instant,
    /// The driver has to look: something was submitted, or a queue has room again.
    pub work: Notify,
    /// Replies, a timeout or the end of the session wait to be taken.
    pub ready: Notify,
    /// A connection came or went, or the session opened or ended.
    pub changed: Notify,
}

pub struct Core {
    pub session: Session,
    pub replicas: Vec<ReplicaState>,
    /// What [`super::Client::replies`] hands out.
    pub ready: VecDeque<Ready>,
    /// Commands in `ready`: they count as outstanding until they are taken.
    pub ready_commands: u64,
    /// What [`super::Client::call`] waits for, by number.
    pub calls: VecDeque<(CommandNumber, oneshot::Sender<Result<Bytes, ClientError>>)>,
    pub mode: Option<Mode>,
    pub failed: Option<SessionFailed>,
    pub reconnects: u64,
    /// No session is wanted: only status questions are asked.
    pub observing: bool,
}

pub enum Ready {
    Replies(Replies),
    TimedOut { first: CommandNumber, count: u32 },
    Gone { first: CommandNumber, count: u32 },
}

/// How a client is used. The two cannot be told apart by a reply, so they don't mix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Calls,
    Runs,
}

/// The connection to one replica.
#[derive(Default)]
pub struct ReplicaState {
    pub configured: bool,
    pub queue: Option<Arc<OutQueue>>,
    pub was_up: bool,
    pub status: Vec<oneshot::Sender<Status>>,
    /// Why the last attempt to connect failed.
    pub failure: Option<String>,
    lasting: bool,
    /// How many attempts in a row found no place.
    crowded: u32,
}

impl Shared {
    pub fn new(session: Session, replicas: &[ReplicaId], observing: bool) -> Shared {
        let mut states: Vec<ReplicaState> = Vec::new();
        states.resize_with(usize::from(REPLICAS_MAX) + 1, ReplicaState::default);
        for replica in replicas {
            states[usize::from(replica.0)].configured = true;
        }
        Shared {
            core: Mutex::new(Core {
                session,
                replicas: states,
                ready: VecDeque::new(),
                ready_commands: 0,
                calls: VecDeque::new(),
                mode: None,
                failed: None,
                reconnects: 0,
                observing,
            }),
            start: Instant::now(),
            work: Notify::new(),
            ready: Notify::new(),
            changed: Notify::new(),
        }
    }

    pub fn lock(&self) -> MutexGuard<'_, Core> {
        self.core.lock().expect("no holder of a client panics")
    }

    pub fn now(&self) -> Time {
        Time(u64::try_from(self.start.elapsed().as_nanos()).expect("584 years have not passed"))
    }

    pub fn instant(&self, at: Time) -> Instant {
        self.start + std::time::Duration::from_nanos(at.0)
    }

    /// Lets time pass, sends what can be sent, and says when to come back.
    pub fn drive(&self) -> Option<Time> {
        let now = self.now();
        let mut core = self.lock();
        core.session.tick(now);
        self.settle(&mut core, now);
        if core.observing {
            None
        } else {
            core.session.deadline()
        }
    }

    pub fn connected(&self, replica: ReplicaId, queue: Arc<OutQueue>) {
        let now = self.now();
        let mut core = self.lock();
        let state = core.replica(replica);
        state.queue = Some(queue);
        state.failure = None;
        state.lasting = false;
        if std::mem::replace(&mut state.was_up, true) {
            core.reconnects += 1;
        }
        core.session.on_connected(now, replica);
        self.settle(&mut core, now);
        drop(core);
        self.changed.notify_waiters();
    }

    pub fn disconnected(&self, replica: ReplicaId, reason: String, refused: Refused) {
        let mut core = self.lock();
        let state = core.replica(replica);
        state.queue = None;
        state.failure = Some(reason);
        state.lasting = refused == Refused::Lasting;
        state.crowded = match refused {
            Refused::Crowded => state.crowded + 1,
            Refused::No | Refused::Lasting => 0,
        };
        state.status.clear();
        core.session.on_disconnected(replica);
        drop(core);
        self.changed.notify_waiters();
    }

    pub fn received(&self, from: ReplicaId, messages: &mut Vec<ServerMessage>) {
        let now = self.now();
        let mut core = self.lock();
        for message in messages.drain(..) {
            if let ServerMessage::StatusReply(status) = message {
                // One answer serves all who wait: a replica answers once what is asked several times meanwhile.
                for waiting in core.replica(from).status.drain(..) {
                    // Whoever asked may have given up.
                    let _ = waiting.send(status.clone());
                }
            } else {
                core.session.on_message(now, from, message);
            }
        }
        self.settle(&mut core, now);
    }

    /// Hands out what the session has to say, and sends what it wants to send.
    fn settle(&self, core: &mut Core, now: Time) {
        let mut news = false;
        while let Some(event) = core.session.event() {
            news = true;
            core.handle(event);
        }
        core.transmit(now);
        if news {
            self.ready.notify_one();
            self.changed.notify_waiters();
        }
    }
}

impl ReplicaState {
    /// Whether it is of no use to wait for this replica. Of one that has no place only after a second look: a client
    /// that just left may still be counted.
    pub fn refuses(&self) -> bool {
        self.failure.is_some() && (self.lasting || self.crowded >= CROWDED_LOOKS)
    }
}

impl Core {
    /// Whether this client can't get a session as things are.
    pub fn is_refused(&self) -> bool {
        let mut configured = self.replicas.iter().filter(|state| state.configured);
        let leader = self.session.leader();
        let by_leader = leader.is_some_and(|leader| self.replicas[usize::from(leader.0)].refuses());
        by_leader || configured.all(ReplicaState::refuses)
    }

    pub fn replica(&mut self, replica: ReplicaId) -> &mut ReplicaState {
        &mut self.replicas[usize::from(replica.0)]
    }

    /// Fails unless this client is used in one mode only.
    pub fn enter(&mut self, mode: Mode) -> Result<(), ClientError> {
        if *self.mode.get_or_insert(mode) == mode {
            Ok(())
        } else {
            Err(ClientError::Mode)
        }
    }

    /// Asks for the status of a replica; `None` if it is not connected.
    pub fn ask_status(&mut self, replica: ReplicaId) -> Option<oneshot::Receiver<Status>> {
        let state = self.replica(replica);
        let queue = state.queue.as_ref()?;
        state.status.retain(|waiting| !waiting.is_closed());
        if state.status.is_empty() {
            let frame = ClientMessage::Status.encode();
            let pushed = queue.push(&frame, &Bytes::new());
            if matches!(pushed, Pushed::Full | Pushed::Closed) {
                return None;
            }
            queue.flush();
        }
        let (sender, receiver) = oneshot::channel();
        state.status.push(sender);
        Some(receiver)
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Opened | Event::Closed => {}
            Event::Replies(replies) if self.mode == Some(Mode::Calls) => self.answer(&replies),
            Event::Replies(replies) => {
                self.ready_commands += u64::from(replies.count);
                self.ready.push_back(Ready::Replies(replies));
            }
            Event::TimedOut { first, count } if self.mode == Some(Mode::Calls) => {
                let error = |first| ClientError::Timeout { first, count: 1 };
                self.give_up(first.plus(count), error);
            }
            Event::Gone { first, count } if self.mode == Some(Mode::Calls) => {
                let error = |first| ClientError::ReplyGone { first, count: 1 };
                self.give_up(first.plus(count), error);
            }
            Event::Gone { first, count } => {
                self.ready_commands += u64::from(count);
                self.ready.push_back(Ready::Gone { first, count });
            }
            Event::TimedOut { first, count } => {
                self.ready.push_back(Ready::TimedOut { first, count });
            }
            Event::Failed(failure) => {
                for (_, waiting) in self.calls.drain(..) {
                    let _ = waiting.send(Err(failure.clone().into()));
                }
                self.failed = Some(failure);
            }
        }
    }

    fn answer(&mut self, replies: &Replies) {
        let mut number = replies.first;
        let mut rest = replies.replies.clone();
        for reply in replies.iter() {
            let mut item = rest.split_to(synod_engine::client::LENGTH_BYTES + reply.len());
            let reply = item.split_off(synod_engine::client::LENGTH_BYTES);
            // A call that timed out has left the queue already.
            if self
                .calls
                .front()
                .is_some_and(|(waiting, _)| *waiting == number)
            {
                let (_, waiting) = self.calls.pop_front().expect("just seen");
                let _ = waiting.send(Ok(reply));
            }
            number = number.plus(1);
        }
    }

    /// Tells the calls below `end` that wait why no reply comes to them.
    fn give_up(&mut self, end: CommandNumber, error: impl Fn(CommandNumber) -> ClientError) {
        while self
            .calls
            .front()
            .is_some_and(|(waiting, _)| *waiting < end)
        {
            let (number, waiting) = self.calls.pop_front().expect("just seen");
            let _ = waiting.send(Err(error(number)));
        }
    }

    fn transmit(&mut self, now: Time) {
        if self.observing {
            return;
        }
        while let Some(to) = self.session.wants_to_send(now) {
            let state = &self.replicas[usize::from(to.0)];
            let queue = state
                .queue
                .as_ref()
                .expect("the session sends to connected replicas");
            // The writer comes back to the driver as it makes room.
            if queue.bytes() > QUEUE_BYTES_MAX {
                break;
            }
            let (_, frame) = self.session.poll(now).expect("it wants to send");
            queue.push(&frame.head, &frame.body);
            queue.flush();
        }
    }
}

/// Whether a writer that has this many bytes left should wake the driver.
pub fn has_room(bytes_left: usize) -> bool {
    bytes_left <= QUEUE_BYTES_MAX
}
