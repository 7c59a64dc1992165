//! Other ends that do not follow the rules: they have valid certificates, and say or do with them what they must not.

mod common;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use common::{CLUSTER, Cluster, counter, guard, linked, until};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Connection, ConnectionError, Endpoint};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use synod_engine::ids::ReplicaId;
use synod_transport::{Limits, QuicNetwork, replica_name};

const CLIENT: &[u8] = b"synod-client/1";
const REPLICA: &[u8] = b"synod-replica/1";
/// Code of a close because of the certificate, and of one because of bytes that are none of the protocol.
const CERTIFICATE: u64 = 2;
const VIOLATION: u64 = 3;

/// A connection to replica 3 by a plain QUIC client with the files of `who`.
async fn dial(cluster: &Cluster, who: &str, alpn: &[u8]) -> (Endpoint, Connection) {
    let file = |name: String| cluster.directory.path().join(name);
    let certificates = |path: &Path| -> Vec<CertificateDer<'static>> {
        let pem = std::fs::read(path).expect("a file");
        let each = CertificateDer::pem_slice_iter(&pem);
        each.collect::<Result<_, _>>().expect("certificates")
    };
    let mut roots = RootCertStore::empty();
    for root in certificates(&file("ca.pem".into())) {
        roots.add(root).expect("a root");
    }
    let key = std::fs::read(file(format!("{who}.key"))).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_root_certificates(roots)
        .with_client_auth_cert(
            certificates(&file(format!("{who}.pem"))),
            PrivateKeyDer::from_pem_slice(&key).expect("a key"),
        )
        .expect("an identity");
    tls.alpn_protocols = vec![alpn.to_vec()];
    let crypto = QuicClientConfig::try_from(tls).expect("QUIC's suite");
    let endpoint = Endpoint::client(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port");
    let config = quinn::ClientConfig::new(Arc::new(crypto));
    let name = replica_name(CLUSTER, ReplicaId(3));
    let connecting = endpoint
        .connect_with(config, cluster.address(3), &name)
        .expect("an address");
    let connection = guard("TLS", connecting).await.expect("TLS agrees");
    (endpoint, connection)
}

/// A Hello as the wire has it, from `replica`, or from a client if that is 0.
fn hello(replica: u8) -> Vec<u8> {
    let mut content = vec![0x7e];
    content.extend(b"SYND");
    content.extend(synod_transport::PROTOCOL_VERSION.to_le_bytes());
    content.extend(CLUSTER.0.to_le_bytes());
    content.push(replica);
    let mut frame = (content.len() as u32).to_le_bytes().to_vec();
    frame.extend(content);
    frame
}

async fn closed(connection: &Connection) -> u64 {
    match guard("the connection is closed", connection.closed()).await {
        ConnectionError::ApplicationClosed(close) => close.error_code.into_inner(),
        other => panic!("ended otherwise: {other}"),
    }
}

/// Replica 3, which all others dial; and that it still takes in replica 1 in the end.
struct Door {
    cluster: Cluster,
    network: QuicNetwork,
    _inbox: synod_transport::Inbox,
}

impl Door {
    fn open() -> Door {
        let cluster = Cluster::new(3);
        let (network, inbox) = cluster.start(3);
        Door {
            cluster,
            network,
            _inbox: inbox,
        }
    }

    async fn still_works(&self) {
        let (_one, _inbox) = self.cluster.start(1);
        linked(&self.network, 1).await;
    }
}

#[tokio::test]
async fn a_client_that_says_it_is_a_replica_is_refused_before_it_says_so() {
    let door = Door::open();
    let (_endpoint, connection) = dial(&door.cluster, "client", REPLICA).await;
    // It gets no stream to say anything on.
    let speaking = async {
        let mut stream = connection.open_uni().await?;
        let _ = stream.write_all(&[&b"C"[..], &hello(1)].concat()).await;
        Ok::<_, ConnectionError>(())
    };
    guard("it cannot speak", speaking)
        .await
        .expect_err("closed");
    assert_eq!(closed(&connection).await, CERTIFICATE);
    assert_eq!(door.network.links_up(), 0);
    door.still_works().await;
}

#[tokio::test]
async fn a_replica_that_says_it_is_another_one_is_refused() {
    let door = Door::open();
    let (_endpoint, connection) = dial(&door.cluster, "replica-2", REPLICA).await;
    let mut stream = guard("a stream", connection.open_uni())
        .await
        .expect("open");
    let said = [&b"C"[..], &hello(1)].concat();
    stream.write_all(&said).await.expect("written");
    assert_eq!(closed(&connection).await, CERTIFICATE);
    assert_eq!(door.network.links_up(), 0);
    // And one that is no client.
    let (_endpoint, connection) = dial(&door.cluster, "replica-2", CLIENT).await;
    assert_eq!(closed(&connection).await, CERTIFICATE);
    assert_eq!(counter(&door.network, "gateway_accepted"), 0);
    door.still_works().await;
}

#[tokio::test]
async fn a_hello_of_sixteen_megabytes_is_refused_at_its_length() {
    let door = Door::open();
    for (who, alpn) in [("client", CLIENT), ("replica-1", REPLICA)] {
        let (_endpoint, connection) = dial(&door.cluster, who, alpn).await;
        let (mut stream, _receive) = if alpn == CLIENT {
            let (send, receive) = connection.open_bi().await.expect("open");
            (send, Some(receive))
        } else {
            let mut send = guard("a stream", connection.open_uni())
                .await
                .expect("open");
            send.write_all(b"C").await.expect("written");
            (send, None)
        };
        let length = 16_u32 << 20;
        stream
            .write_all(&length.to_le_bytes())
            .await
            .expect("written");
        let chunk = vec![0; 64 << 10];
        let mut sent = 0;
        let writing = async {
            while sent < length as usize && stream.write_all(&chunk).await.is_ok() {
                sent += chunk.len();
            }
        };
        guard("it stops taking", writing).await;
        assert_eq!(closed(&connection).await, VIOLATION, "{who}");
        assert!(sent < length as usize, "{who}: all of it was taken");
    }
    door.still_works().await;
}

#[tokio::test]
async fn streams_that_stay_silent_end_with_the_handshake() {
    let door = Door::open();
    let (_endpoint, client) = dial(&door.cluster, "client", CLIENT).await;
    // A client gets one stream in two directions, and none in one.
    let one_way = tokio::time::timeout(Duration::from_millis(200), client.open_uni()).await;
    assert!(
        !matches!(one_way, Ok(Ok(_))),
        "nobody accepts such a stream"
    );

    let (_endpoint, replica) = dial(&door.cluster, "replica-1", REPLICA).await;
    let mut silent = Vec::new();
    for _ in 0..3 {
        silent.push(guard("a stream", replica.open_uni()).await.expect("open"));
    }
    let failures = || counter(&door.network, "handshake_failures");
    until("both are given up", || failures() >= 2).await;
    guard("the client ends", client.closed()).await;
    guard("the replica ends", replica.closed()).await;
    assert_eq!(door.network.links_up(), 0);
    door.still_works().await;
}

/// Clients beyond the limit are turned away, and a peer finds its place all the same.
#[tokio::test]
async fn a_full_gateway_has_room_for_peers() {
    let cluster = Cluster::new(3);
    let limits = Limits {
        clients_max: 1,
        ..Limits::default()
    };
    let (network, _inbox) = cluster.start_with(3, limits).expect("it starts");
    let (_endpoint, first) = dial(&cluster, "client", CLIENT).await;
    let (mut send, _receive) = first.open_bi().await.expect("open");
    send.write_all(&hello(0)).await.expect("written");
    until("the only place is taken", || {
        counter(&network, "gateway_clients") == 1
    })
    .await;
    let (_one, _inbox_one) = cluster.start(1);
    linked(&network, 1).await;
    assert_eq!(first.close_reason(), None);
}
