//! Quorum sizes. Any prepare quorum must meet any accept quorum (Flexible Paxos, Howard et al. 2016).

use crate::ids::{ReplicaId, Slot};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quorums {
    pub replicas: u8,
    /// Promises that make a leader.
    pub prepare: u8,
    /// Acceptances that make a value chosen.
    pub accept: u8,
}

impl Quorums {
    pub fn majority(replicas: u8) -> Quorums {
        let majority = replicas / 2 + 1;
        Quorums {
            replicas,
            prepare: majority,
            accept: majority,
        }
    }

    /// Whether every prepare quorum meets every accept quorum, and prepare quorums meet each other.
    pub fn intersect(&self) -> bool {
        let within = |size: u8| size >= 1 && size <= self.replicas;
        within(self.prepare)
            && within(self.accept)
            && u16::from(self.prepare) + u16::from(self.accept) > u16::from(self.replicas)
            && u16::from(self.prepare) * 2 > u16::from(self.replicas)
    }

    /// The replicas (itself included) that a leader must hear to be of any use.
    pub fn connected(&self) -> usize {
        usize::from(self.prepare.max(self.accept))
    }
}

/// How far each replica acknowledged, cumulatively: the highest slot through which everything is accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tally {
    through: Vec<Slot>,
}

impl Tally {
    pub fn new(replicas: u8) -> Tally {
        Tally {
            through: vec![Slot::ZERO; usize::from(replicas)],
        }
    }

    /// Notes an acknowledgement. Repeated and late ones change nothing: a replica counts once.
    pub fn acknowledge(&mut self, replica: ReplicaId, through: Slot) {
        let known = &mut self.through[usize::from(replica.0) - 1];
        *known = (*known).max(through);
    }

    /// The highest slot that `quorum` replicas have acknowledged.
    pub fn chosen(&self, quorum: u8) -> Slot {
        let mut sorted = [Slot::ZERO; crate::ids::REPLICAS_MAX as usize];
        let sorted = &mut sorted[..self.through.len()];
        sorted.copy_from_slice(&self.through);
        sorted.sort_unstable();
        sorted[sorted.len() - usize::from(quorum)]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn majorities_intersect_for_every_size() {
        for replicas in 1..=15 {
            assert!(Quorums::majority(replicas).intersect(), "{replicas}");
        }
    }

    #[test]
    fn quorums_that_miss_each_other_are_refused() {
        let quorums = |replicas, prepare, accept| Quorums {
            replicas,
            prepare,
            accept,
        };
        assert!(!quorums(4, 2, 2).intersect());
        assert!(!quorums(3, 1, 3).intersect());
        assert!(!quorums(3, 4, 2).intersect());
        assert!(!quorums(3, 2, 0).intersect());
        assert!(quorums(4, 3, 2).intersect());
        assert!(quorums(5, 4, 2).intersect());
    }

    /// The oracle: a slot is chosen when enough replicas acknowledged it, counted one by one.
    fn naive(acks: &[(u8, u64)], replicas: u8, quorum: u8) -> u64 {
        (0..=20)
            .rev()
            .find(|slot| {
                let supporters = (1..=replicas)
                    .filter(|r| {
                        acks.iter()
                            .any(|(from, through)| from == r && through >= slot)
                    })
                    .count();
                *slot == 0 || supporters >= usize::from(quorum)
            })
            .unwrap_or(0)
    }

    proptest! {
        #[test]
        fn tally_agrees_with_a_naive_count(
            replicas in 1u8..=9,
            acks in proptest::collection::vec((1u8..=9, 0u64..20), 0..40),
        ) {
            let acks: Vec<(u8, u64)> = acks.into_iter().filter(|(r, _)| *r <= replicas).collect();
            let mut tally = Tally::new(replicas);
            for (from, through) in &acks {
                tally.acknowledge(ReplicaId(*from), Slot(*through));
            }
            let quorum = Quorums::majority(replicas).accept;
            prop_assert_eq!(tally.chosen(quorum), Slot(naive(&acks, replicas, quorum)));
        }
    }
}
