//! The commands of one client that wait for their replies, kept per run and not per command.

use std::collections::VecDeque;

use crate::load::recorder::Recorder;
use crate::load::schedule::Schedule;

/// When the commands of a run started.
#[derive(Clone, Copy, Debug)]
pub enum Start {
    /// Closed loop: all of them when the run was sent.
    Sent { at_ns: u64 },
    /// Open loop: each at its own intended time; the first is the schedule's `nth`.
    Scheduled { schedule: Schedule, nth: u64 },
}

#[derive(Clone, Copy, Debug)]
struct Run {
    first: u64,
    count: u32,
    start: Start,
}

#[derive(Default)]
pub struct InFlight {
    runs: VecDeque<Run>,
    commands: u64,
}

/// Replies that don't continue where the last ones ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("replies from command {got} on came where command {expected} was next")]
pub struct OutOfOrder {
    pub expected: u64,
    pub got: u64,
}

impl InFlight {
    pub fn sent(&mut self, first: u64, count: u32, start: Start) {
        self.runs.push_back(Run {
            first,
            count,
            start,
        });
        self.commands += u64::from(count);
    }

    pub fn commands(&self) -> u64 {
        self.commands
    }

    /// The oldest command without a reply; 0 if there is none.
    pub fn first(&self) -> u64 {
        self.runs.front().map_or(0, |run| run.first)
    }

    /// Takes the replies of `count` commands from `first` on, and records how long they took.
    pub fn acknowledged(
        &mut self,
        first: u64,
        count: u32,
        now_ns: u64,
        recorder: &mut Recorder,
    ) -> Result<(), OutOfOrder> {
        if first != self.first() || u64::from(count) > self.commands {
            return Err(OutOfOrder {
                expected: self.first(),
                got: first,
            });
        }
        recorder.acknowledged(now_ns, u64::from(count));
        let mut left = count;
        while left > 0 {
            let Some(run) = self.runs.front_mut() else {
                break;
            };
            let taken = left.min(run.count);
            match &mut run.start {
                Start::Sent { at_ns } => recorder.latency(*at_ns, now_ns, u64::from(taken)),
                Start::Scheduled { schedule, nth } => {
                    for _ in 0..taken {
                        recorder.latency(schedule.intended_ns(*nth), now_ns, 1);
                        *nth += 1;
                    }
                }
            }
            run.first += u64::from(taken);
            run.count -= taken;
            if run.count == 0 {
                self.runs.pop_front();
            }
            left -= taken;
            self.commands -= u64::from(taken);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_may_cut_and_join_runs() {
        let mut recorder = Recorder::new(0, 1_000).unwrap();
        let mut in_flight = InFlight::default();
        in_flight.sent(1, 4, Start::Sent { at_ns: 0 });
        in_flight.sent(5, 4, Start::Sent { at_ns: 100 });
        in_flight.acknowledged(1, 3, 200, &mut recorder).unwrap();
        in_flight.acknowledged(4, 3, 300, &mut recorder).unwrap();
        assert_eq!((in_flight.first(), in_flight.commands()), (7, 2));
        recorder.finish().unwrap();
        assert_eq!(recorder.merged().count_at(300), 1);
        assert_eq!(recorder.merged().count_at(200), 5);
    }

    #[test]
    fn a_hole_or_a_repeat_is_noticed() {
        let mut recorder = Recorder::new(0, 1_000).unwrap();
        let mut in_flight = InFlight::default();
        in_flight.sent(1, 4, Start::Sent { at_ns: 0 });
        for (first, count) in [(2, 1), (0, 1), (1, 5)] {
            assert!(
                in_flight
                    .acknowledged(first, count, 1, &mut recorder)
                    .is_err()
            );
        }
    }
}
