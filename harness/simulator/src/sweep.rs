//! Many seeds on several threads, until all are done or one fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

use crate::checker::Violation;
use crate::faults::Strikes;
use crate::isolation::guarded;
use crate::milestones::Milestones;
use crate::run::{Outcome, simulate};
use crate::seams::Seams;
use crate::swarm::{Bounds, Plan};
use crate::trace::Trace;

/// The first seed of a sweep, unless another one is asked for: the same seeds every time.
pub const FIRST_SEED: u64 = 1;

#[derive(Clone, Debug)]
pub struct Sweep {
    pub first_seed: u64,
    pub seeds: u64,
    pub bounds: Bounds,
    /// Threads; each runs whole seeds.
    pub jobs: usize,
}

/// What the seeds so far gave together.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    pub seeds: u64,
    pub virtual_ns: u64,
    pub operations: u64,
    pub strikes: Strikes,
    pub milestones: Milestones,
    /// Of all seeds: the longest time from healing to a leader, in thousandths of an election timeout.
    pub leader_millitimeouts_worst: u64,
    pub leader_worst_seed: u64,
    pub converged_ns_worst: u64,
    pub converged_worst_seed: u64,
    /// Wall time, in nanoseconds, and on how many threads.
    pub wall_ns: u64,
    pub jobs: usize,
}

/// A seed in which something was wrong.
#[derive(Clone, Debug)]
pub struct FailedSeed {
    pub seed: u64,
    pub violation: Violation,
}

struct Done {
    seed: u64,
    outcome: Result<Outcome, Violation>,
}

impl Summary {
    fn add(&mut self, seed: u64, outcome: &Outcome) {
        self.seeds += 1;
        self.virtual_ns += outcome.virtual_ns;
        self.operations += outcome.operations;
        self.strikes.merge(&outcome.strikes);
        self.milestones.merge(&outcome.milestones);
        if outcome.leader_millitimeouts > self.leader_millitimeouts_worst {
            self.leader_millitimeouts_worst = outcome.leader_millitimeouts;
            self.leader_worst_seed = seed;
        }
        if outcome.converged_ns > self.converged_ns_worst {
            self.converged_ns_worst = outcome.converged_ns;
            self.converged_worst_seed = seed;
        }
    }

    /// Virtual seconds per wall second and thread.
    pub fn speed(&self) -> u64 {
        let wall = self.wall_ns.max(1) * self.jobs.max(1) as u64;
        (u128::from(self.virtual_ns) / u128::from(wall)) as u64
    }
}

/// Runs the seeds; `progress` is told after each one. The first failure that comes ends the sweep.
pub fn sweep<S: Seams + Clone + Send>(
    sweep: &Sweep,
    seams: S,
    mut progress: impl FnMut(&Summary),
) -> (Summary, Option<FailedSeed>) {
    let begun = Instant::now();
    let stop = Arc::new(AtomicBool::new(false));
    let done = start_threads(sweep, &seams, &stop);
    let mut summary = Summary {
        jobs: sweep.jobs,
        ..Summary::default()
    };
    let mut failed = None;
    while summary.seeds < sweep.seeds {
        let Ok(Done { seed, outcome }) = done.recv() else {
            break;
        };
        summary.wall_ns = begun.elapsed().as_nanos() as u64;
        match outcome {
            Ok(outcome) => summary.add(seed, &outcome),
            Err(violation) => {
                failed = Some(FailedSeed { seed, violation });
                break;
            }
        }
        progress(&summary);
    }
    stop.store(true, Ordering::Relaxed);
    (summary, failed)
}

fn start_threads<S: Seams + Clone + Send>(
    sweep: &Sweep,
    seams: &S,
    stop: &Arc<AtomicBool>,
) -> Receiver<Done> {
    let (outcomes, done) = channel();
    let next = Arc::new(AtomicU64::new(0));
    for _ in 0..sweep.jobs {
        let (sweep, seams, stop) = (sweep.clone(), seams.clone(), stop.clone());
        let (next, outcomes) = (next.clone(), outcomes.clone());
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= sweep.seeds {
                    return;
                }
                let seed = sweep.first_seed.wrapping_add(index);
                if !run_one(seed, &sweep.bounds, seams.clone(), &outcomes) {
                    return;
                }
            }
        });
    }
    done
}

/// Returns whether somebody still listens.
fn run_one<S: Seams>(seed: u64, bounds: &Bounds, seams: S, outcomes: &Sender<Done>) -> bool {
    let panics = outcomes.clone();
    let tell = move |violation| {
        let outcome = Err(violation);
        panics.send(Done { seed, outcome }).unwrap_or_default();
    };
    let plan = Plan::draw(seed, bounds);
    match guarded(tell, || simulate(plan, seams, Trace::default())) {
        Some(outcome) => outcomes.send(Done { seed, outcome }).is_ok(),
        None => false,
    }
}
