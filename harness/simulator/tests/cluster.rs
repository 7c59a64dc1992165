//! Hand-made scenarios: crashes, lagging replicas, partial partitions.

mod scenario;

use std::cell::Cell;

use synod_engine::divergence::Verdict;
use synod_engine::ids::ReplicaId;
use synod_simulator::checker::Violation;
use synod_simulator::partitions::{PROGRESS_WITHIN_TIMEOUTS, Topology, recovery_millitimeouts};
use synod_simulator::swarm::{ClientPlan, Misapplies, Plan};
use synod_simulator::world::World;
use synod_storage::backend::Fault;

use scenario::*;

#[test]
fn clusters_of_every_size_commit() {
    for replicas in [1, 2, 3, 4, 5, 7, 9] {
        let mut world = loaded(Plan::calm(replicas, 1), 2, 500, 16);
        settles(&mut world).unwrap_or_else(|error| panic!("{replicas} replicas: {error}"));
        assert_eq!(world.executed(), 1_000);
        assert_eq!(world.operations, 1_000);
    }
}

#[test]
fn a_crashed_leader_is_replaced_and_catches_up_when_it_returns() {
    with_seeds(10, |seed| {
        let mut world = loaded(Plan::calm(3, seed), 1, 3_000, 64);
        let first = leader(&mut world)?;
        world.run_ms(20)?;
        world.crash(first);
        let second = leader(&mut world)?;
        assert_ne!(first, second);
        world.run_ms(50)?;
        world.start(first);
        settles(&mut world)
    });
}

#[test]
fn nothing_is_lost_when_all_crash_at_once() {
    with_seeds(10, |seed| {
        let mut world = loaded(Plan::calm(3, seed), 1, 2_000, 64);
        leader(&mut world)?;
        for _ in 0..4 {
            world.run_ms(30)?;
            for replica in world.replicas() {
                world.crash(replica);
            }
            for replica in world.replicas() {
                world.start(replica);
            }
            leader(&mut world)?;
        }
        settles(&mut world)
    });
}

#[test]
fn a_replica_far_behind_is_served_from_the_wal() {
    with_seeds(5, |seed| {
        // Nearly nothing chosen stays in memory, so that what the replica missed is only on the peers' disks.
        let mut plan = Plan::calm(3, seed);
        plan.limits.cache_bytes_max = 512;
        plan.limits.fetch_bytes_max = 2_000;
        let mut world = loaded(plan, 1, 3_000, 16);
        let leader = leader(&mut world)?;
        let away = ReplicaId(1 + leader.0 % 3);
        world.crash(away);
        world.run_until(60_000, "completion", all_done)?;
        world.start(away);
        settles(&mut world)?;
        assert!(world.counter(away, "slots_fetched") > 50);
        let reads: u64 = world
            .replicas()
            .map(|replica| world.counter(replica, "wal_reads"))
            .sum();
        assert!(reads > 5, "only {reads} reads of a WAL");
        Ok(())
    });
}

#[test]
fn trap_16_a_failed_disk_stops_the_replica_and_the_others_go_on() {
    with_seeds(5, |seed| {
        let mut world = loaded(Plan::calm(3, seed), 1, 2_000, 16);
        let leader = leader(&mut world)?;
        world.run_ms(50)?;
        let lives = world.member(leader).life;
        let member = world.member_mut(leader);
        member.failure_expected = true;
        member.disk.inject(&[Fault::Io]);
        world.run_until(30_000, "completion", all_done)?;
        assert!(
            !world.alive(leader) || world.member(leader).life > lives,
            "{leader} went on with a broken disk"
        );
        Ok(())
    });
}

#[test]
fn a_failure_that_was_to_come_strikes_no_disk_that_is_healed() {
    with_seeds(5, |seed| {
        let mut world = loaded(Plan::calm(3, seed), 1, 2_000, 16);
        leader(&mut world)?;
        let mut strikes_at = Vec::new();
        for replica in world.replicas() {
            let disk = &world.member_mut(replica).disk;
            strikes_at.push(disk.changes() + 100);
            disk.power_off_at(disk.changes() + 100);
        }
        let working = world.heal(2_000);
        // A disk that failed would be a violation: no failure is expected.
        world.run_until(30_000, "completion", all_done)?;
        for replica in working.iter() {
            let changes = world.member(replica).disk.changes();
            assert!(changes > strikes_at[usize::from(replica.0) - 1]);
        }
        Ok(())
    });
}

#[test]
fn trap_29_a_slow_disk_delays_no_heartbeat_and_elects_nobody() {
    with_seeds(5, |seed| {
        let mut world = loaded(Plan::calm(3, seed), 1, 1_000_000, 16);
        let leader = leader(&mut world)?;
        world.plan.disk_min_ns = 1_500 * MS;
        world.run_ms(10_000)?;
        assert_eq!(world.serving(), Some(leader));
        let elections: u64 = world
            .replicas()
            .map(|replica| world.counter(replica, "elections"))
            .sum();
        assert_eq!(elections, 1, "a slow disk is no reason for an election");
        Ok(())
    });
}

#[test]
fn slow_disks_still_elect_a_leader() {
    for sync_ms in [100, 160, 250, 400] {
        with_seeds(5, |seed| {
            let mut plan = Plan::calm(3, seed);
            plan.disk_min_ns = sync_ms * MS;
            let mut world = loaded(plan, 0, 0, 1);
            let what = format!("leader with {sync_ms}-ms syncs");
            world.run_until(30_000, &what, |world| world.serving().is_some())
        });
    }
}

#[test]
fn trap_11_a_leader_whose_disk_hangs_gives_way() {
    with_seeds(5, |seed| {
        let mut world = loaded(Plan::calm(3, seed), 1, 1_000_000, 16);
        let first = leader(&mut world)?;
        world.run_ms(20)?;
        world.stall_disk(first, u64::MAX);
        let stall_ms = world.plan.timers.disk_stall_ns / MS;
        world.run_ms(stall_ms + ELECTION_MS)?;
        assert!(world.serving().is_some_and(|second| second != first));
        Ok(())
    });
}

#[test]
fn a_followers_disk_that_freezes_costs_it_bounded_memory_and_the_others_nothing() {
    with_seeds(3, |seed| {
        let mut world = flooded(Plan::calm(5, seed));
        let first = leader(&mut world)?;
        world.run_ms(1_000)?;
        let frozen = followers(&world, first)[0];
        let before = world.operations;
        world.run_ms(3_000)?;
        let usual = world.operations - before;
        world.stall_disk(frozen, u64::MAX);
        let (before, written) = (world.operations, world.counter(first, "wal_bytes"));
        world.run_ms(3_000)?;
        let meanwhile = world.operations - before;
        let written = world.counter(first, "wal_bytes") - written;
        assert!(
            meanwhile * 10 > usual * 9,
            "{meanwhile} commands beside a frozen disk, {usual} before"
        );
        // The leader goes, and the next one finds the same.
        world.crash(first);
        let second = leader(&mut world)?;
        assert_ne!(second, frozen);
        world.run_ms(3_000)?;
        let owed = world.counter(frozen, "owed_bytes");
        assert!(owed <= 2 * (64 << 10), "{owed} bytes are owed");
        assert!(written > 10 * owed, "only {written} bytes came by");
        world.start(first);
        world.thaw_disk(frozen);
        for client in &mut world.clients {
            client.left = 0;
        }
        settles(&mut world)
    });
}

#[test]
fn a_quorum_that_is_back_after_long_is_served_within_two_election_timeouts() {
    with_seeds(20, |seed| {
        let mut world = loaded(Plan::calm(5, seed), 1, 1_000_000, 16);
        let first = leader(&mut world)?;
        world.run_ms(100)?;
        let mut down = followers(&world, first);
        down.truncate(2 + (seed % 2) as usize);
        if down.len() == 2 {
            down.push(first);
        }
        for replica in &down {
            world.crash(*replica);
        }
        world.run_ms(16_000)?;
        assert_eq!(world.serving(), None);
        let back_at = world.now;
        world.start(down[0]);
        let timeout_ms = world.plan.timers.election_timeout_ns / MS;
        world.run_until(20 * timeout_ms, "leader", |world| world.serving().is_some())?;
        assert!(
            world.now - back_at <= 2 * timeout_ms * MS,
            "seed {seed}: {} ms",
            (world.now - back_at) / MS
        );
        Ok(())
    });
}

/// How long a replica takes that has to catch up over a long path, in milliseconds, and whether the leader was spared.
fn catch_up_ms(seed: u64, fetches_max: usize) -> Result<u64, Violation> {
    let mut plan = Plan::calm(3, seed);
    plan.links.delay_min_ns = 75 * MS;
    plan.timers.retransmit_ns *= 4;
    plan.timers.election_timeout_ns *= 4;
    plan.limits.fetches_max = fetches_max;
    plan.limits.fetch_bytes_max = 4 << 10;
    plan.limits.batch_bytes_max = 4 << 10;
    plan.limits.request_bytes_max = 4 << 10;
    plan.limits.command_bytes_max = 2 << 10;
    plan.limits.cache_bytes_max = 4 << 10;
    let mut world = World::new(plan);
    for index in 0..4 {
        world.add_client(ClientPlan {
            window: 16,
            run: 2,
            value_bytes: 300,
            keys: 5,
            think_ns: 5 * MS,
            retry_after_ns: 4_000 * MS,
        });
        world.clients[index].left = 250;
    }
    let leader = leader(&mut world)?;
    let away = followers(&world, leader)[0];
    world.crash(away);
    world.run_until(120_000, "completion", all_done)?;
    world.start(away);
    let started_at = world.now;
    world.run_until(600_000, "agreement", all_equal)?;
    let helper = followers(&world, leader)[1];
    let (by_leader, by_helper) = (
        world.counter(leader, "fetches_served"),
        world.counter(helper, "fetches_served"),
    );
    assert!(
        by_helper > 4 * by_leader,
        "seed {seed}: {by_leader} fetches were served by the leader, {by_helper} by the other one"
    );
    Ok((world.now - started_at) / MS)
}

#[test]
fn catching_up_over_a_long_path_takes_less_the_more_is_under_way_and_spares_the_leader() {
    with_seeds(3, |seed| {
        let (one, four) = (catch_up_ms(seed, 1)?, catch_up_ms(seed, 4)?);
        println!("seed {seed}: {one} ms with one fetch under way, {four} ms with four");
        assert!(one > 2 * four, "seed {seed}: {one} ms and {four} ms");
        Ok(())
    });
}

#[test]
fn a_peer_that_fetched_what_its_leader_had_sent_is_streamed_to_again() {
    // Found by simulation, seed 2077: the window to the peer stayed full for ever.
    with_seeds(10, |seed| {
        let mut plan = Plan::calm(3, seed);
        plan.limits.window_slots_max = 2;
        let mut world = loaded(plan, 1, 100_000, 4);
        let leader = leader(&mut world)?;
        let (peer, other) = (
            ReplicaId(1 + leader.0 % 3),
            ReplicaId(1 + (leader.0 + 1) % 3),
        );
        world.run_ms(50)?;
        world.links.cut(leader, peer);
        world.run_ms(20 + seed)?;
        world.links.mend(leader, peer);
        world.run_ms(600)?;
        world.crash(other);
        let before = world.operations;
        world.run_ms(2_000)?;
        assert!(
            world.operations > before + 100,
            "seed {seed}: {before} then {}",
            world.operations
        );
        Ok(())
    });
}

#[test]
fn partial_partitions_leave_or_find_a_leader_that_makes_progress() {
    for topology in Topology::ALL {
        for seed in 0..10 {
            let time = recovery_millitimeouts(topology, seed).unwrap_or_else(|violation| {
                panic!("{}, seed {seed}: {violation}", topology.name())
            });
            assert!(
                time <= PROGRESS_WITHIN_TIMEOUTS * 1_000,
                "{}, seed {seed}: {time} thousandths of an election timeout",
                topology.name()
            );
        }
    }
}

#[test]
fn a_replica_whose_state_goes_wrong_is_found_by_the_others_and_stops() {
    let told_by_others = Cell::new(0);
    with_seeds(20, |seed| {
        let mut plan = Plan::calm(3, seed);
        let wrong = ReplicaId(1 + (seed % 3) as u8);
        let after = 100 + 10 * seed;
        plan.misapplies = Some(Misapplies {
            replica: wrong,
            after,
        });
        let mut world = loaded(plan, 2, 1_500, 16);
        settles(&mut world)?;
        assert!(world.driver(wrong).is_none(), "seed {seed}: it goes on");
        let (stops, others): (Vec<_>, Vec<_>) = world
            .divergences
            .iter()
            .partition(|divergence| divergence.verdict == Verdict::OwnIsWrong);
        assert_eq!(stops.len(), 1, "seed {seed}: {stops:?}");
        let stopped = stops[0];
        assert_eq!(stopped.own, wrong, "seed {seed}");
        assert_eq!(stopped.said.len(), 3, "seed {seed}");
        let text = stopped.to_string();
        let slot = format!("after slot {}", stopped.slot.0);
        assert!(
            text.contains(&slot) && text.contains("--readmit"),
            "seed {seed}: {text}"
        );
        let told = others.iter().filter(|other| other.own != wrong).count();
        told_by_others.set(told_by_others.get() + told);
        Ok(())
    });
    assert!(told_by_others.get() > 0, "the majority notices as well");
}

#[test]
fn two_replicas_that_differ_say_so_and_go_on() {
    with_seeds(5, |seed| {
        let mut plan = Plan::calm(2, seed);
        plan.misapplies = Some(Misapplies {
            replica: ReplicaId(2),
            after: 100,
        });
        let mut world = loaded(plan, 2, 1_500, 16);
        settles(&mut world)?;
        let verdicts: Vec<_> = world
            .divergences
            .iter()
            .map(|found| found.verdict)
            .collect();
        assert!(verdicts.contains(&Verdict::Undecided), "seed {seed}");
        assert!(!verdicts.contains(&Verdict::OwnIsWrong), "seed {seed}");
        for replica in world.replicas() {
            assert!(
                world.counter(replica, "state_divergences") > 1,
                "seed {seed}"
            );
        }
        Ok(())
    });
}
