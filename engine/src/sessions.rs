//! Exactly-once client sessions, part of the replicated state.
//!
//! A session's commands execute in the order of their numbers, each exactly once: number `n` executes only right
//! after `n - 1`. A repeated command is answered from the cached replies, one that would leave a gap is skipped
//! (its client sends the missing one again). Sessions are opened by a slot of the log and evicted by log position,
//! never by a clock, so that every replica decides alike (after RIFL, Lee et al., SOSP 2015).

use std::collections::{BTreeSet, HashMap, VecDeque};

use bytes::{Bytes, BytesMut};

use crate::client::{RepliesFrame, Request};
use crate::ids::{CommandNumber, SessionId, Slot};
use crate::seams::StateMachine;

/// Sessions at most. These limits decide what executes, so they are constants: equal on every replica.
pub const SESSIONS_MAX: usize = 4096;
/// Commands of one session whose replies its client has not acknowledged.
pub const SESSION_OUTSTANDING_MAX: u64 = 65_536;
/// Bytes of cached replies of one session; the oldest go first.
pub const SESSION_REPLY_BYTES_MAX: usize = 4 << 20;
/// Bytes of cached replies of all sessions; those of the longest idle session go first.
pub const REPLY_BYTES_MAX: usize = 256 << 20;
/// Sessions that one slot can open: the low bits of a session's id.
const OPENS_PER_SLOT_BITS: u32 = 16;

#[derive(Clone, Debug, Default)]
pub struct Sessions {
    table: HashMap<SessionId, Session>,
    /// Every session by the slot that last did anything for it: the longest idle comes first.
    idle: BTreeSet<(Slot, SessionId)>,
    reply_bytes: usize,
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
}

#[derive(Clone, Debug)]
struct Session {
    /// The last command that executed.
    last: CommandNumber,
    /// The client has the reply of every command below this one.
    acknowledged: CommandNumber,
    /// The slot that last did anything for this session: the longest idle is evicted first.
    active: Slot,
    /// Encoded replies of commands that the client has not acknowledged yet, in order.
    replies: VecDeque<Cached>,
    reply_bytes: usize,
}

#[derive(Clone, Debug)]
struct Cached {
    end: CommandNumber,
    frame: Bytes,
}

/// What applying a request gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    /// A replies frame for the commands that executed now.
    Executed(Bytes),
    Opened(SessionId),
    /// Nothing new executed.
    Skipped,
}

impl Sessions {
    pub fn len(&self) -> usize {
        self.table.len()
    }

    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// The last command of a session that executed, if the session is known.
    pub fn last(&self, session: SessionId) -> Option<CommandNumber> {
        self.table.get(&session).map(|session| session.last)
    }

    /// The client of a known session has the reply of every command below the returned one.
    pub fn acknowledged(&self, session: SessionId) -> CommandNumber {
        self.table
            .get(&session)
            .map_or(CommandNumber(0), |session| session.acknowledged)
    }

    /// The cached replies frames that cover executed commands from `first` on, or `None` if some are gone.
    pub fn cached(&self, session: SessionId, first: CommandNumber) -> Option<Vec<Bytes>> {
        let session = self.table.get(&session)?;
        let frames: Vec<&Cached> = session
            .replies
            .iter()
            .filter(|cached| cached.end > first)
            .collect();
        let covered = match frames.first() {
            Some(oldest) => session.covers(oldest, first),
            None => first > session.last,
        };
        covered.then(|| frames.iter().map(|cached| cached.frame.clone()).collect())
    }

    /// Applies the `index`-th request of a slot's batch.
    pub fn apply<M: StateMachine>(
        &mut self,
        slot: Slot,
        index: usize,
        request: &Request,
        machine: &mut M,
        scratch: &mut BytesMut,
    ) -> Applied {
        if request.session == SessionId::NONE {
            return Applied::Opened(self.open(slot, index));
        }
        let Some(session) = self.table.get_mut(&request.session) else {
            self.counters.unknown_skipped += u64::from(request.count);
            return Applied::Skipped;
        };
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
        let mut frame = RepliesFrame::new(std::mem::take(scratch), request.session, next);
        for command in request.iter().skip(repeated as usize) {
            frame.push(|reply| machine.apply(command, reply));
        }
        let (frame, rest) = frame.finish();
        *scratch = rest;
        self.counters.commands_applied += fresh;
        session.last = CommandNumber(session.last.0 + fresh);
        self.reply_bytes += frame.len();
        self.reply_bytes -= session.remember(frame.clone());
        self.bound_replies();
        Applied::Executed(frame)
    }

    /// Drops the cached replies of the longest idle sessions until the rest fits. A retry of theirs is refused.
    fn bound_replies(&mut self) {
        if self.reply_bytes <= REPLY_BYTES_MAX {
            return;
        }
        for (_, id) in &self.idle {
            let session = self
                .table
                .get_mut(id)
                .expect("every session in the index exists");
            self.reply_bytes -= session.drop_replies(CommandNumber(u64::MAX));
            if self.reply_bytes <= REPLY_BYTES_MAX {
                return;
            }
        }
    }

    fn open(&mut self, slot: Slot, index: usize) -> SessionId {
        assert!(
            index < 1 << OPENS_PER_SLOT_BITS,
            "a batch holds at most 65536 requests"
        );
        if self.table.len() >= SESSIONS_MAX {
            self.evict();
        }
        let id = session_id(slot, index);
        let session = Session {
            last: CommandNumber(0),
            acknowledged: CommandNumber(0),
            active: slot,
            replies: VecDeque::new(),
            reply_bytes: 0,
        };
        self.table.insert(id, session);
        self.idle.insert((slot, id));
        self.counters.sessions_opened += 1;
        id
    }

    /// Evicts the session that was idle longest by log position; ties go by id, so that all replicas agree.
    fn evict(&mut self) {
        if let Some((_, id)) = self.idle.pop_first() {
            let session = self
                .table
                .remove(&id)
                .expect("every session in the index exists");
            self.reply_bytes -= session.reply_bytes;
            self.counters.sessions_evicted += 1;
        }
    }
}

/// The session that the `index`-th request of a slot opens. Unique for ever, since slots are.
pub fn session_id(slot: Slot, index: usize) -> SessionId {
    SessionId((slot.0 << OPENS_PER_SLOT_BITS) | index as u64)
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

    /// Whether `oldest`, the first cached frame that ends after `first`, begins at or before it.
    fn covers(&self, oldest: &Cached, first: CommandNumber) -> bool {
        let begin = oldest
            .frame
            .get(RepliesFrame::FIRST_AT..RepliesFrame::FIRST_AT + 8)
            .and_then(|bytes| bytes.try_into().ok())
            .map(u64::from_le_bytes);
        begin.is_some_and(|begin| begin <= first.0)
    }
}

#[cfg(test)]
mod tests {
    use bytes::BufMut;
    use proptest::prelude::*;

    use super::*;
    use crate::client::ServerMessage;
    use crate::machine::LogMachine;

    fn request(session: SessionId, first: u64, acknowledged: u64, count: u32) -> Request {
        let mut commands = BytesMut::new();
        for number in first..first + u64::from(count) {
            commands.put_u32_le(8);
            commands.put_u64_le(number);
        }
        Request {
            session,
            first: CommandNumber(first),
            acknowledged: CommandNumber(acknowledged),
            count,
            commands: commands.freeze(),
        }
    }

    struct Fixture {
        sessions: Sessions,
        machine: LogMachine,
        scratch: BytesMut,
        slot: Slot,
    }

    impl Fixture {
        fn new() -> Fixture {
            Fixture {
                sessions: Sessions::default(),
                machine: LogMachine::default(),
                scratch: BytesMut::new(),
                slot: Slot(0),
            }
        }

        fn apply(&mut self, request: &Request) -> Applied {
            self.slot = self.slot.next();
            self.sessions
                .apply(self.slot, 0, request, &mut self.machine, &mut self.scratch)
        }

        fn open(&mut self) -> SessionId {
            match self.apply(&request(SessionId::NONE, 99, 0, 0)) {
                Applied::Opened(session) => session,
                other => panic!("{other:?}"),
            }
        }
    }

    fn run_of(applied: &Applied) -> (u64, u32) {
        let Applied::Executed(frame) = applied else {
            panic!("{applied:?}");
        };
        match ServerMessage::decode(frame.slice(4..)) {
            Ok(ServerMessage::Replies(replies)) => (replies.first.0, replies.count),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn trap_20_a_retry_is_never_executed_twice() {
        let mut fixture = Fixture::new();
        let session = fixture.open();
        assert_eq!(run_of(&fixture.apply(&request(session, 1, 1, 3))), (1, 3));
        let hash = fixture.machine.hash();
        assert_eq!(fixture.apply(&request(session, 1, 1, 3)), Applied::Skipped);
        assert_eq!(fixture.machine.hash(), hash);
        // Half old, half new: only the new half executes.
        assert_eq!(run_of(&fixture.apply(&request(session, 2, 1, 4))), (4, 2));
        assert_eq!(fixture.sessions.counters.duplicates_skipped, 5);
        assert_eq!(fixture.sessions.counters.commands_applied, 5);
    }

    #[test]
    fn a_gap_is_skipped_not_executed_out_of_order() {
        let mut fixture = Fixture::new();
        let session = fixture.open();
        assert_eq!(fixture.apply(&request(session, 2, 1, 1)), Applied::Skipped);
        assert_eq!(run_of(&fixture.apply(&request(session, 1, 1, 1))), (1, 1));
        assert_eq!(run_of(&fixture.apply(&request(session, 2, 1, 1))), (2, 1));
    }

    #[test]
    fn replies_are_cached_until_acknowledged() {
        let mut fixture = Fixture::new();
        let session = fixture.open();
        fixture.apply(&request(session, 1, 1, 2));
        fixture.apply(&request(session, 3, 1, 2));
        let cached = |fixture: &Fixture, first| {
            fixture
                .sessions
                .cached(session, CommandNumber(first))
                .map(|frames| frames.len())
        };
        assert_eq!(cached(&fixture, 1), Some(2));
        assert_eq!(cached(&fixture, 2), Some(2));
        assert_eq!(cached(&fixture, 3), Some(1));
        assert_eq!(cached(&fixture, 5), Some(0));
        fixture.apply(&request(session, 5, 3, 1));
        assert_eq!(cached(&fixture, 1), None);
        assert_eq!(cached(&fixture, 3), Some(2));
    }

    #[test]
    fn trap_20_an_evicted_session_is_unknown_and_executes_nothing() {
        let mut fixture = Fixture::new();
        let first = fixture.open();
        fixture.apply(&request(first, 1, 1, 1));
        for _ in 0..SESSIONS_MAX {
            fixture.open();
        }
        assert_eq!(fixture.sessions.len(), SESSIONS_MAX);
        assert_eq!(fixture.sessions.last(first), None);
        let hash = fixture.machine.hash();
        assert_eq!(fixture.apply(&request(first, 1, 1, 1)), Applied::Skipped);
        assert_eq!(fixture.apply(&request(first, 2, 1, 1)), Applied::Skipped);
        assert_eq!(fixture.machine.hash(), hash);
        recount(&fixture.sessions);
    }

    /// The oracle: one session, command by command.
    #[derive(Clone, Debug, Default)]
    struct Naive {
        last: u64,
        active: u64,
        /// First number and the one after the last of each frame that is kept.
        frames: Vec<(u64, u64)>,
    }

    impl Naive {
        /// Which commands execute now, in order.
        fn apply(&mut self, request: &Request) -> Vec<u64> {
            self.frames.retain(|(_, end)| *end > request.acknowledged.0);
            let mut executed = Vec::new();
            for number in request.first.0..request.end().0 {
                if number == self.last + 1 {
                    self.last = number;
                    executed.push(number);
                }
            }
            if let Some(first) = executed.first() {
                self.frames.push((*first, self.last + 1));
            }
            executed
        }

        /// The first numbers of the frames that answer a retry from `first` on.
        fn cached(&self, first: u64) -> Option<Vec<u64>> {
            let executed = first..=self.last;
            let framed = |number: u64| self.frames.iter().any(|(b, e)| (*b..*e).contains(&number));
            let all = executed.clone().all(framed);
            let frames = self.frames.iter().filter(|(_, end)| *end > first);
            all.then(|| frames.map(|(begin, _)| *begin).collect())
        }
    }

    /// Every total once more from what it is the total of.
    fn recount(sessions: &Sessions) {
        let mut all = 0;
        for (id, session) in &sessions.table {
            let bytes: usize = session
                .replies
                .iter()
                .map(|cached| cached.frame.len())
                .sum();
            assert_eq!(session.reply_bytes, bytes);
            assert!(sessions.idle.contains(&(session.active, *id)));
            all += bytes;
        }
        assert_eq!(sessions.reply_bytes, all);
        assert_eq!(sessions.idle.len(), sessions.len());
    }

    fn first_of(frame: &Bytes) -> u64 {
        run_of(&Applied::Executed(frame.clone())).0
    }

    proptest! {
        #[test]
        fn sessions_agree_with_a_count_of_every_command(
            requests in proptest::collection::vec((0usize..3, 0u64..9, 0u64..9, 0u32..5), 0..40),
        ) {
            let mut fixture = Fixture::new();
            let ids = [fixture.open(), fixture.open(), SessionId(99)];
            let mut naive = [1, 2].map(|active| Naive { active, ..Naive::default() });
            let mut counted = Counters { sessions_opened: 2, ..Counters::default() };
            for (session, first, acknowledged, count) in requests {
                let request = request(ids[session], first, acknowledged, count);
                let applied = fixture.apply(&request);
                let count = u64::from(count);
                if let Some(naive) = naive.get_mut(session) {
                    let gap = first > naive.last + 1;
                    let executed = naive.apply(&request);
                    naive.active = fixture.slot.0;
                    let run = executed.first().map(|first| (*first, executed.len() as u32));
                    let got = (applied != Applied::Skipped).then(|| run_of(&applied));
                    prop_assert_eq!(got, run);
                    counted.commands_applied += executed.len() as u64;
                    counted.gaps_skipped += if gap { count } else { 0 };
                    counted.duplicates_skipped += if gap { 0 } else { count - executed.len() as u64 };
                } else {
                    prop_assert_eq!(applied, Applied::Skipped);
                    counted.unknown_skipped += count;
                }
                for (id, naive) in ids.iter().zip(&naive) {
                    let known = &fixture.sessions.table[id];
                    prop_assert_eq!((known.last.0, known.active.0), (naive.last, naive.active));
                    for first in 0..12 {
                        let cached = fixture.sessions.cached(*id, CommandNumber(first));
                        let firsts = cached.map(|frames| frames.iter().map(first_of).collect());
                        prop_assert_eq!(firsts, naive.cached(first));
                    }
                }
                prop_assert_eq!(&fixture.sessions.counters, &counted);
                recount(&fixture.sessions);
            }
        }
    }
}
