//! Replica links over real UDP.

mod common;

use std::time::Duration;

use common::{Cluster, counter, frame, linked, number, receive, until};
use synod_engine::ids::ReplicaId;
use synod_engine::seams::{Arrival, Lane, Network};
use synod_transport::{Inbox, Limits, QuicNetwork, TransportError};

const ONE: ReplicaId = ReplicaId(1);
const TWO: ReplicaId = ReplicaId(2);

/// Sends frames until one arrives: those sent before a link is up, or while it breaks, are dropped.
async fn reach(from: &mut QuicNetwork, to: ReplicaId, inbox: &mut Inbox) {
    let mut arrivals = Vec::new();
    common::guard("a frame gets through", async {
        while !arrivals
            .iter()
            .any(|arrival| matches!(arrival, Arrival::Peer { .. }))
        {
            from.send(to, Lane::Control, frame(0, 10));
            from.flush();
            tokio::time::sleep(Duration::from_millis(5)).await;
            inbox.drain(&mut arrivals);
        }
    })
    .await;
}

#[tokio::test]
async fn frames_arrive_in_order_on_every_lane_and_whole() {
    let cluster = Cluster::new(2);
    let (mut one, _inbox_one) = cluster.start(1);
    let (two, mut inbox) = cluster.start(2);
    linked(&one, 1).await;
    linked(&two, 1).await;
    const FRAMES: u64 = 300;
    // The lane of a frame can be told by its number.
    let lane_of = |number: u64| Lane::ALL[(number % 3) as usize];
    for number in 0..FRAMES {
        let length = [0, 20, 5_000, 60_000][(number / 3 % 4) as usize];
        let length = if lane_of(number) == Lane::Control {
            length / 100
        } else {
            length
        };
        one.send(TWO, lane_of(number), frame(number, length));
        if number % 7 == 0 {
            one.flush();
        }
    }
    one.flush();
    let arrivals = receive(&mut inbox, |arrivals| arrivals.len() as u64 == FRAMES).await;
    for lane in 0..3 {
        let numbers: Vec<u64> = arrivals
            .iter()
            .map(|arrival| match arrival {
                Arrival::Peer { from: ONE, frame } => number(frame),
                other => panic!("unexpected: {other:?}"),
            })
            .filter(|number| number % 3 == lane)
            .collect();
        let expected: Vec<u64> = (0..FRAMES).filter(|number| number % 3 == lane).collect();
        assert_eq!(numbers, expected);
    }
    assert_eq!(counter(&one, "link_dropped_frames"), 0);
}

/// The process dies without a word, and comes back at the same address.
async fn restart(restarted: u8) {
    let cluster = Cluster::new(2);
    let stays = 3 - restarted;
    let (mut network, mut inbox) = cluster.start(stays);
    let (kill, killed) = tokio::sync::oneshot::channel::<()>();
    let config = cluster.config(restarted, Limits::default());
    let dies = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let dies = runtime.block_on(async {
            let dies = synod_transport::start(config).expect("the transport starts");
            killed.await.expect("the test goes on");
            dies
        });
        // Without its runtime nothing is sent any more, not even a farewell.
        drop(runtime);
        drop(dies);
    });
    linked(&network, 1).await;
    kill.send(()).expect("it lives");
    dies.join().expect("no panic");

    let (mut again, mut inbox_again) = cluster.start(restarted);
    reach(&mut network, ReplicaId(restarted), &mut inbox_again).await;
    reach(&mut again, ReplicaId(stays), &mut inbox).await;
    assert!(counter(&network, "link_reconnects") >= 1);
    if restarted > stays {
        // The dialler did not have to wait for a timeout.
        assert_eq!(counter(&network, "link_resets"), 1);
    }
}

#[tokio::test]
async fn a_peer_that_dials_is_linked_again_after_a_crash() {
    restart(1).await;
}

#[tokio::test]
async fn a_peer_that_is_dialled_is_linked_again_after_a_crash() {
    restart(2).await;
}

#[tokio::test]
async fn a_peer_that_starts_later_is_linked() {
    let cluster = Cluster::new(2);
    let (mut one, _inbox_one) = cluster.start(1);
    until("an attempt to connect fails", || {
        counter(&one, "handshake_failures") > 0
    })
    .await;
    let (_two, mut inbox) = cluster.start(2);
    reach(&mut one, TWO, &mut inbox).await;
}

/// Trap 29: heartbeats stuck behind data cause needless elections.
#[tokio::test]
async fn control_overtakes_data_and_bulk_that_stand_still() {
    let cluster = Cluster::new(2);
    let (mut one, _inbox_one) = cluster.start(1);
    let limits = Limits {
        inbox_peer_bytes_max: 100_000,
        ..Limits::default()
    };
    let (two, mut inbox) = cluster.start_with(2, limits).expect("it starts");
    linked(&one, 1).await;
    linked(&two, 1).await;
    // More than all windows together hold.
    for number in 0..150 {
        one.send(TWO, Lane::Data, frame(number, 100_000));
        one.send(TWO, Lane::Bulk, frame(number, 100_000));
    }
    one.flush();
    // Nobody drains the inbox of replica 2, so both readers stop.
    until("data and bulk stand still", || {
        counter(&two, "inbox_peer_waits") == 2
    })
    .await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    // More than one: a reader that waits for room takes in what it asked for before.
    for number in 1..=3 {
        one.send(TWO, Lane::Control, frame(7, 10));
        one.flush();
        until("control arrives", || {
            counter(&two, "control_received_frames") == number
        })
        .await;
    }

    let mut arrivals = Vec::new();
    inbox.drain(&mut arrivals);
    assert!(
        matches!(&arrivals[0], Arrival::Peer { frame, .. } if number(frame) == 7),
        "control comes first out of the inbox too"
    );
    assert!(arrivals.len() < 300, "data was not held back");
    // And once the inbox is drained, everything else follows.
    let rest = receive(&mut inbox, |rest| rest.len() + arrivals.len() == 303).await;
    assert!(!rest.is_empty());
}

/// Trap 30: a slow follower must not make the leader's memory grow.
#[tokio::test]
async fn a_full_queue_drops_and_counts() {
    let cluster = Cluster::new(2);
    let limits = Limits {
        data_queue_bytes_max: 1_000_000,
        ..Limits::default()
    };
    let (mut one, _inbox_one) = cluster.start_with(1, limits).expect("it starts");
    let (_two, mut inbox) = cluster.start(2);
    linked(&one, 1).await;
    // No task runs in between, so nothing leaves the queue.
    for number in 0..20 {
        one.send(TWO, Lane::Data, frame(number, 99_980));
    }
    one.flush();
    assert_eq!(counter(&one, "link_full_frames"), 10);
    assert_eq!(counter(&one, "link_dropped_frames"), 10);
    assert_eq!(counter(&one, "data_sent_frames"), 10);
    // What was dropped leaves no gap in what was not.
    let arrivals = receive(&mut inbox, |arrivals| arrivals.len() == 10).await;
    for (expected, arrival) in (0..).zip(&arrivals) {
        assert!(matches!(arrival, Arrival::Peer { frame, .. } if number(frame) == expected));
    }
}

#[tokio::test]
async fn frames_to_an_unreachable_peer_are_dropped_and_counted() {
    let cluster = Cluster::new(2);
    let (mut one, _inbox) = cluster.start(1);
    for number in 0..10 {
        one.send(TWO, Lane::Data, frame(number, 10));
    }
    one.flush();
    assert_eq!(counter(&one, "link_dropped_frames"), 10);
}

#[tokio::test]
async fn a_frame_over_the_limit_closes_the_connection_and_the_link_recovers() {
    let cluster = Cluster::new(2);
    let (mut one, _inbox_one) = cluster.start(1);
    let limits = Limits {
        frame_bytes_max: 10_000,
        ..Limits::default()
    };
    let (two, mut inbox) = cluster.start_with(2, limits).expect("it starts");
    linked(&one, 1).await;
    one.send(TWO, Lane::Data, frame(1, 10_001));
    one.flush();
    until("the violation is noticed", || {
        counter(&two, "protocol_violations") == 1
    })
    .await;
    reach(&mut one, TWO, &mut inbox).await;
    assert_eq!(counter(&two, "data_received_frames"), 0);
}

#[tokio::test]
async fn garbage_datagrams_change_nothing() {
    let cluster = Cluster::new(2);
    let (mut one, mut inbox_one) = cluster.start(1);
    let (mut two, mut inbox_two) = cluster.start(2);
    linked(&one, 1).await;
    linked(&two, 1).await;
    let stranger = std::net::UdpSocket::bind("127.0.0.1:0").expect("a free port");
    for round in 0..2_000usize {
        // Short and long headers of QUIC, and anything else.
        let first = [0xc0, 0xff, 0x40, 0x00, round as u8][round % 5];
        let mut bytes: Vec<u8> = (0..round % 1_400)
            .map(|at| (at * 31 + round) as u8)
            .collect();
        bytes.insert(0, first);
        stranger
            .send_to(&bytes, cluster.address(1 + (round % 2) as u8))
            .expect("sent");
        if round % 50 == 0 {
            tokio::task::yield_now().await;
        }
    }
    reach(&mut one, TWO, &mut inbox_two).await;
    reach(&mut two, ONE, &mut inbox_one).await;
    for network in [&one, &two] {
        assert_eq!(counter(network, "link_reconnects"), 0);
        assert_eq!(counter(network, "protocol_violations"), 0);
        assert_eq!(counter(network, "links_up"), 1);
    }
}

#[tokio::test]
async fn a_closed_replica_says_so_and_frees_its_port() {
    let cluster = Cluster::new(2);
    let (one, _inbox_one) = cluster.start(1);
    let (two, _inbox_two) = cluster.start(2);
    linked(&one, 1).await;
    two.close().await;
    until("the link goes down", || one.links_up() == 0).await;
    let mut again = cluster.start_with(2, Limits::default());
    while again.is_err() {
        tokio::time::sleep(Duration::from_millis(10)).await;
        again = cluster.start_with(2, Limits::default());
    }
    linked(&one, 1).await;
}

#[tokio::test]
async fn misconfiguration_is_named() {
    let cluster = Cluster::new(2);
    let (_one, _inbox) = cluster.start(1);
    let taken = cluster
        .start_with(1, Limits::default())
        .err()
        .expect("the port is taken");
    assert!(matches!(taken, TransportError::Bind { .. }));
    assert!(
        taken.to_string().contains(&cluster.address(1).to_string()),
        "{taken}"
    );

    let mut twice = cluster.config(2, Limits::default());
    twice.peers.push((TWO, cluster.address(2).into()));
    let error = synod_transport::start(twice)
        .err()
        .expect("it is its own peer");
    assert!(matches!(error, TransportError::ReplicaIds(TWO)), "{error}");

    let mut tiny = cluster.config(2, Limits::default());
    tiny.mtu_max = 900;
    let error = synod_transport::start(tiny).err().expect("QUIC needs 1200");
    assert!(error.to_string().contains("mtu_max is 900"), "{error}");
}
