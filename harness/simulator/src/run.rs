//! One seed in two phases: faults at random, then a quorum heals and must converge.

use synod_engine::ids::ReplicaSet;

use crate::checker::{LIVENESS, Violation};
use crate::faults::{Fault, Strikes};
use crate::milestones::Milestones;
use crate::seams::Seams;
use crate::swarm::Plan;
use crate::trace::Trace;
use crate::world::World;

/// Once a quorum is healed, a leader must be found within this many election timeouts, and the time that the slowest
/// of the quorum needs to fetch what it lacks: failed candidacies during the
/// storm have doubled patience and back-off, and both are waited for before the first good one.
pub const LEADER_WITHIN_TIMEOUTS: u64 = 30;

/// And every client must be done and all healed replicas equal within this many more.
pub const CONVERGED_WITHIN_TIMEOUTS: u64 = 200;

/// Commands that each client submits after the healing.
const SUBMIT_AFTER_HEALING: u64 = 5;

const STEP_NS: u64 = 5_000_000;

/// What came of a seed in which nothing was wrong.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub virtual_ns: u64,
    /// Replies that reached a client and were checked.
    pub operations: u64,
    pub strikes: Strikes,
    pub milestones: Milestones,
    /// From the healing until a leader served, in nanoseconds and in thousandths of an election timeout.
    pub leader_ns: u64,
    pub leader_millitimeouts: u64,
    /// From the healing until everything was equal and done.
    pub converged_ns: u64,
}

/// Runs a plan to its end.
pub fn simulate<S: Seams>(plan: Plan, seams: S, trace: Trace) -> Result<Outcome, Violation> {
    let mut world = World::with(plan, seams, trace);
    let storm_ns = world.plan.storm_ns;
    world.run_to(storm_ns)?;
    let mut outcome = Outcome::default();
    let working = world.heal(SUBMIT_AFTER_HEALING);
    // A clog holds up what was sent before, and what is sent behind it: the links work from here on.
    let clear = world.links.last_arrival().max(world.now);
    world.run_to(clear)?;
    converge(&mut world, working, &mut outcome)?;
    let end = world.plan.virtual_ns;
    if world.now < end {
        world.run_to(end)?;
    }
    if world.plan.faults.contains(Fault::ClientRetry) {
        let retries = world.clients.iter().map(|client| client.retries()).sum();
        world.strikes.add(Fault::ClientRetry, retries);
    }
    outcome.virtual_ns = world.now;
    outcome.operations = world.operations;
    outcome.strikes = world.strikes.clone();
    outcome.milestones = world.milestones();
    Ok(outcome)
}

fn converge<S: Seams>(
    world: &mut World<S>,
    working: ReplicaSet,
    outcome: &mut Outcome,
) -> Result<(), Violation> {
    let healed_at = world.now;
    let timeout = world.plan.timers.election_timeout_ns;
    let fetching = fetching_ns(world, working);
    wait(
        world,
        LEADER_WITHIN_TIMEOUTS * timeout + fetching,
        |world| {
            let serving = world
                .serving()
                .is_some_and(|leader| working.contains(leader));
            if serving {
                Ok(())
            } else {
                Err("no leader serves".to_string())
            }
        },
    )?;
    outcome.leader_ns = world.now - healed_at;
    outcome.leader_millitimeouts = outcome.leader_ns * 1_000 / timeout;
    wait(
        world,
        CONVERGED_WITHIN_TIMEOUTS * timeout + fetching,
        |world| {
            if let Some(client) = world.clients.iter().find(|client| !client.done()) {
                let (index, left) = (client.index, client.left);
                let outstanding = client.outstanding();
                return Err(format!(
                    "client {index} waits for {outstanding} replies and has {left} to send"
                ));
            }
            let through = world.committed_through();
            let behind = working.iter().find(|replica| {
                world
                    .driver(*replica)
                    .is_none_or(|driver| driver.state().applied() < through)
            });
            match behind {
                None => Ok(()),
                Some(replica) => Err(format!(
                    "{replica} has not applied everything up to {through}"
                )),
            }
        },
    )?;
    outcome.converged_ns = world.now - healed_at;
    Ok(())
}

/// How long the healed replica that lags most may take to catch up, if it fetches slot by slot: no leader is
/// established before its acceptors hold what is chosen.
fn fetching_ns<S: Seams>(world: &World<S>, working: ReplicaSet) -> u64 {
    let plan = &world.plan;
    let through = world.committed_through().0;
    let held = working
        .iter()
        .filter_map(|replica| world.driver(replica))
        .map(|driver| driver.replica().commit_index().0)
        .min();
    let links = 2 * (plan.links.delay_min_ns + 2 * plan.links.jitter_ns);
    let slot = links + 2 * plan.turn_ns + plan.disk_min_ns + 2 * plan.disk_jitter_ns;
    (through - held.unwrap_or(0)) * slot
}

/// Runs until `what_is_missing` finds nothing, for at most so many nanoseconds.
fn wait<S: Seams>(
    world: &mut World<S>,
    longest_ns: u64,
    what_is_missing: impl Fn(&World<S>) -> Result<(), String>,
) -> Result<(), Violation> {
    let end = world.now + longest_ns;
    while let Err(missing) = what_is_missing(world) {
        if world.now >= end {
            let what = format!("{missing}, {longest_ns} ns after a quorum was healed");
            return Err(Violation::new(LIVENESS, what));
        }
        let next = world.now + STEP_NS;
        world.run_to(next)?;
    }
    Ok(())
}
