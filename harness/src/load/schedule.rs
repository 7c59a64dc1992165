//! When each command of an open loop is meant to start.
//!
//! The schedule is fixed before the run and never waits for the system under test: a command that leaves late
//! because the system stalled is still measured from its intended start, otherwise the stall would hide itself
//! ("coordinated omission").

/// The share of one client in a fixed rate: the commands `index`, `index + clients`, … of the whole.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    start_ns: u64,
    rate_per_s: u64,
    clients: u64,
    index: u64,
}

const NANOS_PER_S: u128 = 1_000_000_000;

impl Schedule {
    pub fn new(start_ns: u64, rate_per_s: u64, clients: u32, index: u32) -> Schedule {
        assert!(rate_per_s > 0 && index < clients);
        Schedule {
            start_ns,
            rate_per_s,
            clients: u64::from(clients),
            index: u64::from(index),
        }
    }

    /// The intended start of this client's `nth` command, from 0.
    pub fn intended_ns(&self, nth: u64) -> u64 {
        let overall = u128::from(nth) * u128::from(self.clients) + u128::from(self.index);
        self.start_ns + (overall * NANOS_PER_S / u128::from(self.rate_per_s)) as u64
    }

    /// How many of this client's commands are meant to have started by `now_ns`.
    pub fn due(&self, now_ns: u64) -> u64 {
        let Some(since_ns) = now_ns.checked_sub(self.start_ns) else {
            return 0;
        };
        let overall = u128::from(since_ns) * u128::from(self.rate_per_s) / NANOS_PER_S;
        let estimate =
            (overall.saturating_sub(u128::from(self.index)) / u128::from(self.clients)) as u64;
        // Both divisions round down, so the estimate may be short by one or two.
        let mut due = estimate;
        while self.intended_ns(due) <= now_ns {
            due += 1;
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let schedule = Schedule::new(5, 999_983, 4, 3);
        for nth in [0, 1, 2, 1_000, 123_456_789] {
            let intended = schedule.intended_ns(nth);
            assert_eq!(schedule.due(intended), nth + 1);
            assert_eq!(schedule.due(intended - 1), nth);
        }
    }
}
