//! Replica messages on the wire: `length: u32 | kind: u8 | fields`, little-endian. `length` counts what follows it.
//!
//! Fixed-width fields in the order of the struct, so that decoding costs a few loads and never allocates per
//! field; the value of an Accept is the tail of its frame, so that one buffer serves every peer.

use bytes::{BufMut, Bytes, BytesMut};

use crate::client::{exhausted, take_u8, take_u32, take_u64};
use crate::ids::{Ballot, Incarnation, ReplicaId, ReplicaSet, Slot};
use crate::message::{
    Accept, Accepted, AcceptedValue, Chosen, Fetch, Heartbeat, HeartbeatRole, Message, Prepare,
    Promise, Reject, Value,
};
use crate::seams::{Frame, Lane};

/// Bytes of the length prefix of every frame, replica or client.
pub const FRAME_PREFIX_BYTES: usize = 4;

const PREPARE: u8 = 1;
const PROMISE: u8 = 2;
const REJECT: u8 = 3;
const ACCEPT: u8 = 4;
const ACCEPTED: u8 = 5;
const HEARTBEAT: u8 = 6;
const FETCH: u8 = 7;
const CHOSEN: u8 = 8;

/// Why bytes are not a frame of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("the frame ends before its content does")]
    Short,
    #[error("the frame goes on after its content ends")]
    Excess,
    #[error("kind {0} is unknown")]
    Kind(u8),
    #[error("a field holds a value out of range")]
    Range,
}

/// The lane a message travels on: whatever carries values stays off the control lane, so that heartbeats and
/// acknowledgements never wait behind data.
pub fn lane(message: &Message) -> Lane {
    match message {
        Message::Accept(_) | Message::Promise(_) => Lane::Data,
        Message::Chosen(_) => Lane::Bulk,
        Message::Prepare(_)
        | Message::Reject(_)
        | Message::Accepted(_)
        | Message::Heartbeat(_)
        | Message::Fetch(_) => Lane::Control,
    }
}

pub fn encode(message: &Message) -> Frame {
    let mut head = BytesMut::with_capacity(64);
    head.put_u32_le(0);
    let mut body = Bytes::new();
    match message {
        Message::Prepare(prepare) => {
            head.put_u8(PREPARE);
            put_ballot(&mut head, prepare.ballot);
            head.put_u64_le(prepare.commit_index.0);
        }
        Message::Promise(promise) => put_promise(&mut head, promise),
        Message::Reject(reject) => {
            head.put_u8(REJECT);
            put_ballot(&mut head, reject.promised);
        }
        Message::Accept(accept) => {
            head.put_u8(ACCEPT);
            put_ballot(&mut head, accept.ballot);
            head.put_u64_le(accept.slot.0);
            head.put_u64_le(accept.commit_index.0);
            body = accept.value.clone();
        }
        Message::Accepted(accepted) => {
            head.put_u8(ACCEPTED);
            put_ballot(&mut head, accepted.ballot);
            head.put_u64_le(accepted.through.0);
        }
        Message::Heartbeat(heartbeat) => put_heartbeat(&mut head, heartbeat),
        Message::Fetch(fetch) => {
            head.put_u8(FETCH);
            head.put_u64_le(fetch.from.0);
            head.put_u64_le(fetch.through.0);
        }
        Message::Chosen(chosen) => {
            head.put_u8(CHOSEN);
            head.put_u64_le(chosen.from.0);
            head.put_u32_le(chosen.values.len() as u32);
            for value in &chosen.values {
                put_value(&mut head, value);
            }
        }
    }
    let length = (head.len() - FRAME_PREFIX_BYTES + body.len()) as u32;
    head[..FRAME_PREFIX_BYTES].copy_from_slice(&length.to_le_bytes());
    Frame {
        head: head.freeze(),
        body,
    }
}

/// Decodes a frame without its length prefix. Values stay slices of `frame`.
pub fn decode(mut frame: Bytes) -> Result<Message, DecodeError> {
    let frame = &mut frame;
    let message = match take_u8(frame)? {
        PREPARE => Message::Prepare(Prepare {
            ballot: take_ballot(frame)?,
            commit_index: take_slot(frame)?,
        }),
        PROMISE => Message::Promise(take_promise(frame)?),
        REJECT => Message::Reject(Reject {
            promised: take_ballot(frame)?,
        }),
        ACCEPT => Message::Accept(Accept {
            ballot: take_ballot(frame)?,
            slot: take_slot(frame)?,
            commit_index: take_slot(frame)?,
            value: std::mem::take(frame),
        }),
        ACCEPTED => Message::Accepted(Accepted {
            ballot: take_ballot(frame)?,
            through: take_slot(frame)?,
        }),
        HEARTBEAT => Message::Heartbeat(take_heartbeat(frame)?),
        FETCH => Message::Fetch(Fetch {
            from: take_slot(frame)?,
            through: take_slot(frame)?,
        }),
        CHOSEN => {
            let from = take_slot(frame)?;
            let count = take_u32(frame)?;
            let mut values = Vec::new();
            for _ in 0..count {
                values.push(take_value(frame)?);
            }
            Message::Chosen(Chosen { from, values })
        }
        kind => return Err(DecodeError::Kind(kind)),
    };
    exhausted(frame)?;
    Ok(message)
}

fn put_promise(head: &mut BytesMut, promise: &Promise) {
    head.put_u8(PROMISE);
    put_ballot(head, promise.ballot);
    head.put_u64_le(promise.incarnation.0);
    head.put_u64_le(promise.commit_index.0);
    head.put_u64_le(promise.trim_floor.0);
    head.put_u32_le(promise.accepted.len() as u32);
    for accepted in &promise.accepted {
        head.put_u64_le(accepted.slot.0);
        put_ballot(head, accepted.ballot);
        put_value(head, &accepted.value);
    }
}

fn take_promise(frame: &mut Bytes) -> Result<Promise, DecodeError> {
    let ballot = take_ballot(frame)?;
    let incarnation = Incarnation(take_u64(frame)?);
    let commit_index = take_slot(frame)?;
    let trim_floor = take_slot(frame)?;
    let count = take_u32(frame)?;
    let mut accepted = Vec::new();
    for _ in 0..count {
        accepted.push(AcceptedValue {
            slot: take_slot(frame)?,
            ballot: take_ballot(frame)?,
            value: take_value(frame)?,
        });
    }
    Ok(Promise {
        ballot,
        incarnation,
        commit_index,
        trim_floor,
        accepted,
    })
}

fn put_heartbeat(head: &mut BytesMut, heartbeat: &Heartbeat) {
    head.put_u8(HEARTBEAT);
    put_ballot(head, heartbeat.ballot);
    let (role, incarnation) = match heartbeat.role {
        HeartbeatRole::Leading => (0, Incarnation::FOUNDING),
        HeartbeatRole::Following => (1, Incarnation::FOUNDING),
        HeartbeatRole::Searching => (2, Incarnation::FOUNDING),
        HeartbeatRole::Standing => (3, Incarnation::FOUNDING),
        HeartbeatRole::Readmitting { incarnation } => (4, incarnation),
    };
    head.put_u8(role);
    head.put_u64_le(incarnation.0);
    head.put_u16_le(heartbeat.hears.0);
    head.put_u64_le(heartbeat.commit_index.0);
    head.put_u64_le(heartbeat.received.0);
    head.put_u64_le(heartbeat.trim_floor.0);
}

fn take_heartbeat(frame: &mut Bytes) -> Result<Heartbeat, DecodeError> {
    Ok(Heartbeat {
        ballot: take_ballot(frame)?,
        role: take_role(frame)?,
        hears: {
            let low = take_u8(frame)?;
            let high = take_u8(frame)?;
            ReplicaSet(u16::from_le_bytes([low, high]))
        },
        commit_index: take_slot(frame)?,
        received: take_slot(frame)?,
        trim_floor: take_slot(frame)?,
    })
}

fn take_role(frame: &mut Bytes) -> Result<HeartbeatRole, DecodeError> {
    let role = take_u8(frame)?;
    let incarnation = Incarnation(take_u64(frame)?);
    match (role, incarnation) {
        (0, Incarnation::FOUNDING) => Ok(HeartbeatRole::Leading),
        (1, Incarnation::FOUNDING) => Ok(HeartbeatRole::Following),
        (2, Incarnation::FOUNDING) => Ok(HeartbeatRole::Searching),
        (3, Incarnation::FOUNDING) => Ok(HeartbeatRole::Standing),
        (4, incarnation) => Ok(HeartbeatRole::Readmitting { incarnation }),
        _ => Err(DecodeError::Range),
    }
}

fn put_ballot(head: &mut BytesMut, ballot: Ballot) {
    head.put_u64_le(ballot.round);
    head.put_u8(ballot.replica.0);
}

fn take_ballot(frame: &mut Bytes) -> Result<Ballot, DecodeError> {
    Ok(Ballot {
        round: take_u64(frame)?,
        replica: ReplicaId(take_u8(frame)?),
    })
}

fn take_slot(frame: &mut Bytes) -> Result<Slot, DecodeError> {
    take_u64(frame).map(Slot)
}

fn put_value(head: &mut BytesMut, value: &Value) {
    head.put_u32_le(value.len() as u32);
    head.put_slice(value);
}

fn take_value(frame: &mut Bytes) -> Result<Value, DecodeError> {
    let length = take_u32(frame)? as usize;
    if frame.len() < length {
        return Err(DecodeError::Short);
    }
    Ok(frame.split_to(length))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ballot() -> impl Strategy<Value = Ballot> {
        (any::<u64>(), 0u8..16).prop_map(|(round, replica)| Ballot {
            round,
            replica: ReplicaId(replica),
        })
    }

    fn slot() -> impl Strategy<Value = Slot> {
        any::<u64>().prop_map(Slot)
    }

    fn value() -> impl Strategy<Value = Value> {
        proptest::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from)
    }

    fn heartbeat() -> impl Strategy<Value = Heartbeat> {
        let role = prop_oneof![
            Just(HeartbeatRole::Leading),
            Just(HeartbeatRole::Following),
            Just(HeartbeatRole::Searching),
            Just(HeartbeatRole::Standing),
            any::<u64>().prop_map(|incarnation| HeartbeatRole::Readmitting {
                incarnation: Incarnation(incarnation),
            }),
        ];
        (ballot(), role, any::<u16>(), slot(), slot(), slot()).prop_map(
            |(ballot, role, hears, commit_index, received, trim_floor)| Heartbeat {
                ballot,
                role,
                hears: ReplicaSet(hears),
                commit_index,
                received,
                trim_floor,
            },
        )
    }

    fn promise() -> impl Strategy<Value = Promise> {
        let accepted =
            (slot(), ballot(), value()).prop_map(|(slot, ballot, value)| AcceptedValue {
                slot,
                ballot,
                value,
            });
        (
            ballot(),
            any::<u64>(),
            slot(),
            slot(),
            proptest::collection::vec(accepted, 0..5),
        )
            .prop_map(
                |(ballot, incarnation, commit_index, trim_floor, accepted)| Promise {
                    ballot,
                    incarnation: Incarnation(incarnation),
                    commit_index,
                    trim_floor,
                    accepted,
                },
            )
    }

    fn message() -> impl Strategy<Value = Message> {
        prop_oneof![
            (ballot(), slot()).prop_map(|(ballot, commit_index)| {
                Message::Prepare(Prepare {
                    ballot,
                    commit_index,
                })
            }),
            promise().prop_map(Message::Promise),
            ballot().prop_map(|promised| Message::Reject(Reject { promised })),
            (ballot(), slot(), slot(), value()).prop_map(|(ballot, slot, commit_index, value)| {
                Message::Accept(Accept {
                    ballot,
                    slot,
                    commit_index,
                    value,
                })
            }),
            (ballot(), slot())
                .prop_map(|(ballot, through)| Message::Accepted(Accepted { ballot, through })),
            heartbeat().prop_map(Message::Heartbeat),
            (slot(), slot()).prop_map(|(from, through)| Message::Fetch(Fetch { from, through })),
            (slot(), proptest::collection::vec(value(), 0..5))
                .prop_map(|(from, values)| Message::Chosen(Chosen { from, values })),
        ]
    }

    fn on_the_wire(message: &Message) -> Bytes {
        let frame = encode(message);
        let mut whole = BytesMut::from(&frame.head[..]);
        whole.extend_from_slice(&frame.body);
        whole.freeze()
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes_to_itself(message in message()) {
            let mut wire = on_the_wire(&message);
            prop_assert_eq!(take_u32(&mut wire).expect("the length") as usize, wire.len());
            prop_assert_eq!(decode(wire).expect("our own frame"), message);
        }

        #[test]
        fn cut_frames_and_garbage_are_errors_not_panics(message in message(), cut in any::<prop::sample::Index>(), garbage in proptest::collection::vec(any::<u8>(), 0..60)) {
            let wire = on_the_wire(&message).slice(4..);
            let cut = cut.index(wire.len());
            // An Accept's value is the rest of its frame: a cut one is another value, not an error.
            if !matches!(message, Message::Accept(_)) {
                prop_assert!(decode(wire.slice(..cut)).is_err());
            }
            let _ = decode(Bytes::from(garbage));
        }
    }

    #[test]
    fn trap_29_nothing_that_carries_values_shares_the_control_lane() {
        let value = Value::from_static(b"value");
        let accept = Message::Accept(Accept {
            ballot: Ballot::ZERO,
            slot: Slot(1),
            commit_index: Slot::ZERO,
            value: value.clone(),
        });
        let chosen = Message::Chosen(Chosen {
            from: Slot(1),
            values: vec![value.clone()],
        });
        let promise = Message::Promise(Promise {
            ballot: Ballot::ZERO,
            incarnation: Incarnation::FOUNDING,
            commit_index: Slot::ZERO,
            trim_floor: Slot(1),
            accepted: Vec::new(),
        });
        for message in [accept, chosen, promise] {
            assert_ne!(lane(&message), Lane::Control, "{message:?}");
        }
        let reject = Message::Reject(Reject {
            promised: Ballot::ZERO,
        });
        assert_eq!(lane(&reject), Lane::Control);
    }
}
