//! A snapshot and what came after it give the same state as everything from the beginning.

use bytes::{BufMut, Bytes, BytesMut};
use proptest::prelude::*;

use super::*;
use crate::client::Request;
use crate::config::{Config, Limits};
use crate::ids::{CommandNumber, Incarnation, Lsn, ReplicaId, SessionId, Slot};
use crate::machine::KvMachine;
use crate::machine::kv::KvCommand;
use crate::members::{Members, Readmission};
use crate::message::Value;
use crate::seams::{Origin, SnapshotEvent, SnapshotInfo, SnapshotStore};
use crate::sessions::session_id;
use crate::state::State;

/// A store that keeps what it is given.
#[derive(Default)]
struct Kept {
    bytes: Vec<u8>,
    checksum: Option<u64>,
    origin: Option<Origin>,
    backlog: usize,
}

impl SnapshotStore for Kept {
    fn complete(&self) -> &[SnapshotInfo] {
        &[]
    }

    fn begin(&mut self, _slot: Slot) {
        *self = Kept::default();
    }

    fn append(&mut self, bytes: Bytes) {
        self.bytes.extend_from_slice(&bytes);
    }

    fn backlog(&self) -> usize {
        self.backlog
    }

    fn finish(&mut self, checksum: u64, origin: Origin) {
        self.checksum = Some(checksum);
        self.origin = Some(origin);
    }

    fn origin(&self, _slot: Slot) -> Origin {
        self.origin.expect("it was finished")
    }

    fn abandon(&mut self) {}

    fn read(&mut self, _slot: Slot, _offset: u64, _bytes_max: usize) -> bool {
        false
    }

    fn poll(&mut self) -> Option<SnapshotEvent> {
        None
    }

    fn drop_below(&mut self, _slot: Slot) {}

    fn counters(&self, _report: &mut dyn FnMut(&'static str, u64)) {}
}

fn limits() -> Limits {
    Config::new(ReplicaId(1), 3, 1).limits
}

/// What one slot does.
#[derive(Clone, Debug)]
enum Act {
    Open,
    /// Session, first number relative to the next one, acknowledged, key, value.
    Put(usize, i8, u8, u8, Vec<u8>),
    Delete(usize, u8),
}

fn act() -> impl Strategy<Value = Act> {
    let value = proptest::collection::vec(any::<u8>(), 0..20);
    prop_oneof![
        1 => Just(Act::Open),
        5 => (0usize..4, -1i8..=1, 0u8..4, 0u8..9, value).prop_map(|(s, n, a, k, v)| Act::Put(s, n, a, k, v)),
        2 => (0usize..4, 0u8..9).prop_map(|(s, k)| Act::Delete(s, k)),
    ]
}

#[derive(Default)]
struct Log {
    sessions: Vec<(SessionId, u64)>,
    values: Vec<Value>,
}

impl Log {
    fn push(&mut self, act: &Act) {
        let slot = Slot(self.values.len() as u64 + 1);
        let (session, ahead, acknowledged, command) = match act {
            Act::Open => (None, 0, 0, None),
            Act::Put(session, ahead, acknowledged, key, value) => {
                let command = KvCommand::Put {
                    key: &[*key],
                    value,
                }
                .encode();
                (Some(*session), *ahead, *acknowledged, command)
            }
            Act::Delete(session, key) => {
                let command = KvCommand::Delete { key: &[*key] }.encode();
                (Some(*session), 0, 0, command)
            }
        };
        let mut commands = BytesMut::new();
        if let Some(command) = &command {
            commands.put_u32_le(command.len() as u32);
            commands.put_slice(command);
        }
        let known = session.and_then(|index| self.sessions.get_mut(index));
        let (id, first) = match (session, known) {
            (None, _) => {
                self.sessions.push((session_id(slot, 0), 1));
                (SessionId::NONE, 0)
            }
            (Some(_), None) => (SessionId(77), 1),
            (Some(_), Some((id, next))) => {
                let first = next.saturating_add_signed(i64::from(ahead)).max(1);
                *next += u64::from(first == *next);
                (*id, first)
            }
        };
        let request = Request {
            session: id,
            first: CommandNumber(first),
            acknowledged: CommandNumber(u64::from(acknowledged)),
            count: u32::from(command.is_some()),
            commands: commands.freeze(),
        };
        let mut value = BytesMut::new();
        request.put(&mut value);
        self.values.push(value.freeze());
    }

    fn apply(&self, state: &mut State<KvMachine>, through: usize) {
        while (state.applied().0 as usize) < through {
            let slot = state.applied().next();
            state.apply(slot, self.values[slot.0 as usize - 1].clone(), |_, _| {});
        }
    }
}

fn restore(bytes: &[u8], portion: usize) -> Result<Restored<KvMachine>, RestoreError> {
    let mut restoring = Restoring::new(KvMachine::default());
    for portion in bytes.chunks(portion) {
        restoring.take(portion)?;
    }
    restoring.finish()
}

fn assert_equal(one: &State<KvMachine>, other: &State<KvMachine>) {
    assert_eq!(one.applied(), other.applied());
    assert_eq!(one.hash(), other.hash());
    let sorted = |state: &State<KvMachine>| {
        let entries = state.machine.iter().map(|(k, v)| (k.to_vec(), v.to_vec()));
        let mut entries: Vec<_> = entries.collect();
        entries.sort();
        entries
    };
    assert_eq!(sorted(one), sorted(other));
    let sessions = |state: &State<KvMachine>| {
        let mut sessions: Vec<_> = state.sessions.iter().collect();
        sessions.sort();
        sessions
    };
    assert_eq!(sessions(one), sessions(other));
    for (id, last) in sessions(one) {
        for first in 0..=last.0 + 1 {
            let first = CommandNumber(first);
            let cached = |state: &State<KvMachine>| {
                state.sessions.cached(id, first, CommandNumber(u64::MAX))
            };
            assert_eq!(cached(one), cached(other), "{id:?} from {first:?}");
        }
        assert_eq!(
            one.sessions.acknowledged(id),
            other.sessions.acknowledged(id)
        );
    }
}

fn members() -> Members {
    let mut members = Members::default();
    let readmission = Readmission {
        replica: ReplicaId(2),
        incarnation: Incarnation(7),
    };
    members.note(Slot(1), &readmission.encode());
    members
}

/// Takes a snapshot in steps of `bytes`, with slots applied between them.
fn taken(log: &Log, state: &mut State<KvMachine>, bytes: usize, slots_per_step: usize) -> Kept {
    let mut store = Kept::default();
    let mut taking = Taking::begin(state, &members(), Lsn(0), &mut store);
    while taking.step(state, &mut store, bytes, &limits(), Lsn(0)) == Step::More {
        let through = state.applied().0 as usize + slots_per_step;
        log.apply(state, through.min(log.values.len()));
    }
    store
}

proptest! {
    #[test]
    fn a_snapshot_and_the_rest_equal_everything(
        acts in proptest::collection::vec(act(), 0..80),
        at in any::<prop::sample::Index>(),
        bytes in 1usize..200,
        slots_per_step in 0usize..4,
        portion in 1usize..300,
    ) {
        let mut log = Log::default();
        acts.iter().for_each(|act| log.push(act));
        let at = at.index(acts.len() + 1);
        let mut whole = State::new(KvMachine::default());
        log.apply(&mut whole, at);
        let store = taken(&log, &mut whole, bytes, slots_per_step);
        log.apply(&mut whole, acts.len());

        let restored = restore(&store.bytes, portion).expect("it is intact");
        prop_assert_eq!(Some(restored.checksum), store.checksum);
        prop_assert_eq!(restored.state.applied(), Slot(at as u64));
        prop_assert_eq!(&restored.members, &members());
        let mut then = State::new(KvMachine::default());
        log.apply(&mut then, at);
        assert_equal(&restored.state, &then);

        let mut replayed = restored.state;
        log.apply(&mut replayed, acts.len());
        assert_equal(&replayed, &whole);
    }

    #[test]
    fn a_changed_cut_or_longer_snapshot_is_refused(
        acts in proptest::collection::vec(act(), 1..30),
        byte in any::<prop::sample::Index>(),
        bit in 0u8..8,
        end in any::<prop::sample::Index>(),
    ) {
        let mut log = Log::default();
        acts.iter().for_each(|act| log.push(act));
        let mut state = State::new(KvMachine::default());
        log.apply(&mut state, acts.len());
        let mut bytes = taken(&log, &mut state, 50, 0).bytes;
        prop_assert!(restore(&bytes[..end.index(bytes.len())], 64).is_err());
        bytes.push(0);
        prop_assert!(restore(&bytes, 64).is_err());
        bytes.pop();
        let byte = byte.index(bytes.len());
        bytes[byte] ^= 1 << bit;
        prop_assert!(restore(&bytes, 64).is_err(), "byte {byte}");
    }
}

#[test]
fn another_version_is_named() {
    let mut state = State::new(KvMachine::default());
    let mut bytes = taken(&Log::default(), &mut state, 50, 0).bytes;
    bytes[8] = 9;
    let error = restore(&bytes, 64).err();
    assert_eq!(error, Some(RestoreError::Version { found: 9 }));
}

#[test]
fn what_commands_overwrite_is_bounded_while_the_disk_does_not_follow() {
    let mut log = Log::default();
    log.push(&Act::Open);
    let put = |byte| Act::Put(0, 0, 0, 1, vec![byte; 5_000]);
    log.push(&put(1));
    log.push(&put(2));
    let mut state = State::new(KvMachine::default());
    log.apply(&mut state, 2);
    let mut store = Kept::default();
    let mut taking = Taking::begin(&mut state, &Members::default(), Lsn(0), &mut store);
    store.backlog = usize::MAX;
    let limits = Limits {
        snapshot_kept_bytes_max: 4_000,
        ..limits()
    };
    assert_eq!(
        taking.step(&mut state, &mut store, 10, &limits, Lsn(0)),
        Step::More
    );
    log.apply(&mut state, 3);
    assert_eq!(kept_bytes(&state) / 5_000, 1);
    assert_eq!(
        taking.step(&mut state, &mut store, 10, &limits, Lsn(0)),
        Step::OverLimit
    );
}

#[test]
fn a_snapshot_that_is_finished_before_the_wal_is_durable_as_far_says_so() {
    for (durable, origin) in [(6, Origin::Ahead), (7, Origin::Replayable)] {
        let mut state = State::new(KvMachine::default());
        let mut store = Kept::default();
        let mut taking = Taking::begin(&mut state, &members(), Lsn(7), &mut store);
        while taking.step(&mut state, &mut store, 1000, &limits(), Lsn(durable)) == Step::More {}
        assert_eq!(store.origin, Some(origin), "{durable}");
    }
}
