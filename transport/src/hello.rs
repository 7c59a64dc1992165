//! The first frame in each direction of every connection: who speaks, and which protocol.
//!
//! ```text
//! length u32 = 24 | kind u8 = 0x7e | magic 4 bytes "SYND" | version u16 | cluster u128 | replica u8
//! ```
//! `replica` is 0 for a client.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use synod_engine::ids::{ClusterId, ReplicaId};

/// Raised with every change of the wire format; only equal versions speak to each other.
pub const PROTOCOL_VERSION: u16 = 5;

const KIND: u8 = 0x7e;
const MAGIC: [u8; 4] = *b"SYND";
/// Content of a Hello, without the length prefix.
pub const HELLO_BYTES: usize = 24;

const _: () = assert!(HELLO_BYTES == 1 + 4 + 2 + 16 + 1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    pub cluster: ClusterId,
    /// `None` for a client.
    pub replica: Option<ReplicaId>,
}

/// Why a Hello is turned down. The text travels to the other side as the reason of the close.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HelloError {
    #[error("the first frame is not a Hello of Synod")]
    NotHello,
    #[error(
        "protocol version {theirs} does not match version {PROTOCOL_VERSION}: run the same release everywhere"
    )]
    Version { theirs: u16 },
    #[error(
        "cluster {theirs} does not match cluster {ours}: check the cluster id in the configuration"
    )]
    Cluster { ours: ClusterId, theirs: ClusterId },
    #[error(
        "{theirs} is not one of the peers that dial this replica: check the list of replicas in the configuration"
    )]
    Unknown { theirs: Peer },
    #[error(
        "the Hello comes from {theirs}, not from {expected}: check the addresses in the configuration"
    )]
    Replica { expected: Peer, theirs: Peer },
}

/// A replica or a client, in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer(pub Option<ReplicaId>);

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(replica) => write!(f, "replica {}", replica.0),
            None => write!(f, "a client"),
        }
    }
}

impl Hello {
    /// The whole frame, length prefix included.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(4 + HELLO_BYTES);
        out.put_u32_le(HELLO_BYTES as u32);
        out.put_u8(KIND);
        out.put_slice(&MAGIC);
        out.put_u16_le(PROTOCOL_VERSION);
        out.put_u128_le(self.cluster.0);
        out.put_u8(self.replica.map_or(0, |replica| replica.0));
        out.freeze()
    }

    /// Decodes a frame without its length prefix and checks version and cluster.
    pub fn decode(mut frame: Bytes, ours: ClusterId) -> Result<Hello, HelloError> {
        if frame.len() < 7 || frame[0] != KIND || frame[1..5] != MAGIC {
            return Err(HelloError::NotHello);
        }
        frame.advance(5);
        let theirs = frame.get_u16_le();
        if theirs != PROTOCOL_VERSION {
            return Err(HelloError::Version { theirs });
        }
        if frame.len() != HELLO_BYTES - 7 {
            return Err(HelloError::NotHello);
        }
        let cluster = ClusterId(frame.get_u128_le());
        if cluster != ours {
            return Err(HelloError::Cluster {
                ours,
                theirs: cluster,
            });
        }
        let replica = Some(frame.get_u8()).filter(|id| *id > 0).map(ReplicaId);
        Ok(Hello { cluster, replica })
    }

    pub fn expect(self, expected: Option<ReplicaId>) -> Result<Hello, HelloError> {
        if self.replica == expected {
            Ok(self)
        } else {
            Err(HelloError::Replica {
                expected: Peer(expected),
                theirs: Peer(self.replica),
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hello_survives_the_wire_and_mismatches_are_named() {
        let cluster = ClusterId(7);
        let hello = Hello {
            cluster,
            replica: Some(ReplicaId(3)),
        };
        let frame = hello.encode().slice(4..);
        assert_eq!(Hello::decode(frame.clone(), cluster), Ok(hello));

        let other = Hello::decode(frame.clone(), ClusterId(8)).expect_err("another cluster");
        assert!(
            other.to_string().contains("does not match cluster"),
            "{other}"
        );

        let mut newer = frame.to_vec();
        newer[5] = 9;
        assert_eq!(
            Hello::decode(newer.into(), cluster),
            Err(HelloError::Version { theirs: 9 })
        );
        for length in 0..frame.len() {
            assert_eq!(
                Hello::decode(frame.slice(..length), cluster),
                Err(HelloError::NotHello)
            );
        }
        let wrong = hello.expect(Some(ReplicaId(2))).expect_err("replica 3");
        assert!(wrong.to_string().contains("not from replica 2"), "{wrong}");
    }
}
