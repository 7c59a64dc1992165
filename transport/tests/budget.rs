//! The printed memory budget holds, clients included: a process of its own serves clients that do all they can to fill it.
//!
//! The process is this test program again, told by a variable to be the replica's transport and nothing else.

mod common;

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{CLUSTER, Cluster, identity};
use synod_engine::client::ClientMessage;
use synod_engine::ids::ReplicaId;
use synod_engine::seams::{Arrival, Network};
use synod_transport::{Limits, RawClient, Resolver, TransportConfig, memory_budget, start};

/// Names the directory of the certificates, and says that this is the replica.
const ROLE: &str = "SYNOD_BUDGET_TEST_DIRECTORY";
const CLIENTS: usize = 48;
const REPLY_BYTES: usize = 64 * 1024;
const MIB: usize = 1024 * 1024;

/// Small, so that a bound that is missing shows within seconds.
fn limits() -> Limits {
    Limits {
        client_queue_bytes_max: 16 * MIB,
        clients_queue_bytes_max: 32 * MIB,
        clients_window_bytes_max: 16 * MIB,
        clients_unfinished_bytes_max: 16 * MIB,
        request_bytes_max: 16 * MIB,
        inbox_client_bytes_max: 8 * MIB,
        clients_max: CLIENTS,
        ..Limits::default()
    }
}

/// What stays resident of a process however little it holds, and what the allocator keeps: as large as the budget of this
/// test at most, far below what one unbounded queue would take.
const SLACK_BYTES: u64 = 64 * MIB as u64;

/// Answers each client message with a long frame, as a replica that is asked for long values.
#[test]
fn replica() {
    let Some(directory) = std::env::var_os(ROLE) else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let config = TransportConfig {
            cluster: CLUSTER,
            replica: ReplicaId(1),
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            peers: Vec::new(),
            resolver: Resolver::default(),
            identity: identity(directory.as_ref(), "replica-1"),
            mtu_max: 1_452,
            limits: limits(),
            seed: 1,
        };
        let (mut network, mut inbox) = start(config).expect("it starts");
        println!("\nlistens at {}", network.local_addr());
        let mut arrivals = Vec::new();
        loop {
            inbox.notified().await;
            inbox.drain(&mut arrivals);
            for arrival in arrivals.drain(..) {
                if let Arrival::Client { client, .. } = arrival {
                    // Not shared between replies, as those of different commands are not.
                    let reply = [&(REPLY_BYTES as u32).to_le_bytes()[..], &[7; REPLY_BYTES]];
                    network.reply(client, Bytes::from(reply.concat()));
                }
            }
            network.flush();
        }
    });
}

struct Replica {
    process: Child,
    address: SocketAddr,
}

impl Replica {
    fn start(cluster: &Cluster) -> Replica {
        let mut process = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "replica", "--nocapture"])
            .env(ROLE, cluster.directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let lines = BufReader::new(process.stdout.take().expect("piped")).lines();
        let mut said = lines.map_while(Result::ok);
        let line = said.find_map(|line| Some(line.strip_prefix("listens at ")?.to_owned()));
        let address = line.expect("it listens").parse().expect("an address");
        // Whatever it says later is of no interest, and must not stop it.
        std::thread::spawn(move || said.for_each(drop));
        Replica { process, address }
    }

    /// The most that was ever resident.
    fn peak_bytes(&self) -> u64 {
        let path = format!("/proc/{}/status", self.process.id());
        let status = std::fs::read_to_string(path).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.split_whitespace().next());
        1024 * kib
            .and_then(|kib| kib.parse::<u64>().ok())
            .expect("a number")
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

async fn connect(cluster: &Cluster, replica: &Replica) -> RawClient {
    let who = identity(cluster.directory.path(), "client");
    let connecting = RawClient::connect(&who, CLUSTER, replica.address, ReplicaId(1));
    common::guard("a client connects", connecting)
        .await
        .expect("a client")
}

fn budget() -> u64 {
    memory_budget(&limits(), 0)
        .iter()
        .map(|(_, bytes)| bytes)
        .sum()
}

#[tokio::test]
async fn clients_that_do_not_read_and_frames_that_do_not_end_stay_within_the_budget() {
    let cluster = Cluster::new(1);
    let replica = Replica::start(&cluster);
    let bare = replica.peak_bytes();
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(connect(&cluster, &replica).await);
    }
    let who = identity(cluster.directory.path(), "client");
    let began = Instant::now();
    let open = ClientMessage::Open { token: 1 }.encode();
    while began.elapsed() < Duration::from_secs(4) {
        for (index, client) in clients.iter_mut().enumerate() {
            match index % 3 {
                // Asks and asks, and never reads an answer.
                0 | 1 => client.write(&open.repeat(16)).await,
                // Sends all of a long frame but its end.
                _ if client.sent == 0 => client.write(&unfinished()).await,
                _ => client.write(&[]).await,
            }
        }
        // Whoever was thrown out comes again.
        for client in &mut clients {
            if client.is_closed() {
                let connecting = RawClient::connect(&who, CLUSTER, replica.address, ReplicaId(1));
                let again = tokio::time::timeout(Duration::from_secs(1), connecting).await;
                if let Ok(Ok(again)) = again {
                    *client = again;
                }
            }
        }
    }
    let (peak, budget) = (replica.peak_bytes(), budget());
    assert!(
        peak <= bare + budget + SLACK_BYTES,
        "{} MiB resident at the peak, {} MiB when it began; the budget is {} MiB",
        peak >> 20,
        bare >> 20,
        budget >> 20
    );
    // It still serves who behaves.
    drop(clients);
    let mut modest = connect(&cluster, &replica).await;
    modest.write(&open).await;
    let frame = common::guard("an answer", modest.read()).await;
    assert_eq!(frame.map(|frame| frame.len()), Some(REPLY_BYTES));
}

fn unfinished() -> Vec<u8> {
    let length = limits().request_bytes_max;
    let mut bytes = (length as u32).to_le_bytes().to_vec();
    bytes.resize(length, 1);
    bytes
}
