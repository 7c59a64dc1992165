//! A client session without IO, clock or randomness: what to send where, and which replies to hand out.
//!
//! Commands are numbered from 1 and stay in the session until their reply came: a resend repeats the same numbers,
//! so that the replicas can tell a repeat from news. A command whose deadline passed stays as well. It may or may
//! not execute; without it, no later command could, because a session's commands are taken in in order.

use std::collections::VecDeque;

use bytes::Bytes;
use synod_engine::client::{ClientMessage, Reason, Refused, Replies, ServerMessage};
use synod_engine::ids::{CommandNumber, ReplicaId, ReplicaSet, SessionId, Time};
use synod_engine::seams::Frame;

use super::routing::Routing;
use super::runs::{Run, Runs, skip_items};

pub use super::event::{Event, SessionCounters, SessionFailed, SubmitError};

/// Commands of one request, encoded. The replica's own limit is the same.
pub const REQUEST_BYTES_MAX: usize = 512 * 1024;
/// Commands without a reply, encoded: they are kept for resending.
pub const OUTSTANDING_BYTES_MAX: usize = 64 * 1024 * 1024;
/// The wait before the next resend doubles up to this factor while nothing comes back.
const RETRY_FACTOR_MAX: u64 = 8;
/// No replica can send a client away for longer.
const BUSY_NS_MAX: u64 = 1_000_000_000;
/// So many commands with a reply make the window larger by one.
const WINDOW_GROWTH: u64 = 4;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionConfig {
    pub replicas: ReplicaSet,
    /// From the system's randomness: it opens the session, and whoever knows it may use it.
    pub token: u64,
    pub outstanding_max: u32,
    /// The oldest request is sent again after this long without any progress.
    pub retry_after_ns: u64,
    /// A command without a reply is reported after this long.
    pub deadline_ns: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Opening { sent: bool },
    Open(SessionId),
    Closing { session: SessionId, sent: bool },
    Over,
}

pub struct Session {
    config: SessionConfig,
    phase: Phase,
    failure: Option<SessionFailed>,
    routing: Routing,
    runs: Runs,
    /// The next command to send to the target.
    cursor: CommandNumber,
    /// No command from here on was ever sent.
    sent_below: CommandNumber,
    /// Where the last resend began, if nothing was acknowledged since.
    resent_from: Option<CommandNumber>,
    paused_until: Option<Time>,
    /// Commands that may be on the way: as many as the target took in when it was last busy, and more with each reply.
    window: u64,
    /// Since when nothing came back, or when sending began.
    waiting_since: Time,
    retry_factor: u64,
    /// The target may not know that this is the session's client.
    attach_due: bool,
    /// Everything was sent again because the target did not know; what it refused before it does is of no interest.
    attaching: bool,
    /// Nothing came back for too long: only the oldest request is on its way until something does.
    probing: bool,
    events: VecDeque<Event>,
    counters: SessionCounters,
}

impl Session {
    pub fn new(config: SessionConfig) -> Session {
        assert!(
            config.outstanding_max > 0,
            "a session without outstanding commands does nothing"
        );
        let first = CommandNumber(1);
        Session {
            routing: Routing::new(config.replicas),
            config,
            phase: Phase::Opening { sent: false },
            failure: None,
            runs: Runs::new(first),
            cursor: first,
            sent_below: first,
            resent_from: None,
            paused_until: None,
            window: u64::MAX,
            waiting_since: Time::default(),
            retry_factor: 1,
            attach_due: false,
            attaching: false,
            probing: false,
            events: VecDeque::new(),
            counters: SessionCounters::default(),
        }
    }

    /// Takes a run of `count` commands, encoded as count × (length u32 | command), and numbers them.
    pub fn submit(
        &mut self,
        now: Time,
        commands: Bytes,
        count: u32,
    ) -> Result<CommandNumber, SubmitError> {
        match (&self.failure, self.phase) {
            (Some(failure), _) => return Err(failure.clone().into()),
            (None, Phase::Open(_)) => {}
            (None, Phase::Opening { .. } | Phase::Closing { .. } | Phase::Over) => {
                return Err(SubmitError::NotOpen);
            }
        }
        let bytes = commands.len();
        if bytes > REQUEST_BYTES_MAX {
            return Err(SubmitError::TooLong { bytes });
        }
        let commands_max = self.config.outstanding_max;
        let outstanding = self.outstanding() + u64::from(count);
        if outstanding > u64::from(commands_max)
            || self.runs.bytes() + bytes > OUTSTANDING_BYTES_MAX
        {
            return Err(SubmitError::WouldExceed { commands_max });
        }
        if self.runs.is_empty() {
            self.waiting_since = now;
            self.retry_factor = 1;
        }
        Ok(self.runs.append(now, commands, count))
    }

    /// Commands without a reply.
    pub fn outstanding(&self) -> u64 {
        self.runs.next().0 - self.runs.acknowledged().0
    }

    /// Once it is open, and until it ends.
    pub fn id(&self) -> Option<SessionId> {
        match self.phase {
            Phase::Open(id) | Phase::Closing { session: id, .. } => Some(id),
            Phase::Opening { .. } | Phase::Over => None,
        }
    }

    /// Ends the session behind what was sent in it. Returns whether there is one to end: then
    /// [`Event::Closed`] follows, or a failure.
    pub fn close(&mut self, now: Time) -> bool {
        let Phase::Open(session) = self.phase else {
            return false;
        };
        self.phase = Phase::Closing {
            session,
            sent: false,
        };
        self.waiting_since = now;
        self.retry_factor = 1;
        true
    }

    pub fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open(_))
    }

    pub fn leader(&self) -> Option<ReplicaId> {
        self.routing.leader()
    }

    pub fn counters(&self) -> SessionCounters {
        self.counters
    }

    pub fn event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    pub fn on_connected(&mut self, now: Time, replica: ReplicaId) {
        self.routing.connected(replica);
        // What was sent over an earlier connection may be lost.
        if self.routing.target() == Some(replica) {
            self.probing = false;
            self.restart(now);
        }
    }

    pub fn on_disconnected(&mut self, replica: ReplicaId) {
        self.routing.disconnected(replica);
    }

    pub fn on_message(&mut self, now: Time, from: ReplicaId, message: ServerMessage) {
        match message {
            ServerMessage::Leader { ballot, leader } => {
                let changed = self.routing.announced(ballot, leader);
                self.probing &= !changed;
                self.redirected(now, changed);
            }
            ServerMessage::Opened { token, session } => self.on_opened(now, from, token, session),
            ServerMessage::Replies(replies) => self.on_replies(now, replies),
            ServerMessage::Gone {
                session,
                first,
                end,
            } => self.on_gone(now, session, first, end),
            ServerMessage::Closed { session } => self.on_closed(session),
            ServerMessage::Refused(refused) => self.on_refused(now, from, &refused),
            // The status of a replica is no matter of the session.
            ServerMessage::StatusReply(_) => {}
        }
    }

    /// Acts on the passing of time. Call it when [`Session::deadline`] is reached; earlier does no harm.
    pub fn tick(&mut self, now: Time) {
        let deadline_ns = self.config.deadline_ns;
        while let Some((first, count)) = self.runs.expire(now, deadline_ns) {
            self.counters.timed_out += u64::from(count);
            self.events.push_back(Event::TimedOut { first, count });
        }
        if self.retry_at().is_some_and(|at| now >= at) {
            self.counters.retries += 1;
            self.retry_factor = (self.retry_factor * 2).min(RETRY_FACTOR_MAX);
            self.window = self.window.min(self.on_the_way() / 2).max(1);
            // A leader that stalls has everything already, and another replica could only give it back.
            self.probing = true;
            if self.routing.rotate() {
                self.counters.redirects += 1;
            }
            self.restart(now);
        }
    }

    /// When [`Session::tick`] or [`Session::poll`] has something to do again, if nothing else happens.
    pub fn deadline(&self) -> Option<Time> {
        let expiry = self.runs.expires_at(self.config.deadline_ns);
        [self.retry_at(), self.paused_until, expiry]
            .into_iter()
            .flatten()
            .min()
    }

    /// Where the next frame would go, if there is one to send now.
    pub fn wants_to_send(&mut self, now: Time) -> Option<ReplicaId> {
        if self.paused_until.is_some_and(|until| now < until) {
            return None;
        }
        self.paused_until = None;
        let pending = match self.phase {
            Phase::Opening { sent } => !sent,
            Phase::Open(_) => self.attach_due || self.has_request_to_send(),
            Phase::Closing { sent, .. } => self.attach_due || !sent || self.has_request_to_send(),
            Phase::Over => false,
        };
        self.routing.reachable().filter(|_| pending)
    }

    /// The next frame to send, and to whom.
    pub fn poll(&mut self, now: Time) -> Option<(ReplicaId, Frame)> {
        let to = self.wants_to_send(now)?;
        let frame = match self.phase {
            Phase::Opening { .. } => {
                self.phase = Phase::Opening { sent: true };
                let token = self.config.token;
                Frame {
                    head: ClientMessage::Open { token }.encode(),
                    body: Bytes::new(),
                }
            }
            Phase::Open(session) | Phase::Closing { session, .. } if self.attach_due => {
                self.attach_due = false;
                let token = self.config.token;
                Frame {
                    head: ClientMessage::Attach { session, token }.encode(),
                    body: Bytes::new(),
                }
            }
            Phase::Open(session) | Phase::Closing { session, .. } if self.has_request_to_send() => {
                self.next_request(session)
            }
            Phase::Closing { session, .. } => {
                self.phase = Phase::Closing {
                    session,
                    sent: true,
                };
                Frame {
                    head: ClientMessage::Close { session }.encode(),
                    body: Bytes::new(),
                }
            }
            Phase::Open(_) | Phase::Over => return None,
        };
        Some((to, frame))
    }

    fn has_request_to_send(&self) -> bool {
        let window = if self.probing { 1 } else { self.window };
        self.cursor < self.runs.next() && self.on_the_way() < window
    }

    fn next_request(&mut self, session: SessionId) -> Frame {
        let (frame, count) = self.runs.request(session, self.cursor);
        let first = self.cursor;
        self.cursor = first.plus(count);
        if self.sent_below > first {
            self.counters.resent += self.sent_below.min(self.cursor).0 - first.0;
        }
        self.sent_below = self.sent_below.max(self.cursor);
        frame
    }

    fn on_opened(&mut self, now: Time, from: ReplicaId, token: u64, session: SessionId) {
        let opening = matches!(self.phase, Phase::Opening { .. });
        // A repeated Open may be answered twice; the second session is left to be evicted.
        if opening && token == self.config.token {
            self.phase = Phase::Open(session);
            // Who opened it knows its client.
            self.attach_due = self.routing.target() != Some(from);
            self.progress(now);
            self.events.push_back(Event::Opened);
        }
    }

    fn on_replies(&mut self, now: Time, mut replies: Replies) {
        let acknowledged = self.runs.acknowledged();
        let end = replies.first.plus(replies.count);
        if self.id() != Some(replies.session) || end <= acknowledged || end > self.sent_below {
            return;
        }
        if replies.first > acknowledged {
            // Earlier replies went down with another connection; the replicas still have them.
            return self.resend(now, acknowledged);
        }
        let seen = (acknowledged.0 - replies.first.0) as u32;
        skip_items(&mut replies.replies, seen);
        replies.first = acknowledged;
        replies.count -= seen;
        self.acknowledge(now, end, u64::from(replies.count));
        self.events.push_back(Event::Replies(replies));
    }

    fn on_gone(&mut self, now: Time, session: SessionId, first: CommandNumber, end: CommandNumber) {
        let acknowledged = self.runs.acknowledged();
        if self.id() != Some(session) || end <= acknowledged || end > self.sent_below {
            return;
        }
        if first > acknowledged {
            return self.resend(now, acknowledged);
        }
        let count = end.0 - acknowledged.0;
        self.acknowledge(now, end, count);
        self.events.push_back(Event::Gone {
            first: acknowledged,
            // No more than the limit on outstanding commands, which has 32 bits.
            count: u32::try_from(count).unwrap_or(u32::MAX),
        });
    }

    fn acknowledge(&mut self, now: Time, end: CommandNumber, count: u64) {
        self.runs.acknowledge(end);
        self.cursor = self.cursor.max(end);
        self.window = self.window.saturating_add(count / WINDOW_GROWTH + 1);
        self.progress(now);
    }

    fn on_closed(&mut self, session: SessionId) {
        if matches!(self.phase, Phase::Closing { session: own, .. } if own == session) {
            self.phase = Phase::Over;
            self.runs.clear();
            self.events.push_back(Event::Closed);
        }
    }

    fn on_refused(&mut self, now: Time, from: ReplicaId, refused: &Refused) {
        // Only the target's opinion counts; anybody else's is about something that was sent again since.
        let ours = match self.phase {
            Phase::Opening { .. } => refused.session == SessionId::NONE,
            Phase::Open(session) | Phase::Closing { session, .. } => refused.session == session,
            Phase::Over => false,
        };
        if !ours || self.routing.target() != Some(from) {
            return;
        }
        match refused.reason {
            Reason::Busy { retry_after_us } => {
                self.counters.busy += 1;
                let pause = (u64::from(retry_after_us) * 1_000).min(BUSY_NS_MAX);
                self.paused_until = Some(now.plus(pause));
                self.probing = false;
                // Being told to wait is a sign of life.
                self.waiting_since = now;
                self.rewind(refused.expected);
                // More than it has room for would only be refused again.
                self.window = self.on_the_way().max(1);
                // What was sent behind the refused request is refused for the gap; that is answered already.
                self.resent_from = Some(self.cursor);
                self.say_again();
            }
            Reason::NotAttached if self.attaching => {}
            Reason::NotAttached => {
                self.restart(now);
                self.attaching = true;
            }
            Reason::Gap => self.resend(now, refused.expected),
            Reason::NotLeader => {
                let changed = self.routing.refused(from);
                self.redirected(now, changed);
            }
            Reason::UnknownSession if matches!(self.phase, Phase::Closing { .. }) => {
                self.on_closed(refused.session);
            }
            Reason::UnknownSession => self.fail(SessionFailed::Unknown(refused.session)),
            Reason::OverLimit { limit } => self.fail(SessionFailed::OverLimit {
                number: refused.expected,
                limit,
            }),
        }
    }

    /// Commands sent to the target and without a reply.
    fn on_the_way(&self) -> u64 {
        self.cursor.0 - self.runs.acknowledged().0
    }

    /// Goes back to `from`, unless a resend from there is under way already: what was sent after a refused request
    /// is refused too, request by request, and one resend answers them all.
    fn resend(&mut self, now: Time, from: CommandNumber) {
        if self.resent_from == Some(from) || self.cursor <= from {
            return;
        }
        self.resent_from = Some(from);
        self.waiting_since = now;
        self.rewind(from);
    }

    /// The cursor only ever goes back here, and never before what is acknowledged.
    fn rewind(&mut self, to: CommandNumber) {
        self.cursor = self.cursor.min(to).max(self.runs.acknowledged());
    }

    fn redirected(&mut self, now: Time, changed: bool) {
        if changed {
            self.counters.redirects += 1;
            self.retry_factor = 1;
            self.restart(now);
        }
    }

    /// Sends everything again, to whoever is the target now.
    fn restart(&mut self, now: Time) {
        self.cursor = self.runs.acknowledged();
        self.resent_from = None;
        self.paused_until = None;
        self.waiting_since = now;
        self.attach_due = self.id().is_some();
        self.attaching = false;
        self.say_again();
    }

    /// Whether the session is to be opened or closed is said once to each target, until it is.
    fn say_again(&mut self) {
        if let Phase::Opening { sent } | Phase::Closing { sent, .. } = &mut self.phase {
            *sent = false;
        }
    }

    fn progress(&mut self, now: Time) {
        self.resent_from = None;
        self.waiting_since = now;
        self.retry_factor = 1;
        self.attaching = false;
        self.probing = false;
    }

    fn fail(&mut self, failure: SessionFailed) {
        self.phase = Phase::Over;
        self.failure = Some(failure.clone());
        self.runs.clear();
        self.events.push_back(Event::Failed(failure));
    }

    fn retry_at(&self) -> Option<Time> {
        let waiting = match self.phase {
            Phase::Opening { .. } | Phase::Closing { .. } => true,
            Phase::Open(_) => !self.runs.is_empty(),
            Phase::Over => false,
        };
        let after = self.config.retry_after_ns * self.retry_factor;
        waiting.then(|| self.waiting_since.plus(after))
    }
}

/// What the tests of this module and of the shell look at.
impl Session {
    pub fn runs(&self) -> impl Iterator<Item = &Run> {
        self.runs.iter()
    }
}
