//! The door: which requests a leader takes in, and what it answers to the others.
//!
//! Admission is by bytes and by session order. A session's commands enter the log in the order of their numbers;
//! what is above the next number is refused (its client resends from there), what is below is a repeat.

use std::collections::{HashMap, HashSet};

use bytes::{Buf, Bytes};

use crate::client::{LENGTH_BYTES, REQUEST_HEADER_BYTES, Reason, Refused, Request, ServerMessage};
use crate::config::Limits;
use crate::ids::{ClientId, CommandNumber, Owner, SessionId, Slot};
use crate::pace::{Pace, Share};
use crate::sessions::{Applied, SESSION_OUTSTANDING_MAX, SESSIONS_MAX, Sessions};

/// Sessions that wait to be opened.
const OPENINGS_MAX: usize = 256;
/// Bytes of cached replies that are sent again in one turn, beyond which repeats are refused as busy: a small request
/// can ask for megabytes of them.
pub const REPEATED_BYTES_PER_TURN_MAX: usize = 4 << 20;
/// What handing on one frame costs besides its bytes, in bytes.
const FRAME_COST_BYTES: usize = 64;
/// How long a client waits that finds too many sessions open, in microseconds.
const CROWDED_RETRY_US: u32 = 100_000;
/// How long a client waits whose repeats are too many for this turn, in microseconds.
const REPEAT_RETRY_US: u32 = 2_000;

/// What one leader has taken in beyond what is applied, and who waits for the replies. Forgotten with leadership.
#[derive(Clone, Debug, Default)]
pub struct Door {
    /// Per session the next number to take in, and its share of the intake.
    next: HashMap<SessionId, Taken>,
    pub pace: Pace,
    /// What the frames that were sent again in this turn cost.
    repeated_bytes: usize,
    /// The connection that attached itself to a session: it alone may send there, and the replies go to it.
    routes: HashMap<SessionId, ClientId>,
    /// The same by connection, each of which has one session.
    attached: HashMap<ClientId, SessionId>,
    /// Names of connected clients that have one.
    owners: HashMap<ClientId, Owner>,
    /// Sessions that are being kept from eviction.
    touching: HashSet<SessionId>,
    /// Sessions whose end was taken in and is not applied yet.
    closing: HashSet<SessionId>,
    /// Who waits for a session to be opened, by token.
    opening: HashMap<u64, ClientId>,
    pub counters: Counters,
}

#[derive(Clone, Copy, Debug)]
struct Taken {
    next: CommandNumber,
    share: Share,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub requests_admitted: u64,
    pub requests_repeated: u64,
    /// Frames of cached replies that were sent again.
    pub replies_repeated: u64,
    pub refused_busy: u64,
    pub refused_gap: u64,
    pub refused_not_leader: u64,
    pub refused_unknown_session: u64,
    pub refused_not_attached: u64,
    pub refused_over_limit: u64,
}

/// What the leader does with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Take this part of it in.
    Admit(Request),
    /// Everything in it was taken in before. Replies to what has executed are sent again; the rest comes in time.
    Repeat(Vec<Bytes>),
    /// Part of it is old: send these replies again and take the rest in.
    Partly(Vec<Bytes>, Request),
    Refuse {
        expected: CommandNumber,
        reason: Reason,
    },
}

/// What becomes of a request to open a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    New,
    /// The same client asked before and is answered once.
    UnderWay,
    /// Too many wait, or another client uses the same token.
    Refused,
}

/// What becomes of an attempt to attach a connection to a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attaching {
    Attached,
    Refused(Reason),
    /// This replica does not know yet.
    Unknown,
}

/// What becomes of a request to close a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closing {
    /// To be taken in with this token.
    New(u64),
    UnderWay,
    Refused(Reason),
}

impl Door {
    /// Attaches a connection to the session that `token` opened. Followers do so as well: whoever becomes the leader
    /// knows its clients then. That a session is over is said only if it was opened in an applied slot, so that a
    /// leader of the past ends none that it has not heard of.
    pub fn attach(
        &mut self,
        client: ClientId,
        session: SessionId,
        token: u64,
        sessions: &Sessions,
        applied: Slot,
    ) -> Attaching {
        match sessions.token(session) {
            Some(known) if known == token => {
                self.route_to(session, client);
                Attaching::Attached
            }
            None if session.opened_in() > applied => Attaching::Unknown,
            _ => {
                self.counters.refused_unknown_session += 1;
                Attaching::Refused(Reason::UnknownSession)
            }
        }
    }

    pub fn named(&mut self, client: ClientId, owner: Owner) {
        self.owners.insert(client, owner);
    }

    pub fn owner(&self, client: ClientId) -> Owner {
        self.owners.get(&client).copied().unwrap_or_default()
    }

    /// Sessions whose clients are connected and that one more session of `owner` could drive out: they are to be
    /// touched before it is opened. A client that has nothing to say is alive all the same.
    pub fn to_touch(&mut self, owner: Owner, sessions: &Sessions) -> Vec<SessionId> {
        let opens = self.opening.len();
        let routes = &self.routes;
        let mut live = sessions.live_victims(owner, opens, |id| routes.contains_key(&id));
        live.retain(|session| self.touching.insert(*session));
        live
    }

    fn route_to(&mut self, session: SessionId, client: ClientId) {
        if let Some(former) = self.attached.insert(client, session)
            && former != session
            && self.routes.get(&former) == Some(&client)
        {
            self.routes.remove(&former);
        }
        self.routes.insert(session, client);
    }

    /// Decides about the end of a session, asked for by `client`.
    pub fn close(&mut self, client: ClientId, session: SessionId, sessions: &Sessions) -> Closing {
        if self.routes.get(&session) != Some(&client) {
            self.counters.refused_not_attached += 1;
            return Closing::Refused(Reason::NotAttached);
        }
        match sessions.token(session) {
            None => Closing::Refused(Reason::UnknownSession),
            Some(_) if !self.closing.insert(session) => Closing::UnderWay,
            Some(token) => Closing::New(token),
        }
    }

    /// Decides about a request of a leader that serves.
    pub fn admit(
        &mut self,
        client: ClientId,
        request: Request,
        sessions: &Sessions,
        has_room: bool,
        limits: &Limits,
    ) -> Admission {
        if self.routes.get(&request.session) != Some(&client) {
            self.counters.refused_not_attached += 1;
            return refuse(request.first, Reason::NotAttached);
        }
        let Some(last) = sessions.last(request.session) else {
            self.counters.refused_unknown_session += 1;
            return refuse(request.first, Reason::UnknownSession);
        };
        let taken = self.next.entry(request.session).or_insert(Taken {
            next: last.plus(1),
            share: Share::default(),
        });
        let next = taken.next;
        if let Some(limit) = over_limit(&request, limits) {
            self.counters.refused_over_limit += 1;
            return refuse(next, Reason::OverLimit { limit });
        }
        if request.first > next {
            self.counters.refused_gap += 1;
            return refuse(next, Reason::Gap);
        }
        let acknowledged = sessions.acknowledged(request.session).min(last.plus(1));
        if request.end() <= acknowledged {
            // A late copy of what its client has replies to.
            self.counters.requests_repeated += 1;
            return Admission::Repeat(Vec::new());
        }
        let repeated = if request.first <= last {
            if self.repeated_bytes >= REPEATED_BYTES_PER_TURN_MAX {
                self.counters.refused_busy += 1;
                let retry_after_us = REPEAT_RETRY_US;
                return refuse(request.first, Reason::Busy { retry_after_us });
            }
            repeat(&request, request.first.max(acknowledged), sessions)
        } else {
            Vec::new()
        };
        if request.end() <= next {
            self.counters.requests_repeated += 1;
            self.note_repeated(&repeated);
            return Admission::Repeat(repeated);
        }
        let bytes = REQUEST_HEADER_BYTES + request.commands.len();
        let limit = limits.intake_bytes_max;
        if !has_room || !self.pace.admits(&mut taken.share, bytes, limit) {
            self.counters.refused_busy += 1;
            let retry_after_us = self.pace.retry_after_us(bytes);
            return refuse(next, Reason::Busy { retry_after_us });
        }
        self.counters.requests_admitted += 1;
        let fresh = skip(request, next);
        taken.next = fresh.end();
        self.note_repeated(&repeated);
        if repeated.is_empty() {
            Admission::Admit(fresh)
        } else {
            Admission::Partly(repeated, fresh)
        }
    }

    fn note_repeated(&mut self, frames: &[Bytes]) {
        let cost = |frame: &Bytes| frame.len() + FRAME_COST_BYTES;
        self.repeated_bytes += frames.iter().map(cost).sum::<usize>();
        self.counters.replies_repeated += frames.len() as u64;
    }

    /// Notes who waits for the session that `token` opens.
    pub fn opening(&mut self, token: u64, client: ClientId) -> Opening {
        match self.opening.get(&token) {
            Some(waiting) if *waiting == client => Opening::UnderWay,
            Some(_) => Opening::Refused,
            None if self.opening.len() >= OPENINGS_MAX => Opening::Refused,
            None => {
                self.opening.insert(token, client);
                Opening::New
            }
        }
    }

    /// What an applied request has to tell whom, if somebody waits for it here.
    pub fn answer(&mut self, request: &Request, applied: Applied) -> Option<(ClientId, Bytes)> {
        let session = request.session;
        match applied {
            Applied::Executed(frame) => self.route(session).map(|client| (client, frame)),
            Applied::Opened(session) => {
                let token = request.first.0;
                let client = self.opening.remove(&token)?;
                self.route_to(session, client);
                let opened = ServerMessage::Opened { token, session };
                Some((client, opened.encode()))
            }
            Applied::Closed => {
                self.closing.remove(&session);
                let client = self.detach(session)?;
                Some((client, ServerMessage::Closed { session }.encode()))
            }
            Applied::Unknown => {
                let client = self.detach(session)?;
                let refused = Refused {
                    session,
                    expected: request.first,
                    reason: Reason::UnknownSession,
                };
                Some((client, ServerMessage::Refused(refused).encode()))
            }
            Applied::Crowded => {
                let client = self.opening.remove(&request.first.0)?;
                self.counters.refused_busy += 1;
                let refused = Refused {
                    session: SessionId::NONE,
                    expected: request.first,
                    reason: Reason::Busy {
                        retry_after_us: CROWDED_RETRY_US,
                    },
                };
                Some((client, ServerMessage::Refused(refused).encode()))
            }
            Applied::Skipped => {
                if request.count == 0 {
                    self.touching.remove(&session);
                }
                None
            }
        }
    }

    fn detach(&mut self, session: SessionId) -> Option<ClientId> {
        let client = self.routes.remove(&session)?;
        self.attached.remove(&client);
        Some(client)
    }

    /// Sessions of which it is known what was taken in.
    pub fn taken(&self) -> usize {
        self.next.len()
    }

    pub fn route(&self, session: SessionId) -> Option<ClientId> {
        self.routes.get(&session).copied()
    }

    pub fn client_gone(&mut self, client: ClientId) {
        if let Some(session) = self.attached.remove(&client)
            && self.routes.get(&session) == Some(&client)
        {
            self.routes.remove(&session);
        }
        self.owners.remove(&client);
        self.opening.retain(|_, route| *route != client);
    }

    /// A new leadership starts from what is applied.
    pub fn forget_admitted(&mut self) {
        self.next.clear();
        self.opening.clear();
        self.closing.clear();
        self.touching.clear();
    }

    /// Once per turn. Drops what belongs to sessions that no longer exist, once that has become the larger part.
    pub fn tidy(&mut self, sessions: &Sessions) {
        self.repeated_bytes = 0;
        if self.next.len() > 2 * SESSIONS_MAX {
            self.next
                .retain(|session, _| sessions.last(*session).is_some());
        }
    }
}

/// What is kept of the replies to a request that came again, with a word about those that are not.
fn repeat(request: &Request, first: CommandNumber, sessions: &Sessions) -> Vec<Bytes> {
    let session = request.session;
    let Some(kept) = sessions.cached(session, first, request.end()) else {
        return Vec::new();
    };
    let mut frames = kept.frames;
    let end = kept.from.min(request.end());
    if end > first {
        // Executed, but the reply is gone: the client must not believe that it was not.
        let gone = ServerMessage::Gone {
            session,
            first,
            end,
        };
        frames.insert(0, gone.encode());
    }
    frames
}

fn refuse(expected: CommandNumber, reason: Reason) -> Admission {
    Admission::Refuse { expected, reason }
}

/// The limit that a request breaks, if any.
fn over_limit(request: &Request, limits: &Limits) -> Option<u32> {
    if REQUEST_HEADER_BYTES + request.commands.len() > limits.request_bytes_max {
        return Some(limits.request_bytes_max as u32);
    }
    // Only a long request can hide a long command: the common case costs one comparison.
    if request.commands.len() > limits.command_bytes_max
        && request
            .iter()
            .any(|command| command.len() > limits.command_bytes_max)
    {
        return Some(limits.command_bytes_max as u32);
    }
    let outstanding = request.end().0.saturating_sub(request.acknowledged.0);
    (outstanding > SESSION_OUTSTANDING_MAX).then_some(SESSION_OUTSTANDING_MAX as u32)
}

/// The part of a request from number `next` on.
fn skip(mut request: Request, next: CommandNumber) -> Request {
    while request.first < next {
        let length = request.commands.get_u32_le() as usize;
        request.commands.advance(length);
        request.first = request.first.plus(1);
        request.count -= 1;
    }
    debug_assert!(request.count > 0 && request.commands.len() >= LENGTH_BYTES);
    request
}
