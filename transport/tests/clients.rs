//! Gateway and client library over real UDP, against a state machine that gives commands back.

mod common;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::{BufMut, Bytes, BytesMut};
use common::{Cluster, counter, guard, until};
use synod_engine::client::{ClientMessage, Reason, Refused, Request, ServerMessage};
use synod_engine::ids::{Ballot, ClientId, CommandNumber, ReplicaId, SessionId};
use synod_engine::reply::{RepliesFrame, Scratch};
use synod_engine::seams::{Arrival, Network};
use synod_transport::{Client, ClientError, Inbox, Limits, QuicNetwork};

/// What a test turns while the replica runs in its task.
#[derive(Default)]
struct Switches {
    /// Takes nothing out of the inbox.
    stopped: AtomicBool,
    follows: AtomicBool,
    refused: AtomicU64,
    slow_clients: AtomicU64,
    over_limit: AtomicU64,
    accepted: AtomicU64,
    gone: AtomicU64,
}

/// The least that behaves like a replicated session table.
struct Echo {
    network: QuicNetwork,
    inbox: Inbox,
    switches: Arc<Switches>,
    expected: HashMap<SessionId, CommandNumber>,
}

fn leader(round: u64, replica: u8) -> Bytes {
    let replica = ReplicaId(replica);
    ServerMessage::Leader {
        ballot: Ballot { round, replica },
        leader: Some(replica),
    }
    .encode()
}

impl Echo {
    fn spawn((mut network, inbox): (QuicNetwork, Inbox), announcement: Bytes) -> Arc<Switches> {
        network.announce(announcement);
        let switches = Arc::new(Switches::default());
        let echo = Echo {
            network,
            inbox,
            switches: Arc::clone(&switches),
            expected: HashMap::new(),
        };
        tokio::spawn(echo.run());
        switches
    }

    async fn run(mut self) {
        let mut arrivals = Vec::new();
        loop {
            self.publish();
            if self.switches.stopped.load(Ordering::Relaxed) {
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
                continue;
            }
            // The switches are looked at even when nothing arrives.
            let tick = std::time::Duration::from_millis(5);
            let _ = tokio::time::timeout(tick, self.inbox.notified()).await;
            self.inbox.drain(&mut arrivals);
            for arrival in arrivals.drain(..) {
                match arrival {
                    Arrival::Client { client, frame } => {
                        let message = ClientMessage::decode(frame).expect("well-formed");
                        self.answer(client, message);
                    }
                    Arrival::ClientGone { .. } => {
                        self.switches.gone.fetch_add(1, Ordering::Relaxed);
                    }
                    Arrival::ClientNamed { .. } | Arrival::Peer { .. } => {}
                }
            }
            self.network.flush();
        }
    }

    fn publish(&self) {
        for (cell, name) in [
            (&self.switches.refused, "inbox_refused"),
            (&self.switches.slow_clients, "gateway_slow_clients"),
            (&self.switches.over_limit, "gateway_over_limit_clients"),
            (&self.switches.accepted, "gateway_accepted"),
        ] {
            cell.store(counter(&self.network, name), Ordering::Relaxed);
        }
    }

    fn answer(&mut self, client: ClientId, message: ClientMessage) {
        let reply = match message {
            ClientMessage::Open { token } if !self.follows() => {
                let session = SessionId(token + 1);
                self.expected.insert(session, CommandNumber(1));
                ServerMessage::Opened { token, session }.encode()
            }
            ClientMessage::Open { .. } => {
                refused(SessionId::NONE, CommandNumber(0), Reason::NotLeader)
            }
            ClientMessage::Request(request) => self.request(&request),
            ClientMessage::Attach { .. } => return,
            ClientMessage::Close { session } => ServerMessage::Closed { session }.encode(),
            ClientMessage::Status => {
                ServerMessage::StatusReply(vec![("answer".to_owned(), 42)]).encode()
            }
        };
        self.network.reply(client, reply);
    }

    fn request(&mut self, request: &Request) -> Bytes {
        // A leader that takes over knows every session; where it stands is what was not acknowledged yet.
        let expected = *self
            .expected
            .entry(request.session)
            .or_insert(request.acknowledged);
        if self.follows() {
            return refused(request.session, expected, Reason::NotLeader);
        }
        if request.first > expected {
            return refused(request.session, expected, Reason::Gap);
        }
        self.expected
            .insert(request.session, expected.max(request.end()));
        let mut scratch = Scratch::default();
        let mut replies = RepliesFrame::new(&mut scratch, request.session, request.first);
        for command in request.iter() {
            replies.push(|out| out.put_slice(command));
        }
        replies.finish()
    }

    fn follows(&self) -> bool {
        self.switches.follows.load(Ordering::Relaxed)
    }
}

fn refused(session: SessionId, expected: CommandNumber, reason: Reason) -> Bytes {
    ServerMessage::Refused(Refused {
        session,
        expected,
        reason,
    })
    .encode()
}

fn run_of(first: u64, count: u32, pad: usize) -> Bytes {
    let mut run = BytesMut::new();
    for number in first..first + u64::from(count) {
        run.put_u32_le((8 + pad) as u32);
        run.put_u64_le(number);
        run.put_bytes(1, pad);
    }
    run.freeze()
}

/// Takes replies until `last`, checking that each number comes once, in order, with its own content.
async fn take_all(client: &Client, last: u64) {
    let mut next = 1;
    while next <= last {
        let replies = guard("replies", client.replies()).await.expect("replies");
        assert_eq!(replies.first, CommandNumber(next));
        for reply in replies.iter() {
            assert_eq!(
                u64::from_le_bytes(reply[..8].try_into().expect("a number")),
                next
            );
            next += 1;
        }
    }
}

async fn connect(cluster: &Cluster, seed: u64) -> Client {
    guard("the session opens", Client::connect(cluster.client(seed)))
        .await
        .expect("a session")
}

#[tokio::test]
async fn calls_and_runs_are_answered_in_order() {
    let cluster = Cluster::new(1);
    Echo::spawn(cluster.start(1), leader(1, 1));
    let caller = connect(&cluster, 1).await;
    let (one, two) = tokio::join!(
        caller.call(Bytes::from_static(b"one")),
        caller.call(Bytes::from_static(b"two"))
    );
    assert_eq!(one.expect("a reply"), "one");
    assert_eq!(two.expect("a reply"), "two");
    assert!(matches!(
        caller.submit(run_of(1, 1, 0), 1),
        Err(ClientError::Mode)
    ));
    assert_eq!(caller.leader(), Some(ReplicaId(1)));

    let streamer = connect(&cluster, 2).await;
    for round in 0..100 {
        let first = streamer
            .submit(run_of(1 + round * 10, 10, 100), 10)
            .expect("room");
        assert_eq!(first, CommandNumber(1 + round * 10));
    }
    take_all(&streamer, 1_000).await;
    assert_eq!(streamer.counters().resent, 0);
    caller.close().await;
}

#[tokio::test]
async fn outstanding_commands_are_bounded_until_their_replies_are_taken() {
    let cluster = Cluster::new(1);
    Echo::spawn(cluster.start(1), leader(1, 1));
    let mut config = cluster.client(1);
    config.outstanding_max = 10;
    let client = guard("opens", Client::connect(config))
        .await
        .expect("a session");
    client.submit(run_of(1, 10, 0), 10).expect("room");
    let full = ClientError::WouldExceed { commands_max: 10 }.to_string();
    let refused = |client: &Client| {
        client
            .submit(run_of(11, 1, 0), 1)
            .map_err(|e| e.to_string())
    };
    assert_eq!(refused(&client), Err(full.clone()));
    // The replies are here, but nobody took them.
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    assert_eq!(refused(&client), Err(full));
    take_all(&client, 10).await;
    assert_eq!(refused(&client), Ok(CommandNumber(11)));
    assert!(matches!(
        client.submit(run_of(12, 1, 600_000), 1),
        Err(ClientError::Submit(error)) if error.to_string().contains("split it")
    ));
}

/// Trap 28: overload is turned away at the door, and nothing breaks.
#[tokio::test]
async fn over_the_budget_the_gateway_answers_busy_and_the_connection_survives() {
    let cluster = Cluster::new(1);
    let limits = Limits {
        inbox_client_bytes_max: 20_000,
        ..Limits::default()
    };
    let started = cluster.start_with(1, limits).expect("it starts");
    let switches = Echo::spawn(started, leader(1, 1));
    let client = connect(&cluster, 1).await;
    switches.stopped.store(true, Ordering::Relaxed);
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    for round in 0..20 {
        client
            .submit(run_of(1 + round * 10, 10, 500), 10)
            .expect("room");
        tokio::task::yield_now().await;
    }
    until("the gateway refuses", || {
        switches.refused.load(Ordering::Relaxed) > 0
    })
    .await;
    until("the client hears of it", || client.counters().busy > 0).await;
    switches.stopped.store(false, Ordering::Relaxed);
    take_all(&client, 200).await;
    assert_eq!(switches.accepted.load(Ordering::Relaxed), 1);
    assert_eq!(client.counters().reconnects, 0);
}

#[tokio::test]
async fn a_new_leader_takes_over_in_the_middle_of_a_run() {
    let cluster = Cluster::new(2);
    let one = Echo::spawn(cluster.start(1), leader(1, 1));
    let started = cluster.start(2);
    let client = connect(&cluster, 1).await;
    client.submit(run_of(1, 50, 10), 50).expect("room");
    take_all(&client, 50).await;
    // Replica 1 hangs, with requests in its inbox, and replica 2 takes over.
    one.stopped.store(true, Ordering::Relaxed);
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    client.submit(run_of(51, 50, 10), 50).expect("room");
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    Echo::spawn(started, leader(2, 2));
    let mut next = 51;
    while next <= 100 {
        let replies = guard("replies", client.replies()).await.expect("replies");
        assert_eq!(replies.first, CommandNumber(next));
        next += u64::from(replies.count);
    }
    assert_eq!(client.leader(), Some(ReplicaId(2)));
    assert!(client.counters().redirects >= 1);
}

#[tokio::test]
async fn a_refused_leader_is_left_for_the_next_announcement() {
    let cluster = Cluster::new(2);
    let one = Echo::spawn(cluster.start(1), leader(1, 1));
    one.follows.store(true, Ordering::Relaxed);
    Echo::spawn(cluster.start(2), leader(1, 1));
    // Both say that 1 leads, 1 says it does not: the session finds 2 by asking around.
    let client = connect(&cluster, 1).await;
    client.submit(run_of(1, 5, 0), 5).expect("room");
    take_all(&client, 5).await;
}

/// Replies must not be skipped silently.
#[tokio::test]
async fn a_client_that_does_not_take_its_replies_is_disconnected() {
    let cluster = Cluster::new(1);
    let limits = Limits {
        client_queue_bytes_max: 100_000,
        ..Limits::default()
    };
    let (mut network, mut inbox) = cluster.start_with(1, limits).expect("it starts");
    let client = Client::observe(cluster.client(1)).expect("a client");
    let observer = tokio::spawn(async move { client.status(ReplicaId(1)).await.is_ok() });
    let arrivals = common::receive(&mut inbox, |arrivals| !arrivals.is_empty()).await;
    let Arrival::Client { client, .. } = &arrivals[0] else {
        panic!("unexpected: {arrivals:?}");
    };
    let filler = ServerMessage::StatusReply(vec![("x".repeat(200), 1); 100]).encode();
    for _ in 0..10 {
        network.reply(*client, filler.clone());
    }
    network.flush();
    assert_eq!(counter(&network, "gateway_slow_clients"), 1);
    assert_eq!(counter(&network, "gateway_clients"), 0);
    let gone = Arrival::ClientGone { client: *client };
    common::receive(&mut inbox, |arrivals| arrivals.contains(&gone)).await;
    observer.abort();
}

#[tokio::test]
async fn one_client_over_the_limit_is_turned_away_with_the_reason() {
    let cluster = Cluster::new(1);
    let limits = Limits {
        clients_max: 1,
        ..Limits::default()
    };
    let switches = Echo::spawn(
        cluster.start_with(1, limits).expect("it starts"),
        leader(1, 1),
    );
    let first = connect(&cluster, 1).await;
    let config = cluster.client(2);
    // It is told at once, not at its deadline.
    let deadline = config.deadline;
    let begun = std::time::Instant::now();
    let error = Client::connect(config).await.err().expect("turned away");
    assert!(begun.elapsed() < deadline / 2, "{:?}", begun.elapsed());
    assert!(error.to_string().contains("clients_max"), "{error}");
    assert!(switches.over_limit.load(Ordering::Relaxed) >= 1);
    // The place becomes free again.
    first.close().await;
    until("the replica hears of it", || {
        switches.gone.load(Ordering::Relaxed) >= 1
    })
    .await;
    connect(&cluster, 3).await;
}

#[tokio::test]
async fn status_needs_no_leader_and_names_who_is_away() {
    let cluster = Cluster::new(2);
    let switches = Echo::spawn(
        cluster.start(1),
        ServerMessage::Leader {
            ballot: Ballot::ZERO,
            leader: None,
        }
        .encode(),
    );
    switches.follows.store(true, Ordering::Relaxed);
    let mut config = cluster.client(1);
    config.deadline = std::time::Duration::from_secs(2);
    let client = Client::observe(config.clone()).expect("a client");
    let status = client.status(ReplicaId(1)).await.expect("an answer");
    assert_eq!(status, [("answer".to_owned(), 42)]);
    let error = client
        .status(ReplicaId(2))
        .await
        .expect_err("it does not run");
    assert!(
        error
            .to_string()
            .contains("replica 2 is not connected: no answer"),
        "{error}"
    );
    let error = Client::connect(config).await.err().expect("nobody leads");
    assert!(error.to_string().contains("no leader is known"), "{error}");
}

#[tokio::test]
async fn a_late_reply_times_the_call_out_and_the_session_goes_on() {
    let cluster = Cluster::new(1);
    let switches = Echo::spawn(cluster.start(1), leader(1, 1));
    let mut config = cluster.client(1);
    config.deadline = std::time::Duration::from_millis(300);
    let client = guard("opens", Client::connect(config))
        .await
        .expect("a session");
    switches.stopped.store(true, Ordering::Relaxed);
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    let late = client.call(Bytes::from_static(b"late")).await;
    assert!(
        matches!(late, Err(ClientError::Timeout { count: 1, .. })),
        "{late:?}"
    );
    switches.stopped.store(false, Ordering::Relaxed);
    let next = client
        .call(Bytes::from_static(b"next"))
        .await
        .expect("a reply");
    assert_eq!(next, "next");
}
