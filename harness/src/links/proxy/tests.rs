//! Real datagrams between two sockets that stand for replicas.

use std::time::Duration;

use synod_engine::ids::ReplicaId;
use tokio::net::UdpSocket;
use tokio::task::LocalSet;

use super::*;

const ONE: ReplicaId = ReplicaId(1);
const TWO: ReplicaId = ReplicaId(2);
/// Far beyond what a datagram takes on loopback.
const GUARD: Duration = Duration::from_secs(20);

/// Two replicas and what is between them.
struct Pair {
    proxy: Rc<Proxy>,
    one: UdpSocket,
    two: UdpSocket,
}

impl Pair {
    async fn new() -> Pair {
        let one = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
        let two = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
        let replicas = [
            (ONE, one.local_addr().expect("bound")),
            (TWO, two.local_addr().expect("bound")),
        ];
        let proxy = Rc::new(Proxy::bind(&replicas, 1).expect("loopback addresses are free"));
        let running = Rc::clone(&proxy);
        tokio::task::spawn_local(async move { running.run().await });
        Pair { proxy, one, two }
    }

    async fn send(&self, datagram: &[u8]) {
        let to = self.proxy.address(ONE, TWO);
        self.one.send_to(datagram, to).await.expect("sent");
    }

    /// What replica 2 gets next, and from where.
    async fn receive(&self) -> (Vec<u8>, SocketAddr) {
        let mut buffer = vec![0; 70_000];
        let received = tokio::time::timeout(GUARD, self.two.recv_from(&mut buffer)).await;
        let (bytes, sender) = received.expect("nothing arrives").expect("received");
        buffer.truncate(bytes);
        (buffer, sender)
    }

    /// Waits until the proxy has seen everything that was sent.
    async fn arrived(&self, count: u64) -> Counts {
        let seen = async {
            while self.proxy.counts().arrived < count {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let in_time = tokio::time::timeout(GUARD, seen).await;
        in_time.expect("datagrams do not reach the proxy");
        self.proxy.counts()
    }

    fn set(&self, weather: Weather) {
        self.proxy.set(ONE, TWO, weather);
    }
}

fn local<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    LocalSet::new().block_on(&runtime, test)
}

#[test]
fn datagrams_of_any_length_go_both_ways_between_the_same_addresses() {
    local(async {
        let pair = Pair::new().await;
        for bytes in [0, 1, 1_200, 8_952, 65_000, 65_507] {
            let datagram = vec![7; bytes];
            pair.send(&datagram).await;
            let (received, sender) = pair.receive().await;
            assert_eq!(received, datagram);
            assert_eq!(sender, pair.proxy.address(TWO, ONE), "where 2 finds 1");
        }
        let back = pair.proxy.address(TWO, ONE);
        pair.two.send_to(b"back", back).await.expect("sent");
        let mut buffer = [0; 10];
        let (bytes, sender) = pair.one.recv_from(&mut buffer).await.expect("received");
        assert_eq!(&buffer[..bytes], b"back");
        assert_eq!(sender, pair.proxy.address(ONE, TWO), "where 1 finds 2");
    });
}

#[test]
fn strangers_are_not_forwarded() {
    local(async {
        let pair = Pair::new().await;
        let stranger = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
        let to = pair.proxy.address(ONE, TWO);
        stranger.send_to(b"hello", to).await.expect("sent");
        pair.send(b"real").await;
        assert_eq!(pair.receive().await.0, b"real");
        assert_eq!(pair.proxy.counts().strangers, 1);
    });
}

#[test]
fn a_cut_is_one_way_and_ends() {
    local(async {
        let pair = Pair::new().await;
        pair.set(Weather {
            cut: true,
            ..Weather::default()
        });
        pair.send(b"lost").await;
        assert_eq!(pair.arrived(1).await.cut, 1);
        let back = pair.proxy.address(TWO, ONE);
        pair.two.send_to(b"back", back).await.expect("sent");
        let mut buffer = [0; 10];
        pair.one.recv_from(&mut buffer).await.expect("received");
        pair.proxy.heal();
        pair.send(b"found").await;
        assert_eq!(pair.receive().await.0, b"found");
    });
}

#[test]
fn loss_takes_its_share() {
    local(async {
        let pair = Pair::new().await;
        pair.set(Weather {
            loss_ppm: 300_000,
            ..Weather::default()
        });
        for number in 0..1_000u64 {
            pair.send(&number.to_le_bytes()).await;
            // The sockets' buffers hold what a single thread has no time to forward.
            tokio::task::yield_now().await;
        }
        let counts = pair.arrived(1_000).await;
        assert!((200..400).contains(&counts.lost), "{counts:?}");
        assert_eq!(counts.forwarded, 1_000 - counts.lost);
    });
}

#[test]
fn a_duplicated_datagram_arrives_twice() {
    local(async {
        let pair = Pair::new().await;
        pair.set(Weather {
            duplicate_percent: 100,
            ..Weather::default()
        });
        pair.send(b"twin").await;
        assert_eq!(pair.receive().await.0, b"twin");
        assert_eq!(pair.receive().await.0, b"twin");
        assert_eq!(pair.proxy.counts().duplicated, 1);
    });
}

#[test]
fn delay_holds_back_and_jitter_reorders() {
    local(async {
        let pair = Pair::new().await;
        pair.set(Weather {
            delay: Duration::from_millis(30),
            jitter: Duration::from_millis(30),
            ..Weather::default()
        });
        let sent = std::time::Instant::now();
        for number in 0..50 {
            pair.send(&[number]).await;
        }
        let mut order = Vec::new();
        for _ in 0..50 {
            let (received, _) = pair.receive().await;
            assert!(sent.elapsed() >= Duration::from_millis(30));
            order.push(received[0]);
        }
        assert!(!order.is_sorted(), "{order:?}");
        order.sort_unstable();
        assert_eq!(order, (0..50).collect::<Vec<u8>>());
        assert_eq!(pair.proxy.counts().delayed, 50);
    });
}

#[test]
fn a_clog_keeps_everything_and_its_order() {
    local(async {
        let pair = Pair::new().await;
        pair.set(Weather {
            clogged: true,
            ..Weather::default()
        });
        for number in 0..100 {
            pair.send(&[number]).await;
        }
        let counts = pair.arrived(100).await;
        assert_eq!((counts.held, counts.forwarded), (100, 0));
        pair.proxy.heal();
        for number in 0..100 {
            assert_eq!(pair.receive().await.0, [number]);
        }
    });
}
