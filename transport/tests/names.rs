//! Names instead of addresses: looked up when somebody dials, and again when that fails.

mod common;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use common::{Cluster, counter, linked, until};
use synod_engine::ids::ReplicaId;
use synod_transport::{Limits, Resolver, TransportConfig, start};

/// What a name leads to, as the test says; nothing is an error.
#[derive(Clone, Default)]
struct Hosts(Arc<Mutex<Vec<IpAddr>>>);

impl Hosts {
    fn set(&self, all: &[&str]) {
        let all = all.iter().map(|ip| ip.parse().expect("an IP address"));
        *self.0.lock().expect("a cell") = all.collect();
    }

    fn resolver(&self) -> Resolver {
        let hosts = self.clone();
        Resolver::new(move |host, port| {
            assert_eq!(host, "two.test");
            let all = hosts.0.lock().expect("a cell").clone();
            match all.is_empty() {
                true => Err(io::Error::other("no such name")),
                false => Ok(all
                    .into_iter()
                    .map(|ip| SocketAddr::new(ip, port))
                    .collect()),
            }
        })
    }
}

/// Replica 1, which knows replica 2 by name.
fn by_name(cluster: &Cluster, hosts: &Hosts) -> TransportConfig {
    let mut config = cluster.config(1, Limits::default());
    let name = format!("two.test:{}", cluster.address(2).port());
    config.peers = vec![(ReplicaId(2), name.parse().expect("a name"))];
    config.resolver = hosts.resolver();
    config
}

#[tokio::test]
async fn a_name_that_nobody_knows_yet_is_asked_for_again() {
    let (cluster, hosts) = (Cluster::new(2), Hosts::default());
    let (one, _inbox_one) = start(by_name(&cluster, &hosts)).expect("it starts all the same");
    let (two, _inbox_two) = cluster.start(2);
    until("it fails", || counter(&one, "handshake_failures") >= 2).await;
    assert_eq!(one.links_up(), 0);
    hosts.set(&["127.0.0.1"]);
    linked(&one, 1).await;
    linked(&two, 1).await;
}

#[tokio::test]
async fn every_address_behind_a_name_is_tried() {
    let (cluster, hosts) = (Cluster::new(2), Hosts::default());
    // One that the socket cannot reach, one where nobody is, and the right one.
    hosts.set(&["fd00::1", "127.0.0.77", "127.0.0.1"]);
    let (one, _inbox_one) = start(by_name(&cluster, &hosts)).expect("it starts");
    let (_two, _inbox_two) = cluster.start(2);
    linked(&one, 1).await;
}

#[tokio::test]
async fn a_peer_that_comes_back_under_another_address_is_found() {
    let (cluster, hosts) = (Cluster::new(2), Hosts::default());
    hosts.set(&["127.0.0.1"]);
    let (one, _inbox_one) = start(by_name(&cluster, &hosts)).expect("it starts");
    let (two, inbox_two) = cluster.start(2);
    linked(&one, 1).await;
    let mut client = cluster.client(1);
    client.replicas = by_name(&cluster, &hosts).peers;
    client.resolver = hosts.resolver();
    let client = synod_transport::Client::observe(client).expect("a client");

    two.close().await;
    drop(inbox_two);
    until("the link is down", || one.links_up() == 0).await;
    let mut moved = cluster.config(2, Limits::default());
    moved
        .listen
        .set_ip("127.0.0.2".parse().expect("an IP address"));
    let (two, _inbox_two) = start(moved).expect("another address");
    hosts.set(&["127.0.0.2"]);
    linked(&one, 1).await;
    until("the client comes too", || {
        counter(&two, "gateway_accepted") >= 1
    })
    .await;
    drop(client);
}
