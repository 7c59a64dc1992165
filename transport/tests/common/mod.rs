//! A small cluster of transports on loopback, and waiting that cannot hang for ever.
#![allow(dead_code)] // Each test file uses a part.

use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use synod_engine::ids::{ClusterId, ReplicaId};
use synod_engine::seams::{Arrival, Frame, Network};
use synod_transport::{
    Address, AuthorityKey, ClientConfig, Identity, Inbox, Limits, MTU_MAX_DEFAULT, QuicNetwork,
    Resolver, TransportConfig, TransportError, make_certificates, start,
};

pub const CLUSTER: ClusterId = ClusterId(0x5e1f);

/// Only guards against hanging: no test measures time.
pub const HANG: Duration = Duration::from_secs(30);

pub struct Cluster {
    pub directory: tempfile::TempDir,
    pub addresses: Vec<(ReplicaId, SocketAddr)>,
}

impl Cluster {
    pub fn new(replicas: u8) -> Cluster {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let ids: Vec<ReplicaId> = (1..=replicas).map(ReplicaId).collect();
        make_certificates(directory.path(), CLUSTER, &ids, AuthorityKey::Kept)
            .expect("certificates");
        Cluster {
            directory,
            addresses: free_addresses(&ids),
        }
    }

    pub fn address(&self, replica: u8) -> SocketAddr {
        self.addresses[usize::from(replica) - 1].1
    }

    pub fn config(&self, replica: u8, limits: Limits) -> TransportConfig {
        let id = ReplicaId(replica);
        let peers = self.addresses.iter().filter(|(peer, _)| *peer != id);
        TransportConfig {
            cluster: CLUSTER,
            replica: id,
            listen: self.address(replica),
            peers: peers.map(|(peer, at)| (*peer, (*at).into())).collect(),
            resolver: Resolver::default(),
            identity: identity(self.directory.path(), &format!("replica-{replica}")),
            mtu_max: MTU_MAX_DEFAULT,
            limits,
            seed: u64::from(replica),
        }
    }

    pub fn start(&self, replica: u8) -> (QuicNetwork, Inbox) {
        self.start_with(replica, Limits::default())
            .expect("the transport starts")
    }

    pub fn start_with(
        &self,
        replica: u8,
        limits: Limits,
    ) -> Result<(QuicNetwork, Inbox), TransportError> {
        start(self.config(replica, limits))
    }

    pub fn client(&self, seed: u64) -> ClientConfig {
        ClientConfig {
            cluster: CLUSTER,
            replicas: addressed(&self.addresses),
            resolver: Resolver::default(),
            identity: identity(self.directory.path(), "client"),
            deadline: HANG,
            outstanding_max: 4096,
            mtu_max: MTU_MAX_DEFAULT,
            seed,
        }
    }
}

pub fn addressed(addresses: &[(ReplicaId, SocketAddr)]) -> Vec<(ReplicaId, Address)> {
    let each = addresses.iter();
    each.map(|(id, at)| (*id, (*at).into())).collect()
}

pub fn identity(directory: &Path, who: &str) -> Identity {
    let file = |name: String| directory.join(name);
    Identity::load(
        &file("ca.pem".to_owned()),
        &file(format!("{who}.pem")),
        &file(format!("{who}.key")),
    )
    .expect("an identity")
}

/// Ports that were free a moment ago. Replicas need to know each other's before they start.
fn free_addresses(ids: &[ReplicaId]) -> Vec<(ReplicaId, SocketAddr)> {
    let held: Vec<UdpSocket> = ids
        .iter()
        .map(|_| UdpSocket::bind("127.0.0.1:0").expect("a free port"))
        .collect();
    let address = |socket: &UdpSocket| socket.local_addr().expect("bound");
    ids.iter().copied().zip(held.iter().map(address)).collect()
}

/// A frame whose content is `length` bytes beginning with `number`.
pub fn frame(number: u64, length: usize) -> Frame {
    let mut head = BytesMut::new();
    head.put_u32_le((8 + length) as u32);
    head.put_u64_le(number);
    Frame {
        head: head.freeze(),
        body: Bytes::from(vec![number as u8; length]),
    }
}

/// The number of a frame made by [`frame`], its content checked.
pub fn number(content: &Bytes) -> u64 {
    let number = u64::from_le_bytes(content[..8].try_into().expect("eight bytes"));
    assert!(
        content[8..].iter().all(|byte| *byte == number as u8),
        "frame {number} is damaged"
    );
    number
}

pub fn counter(network: &QuicNetwork, name: &str) -> u64 {
    let mut found = None;
    network.counters(&mut |each, value| {
        if each == name {
            found = Some(value);
        }
    });
    found.unwrap_or_else(|| panic!("there is no counter {name}"))
}

pub async fn guard<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(HANG, work)
        .await
        .unwrap_or_else(|_| panic!("hangs: {what}"))
}

pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    guard(what, async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

/// Waits until `network` is linked to `peers` peers.
pub async fn linked(network: &QuicNetwork, peers: usize) {
    until("the links come up", || network.links_up() == peers).await;
}

/// Drains until `enough` of what came is there.
pub async fn receive(inbox: &mut Inbox, enough: impl Fn(&[Arrival]) -> bool) -> Vec<Arrival> {
    let mut arrivals = Vec::new();
    guard("arrivals", async {
        while !enough(&arrivals) {
            inbox.notified().await;
            inbox.drain(&mut arrivals);
        }
    })
    .await;
    arrivals
}
