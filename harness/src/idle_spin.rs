//! Staying awake for a moment instead of going to sleep at once.
//!
//! Waking a sleeping core is the largest part of an unloaded command's latency, and on a shared virtual machine it costs more than all the work of a command. A replica that has just been active
//! therefore polls for a short while, but only while that takes nothing from anybody: it offers the core to others at
//! each step and goes to sleep as soon as one of them takes it. Under load it sleeps at once, for then one wake-up
//! serves hundreds of commands and the core has better things to do.

use std::time::{Duration, Instant};

use synod_engine::ids::Time;
use synod_engine::seams::Arrival;

/// `sched_yield` returns sooner than this if nobody else wanted the core.
const UNCONTENDED_MAX: Duration = Duration::from_micros(8);
/// A turn that takes in at least this many bytes is one of many commands.
const LOADED_BYTES_MIN: usize = 4 << 10;
/// How long one such turn keeps a replica from spinning.
const LOADED_NS: u64 = 2_000_000;

#[derive(Debug)]
pub struct IdleSpin {
    budget: Duration,
    loaded_until: Time,
}

impl IdleSpin {
    /// `budget` bounds each time awake; zero goes to sleep at once.
    pub fn new(budget: Duration) -> IdleSpin {
        IdleSpin {
            budget,
            loaded_until: Time(0),
        }
    }

    /// Looks at what a turn takes in.
    pub fn note(&mut self, now: Time, arrivals: &[Arrival]) {
        let bytes: usize = arrivals.iter().map(length).sum();
        if bytes >= LOADED_BYTES_MIN {
            self.loaded_until = now.plus(LOADED_NS);
        }
    }

    pub fn worthwhile(&self, now: Time) -> bool {
        !self.budget.is_zero() && now >= self.loaded_until
    }

    pub fn start(&self) -> Spinning {
        let now = Instant::now();
        Spinning {
            until: now + self.budget,
        }
    }
}

fn length(arrival: &Arrival) -> usize {
    match arrival {
        Arrival::Peer { frame, .. } | Arrival::Client { frame, .. } => frame.len(),
        Arrival::ClientNamed { .. } | Arrival::ClientGone { .. } => 0,
    }
}

pub struct Spinning {
    until: Instant,
}

impl Spinning {
    /// Offers the core to others. False once one of them took it, or the budget is used up.
    pub fn goes_on(&mut self) -> bool {
        let before = Instant::now();
        rustix::thread::sched_yield();
        let after = Instant::now();
        after < self.until && after - before < UNCONTENDED_MAX
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use synod_engine::ids::ReplicaId;

    use super::*;

    fn arrival(bytes: usize) -> Arrival {
        Arrival::Peer {
            from: ReplicaId(1),
            frame: Bytes::from(vec![0; bytes]),
        }
    }

    #[test]
    fn a_loaded_replica_sleeps_at_once_and_a_quiet_one_stays_awake() {
        let mut spin = IdleSpin::new(Duration::from_micros(100));
        spin.note(Time(0), &[arrival(200)]);
        assert!(spin.worthwhile(Time(0)));
        spin.note(
            Time(0),
            &[arrival(LOADED_BYTES_MIN / 2), arrival(LOADED_BYTES_MIN / 2)],
        );
        assert!(!spin.worthwhile(Time(0)));
        assert!(spin.worthwhile(Time(LOADED_NS)));
        assert!(!IdleSpin::new(Duration::ZERO).worthwhile(Time(0)));
    }

    #[test]
    fn spinning_ends_by_itself() {
        let mut spinning = IdleSpin::new(Duration::from_micros(100)).start();
        while spinning.goes_on() {}
    }
}
