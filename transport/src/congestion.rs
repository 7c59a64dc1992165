//! Congestion control of every connection: Cubic (RFC 9438, quinn's), which is told of losses only where they are more
//! than a bad link has anyway.
//!
//! Cubic takes each loss for a full queue. At 1 % of random loss and 140 ms of round trip it is left with a dozen
//! packets per round trip, whatever the link could carry: the leader's Accepts then stand in the send buffer, values
//! are not chosen for seconds, and leaders change. So losses below [`LOSS_TOLERATED_PERCENT`] of what was sent are
//! retransmitted and nothing else, as BBRv3 does (draft-ietf-ccwg-bbr, BBRLossThresh); a queue that overflows loses more
//! than that at once, and then Cubic acts as ever.

use std::any::Any;
use std::sync::Arc;
use std::time::Instant;

use quinn::congestion::{Controller, ControllerFactory, ControllerMetrics, Cubic, CubicConfig};
use quinn_proto::RttEstimator;

/// As in BBRv3. Links that lose more are taken for congested.
const LOSS_TOLERATED_PERCENT: u64 = 2;
/// The share is that of this many packets or so: at 1 % of random loss, 2 % of so many are lost by chance less than once
/// in a thousand times, and a full queue is noticed within a round trip or a few.
const REMEMBERED_PACKETS: u64 = 1_024;
/// Fewer lost packets than these say nothing yet: the first of a connection would be 100 %.
const LOST_PACKETS_MIN: u64 = 8;

/// Makes a controller for each connection.
pub struct LossTolerant {
    cubic: Arc<CubicConfig>,
}

impl LossTolerant {
    pub fn new(cubic: CubicConfig) -> LossTolerant {
        LossTolerant {
            cubic: Arc::new(cubic),
        }
    }
}

impl ControllerFactory for LossTolerant {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(Tolerant {
            cubic: Cubic::new(Arc::clone(&self.cubic), now, current_mtu),
            losses: Losses::new(current_mtu),
        })
    }
}

#[derive(Clone)]
struct Tolerant {
    cubic: Cubic,
    losses: Losses,
}

impl Controller for Tolerant {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.cubic.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        app_limited: bool,
        rtt: &RttEstimator,
    ) {
        self.losses.delivered(bytes);
        self.cubic.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(
        &mut self,
        now: Instant,
        in_flight: u64,
        app_limited: bool,
        largest_packet_num_acked: Option<u64>,
    ) {
        self.cubic
            .on_end_acks(now, in_flight, app_limited, largest_packet_num_acked);
    }

    fn on_congestion_event(
        &mut self,
        now: Instant,
        sent: Instant,
        is_persistent_congestion: bool,
        lost_bytes: u64,
    ) {
        // A router's mark (no bytes are lost) says congestion and means it.
        let said = lost_bytes == 0 || is_persistent_congestion;
        if self.losses.lost(lost_bytes) || said {
            self.cubic
                .on_congestion_event(now, sent, is_persistent_congestion, lost_bytes);
        }
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.losses.mtu = u64::from(new_mtu);
        self.cubic.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        self.cubic.window()
    }

    fn metrics(&self) -> ControllerMetrics {
        self.cubic.metrics()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        self.cubic.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

/// How much of what was sent lately was lost. Older packets count less and less.
#[derive(Clone, Debug)]
struct Losses {
    delivered_bytes: u64,
    lost_bytes: u64,
    mtu: u64,
}

impl Losses {
    fn new(mtu: u16) -> Losses {
        Losses {
            delivered_bytes: 0,
            lost_bytes: 0,
            mtu: u64::from(mtu),
        }
    }

    fn delivered(&mut self, bytes: u64) {
        self.delivered_bytes += bytes;
        self.forget();
    }

    /// Whether so much is lost that a queue must be full.
    fn lost(&mut self, bytes: u64) -> bool {
        self.lost_bytes += bytes;
        let sent_bytes = self.delivered_bytes + self.lost_bytes;
        let congested = self.lost_bytes >= LOST_PACKETS_MIN * self.mtu
            && self.lost_bytes * 100 > sent_bytes * LOSS_TOLERATED_PERCENT;
        self.forget();
        congested
    }

    fn forget(&mut self) {
        if self.delivered_bytes + self.lost_bytes > 2 * REMEMBERED_PACKETS * self.mtu {
            self.delivered_bytes /= 2;
            self.lost_bytes /= 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MTU: u16 = 1_452;

    /// How many of `packets` losses at `percent` are taken for congestion, drawn from `seed`.
    fn taken_for_congestion(percent: u64, packets: u32, seed: u64) -> u32 {
        let mut losses = Losses::new(MTU);
        let mut state = seed | 1;
        let mut taken = 0;
        for _ in 0..packets {
            // xorshift64 (Marsaglia, 2003).
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            match (state >> 20) % 10_000 < percent * 100 {
                true => taken += u32::from(losses.lost(u64::from(MTU))),
                false => losses.delivered(u64::from(MTU)),
            }
        }
        taken
    }

    #[test]
    fn one_percent_of_random_loss_is_a_bad_link_and_five_are_congestion() {
        for seed in 1..20 {
            let at_one = taken_for_congestion(1, 50_000, seed * 7_919);
            assert!(at_one <= 25, "seed {seed}: {at_one} of some 500 losses");
            let at_five = taken_for_congestion(5, 50_000, seed * 7_919);
            assert!(at_five > 2_000, "seed {seed}: {at_five} of some 2,500");
        }
    }

    #[test]
    fn a_queue_that_overflows_is_noticed_within_some_packets() {
        let mut losses = Losses::new(MTU);
        losses.delivered(1_000_000);
        let noticed = (1..).find(|_| losses.lost(u64::from(MTU))).unwrap();
        assert!(noticed <= 25, "{noticed}");
    }

    fn controller() -> Box<dyn Controller> {
        let mut cubic = CubicConfig::default();
        cubic.initial_window(1 << 20);
        Arc::new(LossTolerant::new(cubic)).build(Instant::now(), MTU)
    }

    #[test]
    fn a_few_losses_leave_the_window_and_a_dead_path_or_a_mark_closes_it() {
        let now = Instant::now();
        let lose = |controller: &mut Box<dyn Controller>, persistent, bytes| {
            let before = controller.window();
            controller.on_congestion_event(now, now, persistent, bytes);
            controller.window() < before
        };
        let mut few = controller();
        assert!(!lose(&mut few, false, u64::from(MTU)));
        assert!(lose(&mut controller(), true, u64::from(MTU)));
        assert!(lose(&mut controller(), false, 0));
        assert!(lose(&mut controller(), false, 100 * u64::from(MTU)));
    }
}
