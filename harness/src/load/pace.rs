//! Wakes a client at the intended starts of an open loop, more finely than the runtime's own timers, which count
//! in milliseconds.

use anyhow::Context;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use crate::counter_fd::CounterFd;

/// Where commands come more often than this, those within it leave together. That bounds the wake-ups, and with
/// them what the generator takes from the machine under test; the delay, half of this on average, is part of the
/// measured latency.
const QUANTUM_NS: u64 = 1_000_000;

/// How long to sleep at `now_ns` for a command that is due at `next_ns`. Frequent wake-ups fall on a common grid, so
/// that the clients of a process share them.
pub fn sleep_ns(now_ns: u64, next_ns: u64) -> u64 {
    let grid_ns = (now_ns / QUANTUM_NS + 1) * QUANTUM_NS;
    next_ns.max(grid_ns) - now_ns
}

pub struct Pacer {
    timer: CounterFd,
}

impl Pacer {
    pub fn new() -> anyhow::Result<Pacer> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags).context("no timer")?;
        Ok(Pacer {
            timer: CounterFd::new(timer).context("no timer")?,
        })
    }

    /// Sleeps for `nanos`, at least one.
    pub async fn sleep(&self, nanos: u64) -> anyhow::Result<()> {
        let zero = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let once = Itimerspec {
            it_interval: zero,
            it_value: Timespec {
                tv_sec: (nanos / 1_000_000_000) as i64,
                tv_nsec: (nanos % 1_000_000_000).max(1) as i64,
            },
        };
        timerfd_settime(self.timer.fd(), TimerfdTimerFlags::empty(), &once)
            .context("the timer cannot be set")?;
        // An earlier sleep that was cancelled may have left its count behind: then this one just ends early.
        self.timer.counted().await.context("the timer is gone")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rare_commands_leave_on_time_and_frequent_ones_together() {
        let later = 10 * QUANTUM_NS + 7;
        assert_eq!(sleep_ns(5, later), later - 5);
        assert_eq!(sleep_ns(5, 6), QUANTUM_NS - 5);
        assert_eq!(sleep_ns(QUANTUM_NS, 3), QUANTUM_NS);
    }
}
