//! What the transport counts. Everything that hits a limit or is dropped shows up here.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use synod_engine::seams::Lane;

/// One counter that any task may raise.
#[derive(Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Frames and bytes of one direction of one lane, or of all clients.
#[derive(Default)]
pub struct Traffic {
    pub frames: Counter,
    pub bytes: Counter,
}

impl Traffic {
    pub fn add(&self, frames: u64, bytes: u64) {
        self.frames.add(frames);
        self.bytes.add(bytes);
    }
}

#[derive(Default)]
pub struct Counters {
    /// By lane, over all peers.
    pub sent: [Traffic; 3],
    pub received: [Traffic; 3],
    pub client_sent: Traffic,
    pub client_received: Traffic,
    /// Frames that no link took, or that a broken link lost.
    pub link_dropped_frames: Counter,
    /// Those of them that found a full queue.
    pub link_full_frames: Counter,
    /// Links that came up again after they had been up before.
    pub link_reconnects: Counter,
    /// Links whose peer answered that it knows nothing of them, having restarted.
    pub link_resets: Counter,
    /// Attempts to set up a connection that failed, in either direction.
    pub handshake_failures: Counter,
    /// Callers that were asked to prove their address before anything else.
    pub door_asked_for_proof: Counter,
    /// Callers that got no answer, because half-done handshakes held all places.
    pub door_ignored: Counter,
    /// Callers that were turned away before TLS, because no client has a place.
    pub door_refused: Counter,
    /// Times that new certificates were taken in while running.
    pub certificate_renewals: Counter,
    /// Times that new files were no good, so that the old ones stay in use.
    pub certificate_renewals_refused: Counter,
    /// Connections closed because their certificate was revoked.
    pub revoked_connections: Counter,
    /// Times that a peer's data reader waited because the inbox was full.
    pub inbox_peer_waits: Counter,
    /// The same for control frames.
    pub inbox_control_waits: Counter,
    /// Requests answered Busy because the inbox was full.
    pub inbox_refused: Counter,
    /// Questions for the status that one answer serves together with an earlier one.
    pub inbox_status_coalesced: Counter,
    pub gateway_accepted: Counter,
    /// Clients disconnected because they did not take their replies.
    pub gateway_slow_clients: Counter,
    /// Clients turned away because `clients_max` were connected.
    pub gateway_over_limit_clients: Counter,
    /// Connections closed because their bytes were not frames or messages of ours.
    pub protocol_violations: Counter,
}

impl Counters {
    pub fn report(&self, report: &mut dyn FnMut(&'static str, u64)) {
        const NAMES: [[&str; 4]; 3] = [
            [
                "control_sent_frames",
                "control_sent_bytes",
                "control_received_frames",
                "control_received_bytes",
            ],
            [
                "data_sent_frames",
                "data_sent_bytes",
                "data_received_frames",
                "data_received_bytes",
            ],
            [
                "bulk_sent_frames",
                "bulk_sent_bytes",
                "bulk_received_frames",
                "bulk_received_bytes",
            ],
        ];
        for lane in Lane::ALL {
            let at = lane_index(lane);
            report(NAMES[at][0], self.sent[at].frames.get());
            report(NAMES[at][1], self.sent[at].bytes.get());
            report(NAMES[at][2], self.received[at].frames.get());
            report(NAMES[at][3], self.received[at].bytes.get());
        }
        report("client_sent_frames", self.client_sent.frames.get());
        report("client_sent_bytes", self.client_sent.bytes.get());
        report("client_received_frames", self.client_received.frames.get());
        report("client_received_bytes", self.client_received.bytes.get());
        report("link_dropped_frames", self.link_dropped_frames.get());
        report("link_full_frames", self.link_full_frames.get());
        report("link_reconnects", self.link_reconnects.get());
        report("link_resets", self.link_resets.get());
        report("handshake_failures", self.handshake_failures.get());
        report("door_asked_for_proof", self.door_asked_for_proof.get());
        report("door_ignored", self.door_ignored.get());
        report("door_refused", self.door_refused.get());
        report("certificate_renewals", self.certificate_renewals.get());
        report(
            "certificate_renewals_refused",
            self.certificate_renewals_refused.get(),
        );
        report("revoked_connections", self.revoked_connections.get());
        report("inbox_peer_waits", self.inbox_peer_waits.get());
        report("inbox_control_waits", self.inbox_control_waits.get());
        report("inbox_refused", self.inbox_refused.get());
        report("inbox_status_coalesced", self.inbox_status_coalesced.get());
        report("gateway_accepted", self.gateway_accepted.get());
        report("gateway_slow_clients", self.gateway_slow_clients.get());
        report(
            "gateway_over_limit_clients",
            self.gateway_over_limit_clients.get(),
        );
        report("protocol_violations", self.protocol_violations.get());
        report("process_cpu_us", process_cpu_us());
    }
}

/// The position of a lane in an array that holds something for each.
pub fn lane_index(lane: Lane) -> usize {
    match lane {
        Lane::Control => 0,
        Lane::Data => 1,
        Lane::Bulk => 2,
    }
}

/// User and system time of the whole process, so that a status reply shows what the load costs.
fn process_cpu_us() -> u64 {
    let spent = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let micros = spent.tv_sec * 1_000_000 + spent.tv_nsec / 1_000;
    u64::try_from(micros).unwrap_or(0)
}
