//! The event loop of one replica, generic over disk, network and application: production, simulator and
//! micro-benchmarks run this same code.

mod comparing;
mod doors;
mod reporting;
mod snapshots;

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;

use crate::client::{ClientMessage, Reason, Refused, Request, ServerMessage};
use crate::codec;
use crate::divergence::Comparison;
use crate::ids::{ClientId, CommandNumber, ReplicaId, SessionId, Time};
use crate::intake::{Admission, Door};
use crate::message::{Chosen, Message, StateHash};
use crate::output::{Leadership, Output, ReadForPeer};
use crate::replica::{Input, Replica};
use crate::seams::{Arrival, Network, SnapshotStore, StateMachine, Wal, WalFailed, WalRead};
use crate::sessions::Applied;
use crate::snapshot::NoSnapshots;
use crate::state::State;
use crate::status::StatusDesk;
use crate::work::{Stage, Work};

use snapshots::Snapshots;

pub use comparing::Stopped;

/// Fetches that wait for the WAL's reader.
pub(crate) const READS_WAITING_MAX: usize = 16;

/// How long a client should wait that cannot open a session now, in microseconds.
const OPEN_RETRY_US: u32 = 100_000;

/// A client that sends so many frames which are no messages is disconnected, and what it sends beyond is not looked at.
pub const CLIENT_MALFORMED_MAX: u32 = 16;

pub struct Driver<W, N, M, S = NoSnapshots> {
    replica: Replica,
    state: State<M>,
    door: Door,
    wal: W,
    network: N,
    snapshots: Snapshots<S, M>,
    out: Output,
    /// For whom the WAL is reading, in the order of the reads.
    reading: VecDeque<ReplicaId>,
    /// What this replica wants to read back for itself, at most one part at a time.
    to_recall: Option<ReadForPeer>,
    /// What was read for itself: the next turn takes it.
    recalled: Option<WalRead>,
    /// Whether this replica served clients when the last turn ended. Leadership that is won in the middle of a
    /// turn serves from the next one on, when everything it recovered is applied.
    serving: bool,
    /// When the last turn began.
    turned_at: Option<Time>,
    status: StatusDesk,
    comparison: Comparison,
    /// What this turn came by of the slots at which states are compared.
    noted: Vec<StateHash>,
    /// Frames of connected clients that were no messages.
    malformed: HashMap<ClientId, u32>,
    counters: Counters,
    /// What had been done when this turn began.
    before: Work,
    /// What the process around counts, for the same report.
    counted_outside: Vec<(&'static str, u64)>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Counters {
    turns: u64,
    messages: u64,
    applied_bytes: u64,
    frames_malformed: u64,
    clients_expelled: u64,
    reads_dropped: u64,
}

impl<W: Wal, N: Network, M: StateMachine, S: SnapshotStore> Driver<W, N, M, S> {
    /// A replica that was rebuilt from its WAL; see [`crate::recovery::Recovery`].
    pub fn new(
        replica: Replica,
        state: State<M>,
        wal: W,
        network: N,
        snapshots: S,
    ) -> Driver<W, N, M, S> {
        assert_eq!(
            state.applied(),
            replica.commit_index(),
            "recovery applies everything that it finds chosen"
        );
        let pending = replica.config().wal_pending_bytes_max();
        assert!(
            wal.pending_bytes_max() >= pending,
            "the WAL lets {} bytes wait, the limits of the replica allow {pending}",
            wal.pending_bytes_max()
        );
        let comparison = Comparison::new(replica.config());
        Driver {
            replica,
            state,
            door: Door::default(),
            wal,
            network,
            snapshots: Snapshots::new(snapshots),
            out: Output::default(),
            reading: VecDeque::new(),
            to_recall: None,
            recalled: None,
            serving: false,
            turned_at: None,
            status: StatusDesk::default(),
            comparison,
            noted: Vec::new(),
            malformed: HashMap::new(),
            counters: Counters::default(),
            before: Work::default(),
            counted_outside: Vec::new(),
        }
    }

    /// One turn: takes everything that arrived, lets the core act on it once, and hands the results on. Runs at
    /// its own pace: the more has gathered, the more one turn does.
    pub fn turn(&mut self, now: Time, arrivals: &mut Vec<Arrival>) -> Result<(), Stopped> {
        self.watched_turn(now, arrivals, |_| {})
    }

    /// The same; `ended` is told as each part of the turn is over, for whoever has a clock.
    pub fn watched_turn(
        &mut self,
        now: Time,
        arrivals: &mut Vec<Arrival>,
        mut ended: impl FnMut(Stage),
    ) -> Result<(), Stopped> {
        self.counters.turns += 1;
        self.before = self.done();
        self.counters.messages += arrivals.len() as u64;
        self.note_sleep(now);
        self.take_from_store(now);
        ended(Stage::Store);
        for arrival in arrivals.drain(..) {
            self.take(now, arrival);
        }
        ended(Stage::Arrivals);
        self.take_durable(now)?;
        if let Some(WalRead { from, values }) = self.recalled.take() {
            let input = Input::Recalled { from, values };
            self.replica.step(now, input, &mut self.out);
        }
        if now >= self.replica.deadline() {
            self.replica.step(now, Input::Deadline, &mut self.out);
        }
        self.replica.flush(now, &mut self.out);
        ended(Stage::Core);
        self.persist();
        ended(Stage::Persist);
        self.replicate();
        ended(Stage::Replicate);
        self.apply();
        self.compare(now)?;
        ended(Stage::Apply);
        self.announce();
        self.read_back(now)?;
        self.run_snapshots(now);
        self.report_status(now);
        self.out.clear();
        self.door.tidy(&self.state.sessions);
        self.door.pace.turn(now, self.replica.intake_bytes());
        self.serving = self.replica.serves();
        ended(Stage::Serve);
        self.network.flush();
        self.check();
        ended(Stage::Flush);
        Ok(())
    }

    /// A turn is due with each heartbeat at the latest: if none came for two, this process was not run.
    fn note_sleep(&mut self, now: Time) {
        let gap_ns = self.turned_at.map_or(0, |at| now.since(at));
        if gap_ns > 2 * self.replica.config().timers.heartbeat_ns {
            self.replica.slept(gap_ns);
        }
        self.turned_at = Some(now);
    }

    /// When to call [`Driver::turn`] at the latest.
    pub fn deadline(&self) -> Time {
        if self.recalled.is_some() {
            return Time::default();
        }
        let others = [self.snapshots.wake_at(), self.status.deadline()];
        let replica = self.replica.deadline();
        others.into_iter().flatten().fold(replica, Time::min)
    }

    /// Whether the disk finished something (or failed) since the last turn, so that another one is due.
    pub fn has_durable_news(&mut self) -> bool {
        self.wal
            .durable()
            .map_or(true, |durable| durable > self.replica.durable())
    }

    pub fn replica(&self) -> &Replica {
        &self.replica
    }

    pub fn state(&self) -> &State<M> {
        &self.state
    }

    pub fn network_mut(&mut self) -> &mut N {
        &mut self.network
    }

    /// Ends the loop and gives disk, network and snapshots back, to be closed.
    pub fn into_parts(self) -> (W, N, S) {
        (self.wal, self.network, self.snapshots.store)
    }

    fn take(&mut self, now: Time, arrival: Arrival) {
        match arrival {
            Arrival::Peer { from, frame } => match codec::decode(frame) {
                Ok(message) => {
                    let input = Input::Message { from, message };
                    self.replica.step(now, input, &mut self.out);
                }
                Err(_) => self.counters.frames_malformed += 1,
            },
            Arrival::ClientNamed { client, owner } => self.door.named(client, owner),
            Arrival::Client { client, .. } if self.is_expelled(client) => {}
            Arrival::Client { client, frame } => match ClientMessage::decode(frame) {
                Ok(ClientMessage::Open { token }) => self.open(now, client, token),
                Ok(ClientMessage::Request(request)) => self.intake(now, client, request),
                Ok(ClientMessage::Attach { session, token }) => {
                    self.attach(client, session, token);
                }
                Ok(ClientMessage::Close { session }) => self.close(now, client, session),
                Ok(ClientMessage::Status) => self.status.ask(client),
                Err(_) => self.note_malformed(client),
            },
            Arrival::ClientGone { client } => {
                self.door.client_gone(client);
                self.status.client_gone(client);
                self.malformed.remove(&client);
            }
        }
    }

    fn serves(&self) -> bool {
        self.serving && self.replica.serves()
    }

    // A profile tells the stages of the command path apart by the names of these functions.
    #[inline(never)]
    fn intake(&mut self, now: Time, client: ClientId, request: Request) {
        let (session, first) = (request.session, request.first);
        if !self.serves() {
            self.door.counters.refused_not_leader += 1;
            return self.refuse(client, session, first, Reason::NotLeader);
        }
        let has_room = self.replica.has_room_for(&request);
        let limits = &self.replica.config().limits;
        let admission = self
            .door
            .admit(client, request, &self.state.sessions, has_room, limits);
        match admission {
            Admission::Admit(request) => self.admit(now, request),
            Admission::Repeat(frames) => self.reply_again(client, frames),
            Admission::Partly(frames, request) => {
                self.reply_again(client, frames);
                self.admit(now, request);
            }
            Admission::Refuse { expected, reason } => {
                self.refuse(client, session, expected, reason);
            }
        }
    }

    fn admit(&mut self, now: Time, request: Request) {
        self.replica
            .step(now, Input::Request(request), &mut self.out);
    }

    fn reply_again(&mut self, client: ClientId, frames: Vec<Bytes>) {
        for frame in frames {
            self.network.reply(client, frame);
        }
    }

    fn refuse(
        &mut self,
        client: ClientId,
        session: SessionId,
        expected: CommandNumber,
        reason: Reason,
    ) {
        let refused = Refused {
            session,
            expected,
            reason,
        };
        self.network
            .reply(client, ServerMessage::Refused(refused).encode());
    }

    #[inline(never)]
    fn take_durable(&mut self, now: Time) -> Result<(), WalFailed> {
        let durable = self.wal.durable()?;
        if durable > self.replica.durable() {
            self.replica
                .step(now, Input::Durable(durable), &mut self.out);
        }
        Ok(())
    }

    #[inline(never)]
    fn persist(&mut self) {
        for (lsn, record) in &self.out.records {
            self.wal.append(*lsn, record);
        }
        self.wal.submit();
    }

    #[inline(never)]
    fn replicate(&mut self) {
        for outgoing in self.out.messages.drain(..) {
            let lane = codec::lane(&outgoing.message);
            let frame = codec::encode(&outgoing.message);
            for to in outgoing.to.iter() {
                self.network.send(to, lane, frame.clone());
            }
        }
    }

    #[inline(never)]
    fn apply(&mut self) {
        let hash_slots = self.replica.config().limits.state_hash_slots;
        let malformed = self.state.values_malformed;
        for (slot, value) in self.out.chosen.drain(..) {
            let (door, network) = (&mut self.door, &mut self.network);
            self.counters.applied_bytes += value.len() as u64;
            self.state.apply(slot, value, |request, applied| {
                reply(door, network, request, applied);
            });
            if slot.0.is_multiple_of(hash_slots) {
                self.noted.push(self.state.hash());
            }
        }
        if self.state.values_malformed > malformed {
            // What was admitted with it did not execute: the clients' retries have to be taken in again.
            self.door.forget_admitted();
        }
    }

    fn announce(&mut self) {
        let Some(Leadership { ballot, leader }) = self.out.leadership.take() else {
            return;
        };
        // Whatever was taken in under another leadership is settled by what gets applied.
        self.door.forget_admitted();
        self.network
            .announce(ServerMessage::Leader { ballot, leader }.encode());
    }

    /// Hands what peers asked for, or this replica wants back for itself, to the WAL's reader, and what it read to them.
    fn read_back(&mut self, now: Time) -> Result<(), WalFailed> {
        let bytes_max = self.replica.config().limits.fetch_bytes_max;
        let own = self.replica.config().replica;
        for read in self.out.reads.drain(..) {
            if read.to == own {
                self.to_recall = Some(read);
            } else if self.reading.len() < READS_WAITING_MAX
                && self.wal.read(read.from, read.through, bytes_max)
            {
                self.reading.push_back(read.to);
            } else {
                self.counters.reads_dropped += 1;
            }
        }
        if let Some(read) = self.to_recall
            && self.wal.read(read.from, read.through, bytes_max)
        {
            self.to_recall = None;
            self.reading.push_back(own);
        }
        while let Some(read) = self.wal.take_read()? {
            let to = self.reading.pop_front().expect("a read was asked for");
            if to == own {
                self.recalled = Some(read);
            } else if read.values.is_empty() {
                self.replica
                    .offer_snapshot(now, to, read.from, &mut self.out);
            } else {
                self.send_chosen(to, read);
            }
        }
        Ok(())
    }

    fn send_chosen(&mut self, to: ReplicaId, read: WalRead) {
        let message = Message::Chosen(Chosen {
            from: read.from,
            values: read.values,
        });
        let frame = codec::encode(&message);
        self.network.send(to, codec::lane(&message), frame);
    }

    fn report_status(&mut self, now: Time) {
        let waiting = self.status.take(now);
        if waiting.is_empty() {
            return;
        }
        let mut values = Vec::new();
        self.report(&mut |name, value| values.push((name.to_owned(), value)));
        let frame = ServerMessage::StatusReply(values).encode();
        for client in waiting {
            self.network.reply(client, frame.clone());
        }
    }

    /// `trim ≤ applied = commit index ≤ proposed` and `durable ≤ appended`: the core checks its part itself.
    fn check(&self) {
        assert_eq!(
            self.state.applied(),
            self.replica.commit_index(),
            "what is chosen here is applied in the same turn"
        );
        assert!(
            self.replica.durable() <= self.replica.appended(),
            "durable beyond appended"
        );
    }
}

/// Sends the outcome of one request to whoever waits for it at this replica.
#[inline(never)]
fn reply<N: Network>(door: &mut Door, network: &mut N, request: &Request, applied: Applied) {
    if let Some((client, frame)) = door.answer(request, applied) {
        network.reply(client, frame);
    }
}
