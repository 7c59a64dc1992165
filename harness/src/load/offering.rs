//! What one client of an open loop offers: which commands are due, and which of them were refused.
//!
//! A command that finds no room is not forgotten and does not start later than it was meant to: it waits for
//! [`PATIENCE_NS`] and is refused then, by this process, because the system under test has not taken in those before it.
//! So a system that can't keep up costs the generator no memory, what it did take in is measured from the intended
//! start, and what it did not is counted.

use std::ops::Range;

use crate::load::schedule::Schedule;

/// How long a command waits for room before it counts as refused.
const PATIENCE_NS: u64 = 100_000_000;

pub struct Offering {
    schedule: Schedule,
    /// Commands of the schedule that were submitted or refused.
    decided: u64,
    /// Those that are meant to start in the measured window.
    window: Range<u64>,
    refused: u64,
}

/// How many commands were meant to start in the measured window, and how many of them were never submitted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offered {
    pub offered: u64,
    pub refused: u64,
}

impl Offering {
    pub fn new(schedule: Schedule, window_start_ns: u64, window_end_ns: u64) -> Offering {
        Offering {
            window: schedule.due(window_start_ns.saturating_sub(1))
                ..schedule.due(window_end_ns - 1),
            schedule,
            decided: 0,
            refused: 0,
        }
    }

    pub fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    /// Commands that are due and undecided. Those meant to start after the window belong to nobody.
    pub fn due(&self, now_ns: u64) -> u64 {
        self.seen(now_ns).saturating_sub(self.decided)
    }

    /// How many are due, decided or not.
    pub fn seen(&self, now_ns: u64) -> u64 {
        self.schedule.due(now_ns).min(self.window.end)
    }

    /// When the next one is due.
    pub fn next_ns(&self) -> u64 {
        self.schedule.intended_ns(self.decided)
    }

    /// The next `count` are submitted; returns the first one's place in the schedule.
    pub fn submit(&mut self, count: u64) -> u64 {
        let first = self.decided;
        self.decided += count;
        first
    }

    /// Refuses what has waited for too long; returns how many those are.
    pub fn refuse(&mut self, now_ns: u64) -> u64 {
        let count = match now_ns.checked_sub(PATIENCE_NS) {
            Some(before_ns) => self.due(before_ns),
            None => 0,
        };
        self.refuse_next(count);
        count
    }

    /// The load is over: what was not submitted won't be.
    pub fn finish(&mut self) -> Offered {
        self.refuse_next(self.window.end.saturating_sub(self.decided));
        Offered {
            offered: self.window.end - self.window.start,
            refused: self.refused,
        }
    }

    fn refuse_next(&mut self, count: u64) {
        let first = self.submit(count);
        let before_window = self.window.start.saturating_sub(first);
        self.refused += count.saturating_sub(before_window);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// A thousand commands per second, one second of warm-up, two seconds of window.
    fn offering() -> Offering {
        Offering::new(Schedule::new(0, 1_000, 1, 0), 1_000 * MS, 3_000 * MS)
    }

    #[test]
    fn who_waits_too_long_is_refused_and_the_rest_keeps_its_start() {
        let mut offering = offering();
        assert_eq!(offering.due(1_500 * MS), 1_501);
        offering.submit(1_100);
        assert_eq!(offering.refuse(1_500 * MS), 301);
        assert_eq!(offering.refuse(1_500 * MS), 0);
        assert_eq!(offering.due(1_500 * MS), 100);
        assert_eq!(offering.next_ns(), 1_401 * MS);
        let first = offering.submit(offering.due(1_500 * MS));
        assert_eq!(offering.schedule().intended_ns(first), 1_401 * MS);
        // Everything from 1.501 s on is left undecided.
        let offered = offering.finish();
        assert_eq!(offered.offered, 2_000);
        assert_eq!(offered.refused, 301 + 1_499);
    }

    #[test]
    fn what_is_refused_before_the_window_is_not_counted() {
        let mut offering = offering();
        offering.refuse(1_200 * MS);
        assert_eq!(offering.refused, 101);
        offering.submit(offering.due(9_000 * MS));
        let offered = offering.finish();
        assert_eq!((offered.offered, offered.refused), (2_000, 101));
    }
}
