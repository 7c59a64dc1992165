//! Wakes a client at the intended starts of an open loop, more finely than the runtime's own timers, which count
//! in milliseconds.

use anyhow::Context;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use crate::counter_fd::CounterFd;

/// Commands due within this time leave together. It bounds the wake-ups, and with them what the generator takes
/// from the machine under test; the delay, half of this on average, is part of the latency.
pub const QUANTUM_NS: u64 = 200_000;

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
