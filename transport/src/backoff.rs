//! Delays between attempts to connect: doubling, with jitter, so that replicas restarted together spread out.

use std::time::Duration;

const DELAY_MIN: Duration = Duration::from_millis(20);
/// While the other side may be back at any moment.
pub const DELAY_MAX: Duration = Duration::from_millis(500);
/// Between replicas, after a refusal that lasts until somebody changes a configuration. A rolling upgrade is full of these,
/// and must not keep links down for long.
pub const PEER_REFUSED_DELAY_MAX: Duration = Duration::from_secs(5);
/// Of a client that is not wanted or has no place: there may be thousands of them, and each attempt costs a handshake.
pub const CLIENT_REFUSED_DELAY_MAX: Duration = Duration::from_secs(30);

pub struct Backoff {
    delay: Duration,
    random: u64,
}

impl Backoff {
    pub fn new(seed: u64) -> Backoff {
        Backoff {
            delay: DELAY_MIN,
            random: seed,
        }
    }

    pub fn reset(&mut self) {
        self.delay = DELAY_MIN;
    }

    /// The next delay: between half of the current step and the whole of it. Steps double up to `delay_max`.
    pub fn next(&mut self, delay_max: Duration) -> Duration {
        let whole = self.delay.min(delay_max);
        self.delay = (whole * 2).min(delay_max);
        let half = whole / 2;
        half + half.mul_f64(self.fraction())
    }

    /// SplitMix64, scaled to 0..1.
    fn fraction(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        (mixed >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_the_limit_and_differ_by_seed() {
        let mut one = Backoff::new(1);
        let mut two = Backoff::new(2);
        let delays: Vec<_> = (0..10).map(|_| one.next(DELAY_MAX)).collect();
        assert!(delays[0] >= DELAY_MIN / 2 && delays[0] <= DELAY_MIN);
        assert!(delays[9] >= DELAY_MAX / 2 && delays[9] <= DELAY_MAX);
        assert_ne!(
            delays,
            (0..10).map(|_| two.next(DELAY_MAX)).collect::<Vec<_>>()
        );
        // Refusals that last are met with more patience, and no longer than they last.
        let refused: Vec<_> = (0..8).map(|_| one.next(CLIENT_REFUSED_DELAY_MAX)).collect();
        assert!(refused[7] >= CLIENT_REFUSED_DELAY_MAX / 2);
        assert!(one.next(DELAY_MAX) <= DELAY_MAX);
        one.reset();
        assert!(one.next(DELAY_MAX) <= DELAY_MIN);
    }
}
