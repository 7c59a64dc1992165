//! Quorums: the arithmetic against the sets themselves.

use synod_engine::ids::{ReplicaId, Slot};
use synod_engine::quorum::{Quorums, Tally};

/// The oracle: every set of so many replicas, as bits.
fn sets(replicas: u8, size: u8) -> impl Iterator<Item = u32> {
    (0..1u32 << replicas).filter(move |set| set.count_ones() == u32::from(size))
}

fn always_meet(replicas: u8, one: u8, other: u8) -> bool {
    sets(replicas, one).all(|a| sets(replicas, other).all(|b| a & b != 0))
}

#[test]
fn quorums_intersect_exactly_when_all_their_sets_do() {
    for replicas in 1..=6 {
        for prepare in 0..=replicas + 1 {
            for accept in 0..=replicas + 1 {
                let quorums = Quorums {
                    replicas,
                    prepare,
                    accept,
                };
                let possible = |size| (1..=replicas).contains(&size);
                let wanted = possible(prepare)
                    && possible(accept)
                    && always_meet(replicas, prepare, accept)
                    && always_meet(replicas, prepare, prepare);
                assert_eq!(quorums.intersect(), wanted, "{quorums:?}");
            }
        }
    }
}

#[test]
fn a_majority_is_the_smallest_size_whose_sets_all_meet() {
    for replicas in 1..=9 {
        let smallest = (1..=replicas)
            .find(|size| always_meet(replicas, *size, *size))
            .expect("all of them meet");
        let quorums = Quorums::majority(replicas);
        assert_eq!(quorums.replicas, replicas);
        assert_eq!((quorums.prepare, quorums.accept), (smallest, smallest));
    }
}

#[test]
fn a_leader_needs_the_larger_of_its_two_quorums() {
    let quorums = |prepare, accept| Quorums {
        replicas: 5,
        prepare,
        accept,
    };
    assert_eq!(quorums(4, 2).connected(), 4);
    assert_eq!(quorums(3, 3).connected(), 3);
    assert_eq!(quorums(3, 5).connected(), 5);
}

#[test]
fn a_tally_keeps_the_highest_of_each_replica_and_counts_any_quorum() {
    let mut tally = Tally::new(5);
    for (replica, through) in [(1, 9), (2, 4), (3, 7), (2, 3), (5, 1)] {
        tally.acknowledge(ReplicaId(replica), Slot(through));
    }
    let chosen: Vec<u64> = (1..=5).map(|quorum| tally.chosen(quorum).0).collect();
    assert_eq!(chosen, [9, 7, 4, 1, 0]);
}
