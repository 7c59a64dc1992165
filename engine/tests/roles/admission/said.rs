//! Arbitrary messages: well formed, with any content.

use super::*;

/// A number near what the replica has come to, or anywhere.
#[derive(Clone, Copy, Debug)]
enum Number {
    Near(i64),
    Any(u64),
}

impl Number {
    fn at(self, here: u64) -> u64 {
        match self {
            Number::Near(offset) => here.saturating_add_signed(offset),
            Number::Any(number) => number,
        }
    }
}

fn number() -> impl Strategy<Value = Number> {
    prop_oneof![
        8 => (-3i64..6).prop_map(Number::Near),
        1 => (0u32..64).prop_map(|bit| Number::Any(1 << bit)),
        1 => (0u64..4).prop_map(|below| Number::Any(u64::MAX - below)),
        1 => any::<u64>().prop_map(Number::Any),
    ]
}

/// A ballot near the promise, of the sender, the receiver, or whoever.
#[derive(Clone, Copy, Debug)]
struct BallotPick {
    round: Number,
    replica: Option<u8>,
}

fn ballot_pick() -> impl Strategy<Value = BallotPick> {
    let replica =
        prop_oneof![4 => Just(None), 4 => (0u8..6).prop_map(Some), 1 => any::<u8>().prop_map(Some)];
    (number(), replica).prop_map(|(round, replica)| BallotPick { round, replica })
}

fn some_value() -> impl Strategy<Value = Value> {
    let whole = || {
        (0u64..4, 0u64..4, 0usize..60).prop_map(|(session, first, length)| {
            let mut commands = BytesMut::new();
            commands.extend_from_slice(&(length as u32).to_le_bytes());
            commands.resize(4 + length, 1);
            let mut out = BytesMut::new();
            Request {
                session: SessionId(session << 16),
                first: CommandNumber(first),
                acknowledged: CommandNumber(0),
                count: 1,
                commands: commands.freeze(),
            }
            .put(&mut out);
            out.freeze()
        })
    };
    prop_oneof![
        3 => Just(Value::new()),
        4 => whole(),
        3 => (whole(), any::<prop::sample::Index>()).prop_map(|(value, cut)| value.slice(..cut.index(value.len()))),
        2 => proptest::collection::vec(any::<u8>(), 0..80).prop_map(Value::from),
        1 => (0u8..17, any::<u64>()).prop_map(|(replica, incarnation)| Readmission {
            replica: ReplicaId(replica),
            incarnation: Incarnation(incarnation),
        }.encode()),
        1 => Just(Value::from(vec![0; BATCH_BYTES_CEILING + 1])),
    ]
}

/// What becomes a message once it is known where the replica stands.
#[derive(Clone, Debug)]
pub struct Said {
    pub from: u8,
    kind: u8,
    ballot: BallotPick,
    /// `None` for the receiver's own promise.
    own_ballot: bool,
    numbers: [Number; 3],
    values: Vec<(Number, BallotPick, Value)>,
    word: u32,
}

pub fn said() -> impl Strategy<Value = Said> {
    (
        0u8..6,
        0u8..12,
        ballot_pick(),
        any::<bool>(),
        [number(), number(), number()],
        proptest::collection::vec((number(), ballot_pick(), some_value()), 0..4),
        prop_oneof![0u32..5, any::<u32>()],
    )
        .prop_map(
            |(from, kind, ballot, own_ballot, numbers, values, word)| Said {
                from,
                kind,
                ballot,
                own_ballot,
                numbers,
                values,
                word,
            },
        )
}

impl Said {
    pub fn message(&self, promised: Ballot, commit_index: Slot) -> Message {
        let pick = |pick: &BallotPick| Ballot {
            round: pick.round.at(promised.round),
            replica: ReplicaId(pick.replica.unwrap_or(self.from)),
        };
        let ballot = if self.own_ballot {
            promised
        } else {
            pick(&self.ballot)
        };
        let [first, second, third] = self.numbers.map(|number| Slot(number.at(commit_index.0)));
        let value = self
            .values
            .first()
            .map_or(Value::new(), |(_, _, value)| value.clone());
        let snapshot = SnapshotInfo {
            slot: first,
            bytes: second.0,
            checksum: 1,
        };
        match self.kind {
            0 => Message::Prepare(Prepare {
                ballot,
                commit_index: first,
            }),
            1 => Message::Promise(Promise {
                ballot,
                incarnation: Incarnation(u64::from(self.word)),
                commit_index: first,
                trim_floor: second,
                accepted: self
                    .values
                    .iter()
                    .map(|(slot, at, value)| AcceptedValue {
                        slot: Slot(slot.at(commit_index.0)),
                        ballot: pick(at),
                        value: value.clone(),
                    })
                    .collect(),
            }),
            2 => Message::Reject(Reject { promised: ballot }),
            3 => Message::Accept(Accept {
                ballot,
                slot: first,
                commit_index: second,
                value,
            }),
            4 => Message::Accepted(Accepted {
                ballot,
                through: first,
            }),
            5 => Message::Heartbeat(Heartbeat {
                ballot,
                role: match self.word % 6 {
                    0 => HeartbeatRole::Leading,
                    1 => HeartbeatRole::Following,
                    2 => HeartbeatRole::Standing,
                    3 => HeartbeatRole::Searching,
                    4 => HeartbeatRole::Founding,
                    _ => HeartbeatRole::Readmitting {
                        incarnation: Incarnation(third.0),
                    },
                },
                hears: ReplicaSet(self.word as u16),
                commit_index: first,
                received: second,
                trim_floor: third,
                stored: second,
                owed_bytes: self.word,
            }),
            6 => Message::Fetch(Fetch {
                from: first,
                through: second,
            }),
            7 => Message::Chosen(Chosen {
                from: first,
                values: self
                    .values
                    .iter()
                    .map(|(_, _, value)| value.clone())
                    .collect(),
            }),
            8 => Message::FetchSnapshot(FetchSnapshot {
                snapshot: self.own_ballot.then_some(snapshot),
                offset: third.0,
                bytes: self.word,
            }),
            9 => Message::StateHash(StateHash {
                slot: first,
                machine: second.0,
                sessions: third.0,
            }),
            10 => Message::Known(Known {
                took_part: self.own_ballot,
                commit_index: first,
            }),
            _ => Message::SnapshotPart(SnapshotPart {
                snapshot,
                offset: if self.own_ballot { 0 } else { third.0 },
                bytes: value,
            }),
        }
    }
}
