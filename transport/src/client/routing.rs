//! Which replica a session talks to.

use synod_engine::ids::{Ballot, ReplicaId, ReplicaSet};

pub struct Routing {
    replicas: ReplicaSet,
    connected: ReplicaSet,
    /// The highest ballot heard of.
    ballot: Ballot,
    /// Who leads it, as far as known.
    leader: Option<ReplicaId>,
    /// Where requests go. Not always the leader: without one, a guess.
    target: Option<ReplicaId>,
    /// The last guess: the search for the next one goes on behind it, so that every replica gets its turn.
    tried: ReplicaId,
}

impl Routing {
    pub fn new(replicas: ReplicaSet) -> Routing {
        Routing {
            replicas,
            connected: ReplicaSet::EMPTY,
            ballot: Ballot::ZERO,
            leader: None,
            target: None,
            tried: ReplicaId(0),
        }
    }

    pub fn leader(&self) -> Option<ReplicaId> {
        self.leader
    }

    pub fn target(&self) -> Option<ReplicaId> {
        self.target
    }

    /// The target, if it can be sent to.
    pub fn reachable(&self) -> Option<ReplicaId> {
        self.target
            .filter(|target| self.connected.contains(*target))
    }

    pub fn connected(&mut self, replica: ReplicaId) {
        self.connected.insert(replica);
    }

    pub fn disconnected(&mut self, replica: ReplicaId) {
        self.connected.remove(replica);
    }

    /// A replica announced the leader of `ballot`. Returns whether the target changed.
    ///
    /// That nobody leads a higher ballot yet does not move the target: a replica that stands for election at the
    /// far side of a partition says so too, and a target that really lost its leadership refuses by itself.
    pub fn announced(&mut self, ballot: Ballot, leader: Option<ReplicaId>) -> bool {
        let news = ballot > self.ballot || (ballot == self.ballot && self.leader.is_none());
        if !news {
            return false;
        }
        self.ballot = ballot;
        self.leader = leader.filter(|leader| self.replicas.contains(*leader));
        match self.leader {
            Some(leader) => self.aim(Some(leader)),
            None => false,
        }
    }

    /// `replica`, the target, said that it does not lead. Returns whether the target changed.
    pub fn refused(&mut self, replica: ReplicaId) -> bool {
        if self.leader == Some(replica) {
            self.leader = None;
        }
        self.tried = replica;
        self.aim(self.leader)
    }

    /// Nothing came back for a while: the leader if it is not the target already, or else the next one that is
    /// connected. Returns whether the target changed.
    pub fn rotate(&mut self) -> bool {
        let connected = self.connected;
        let leader = self
            .leader
            .filter(|leader| self.target != Some(*leader) && connected.contains(*leader));
        if leader.is_some() {
            return self.aim(leader);
        }
        let target = self.target;
        let others = || {
            connected
                .iter()
                .filter(move |replica| target != Some(*replica))
        };
        let later = others().find(|replica| *replica > self.tried);
        let Some(next) = later.or_else(|| others().next()) else {
            return false;
        };
        self.tried = next;
        self.aim(Some(next))
    }

    fn aim(&mut self, target: Option<ReplicaId>) -> bool {
        let changed = self.target != target;
        self.target = target;
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ballot(round: u64, replica: u8) -> Ballot {
        Ballot {
            round,
            replica: ReplicaId(replica),
        }
    }

    #[test]
    fn the_highest_ballot_wins() {
        let mut routing = Routing::new(ReplicaSet::first(3));
        assert!(routing.announced(ballot(2, 2), Some(ReplicaId(2))));
        assert!(!routing.announced(ballot(1, 1), Some(ReplicaId(1))));
        assert_eq!(routing.leader(), Some(ReplicaId(2)));
        // Somebody stands for election: the target stays until it refuses.
        assert!(!routing.announced(ballot(3, 3), None));
        assert_eq!(routing.target(), Some(ReplicaId(2)));
        assert!(routing.announced(ballot(3, 3), Some(ReplicaId(3))));
        assert_eq!(routing.target(), Some(ReplicaId(3)));
        // Not a replica of this cluster.
        assert!(!routing.announced(ballot(4, 9), Some(ReplicaId(9))));
    }

    #[test]
    fn rotation_visits_every_connected_replica() {
        let mut routing = Routing::new(ReplicaSet::first(3));
        assert!(!routing.rotate(), "nobody is connected");
        routing.connected(ReplicaId(1));
        routing.connected(ReplicaId(3));
        assert!(routing.rotate());
        assert_eq!(routing.reachable(), Some(ReplicaId(1)));
        assert!(routing.rotate());
        assert_eq!(routing.reachable(), Some(ReplicaId(3)));
        assert!(routing.rotate());
        assert_eq!(routing.reachable(), Some(ReplicaId(1)));
        // A refusal of a guess leaves no target until somebody announces a leader.
        assert!(routing.refused(ReplicaId(1)));
        assert_eq!(routing.target(), None);
        // The search goes on behind the one that refused.
        assert!(routing.rotate());
        assert_eq!(routing.reachable(), Some(ReplicaId(3)));
    }
}
