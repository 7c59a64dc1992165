//! How fast the intake drains, and who fills it: when a refused client should come back, and whose turn it is.

use crate::ids::Time;

/// A refused client stays away at least this long, in microseconds: about one turn of a busy leader.
const RETRY_US_MIN: u32 = 2_000;
/// And at most this long: how fast the intake drains may change.
const RETRY_US_MAX: u32 = 500_000;
/// Before the rate is known.
const RETRY_US_UNKNOWN: u32 = 20_000;
/// The rate is measured over at least this time.
const MEASURE_NS: u64 = 10_000_000;

#[derive(Clone, Debug, Default)]
pub struct Pace {
    /// Bytes in the intake.
    waiting: u64,
    /// Bytes that ever left it.
    drained: u64,
    /// Bytes that leave it in a second.
    rate: u64,
    measured_at: Time,
    measured_drained: u64,
    /// Bytes that were refused and told when to come back, less what drained since.
    expected: u64,
    /// Shares are counted anew whenever everything that waited has drained.
    generation: u64,
    generation_ends: u64,
    /// Sessions that took something in during this generation.
    sessions: u64,
}

/// What one session has in the intake.
#[derive(Clone, Copy, Debug, Default)]
pub struct Share {
    generation: u64,
    bytes: u64,
}

impl Pace {
    /// Once per turn: so many bytes wait now.
    pub fn turn(&mut self, now: Time, waiting: usize) {
        let drained = self.waiting.saturating_sub(waiting as u64);
        self.waiting = waiting as u64;
        self.drained += drained;
        self.expected = self.expected.saturating_sub(drained);
        if self.drained >= self.generation_ends {
            self.generation += 1;
            self.generation_ends = self.drained + self.waiting;
            self.sessions = 0;
        }
        let elapsed = now.since(self.measured_at);
        if elapsed >= MEASURE_NS {
            let bytes = u128::from(self.drained - self.measured_drained);
            let rate = bytes * 1_000_000_000 / u128::from(elapsed);
            self.rate = self.rate / 2 + u64::try_from(rate).unwrap_or(u64::MAX) / 2;
            self.measured_at = now;
            self.measured_drained = self.drained;
        }
    }

    /// Whether a session may take `bytes` more into an intake of `limit` bytes. Half of it goes to whoever comes first;
    /// the other half is shared by all sessions alike, so that a greedy one is refused before a modest one.
    pub fn admits(&mut self, share: &mut Share, bytes: usize, limit: usize) -> bool {
        let (bytes, half) = (bytes as u64, limit as u64 / 2);
        if share.generation != self.generation {
            *share = Share {
                generation: self.generation,
                bytes: 0,
            };
        }
        let newcomer = share.bytes == 0;
        let sessions = self.sessions + u64::from(newcomer);
        let crowded = self.waiting + bytes > half;
        if crowded && !newcomer && share.bytes + bytes > half / sessions {
            return false;
        }
        self.sessions = sessions;
        share.bytes += bytes;
        self.waiting += bytes;
        true
    }

    /// When a client whose request of `bytes` bytes is refused should come back, in microseconds: when those that were
    /// told so before have had their turn, so that they do not all come at once.
    pub fn retry_after_us(&mut self, bytes: usize) -> u32 {
        self.expected = self.expected.saturating_add(bytes as u64);
        if self.rate == 0 {
            return RETRY_US_UNKNOWN;
        }
        let us = u128::from(self.expected) * 1_000_000 / u128::from(self.rate);
        let us = u32::try_from(us).unwrap_or(RETRY_US_MAX);
        if us > RETRY_US_MAX {
            // Nobody is told to stay away longer: they would be expected for ever.
            self.expected = self.rate / (1_000_000 / u64::from(RETRY_US_MAX));
        }
        us.clamp(RETRY_US_MIN, RETRY_US_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// One megabyte per second.
    fn running() -> Pace {
        let mut pace = Pace::default();
        for ms in 1..=200 {
            pace.waiting += 1_000;
            pace.turn(Time(ms * MS), 0);
        }
        assert!((900_000..=1_000_000).contains(&pace.rate), "{}", pace.rate);
        pace
    }

    #[test]
    fn who_is_refused_comes_back_in_turn_at_the_pace_of_the_intake() {
        let mut pace = running();
        let hints: Vec<u32> = (0..4).map(|_| pace.retry_after_us(10_000)).collect();
        for (turn, hint) in (1..).zip(&hints) {
            assert!(hint.abs_diff(turn * 10_000) < turn * 1_500, "{hints:?}");
        }
        // What drained has made room for them.
        pace.waiting = 30_000;
        pace.turn(Time(201 * MS), 0);
        assert!(pace.retry_after_us(10_000) < hints[2]);
        assert_eq!(pace.retry_after_us(1 << 40), RETRY_US_MAX);
        assert!(pace.retry_after_us(1) <= RETRY_US_MAX);
        assert_eq!(running().retry_after_us(1), RETRY_US_MIN);
        assert_eq!(Pace::default().retry_after_us(1), RETRY_US_UNKNOWN);
    }

    #[test]
    fn a_greedy_session_is_refused_before_a_modest_one() {
        let mut pace = Pace::default();
        let (mut greedy, mut modest) = (Share::default(), Share::default());
        let mut taken = 0;
        while pace.admits(&mut greedy, 100, 10_000) {
            taken += 100;
        }
        assert_eq!(taken, 5_000);
        for _ in 0..25 {
            assert!(pace.admits(&mut modest, 100, 10_000));
        }
        assert!(!pace.admits(&mut modest, 100, 10_000));
        assert!(!pace.admits(&mut greedy, 100, 10_000));
        // Once all of that has drained, they begin anew.
        pace.turn(Time(1), 0);
        assert!(pace.admits(&mut greedy, 100, 10_000));
    }
}
