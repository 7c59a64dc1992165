//! Exactly-once client sessions, part of the replicated state.
//!
//! A session's commands execute in the order of their numbers, each exactly once: number `n` executes only right
//! after `n - 1`. A repeated command is answered from the cached replies, one that would leave a gap is skipped
//! (its client sends the missing one again). Sessions are opened by a slot of the log and evicted by log position,
//! never by a clock, so that every replica decides alike (after RIFL, Lee et al., SOSP 2015).

mod walk;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::ops::Bound;

use bytes::Bytes;

use crate::client::Request;
use crate::ids::{CommandNumber, SessionId, Slot};
use crate::reply::{RepliesFrame, Scratch};
use crate::seams::StateMachine;

use walk::Walk;

/// Sessions at most. These limits decide what executes, so they are constants: equal on every replica.
pub const SESSIONS_MAX: usize = 4096;
/// Commands of one session whose replies its client has not acknowledged.
pub const SESSION_OUTSTANDING_MAX: u64 = 65_536;
/// Bytes of cached replies of one session; the oldest go first.
pub const SESSION_REPLY_BYTES_MAX: usize = 4 << 20;
/// Bytes of cached replies of all sessions; those of the longest idle session go first.
pub const REPLY_BYTES_MAX: usize = 256 << 20;

#[derive(Clone, Debug, Default)]
pub struct Sessions {
    table: HashMap<SessionId, Session>,
    /// Every session by the slot that last did anything for it: the longest idle comes first.
    idle: BTreeSet<(Slot, SessionId)>,
    /// No session up to here, in the order of `idle`, has cached replies. It decides how much work is done, never which
    /// replies go, so it is not part of a snapshot.
    emptied: (Slot, SessionId),
    reply_bytes: usize,
    /// How many snapshots began: a session with the number of the present one is not the walk's any more.
    walks: u64,
    walk: Option<Walk>,
    pub counters: Counters,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub commands_applied: u64,
    pub duplicates_skipped: u64,
    pub gaps_skipped: u64,
    pub unknown_skipped: u64,
    pub sessions_opened: u64,
    pub sessions_evicted: u64,
    pub sessions_closed: u64,
    /// Sessions looked at to make room for the replies of others.
    pub sessions_emptied: u64,
}

#[derive(Clone, Debug)]
struct Session {
    /// What its client drew when it opened the session: whoever knows it may send here.
    token: u64,
    /// The last command that executed.
    last: CommandNumber,
    /// The client has the reply of every command below this one.
    acknowledged: CommandNumber,
    /// The slot that last did anything for this session: the longest idle is evicted first.
    active: Slot,
    /// Encoded replies of commands that the client has not acknowledged yet, in order.
    replies: VecDeque<Cached>,
    reply_bytes: usize,
    /// The snapshot for which this session was saved, or during which it was opened.
    walk: u64,
}

#[derive(Clone, Debug)]
struct Cached {
    end: CommandNumber,
    frame: Bytes,
}

/// Replies that can be given once more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Commands below this one were executed, and their replies were not kept.
    pub from: CommandNumber,
    pub frames: Vec<Bytes>,
}

/// What applying a request gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    /// A replies frame for the commands that executed now.
    Executed(Bytes),
    Opened(SessionId),
    Closed,
    /// Nothing new executed.
    Skipped,
    /// The session is not open any more.
    Unknown,
}

impl Sessions {
    pub fn len(&self) -> usize {
        self.table.len()
    }

    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Every session with the last command that executed, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (SessionId, CommandNumber)> + '_ {
        self.table.iter().map(|(id, session)| (*id, session.last))
    }

    /// The last command of a session that executed, if the session is known.
    pub fn last(&self, session: SessionId) -> Option<CommandNumber> {
        self.table.get(&session).map(|session| session.last)
    }

    /// What opened a session that is open.
    pub fn token(&self, session: SessionId) -> Option<u64> {
        self.table.get(&session).map(|session| session.token)
    }

    /// The client of a known session has the reply of every command below the returned one.
    pub fn acknowledged(&self, session: SessionId) -> CommandNumber {
        self.table
            .get(&session)
            .map_or(CommandNumber(0), |session| session.acknowledged)
    }

    /// What is kept of the replies to executed commands from `first` to before `end`. No more than that: a session may
    /// have tens of thousands of frames, and a repeat of each of its requests must not bring all of them back every
    /// time.
    pub fn cached(
        &self,
        session: SessionId,
        first: CommandNumber,
        end: CommandNumber,
    ) -> Option<Kept> {
        let session = self.table.get(&session)?;
        let at = session
            .replies
            .partition_point(|cached| cached.end <= first);
        let begin = match session.replies.get(at) {
            Some(oldest) => oldest.begin(),
            None => session.last.plus(1),
        };
        let from = begin.max(first);
        let mut frames = Vec::new();
        let mut next = from;
        for cached in session.replies.range(at..) {
            if next >= end {
                break;
            }
            frames.push(cached.frame.clone());
            next = cached.end;
        }
        Some(Kept { from, frames })
    }

    /// Applies the `index`-th request of a slot's batch.
    pub fn apply<M: StateMachine>(
        &mut self,
        slot: Slot,
        index: usize,
        request: &Request,
        machine: &mut M,
        scratch: &mut Scratch,
    ) -> Applied {
        if request.session == SessionId::NONE {
            return Applied::Opened(self.open(slot, index, request.first.0));
        }
        let Some(session) = self.table.get_mut(&request.session) else {
            self.counters.unknown_skipped += u64::from(request.count);
            return Applied::Unknown;
        };
        if request.count == 0 {
            return if request.closes(session.token) {
                self.remove(request.session);
                self.counters.sessions_closed += 1;
                Applied::Closed
            } else {
                Applied::Skipped
            };
        }
        if let Some(walk) = &mut self.walk {
            walk.save(self.walks, request.session, session);
        }
        if session.active != slot {
            self.idle.remove(&(session.active, request.session));
            self.idle.insert((slot, request.session));
            session.active = slot;
        }
        session.acknowledged = session.acknowledged.max(request.acknowledged);
        self.reply_bytes -= session.drop_replies(request.acknowledged);
        let next = session.last.plus(1);
        if request.first > next {
            self.counters.gaps_skipped += u64::from(request.count);
            return Applied::Skipped;
        }
        let repeated = (next.0 - request.first.0).min(u64::from(request.count));
        self.counters.duplicates_skipped += repeated;
        let fresh = u64::from(request.count) - repeated;
        if fresh == 0 {
            return Applied::Skipped;
        }
        let mut frame = RepliesFrame::new(scratch, request.session, next);
        for command in request.iter().skip(repeated as usize) {
            frame.push(|reply| machine.apply(command, reply));
        }
        let frame = frame.finish();
        self.counters.commands_applied += fresh;
        session.last = next.plus(fresh as u32 - 1);
        self.reply_bytes += frame.len();
        self.reply_bytes -= session.remember(frame.clone());
        if self.emptied >= (slot, request.session) {
            self.emptied = (slot.previous(), SessionId::MEMBERS);
        }
        self.bound_replies();
        Applied::Executed(frame)
    }

    /// Drops the cached replies of the longest idle sessions until the rest fits. A retry of theirs is refused. It goes
    /// on where it stopped the last time: once the cache is full that is after each request, and thousands of sessions
    /// may be idle and emptied.
    fn bound_replies(&mut self) {
        if self.reply_bytes <= REPLY_BYTES_MAX {
            return;
        }
        let after = (Bound::Excluded(self.emptied), Bound::Unbounded);
        for (active, id) in self.idle.range(after) {
            self.counters.sessions_emptied += 1;
            self.emptied = (*active, *id);
            let session = self
                .table
                .get_mut(id)
                .expect("every session in the index exists");
            if let Some(walk) = &mut self.walk {
                walk.save(self.walks, *id, session);
            }
            self.reply_bytes -= session.drop_replies(CommandNumber(u64::MAX));
            if self.reply_bytes <= REPLY_BYTES_MAX {
                return;
            }
        }
    }

    fn open(&mut self, slot: Slot, index: usize, token: u64) -> SessionId {
        assert!(
            index < 1 << SessionId::OPENS_PER_SLOT_BITS,
            "a batch holds at most 65536 requests"
        );
        if self.table.len() >= SESSIONS_MAX {
            self.evict();
        }
        let id = session_id(slot, index);
        let session = Session {
            token,
            last: CommandNumber(0),
            acknowledged: CommandNumber(0),
            active: slot,
            replies: VecDeque::new(),
            reply_bytes: 0,
            walk: self.walks,
        };
        self.table.insert(id, session);
        self.idle.insert((slot, id));
        self.counters.sessions_opened += 1;
        id
    }

    /// Evicts the session that was idle longest by log position; ties go by id, so that all replicas agree.
    fn evict(&mut self) {
        if let Some((_, id)) = self.idle.first().copied() {
            self.remove(id);
            self.counters.sessions_evicted += 1;
        }
    }

    fn remove(&mut self, id: SessionId) {
        let mut session = self.table.remove(&id).expect("only open ones are removed");
        self.idle.remove(&(session.active, id));
        if let Some(walk) = &mut self.walk {
            walk.save(self.walks, id, &mut session);
        }
        self.reply_bytes -= session.reply_bytes;
    }
}

/// The session that the `index`-th request of a slot opens. Unique for ever, since slots are.
pub fn session_id(slot: Slot, index: usize) -> SessionId {
    SessionId((slot.0 << SessionId::OPENS_PER_SLOT_BITS) | index as u64)
}

impl Session {
    /// Drops the cached replies of commands below `end` and returns their bytes.
    fn drop_replies(&mut self, end: CommandNumber) -> usize {
        let mut dropped = 0;
        while let Some(oldest) = self.replies.front() {
            if oldest.end > end {
                break;
            }
            dropped += oldest.frame.len();
            self.replies.pop_front();
        }
        self.reply_bytes -= dropped;
        dropped
    }

    /// Caches the replies of the commands that executed last, and returns the bytes of older ones that had to go.
    fn remember(&mut self, frame: Bytes) -> usize {
        self.reply_bytes += frame.len();
        self.replies.push_back(Cached {
            end: self.last.plus(1),
            frame,
        });
        let mut dropped = 0;
        while self.reply_bytes - dropped > SESSION_REPLY_BYTES_MAX && self.replies.len() > 1 {
            let oldest = self.replies.pop_front().expect("there are several");
            dropped += oldest.frame.len();
        }
        self.reply_bytes -= dropped;
        dropped
    }
}

impl Cached {
    /// The number of the first command that it answers. One that a snapshot garbled answers nothing.
    fn begin(&self) -> CommandNumber {
        let begin = self
            .frame
            .get(RepliesFrame::FIRST_AT..RepliesFrame::FIRST_AT + 8)
            .and_then(|bytes| bytes.try_into().ok())
            .map(u64::from_le_bytes);
        begin.map_or(self.end, CommandNumber)
    }
}

#[cfg(test)]
mod tests;
