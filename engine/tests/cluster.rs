//! Whole clusters in simulation: safety under faults, progress when they end, the same run from the same seed.

mod simulation;

use simulation::cluster::Cluster;
use simulation::network::Faults;
use simulation::random::Random;
use synod_engine::ids::ReplicaId;

const ELECTION_MS: u64 = 2_000;

fn all_done(cluster: &Cluster) -> bool {
    cluster.clients.iter().all(|client| client.done())
}

fn all_equal(cluster: &Cluster) -> bool {
    let positions: Vec<_> = (1..=cluster.replicas())
        .filter_map(|replica| cluster.driver(ReplicaId(replica)))
        .map(|driver| (driver.state().applied(), driver.state().machine.position()))
        .collect();
    positions.windows(2).all(|pair| pair[0] == pair[1])
}

#[test]
fn clusters_of_every_size_commit() {
    for replicas in [1, 2, 3, 4, 5, 7, 9] {
        let mut cluster = Cluster::new(replicas, u64::from(replicas), Faults::NONE);
        cluster.add_client(500, 32);
        cluster.add_client(500, 1);
        cluster.run_until(20_000, "completion", all_done);
        cluster.run_until(2_000, "agreement", all_equal);
        assert_eq!(cluster.executed(), 1_000);
    }
}

#[test]
fn a_crashed_leader_is_replaced_and_catches_up_when_it_returns() {
    for seed in 0..10 {
        let mut cluster = Cluster::new(3, seed, Faults::NONE);
        cluster.add_client(3_000, 64);
        cluster.run_until(ELECTION_MS, "leader", |c| c.serving().is_some());
        cluster.run_ms(20);
        let leader = cluster.serving().expect("it was just seen");
        cluster.crash(leader);
        cluster.run_until(ELECTION_MS, "new leader", |c| c.serving().is_some());
        cluster.run_ms(50);
        cluster.start(leader);
        cluster.run_until(60_000, "completion", all_done);
        cluster.run_until(5_000, "agreement", all_equal);
    }
}

#[test]
fn nothing_is_lost_when_all_crash_at_once() {
    for seed in 0..10 {
        let mut cluster = Cluster::new(3, seed, Faults::NONE);
        cluster.add_client(2_000, 64);
        cluster.run_until(ELECTION_MS, "leader", |c| c.serving().is_some());
        for _ in 0..4 {
            cluster.run_ms(30);
            for replica in 1..=3 {
                cluster.crash(ReplicaId(replica));
            }
            for replica in 1..=3 {
                cluster.start(ReplicaId(replica));
            }
            cluster.run_until(ELECTION_MS, "leader", |c| c.serving().is_some());
        }
        cluster.run_until(60_000, "completion", all_done);
        cluster.run_until(5_000, "agreement", all_equal);
    }
}

#[test]
fn a_replica_far_behind_is_served_from_the_wal() {
    for seed in 0..5 {
        // Nearly nothing chosen stays in memory, so that what the replica missed is only on the peers' disks.
        let mut cluster = Cluster::configured(3, seed, Faults::NONE, |config| {
            config.limits.cache_bytes_max = 512;
            config.limits.fetch_bytes_max = 2_000;
        });
        cluster.add_client(3_000, 16);
        cluster.run_until(ELECTION_MS, "leader", |c| c.serving().is_some());
        let leader = cluster.serving().expect("it was just seen");
        let away = ReplicaId(1 + leader.0 % 3);
        cluster.crash(away);
        cluster.run_until(60_000, "completion", all_done);
        cluster.start(away);
        cluster.run_until(10_000, "agreement", all_equal);
        assert!(cluster.counter(away, "slots_fetched") > 50);
        let reads: u64 = (1..=3)
            .map(|replica| cluster.disk(ReplicaId(replica)).0.borrow().reads_asked)
            .sum();
        assert!(reads > 5, "seed {seed}: only {reads} reads of a WAL");
    }
}

/// Random faults, then calm: what was acknowledged is there exactly once, and everyone agrees.
fn storm(seed: u64) {
    let mut random = Random::new(seed ^ 0xabcd);
    let replicas = [1, 2, 3, 3, 3, 4, 5, 5, 7][random.below(9) as usize];
    let faults = Faults::draw(&mut random);
    let mut cluster = Cluster::new(replicas, seed, faults);
    for _ in 0..1 + random.below(3) {
        cluster.add_client(400, 1 + random.below(40));
    }
    for _ in 0..random.below(20) {
        cluster.run_ms(random.between(10, 700));
        let replica = ReplicaId(1 + random.below(u64::from(replicas)) as u8);
        let other = ReplicaId(1 + random.below(u64::from(replicas)) as u8);
        match random.below(6) {
            0 | 1 => cluster.crash(replica),
            2 | 3 if !cluster.alive(replica) => cluster.start(replica),
            4 if replica != other => cluster.links.cut.push((replica, other)),
            5 => cluster.links.cut.clear(),
            _ => {}
        }
    }
    cluster.links.cut.clear();
    cluster.faults = Faults::NONE;

    for replica in 1..=replicas {
        if !cluster.alive(ReplicaId(replica)) {
            cluster.start(ReplicaId(replica));
        }
    }
    cluster.run_until(60_000, "completion", all_done);
    cluster.run_until(10_000, "agreement", all_equal);
    let total: u64 = cluster.clients.iter().map(|client| client.total).sum();
    assert_eq!(cluster.executed() as u64, total, "seed {seed}");
}

#[test]
fn storms_lose_nothing_and_end() {
    let seeds = std::env::var("SYNOD_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .map_or(0..300, |seed: u64| seed..seed + 1);
    for seed in seeds {
        println!("seed {seed} (repeat with SYNOD_SEED={seed})");
        storm(seed);
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let trace = |seed| {
        let mut random = Random::new(seed);
        let mut cluster = Cluster::new(3, seed, Faults::draw(&mut random));
        cluster.tracing = true;
        cluster.add_client(300, 16);
        cluster.run_ms(1_500);
        cluster.crash(ReplicaId(1));
        cluster.run_ms(1_000);
        cluster.start(ReplicaId(1));
        cluster.run_ms(2_000);
        cluster.trace
    };
    for seed in 0..5 {
        let first = trace(seed);
        assert!(first.len() > 100);
        assert_eq!(first, trace(seed), "seed {seed}");
    }
    assert_ne!(trace(1), trace(2));
}

/// How many replicas, what it is called, and which pairs do not hear each other.
type Topology = (u8, &'static str, &'static [(u8, u8)]);

fn isolate(cluster: &mut Cluster, pairs: &[(u8, u8)]) {
    for (a, b) in pairs {
        let (a, b) = (ReplicaId(*a), ReplicaId(*b));
        cluster.links.cut.push((a, b));
        cluster.links.cut.push((b, a));
    }
}

/// Renumbers a topology so that `leader` takes the part of replica 1.
fn with_leader(leader: ReplicaId, pairs: &[(u8, u8)]) -> Vec<(u8, u8)> {
    let swap = |replica: u8| match replica {
        1 => leader.0,
        other if other == leader.0 => 1,
        other => other,
    };
    pairs.iter().map(|(a, b)| (swap(*a), swap(*b))).collect()
}

#[test]
fn partial_partitions_leave_or_find_a_leader_that_makes_progress() {
    // Replica 1 leads before. Quorum-loss: only 2 still hears everyone. Constrained election: the leader is gone
    // and only 2 hears a quorum. Chained (of 3): 1 and 3 don't hear each other.
    let topologies: [Topology; 3] = [
        (
            5,
            "quorum-loss",
            &[(1, 3), (1, 4), (1, 5), (3, 4), (3, 5), (4, 5)],
        ),
        (
            5,
            "constrained election",
            &[(1, 2), (1, 3), (1, 4), (1, 5), (3, 4), (3, 5), (4, 5)],
        ),
        (3, "chained", &[(1, 3)]),
    ];
    for (replicas, name, pairs) in topologies {
        for seed in 0..10 {
            let mut cluster = Cluster::new(replicas, seed, Faults::NONE);
            cluster.add_client(1_000_000, 8);
            cluster.run_until(ELECTION_MS, "leader", |c| c.serving().is_some());
            cluster.run_ms(100);
            let leader = cluster.serving().expect("it was just seen");
            isolate(&mut cluster, &with_leader(leader, pairs));
            cluster.run_ms(4 * 400);
            let before = cluster.executed();
            cluster.run_ms(1_000);
            assert!(
                cluster.executed() > before + 100,
                "{name}, seed {seed}: {before} executed, then {}",
                cluster.executed()
            );
        }
    }
}
