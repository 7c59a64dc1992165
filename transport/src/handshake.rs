//! Setting up a connection: TLS, the certificate's name, the Hello in both directions.

use std::net::SocketAddr;
use std::time::Duration;

use quinn::crypto::rustls::HandshakeData;
use quinn::{
    Connecting, Connection, ConnectionError, Endpoint, RecvStream, SendStream, WriteError,
};
use rustls::pki_types::CertificateDer;
use synod_engine::ids::{ClusterId, ReplicaId};
use synod_engine::seams::Lane;

use crate::close::{self, CloseCode};
use crate::hello::{HELLO_BYTES, Hello, HelloError};
use crate::holder::{ClientIdentity, Holder};
use crate::identity::{certificate_carries, client_of, replica_name};
use crate::lookup::LookupFailed;
use crate::reader::{FrameReader, ReadFailed};

/// How long TLS takes at most where nothing else is configured, and after it the Hello. A peer that comes up later is
/// reached by the next attempt.
pub const HANDSHAKE_MS: u64 = 1_000;
/// Longer frames are no Hello, and nobody may make us hold them before it is known who sends them.
const HELLO_FRAME_BYTES_MAX: usize = 2 * HELLO_BYTES;

/// The other side, and the streams to and from it, all introductions made.
pub struct PeerConnection {
    pub peer: ReplicaId,
    pub connection: Connection,
    /// In the order of [`Lane::ALL`]; the first byte of each is written.
    pub lanes: [SendStream; 3],
    pub control: FrameReader,
}

/// The one stream of a client's connection, after the Hello in both directions.
pub struct ClientConnection {
    pub connection: Connection,
    pub send: SendStream,
    pub receive: FrameReader,
}

/// Who we are and what we accept.
#[derive(Clone, Copy, Debug)]
pub struct Local {
    pub cluster: ClusterId,
    /// `None` for a client.
    pub replica: Option<ReplicaId>,
    pub frame_bytes_max: usize,
    /// Of TLS, and of the Hello after it.
    pub timeout: Duration,
}

#[derive(Debug, thiserror::Error)]
pub enum HandshakeFailed {
    #[error("no answer within {} ms", .0.as_millis())]
    TimedOut(Duration),
    #[error(transparent)]
    Lookup(#[from] LookupFailed),
    #[error("cannot dial: {0}")]
    Dial(#[from] quinn::ConnectError),
    #[error("{0}")]
    Connection(#[from] ConnectionError),
    #[error(transparent)]
    Hello(#[from] HelloError),
    #[error("the certificate is not for {name}: check which certificate the other side uses")]
    Certificate { name: String },
    #[error("the stream failed in the Hello: {0}")]
    Read(ReadFailed),
    #[error("the stream failed in the Hello: {0}")]
    Write(WriteError),
    #[error("stream {0} names no lane")]
    Lane(u8),
}

impl HandshakeFailed {
    /// Whether it lasts until a configuration changes.
    pub fn is_lasting(&self) -> bool {
        match self {
            HandshakeFailed::Connection(error) => close::is_lasting(error),
            HandshakeFailed::Hello(_) | HandshakeFailed::Certificate { .. } => true,
            HandshakeFailed::TimedOut(_)
            | HandshakeFailed::Lookup(_)
            | HandshakeFailed::Dial(_)
            | HandshakeFailed::Read(_)
            | HandshakeFailed::Write(_)
            | HandshakeFailed::Lane(_) => false,
        }
    }

    /// What to close the connection with, if the failure is found on this side.
    fn close_code(&self) -> CloseCode {
        match self {
            HandshakeFailed::Hello(_) => CloseCode::Hello,
            HandshakeFailed::Certificate { .. } => CloseCode::Certificate,
            HandshakeFailed::TimedOut(_) => CloseCode::Shutdown,
            _ => CloseCode::Violation,
        }
    }
}

/// Runs one handshake against the clock, and tells the other side if it fails.
pub async fn bounded<T>(
    connection: &Connection,
    timeout: Duration,
    handshake: impl Future<Output = Result<T, HandshakeFailed>>,
) -> Result<T, HandshakeFailed> {
    let result = tokio::time::timeout(timeout, handshake)
        .await
        .unwrap_or(Err(HandshakeFailed::TimedOut(timeout)));
    result.map_err(|error| {
        // The reason that the other side gave says more than "the stream failed".
        if let Some(reason) = connection.close_reason() {
            return HandshakeFailed::Connection(reason);
        }
        error.close_code().close(connection, &error.to_string());
        error
    })
}

/// TLS only: the server's certificate is checked for the name of `peer`.
pub async fn dial(
    endpoint: &Endpoint,
    config: &quinn::ClientConfig,
    address: SocketAddr,
    local: Local,
    peer: ReplicaId,
) -> Result<Connection, HandshakeFailed> {
    let name = replica_name(local.cluster, peer);
    let connecting = endpoint.connect_with(config.clone(), address, &name)?;
    encrypted(connecting, local.timeout).await
}

/// Waits for TLS, but not for ever: who never goes on must not hold memory for as long as it sends first packets.
pub async fn encrypted(
    connecting: Connecting,
    timeout: Duration,
) -> Result<Connection, HandshakeFailed> {
    tokio::time::timeout(timeout, connecting)
        .await
        .map_err(|_| HandshakeFailed::TimedOut(timeout))?
        .map_err(HandshakeFailed::Connection)
}

/// The dialling side of a link.
pub async fn greet_peer(
    connection: Connection,
    local: Local,
    peer: ReplicaId,
) -> Result<PeerConnection, HandshakeFailed> {
    let lanes = open_lanes(&connection, local).await?;
    let (control, hello) = accept_control(&connection, local).await?;
    hello.expect(Some(peer))?;
    Ok(PeerConnection {
        peer,
        connection,
        lanes,
        control,
    })
}

/// Fails unless TLS has shown that the other side is one of `replicas`; which of them it says it is, is in its Hello.
pub fn expect_one_of(
    connection: &Connection,
    cluster: ClusterId,
    replicas: &[ReplicaId],
) -> Result<(), HandshakeFailed> {
    let mut names = replicas.iter().map(|id| replica_name(cluster, *id));
    match names.any(|name| check_certificate(connection, name).is_ok()) {
        true => Ok(()),
        false => Err(HandshakeFailed::Certificate {
            name: "a replica that dials this one".to_owned(),
        }),
    }
}

/// The accepting side of a link. Nothing of ours is sent before the peer is known to be who it says.
pub async fn accept_peer(
    connection: Connection,
    local: Local,
    diallers: &[ReplicaId],
) -> Result<PeerConnection, HandshakeFailed> {
    let (control, hello) = accept_control(&connection, local).await?;
    let Some(peer) = hello.replica.filter(|peer| diallers.contains(peer)) else {
        let theirs = crate::hello::Peer(hello.replica);
        return Err(HelloError::Unknown { theirs }.into());
    };
    check_certificate(&connection, replica_name(local.cluster, peer))?;
    let lanes = open_lanes(&connection, local).await?;
    Ok(PeerConnection {
        peer,
        connection,
        lanes,
        control,
    })
}

/// The client's side.
pub async fn greet_gateway(
    connection: Connection,
    local: Local,
    replica: ReplicaId,
) -> Result<ClientConnection, HandshakeFailed> {
    let (mut send, receive) = connection.open_bi().await?;
    write(&mut send, &local.hello()).await?;
    let mut receive = FrameReader::new(receive, HELLO_FRAME_BYTES_MAX);
    let frame = receive.one().await.map_err(HandshakeFailed::Read)?;
    receive.allow(local.frame_bytes_max);
    Hello::decode(frame, local.cluster)?.expect(Some(replica))?;
    Ok(ClientConnection {
        connection,
        send,
        receive,
    })
}

/// The replica's side of a client's connection, and whom its certificate speaks for.
pub async fn accept_client(
    connection: Connection,
    local: Local,
) -> Result<(ClientConnection, ClientIdentity), HandshakeFailed> {
    let identity = client_identity(&connection, local.cluster)?;
    let (mut send, receive) = connection.accept_bi().await?;
    let mut receive = FrameReader::new(receive, HELLO_FRAME_BYTES_MAX);
    let frame = receive.one().await.map_err(HandshakeFailed::Read)?;
    receive.allow(local.frame_bytes_max);
    Hello::decode(frame, local.cluster)?.expect(None)?;
    write(&mut send, &local.hello()).await?;
    let client = ClientConnection {
        connection,
        send,
        receive,
    };
    Ok((client, identity))
}

/// The protocol that was agreed on in the TLS handshake.
pub fn alpn(connection: &Connection) -> Vec<u8> {
    connection
        .handshake_data()
        .and_then(|data| data.downcast::<HandshakeData>().ok())
        .and_then(|data| data.protocol)
        .unwrap_or_default()
}

impl Local {
    fn hello(&self) -> bytes::Bytes {
        Hello {
            cluster: self.cluster,
            replica: self.replica,
        }
        .encode()
    }
}

/// Opens the three lanes in order, the Hello first on Control.
async fn open_lanes(
    connection: &Connection,
    local: Local,
) -> Result<[SendStream; 3], HandshakeFailed> {
    let control = open_lane(connection, Lane::Control, &local.hello()).await?;
    let data = open_lane(connection, Lane::Data, &[]).await?;
    let bulk = open_lane(connection, Lane::Bulk, &[]).await?;
    Ok([control, data, bulk])
}

async fn open_lane(
    connection: &Connection,
    lane: Lane,
    first: &[u8],
) -> Result<SendStream, HandshakeFailed> {
    let mut stream = connection.open_uni().await?;
    // A higher number goes first: what waits to be sent on Control overtakes Data, and both overtake Bulk.
    let priority = match lane {
        Lane::Control => 2,
        Lane::Data => 1,
        Lane::Bulk => 0,
    };
    let set = stream.set_priority(priority);
    assert!(set.is_ok(), "a stream just opened is open");
    let mut bytes = vec![lane_byte(lane)];
    bytes.extend_from_slice(first);
    write(&mut stream, &bytes).await?;
    Ok(stream)
}

async fn accept_control(
    connection: &Connection,
    local: Local,
) -> Result<(FrameReader, Hello), HandshakeFailed> {
    let stream = connection.accept_uni().await?;
    let (lane, mut reader) = read_lane(stream, HELLO_FRAME_BYTES_MAX).await?;
    if lane != Lane::Control {
        return Err(HandshakeFailed::Lane(lane_byte(lane)));
    }
    let frame = reader.one().await.map_err(HandshakeFailed::Read)?;
    reader.allow(local.frame_bytes_max);
    Ok((reader, Hello::decode(frame, local.cluster)?))
}

/// The lane that a stream's first byte names, and the frames after it.
pub async fn read_lane(
    stream: RecvStream,
    frame_bytes_max: usize,
) -> Result<(Lane, FrameReader), HandshakeFailed> {
    let mut reader = FrameReader::new(stream, frame_bytes_max);
    let byte = reader.byte().await.map_err(HandshakeFailed::Read)?;
    let lane = Lane::ALL.into_iter().find(|lane| lane_byte(*lane) == byte);
    Ok((lane.ok_or(HandshakeFailed::Lane(byte))?, reader))
}

fn lane_byte(lane: Lane) -> u8 {
    match lane {
        Lane::Control => b'C',
        Lane::Data => b'D',
        Lane::Bulk => b'B',
    }
}

async fn write(stream: &mut SendStream, bytes: &[u8]) -> Result<(), HandshakeFailed> {
    stream
        .write_all(bytes)
        .await
        .map_err(HandshakeFailed::Write)
}

/// TLS checked the chain; which name it must carry is known only now.
fn check_certificate(connection: &Connection, name: String) -> Result<(), HandshakeFailed> {
    match peer_certificate(connection) {
        Some(leaf) if certificate_carries(&leaf, &name) => Ok(()),
        _ => Err(HandshakeFailed::Certificate { name }),
    }
}

/// Which client of `cluster` the other side is, by its certificate.
pub fn client_identity(
    connection: &Connection,
    cluster: ClusterId,
) -> Result<ClientIdentity, HandshakeFailed> {
    let leaf = peer_certificate(connection);
    leaf.and_then(|leaf| client_of(&leaf, cluster))
        .ok_or_else(|| HandshakeFailed::Certificate {
            name: Holder::Client(ClientIdentity::UNNAMED).name(cluster),
        })
}

/// What the other side proved to be the owner of.
pub fn peer_certificate(connection: &Connection) -> Option<CertificateDer<'static>> {
    let chain = connection
        .peer_identity()?
        .downcast::<Vec<CertificateDer<'static>>>()
        .ok()?;
    chain.first().cloned()
}
