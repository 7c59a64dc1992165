//! Sessions: which one goes when there are too many, and how many bytes of replies are kept.

use bytes::{BufMut, Bytes, BytesMut};

use synod_engine::client::Request;
use synod_engine::ids::{CommandNumber, Owner, SessionId, Slot};
use synod_engine::reply::{REPLIES_BYTES_MAX, Reply, Scratch};
use synod_engine::seams::StateMachine;
use synod_engine::sessions::{
    Applied, Counters, LITTLE_COMMANDS, RECENT_SLOTS, REPLY_BYTES_MAX, SESSION_REPLY_BYTES_MAX,
    SESSIONS_MAX, Sessions, session_id,
};

/// Bytes of a frame of one reply besides the reply.
const OVERHEAD: usize = 33;

/// Replies with as many zeros as the command says.
#[derive(Default)]
struct Zeros;

impl StateMachine for Zeros {
    fn apply(&mut self, command: &[u8], reply: &mut Reply<'_>) {
        let bytes = u32::from_le_bytes(command.try_into().expect("four bytes")) as usize;
        reply.put_slice(&vec![0; bytes]);
    }

    fn hash(&self) -> u64 {
        0
    }

    fn empty(&self) -> Zeros {
        Zeros
    }

    fn begin_snapshot(&mut self) {}

    fn write_snapshot(&mut self, _bytes_max: usize, _out: &mut BytesMut) -> bool {
        false
    }

    fn snapshot_bytes(&self) -> usize {
        0
    }

    fn end_snapshot(&mut self) {}

    fn restore(&mut self, _piece: &[u8]) -> bool {
        true
    }
}

#[derive(Default)]
struct Fixture {
    sessions: Sessions,
    scratch: Scratch,
    slot: u64,
}

impl Fixture {
    fn apply(&mut self, session: SessionId, first: u64, replies: &[usize]) -> Applied {
        self.slot += 1;
        let mut commands = BytesMut::new();
        for bytes in replies {
            commands.put_u32_le(4);
            commands.put_u32_le(*bytes as u32);
        }
        let request = Request {
            session,
            first: CommandNumber(first),
            acknowledged: CommandNumber(0),
            count: replies.len() as u32,
            commands: commands.freeze(),
        };
        let slot = Slot(self.slot);
        self.scratch.begin_slot();
        self.sessions
            .apply(slot, 0, &request, &mut Zeros, &mut self.scratch)
    }

    fn open(&mut self) -> SessionId {
        match self.apply(SessionId::NONE, 1, &[]) {
            Applied::Opened(session) => session,
            other => panic!("{other:?}"),
        }
    }

    /// Executes one command whose frame of replies has so many bytes.
    fn frame(&mut self, session: SessionId, number: u64, bytes: usize) -> Bytes {
        match self.apply(session, number, &[bytes - OVERHEAD]) {
            Applied::Executed(frame) => {
                assert_eq!(frame.len(), bytes);
                frame
            }
            other => panic!("{other:?}"),
        }
    }

    fn cached(&self, session: SessionId, first: u64) -> Option<usize> {
        let end = CommandNumber(u64::MAX);
        let cached = self.sessions.cached(session, CommandNumber(first), end);
        let kept = cached.filter(|kept| kept.from <= CommandNumber(first));
        kept.map(|kept| kept.frames.len())
    }
}

#[test]
fn a_session_is_named_by_the_place_in_the_log_that_opened_it() {
    let places = [(1, 0), (1, 1), (1, 65_535), (2, 0), (2, 1), (65_536, 1)];
    for (index, (slot, place)) in places.iter().enumerate() {
        let id = session_id(Slot(*slot), *place);
        assert_ne!(id, SessionId::NONE);
        for (slot, place) in &places[..index] {
            assert_ne!(id, session_id(Slot(*slot), *place));
        }
    }
}

#[test]
fn the_longest_idle_session_that_was_never_used_goes_when_there_are_too_many() {
    let mut fixture = Fixture::default();
    assert!(fixture.sessions.is_empty());
    let (first, second) = (fixture.open(), fixture.open());
    assert_eq!(fixture.sessions.len(), 2);
    assert!(!fixture.sessions.is_empty());
    // Whatever is done for a session makes it active, even if nothing executes.
    fixture.frame(first, 1, 100);
    assert_eq!(fixture.apply(first, 1, &[0]), Applied::Skipped);
    for _ in 2..SESSIONS_MAX {
        fixture.open();
    }
    assert_eq!(fixture.sessions.len(), SESSIONS_MAX);
    assert_eq!(fixture.sessions.last(second), Some(CommandNumber(0)));
    fixture.open();
    assert_eq!(fixture.sessions.len(), SESSIONS_MAX);
    assert_eq!(fixture.sessions.last(second), None);
    assert_eq!(fixture.sessions.last(first), Some(CommandNumber(1)));
    // One that was used outlives all that never were.
    fixture.open();
    assert_eq!(fixture.sessions.last(first), Some(CommandNumber(1)));
    let counted = Counters {
        commands_applied: 1,
        duplicates_skipped: 1,
        sessions_opened: SESSIONS_MAX as u64 + 2,
        sessions_evicted: 2,
        ..Counters::default()
    };
    assert_eq!(fixture.sessions.counters, counted);
}

#[test]
fn the_oldest_replies_of_a_session_go_when_they_are_too_many_bytes() {
    let mut fixture = Fixture::default();
    let session = fixture.open();
    for number in 1..=4 {
        fixture.frame(session, number, SESSION_REPLY_BYTES_MAX / 4);
    }
    assert_eq!(fixture.cached(session, 1), Some(4));
    fixture.frame(session, 5, OVERHEAD);
    assert_eq!(fixture.cached(session, 1), None);
    assert_eq!(fixture.cached(session, 2), Some(4));
    // What went makes room.
    fixture.frame(session, 6, SESSION_REPLY_BYTES_MAX / 4 - OVERHEAD);
    assert_eq!(fixture.cached(session, 2), Some(5));
    // One that is as large as all of them drives out the rest.
    fixture.frame(session, 7, SESSION_REPLY_BYTES_MAX);
    assert_eq!(fixture.cached(session, 6), None);
    assert_eq!(fixture.cached(session, 7), Some(1));
    // The newest stays even if it is too large by itself: its client waits for it.
    let replies = [REPLIES_BYTES_MAX - OVERHEAD, 1];
    let Applied::Executed(frame) = fixture.apply(session, 8, &replies) else {
        panic!("nothing executed");
    };
    assert_eq!(frame.len(), SESSION_REPLY_BYTES_MAX + 4);
    assert_eq!(fixture.cached(session, 7), None);
    assert_eq!(fixture.cached(session, 8), Some(1));
    fixture.frame(session, 10, OVERHEAD);
    assert_eq!(fixture.cached(session, 9), None);
    assert_eq!(fixture.cached(session, 10), Some(1));
}

#[test]
fn one_session_that_replaces_its_replies_costs_no_other_its_own() {
    let mut fixture = Fixture::default();
    let (idle, busy) = (fixture.open(), fixture.open());
    fixture.frame(idle, 1, OVERHEAD);
    for number in 1..=2 * (REPLY_BYTES_MAX / SESSION_REPLY_BYTES_MAX) as u64 {
        fixture.frame(busy, number, SESSION_REPLY_BYTES_MAX);
    }
    assert_eq!(fixture.cached(idle, 1), Some(1));
}

#[test]
fn the_replies_of_the_longest_idle_session_go_when_all_are_too_many_bytes() {
    let mut fixture = Fixture::default();
    let count = REPLY_BYTES_MAX / SESSION_REPLY_BYTES_MAX;
    let ids: Vec<SessionId> = (0..count + 1).map(|_| fixture.open()).collect();
    let (busy, idle) = ids.split_last().expect("there are many");
    for session in idle {
        fixture.frame(*session, 1, SESSION_REPLY_BYTES_MAX);
    }
    let kept = |fixture: &Fixture| -> Vec<bool> {
        let kept = idle.iter().map(|id| fixture.cached(*id, 1).is_some());
        kept.collect()
    };
    assert_eq!(kept(&fixture), vec![true; count]);
    let mut wanted = vec![true; count];
    // The first byte too many costs one session its replies, and not the next one before they are needed.
    fixture.frame(*busy, 1, OVERHEAD);
    wanted[0] = false;
    assert_eq!(kept(&fixture), wanted);
    fixture.frame(*busy, 2, SESSION_REPLY_BYTES_MAX - OVERHEAD);
    assert_eq!(kept(&fixture), wanted);
    fixture.frame(idle[0], 2, 2 * OVERHEAD);
    wanted[1] = false;
    assert_eq!(kept(&fixture), wanted);
    assert_eq!(fixture.cached(*busy, 1), Some(2));
    // The session itself is still known: a retry is refused, not executed again.
    assert_eq!(fixture.sessions.last(idle[1]), Some(CommandNumber(1)));
    assert_eq!(fixture.apply(idle[1], 1, &[0]), Applied::Skipped);
}

#[test]
fn making_room_for_replies_looks_at_each_idle_session_once() {
    let mut fixture = Fixture::default();
    let count = REPLY_BYTES_MAX / SESSION_REPLY_BYTES_MAX;
    let idle: Vec<SessionId> = (0..SESSIONS_MAX - 2 * count)
        .map(|_| fixture.open())
        .collect();
    let busy: Vec<SessionId> = (0..count + 1).map(|_| fixture.open()).collect();
    for session in &busy {
        fixture.frame(*session, 1, SESSION_REPLY_BYTES_MAX);
    }
    // From here on each request makes another session lose its replies.
    let rounds = 100;
    for number in 2..2 + rounds {
        for session in &busy[..2] {
            fixture.frame(*session, number, SESSION_REPLY_BYTES_MAX / 2);
        }
    }
    let looked_at = fixture.sessions.counters.sessions_emptied;
    let most = (idle.len() + busy.len()) as u64 + 2 * rounds;
    assert!(looked_at <= most, "{looked_at} of {most}");
}

fn open_for(fixture: &mut Fixture, owner: u64) -> Applied {
    fixture.slot += 1;
    let open = Request::open(7, Owner(owner));
    let slot = Slot(fixture.slot);
    fixture
        .sessions
        .apply(slot, 0, &open, &mut Zeros, &mut fixture.scratch)
}

#[test]
fn little_used_sessions_go_before_much_used_ones_and_none_that_was_active_lately() {
    let mut fixture = Fixture::default();
    let (much, little) = (fixture.open(), fixture.open());
    fixture.apply(much, 1, &[0; LITTLE_COMMANDS as usize]);
    fixture.apply(little, 1, &[0; LITTLE_COMMANDS as usize - 1]);
    let rest: Vec<SessionId> = (2..SESSIONS_MAX).map(|_| fixture.open()).collect();
    for session in &rest {
        fixture.apply(*session, 1, &[0; LITTLE_COMMANDS as usize]);
    }
    fixture.slot += RECENT_SLOTS;
    let known = |fixture: &Fixture, session| fixture.sessions.last(session).is_some();
    assert!(matches!(open_for(&mut fixture, 0), Applied::Opened(_)));
    assert!(!known(&fixture, little) && known(&fixture, much));
    // The one that was just opened was never used, but its client may be about to.
    let newest = session_id(Slot(fixture.slot), 0);
    assert_eq!(open_for(&mut fixture, 0), Applied::Crowded);
    assert_eq!(fixture.sessions.counters.sessions_refused, 1);
    fixture.slot += RECENT_SLOTS;
    assert!(matches!(open_for(&mut fixture, 0), Applied::Opened(_)));
    assert!(!known(&fixture, newest) && known(&fixture, much));
}

#[test]
fn one_owner_that_opens_more_and_more_loses_its_own_sessions_only() {
    let mut fixture = Fixture::default();
    let mut modest = Vec::new();
    for _ in 0..10 {
        match open_for(&mut fixture, 1) {
            Applied::Opened(session) => modest.push(session),
            other => panic!("{other:?}"),
        }
    }
    for _ in 0..2 * SESSIONS_MAX {
        assert!(matches!(open_for(&mut fixture, 2), Applied::Opened(_)));
    }
    // And it keeps nobody else out, though all of its sessions may be active.
    let late = open_for(&mut fixture, 3);
    assert!(matches!(late, Applied::Opened(_)));
    for session in modest {
        assert_eq!(fixture.sessions.last(session), Some(CommandNumber(0)));
    }
    assert_eq!(fixture.sessions.len(), SESSIONS_MAX);
}
