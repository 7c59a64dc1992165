//! The shapes of partitions.

use synod_engine::ids::{ReplicaId, ReplicaSet};

use crate::random::Random;

/// Directions that are cut.
pub type Cut = Vec<(ReplicaId, ReplicaId)>;

fn both_ways(pairs: impl Iterator<Item = (ReplicaId, ReplicaId)>) -> Cut {
    pairs.flat_map(|(a, b)| [(a, b), (b, a)]).collect()
}

fn pairs(replicas: u8) -> impl Iterator<Item = (ReplicaId, ReplicaId)> {
    (1..=replicas).flat_map(move |a| (a + 1..=replicas).map(move |b| (ReplicaId(a), ReplicaId(b))))
}

/// Some directions, up to half of all.
pub fn one_way(replicas: u8, random: &mut Random) -> Cut {
    let mut all: Cut = both_ways(pairs(replicas));
    random.shuffle(&mut all);
    let count = random.between(1, all.len() as u64 / 2) as usize;
    all.truncate(count);
    all
}

/// Two sides that hear nothing of each other, of any sizes.
pub fn partition(replicas: u8, random: &mut Random) -> Cut {
    let mut side = ReplicaSet::EMPTY;
    for replica in ReplicaSet::first(replicas).iter() {
        if random.permille(500) {
            side.insert(replica);
        }
    }
    both_ways(pairs(replicas).filter(|(a, b)| side.contains(*a) != side.contains(*b)))
}

/// Any replica but `not`.
fn other_than(replicas: u8, not: ReplicaId, random: &mut Random) -> ReplicaId {
    let drawn = ReplicaId(1 + random.below(u64::from(replicas) - 1) as u8);
    if drawn.0 >= not.0 {
        ReplicaId(drawn.0 + 1)
    } else {
        drawn
    }
}

/// Every link is cut but those of one replica, which is not the leader (Omni-Paxos, Ng et al., EuroSys 2023, §2).
pub fn quorum_loss(replicas: u8, leader: ReplicaId, random: &mut Random) -> Cut {
    let hub = other_than(replicas, leader, random);
    both_ways(pairs(replicas).filter(|(a, b)| *a != hub && *b != hub))
}

/// The leader is cut off, and of the rest only one replica hears the others (ibid.).
pub fn constrained_election(replicas: u8, leader: ReplicaId, random: &mut Random) -> Cut {
    let hub = other_than(replicas, leader, random);
    let cut = move |a: ReplicaId, b: ReplicaId| a == leader || b == leader || a != hub && b != hub;
    both_ways(pairs(replicas).filter(move |(a, b)| cut(*a, *b)))
}

/// Each replica hears its neighbours only, the leader at one end (ibid.).
pub fn chain(replicas: u8, leader: ReplicaId, random: &mut Random) -> Cut {
    let mut order: Vec<ReplicaId> = ReplicaSet::first(replicas).without(leader).iter().collect();
    random.shuffle(&mut order);
    order.insert(0, leader);
    let place = move |replica: ReplicaId| order.iter().position(|known| *known == replica);
    both_ways(pairs(replicas).filter(move |(a, b)| {
        let (a, b) = (place(*a), place(*b));
        a.zip(b).is_some_and(|(a, b)| a.abs_diff(b) > 1)
    }))
}
