//! When what enters a link leaves it. Told the time, so that the same seed gives the same course.

use std::time::Duration;

use tokio::time::Instant;

use super::Weather;
use crate::chaos::random::Random;

const PARTS: u64 = 1_000_000;

pub struct Course {
    random: Random,
    /// Until then the bandwidth is used up.
    busy_until: Option<Instant>,
    last_leaves: Option<Instant>,
}

impl Weather {
    /// Nothing waits.
    pub fn is_immediate(&self) -> bool {
        self.delay.is_zero() && self.jitter.is_zero() && self.bytes_per_s.is_none()
    }
}

impl Course {
    pub fn new(random: Random) -> Course {
        Course {
            random,
            busy_until: None,
            last_leaves: None,
        }
    }

    /// Draws whether something of this probability happens. What is impossible draws nothing.
    pub fn happens(&mut self, ppm: u32) -> bool {
        ppm > 0 && self.random.below(PARTS) < u64::from(ppm)
    }

    /// How long what enters now has to wait for its turn.
    pub fn queue(&self, now: Instant) -> Duration {
        let busy = self.busy_until;
        busy.map_or(Duration::ZERO, |busy| busy.saturating_duration_since(now))
    }

    /// Whether what enters now finds a full queue.
    pub fn is_full(&self, now: Instant, weather: &Weather) -> bool {
        let most = weather.queue_max;
        most.is_some_and(|most| self.queue(now) > most)
    }

    /// When `bytes` that enter now leave the link.
    pub fn leaves(&mut self, now: Instant, bytes: usize, weather: &Weather) -> Instant {
        let mut sent = now;
        if let Some(bytes_per_s) = weather.bytes_per_s {
            let takes_ns = bytes as u64 * 1_000_000_000 / bytes_per_s.max(1);
            sent =
                self.busy_until.map_or(now, |busy| busy.max(now)) + Duration::from_nanos(takes_ns);
            self.busy_until = Some(sent);
        }
        if self.happens(weather.reorder_ppm) {
            return sent;
        }
        let jitter_us = weather.jitter.as_micros() as u64;
        let jitter = Duration::from_micros(self.random.below(jitter_us + 1));
        let mut leaves = sent + weather.delay + jitter;
        if weather.in_order {
            leaves = self.last_leaves.map_or(leaves, |last| last.max(leaves));
            self.last_leaves = Some(leaves);
        }
        leaves
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn course(seed: u64) -> Course {
        Course::new(Random::new(seed, 1))
    }

    #[test]
    fn nothing_takes_less_than_the_delay_and_order_is_kept() {
        let weather = Weather {
            delay: 10 * MS,
            jitter: 5 * MS,
            in_order: true,
            ..Weather::default()
        };
        let (mut course, start) = (course(1), Instant::now());
        let mut last = start;
        for nth in 0..1_000 {
            let now = start + nth * MS / 10;
            let leaves = course.leaves(now, 100, &weather);
            assert!(leaves >= now + 10 * MS && leaves >= last, "{nth}");
            last = leaves;
        }
    }

    #[test]
    fn jitter_without_order_reorders_and_so_does_reordering() {
        let jitter = Weather {
            delay: 10 * MS,
            jitter: 5 * MS,
            ..Weather::default()
        };
        let overtaking = Weather {
            delay: 10 * MS,
            reorder_ppm: 250_000,
            ..Weather::default()
        };
        for weather in [jitter, overtaking] {
            let (mut course, start) = (course(2), Instant::now());
            let leaves: Vec<Instant> = (0..100)
                .map(|nth| course.leaves(start + nth * MS, 100, &weather))
                .collect();
            assert!(!leaves.is_sorted());
        }
    }

    #[test]
    fn bandwidth_spreads_a_burst() {
        let weather = Weather {
            bytes_per_s: Some(1_000_000),
            ..Weather::default()
        };
        let (mut course, now) = (course(3), Instant::now());
        let leaves: Vec<Duration> = (0..3)
            .map(|_| course.leaves(now, 1_000, &weather) - now)
            .collect();
        assert_eq!(leaves, [MS, 2 * MS, 3 * MS]);
    }

    #[test]
    fn a_queue_holds_what_it_may_and_empties_with_the_rate() {
        let weather = Weather {
            bytes_per_s: Some(1_000_000),
            queue_max: Some(100 * MS),
            ..Weather::default()
        };
        let (mut course, start) = (course(3), Instant::now());
        let mut enter = |now: Instant| {
            let full = course.is_full(now, &weather);
            if !full {
                course.leaves(now, 1_000, &weather);
            }
            !full
        };
        // A millisecond each: the one on the wire, those that wait for 100 ms at most, and no more.
        let taken = (0..10_000).filter(|_| enter(start)).count();
        assert_eq!(taken, 101);
        assert!(!enter(start + MS / 2) && enter(start + MS) && !enter(start + MS));
        assert_eq!((0..10_000).filter(|_| enter(start + 51 * MS)).count(), 50);
    }

    /// Within six standard deviations of the binomial distribution, which this seed is or is not for ever.
    #[test]
    fn the_share_of_what_is_lost_is_what_was_asked_for() {
        let n = 1_000_000.0;
        for ppm in [1_000, 10_000, 300_000] {
            let mut course = course(4);
            let lost = (0..1_000_000).filter(|_| course.happens(ppm)).count() as f64;
            let p = f64::from(ppm) / 1e6;
            let deviation = (n * p * (1.0 - p)).sqrt();
            assert!((lost - n * p).abs() < 6.0 * deviation, "{ppm} ppm: {lost}");
        }
    }
}
