//! When each command of an open loop is meant to start.
//!
//! The schedule is fixed before the run and never waits for the system under test: a command that leaves late
//! because the system stalled is still measured from its intended start, otherwise the stall would hide itself
//! ("coordinated omission").

use crate::load::surge::Surge;

/// The share of one client in a fixed rate: the commands `index`, `index + clients`, … of the whole.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    /// In order; the first one begins with command 0, the last one never ends.
    stretches: [Stretch; STRETCHES],
    clients: u64,
    index: u64,
}

/// Before, during and after a surge.
const STRETCHES: usize = 3;

/// A time of one rate.
#[derive(Clone, Copy, Debug)]
struct Stretch {
    start_ns: u64,
    /// Of all commands, the one that is meant to start at `start_ns`.
    first: u64,
    rate_per_s: u64,
}

const NANOS_PER_S: u128 = 1_000_000_000;
const NANOS_PER_MS: u64 = 1_000_000;

impl Stretch {
    /// How many of its commands are meant to start within its first `nanos` nanoseconds, the one at zero included.
    fn within(&self, nanos: u64) -> u64 {
        // The start of its m-th command is rounded down, so it counts where m < nanos × rate, rounded up.
        (u128::from(nanos) * u128::from(self.rate_per_s)).div_ceil(NANOS_PER_S) as u64
    }

    fn next(&self, start_ns: u64, rate_per_s: u64) -> Stretch {
        Stretch {
            start_ns,
            first: self.first + self.within(start_ns - self.start_ns),
            rate_per_s,
        }
    }
}

impl Schedule {
    pub fn new(start_ns: u64, rate_per_s: u64, clients: u32, index: u32) -> Schedule {
        assert!(rate_per_s > 0 && index < clients);
        let whole = Stretch {
            start_ns,
            first: 0,
            rate_per_s,
        };
        Schedule {
            stretches: [whole; STRETCHES],
            clients: u64::from(clients),
            index: u64::from(index),
        }
    }

    /// With a surge whose times count from `window_start_ns`, which is not before the schedule's own start.
    pub fn with_surge(mut self, surge: &Surge, window_start_ns: u64) -> Schedule {
        let [before, ..] = self.stretches;
        let at = |millis: u64| window_start_ns + millis * NANOS_PER_MS;
        let rate_per_s = before.rate_per_s * u64::from(surge.factor);
        let during = before.next(at(surge.at_ms), rate_per_s);
        let after = during.next(at(surge.end_ms()), before.rate_per_s);
        self.stretches = [before, during, after];
        self
    }

    /// The intended start of this client's `nth` command, from 0.
    pub fn intended_ns(&self, nth: u64) -> u64 {
        let overall = nth * self.clients + self.index;
        let stretch = self.stretch(|stretch| stretch.first <= overall);
        let into =
            u128::from(overall - stretch.first) * NANOS_PER_S / u128::from(stretch.rate_per_s);
        stretch.start_ns + into as u64
    }

    /// How many of this client's commands are meant to have started by `now_ns`.
    pub fn due(&self, now_ns: u64) -> u64 {
        if now_ns < self.stretches[0].start_ns {
            return 0;
        }
        let stretch = self.stretch(|stretch| stretch.start_ns <= now_ns);
        let overall = stretch.first + stretch.within(now_ns - stretch.start_ns + 1);
        match overall.checked_sub(self.index + 1) {
            Some(before) => before / self.clients + 1,
            None => 0,
        }
    }

    /// The last stretch that has begun; the first one has in any case.
    fn stretch(&self, begun: impl Fn(&Stretch) -> bool) -> Stretch {
        let [before, during, after] = self.stretches;
        match (begun(&after), begun(&during)) {
            (true, _) => after,
            (false, true) => during,
            (false, false) => before,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = NANOS_PER_MS;

    #[test]
    fn clients_share_the_rate_evenly() {
        let schedules: Vec<Schedule> = (0..3).map(|i| Schedule::new(1_000, 7_000, 3, i)).collect();
        for now_ns in [0, 999, 1_000, 142_857, 143_857, 500_000_000, 1_000_001_000] {
            let counted: u64 = schedules.iter().map(|schedule| schedule.due(now_ns)).sum();
            let expected = match now_ns {
                0..1_000 => 0,
                _ => (0..)
                    .take_while(|n| 1_000 + n * 1_000_000_000 / 7_000 <= now_ns)
                    .count() as u64,
            };
            assert_eq!(counted, expected, "at {now_ns}");
        }
    }

    #[test]
    fn a_command_is_due_exactly_from_its_intended_start_on() {
        let surge: Surge = "7x@2s+333ms".parse().unwrap();
        for schedule in [
            Schedule::new(5, 999_983, 4, 3),
            Schedule::new(5, 999_983, 4, 3).with_surge(&surge, 1_000 * MS),
            Schedule::new(0, 3, 2, 1).with_surge(&surge, 0),
        ] {
            for nth in [0, 1, 2, 1_000, 749_000, 750_000, 1_200_000, 123_456_789] {
                let intended = schedule.intended_ns(nth);
                assert_eq!(schedule.due(intended), nth + 1);
                assert_eq!(schedule.due(intended - 1), nth);
            }
        }
    }

    #[test]
    fn a_surge_offers_more_and_ends() {
        let surge: Surge = "5x@2s+1s".parse().unwrap();
        let schedules: Vec<Schedule> = (0..4)
            .map(|i| Schedule::new(0, 1_000, 4, i).with_surge(&surge, 1_000 * MS))
            .collect();
        let offered = |from_ms: u64, to_ms: u64| -> u64 {
            let due = |schedule: &Schedule, ms: u64| match (ms * MS).checked_sub(1) {
                Some(last_ns) => schedule.due(last_ns),
                None => 0,
            };
            schedules
                .iter()
                .map(|schedule| due(schedule, to_ms) - due(schedule, from_ms))
                .sum()
        };
        assert_eq!(offered(0, 3_000), 3_000);
        assert_eq!(offered(3_000, 4_000), 5_000);
        assert_eq!(offered(3_000, 3_100), 500);
        assert_eq!(offered(4_000, 9_000), 5_000);
    }
}
