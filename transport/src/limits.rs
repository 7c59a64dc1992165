//! Every bound of the transport of one replica, in one place, so that they add up to a memory budget.

use synod_engine::ids::REPLICAS_MAX;
use synod_engine::seams::Lane;

use crate::endpoint::{CLIENT_WINDOW_BYTES_MIN, CONNECTION_BYTES_MAX};
use crate::handshake::HANDSHAKE_MS;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
/// Of one connection whatever it carries: keys and certificates, QUIC's own state, and the train that is being written.
const CONNECTION_STATE_BYTES: usize = 128 * KIB;

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
    /// The same for all clients together; beyond, the one for whom most is waiting is disconnected.
    pub clients_queue_bytes_max: usize,
    /// What all clients together may have on their way in QUIC, in each direction. Each gets a share of what is left.
    pub clients_window_bytes_max: usize,
    /// Requests of all clients that did not arrive in full; who begins one beyond is disconnected.
    pub clients_unfinished_bytes_max: usize,
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
            clients_queue_bytes_max: 128 * MIB,
            clients_window_bytes_max: 256 * MIB,
            clients_unfinished_bytes_max: 64 * MIB,
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

    /// What all clients together may have on their way in QUIC, in each direction: at least what each needs.
    pub fn clients_window_bytes(&self) -> usize {
        self.clients_window_bytes_max
            .max(self.clients_max * CLIENT_WINDOW_BYTES_MIN)
    }
}

/// What the transport of a replica with `peers` peers may hold, by name; their sum is in what a replica prints at its start.
pub fn memory_budget(limits: &Limits, peers: usize) -> Vec<(&'static str, u64)> {
    let link = limits.control_queue_bytes_max
        + limits.data_queue_bytes_max
        + limits.bulk_queue_bytes_max
        + CONNECTION_BYTES_MAX
        + CONNECTION_STATE_BYTES;
    let inbox = limits.inbox_control_bytes_max
        + limits.inbox_peer_bytes_max
        + limits.inbox_client_bytes_max;
    let handshakes = limits.peer_handshakes_max + limits.stranger_handshakes_max;
    let each = [
        ("links", peers * link),
        // A lane that is read may bring one frame beyond what there was room for.
        ("inbox", inbox + peers * limits.frame_bytes_max),
        ("handshakes", handshakes * CONNECTION_STATE_BYTES),
        ("clients_queue_bytes_max", limits.clients_queue_bytes_max),
        ("clients_windows", 2 * limits.clients_window_bytes()),
        (
            "clients_unfinished_bytes_max",
            limits.clients_unfinished_bytes_max,
        ),
        (
            "clients_connections",
            limits.clients_max * CONNECTION_STATE_BYTES,
        ),
    ];
    each.map(|(name, bytes)| (name, bytes as u64)).to_vec()
}
