//! An artificially slow replica, only in test builds (feature `slowdown`): `synod diff` has to find it.

use std::time::{Duration, Instant};

/// Longer pauses would be no slow build but a broken one.
const PAUSE_MAX: Duration = Duration::from_millis(2);

/// Stretches each round of the event loop by `SYNOD_SLOWDOWN_PERCENT`.
pub struct Slowdown {
    percent: u32,
    last: Instant,
}

impl Slowdown {
    pub fn from_environment() -> Slowdown {
        let percent = std::env::var("SYNOD_SLOWDOWN_PERCENT");
        Slowdown {
            percent: percent.ok().and_then(|text| text.parse().ok()).unwrap_or(0),
            last: Instant::now(),
        }
    }

    /// Called once per round: works for nothing.
    pub fn pause(&mut self) {
        let pause = (self.last.elapsed() * self.percent / 100).min(PAUSE_MAX);
        let began = Instant::now();
        while began.elapsed() < pause {
            std::hint::spin_loop();
        }
        self.last = Instant::now();
    }
}
