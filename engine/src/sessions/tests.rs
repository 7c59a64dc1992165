//! Exactly once, in order, and what is kept of it.

use bytes::{BufMut, BytesMut};
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
    scratch: Scratch,
    slot: Slot,
}

impl Fixture {
    fn new() -> Fixture {
        Fixture {
            sessions: Sessions::default(),
            machine: LogMachine::default(),
            scratch: Scratch::default(),
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
            .cached(session, CommandNumber(first), CommandNumber(u64::MAX))
            .filter(|kept| kept.from <= CommandNumber(first))
            .map(|kept| kept.frames.len())
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
    for _ in 0..SESSIONS_MAX {
        fixture.open();
    }
    assert_eq!(fixture.sessions.len(), SESSIONS_MAX);
    assert_eq!(fixture.sessions.last(first), None);
    let hash = fixture.machine.hash();
    assert_eq!(fixture.apply(&request(first, 1, 1, 1)), Applied::Unknown);
    assert_eq!(fixture.apply(&request(first, 2, 1, 1)), Applied::Unknown);
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

    /// The first number from `first` on that is answered or not executed, and the first numbers of the frames that
    /// answer a retry of the commands from there to before `end`.
    fn cached(&self, first: u64, end: u64) -> (u64, Vec<u64>) {
        let framed = |number: u64| self.frames.iter().any(|(b, e)| (*b..*e).contains(&number));
        let lost = |number: &u64| *number <= self.last && !framed(*number);
        let from = (first..).find(|number| !lost(number)).expect("all others");
        let asked = |(begin, after): &&(u64, u64)| *after > from && *begin < end && from < end;
        let frames = self.frames.iter().filter(asked);
        (from, frames.map(|(begin, _)| *begin).collect())
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
        assert!(sessions.ranks.contains(&session.rank(*id)));
        all += bytes;
    }
    assert_eq!(sessions.reply_bytes, all);
    assert_eq!(sessions.ranks.len(), sessions.len());
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
            if count == 0 && session < naive.len() {
                // Such an entry closes a session, or does nothing.
                prop_assert_eq!(applied, Applied::Skipped);
                if request.touches() {
                    naive[session].active = fixture.slot.0;
                }
            } else if let Some(naive) = naive.get_mut(session) {
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
                prop_assert_eq!(applied, Applied::Unknown);
                counted.unknown_skipped += count;
            }
            for (id, naive) in ids.iter().zip(&naive) {
                let known = &fixture.sessions.table[id];
                prop_assert_eq!((known.last.0, known.active.0), (naive.last, naive.active));
                for (first, end) in (0..12).flat_map(|first| (0..12).map(move |end| (first, end))) {
                    let (from, before) = (CommandNumber(first), CommandNumber(end));
                    let cached = fixture.sessions.cached(*id, from, before);
                    let kept = cached.expect("an open session");
                    let firsts = kept.frames.iter().map(first_of).collect();
                    prop_assert_eq!((kept.from.0, firsts), naive.cached(first, end));
                }
            }
            prop_assert_eq!(&fixture.sessions.counters, &counted);
            recount(&fixture.sessions);
        }
    }
}
