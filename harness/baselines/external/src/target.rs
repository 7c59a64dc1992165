//! The systems behind one face: connect, write, ask for the leader, read everything back.

#[cfg(feature = "etcd")]
pub mod etcd;
pub mod nats;
pub mod zookeeper;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use tokio::time::{Instant, sleep, timeout};

use crate::cli::{ClusterArguments, WaitArguments};
use crate::system::System;
use crate::values::Stamp;

/// A server that runs answers a question about its state well within this.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// The name of everything that is written: prefix, root, stream.
const NAME: &str = "synod";

/// Its client library generates code from the protocol's description, which takes a compiler of its own.
#[cfg(not(feature = "etcd"))]
pub fn without_etcd() -> anyhow::Error {
    crate::program::Missing(
        "protoc was not there when the adapter was built: apt-get install protobuf-compiler libprotobuf-dev".into(),
    )
    .into()
}

/// A cluster, and what this load calls its own in it.
#[derive(Clone, Debug)]
pub struct Cluster {
    pub addresses: Vec<SocketAddr>,
    /// Tells this load's writes from those of any before.
    pub run: u64,
    pub clients: u32,
    pub payload_bytes: u32,
}

/// Bits of a tag that number the client.
const CLIENT_BITS: u32 = 16;

impl Cluster {
    /// What the values of a client are stamped with.
    pub fn tag(&self, client: u32) -> u64 {
        (self.run << CLIENT_BITS) | u64::from(client)
    }

    /// The client that stamped a value, if it was one of this load.
    pub fn client(&self, stamp: Stamp) -> Option<u32> {
        let client = (stamp.tag & ((1 << CLIENT_BITS) - 1)) as u32;
        let ours = stamp.tag >> CLIENT_BITS == self.run & (u64::MAX >> CLIENT_BITS);
        (ours && client < self.clients).then_some(client)
    }

    fn urls(&self, scheme: &str) -> Vec<String> {
        urls(scheme, &self.addresses)
    }
}

fn urls(scheme: &str, addresses: &[SocketAddr]) -> Vec<String> {
    addresses
        .iter()
        .map(|address| format!("{scheme}://{address}"))
        .collect()
}

/// How many keys a system's writes go to.
#[derive(Clone, Copy, Debug)]
pub enum KeySpace {
    Unique,
    /// This many per client.
    Bounded(u64),
}

/// One connection of a load, through the system's own client library.
pub trait Target: Sized + 'static {
    async fn connect(cluster: &Cluster, client: u32) -> anyhow::Result<Self>;

    fn key_space(cluster: &Cluster) -> KeySpace;

    /// One attempt. One that fails may have happened all the same.
    async fn write(&self, key: u64, value: Bytes) -> anyhow::Result<()>;

    /// Calls `found` with the key and the stamp of every value that is there now.
    async fn read_back(cluster: &Cluster, found: &mut impl FnMut(u64, Stamp))
    -> anyhow::Result<()>;
}

/// Returns when the cluster serves, or fails with why it did not at the end.
pub async fn wait(arguments: &WaitArguments) -> anyhow::Result<()> {
    let until = Instant::now() + Duration::from_secs(u64::from(arguments.seconds));
    let cluster = &arguments.cluster;
    let name = cluster.system.name();
    loop {
        let attempt = timeout(ANSWER_MAX * 2, serve_one(cluster)).await;
        let error = match attempt {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => error,
            Err(_) => anyhow::anyhow!("no answer"),
        };
        if Instant::now() >= until {
            return Err(error.context(format!("{name} did not serve in time")));
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// Every server follows one leader, and a write succeeds.
async fn serve_one(cluster: &ClusterArguments) -> anyhow::Result<()> {
    let addresses = &cluster.addresses;
    match cluster.system {
        #[cfg(feature = "etcd")]
        System::Etcd => etcd::serve_one(addresses).await,
        #[cfg(not(feature = "etcd"))]
        System::Etcd => Err(without_etcd()),
        System::Zookeeper => zookeeper::serve_one(addresses).await,
        System::Nats | System::NatsDefault => nats::serve_one(addresses).await,
    }
}

pub async fn print_leader(cluster: &ClusterArguments) -> anyhow::Result<()> {
    let addresses = &cluster.addresses;
    let leader = match cluster.system {
        #[cfg(feature = "etcd")]
        System::Etcd => etcd::leader(addresses).await,
        #[cfg(not(feature = "etcd"))]
        System::Etcd => Err(without_etcd()),
        System::Zookeeper => zookeeper::leader(addresses).await,
        System::Nats | System::NatsDefault => nats::leader(addresses).await,
    };
    let leader = leader.with_context(|| format!("{}: no leader", cluster.system.name()))?;
    println!("{leader}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_values_of_this_load_have_a_client() {
        let cluster = |run| Cluster {
            addresses: Vec::new(),
            run,
            clients: 3,
            payload_bytes: 128,
        };
        let stamp = |cluster: &Cluster, client| Stamp {
            tag: cluster.tag(client),
            number: 1,
        };
        let (ours, other) = (cluster(u64::MAX - 1), cluster(5));
        assert_eq!(ours.client(stamp(&ours, 2)), Some(2));
        assert_eq!(ours.client(stamp(&ours, 3)), None, "there are three");
        assert_eq!(ours.client(stamp(&other, 2)), None);
        assert_eq!(other.client(stamp(&other, 0)), Some(0));
    }
}
