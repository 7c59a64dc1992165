//! QUIC endpoints, with every transport setting explicit and its reason beside it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::congestion::CubicConfig;
use quinn::{
    AckFrequencyConfig, Connection, Endpoint, EndpointConfig, IdleTimeout, MtuDiscoveryConfig,
    TokioRuntime, TransportConfig as QuicConfig, VarInt,
};

use quinn_proto::HashedConnectionIdGenerator;

use crate::TransportError;
use crate::congestion::LossTolerant;
use crate::identity::Identity;
use crate::socket::TrainSocket;
use crate::tls;

/// Unread bytes of one stream. Larger windows were slower on loopback: the data leaves the caches.
const STREAM_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
/// Unread bytes of one connection: Data and Bulk may both stand full, and Control still has credit.
const CONNECTION_WINDOW_BYTES: u32 = 2 * STREAM_WINDOW_BYTES + 2 * 1024 * 1024;
/// Unacknowledged bytes kept for retransmission, over all lanes: as much as the other side gives credit for, so that
/// Control can still be written while the acknowledgements of Data and Bulk are under way.
const SEND_WINDOW_BYTES: u64 = CONNECTION_WINDOW_BYTES as u64;
/// What QUIC may hold for the connection of one peer, both directions.
pub const CONNECTION_BYTES_MAX: usize = 2 * CONNECTION_WINDOW_BYTES as usize;
/// Unread or unacknowledged bytes, in each direction, of a connection whose other side is not known yet: more than a Hello.
const STRANGER_WINDOW_BYTES: u32 = 16 * 1024;
/// The same of a client, as long as there are few of them: what they may fill is a large part of the memory budget.
pub const CLIENT_WINDOW_BYTES_MAX: usize = STREAM_WINDOW_BYTES as usize;
/// However many there are.
pub const CLIENT_WINDOW_BYTES_MIN: usize = 64 * 1024;

/// Lanes of a link, one stream each.
const UNI_STREAMS_MAX: u32 = 3;
/// A client's only stream.
const BIDI_STREAMS_MAX: u32 = 1;

/// First packets that wait for the door's answer. They are answered within a turn; beyond, quinn drops them unread.
const INCOMING_MAX: usize = 256;
/// What follows a first packet before it is answered; a ClientHello that takes several packets, for instance.
const INCOMING_BYTES_MAX: u64 = 16 * 1024;

/// Cubic's own default is 12,000 bytes whatever the MTU: not even two packets of 8,952.
const INITIAL_WINDOW_BYTES: u64 = 1024 * 1024;
/// Works on every path; discovery goes on from here.
const MTU_INITIAL: u16 = 1_200;
/// Below this, larger packets are not looked for: 1,200 is what QUIC demands of every path.
pub const MTU_MIN: u16 = 1_200;
/// The smallest step that discovery still tries. Coarse steps end it after a few probes.
const MTU_STEP_MIN: u16 = 64;
/// After packets of the discovered size vanished, discovery waits this long before it tries again.
const MTU_BLACK_HOLE_COOLDOWN: Duration = Duration::from_secs(10);

/// Housekeeping only: the engine notices a silent peer by its own heartbeats, much earlier.
const PEER_IDLE_TIMEOUT: Duration = Duration::from_millis(2_500);
const PEER_KEEP_ALIVE: Duration = Duration::from_millis(500);
const CLIENT_IDLE_TIMEOUT: Duration = Duration::from_secs(5);
const CLIENT_KEEP_ALIVE: Duration = Duration::from_millis(1_500);

/// Before a round trip was measured. Retransmissions of a first packet wait 3 × this, doubling: a peer that comes
/// up while it is being dialled answers the next one, so the default of 333 ms would cost it a second.
const INITIAL_RTT: Duration = Duration::from_millis(25);

/// Ask for an acknowledgement each this many packets instead of each second one. The delay stays short, since
/// what is unacknowledged occupies the send window.
const ACK_PACKETS: u32 = 40;
const ACK_DELAY: Duration = Duration::from_millis(1);

/// Which of two kinds of connection the settings are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Peer,
    Client,
}

/// Binds a socket and starts an endpoint on the current runtime. With `accept`, it answers connections too.
pub fn bind(
    listen: SocketAddr,
    identity: &Identity,
    mtu_max: u16,
    accept: bool,
) -> Result<Endpoint, TransportError> {
    if mtu_max < MTU_MIN {
        return Err(TransportError::MtuMax { mtu_max });
    }
    let socket = TrainSocket::bind(listen, mtu_max).map_err(|source| TransportError::Bind {
        address: listen,
        source,
    })?;
    let server = accept
        .then(|| server_config(identity, mtu_max))
        .transpose()?;
    Endpoint::new_with_abstract_socket(
        endpoint_config(accept.then_some(identity), mtu_max),
        server,
        Arc::new(socket),
        Arc::new(TokioRuntime),
    )
    .map_err(|source| TransportError::Bind {
        address: listen,
        source,
    })
}

/// For dialling connections of one kind.
pub fn client_config(
    identity: &Identity,
    role: Role,
    mtu_max: u16,
) -> Result<quinn::ClientConfig, TransportError> {
    let alpn = match role {
        Role::Peer => tls::ALPN_REPLICA,
        Role::Client => tls::ALPN_CLIENT,
    };
    let crypto = tls::client_config(identity, alpn)?;
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    config.transport_config(Arc::new(quic_config(role, mtu_max)));
    Ok(config)
}

/// For connections that are accepted.
pub fn server_config(
    identity: &Identity,
    mtu_max: u16,
) -> Result<quinn::ServerConfig, TransportError> {
    let crypto = tls::server_config(identity)?;
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    // Peers and clients come in at the same door, so these are a client's timeouts; the shorter idle timeout of
    // a dialling peer holds for both ends.
    let mut transport = quic_config(Role::Client, mtu_max);
    // Who it is, is known after TLS; until then it has one stream and room for a Hello. See `open_to_peer`.
    transport
        .receive_window(VarInt::from_u32(STRANGER_WINDOW_BYTES))
        .send_window(u64::from(STRANGER_WINDOW_BYTES))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .max_concurrent_bidi_streams(VarInt::from_u32(BIDI_STREAMS_MAX));
    config
        .transport_config(Arc::new(transport))
        .max_incoming(INCOMING_MAX)
        .incoming_buffer_size(INCOMING_BYTES_MAX)
        .incoming_buffer_size_total(INCOMING_MAX as u64 * INCOMING_BYTES_MAX);
    Ok(config)
}

/// Gives an accepted connection the streams and windows of a link, once a certificate showed that it is a peer's.
pub fn open_to_peer(connection: &Connection) {
    connection.set_max_concurrent_uni_streams(VarInt::from_u32(UNI_STREAMS_MAX));
    connection.set_receive_window(VarInt::from_u32(CONNECTION_WINDOW_BYTES));
    connection.set_send_window(SEND_WINDOW_BYTES);
}

/// The same for a client, whose only stream it has opened already.
pub fn open_to_client(connection: &Connection, bytes: usize) {
    let window = u32::try_from(bytes.min(CLIENT_WINDOW_BYTES_MAX)).expect("a few megabytes");
    connection.set_receive_window(VarInt::from_u32(window));
    connection.set_send_window(u64::from(window));
}

/// All clients may have one identity. What is derived from it would let each of them end the connections of the others; so
/// without an identity, ids and reset tokens are as random as quinn makes them.
fn endpoint_config(identity: Option<&Identity>, mtu_max: u16) -> EndpointConfig {
    let mut config = identity.map_or_else(EndpointConfig::default, surviving_config);
    config
        .max_udp_payload_size(mtu_max)
        .expect("bind() checked that the MTU is at least 1200");
    config
}

fn surviving_config(identity: &Identity) -> EndpointConfig {
    // What stateless resets are made with survives a restart, because it is derived from the private key. So the
    // first packet that a peer sends on a connection from before the restart tells it that the connection is gone,
    // instead of an idle timeout. The key of connection ids has to survive too: quinn answers only packets whose
    // ids it could have made.
    let secret = derived(identity, b"synod stateless reset");
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret.as_ref());
    let ids = derived(identity, b"synod connection ids");
    let ids = u64::from_le_bytes(ids.as_ref()[..8].try_into().expect("a digest is longer"));
    let mut config = EndpointConfig::new(Arc::new(key));
    config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(ids)));
    config
}

fn derived(identity: &Identity, purpose: &[u8]) -> ring::digest::Digest {
    let mut seed = purpose.to_vec();
    seed.extend_from_slice(identity.key().secret_der());
    ring::digest::digest(&ring::digest::SHA256, &seed)
}

fn quic_config(role: Role, mtu_max: u16) -> QuicConfig {
    let (idle_timeout, keep_alive) = match role {
        Role::Peer => (PEER_IDLE_TIMEOUT, PEER_KEEP_ALIVE),
        Role::Client => (CLIENT_IDLE_TIMEOUT, CLIENT_KEEP_ALIVE),
    };
    let mut cubic = CubicConfig::default();
    cubic.initial_window(INITIAL_WINDOW_BYTES);
    let mut discovery = MtuDiscoveryConfig::default();
    discovery
        .upper_bound(mtu_max)
        .minimum_change(MTU_STEP_MIN)
        .black_hole_cooldown(MTU_BLACK_HOLE_COOLDOWN);
    let mut ack_frequency = AckFrequencyConfig::default();
    ack_frequency
        .ack_eliciting_threshold(VarInt::from_u32(ACK_PACKETS))
        .max_ack_delay(Some(ACK_DELAY));

    // Of a connection that is dialled: a replica that accepted a peer opens lanes, one that accepted a client opens none.
    let uni_streams_max = match role {
        Role::Peer => UNI_STREAMS_MAX,
        Role::Client => 0,
    };
    let mut config = QuicConfig::default();
    config
        .max_concurrent_uni_streams(VarInt::from_u32(uni_streams_max))
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW_BYTES))
        .send_window(SEND_WINDOW_BYTES)
        // Lanes differ by priority; within one there is a single stream, so there is nothing to be fair about.
        .send_fairness(false)
        .initial_rtt(INITIAL_RTT)
        .initial_mtu(MTU_INITIAL)
        .mtu_discovery_config(Some(discovery))
        .max_idle_timeout(Some(
            IdleTimeout::try_from(idle_timeout).expect("seconds fit a QUIC integer"),
        ))
        .keep_alive_interval(Some(keep_alive))
        .ack_frequency_config(Some(ack_frequency))
        // Nothing is sent outside streams.
        .datagram_receive_buffer_size(None)
        // The spin bit tells observers the round trip and us nothing.
        .allow_spin(false)
        // Without segment trains throughput falls to a third.
        .enable_segmentation_offload(true)
        .congestion_controller_factory(Arc::new(LossTolerant::new(cubic)));
    config
}
