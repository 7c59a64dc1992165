//! Frames over a real link: QUIC with mutual TLS on loopback, both ends on one thread.

use std::net::{SocketAddr, UdpSocket};

use bytes::{BufMut, Bytes, BytesMut};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use synod_engine::ids::{ClusterId, ReplicaId};
use synod_engine::seams::{Arrival, Frame, Lane, Network};
use synod_transport::{
    AuthorityKey, Identity, Inbox, Limits, MTU_MAX_DEFAULT, QuicNetwork, Resolver, TransportConfig,
    make_certificates, start,
};

const CLUSTER: ClusterId = ClusterId(7);

struct Pair {
    sender: QuicNetwork,
    receiver: QuicNetwork,
    inbox: Inbox,
    arrivals: Vec<Arrival>,
}

impl Pair {
    /// Links two replicas and waits until frames arrive.
    async fn linked() -> Pair {
        let directory = tempfile::tempdir().expect("a directory");
        let replicas = [ReplicaId(1), ReplicaId(2)];
        make_certificates(directory.path(), CLUSTER, &replicas, AuthorityKey::Kept)
            .expect("certificates");
        let addresses = [free_address(), free_address()];
        let config = |index: usize| TransportConfig {
            cluster: CLUSTER,
            replica: replicas[index],
            listen: addresses[index],
            peers: vec![(replicas[1 - index], addresses[1 - index].into())],
            resolver: Resolver::default(),
            identity: identity(directory.path(), index + 1),
            mtu_max: MTU_MAX_DEFAULT,
            limits: Limits::default(),
            seed: 1,
        };
        let (sender, _) = start(config(0)).expect("the sender starts");
        let (receiver, inbox) = start(config(1)).expect("the receiver starts");
        let pair = Pair {
            sender,
            receiver,
            inbox,
            arrivals: Vec::new(),
        };
        while pair.receiver.links_up() == 0 || pair.sender.links_up() == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        pair
    }

    /// Sends `count` frames and waits for all of them.
    async fn send(&mut self, count: usize, frame: &Frame) {
        for _ in 0..count {
            self.sender.send(ReplicaId(2), Lane::Data, frame.clone());
        }
        self.sender.flush();
        let mut received = 0;
        while received < count {
            self.inbox.notified().await;
            self.inbox.drain(&mut self.arrivals);
            received += self.arrivals.len();
            self.arrivals.clear();
        }
    }
}

fn identity(directory: &std::path::Path, replica: usize) -> Identity {
    Identity::load(
        &directory.join("ca.pem"),
        &directory.join(format!("replica-{replica}.pem")),
        &directory.join(format!("replica-{replica}.key")),
    )
    .expect("the certificates were just made")
}

fn free_address() -> SocketAddr {
    UdpSocket::bind("127.0.0.1:0")
        .and_then(|socket| socket.local_addr())
        .expect("a free port")
}

fn frame(bytes: usize) -> Frame {
    let mut head = BytesMut::new();
    head.put_u32_le(bytes as u32);
    Frame {
        head: head.freeze(),
        body: Bytes::from(vec![7; bytes]),
    }
}

fn link(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let mut pair = runtime.block_on(Pair::linked());
    let mut group = criterion.benchmark_group("link");
    group.sample_size(20);
    for (name, count, bytes) in [
        ("one frame of 128 B", 1, 128),
        ("16 frames of 64 KiB", 16, 65_536),
    ] {
        let frame = frame(bytes);
        group.throughput(Throughput::Bytes((count * bytes) as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| runtime.block_on(pair.send(count, &frame)));
        });
    }
    group.finish();
}

criterion_group!(benches, link);
criterion_main!(benches);
