//! The three partial partitions by name, on a healthy loaded cluster: how long until a leader that makes progress.
//!
//! Ng, Haridi and Carbone (Omni-Paxos, EuroSys 2023, §2) describe them; other protocols elect nobody, or somebody new
//! again and again, while a replica that could lead is there all the time.

use synod_engine::ids::ReplicaId;

use crate::checker::{LIVENESS, Violation};
use crate::random::Random;
use crate::swarm::{ClientPlan, Plan};
use crate::world::World;
use crate::world::shapes::{chain, constrained_election, quorum_loss};

/// A leader that makes progress is found within this many election timeouts.
pub const PROGRESS_WITHIN_TIMEOUTS: u64 = 4;

/// It is searched for so long before the search is given up.
const GIVEN_UP_AFTER_TIMEOUTS: u64 = 40;

const MS: u64 = 1_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topology {
    QuorumLoss,
    ConstrainedElection,
    Chained,
}

impl Topology {
    pub const ALL: [Topology; 3] = [
        Topology::QuorumLoss,
        Topology::ConstrainedElection,
        Topology::Chained,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Topology::QuorumLoss => "quorum-loss",
            Topology::ConstrainedElection => "constrained-election",
            Topology::Chained => "chained",
        }
    }

    /// The sizes on which it is tried: those where a replica that hears a quorum is left.
    fn replicas(self) -> &'static [u8] {
        match self {
            Topology::QuorumLoss | Topology::ConstrainedElection => &[5],
            Topology::Chained => &[3],
        }
    }

    fn cut(
        self,
        replicas: u8,
        leader: ReplicaId,
        random: &mut Random,
    ) -> Vec<(ReplicaId, ReplicaId)> {
        match self {
            Topology::QuorumLoss => quorum_loss(replicas, leader, random),
            Topology::ConstrainedElection => constrained_election(replicas, leader, random),
            Topology::Chained => chain(replicas, leader, random),
        }
    }
}

/// Cuts a loaded cluster and returns the time, in thousandths of an election timeout, until the commit index of a
/// serving replica has moved past what was open at the cut and a client has got a reply to something newer.
pub fn recovery_millitimeouts(topology: Topology, seed: u64) -> Result<u64, Violation> {
    let mut random = Random::new(seed, 0x0070_6172_7469);
    let replicas = random.one_of(topology.replicas());
    let mut plan = Plan::calm(replicas, seed);
    for _ in 0..3 {
        plan.clients.push(ClientPlan {
            window: 8,
            run: 4,
            value_bytes: 50,
            keys: 5,
            think_ns: 2 * MS,
            retry_after_ns: 200 * MS,
        });
    }
    let timeout = plan.timers.election_timeout_ns;
    let mut world = World::new(plan);
    world.run_until(2_000, "leader", |world| world.serving().is_some())?;
    // Where in a heartbeat the cut falls is drawn, too.
    world.run_to(world.now + 200 * MS + random.below(100 * MS))?;
    let leader = world.serving().unwrap_or(ReplicaId(1));
    for (from, to) in topology.cut(replicas, leader, &mut random) {
        world.links.cut(from, to);
    }
    let (cut_at, end) = (world.now, world.now + GIVEN_UP_AFTER_TIMEOUTS * timeout);
    // What was invoked before the cut may be answered by what had been chosen before.
    let open = world
        .clients
        .iter()
        .map(|client| client.submitted())
        .collect::<Vec<_>>();
    let progress = |world: &World| {
        world
            .clients
            .iter()
            .zip(&open)
            .any(|(client, open)| client.completed > *open)
    };
    while !progress(&world) {
        if world.now >= end {
            let what = format!("{}: no leader makes progress", topology.name());
            return Err(Violation::new(LIVENESS, what));
        }
        world.run_to(world.now + MS)?;
    }
    Ok((world.now - cut_at) * 1_000 / timeout)
}
