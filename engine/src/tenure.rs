//! When an established leader gives way although it is heard: because nothing that it proposes gets chosen, or because
//! its own disk holds everybody up.

use crate::ids::Time;

/// Giving way in close succession doubles the patience, up to this power of two: a cluster in which nobody makes
/// progress must not change its leader all the time.
const DOUBLINGS_MAX: u32 = 5;
/// After so many times the patience without giving way, the next time is the first one again.
const REMEMBERED_PATIENCES: u64 = 8;

#[derive(Clone, Debug, Default)]
pub struct Tenure {
    doublings: u32,
    gave_way_at: Option<Time>,
    /// Since when what there is to propose waits for this replica's own disk.
    throttled_since: Option<Time>,
}

impl Tenure {
    /// How long something may go wrong before this replica gives way; `first_ns` for the first time.
    pub fn patience_ns(&self, now: Time, first_ns: u64) -> u64 {
        first_ns << self.doublings_at(now, first_ns)
    }

    fn doublings_at(&self, now: Time, first_ns: u64) -> u32 {
        let memory_ns = (first_ns << self.doublings).saturating_mul(REMEMBERED_PATIENCES);
        match self.gave_way_at {
            Some(at) if now.since(at) < memory_ns => self.doublings,
            _ => 0,
        }
    }

    pub fn gave_way(&mut self, now: Time, first_ns: u64) {
        self.doublings = (self.doublings_at(now, first_ns) + 1).min(DOUBLINGS_MAX);
        self.gave_way_at = Some(now);
        self.throttled_since = None;
    }

    /// The own disk holds proposals back.
    pub fn throttled(&mut self, now: Time) {
        self.throttled_since.get_or_insert(now);
    }

    /// The own disk keeps up, or there is nothing to lead.
    pub fn kept_up(&mut self) {
        self.throttled_since = None;
    }

    /// For how long the own disk has been holding proposals back.
    pub fn throttled_ns(&self, now: Time) -> u64 {
        self.throttled_since.map_or(0, |since| now.since(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST_NS: u64 = 100;

    #[test]
    fn giving_way_again_and_again_takes_longer_each_time_and_is_forgotten() {
        let mut tenure = Tenure::default();
        let mut now = Time(5);
        for expected in [100, 200, 400, 800, 1_600, 3_200, 3_200] {
            assert_eq!(tenure.patience_ns(now, FIRST_NS), expected);
            now = now.plus(expected);
            tenure.gave_way(now, FIRST_NS);
        }
        let memory_ns = 3_200 * REMEMBERED_PATIENCES;
        assert_eq!(tenure.patience_ns(now.plus(memory_ns - 1), FIRST_NS), 3_200);
        assert_eq!(tenure.patience_ns(now.plus(memory_ns), FIRST_NS), 100);
        tenure.gave_way(now.plus(memory_ns), FIRST_NS);
        assert_eq!(tenure.patience_ns(now.plus(memory_ns), FIRST_NS), 200);
    }

    #[test]
    fn a_disk_that_holds_back_is_timed_from_the_first_moment_until_it_keeps_up() {
        let mut tenure = Tenure::default();
        assert_eq!(tenure.throttled_ns(Time(50)), 0);
        tenure.throttled(Time(50));
        tenure.throttled(Time(60));
        assert_eq!(tenure.throttled_ns(Time(70)), 20);
        tenure.kept_up();
        assert_eq!(tenure.throttled_ns(Time(70)), 0);
        tenure.throttled(Time(80));
        tenure.gave_way(Time(90), FIRST_NS);
        assert_eq!(tenure.throttled_ns(Time(95)), 0);
    }
}
