//! Replica messages on the wire: `length: u32 | kind: u8 | fields`, little-endian. `length` counts what follows it.
//!
//! Fixed-width fields in the order of the struct, so that decoding costs a few loads and never allocates per
//! field; the value of an Accept is the tail of its frame, so that one buffer serves every peer.

use bytes::{BufMut, Bytes, BytesMut};

use crate::client::{exhausted, take_u8, take_u32, take_u64};
use crate::ids::{Ballot, Incarnation, ReplicaId, ReplicaSet, Slot};
use crate::message::{
    Accept, Accepted, AcceptedValue, Chosen, Fetch, FetchSnapshot, Heartbeat, HeartbeatRole, Known,
    Message, Prepare, Promise, Reject, SnapshotPart, StateHash, Value,
};
use crate::seams::{Frame, Lane, SnapshotInfo};

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
const FETCH_SNAPSHOT: u8 = 9;
const SNAPSHOT_PART: u8 = 10;
const STATE_HASH: u8 = 11;
const KNOWN: u8 = 12;

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
        Message::Chosen(_) | Message::SnapshotPart(_) => Lane::Bulk,
        Message::Prepare(_)
        | Message::Reject(_)
        | Message::Accepted(_)
        | Message::Heartbeat(_)
        | Message::Fetch(_)
        | Message::FetchSnapshot(_)
        | Message::Known(_)
        | Message::StateHash(_) => Lane::Control,
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
        Message::Known(known) => {
            head.put_u8(KNOWN);
            head.put_u8(u8::from(known.took_part));
            head.put_u64_le(known.commit_index.0);
        }
        Message::FetchSnapshot(fetch) => {
            head.put_u8(FETCH_SNAPSHOT);
            head.put_u8(u8::from(fetch.snapshot.is_some()));
            if let Some(snapshot) = fetch.snapshot {
                put_snapshot(&mut head, snapshot);
            }
            head.put_u64_le(fetch.offset);
            head.put_u32_le(fetch.bytes);
        }
        Message::SnapshotPart(part) => {
            head.put_u8(SNAPSHOT_PART);
            put_snapshot(&mut head, part.snapshot);
            head.put_u64_le(part.offset);
            body = part.bytes.clone();
        }
        Message::StateHash(hash) => {
            head.put_u8(STATE_HASH);
            head.put_u64_le(hash.slot.0);
            head.put_u64_le(hash.machine);
            head.put_u64_le(hash.sessions);
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
        KNOWN => Message::Known(Known {
            took_part: match take_u8(frame)? {
                0 => false,
                1 => true,
                _ => return Err(DecodeError::Range),
            },
            commit_index: take_slot(frame)?,
        }),
        FETCH_SNAPSHOT => Message::FetchSnapshot(FetchSnapshot {
            snapshot: match take_u8(frame)? {
                0 => None,
                1 => Some(take_snapshot(frame)?),
                _ => return Err(DecodeError::Range),
            },
            offset: take_u64(frame)?,
            bytes: take_u32(frame)?,
        }),
        SNAPSHOT_PART => Message::SnapshotPart(SnapshotPart {
            snapshot: take_snapshot(frame)?,
            offset: take_u64(frame)?,
            bytes: std::mem::take(frame),
        }),
        STATE_HASH => Message::StateHash(StateHash {
            slot: take_slot(frame)?,
            machine: take_u64(frame)?,
            sessions: take_u64(frame)?,
        }),
        kind => return Err(DecodeError::Kind(kind)),
    };
    exhausted(frame)?;
    Ok(message)
}

fn put_snapshot(head: &mut BytesMut, snapshot: SnapshotInfo) {
    head.put_u64_le(snapshot.slot.0);
    head.put_u64_le(snapshot.bytes);
    head.put_u64_le(snapshot.checksum);
}

fn take_snapshot(frame: &mut Bytes) -> Result<SnapshotInfo, DecodeError> {
    Ok(SnapshotInfo {
        slot: take_slot(frame)?,
        bytes: take_u64(frame)?,
        checksum: take_u64(frame)?,
    })
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
        HeartbeatRole::Founding => (5, Incarnation::FOUNDING),
    };
    head.put_u8(role);
    head.put_u64_le(incarnation.0);
    head.put_u16_le(heartbeat.hears.0);
    head.put_u64_le(heartbeat.commit_index.0);
    head.put_u64_le(heartbeat.received.0);
    head.put_u64_le(heartbeat.stored.0);
    head.put_u32_le(heartbeat.owed_bytes);
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
        stored: take_slot(frame)?,
        owed_bytes: take_u32(frame)?,
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
        (5, Incarnation::FOUNDING) => Ok(HeartbeatRole::Founding),
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
mod tests;
