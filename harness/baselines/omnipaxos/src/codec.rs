//! OmniPaxos' messages as frames.
//!
//! ```text
//!   length of the rest u32 | bytes of the message u32 | message (bincode) | its values, back to back
//! ```
//! In the message stands only the length of each value, so that a lone one is neither copied nor encoded.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use omnipaxos::messages::Message;
use omnipaxos::messages::sequence_paxos::{PaxosMessage, PaxosMsg};
use omnipaxos::storage::{Entry, NoSnapshot};
use serde::{Deserialize, Serialize};
use synod_baseline_shell::Malformed;
use synod_engine::message::Value;

const PREFIX_BYTES: usize = 4;

/// An entry of the log: a whole batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    bytes: u32,
    #[serde(skip)]
    pub value: Value,
}

impl Batch {
    pub fn new(value: Value) -> Batch {
        Batch {
            bytes: value.len() as u32,
            value,
        }
    }
}

impl Entry for Batch {
    type Snapshot = NoSnapshot;
}

/// The head and the body of the message's frame.
pub fn encode(mut message: Message<Batch>) -> (Bytes, Bytes) {
    let body = match entries(&mut message) {
        [] => Bytes::new(),
        [lone] => lone.value.clone(),
        several => {
            let bytes = several.iter().map(|entry| entry.value.len()).sum();
            let mut body = BytesMut::with_capacity(bytes);
            for entry in several {
                body.put_slice(&entry.value);
            }
            body.freeze()
        }
    };
    let encoded = bincode::serialize(&message).expect("memory takes every message");
    let mut head = BytesMut::with_capacity(2 * PREFIX_BYTES + encoded.len());
    head.put_u32_le((PREFIX_BYTES + encoded.len() + body.len()) as u32);
    head.put_u32_le(encoded.len() as u32);
    head.put_slice(&encoded);
    (head.freeze(), body)
}

/// The message of a frame without its length prefix.
pub fn decode(mut frame: Bytes) -> Result<Message<Batch>, Malformed> {
    let size = frame.try_get_u32_le().map_err(|_| Malformed)? as usize;
    if frame.len() < size {
        return Err(Malformed);
    }
    let encoded = frame.split_to(size);
    let mut message = bincode::deserialize(&encoded).map_err(|_| Malformed)?;
    for entry in entries(&mut message) {
        if frame.len() < entry.bytes as usize {
            return Err(Malformed);
        }
        entry.value = frame.split_to(entry.bytes as usize);
    }
    if frame.is_empty() {
        Ok(message)
    } else {
        Err(Malformed)
    }
}

/// The entries that a message carries.
fn entries(message: &mut Message<Batch>) -> &mut [Batch] {
    let Message::SequencePaxos(PaxosMessage { msg, .. }) = message else {
        return &mut [];
    };
    match msg {
        PaxosMsg::AcceptDecide(accept) => &mut accept.entries,
        PaxosMsg::AcceptSync(accept) => &mut accept.log_sync.suffix,
        PaxosMsg::Promise(promise) => match &mut promise.log_sync {
            Some(sync) => &mut sync.suffix,
            None => &mut [],
        },
        PaxosMsg::ProposalForward(entries) => entries,
        PaxosMsg::PrepareReq(_)
        | PaxosMsg::Prepare(_)
        | PaxosMsg::Accepted(_)
        | PaxosMsg::NotAccepted(_)
        | PaxosMsg::Decide(_)
        | PaxosMsg::Compaction(_)
        | PaxosMsg::AcceptStopSign(_)
        | PaxosMsg::ForwardStopSign(_) => &mut [],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back_in_order_and_damage_is_an_error() {
        let cases: [&[&'static [u8]]; 3] = [&[], &[b"one"], &[b"one", b"", b"three"]];
        for values in cases {
            let batches: Vec<Batch> = values
                .iter()
                .map(|value| Batch::new(Value::from_static(value)))
                .collect();
            let (head, body) = encode(Message::SequencePaxos(PaxosMessage {
                from: 1,
                to: 2,
                msg: PaxosMsg::ProposalForward(batches.clone()),
            }));
            let frame = Bytes::from([head, body].concat());
            let length = u32::from_le_bytes(frame[..4].try_into().expect("four bytes"));
            assert_eq!(length as usize, frame.len() - PREFIX_BYTES);
            let frame = frame.slice(PREFIX_BYTES..);
            let mut back = decode(frame.clone()).expect("as encoded");
            assert_eq!(entries(&mut back), batches);
            assert!(decode(frame.slice(..frame.len() - 1)).is_err());
        }
    }
}
