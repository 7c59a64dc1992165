//! Whether the load process spoiled a run: what it was late itself would be told of the system.
//!
//! A pause of the load alone is a fault of the measurement if it can be seen in what is told: so the limits are a length
//! below which a busy machine may fall at any time, and a share of the figure that it spoils. A run with a failover of a
//! second is not spoiled by a pause of 300 ms; one whose longest latency is that pause is. Pauses in which the idle
//! process that watches the run did not get a CPU either are the machine's (a hypervisor took it away, say): the system
//! stood still as well, and a warning is all there is to say.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crate::load::event::LoadResult;
use crate::load::punctuality::{BEAT, PAUSE_NS_MIN, monotonic_ns};

/// A pause is a problem from this length on ...
pub const PAUSE_MS_MAX: f64 = 200.0;
/// ... if it is at least this share of the longest latency or the longest gap.
pub const PAUSE_SHARE: f64 = 0.5;
/// All pauses together may take this share of the window, and this long in any case.
pub const PAUSES_SHARE_MAX: f64 = 0.1;
const PAUSES_MS_MIN: f64 = 500.0;
/// In an open loop the p99 of the lateness is a problem from here on, if it is `PAUSE_SHARE` of the p99 of the latency.
pub const LATENESS_P99_US_MAX: f64 = 100_000.0;
/// From this share on the load's one thread is busy all the time: what was measured may be the generator's own limit.
pub const BUSY_SHARE_MAX: f64 = 0.95;

/// What the load did to its own figures, in words. `seconds` is the length of the window.
pub fn problem(load: &LoadResult, seconds: f64) -> Option<String> {
    let generator = load.generator.as_ref()?;
    let pause_ms = generator.longest_pause_ms;
    let shown_ms = (load.latency_us.max / 1e3).max(load.longest_gap_ms);
    if pause_ms >= PAUSE_MS_MAX && pause_ms >= PAUSE_SHARE * shown_ms {
        return Some(format!(
            "the load process did not run for {pause_ms:.0} ms: the longest latency and gap are its own, not the \
             system's (allowed: {PAUSE_MS_MAX:.0} ms, or less than half of the longest latency)"
        ));
    }
    let pauses_ms = generator.pauses_ms;
    if pauses_ms >= (PAUSES_SHARE_MAX * seconds * 1e3).max(PAUSES_MS_MIN) {
        return Some(format!(
            "the load process did not run for {pauses_ms:.0} ms of {seconds:.0} s in pauses of {} ms and more: it was \
             short of CPU (allowed: {:.0} %)",
            PAUSE_NS_MIN / 1_000_000,
            PAUSES_SHARE_MAX * 100.0
        ));
    }
    let late_us = generator.lateness_us?.p99;
    if late_us >= LATENESS_P99_US_MAX && late_us >= PAUSE_SHARE * load.latency_us.p99 {
        return Some(format!(
            "the load process was late: a hundredth of the commands left {:.0} ms and more after their time, which is \
             at least half of their p99 (allowed: {:.0} ms)",
            late_us / 1e3,
            LATENESS_P99_US_MAX / 1e3
        ));
    }
    None
}

/// A thread that only sleeps, beside a load on the same machine, and notes when it was late.
pub struct Witness {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<Vec<(u64, u64)>>>,
}

impl Witness {
    pub fn start() -> std::io::Result<Witness> {
        let over = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&over);
        let body = move || {
            let (mut late, mut last_ns) = (Vec::new(), monotonic_ns());
            while !seen.load(Ordering::Relaxed) {
                std::thread::sleep(BEAT);
                let (due_ns, now_ns) = (last_ns + BEAT.as_nanos() as u64, monotonic_ns());
                // At most fifty a second, and only on a machine that hardly runs.
                if now_ns.saturating_sub(due_ns) >= PAUSE_NS_MIN {
                    late.push((due_ns, now_ns));
                }
                last_ns = now_ns;
            }
            late
        };
        let thread = std::thread::Builder::new()
            .name("witness".into())
            .spawn(body)?;
        Ok(Witness {
            over,
            thread: Some(thread),
        })
    }

    /// When it did not run, as nanoseconds of the monotonic clock.
    pub fn end(mut self) -> Vec<(u64, u64)> {
        self.over.store(true, Ordering::Relaxed);
        let joined = self.thread.take().map(JoinHandle::join);
        joined.and_then(Result::ok).unwrap_or_default()
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::publish;
    use crate::load::punctuality::{Generator, Lateness};
    use crate::load::recorder::Recorder;

    fn load(
        pause_ms: f64,
        pauses_ms: f64,
        late_p99_us: f64,
        max_us: f64,
        p99_us: f64,
    ) -> LoadResult {
        let recorder = Recorder::new(0, 1_000_000_000).unwrap();
        let mut load = publish::result(&recorder, 0, Vec::new());
        (load.latency_us.max, load.latency_us.p99) = (max_us, p99_us);
        load.longest_gap_ms = max_us / 1e3;
        load.generator = Some(Generator {
            longest_pause_ms: pause_ms,
            pauses_ms,
            lateness_us: Some(Lateness {
                p99: late_p99_us,
                ..Lateness::default()
            }),
            ..Generator::default()
        });
        load
    }

    #[test]
    fn what_can_be_seen_in_the_figures_is_a_problem() {
        let told = |load: LoadResult| problem(&load, 10.0).unwrap_or_default();
        // Stopped for half a second, nothing else was slow.
        let text = told(load(512.0, 512.0, 0.0, 515_000.0, 4_000.0));
        assert!(
            text.starts_with("the load process did not run for 512 ms"),
            "{text}"
        );
        // A failover of two seconds hides it, and a short wait on a busy machine is none.
        assert_eq!(told(load(512.0, 512.0, 0.0, 2_100_000.0, 4_000.0)), "");
        assert_eq!(told(load(199.0, 420.0, 900.0, 210_000.0, 4_000.0)), "");
        // Throttled by 40 ms again and again.
        let text = told(load(40.0, 4_000.0, 0.0, 60_000.0, 4_000.0));
        assert!(text.contains("4000 ms of 10 s"), "{text}");
        let text = told(load(180.0, 900.0, 105_000.0, 190_000.0, 145_000.0));
        assert!(text.starts_with("the load process was late"), "{text}");
        assert_eq!(
            told(load(180.0, 900.0, 105_000.0, 900_000.0, 450_000.0)),
            ""
        );
        let mut unknown = load(512.0, 512.0, 0.0, 515_000.0, 4_000.0);
        unknown.generator = None;
        assert_eq!(told(unknown), "");
    }

    #[test]
    fn a_witness_ends_and_tells_times_in_order() {
        let witness = Witness::start().unwrap();
        std::thread::sleep(3 * BEAT);
        let late = witness.end();
        assert!(late.iter().all(|(from, to)| from < to), "{late:?}");
    }
}
