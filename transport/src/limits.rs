//! Every bound of the transport of one replica, in one place, so that they add up to a memory budget.

use synod_engine::ids::REPLICAS_MAX;
use synod_engine::seams::Lane;

use crate::handshake::HANDSHAKE_MS;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// What one replica's transport may hold at most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes waiting for one peer's Control lane; a frame beyond is dropped and counted.
    pub control_queue_bytes_max: usize,
    /// The same for the Data lane.
    pub data_queue_bytes_max: usize,
    /// The same for the Bulk lane.
    pub bulk_queue_bytes_max: usize,
    /// Bytes waiting for one client; a client beyond is disconnected and counted.
    pub client_queue_bytes_max: usize,
    /// Bytes of peers' control frames that arrived and were not drained yet.
    pub inbox_control_bytes_max: usize,
    /// The same for peers' data and bulk frames.
    pub inbox_peer_bytes_max: usize,
    /// The same for all clients together; requests beyond are answered Busy.
    pub inbox_client_bytes_max: usize,
    /// The longest frame a peer may send.
    pub frame_bytes_max: usize,
    /// The longest frame a client may send.
    pub request_bytes_max: usize,
    /// Client connections; one beyond is refused and counted.
    pub clients_max: usize,
    /// Handshakes under way with callers from where peers are expected; beyond, callers hear nothing.
    pub peer_handshakes_max: usize,
    /// The same with anybody else.
    pub stranger_handshakes_max: usize,
    /// How long TLS may take, and after it the Hello. It has to grow with the path, as the engine's timers do.
    pub handshake_ms_max: u64,
    /// What a Busy answer of the gateway tells the client to wait.
    pub busy_retry_us: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            control_queue_bytes_max: MIB,
            data_queue_bytes_max: 16 * MIB,
            bulk_queue_bytes_max: 16 * MIB,
            client_queue_bytes_max: 16 * MIB,
            inbox_control_bytes_max: 4 * MIB,
            inbox_peer_bytes_max: 16 * MIB,
            inbox_client_bytes_max: 16 * MIB,
            frame_bytes_max: 16 * MIB,
            request_bytes_max: MIB,
            clients_max: 1024,
            peer_handshakes_max: 2 * REPLICAS_MAX as usize,
            stranger_handshakes_max: 64,
            handshake_ms_max: HANDSHAKE_MS,
            busy_retry_us: 2_000,
        }
    }
}

impl Limits {
    pub fn lane_queue_bytes_max(&self, lane: Lane) -> usize {
        match lane {
            Lane::Control => self.control_queue_bytes_max,
            Lane::Data => self.data_queue_bytes_max,
            Lane::Bulk => self.bulk_queue_bytes_max,
        }
    }

    /// Bytes that the queues towards `peers` peers and the inbox hold together at most. Clients add
    /// `client_queue_bytes_max` each, QUIC's own buffers [`crate::endpoint::CONNECTION_BYTES_MAX`] per connection.
    pub fn queued_bytes_max(&self, peers: usize) -> usize {
        let link =
            self.control_queue_bytes_max + self.data_queue_bytes_max + self.bulk_queue_bytes_max;
        peers * link
            + self.inbox_control_bytes_max
            + self.inbox_peer_bytes_max
            + self.inbox_client_bytes_max
    }
}
