//! Exactly-once client sessions, part of the replicated state.
//!
//! A session's commands execute in the order of their numbers, each exactly once: number `n` executes only right
//! after `n - 1`. A repeated command is answered from the cached replies, one that would leave a gap is skipped
//! (its client sends the missing one again). Sessions are opened by a slot of the log and evicted by log position,
//! never by a clock, so that every replica decides alike (after RIFL, Lee et al., SOSP 2015).
//!
//! Where there are too many, one goes of the owner who has most of them: one that was never used before one that was
//! used little before all others, and of each kind the longest idle. Nobody loses one that was active lately to another
//! one of the same owner: then none is opened.

mod rank;
mod walk;

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use crate::client::Request;
use crate::ids::{CommandNumber, Owner, SessionId, Slot};
use crate::reply::{RepliesFrame, Scratch};
use crate::seams::StateMachine;

pub use rank::LITTLE_COMMANDS;
use rank::{Rank, Ranks};
use walk::Walk;

/// Sessions at most. These limits decide what executes, so they are constants: equal on every replica.
pub const SESSIONS_MAX: usize = 4096;
/// A session that did something in so many last slots makes no room for another one of its owner.
pub const RECENT_SLOTS: u64 = 256;
/// Commands of one session whose replies its client has not acknowledged.
pub const SESSION_OUTSTANDING_MAX: u64 = 65_536;
/// Bytes of cached replies of one session; the oldest go first.
pub const SESSION_REPLY_BYTES_MAX: usize = 4 << 20;
/// Bytes of cached replies of all sessions; those of the longest idle session go first.
pub const REPLY_BYTES_MAX: usize = 256 << 20;

#[derive(Clone, Debug, Default)]
pub struct Sessions {
    table: HashMap<SessionId, Session>,
    ranks: Ranks,
    reply_bytes: usize,
    /// Sessions by the slot that last did anything for them, the longest idle first, as they were when all of them did
    /// something earlier than the slot of that moment: those that changed since are later than all that did not.
    longest_idle: VecDeque<(Slot, SessionId)>,
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
    pub sessions_refused: u64,
    pub sessions_closed: u64,
    /// Sessions looked at to make room for the replies of others.
    pub sessions_emptied: u64,
}

#[derive(Clone, Debug)]
struct Session {
    /// What its client drew when it opened the session: whoever knows it may send here.
    token: u64,
    owner: Owner,
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
    /// No session was opened: there are too many, and all that would go were active lately.
    Crowded,
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

    /// A hash over what the log made of the table, whatever the way here: replayed, or restored from a snapshot. Of the
    /// cached replies only number and length are part of it; their content is part of the machine's. One pass over at most
    /// [`SESSIONS_MAX`] sessions, in any order.
    pub fn hash(&self) -> u64 {
        let of_one = |(id, session): (&SessionId, &Session)| {
            let fields = [
                id.0,
                session.token,
                session.owner.0,
                session.last.0,
                session.acknowledged.0,
                session.active.0,
                session.replies.len() as u64,
                session.reply_bytes as u64,
            ];
            let mut bytes = [0; 8 * 8];
            for (at, field) in bytes.chunks_exact_mut(8).zip(fields) {
                at.copy_from_slice(&field.to_le_bytes());
            }
            xxh3_64(&bytes)
        };
        self.table.iter().map(of_one).fold(0, u64::wrapping_add)
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

    /// Sessions that would go soon if `opens` more were opened for `owner`, and that `is_live` knows to have a client.
    pub fn live_victims(
        &self,
        owner: Owner,
        opens: usize,
        is_live: impl Fn(SessionId) -> bool,
    ) -> Vec<SessionId> {
        let too_many = (self.table.len() + opens).saturating_sub(SESSIONS_MAX);
        let mut live = Vec::new();
        let mut others = 0;
        for rank in self.ranks.of(self.ranks.greediest(owner)) {
            if others >= too_many {
                break;
            }
            if is_live(rank.session) {
                live.push(rank.session);
            } else {
                others += 1;
            }
        }
        live
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
        let id = request.session;
        if id == SessionId::NONE {
            return self.open(slot, index, request);
        }
        let Some(session) = self.table.get_mut(&id) else {
            self.counters.unknown_skipped += u64::from(request.count);
            return Applied::Unknown;
        };
        if request.closes(session.token) {
            self.remove(id);
            self.counters.sessions_closed += 1;
            return Applied::Closed;
        }
        if request.count == 0 && !request.touches() {
            return Applied::Skipped;
        }
        if let Some(walk) = &mut self.walk {
            walk.save(self.walks, id, session);
        }
        let before = session.rank(id);
        session.active = slot;
        let cached = session.reply_bytes;
        let applied = session.execute(request, machine, scratch, &mut self.counters);
        self.reply_bytes = self.reply_bytes + session.reply_bytes - cached;
        let after = session.rank(id);
        self.ranks.replace(before, after);
        if self.reply_bytes > REPLY_BYTES_MAX {
            self.bound_replies(slot);
        }
        applied
    }

    /// Drops the cached replies of the longest idle sessions until the rest fits. A retry of theirs is told that it was
    /// executed, and no more.
    fn bound_replies(&mut self, slot: Slot) {
        while self.reply_bytes > REPLY_BYTES_MAX {
            let Some((active, id)) = self.longest_idle.pop_front() else {
                self.find_longest_idle(slot);
                continue;
            };
            self.counters.sessions_emptied += 1;
            let Some(session) = self.table.get_mut(&id).filter(|s| s.active == active) else {
                continue;
            };
            if session.reply_bytes == 0 {
                continue;
            }
            if let Some(walk) = &mut self.walk {
                walk.save(self.walks, id, session);
            }
            self.reply_bytes -= session.drop_replies(CommandNumber(u64::MAX));
        }
    }

    /// Those that did something in the present slot may still do more in it, so they are only looked at where there are
    /// no others.
    fn find_longest_idle(&mut self, slot: Slot) {
        let holding = self
            .table
            .iter()
            .filter(|(_, session)| session.reply_bytes > 0);
        let all = holding.map(|(id, session)| (session.active, *id));
        let mut idle: Vec<_> = all.clone().filter(|(active, _)| *active < slot).collect();
        if idle.is_empty() {
            idle = all.min().into_iter().collect();
        }
        idle.sort_unstable();
        self.longest_idle = idle.into();
    }

    fn open(&mut self, slot: Slot, index: usize, request: &Request) -> Applied {
        assert!(
            index < 1 << SessionId::OPENS_PER_SLOT_BITS,
            "a batch holds at most 65536 requests"
        );
        let owner = Owner(request.acknowledged.0);
        if self.table.len() >= SESSIONS_MAX && !self.evict(slot, owner) {
            self.counters.sessions_refused += 1;
            return Applied::Crowded;
        }
        let id = session_id(slot, index);
        let session = Session {
            token: request.first.0,
            owner,
            last: CommandNumber(0),
            acknowledged: CommandNumber(0),
            active: slot,
            replies: VecDeque::new(),
            reply_bytes: 0,
            walk: self.walks,
        };
        self.ranks.insert(session.rank(id));
        self.table.insert(id, session);
        self.counters.sessions_opened += 1;
        Applied::Opened(id)
    }

    /// Makes room for a session of `owner`, if one may go.
    fn evict(&mut self, slot: Slot, owner: Owner) -> bool {
        let greediest = self.ranks.greediest(owner);
        let Some(rank) = self.ranks.of(greediest).next() else {
            return false;
        };
        if greediest == owner && slot.0 < rank.active.0 + RECENT_SLOTS {
            return false;
        }
        self.remove(rank.session);
        self.counters.sessions_evicted += 1;
        true
    }

    fn remove(&mut self, id: SessionId) {
        let mut session = self.table.remove(&id).expect("only open ones are removed");
        self.ranks.remove(session.rank(id));
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
    fn rank(&self, session: SessionId) -> Rank {
        Rank::new(self.owner, self.last, self.active, session)
    }

    /// Executes what is next of a request, and caches the replies.
    fn execute<M: StateMachine>(
        &mut self,
        request: &Request,
        machine: &mut M,
        scratch: &mut Scratch,
        counters: &mut Counters,
    ) -> Applied {
        self.acknowledged = self.acknowledged.max(request.acknowledged);
        self.drop_replies(request.acknowledged);
        let next = self.last.plus(1);
        if request.first > next {
            counters.gaps_skipped += u64::from(request.count);
            return Applied::Skipped;
        }
        let repeated = (next.0 - request.first.0).min(u64::from(request.count));
        counters.duplicates_skipped += repeated;
        let fresh = u64::from(request.count) - repeated;
        if fresh == 0 {
            return Applied::Skipped;
        }
        let mut frame = RepliesFrame::new(scratch, request.session, next);
        for command in request.iter().skip(repeated as usize) {
            frame.push(|reply| machine.apply(command, reply));
        }
        let frame = frame.finish();
        counters.commands_applied += fresh;
        self.last = next.plus(fresh as u32 - 1);
        self.remember(frame.clone());
        Applied::Executed(frame)
    }

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

    /// Caches the replies of the commands that executed last; older ones may have to go.
    fn remember(&mut self, frame: Bytes) {
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
