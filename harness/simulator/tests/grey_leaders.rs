//! Leaders that are heard and yet of no use, and leaders that were not run for a while.

mod scenario;

use synod_engine::ids::ReplicaId;
use synod_simulator::swarm::Plan;
use synod_simulator::world::World;

use scenario::*;

#[test]
fn a_leader_whose_values_get_through_to_nobody_gives_way_once() {
    with_seeds(5, |seed| {
        let mut world = flooded(Plan::calm(3, seed));
        let first = leader(&mut world)?;
        world.run_ms(500)?;
        for other in followers(&world, first) {
            world.links.cut_data(first, other);
        }
        let stall_ms = world.plan.timers.disk_stall_ns / MS;
        world.run_ms(stall_ms + ELECTION_MS)?;
        let second = world.serving();
        assert!(second.is_some_and(|second| second != first), "{second:?}");
        assert_eq!(world.counter(first, "progress_stalls"), 1);
        let (elections, before) = (total(&world, "elections"), world.operations);
        world.run_ms(20_000)?;
        assert_eq!(world.serving(), second);
        assert_eq!(total(&world, "elections"), elections);
        assert!(world.operations > before + 1_000);
        Ok(())
    });
}

#[test]
fn a_leader_whose_disk_holds_all_others_up_hands_over_once() {
    with_seeds(5, |seed| {
        let mut world = flooded(Plan::calm(3, seed));
        let first = leader(&mut world)?;
        world.run_ms(1_000)?;
        let before = world.operations;
        world.run_ms(3_000)?;
        let usual = world.operations - before;
        // 50 KB/s, a small part of the load.
        world.limp(first, 20_000);
        let stall_ms = world.plan.timers.disk_stall_ns / MS;
        world.run_ms(2 * stall_ms + ELECTION_MS)?;
        let second = world.serving();
        assert!(second.is_some_and(|second| second != first), "{second:?}");
        let (elections, before) = (total(&world, "elections"), world.operations);
        world.run_ms(20_000)?;
        assert_eq!(total(&world, "elections"), elections);
        assert_eq!(total(&world, "disk_handovers"), 1);
        let later = (world.operations - before) * 3 / 20;
        assert!(later * 10 > usual * 8, "{later} after {usual}");
        Ok(())
    });
}

#[test]
fn a_pause_of_the_whole_machine_changes_no_leader() {
    with_seeds(10, |seed| {
        let mut world = loaded(Plan::calm(3, seed), 1, 1_000_000, 16);
        let first = leader(&mut world)?;
        world.run_ms(100)?;
        let elections = total(&world, "elections");
        for pause_ms in [100, 400, 1_500, 5_000] {
            let until = world.now + pause_ms * MS;
            for replica in world.replicas() {
                world.pause(replica, until);
            }
            world.run_ms(pause_ms + 1_000)?;
            assert_eq!(world.serving(), Some(first), "after {pause_ms} ms");
        }
        assert_eq!(total(&world, "elections"), elections);
        assert!(total(&world, "own_stalls") >= 12);
        Ok(())
    });
}

#[test]
fn a_leader_alone_that_slept_notices_that_the_others_are_gone() {
    with_seeds(5, |seed| {
        let mut world = loaded(Plan::calm(3, seed), 0, 0, 1);
        let first = leader(&mut world)?;
        for other in followers(&world, first) {
            world.crash(other);
        }
        // It is run for a moment now and then only.
        for _ in 0..10 {
            let until = world.now + 500 * MS;
            world.pause(first, until);
            world.run_ms(510)?;
        }
        assert_eq!(world.serving(), None);
        Ok(())
    });
}

/// Its heartbeats go on.
fn mute_values(world: &mut World, replica: ReplicaId) {
    for other in world.replicas().filter(|other| *other != replica) {
        world.links.cut_data(replica, other);
    }
}

/// Each of them is heard by everybody, so that each can win; only the others can make progress.
#[test]
fn two_leaders_whose_values_get_through_to_nobody_do_not_take_turns() {
    with_seeds(24, |seed| {
        let mut world = flooded(Plan::calm(5, seed));
        let stall_ms = world.plan.timers.disk_stall_ns / MS;
        let first = leader(&mut world)?;
        world.run_ms(500)?;
        let second = followers(&world, first)[0];
        mute_values(&mut world, first);
        mute_values(&mut world, second);
        // Each of the two may lead in vain once.
        world.run_ms(2 * (stall_ms + ELECTION_MS))?;
        let third = world.serving();
        assert!(
            third.is_some_and(|third| third != first && third != second),
            "{third:?} leads, seed {seed}"
        );
        Ok(())
    });
}
