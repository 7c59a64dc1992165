//! What replicas say to each other, as frames.
//!
//! ```text
//!   length of the rest u32 | bytes of the message u32 | message (bincode) | its values, back to back
//! ```

use bytes::{Buf, BufMut, Bytes, BytesMut};
use openraft::EntryPayload;
use openraft::raft::{AppendEntriesRequest, StreamAppendResult, VoteRequest, VoteResponse};
use serde::{Deserialize, Serialize};
use synod_baseline_shell::Malformed;

use crate::types::{Batch, Types};

const PREFIX_BYTES: usize = 4;

/// Answers carry the number that the asker chose.
#[derive(Serialize, Deserialize)]
pub enum Rpc {
    Vote {
        id: u64,
        request: VoteRequest<Types>,
    },
    PreVote {
        id: u64,
        request: VoteRequest<Types>,
    },
    VoteReply {
        id: u64,
        reply: VoteResponse<Types>,
    },
    /// One request of a stream; the first one opens it.
    Append {
        id: u64,
        request: AppendEntriesRequest<Types>,
    },
    /// No further request comes on this stream.
    AppendEnd {
        id: u64,
    },
    /// In the order of the requests.
    AppendReply {
        id: u64,
        reply: StreamAppendResult<Types>,
    },
}

/// The head and the body of a frame.
pub fn encode(mut rpc: Rpc) -> (Bytes, Bytes) {
    let values: Vec<&mut Batch> = batches(&mut rpc).collect();
    let body = match &values[..] {
        [] => Bytes::new(),
        [lone] => lone.value.clone(),
        several => {
            let bytes = several.iter().map(|batch| batch.value.len()).sum();
            let mut body = BytesMut::with_capacity(bytes);
            for batch in several {
                body.put_slice(&batch.value);
            }
            body.freeze()
        }
    };
    let encoded = bincode::serialize(&rpc).expect("memory takes every message");
    let mut head = BytesMut::with_capacity(2 * PREFIX_BYTES + encoded.len());
    head.put_u32_le((PREFIX_BYTES + encoded.len() + body.len()) as u32);
    head.put_u32_le(encoded.len() as u32);
    head.put_slice(&encoded);
    (head.freeze(), body)
}

/// The message of a frame without its length prefix.
pub fn decode(mut frame: Bytes) -> Result<Rpc, Malformed> {
    let size = frame.try_get_u32_le().map_err(|_| Malformed)? as usize;
    if frame.len() < size {
        return Err(Malformed);
    }
    let encoded = frame.split_to(size);
    let mut rpc = bincode::deserialize(&encoded).map_err(|_| Malformed)?;
    for batch in batches(&mut rpc) {
        if frame.len() < batch.bytes as usize {
            return Err(Malformed);
        }
        batch.value = frame.split_to(batch.bytes as usize);
    }
    if frame.is_empty() {
        Ok(rpc)
    } else {
        Err(Malformed)
    }
}

fn batches(rpc: &mut Rpc) -> impl Iterator<Item = &mut Batch> {
    let entries = match rpc {
        Rpc::Append { request, .. } => &mut request.entries[..],
        Rpc::Vote { .. }
        | Rpc::PreVote { .. }
        | Rpc::VoteReply { .. }
        | Rpc::AppendEnd { .. }
        | Rpc::AppendReply { .. } => &mut [],
    };
    entries
        .iter_mut()
        .filter_map(|entry| match &mut entry.payload {
            EntryPayload::Normal(batch) => Some(batch),
            EntryPayload::Blank | EntryPayload::Membership(_) => None,
        })
}

#[cfg(test)]
mod tests {
    use openraft::Vote;
    use synod_engine::ids::{Ballot, ReplicaId, Slot};
    use synod_engine::message::Value;

    use super::*;
    use crate::types::{Entry, leader_of, log_id_of};

    #[test]
    fn values_come_back_in_order_and_damage_is_an_error() {
        let ballot = Ballot {
            round: 3,
            replica: ReplicaId(2),
        };
        let cases: [&[&'static [u8]]; 3] = [&[], &[b"one"], &[b"one", b"two", b"three"]];
        for values in cases {
            let entries = values.iter().zip(1..).map(|(value, slot)| Entry {
                log_id: log_id_of(Slot(slot), ballot),
                payload: EntryPayload::Normal(Batch::new(Value::from_static(value))),
            });
            let (head, body) = encode(Rpc::Append {
                id: 7,
                request: AppendEntriesRequest {
                    vote: Vote {
                        leader_id: leader_of(ballot),
                        committed: true,
                    },
                    prev_log_id: None,
                    entries: entries.collect(),
                    leader_commit: None,
                },
            });
            let frame = Bytes::from([head, body].concat()).slice(PREFIX_BYTES..);
            let mut back = decode(frame.clone()).unwrap_or_else(|_| panic!("as encoded"));
            let found: Vec<Value> = batches(&mut back)
                .map(|batch| batch.value.clone())
                .collect();
            assert_eq!(found, values);
            assert!(decode(frame.slice(..frame.len() - 1)).is_err());
        }
    }
}
