//! QUIC between replicas and towards clients: links, the client gateway, and the client library.
//!
//! Everything runs on one current-thread tokio runtime per process: hand-overs between tasks are uncontended
//! mutexes and wake-ups of the same thread.

// Only `harness` speaks to people, and without waiting for them.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

mod address;
mod authority;
mod backoff;
mod certificate;
mod certificates;
pub mod client;
mod clock;
mod close;
mod congestion;
mod counters;
mod door;
mod drops;
mod endpoint;
mod first_packets;
mod frame;
mod gateway;
mod handshake;
mod hello;
mod holder;
mod identity;
mod inbox;
mod limits;
mod link;
mod lookup;
mod mesh;
mod network;
mod notices;
mod outqueue;
mod path;
mod raw;
mod reader;
mod renewal;
mod socket;
mod tls;
mod total;
mod trains;
mod verifiers;

use std::net::SocketAddr;

use synod_engine::ids::{ClusterId, ReplicaId};

pub use address::Address;
pub use authority::Life;
pub use certificate::{Certificate, Fingerprint, Revoked};
pub use certificates::{AuthorityKey, CertificateSet, certificates_in, make_certificates};
pub use client::{Client, ClientConfig, ClientCounters, ClientError};
pub use clock::Clock;
pub use endpoint::{CONNECTION_BYTES_MAX, MTU_MIN};
pub use first_packets::{FirstPackets, Flood};
pub use hello::PROTOCOL_VERSION;
pub use holder::{ClientIdentity, Holder};
pub use identity::{Identity, IdentityError, replica_name};
pub use inbox::{Inbox, InboxShared};
pub use limits::{Limits, memory_budget};
pub use lookup::{Family, Resolver};
pub use network::{QuicNetwork, start};
pub use path::mtu_of_paths;
pub use raw::RawClient;
pub use renewal::Renewal;

/// The largest UDP payload that discovery looks for by default: an Ethernet jumbo frame of 9,000 bytes less headers,
/// rounded down. On a path with smaller frames discovery settles lower by itself.
pub const MTU_MAX_DEFAULT: u16 = 8_952;

/// What one replica's transport needs to know.
#[derive(Clone, Debug)]
pub struct TransportConfig {
    pub cluster: ClusterId,
    pub replica: ReplicaId,
    pub listen: SocketAddr,
    /// Every other replica of the cluster.
    pub peers: Vec<(ReplicaId, Address)>,
    /// Finds what is behind names.
    pub resolver: Resolver,
    pub identity: Identity,
    pub mtu_max: u16,
    pub limits: Limits,
    /// Of the jitter in reconnect delays.
    pub seed: u64,
}

/// The configuration cannot work.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    #[error(
        "cannot listen on UDP {address}: {source} (choose another address, or stop the process that uses it)"
    )]
    Bind {
        address: SocketAddr,
        source: std::io::Error,
    },
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("the TLS library refuses the certificates: {0}")]
    Tls(#[from] rustls::Error),
    #[error("mtu_max is {mtu_max}, but QUIC needs at least {MTU_MIN}: raise it")]
    MtuMax { mtu_max: u16 },
    #[error("replica {} appears twice, or is 0 or over 15: every replica needs its own id from 1 to 15", .0.0)]
    ReplicaIds(ReplicaId),
}
