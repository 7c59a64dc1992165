//! Strangers at the door: first packets that never go on, and whom they must not lock out.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use common::{Cluster, counter, frame, linked, number, receive, until};
use synod_engine::ids::ReplicaId;
use synod_engine::seams::{Arrival, Lane, Network};
use synod_transport::{Client, Flood, Inbox, Limits, QuicNetwork};

const FLOOD_PER_S: u32 = 3_000;
/// A thousand places that each stranger holds for five seconds never have room for anybody else at this rate, and have it
/// again and again at the higher one, when all come and go at once.
const TRICKLE_PER_S: u32 = 300;
const FLOOD_PORTS: usize = 64;

/// A flood in a thread of its own, until it is dropped.
struct Strangers {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Strangers {
    fn at(to: std::net::SocketAddr, per_s: u32, salt: u32) -> Strangers {
        let over = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&over);
        let thread = std::thread::spawn(move || {
            let mut flood = Flood::new(to, FLOOD_PORTS, salt).expect("free ports");
            flood.run(per_s, || !seen.load(Ordering::Relaxed))
        });
        Strangers {
            over,
            thread: Some(thread),
        }
    }
}

impl Drop for Strangers {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the flood does not panic");
        }
    }
}

/// Sends a frame and waits until it is there.
async fn pass(from: &mut QuicNetwork, to: &mut Inbox, receiver: u8, sender: u8, mark: u64) {
    from.send(ReplicaId(receiver), Lane::Control, frame(mark, 16));
    from.flush();
    let mine = |arrival: &Arrival| match arrival {
        Arrival::Peer { from, frame } => from.0 == sender && number(frame) == mark,
        _ => false,
    };
    receive(to, |arrivals| arrivals.iter().any(mine)).await;
}

/// Starts a replica on a port that its former life gives back in a moment.
async fn again(cluster: &Cluster, replica: u8) -> (QuicNetwork, Inbox) {
    let mut started = None;
    until("the port is free", || {
        started = cluster.start_with(replica, Limits::default()).ok();
        started.is_some()
    })
    .await;
    started.expect("it started")
}

#[tokio::test]
async fn a_peer_that_restarts_gets_its_links_back_while_strangers_crowd_the_door() {
    let cluster = Cluster::new(3);
    let (one, _inbox_one) = cluster.start(1);
    let (mut two, _inbox_two) = cluster.start(2);
    let (three, mut inbox_three) = cluster.start(3);
    for network in [&one, &two, &three] {
        linked(network, 2).await;
    }
    let strangers = [
        Strangers::at(cluster.address(2), TRICKLE_PER_S, 2),
        Strangers::at(cluster.address(3), FLOOD_PER_S, 3),
    ];
    // As long as half-done handshakes once filled the table for.
    let flooded = Instant::now();
    let mut mark = 0;
    while flooded.elapsed() < Duration::from_millis(5_500) {
        mark += 1;
        pass(&mut two, &mut inbox_three, 3, 2, mark).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(counter(&three, "door_asked_for_proof") > 2_000);

    one.close().await;
    until("its links break", || two.links_up() == 1).await;
    let (one, _inbox_one) = again(&cluster, 1).await;
    let back = Instant::now();
    linked(&one, 2).await;
    let waited = back.elapsed();
    // Under the old door nobody came in for as long as the flood lasted.
    assert!(waited < Duration::from_secs(8), "{waited:?}");
    pass(&mut two, &mut inbox_three, 3, 2, mark + 1).await;
    assert_eq!(counter(&two, "link_reconnects"), 1, "of replica 1 alone");

    // And a client, whose address nobody knew before.
    let observer = Client::observe(cluster.client(7)).expect("a client");
    until("the client is let in", || {
        counter(&three, "gateway_accepted") >= 1
    })
    .await;
    drop((observer, strangers));
}

/// Places are given back: what the flood held is free for others a moment later.
#[tokio::test]
async fn a_handshake_that_does_not_go_on_ends() {
    let cluster = Cluster::new(1);
    let (one, _inbox) = cluster.start(1);
    let mut flood = Flood::new(cluster.address(1), 8, 1).expect("free ports");
    for _ in 0..8 {
        flood.send();
    }
    // Each of them got a place, and lost it for not going on.
    until("the handshakes are given up", || {
        counter(&one, "handshake_failures") >= 8
    })
    .await;
    assert_eq!(counter(&one, "door_asked_for_proof"), 0);
}
