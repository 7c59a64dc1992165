//! A hash chain over the commands: what replication costs when the application costs nothing.

use bytes::{BufMut, BytesMut};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::reply::Reply;
use crate::seams::StateMachine;

/// Each command's hash is seeded with the hash so far, so that order counts. Replies are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogMachine {
    hash: u64,
    /// The hash at the start of a snapshot, until it is written.
    snapshot: Option<u64>,
}

impl StateMachine for LogMachine {
    fn apply(&mut self, command: &[u8], _reply: &mut Reply<'_>) {
        self.hash = xxh3_64_with_seed(command, self.hash);
    }

    fn hash(&self) -> u64 {
        self.hash
    }

    fn empty(&self) -> LogMachine {
        LogMachine::default()
    }

    fn begin_snapshot(&mut self) {
        self.snapshot = Some(self.hash);
    }

    fn write_snapshot(&mut self, _bytes_max: usize, out: &mut BytesMut) -> bool {
        out.put_u64_le(self.snapshot.take().unwrap_or(self.hash));
        false
    }

    fn snapshot_bytes(&self) -> usize {
        0
    }

    fn end_snapshot(&mut self) {
        self.snapshot = None;
    }

    fn restore(&mut self, piece: &[u8]) -> bool {
        match piece.try_into() {
            Ok(hash) => {
                self.hash = u64::from_le_bytes(hash);
                true
            }
            Err(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash_of(commands: &[&[u8]]) -> u64 {
        let mut machine = LogMachine::default();
        let mut reply = BytesMut::new();
        for command in commands {
            machine.apply(command, &mut Reply::new(&mut reply, 100));
        }
        assert!(reply.is_empty());
        machine.hash()
    }

    #[test]
    fn order_repetition_and_content_all_show_in_the_hash() {
        let base = hash_of(&[b"a", b"b"]);
        assert_eq!(base, hash_of(&[b"a", b"b"]));
        assert_ne!(base, hash_of(&[b"b", b"a"]));
        assert_ne!(base, hash_of(&[b"a", b"b", b"b"]));
        assert_ne!(base, hash_of(&[b"a", b"c"]));
    }
}
