//! One replica: a protocol between Synod's door, WAL, sessions and links.

use std::collections::VecDeque;
use std::future::Future;

use synod_engine::batch::Intake;
use synod_engine::client::{
    ClientMessage, REQUEST_HEADER_BYTES, Reason, Refused, Request, ServerMessage,
};
use synod_engine::config::Limits;
use synod_engine::ids::{ClientId, CommandNumber, Lsn, ReplicaId, SessionId, Slot, Time};
use synod_engine::intake::{Admission, Attaching, Closing, Door, Opening};
use synod_engine::output::Leadership;
use synod_engine::seams::{Arrival, Network, StateMachine, Wal, WalFailed};
use synod_engine::state::State;
use synod_engine::status::StatusDesk;
use synod_harness::node::Node;
use synod_harness::replica::Links;
use synod_storage::FileWal;

use crate::network::PeerNetwork;
use crate::output::Output;
use crate::protocol::Protocol;

/// How long a client should wait that cannot open a session now, in microseconds: as Synod says.
const OPEN_RETRY_US: u32 = 100_000;

pub struct Replica<P, M> {
    id: ReplicaId,
    limits: Limits,
    protocol: P,
    state: State<M>,
    door: Door,
    intake: Intake,
    /// Lengths of the values that were proposed here and are not applied yet.
    in_flight: VecDeque<usize>,
    in_flight_bytes: usize,
    wal: FileWal,
    network: PeerNetwork,
    out: Output,
    durable: Lsn,
    /// Whether this replica served clients when the last turn ended.
    serving: bool,
    announced: Leadership,
    /// Reads that the WAL has not taken yet.
    to_read: VecDeque<(Slot, Slot)>,
    status: StatusDesk,
    counters: Counters,
}

#[derive(Default)]
struct Counters {
    turns: u64,
    proposals: u64,
    frames_malformed: u64,
    leaderships: u64,
}

impl<P: Protocol, M: StateMachine> Replica<P, M> {
    /// `last` is the last record of the WAL that `protocol` and `state` were recovered from.
    pub fn new(
        id: ReplicaId,
        limits: Limits,
        protocol: P,
        state: State<M>,
        wal: FileWal,
        last: Lsn,
        network: PeerNetwork,
    ) -> Replica<P, M> {
        Replica {
            id,
            intake: Intake::new(limits.batch_bytes_max),
            limits,
            protocol,
            state,
            door: Door::default(),
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
            wal,
            network,
            out: Output::new(last),
            durable: last,
            serving: false,
            announced: Leadership::UNKNOWN,
            to_read: VecDeque::new(),
            status: StatusDesk::default(),
            counters: Counters::default(),
        }
    }

    fn take(&mut self, arrival: Arrival) {
        match arrival {
            Arrival::Peer { from, frame } => {
                if self.protocol.receive(from, frame).is_err() {
                    self.counters.frames_malformed += 1;
                }
            }
            Arrival::ClientNamed { client, owner } => self.door.named(client, owner),
            Arrival::Client { client, frame } => match ClientMessage::decode(frame) {
                Ok(ClientMessage::Request(request)) => self.request(client, request),
                Ok(ClientMessage::Open { token }) => self.open(client, token),
                Ok(ClientMessage::Attach { session, token }) => {
                    self.attach(client, session, token);
                }
                Ok(ClientMessage::Close { session }) => self.close_session(client, session),
                Ok(ClientMessage::Status) => self.status.ask(client),
                Err(_) => {
                    self.counters.frames_malformed += 1;
                    self.network.expel(client);
                }
            },
            Arrival::ClientGone { client } => {
                self.door.client_gone(client);
                self.status.client_gone(client);
            }
        }
    }

    fn request(&mut self, client: ClientId, request: Request) {
        let (session, first) = (request.session, request.first);
        if !self.serving {
            self.door.counters.refused_not_leader += 1;
            return self.refuse(client, session, first, Reason::NotLeader);
        }
        let has_room = self.has_room_for(&request);
        let sessions = &self.state.sessions;
        let admission = self
            .door
            .admit(client, request, sessions, has_room, &self.limits);
        let (repeated, admitted) = match admission {
            Admission::Admit(request) => (Vec::new(), Some(request)),
            Admission::Repeat(frames) => (frames, None),
            Admission::Partly(frames, request) => (frames, Some(request)),
            Admission::Refuse { expected, reason } => {
                return self.refuse(client, session, expected, reason);
            }
        };
        for frame in repeated {
            self.network.reply(client, frame);
        }
        if let Some(request) = admitted {
            self.intake.push(&request);
        }
    }

    fn open(&mut self, client: ClientId, token: u64) {
        // What opens a session in a slot is the same for Synod: see `synod_engine::sessions`.
        let owner = self.door.owner(client);
        let request = Request::open(token, owner);
        let reason = if !self.serving {
            self.door.counters.refused_not_leader += 1;
            Reason::NotLeader
        } else {
            let has_room = self.has_room_for(&request);
            match has_room.then(|| self.door.opening(token, client)) {
                Some(Opening::New) => {
                    for session in self.door.to_touch(owner, &self.state.sessions) {
                        self.intake.push(&Request::touch(session));
                    }
                    return self.intake.push(&request);
                }
                Some(Opening::UnderWay) => return,
                Some(Opening::Refused) | None => {
                    self.door.counters.refused_busy += 1;
                    Reason::Busy {
                        retry_after_us: OPEN_RETRY_US,
                    }
                }
            }
        };
        self.refuse(client, SessionId::NONE, request.first, reason);
    }

    fn attach(&mut self, client: ClientId, session: SessionId, token: u64) {
        let (sessions, applied) = (&self.state.sessions, self.state.applied());
        let attaching = self.door.attach(client, session, token, sessions, applied);
        if let Attaching::Refused(reason) = attaching {
            self.refuse(client, session, CommandNumber(0), reason);
        }
    }

    fn close_session(&mut self, client: ClientId, session: SessionId) {
        let reason = if !self.serving {
            self.door.counters.refused_not_leader += 1;
            Reason::NotLeader
        } else if !self.has_room_for(&Request::close(session, 0)) {
            self.door.counters.refused_busy += 1;
            Reason::Busy {
                retry_after_us: OPEN_RETRY_US,
            }
        } else {
            match self.door.close(client, session, &self.state.sessions) {
                Closing::New(token) => return self.intake.push(&Request::close(session, token)),
                Closing::UnderWay => return,
                Closing::Refused(reason) => reason,
            }
        };
        self.refuse(client, session, CommandNumber(u64::MAX), reason);
    }

    fn has_room_for(&self, request: &Request) -> bool {
        let length = REQUEST_HEADER_BYTES + request.commands.len();
        self.intake.bytes() + length <= self.limits.intake_bytes_max
    }

    fn refuse(
        &mut self,
        client: ClientId,
        session: SessionId,
        expected: CommandNumber,
        reason: Reason,
    ) {
        let refused = ServerMessage::Refused(Refused {
            session,
            expected,
            reason,
        });
        self.network.reply(client, refused.encode());
    }

    /// Hands on what gathered since the last turn, as far as the window has room.
    fn propose(&mut self) {
        let mut values = Vec::new();
        let limits = &self.limits;
        while (self.in_flight.len() as u64) < limits.window_slots_max
            && self.in_flight_bytes < limits.window_bytes_max
            && let Some(value) = self.intake.take()
        {
            self.in_flight.push_back(value.len());
            self.in_flight_bytes += value.len();
            values.push(value);
        }
        if !values.is_empty() {
            self.counters.proposals += values.len() as u64;
            self.protocol.propose(values);
        }
    }

    fn apply(&mut self) {
        for value in self.out.chosen.drain(..) {
            // A leader applies what it proposed, in that order. A library whose leader changes behind the loop may
            // hand out others' values first: this only decides how much is proposed at once.
            if !value.is_empty()
                && let Some(length) = self.in_flight.pop_front()
            {
                self.in_flight_bytes -= length;
            }
            let (door, network) = (&mut self.door, &mut self.network);
            let slot = self.state.applied().next();
            self.state.apply(slot, value, |request, applied| {
                if let Some((client, frame)) = door.answer(request, applied) {
                    network.reply(client, frame);
                }
            });
        }
    }

    /// Forgets what belonged to another leadership, and tells the clients of the new one.
    fn follow_leadership(&mut self) {
        let mut leadership = self.protocol.leadership();
        // Clients that come before everything is applied would be refused, and wait for the next announcement.
        if leadership.leader == Some(self.id) && !self.protocol.serves() {
            leadership.leader = None;
        }
        if leadership == self.announced {
            return;
        }
        if leadership.leader == Some(self.id) {
            self.counters.leaderships += 1;
        }
        self.announced = leadership;
        self.forget_admitted();
        let Leadership { ballot, leader } = leadership;
        tracing::info!("term {}: {leader:?} leads", ballot.round);
        self.network
            .announce(ServerMessage::Leader { ballot, leader }.encode());
    }

    /// What is not chosen yet may never be: the clients' repeats are new again.
    fn forget_admitted(&mut self) {
        self.intake.clear();
        self.in_flight.clear();
        self.in_flight_bytes = 0;
        self.door.forget_admitted();
    }

    fn read_back(&mut self) -> Result<(), WalFailed> {
        self.to_read.extend(self.out.reads.drain(..));
        while let Some((from, through)) = self.to_read.front()
            && self.wal.read(*from, *through, self.limits.fetch_bytes_max)
        {
            self.to_read.pop_front();
        }
        while let Some(read) = self.wal.take_read()? {
            self.protocol.read_back(read);
        }
        Ok(())
    }

    fn report_status(&mut self, now: Time) {
        let waiting = self.status.take(now);
        if waiting.is_empty() {
            return;
        }
        let mut values = Vec::new();
        let report = &mut |name: &'static str, value| values.push((name.to_owned(), value));
        let leadership = &self.announced;
        let leader = leadership.leader.map_or(0, |leader| u64::from(leader.0));
        let sessions = &self.state.sessions.counters;
        let door = &self.door.counters;
        for (name, value) in [
            ("replica", u64::from(self.id.0)),
            ("leading", u64::from(self.serving)),
            ("leader", leader),
            ("ballot_round", leadership.ballot.round),
            ("commit_index", self.protocol.commit_index().0),
            ("applied", self.state.applied().0),
            ("state_hash", self.state.machine.hash()),
            ("lsn_appended", self.out.appended().0),
            ("lsn_durable", self.durable.0),
            ("intake_bytes", self.intake.bytes() as u64),
            ("window_slots", self.in_flight.len() as u64),
            ("sessions", self.state.sessions.len() as u64),
            ("applied_commands", sessions.commands_applied),
            ("duplicates_skipped", sessions.duplicates_skipped),
            ("gaps_skipped", sessions.gaps_skipped),
            ("unknown_skipped", sessions.unknown_skipped),
            ("sessions_opened", sessions.sessions_opened),
            ("sessions_evicted", sessions.sessions_evicted),
            ("sessions_refused", sessions.sessions_refused),
            ("sessions_closed", sessions.sessions_closed),
            ("requests_admitted", door.requests_admitted),
            ("requests_repeated", door.requests_repeated),
            ("refused_busy", door.refused_busy),
            ("refused_gap", door.refused_gap),
            ("refused_not_leader", door.refused_not_leader),
            ("refused_unknown_session", door.refused_unknown_session),
            ("refused_not_attached", door.refused_not_attached),
            ("refused_over_limit", door.refused_over_limit),
            ("turns", self.counters.turns),
            ("proposals", self.counters.proposals),
            ("leaderships", self.counters.leaderships),
            ("frames_malformed", self.counters.frames_malformed),
        ] {
            report(name, value);
        }
        self.protocol.report(report);
        self.wal.counters(report);
        self.network.counters(report);
        let frame = ServerMessage::StatusReply(values).encode();
        for client in waiting {
            self.network.reply(client, frame.clone());
        }
    }
}

impl<P: Protocol, M: StateMachine> Node for Replica<P, M> {
    fn turn(&mut self, now: Time, arrivals: &mut Vec<Arrival>) -> anyhow::Result<()> {
        self.counters.turns += 1;
        for arrival in arrivals.drain(..) {
            self.take(arrival);
        }
        let durable = self.wal.durable()?;
        if durable > self.durable {
            self.durable = durable;
            self.protocol.durable(durable);
        }
        // Leadership may have been lost by what just arrived: what was taken in then goes to nobody.
        self.follow_leadership();
        if self.protocol.take_refusal() {
            self.forget_admitted();
        }
        if self.protocol.serves() {
            self.propose();
        }
        self.protocol.flush(now, &mut self.out);
        for (lsn, record) in self.out.records.drain(..) {
            self.wal.append(lsn, &record);
        }
        self.wal.submit();
        for (to, lane, frame) in self.out.frames.drain(..) {
            self.network.send(to, lane, frame);
        }
        self.apply();
        self.follow_leadership();
        self.read_back()?;
        self.report_status(now);
        self.door.tidy(&self.state.sessions);
        self.door.pace.turn(now, self.intake.bytes());
        self.serving = self.protocol.serves();
        self.network.flush();
        Ok(())
    }

    fn deadline(&self) -> Time {
        let protocol = self.protocol.deadline();
        self.status
            .deadline()
            .map_or(protocol, |status| status.min(protocol))
    }

    fn has_news(&mut self) -> bool {
        let durable = self.wal.durable();
        durable.map_or(true, |durable| durable > self.durable) || self.protocol.has_news()
    }

    fn woken(&self) -> impl Future<Output = ()> {
        self.protocol.woken()
    }

    async fn close(self) {
        self.network.close().await;
        drop(self.wal);
    }
}
