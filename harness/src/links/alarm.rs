//! Waits until a time with the kernel's precision: the runtime's own timer is no finer than a millisecond, which is
//! more than a link of a local network takes.

use std::io;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::time::Instant;

use crate::counter_fd::CounterFd;

pub struct Alarm(CounterFd);

impl Alarm {
    /// Has to be called within a runtime.
    pub fn new() -> io::Result<Alarm> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        CounterFd::new(timerfd_create(TimerfdClockId::Monotonic, flags)?).map(Alarm)
    }

    /// Returns at `time`, or soon after it.
    pub async fn until(&self, time: Instant) -> io::Result<()> {
        loop {
            let left = time.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            let timer = Itimerspec {
                it_interval: Timespec {
                    tv_sec: 0,
                    tv_nsec: 0,
                },
                it_value: Timespec {
                    tv_sec: left.as_secs() as i64,
                    tv_nsec: i64::from(left.subsec_nanos()),
                },
            };
            timerfd_settime(self.0.fd(), TimerfdTimerFlags::empty(), &timer)?;
            self.0.counted().await?;
        }
    }
}
