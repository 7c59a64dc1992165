//! A map from byte strings to byte strings: get, put, delete, compare-and-swap.
//!
//! ```text
//! command: op u8 | key length u16 | key | rest
//!   get 1, delete 3: rest is empty      put 2: rest is the value
//!   cas 4: rest is  expected? u8 (0 absent, 1 present) | expected length u32 | expected | new value
//! reply: code u8 | value
//!   (empty: the replies of the request were too long together)
//!   0 done   1 value follows   2 not found   3 compare failed, actual value follows   4 malformed command
//! ```

mod index;
mod places;
mod table;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::reply::Reply;
use crate::seams::StateMachine;

use table::Table;

/// What a piece of a snapshot holds.
const PIECE_HASH: u8 = 0;
const PIECE_ENTRIES: u8 = 1;

const GET: u8 = 1;
const PUT: u8 = 2;
const DELETE: u8 = 3;
const CAS: u8 = 4;

const DONE: u8 = 0;
const VALUE: u8 = 1;
const NOT_FOUND: u8 = 2;
const MISMATCH: u8 = 3;
const MALFORMED: u8 = 4;

#[derive(Clone, Debug, Default)]
pub struct KvMachine {
    values: Table,
    /// Chained over every command and what was kept of its reply: equal histories, equal hashes.
    hash: u64,
    /// The hash at the start of a snapshot, until it is written.
    snapshot_hash: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KvCommand<'a> {
    Get {
        key: &'a [u8],
    },
    Put {
        key: &'a [u8],
        value: &'a [u8],
    },
    Delete {
        key: &'a [u8],
    },
    /// Sets `value` if the present value is `expected`; `None` expects the key to be absent.
    Cas {
        key: &'a [u8],
        expected: Option<&'a [u8]>,
        value: &'a [u8],
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KvReply {
    Done,
    Value(Bytes),
    NotFound,
    /// The compare failed; this is the present value, if any.
    Mismatch(Option<Bytes>),
    Malformed,
    /// The command was executed, but the replies of its request together were too long to be kept.
    Dropped,
}

/// Longest key in bytes.
pub const KEY_BYTES_MAX: usize = u16::MAX as usize;

impl KvCommand<'_> {
    /// Fails if the key is longer than [`KEY_BYTES_MAX`].
    pub fn encode(&self) -> Option<Bytes> {
        let mut out = BytesMut::new();
        let (op, key) = match self {
            KvCommand::Get { key } => (GET, key),
            KvCommand::Put { key, .. } => (PUT, key),
            KvCommand::Delete { key } => (DELETE, key),
            KvCommand::Cas { key, .. } => (CAS, key),
        };
        out.put_u8(op);
        out.put_u16_le(u16::try_from(key.len()).ok()?);
        out.put_slice(key);
        match self {
            KvCommand::Get { .. } | KvCommand::Delete { .. } => {}
            KvCommand::Put { value, .. } => out.put_slice(value),
            KvCommand::Cas {
                expected, value, ..
            } => {
                out.put_u8(u8::from(expected.is_some()));
                let expected = expected.unwrap_or_default();
                out.put_u32_le(u32::try_from(expected.len()).ok()?);
                out.put_slice(expected);
                out.put_slice(value);
            }
        }
        Some(out.freeze())
    }

    pub fn decode(command: &[u8]) -> Option<KvCommand<'_>> {
        let (op, rest) = command.split_first()?;
        let (length, rest) = rest.split_first_chunk::<2>()?;
        let (key, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
        match *op {
            GET if rest.is_empty() => Some(KvCommand::Get { key }),
            DELETE if rest.is_empty() => Some(KvCommand::Delete { key }),
            PUT => Some(KvCommand::Put { key, value: rest }),
            CAS => {
                let (present, rest) = rest.split_first()?;
                let (length, rest) = rest.split_first_chunk::<4>()?;
                let length = u32::from_le_bytes(*length) as usize;
                let (expected, value) = rest.split_at_checked(length)?;
                let expected = match *present {
                    0 if expected.is_empty() => None,
                    1 => Some(expected),
                    _ => return None,
                };
                Some(KvCommand::Cas {
                    key,
                    expected,
                    value,
                })
            }
            _ => None,
        }
    }
}

impl KvReply {
    pub fn decode(mut reply: Bytes) -> Option<KvReply> {
        if reply.is_empty() {
            return Some(KvReply::Dropped);
        }
        match reply.get_u8() {
            DONE => Some(KvReply::Done),
            VALUE => Some(KvReply::Value(reply)),
            NOT_FOUND => Some(KvReply::NotFound),
            MISMATCH => match reply.try_get_u8().ok()? {
                0 => Some(KvReply::Mismatch(None)),
                _ => Some(KvReply::Mismatch(Some(reply))),
            },
            MALFORMED => Some(KvReply::Malformed),
            _ => None,
        }
    }
}

impl KvMachine {
    pub fn len(&self) -> usize {
        self.values.len()
    }

    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Every entry, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.values.iter()
    }

    fn execute(&mut self, command: &[u8], reply: &mut Reply<'_>) {
        match KvCommand::decode(command) {
            None => reply.put_u8(MALFORMED),
            Some(KvCommand::Get { key }) => match self.values.get(key) {
                None => reply.put_u8(NOT_FOUND),
                Some(value) => {
                    reply.put_u8(VALUE);
                    reply.put_slice(value);
                }
            },
            Some(KvCommand::Put { key, value }) => {
                self.values.put(key, value);
                reply.put_u8(DONE);
            }
            Some(KvCommand::Delete { key }) => {
                let present = self.values.remove(key);
                reply.put_u8(if present { DONE } else { NOT_FOUND });
            }
            Some(KvCommand::Cas {
                key,
                expected,
                value,
            }) => {
                let present = self.values.get(key);
                if present == expected {
                    self.values.put(key, value);
                    reply.put_u8(DONE);
                } else {
                    reply.put_u8(MISMATCH);
                    reply.put_u8(u8::from(present.is_some()));
                    reply.put_slice(present.unwrap_or_default());
                }
            }
        }
    }
}

impl StateMachine for KvMachine {
    fn apply(&mut self, command: &[u8], reply: &mut Reply<'_>) {
        self.execute(command, reply);
        self.hash = xxh3_64_with_seed(command, self.hash);
        self.hash = xxh3_64_with_seed(reply.kept(), self.hash);
    }

    fn hash(&self) -> u64 {
        self.hash
    }

    fn empty(&self) -> KvMachine {
        KvMachine::default()
    }

    fn begin_snapshot(&mut self) {
        self.snapshot_hash = Some(self.hash);
        self.values.begin_walk();
    }

    fn write_snapshot(&mut self, bytes_max: usize, out: &mut BytesMut) -> bool {
        if let Some(hash) = self.snapshot_hash.take() {
            out.put_u8(PIECE_HASH);
            out.put_u64_le(hash);
            return true;
        }
        out.put_u8(PIECE_ENTRIES);
        self.values.step_walk(bytes_max, out)
    }

    fn snapshot_bytes(&self) -> usize {
        self.values.saved_bytes()
    }

    fn end_snapshot(&mut self) {
        self.snapshot_hash = None;
        self.values.end_walk();
    }

    fn restore(&mut self, piece: &[u8]) -> bool {
        match piece.split_first() {
            Some((&PIECE_HASH, hash)) => match hash.try_into() {
                Ok(hash) => {
                    self.hash = u64::from_le_bytes(hash);
                    true
                }
                Err(_) => false,
            },
            Some((&PIECE_ENTRIES, entries)) => self.values.restore(entries),
            Some(_) | None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn run(machine: &mut KvMachine, command: &KvCommand<'_>) -> KvReply {
        let mut reply = BytesMut::new();
        let command = command.encode().expect("the key is short");
        machine.apply(&command, &mut Reply::new(&mut reply, 1 << 20));
        KvReply::decode(reply.freeze()).expect("replies decode")
    }

    #[derive(Clone, Debug)]
    enum Op {
        Get(u8),
        Put(u8, Vec<u8>),
        Delete(u8),
        Cas(u8, Option<Vec<u8>>, Vec<u8>),
    }

    fn op() -> impl Strategy<Value = Op> {
        let key = 0u8..4;
        let value = || proptest::collection::vec(0u8..3, 0..3);
        prop_oneof![
            key.clone().prop_map(Op::Get),
            (key.clone(), value()).prop_map(|(k, v)| Op::Put(k, v)),
            key.clone().prop_map(Op::Delete),
            (key, proptest::option::of(value()), value()).prop_map(|(k, e, v)| Op::Cas(k, e, v)),
        ]
    }

    fn oracle(map: &mut BTreeMap<u8, Vec<u8>>, op: &Op) -> KvReply {
        match op {
            Op::Get(key) => match map.get(key) {
                Some(value) => KvReply::Value(value.clone().into()),
                None => KvReply::NotFound,
            },
            Op::Put(key, value) => {
                map.insert(*key, value.clone());
                KvReply::Done
            }
            Op::Delete(key) => match map.remove(key) {
                Some(_) => KvReply::Done,
                None => KvReply::NotFound,
            },
            Op::Cas(key, expected, value) => {
                if map.get(key) == expected.as_ref() {
                    map.insert(*key, value.clone());
                    KvReply::Done
                } else {
                    KvReply::Mismatch(map.get(key).map(|value| value.clone().into()))
                }
            }
        }
    }

    proptest! {
        #[test]
        fn behaves_like_a_map(ops in proptest::collection::vec(op(), 0..60)) {
            let mut machine = KvMachine::default();
            let mut map = BTreeMap::new();
            for op in &ops {
                let (key, expected, value);
                let command = match op {
                    Op::Get(k) => { key = [*k]; KvCommand::Get { key: &key } }
                    Op::Put(k, v) => { key = [*k]; value = v.clone(); KvCommand::Put { key: &key, value: &value } }
                    Op::Delete(k) => { key = [*k]; KvCommand::Delete { key: &key } }
                    Op::Cas(k, e, v) => {
                        key = [*k]; expected = e.clone(); value = v.clone();
                        KvCommand::Cas { key: &key, expected: expected.as_deref(), value: &value }
                    }
                };
                prop_assert_eq!(run(&mut machine, &command), oracle(&mut map, op));
            }
            prop_assert_eq!(machine.len(), map.len());
        }

        #[test]
        fn any_bytes_are_a_command_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Some(command) = KvCommand::decode(&bytes) {
                prop_assert_eq!(&command.encode().expect("the key is short")[..], &bytes[..]);
            }
            let mut machine = KvMachine::default();
            let mut reply = BytesMut::new();
            machine.apply(&bytes, &mut Reply::new(&mut reply, 1 << 20));
            prop_assert!(KvReply::decode(reply.freeze()).is_some());
        }
    }
}
