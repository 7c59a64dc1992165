//! What a surge did to the commands that started in it, and how soon after it all was as before.

use hdrhistogram::Histogram;

use crate::load::recorder::{INTERVAL_MS, Percentiles};
use crate::load::surge::Surge;

const NANOS_PER_MS: u64 = 1_000_000;
const INTERVAL_NS: u64 = INTERVAL_MS * NANOS_PER_MS;

pub struct SurgeWatch {
    surge: Surge,
    window_start_ns: u64,
    from_ns: u64,
    until_ns: u64,
    /// The longest of those that started in the window and were answered before the surge.
    worst_before_ns: u64,
    during: Histogram<u64>,
    /// Per interval after the surge the longest latency that was acknowledged in it; nothing yet is `None`.
    after: Vec<Option<u64>>,
}

impl SurgeWatch {
    pub fn new(
        surge: Surge,
        window_start_ns: u64,
        window_end_ns: u64,
        during: Histogram<u64>,
    ) -> SurgeWatch {
        let until_ns = window_start_ns + surge.end_ms() * NANOS_PER_MS;
        let intervals = window_end_ns.saturating_sub(until_ns) / INTERVAL_NS;
        SurgeWatch {
            surge,
            window_start_ns,
            from_ns: window_start_ns + surge.at_ms * NANOS_PER_MS,
            until_ns,
            worst_before_ns: 0,
            during,
            after: vec![None; intervals as usize],
        }
    }

    /// `count` commands that were meant to start at `started_ns` were acknowledged at `now_ns`.
    pub fn acknowledged(&mut self, started_ns: u64, now_ns: u64, count: u64) {
        let latency_ns = now_ns.saturating_sub(started_ns).max(1);
        if now_ns < self.from_ns && started_ns >= self.window_start_ns {
            self.worst_before_ns = self.worst_before_ns.max(latency_ns);
        }
        if (self.from_ns..self.until_ns).contains(&started_ns) {
            self.during.saturating_record_n(latency_ns, count);
        }
        self.note_after(now_ns, latency_ns);
    }

    /// A command was refused at `now_ns`.
    pub fn refused(&mut self, now_ns: u64) {
        self.note_after(now_ns, u64::MAX);
    }

    fn note_after(&mut self, now_ns: u64, latency_ns: u64) {
        let Some(since_ns) = now_ns.checked_sub(self.until_ns) else {
            return;
        };
        if let Some(worst) = self.after.get_mut((since_ns / INTERVAL_NS) as usize) {
            *worst = (*worst).max(Some(latency_ns));
        }
    }

    pub fn surge(&self) -> Surge {
        self.surge
    }

    /// Of the commands that were meant to start in the surge and were answered.
    pub fn latency(&self) -> Percentiles {
        Percentiles::of(&self.during)
    }

    /// Until the end of the first interval after the surge in which nothing was refused and no command had taken longer
    /// than the longest before the surge, in milliseconds from the end of the surge.
    pub fn normal_after_ms(&self) -> Option<u64> {
        let normal = |worst: &Option<u64>| worst.is_some_and(|worst| worst <= self.worst_before_ns);
        let first = self.after.iter().position(normal)?;
        Some((first as u64 + 1) * INTERVAL_MS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = NANOS_PER_MS;

    #[test]
    fn all_is_normal_once_nobody_waits_longer_than_before() {
        let surge: Surge = "4x@2s+1s".parse().unwrap();
        let histogram = Histogram::new_with_bounds(1, 1_000_000 * MS, 3).unwrap();
        let mut watch = SurgeWatch::new(surge, 1_000 * MS, 6_000 * MS, histogram);
        let mut acknowledged = |started_ms: u64, latency_ms: u64| {
            watch.acknowledged(started_ms * MS, (started_ms + latency_ms) * MS, 1);
        };
        acknowledged(500, 90); // Of the warm-up: it tells nothing.
        acknowledged(2_000, 5);
        acknowledged(3_100, 300);
        acknowledged(3_900, 150); // Acknowledged after the surge.
        acknowledged(4_101, 6);
        acknowledged(4_204, 5);
        acknowledged(4_304, 5);
        watch.refused(4_290 * MS);
        assert_eq!(watch.normal_after_ms(), Some(400));
        assert!(watch.latency().max_ns >= 299 * MS);
        assert_eq!(watch.during.len(), 2);
    }

    #[test]
    fn it_may_never_be_as_before() {
        let surge: Surge = "4x@2s+1s".parse().unwrap();
        let histogram = Histogram::new_with_bounds(1, 1_000_000 * MS, 3).unwrap();
        let mut watch = SurgeWatch::new(surge, 0, 6_000 * MS, histogram);
        watch.acknowledged(1_000 * MS, 1_005 * MS, 1);
        watch.acknowledged(3_500 * MS, 3_506 * MS, 1);
        assert_eq!(watch.normal_after_ms(), None);
    }
}
