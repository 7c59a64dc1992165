//! How much of the space is explored, and what is broken on purpose.

use synod_engine::config::Config;
use synod_engine::ids::{ReplicaId, ReplicaSet};

/// Acceptors of the model. Replicas 1 and 2 may also propose.
pub const REPLICAS: u8 = 3;
pub const PROPOSERS: u8 = 2;

/// One hour: longer than any timer, so that after a jump of a replica's clock everything is overdue.
pub const JUMP_NS: u64 = 3_600_000_000_000;

/// The bounds of one exhaustive search. Whatever is not named here is unbounded.
#[derive(Clone, Debug)]
pub struct Scope {
    pub name: &'static str,
    /// Whether the search starts with replica 1 as leader whose no-op everybody holds as chosen in slot 1; or else with
    /// an empty cluster.
    pub led: bool,
    /// How often replica 1, and replica 2, stand in the search.
    pub stands: [u8; PROPOSERS as usize],
    /// Client requests, each a value of its own, over all leaders together.
    pub requests: u8,
    /// Who may crash.
    pub crashing: ReplicaSet,
    /// Crashes over all of them together; each is followed by a restart.
    pub crashes: u8,
    /// Whether the Accept of a slot, or a Promise, is also sent again with a newer commit index, or with more in it.
    pub resends: bool,
    /// Whether Rejects arrive. All they do is to end a candidacy or leadership, and to raise the next ballot.
    pub rejects: bool,
    /// Whether a follower that knows itself behind asks for what is chosen. A candidate always does.
    pub fetches: bool,
    /// Whether chosen values leave memory as soon as they are durable, so that fetches are served from the WAL.
    pub evicts: bool,
    pub bug: Option<Bug>,
    /// Whether nothing but agreement is checked: to see that a bug breaks it in earnest, and not only a stricter rule.
    pub agreement_only: bool,
}

/// What is broken on purpose, in the model around the product, to see that the properties can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// The disk reports records as durable that a crash still takes.
    DiskLosesDurable,
    /// `Promised` records get lost on their way to the disk.
    PromisesNotWritten,
    /// The replica is told that its records are durable before they are.
    RepliesBeforeSync,
    /// An Accepted of an older ballot counts for the current one.
    StaleAcknowledgement,
    /// One replica's Accepted counts for both peers of the leader.
    AcknowledgedTwice,
    /// What a Promise lists as accepted is ignored.
    PromiseWithoutValues,
    /// The lowest ballot in the promises wins, not the highest.
    LowestBallotWins,
    /// A restart forgets what was accepted, though not what was promised.
    RestartForgetsAccepted,
    /// A follower takes the slot of an Accept for chosen.
    AcceptTakenForChosen,
}

impl Scope {
    pub fn config(&self, replica: ReplicaId) -> Config {
        let mut config = Config::new(replica, REPLICAS, 7);
        let timers = &mut config.timers;
        // No randomness, and nothing that waits for a clock: every heartbeat and every repetition is due at once,
        // and only explicit actions let time pass. A disk never counts as stalled, since that only takes options away.
        timers.election_jitter_ns = 0;
        timers.heartbeat_ns = 0;
        timers.retransmit_ns = 0;
        timers.disk_stall_ns = u64::MAX;
        if self.evicts {
            config.limits.cache_bytes_max = 0;
        }
        config
    }

    /// How often a replica stands, the candidacy that comes before the search included.
    pub fn stands_of(&self, replica: ReplicaId) -> u8 {
        let stands = self.stands.get(usize::from(replica.0) - 1).copied();
        stands.unwrap_or(0) + u8::from(self.led && replica == ReplicaId(1))
    }

    pub fn mortal(&self, replica: ReplicaId) -> bool {
        self.crashes > 0 && self.crashing.contains(replica)
    }

    pub fn with_bug(&self, bug: Bug) -> Scope {
        Scope {
            bug: Some(bug),
            ..self.clone()
        }
    }
}
