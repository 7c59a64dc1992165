//! The clock of one replica: monotonic, with a rate and jumps of its own.

use synod_engine::ids::Time;

/// Parts per million of a clock that is right.
pub const RATE_TRUE_PPM: u64 = 1_000_000;

#[derive(Clone, Debug)]
pub struct Clock {
    /// At this global time it showed `shown`, and goes on from there at `rate_ppm`. Nanoseconds.
    since: u64,
    shown: u64,
    rate_ppm: u64,
}

impl Clock {
    /// `shown` is what it shows at global time 0.
    pub fn new(shown: u64, rate_ppm: u64) -> Clock {
        Clock {
            since: 0,
            shown,
            rate_ppm,
        }
    }

    pub fn at(&self, global: u64) -> Time {
        let passed = u128::from(global - self.since) * u128::from(self.rate_ppm);
        Time(self.shown + (passed / u128::from(RATE_TRUE_PPM)) as u64)
    }

    /// The first global time at which it shows `time` or more, at least `now`.
    pub fn when(&self, time: Time, now: u64) -> u64 {
        let ahead = u128::from(time.0.saturating_sub(self.shown)) * u128::from(RATE_TRUE_PPM);
        let passed = ahead.div_ceil(u128::from(self.rate_ppm));
        let passed = u64::try_from(passed).unwrap_or(u64::MAX);
        self.since.saturating_add(passed).max(now)
    }

    pub fn jump(&mut self, now: u64, ahead: u64) {
        self.shown = self.at(now).0 + ahead;
        self.since = now;
    }

    pub fn set_rate(&mut self, now: u64, rate_ppm: u64) {
        self.shown = self.at(now).0;
        self.since = now;
        self.rate_ppm = rate_ppm;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_met_at_the_first_moment_that_shows_it() {
        for rate in [900_000, 1_000_000, 1_099_999] {
            let mut clock = Clock::new(77, rate);
            clock.jump(1_000, 5_000);
            for deadline in (0..100_000).step_by(997).map(Time) {
                let met = clock.when(deadline, 1_000);
                assert!(clock.at(met) >= deadline);
                assert!(
                    met == 1_000 || clock.at(met - 1) < deadline,
                    "{rate} {deadline:?}"
                );
            }
        }
    }
}
