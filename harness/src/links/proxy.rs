//! UDP between the replicas passes through this process, which does to it what networks do. It needs no privileges.
//!
//! Each ordered pair of replicas has an address of its own, `127.1.FROM.TO`: there FROM finds TO. What comes in from
//! FROM goes on to TO's real address, and leaves from the address of the opposite pair, so that for TO it comes from
//! where TO finds FROM. A replica has one socket for dialling and accepting, so no flows need to be told apart.

mod course;
mod link;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context;
use synod_engine::ids::ReplicaId;
use tokio::net::UdpSocket;
use tokio::task::JoinSet;

pub use course::Course;
pub use link::{Achieved, Counts};
use link::{Link, Pair};

use crate::chaos::random::Random;

/// What the kernel may hold for one socket: a burst must not be lost here, where nobody asked for loss.
const SOCKET_BUFFER_BYTES: usize = 4 << 20;

/// What happens to the datagrams of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weather {
    /// Nothing arrives.
    pub cut: bool,
    /// In parts per million, of datagrams.
    pub loss_ppm: u32,
    pub duplicate_percent: u8,
    pub delay: Duration,
    /// Up to this much more, at random: unless `in_order`, what is sent close together arrives in another order.
    pub jitter: Duration,
    /// Jitter and bandwidth never let anything overtake what was sent before it.
    pub in_order: bool,
    /// In parts per million: datagrams that do not wait for `delay`, so that they overtake others.
    pub reorder_ppm: u32,
    /// What comes faster waits for its turn.
    pub bytes_per_s: Option<u64>,
    /// For this long at most: what would wait longer is dropped. `None`: until the link's memory is full.
    pub queue_max: Option<Duration>,
    /// Everything waits until this ends.
    pub clogged: bool,
}

pub struct Proxy {
    links: BTreeMap<(ReplicaId, ReplicaId), Rc<Link>>,
    addresses: BTreeMap<(ReplicaId, ReplicaId), SocketAddr>,
}

impl Proxy {
    /// Binds every pair's address. `replicas` are the real ones.
    pub fn bind(replicas: &[(ReplicaId, SocketAddr)], seed: u64) -> anyhow::Result<Proxy> {
        let mut sockets = BTreeMap::new();
        for (from, to) in pairs(replicas) {
            let wanted = SocketAddr::from(([127, 1, from.0.0, to.0.0], 0));
            let socket = bind(wanted).with_context(|| format!("no UDP socket at {wanted}"))?;
            sockets.insert((from.0, to.0), Rc::new(socket));
        }
        let mut links = BTreeMap::new();
        let mut addresses = BTreeMap::new();
        for (from, to) in pairs(replicas) {
            let arrival = Rc::clone(&sockets[&(from.0, to.0)]);
            addresses.insert((from.0, to.0), arrival.local_addr()?);
            let pair = Pair {
                arrival,
                from: from.1,
                departure: Rc::clone(&sockets[&(to.0, from.0)]),
                to: to.1,
            };
            let stream = u64::from(from.0.0) << 8 | u64::from(to.0.0);
            let link = Link::new(pair, Random::new(seed, stream << 8))?;
            links.insert((from.0, to.0), Rc::new(link));
        }
        Ok(Proxy { links, addresses })
    }

    /// Where `from` finds `to`.
    pub fn address(&self, from: ReplicaId, to: ReplicaId) -> SocketAddr {
        self.addresses[&(from, to)]
    }

    /// Forwards until dropped. Has to be called within a `LocalSet`.
    pub async fn run(&self) -> anyhow::Result<()> {
        let mut tasks = JoinSet::new();
        for link in self.links.values() {
            let link = Rc::clone(link);
            tasks.spawn_local(async move { link.run().await });
        }
        match tasks.join_next().await {
            Some(ended) => ended.context("a link of the fault proxy panicked")?,
            // A cluster of one has no links.
            None => std::future::pending().await,
        }
    }

    /// Sets what happens from `from` to `to` from now on.
    pub fn set(&self, from: ReplicaId, to: ReplicaId, weather: Weather) {
        self.links[&(from, to)].set(weather);
    }

    /// Every link is as good as new.
    pub fn heal(&self) {
        for link in self.links.values() {
            link.set(Weather::default());
        }
    }

    /// Of one link, since the start.
    pub fn counts_of(&self, link: (ReplicaId, ReplicaId)) -> Counts {
        self.links[&link].counts()
    }

    /// How long what passed each link was on its way.
    pub fn achieved(&self) -> BTreeMap<(ReplicaId, ReplicaId), Achieved> {
        let links = self.links.iter();
        links.map(|(id, link)| (*id, link.achieved())).collect()
    }

    /// Summed over all links, since the start.
    pub fn counts(&self) -> Counts {
        let each = self.links.values().map(|link| link.counts());
        each.fold(Counts::default(), Counts::plus)
    }
}

type Replica = (ReplicaId, SocketAddr);

fn pairs(replicas: &[Replica]) -> impl Iterator<Item = (Replica, Replica)> {
    replicas.iter().flat_map(move |from| {
        let others = replicas.iter().filter(move |to| to.0 != from.0);
        others.map(move |to| (*from, *to))
    })
}

fn bind(address: SocketAddr) -> anyhow::Result<UdpSocket> {
    let socket = std::net::UdpSocket::bind(address)?;
    socket.set_nonblocking(true)?;
    rustix::net::sockopt::set_socket_recv_buffer_size(&socket, SOCKET_BUFFER_BYTES)?;
    rustix::net::sockopt::set_socket_send_buffer_size(&socket, SOCKET_BUFFER_BYTES)?;
    Ok(UdpSocket::from_std(socket)?)
}
