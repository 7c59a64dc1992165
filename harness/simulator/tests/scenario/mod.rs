//! What scenarios are made of: clusters with a load, and how long to wait for what.

#![allow(
    dead_code,
    reason = "each test binary compiles this module and uses its own part"
)]

use synod_engine::ids::ReplicaId;
use synod_simulator::checker::Violation;
use synod_simulator::swarm::{ClientPlan, Plan};
use synod_simulator::world::World;

pub const ELECTION_MS: u64 = 2_000;
pub const MS: u64 = 1_000_000;

/// A quiet cluster whose clients each want so many commands done.
pub fn loaded(plan: Plan, clients: usize, commands: u64, window: u32) -> World {
    let mut world = World::new(plan);
    for index in 0..clients {
        world.add_client(ClientPlan {
            window,
            run: window.min(8),
            value_bytes: 20,
            keys: 5,
            think_ns: MS / 2,
            retry_after_ns: 400 * MS,
        });
        world.clients[index].left = commands;
    }
    world
}

pub fn all_done(world: &World) -> bool {
    world.clients.iter().all(|client| client.done())
}

/// Every replica that runs has applied everything; that its state is equal is checked at each slot.
pub fn all_equal(world: &World) -> bool {
    let through = world.committed_through();
    world.replicas().all(|replica| {
        let driver = world.driver(replica);
        driver.is_none_or(|driver| driver.state().applied() == through)
    })
}

pub fn settles(world: &mut World) -> Result<(), Violation> {
    world.run_until(60_000, "completion", all_done)?;
    world.run_until(10_000, "agreement", all_equal)
}

pub fn leader(world: &mut World) -> Result<ReplicaId, Violation> {
    world.run_until(ELECTION_MS, "leader", |world| world.serving().is_some())?;
    Ok(world.serving().expect("it was just seen"))
}

/// Runs a scenario with each seed; a violation says which.
pub fn with_seeds(seeds: u64, scenario: impl Fn(u64) -> Result<(), Violation>) {
    for seed in 0..seeds {
        scenario(seed).unwrap_or_else(|violation| panic!("seed {seed}: {violation}"));
    }
}

/// Commands of some hundred bytes, more than a disk that is slow can take.
pub fn flooded(mut plan: Plan) -> World {
    plan.limits.owed_bytes_max = 64 << 10;
    plan.limits.window_bytes_max = 64 << 10;
    plan.limits.peer_bytes_max = 32 << 10;
    plan.limits.cache_bytes_max = 32 << 10;
    let mut world = World::new(plan);
    for index in 0..4 {
        world.add_client(ClientPlan {
            window: 64,
            run: 8,
            value_bytes: 300,
            keys: 5,
            think_ns: 10 * MS,
            retry_after_ns: 400 * MS,
        });
        world.clients[index].left = u64::MAX / 2;
    }
    world
}

/// Everyone but the leader.
pub fn followers(world: &World, leader: ReplicaId) -> Vec<ReplicaId> {
    world.replicas().filter(|other| *other != leader).collect()
}

pub fn total(world: &World, counter: &str) -> u64 {
    let each = world.replicas();
    each.map(|replica| world.counter(replica, counter)).sum()
}
