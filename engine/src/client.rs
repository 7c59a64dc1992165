//! What clients and replicas say to each other.
//!
//! Every frame is `length: u32 | kind: u8 | body`, little-endian; `length` counts what follows it. Commands of one
//! session travel in runs: a request carries `count` commands with consecutive numbers from `first` on, so that
//! admission, batching and acknowledgement cost per run, not per command.
//!
//! ```text
//! request (kind 2), and each entry of a batch (crate::batch), without the kind:
//!   session u64 | first u64 | acknowledged u64 | count u32 | bytes u32 | count × (length u32 | command)
//! An attach (kind 4: session u64 | token u64) comes before the first request of a connection: only who knows the token
//! that opened a session may use it.
//!
//! replies (kind 16):
//!   session u64 | first u64 | count u32 | bytes u32 | count × (length u32 | reply)
//! ```

mod replies;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::codec::DecodeError;
use crate::ids::{Ballot, CommandNumber, Owner, ReplicaId, SessionId};
use replies::{put_refused, take_refused, take_replies, take_status};

/// Bytes of a request's header, kind not counted.
pub const REQUEST_HEADER_BYTES: usize = 32;
/// Bytes in front of each command and each reply.
pub const LENGTH_BYTES: usize = 4;

const OPEN: u8 = 1;
const REQUEST: u8 = 2;
const STATUS: u8 = 3;
const ATTACH: u8 = 4;
const CLOSE: u8 = 5;
const REPLIES: u8 = 16;
const OPENED: u8 = 17;
const REFUSED: u8 = 18;
const LEADER: u8 = 19;
const STATUS_REPLY: u8 = 20;
const CLOSED: u8 = 21;
const GONE: u8 = 22;

/// From a client to a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientMessage {
    /// Opens a session. `token` is the client's random choice, given back in the answer.
    Open {
        token: u64,
    },
    Request(Request),
    /// From now on this connection, and no other one, sends in the session that `token` opened. A connection has one
    /// session.
    Attach {
        session: SessionId,
        token: u64,
    },
    /// Ends the session of this connection, behind what was sent in it before.
    Close {
        session: SessionId,
    },
    /// Asks for the replica's counters and watermarks.
    Status,
}

/// A run of commands of one session, still encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub session: SessionId,
    pub first: CommandNumber,
    /// The client has seen the reply of every command below this one: their cached replies may go.
    pub acknowledged: CommandNumber,
    pub count: u32,
    /// `count` × (length u32 | command)
    pub commands: Bytes,
}

/// From a replica to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerMessage {
    Replies(Replies),
    Opened {
        token: u64,
        session: SessionId,
    },
    Refused(Refused),
    /// The session is over, as its client asked.
    Closed {
        session: SessionId,
    },
    /// The commands from `first` to before `end` were executed, once; their replies were not kept any longer.
    Gone {
        session: SessionId,
        first: CommandNumber,
        end: CommandNumber,
    },
    /// The leader of the highest ballot that this replica knows of; `None` while there is none.
    Leader {
        ballot: Ballot,
        leader: Option<ReplicaId>,
    },
    StatusReply(Vec<(String, u64)>),
}

/// The replies of a run of commands, still encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replies {
    pub session: SessionId,
    pub first: CommandNumber,
    pub count: u32,
    /// `count` × (length u32 | reply)
    pub replies: Bytes,
}

/// Nothing from `expected` on was taken in. Which of them the session sends next, and when, depends on the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    pub session: SessionId,
    /// The next command number that the replica would take in.
    pub expected: CommandNumber,
    pub reason: Reason,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Too much is waiting already: come back after this many microseconds.
    Busy { retry_after_us: u32 },
    /// An earlier command of this session is missing: resend from `expected` on.
    Gap,
    /// This replica does not lead; a Leader message says who does.
    NotLeader,
    /// The session was closed or evicted, or another token opened it. Nothing of it is executed again.
    UnknownSession,
    /// This connection did not say that it is the session's client.
    NotAttached,
    /// A command or the request is larger than the limit in bytes, or too many are outstanding.
    OverLimit { limit: u32 },
}

impl Request {
    /// The entry of a batch that opens a session with `token`.
    pub fn open(token: u64, owner: Owner) -> Request {
        Request {
            session: SessionId::NONE,
            first: CommandNumber(token),
            acknowledged: CommandNumber(owner.0),
            count: 0,
            commands: Bytes::new(),
        }
    }

    /// The entry of a batch that keeps a session which nothing was done for lately, though its client is there.
    pub fn touch(session: SessionId) -> Request {
        Request {
            session,
            first: CommandNumber(0),
            acknowledged: CommandNumber(0),
            count: 0,
            commands: Bytes::new(),
        }
    }

    pub fn touches(&self) -> bool {
        self.count == 0 && self.first.0 == 0 && self.acknowledged.0 == 0
    }

    /// The entry of a batch that closes a session. It names the token as well: nothing else has it by mistake.
    pub fn close(session: SessionId, token: u64) -> Request {
        Request {
            session,
            first: CommandNumber(token),
            acknowledged: CommandNumber(u64::MAX),
            count: 0,
            commands: Bytes::new(),
        }
    }

    /// Whether this entry closes the session that `token` opened.
    pub fn closes(&self, token: u64) -> bool {
        self.count == 0
            && self.first == CommandNumber(token)
            && self.acknowledged == CommandNumber(u64::MAX)
    }

    /// Takes the run apart, command by command. Only for requests that were decoded and so are well-formed.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        runs(&self.commands)
    }

    /// The command number after the last one of this run.
    pub fn end(&self) -> CommandNumber {
        self.first.plus(self.count)
    }

    /// Encoded as an entry of a batch: header and commands, no kind.
    pub fn put(&self, out: &mut BytesMut) {
        out.reserve(REQUEST_HEADER_BYTES + self.commands.len());
        out.put_u64_le(self.session.0);
        out.put_u64_le(self.first.0);
        out.put_u64_le(self.acknowledged.0);
        out.put_u32_le(self.count);
        out.put_u32_le(self.commands.len() as u32);
        out.put_slice(&self.commands);
    }

    /// Cuts one entry off the front of `from`, checking every length.
    pub fn take(from: &mut Bytes) -> Result<Request, DecodeError> {
        let request = Request::take_checked(from)?;
        check_run(&request.commands, request.count)?;
        Ok(request)
    }

    /// Checks the entry at the front of `from` as [`Request::take`] does, and returns what comes after it.
    pub fn check(from: &[u8]) -> Result<&[u8], DecodeError> {
        let (header, rest) = from
            .split_first_chunk::<REQUEST_HEADER_BYTES>()
            .ok_or(DecodeError::Short)?;
        let (_, lengths) = header.split_at(REQUEST_HEADER_BYTES - 8);
        let count = (&mut &lengths[..4]).get_u32_le();
        let bytes = (&mut &lengths[4..]).get_u32_le() as usize;
        let (commands, rest) = rest.split_at_checked(bytes).ok_or(DecodeError::Short)?;
        check_run(commands, count)?;
        Ok(rest)
    }

    /// Cuts off one entry whose commands were checked before.
    pub(crate) fn take_checked(from: &mut Bytes) -> Result<Request, DecodeError> {
        if from.len() < REQUEST_HEADER_BYTES {
            return Err(DecodeError::Short);
        }
        let session = SessionId(from.get_u64_le());
        let first = CommandNumber(from.get_u64_le());
        let acknowledged = CommandNumber(from.get_u64_le());
        let count = from.get_u32_le();
        let bytes = from.get_u32_le() as usize;
        if from.len() < bytes {
            return Err(DecodeError::Short);
        }
        let commands = from.split_to(bytes);
        Ok(Request {
            session,
            first,
            acknowledged,
            count,
            commands,
        })
    }
}

impl Replies {
    /// Takes the run apart, reply by reply. Only for replies that were decoded and so are well-formed.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        runs(&self.replies)
    }
}

/// Iterates over `length u32 | bytes` items whose lengths were checked before.
pub fn runs(mut rest: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, after) = rest.split_first_chunk::<LENGTH_BYTES>()?;
        let (item, after) = after.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        rest = after;
        Some(item)
    })
}

/// Checks that `bytes` holds exactly `count` items.
fn check_run(mut rest: &[u8], count: u32) -> Result<(), DecodeError> {
    for _ in 0..count {
        let (length, after) = rest
            .split_first_chunk::<LENGTH_BYTES>()
            .ok_or(DecodeError::Short)?;
        let length = u32::from_le_bytes(*length) as usize;
        rest = after.get(length..).ok_or(DecodeError::Short)?;
    }
    if rest.is_empty() {
        Ok(())
    } else {
        Err(DecodeError::Excess)
    }
}

impl ClientMessage {
    /// The whole frame, length prefix included.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        out.put_u32_le(0);
        match self {
            ClientMessage::Open { token } => {
                out.put_u8(OPEN);
                out.put_u64_le(*token);
            }
            ClientMessage::Request(request) => {
                out.put_u8(REQUEST);
                request.put(&mut out);
            }
            ClientMessage::Status => out.put_u8(STATUS),
            ClientMessage::Attach { session, token } => {
                out.put_u8(ATTACH);
                out.put_u64_le(session.0);
                out.put_u64_le(*token);
            }
            ClientMessage::Close { session } => {
                out.put_u8(CLOSE);
                out.put_u64_le(session.0);
            }
        }
        finish(out)
    }

    /// Whether a frame without its length prefix asks for the status: that can be told without decoding it.
    pub fn is_status(frame: &[u8]) -> bool {
        frame == [STATUS]
    }

    /// Decodes a frame without its length prefix.
    pub fn decode(mut frame: Bytes) -> Result<ClientMessage, DecodeError> {
        let message = match take_u8(&mut frame)? {
            OPEN => ClientMessage::Open {
                token: take_u64(&mut frame)?,
            },
            REQUEST => ClientMessage::Request(Request::take(&mut frame)?),
            STATUS => ClientMessage::Status,
            ATTACH => ClientMessage::Attach {
                session: SessionId(take_u64(&mut frame)?),
                token: take_u64(&mut frame)?,
            },
            CLOSE => ClientMessage::Close {
                session: SessionId(take_u64(&mut frame)?),
            },
            kind => return Err(DecodeError::Kind(kind)),
        };
        exhausted(&frame)?;
        Ok(message)
    }
}

impl ServerMessage {
    /// The whole frame, length prefix included.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        out.put_u32_le(0);
        match self {
            ServerMessage::Replies(replies) => {
                put_replies_header(&mut out, replies.session, replies.first, replies.count);
                out.put_u32_le(replies.replies.len() as u32);
                out.put_slice(&replies.replies);
            }
            ServerMessage::Opened { token, session } => {
                out.put_u8(OPENED);
                out.put_u64_le(*token);
                out.put_u64_le(session.0);
            }
            ServerMessage::Refused(refused) => put_refused(&mut out, refused),
            ServerMessage::Closed { session } => {
                out.put_u8(CLOSED);
                out.put_u64_le(session.0);
            }
            ServerMessage::Gone {
                session,
                first,
                end,
            } => {
                out.put_u8(GONE);
                out.put_u64_le(session.0);
                out.put_u64_le(first.0);
                out.put_u64_le(end.0);
            }
            ServerMessage::Leader { ballot, leader } => {
                out.put_u8(LEADER);
                out.put_u64_le(ballot.round);
                out.put_u8(ballot.replica.0);
                out.put_u8(leader.map_or(0, |replica| replica.0));
            }
            ServerMessage::StatusReply(values) => {
                out.put_u8(STATUS_REPLY);
                out.put_u32_le(values.len() as u32);
                for (name, value) in values {
                    out.put_u8(name.len() as u8);
                    out.put_slice(name.as_bytes());
                    out.put_u64_le(*value);
                }
            }
        }
        finish(out)
    }

    /// Decodes a frame without its length prefix.
    pub fn decode(mut frame: Bytes) -> Result<ServerMessage, DecodeError> {
        let message = match take_u8(&mut frame)? {
            REPLIES => ServerMessage::Replies(take_replies(&mut frame)?),
            OPENED => ServerMessage::Opened {
                token: take_u64(&mut frame)?,
                session: SessionId(take_u64(&mut frame)?),
            },
            REFUSED => ServerMessage::Refused(take_refused(&mut frame)?),
            CLOSED => ServerMessage::Closed {
                session: SessionId(take_u64(&mut frame)?),
            },
            GONE => ServerMessage::Gone {
                session: SessionId(take_u64(&mut frame)?),
                first: CommandNumber(take_u64(&mut frame)?),
                end: CommandNumber(take_u64(&mut frame)?),
            },
            LEADER => ServerMessage::Leader {
                ballot: Ballot {
                    round: take_u64(&mut frame)?,
                    replica: ReplicaId(take_u8(&mut frame)?),
                },
                leader: Some(take_u8(&mut frame)?)
                    .filter(|replica| *replica > 0)
                    .map(ReplicaId),
            },
            STATUS_REPLY => ServerMessage::StatusReply(take_status(&mut frame)?),
            kind => return Err(DecodeError::Kind(kind)),
        };
        exhausted(&frame)?;
        Ok(message)
    }
}

/// Starts a replies frame whose items the caller appends; see [`crate::reply::RepliesFrame`].
pub(crate) fn put_replies_header(
    out: &mut BytesMut,
    session: SessionId,
    first: CommandNumber,
    count: u32,
) {
    out.put_u8(REPLIES);
    out.put_u64_le(session.0);
    out.put_u64_le(first.0);
    out.put_u32_le(count);
}

fn finish(mut out: BytesMut) -> Bytes {
    let length = (out.len() - 4) as u32;
    out[..4].copy_from_slice(&length.to_le_bytes());
    out.freeze()
}

pub(crate) fn take_u8(from: &mut Bytes) -> Result<u8, DecodeError> {
    from.try_get_u8().map_err(|_| DecodeError::Short)
}

pub(crate) fn take_u32(from: &mut Bytes) -> Result<u32, DecodeError> {
    from.try_get_u32_le().map_err(|_| DecodeError::Short)
}

pub(crate) fn take_u64(from: &mut Bytes) -> Result<u64, DecodeError> {
    from.try_get_u64_le().map_err(|_| DecodeError::Short)
}

pub(crate) fn exhausted(rest: &Bytes) -> Result<(), DecodeError> {
    if rest.is_empty() {
        Ok(())
    } else {
        Err(DecodeError::Excess)
    }
}
