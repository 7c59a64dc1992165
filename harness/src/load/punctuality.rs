//! How late the load process itself was: what a slow generator adds to a latency must not be blamed on the system.
//!
//! A beat of [`BEAT`] runs beside the clients on their one thread. When it comes later than it should, the thread did not
//! get round to it: it was stopped, it waited for a CPU, or it was busy with something else. Such a pause is the
//! generator's own, in either kind of loop: nothing was submitted in it and no reply was taken. In an open loop we also
//! know of each command how long after its intended start the loop first looked at it. What then waited because too much
//! was in flight is the system's, and not counted here.

use std::time::Duration;

use hdrhistogram::Histogram;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::load::schedule::Schedule;

pub const BEAT: Duration = Duration::from_millis(10);
/// A beat may be late by this much: it is what a busy but healthy loop shows on a shared core.
pub const PAUSE_NS_MIN: u64 = 20_000_000;
/// Of more than twice this many, the longest are kept.
const PAUSES_MAX: usize = 256;
/// Commands that became due since the last look are recorded in so many groups, each by its first.
const GROUPS_MAX: u64 = 8;
const LATENESS_NS_MAX: u64 = 3_600_000_000_000;

/// What a load process tells about itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Generator {
    /// Of the measured window: how much of it the one thread was on a CPU.
    pub busy_share: f64,
    /// And how much it wanted one and had to wait, as far as the kernel tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waited_share: Option<f64>,
    /// The longest time in which the loop did not run.
    pub longest_pause_ms: f64,
    /// Sum of all such times of 20 ms and more.
    pub pauses_ms: f64,
    /// Of an open loop: from the intended start of a command until the loop looked at it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lateness_us: Option<Lateness>,
    /// The longest pauses, as nanoseconds of the machine's monotonic clock.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pauses: Vec<(u64, u64)>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Lateness {
    pub p50: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}

/// Watches from the start of the measured window to its end.
pub struct Punctuality {
    /// Nothing counts before and after the window.
    open: bool,
    last_beat_ns: u64,
    longest_ns: u64,
    pauses_ns: u64,
    pauses: Vec<(u64, u64)>,
    lateness: Histogram<u64>,
    began: Thread,
    generator: Option<Generator>,
}

impl Punctuality {
    pub fn new() -> anyhow::Result<Punctuality> {
        Ok(Punctuality {
            open: false,
            last_beat_ns: 0,
            longest_ns: 0,
            pauses_ns: 0,
            pauses: Vec::new(),
            lateness: Histogram::new_with_bounds(1_000, LATENESS_NS_MAX, 2)?,
            began: Thread::default(),
            generator: None,
        })
    }

    /// The window begins.
    pub fn begin(&mut self) {
        self.open = true;
        self.last_beat_ns = monotonic_ns();
        self.began = Thread::now();
    }

    /// The loop ran.
    pub fn beat(&mut self) {
        self.beat_at(monotonic_ns());
    }

    fn beat_at(&mut self, now_ns: u64) {
        if !self.open {
            return;
        }
        let due_ns = self.last_beat_ns + BEAT.as_nanos() as u64;
        let late_ns = now_ns.saturating_sub(due_ns);
        self.longest_ns = self.longest_ns.max(late_ns);
        if late_ns >= PAUSE_NS_MIN {
            self.pauses_ns += late_ns;
            self.pauses.push((due_ns, now_ns));
            if self.pauses.len() > 2 * PAUSES_MAX {
                self.keep_longest();
            }
        }
        self.last_beat_ns = now_ns;
    }

    /// The loop of one client looked at its schedule at `now_ns`; `looked` is up to which command it had looked before.
    pub fn look(&mut self, schedule: &Schedule, looked: &mut u64, due: u64, now_ns: u64) {
        let fresh = due.saturating_sub(*looked);
        let groups = fresh.min(GROUPS_MAX);
        for group in 0..groups {
            let (from, to) = (fresh * group / groups, fresh * (group + 1) / groups);
            let intended_ns = schedule.intended_ns(*looked + from);
            if self.open {
                let late_ns = now_ns.saturating_sub(intended_ns).max(1);
                self.lateness.saturating_record_n(late_ns, to - from);
            }
        }
        *looked += fresh;
    }

    /// The window is over.
    pub fn end(&mut self) {
        self.beat();
        self.open = false;
        self.keep_longest();
        let spent = Thread::now();
        let window_ns = spent.at_ns.saturating_sub(self.began.at_ns).max(1) as f64;
        let share = |ns: u64| (ns as f64 / window_ns * 1e4).round() / 1e4;
        let waited = spent.waited_ns.zip(self.began.waited_ns);
        self.generator = Some(Generator {
            busy_share: share(spent.cpu_ns.saturating_sub(self.began.cpu_ns)),
            waited_share: waited.map(|(after, before)| share(after.saturating_sub(before))),
            longest_pause_ms: millis(self.longest_ns),
            pauses_ms: millis(self.pauses_ns),
            lateness_us: (!self.lateness.is_empty()).then(|| Lateness::of(&self.lateness)),
            pauses: self.pauses.clone(),
        });
    }

    /// Known after [`Punctuality::end`].
    pub fn generator(&self) -> Option<Generator> {
        self.generator.clone()
    }

    fn keep_longest(&mut self) {
        self.pauses
            .sort_unstable_by_key(|(begin, end)| std::cmp::Reverse(end - begin));
        self.pauses.truncate(PAUSES_MAX);
    }
}

impl Lateness {
    fn of(histogram: &Histogram<u64>) -> Lateness {
        let micros = |ns: u64| (ns as f64 / 100.0).round() / 10.0;
        let at = |quantile| micros(histogram.value_at_quantile(quantile));
        Lateness {
            p50: at(0.5),
            p99: at(0.99),
            p999: at(0.999),
            max: micros(histogram.max()),
        }
    }

    fn worst(self, other: Lateness) -> Lateness {
        Lateness {
            p50: self.p50.max(other.p50),
            p99: self.p99.max(other.p99),
            p999: self.p999.max(other.p999),
            max: self.max.max(other.max),
        }
    }
}

impl Generator {
    /// Of several processes, the worst in each respect; `None` if one of them did not look. Their clocks differ, so when
    /// the pauses were is not kept.
    pub fn worst(mut parts: impl Iterator<Item = Option<Generator>>) -> Option<Generator> {
        let first = parts.next()??;
        let worst = parts.try_fold(first, |worst, part| {
            let part = part?;
            let waited = worst.waited_share.zip(part.waited_share);
            let lateness = worst.lateness_us.zip(part.lateness_us);
            Some(Generator {
                busy_share: worst.busy_share.max(part.busy_share),
                waited_share: waited.map(|(a, b)| a.max(b)),
                longest_pause_ms: worst.longest_pause_ms.max(part.longest_pause_ms),
                pauses_ms: worst.pauses_ms.max(part.pauses_ms),
                lateness_us: lateness.map(|(a, b)| a.worst(b)),
                pauses: Vec::new(),
            })
        });
        worst.map(|worst| Generator {
            pauses: Vec::new(),
            ..worst
        })
    }

    /// The same without those pauses in which another process of the machine, which had nothing to do, did not run
    /// either: then the machine stood still, and the system under test with it. Returns how long that was.
    pub fn without(&mut self, others: &[(u64, u64)]) -> f64 {
        let shared = |(begin, end): &(u64, u64)| {
            let both = others.iter().map(|other| {
                let (from, to) = (other.0.max(*begin), other.1.min(*end));
                to.saturating_sub(from)
            });
            both.sum::<u64>() * 2 > end - begin
        };
        let (excused, own): (Vec<_>, Vec<_>) = self.pauses.iter().partition(|pause| shared(pause));
        if excused.is_empty() {
            return 0.0;
        }
        let length = |pauses: &[(u64, u64)]| -> u64 { pauses.iter().map(|(a, b)| b - a).sum() };
        let excused_ms = millis(length(&excused));
        let longest = own.iter().map(|(begin, end)| end - begin).max();
        self.longest_pause_ms = millis(longest.unwrap_or(0));
        self.pauses_ms = (self.pauses_ms - excused_ms).max(0.0);
        self.pauses = own;
        excused_ms
    }
}

/// What the kernel counts of the thread that asks.
#[derive(Clone, Copy, Default)]
struct Thread {
    at_ns: u64,
    cpu_ns: u64,
    /// On a run queue, without a CPU.
    waited_ns: Option<u64>,
}

impl Thread {
    fn now() -> Thread {
        let cpu = clock_gettime(ClockId::ThreadCPUTime);
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
        let waited = text.split_whitespace().nth(1);
        Thread {
            at_ns: monotonic_ns(),
            cpu_ns: cpu.tv_sec as u64 * 1_000_000_000 + cpu.tv_nsec as u64,
            waited_ns: waited.and_then(|waited| waited.parse().ok()),
        }
    }
}

fn millis(ns: u64) -> f64 {
    (ns as f64 / 1e4).round() / 1e2
}

pub fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn a_late_beat_is_a_pause_and_what_is_outside_the_window_is_none() {
        let mut watch = Punctuality::new().unwrap();
        watch.beat_at(5_000 * MS);
        watch.open = true;
        watch.last_beat_ns = 6_000 * MS;
        for at in [6_010, 6_025, 6_044, 6_560, 6_570, 6_605] {
            watch.beat_at(at * MS);
        }
        assert_eq!(watch.longest_ns, 506 * MS);
        assert_eq!(
            watch.pauses,
            [(6_054 * MS, 6_560 * MS), (6_580 * MS, 6_605 * MS)]
        );
        assert_eq!(watch.pauses_ns, 531 * MS);
    }

    #[test]
    fn of_an_open_loop_each_command_is_late_by_its_own_time() {
        let schedule = Schedule::new(0, 1_000, 1, 0);
        let mut watch = Punctuality::new().unwrap();
        watch.open = true;
        let mut looked = 0;
        for ms in 0..1_000u64 {
            // The loop stands still for half a second.
            if (200..700).contains(&ms) {
                continue;
            }
            let now_ns = ms * MS + 300_000;
            watch.look(&schedule, &mut looked, schedule.due(now_ns), now_ns);
        }
        let lateness = Lateness::of(&watch.lateness);
        assert_eq!(watch.lateness.len(), 1_000);
        assert!(
            lateness.max > 495_000.0 && lateness.max < 505_000.0,
            "{lateness:?}"
        );
        assert!(lateness.p50 < 70_000.0, "{lateness:?}");
        assert!(lateness.p99 > 430_000.0, "{lateness:?}");
    }

    #[test]
    fn a_machine_that_stood_still_excuses_and_a_moment_of_another_does_not() {
        let generator = Generator {
            longest_pause_ms: 500.0,
            pauses_ms: 800.0,
            pauses: vec![(0, 500 * MS), (900 * MS, 1_200 * MS)],
            ..Generator::default()
        };
        let mut stood = generator.clone();
        assert_eq!(stood.without(&[(10 * MS, 490 * MS)]), 500.0);
        assert_eq!((stood.longest_pause_ms, stood.pauses_ms), (300.0, 300.0));
        let mut alone = generator.clone();
        assert_eq!(alone.without(&[(100 * MS, 130 * MS)]), 0.0);
        assert_eq!(alone, generator);
        let both = Generator::worst([Some(generator.clone()), Some(stood)].into_iter());
        assert_eq!(both.map(|worst| worst.longest_pause_ms), Some(500.0));
        assert_eq!(Generator::worst([Some(generator), None].into_iter()), None);
    }
}
