//! What one replica is told: who it is, its timers, and a limit on everything.

use crate::budget::memory_budget;
use crate::divergence::STATE_HASH_SLOTS;
use crate::driver::READS_WAITING_MAX;
use crate::ids::{REPLICAS_MAX, ReplicaId};
use crate::persist::{OWED_BYTES_MAX, OWED_PROMISE_BYTES_MAX, OWED_RECORD_BYTES};
use crate::quorum::Quorums;
use crate::snapshot::PART_BYTES_MAX;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    pub replica: ReplicaId,
    /// The cluster is replicas 1 to `replicas`.
    pub replicas: u8,
    pub quorums: Quorums,
    pub timers: Timers,
    pub limits: Limits,
    /// The longest value that this replica's WAL takes. A longer one of a peer is refused, not written.
    pub value_bytes_max: usize,
    /// Feeds the election back-off. Randomness is an input like any other.
    pub seed: u64,
}

/// All in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timers {
    pub heartbeat_ns: u64,
    /// Silence after which a replica counts as gone. Several heartbeats long, so that one late turn on a
    /// loaded machine elects nobody.
    pub election_timeout_ns: u64,
    /// Upper end of the random part of each election delay.
    pub election_jitter_ns: u64,
    /// Without progress for this long, what is missing is sent or asked for again.
    pub retransmit_ns: u64,
    /// A leader whose disk finishes nothing for this long gives up leadership.
    pub disk_stall_ns: u64,
    /// Pace at which slots may follow each other while others are in flight: with a commit latency of `l`, up to
    /// `l / pace` slots are in flight. On a LAN that is the minimum of two, over a WAN the window fills.
    pub slot_pace_ns: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Slots in flight: proposed, not yet chosen.
    pub window_slots_max: u64,
    /// Bytes of values in flight.
    pub window_bytes_max: usize,
    /// Bytes of values sent to one peer and not acknowledged by it.
    pub peer_bytes_max: usize,
    /// Bytes that this replica's disk may owe before no further value is taken. A peer whose disk owes half of that is
    /// sent nothing more until it caught up.
    pub owed_bytes_max: usize,
    /// Bytes of one slot's value.
    pub batch_bytes_max: usize,
    /// Bytes of one client message.
    pub request_bytes_max: usize,
    /// Bytes of one command.
    pub command_bytes_max: usize,
    /// Bytes of requests admitted and not yet proposed. Beyond it clients are told Busy.
    pub intake_bytes_max: usize,
    /// Bytes of chosen values kept in memory for peers that lag; older ones are read from the WAL.
    pub cache_bytes_max: usize,
    /// Bytes of one answer to a Fetch.
    pub fetch_bytes_max: usize,
    /// Fetches under way at a time, of a replica that catches up.
    pub fetches_max: usize,
    /// Bytes of WAL after which the next snapshot is taken.
    pub snapshot_distance_bytes: u64,
    /// Bytes of it that are written in one step between two turns.
    pub snapshot_step_bytes: usize,
    /// Bytes that commands may overwrite while a snapshot is taken, before it is given up and tried again later.
    pub snapshot_kept_bytes_max: usize,
    /// Bytes of a snapshot that may wait for the disk before no more of it is written or asked for.
    pub snapshot_backlog_bytes_max: usize,
    /// Bytes of one part of a snapshot that this replica asks a peer for; a few are on the way at a time.
    pub snapshot_part_bytes: u32,
    /// Bytes of snapshots sent to peers in a second, all together.
    pub snapshot_bytes_per_s: u64,
    /// Bytes of WAL that may gather for the sake of a peer that gets a snapshot.
    pub snapshot_pin_bytes_max: u64,
    /// Slots from one comparison of the replicas' states to the next.
    pub state_hash_slots: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("replicas = {0}: a cluster has 1 to {REPLICAS_MAX} replicas")]
    Replicas(u8),
    #[error("replica = {replica}: this cluster has replicas 1 to {replicas}")]
    Replica { replica: u8, replicas: u8 },
    #[error(
        "quorums prepare = {prepare}, accept = {accept} of {replicas} replicas do not always intersect: \
         prepare + accept must exceed replicas, and 2 × prepare as well"
    )]
    Quorums {
        replicas: u8,
        prepare: u8,
        accept: u8,
    },
    #[error("{name} = {value}: must be {rule}")]
    Limit {
        name: &'static str,
        value: u64,
        rule: &'static str,
    },
}

impl Config {
    pub fn new(replica: ReplicaId, replicas: u8, seed: u64) -> Config {
        Config {
            replica,
            replicas,
            quorums: Quorums::majority(replicas),
            timers: Timers::default(),
            limits: Limits::default(),
            value_bytes_max: BATCH_BYTES_CEILING,
            seed,
        }
    }

    pub fn check(&self) -> Result<(), ConfigError> {
        if self.replicas < 1 || self.replicas > REPLICAS_MAX {
            return Err(ConfigError::Replicas(self.replicas));
        }
        if self.replica.0 < 1 || self.replica.0 > self.replicas {
            return Err(ConfigError::Replica {
                replica: self.replica.0,
                replicas: self.replicas,
            });
        }
        if self.quorums.replicas != self.replicas || !self.quorums.intersect() {
            return Err(ConfigError::Quorums {
                replicas: self.replicas,
                prepare: self.quorums.prepare,
                accept: self.quorums.accept,
            });
        }
        self.check_limits()?;
        self.check_timers()
    }

    fn check_limits(&self) -> Result<(), ConfigError> {
        let limits = &self.limits;
        let rule = |holds: bool, name, value: usize, rule| {
            let value = value as u64;
            if holds {
                Ok(())
            } else {
                Err(ConfigError::Limit { name, value, rule })
            }
        };
        rule(
            limits.window_slots_max >= 1 && limits.window_slots_max <= 65_536,
            "window_slots_max",
            limits.window_slots_max as usize,
            "1 to 65536",
        )?;
        rule(
            limits.batch_bytes_max <= BATCH_BYTES_CEILING,
            "batch_bytes_max",
            limits.batch_bytes_max,
            "at most 1 MiB, so that it fits one write of the WAL",
        )?;
        rule(
            limits.request_bytes_max <= limits.batch_bytes_max,
            "request_bytes_max",
            limits.request_bytes_max,
            "at most batch_bytes_max: a request is never split over slots",
        )?;
        rule(
            limits.command_bytes_max + 64 <= limits.request_bytes_max,
            "command_bytes_max",
            limits.command_bytes_max,
            "at least 64 bytes below request_bytes_max",
        )?;
        rule(
            limits.window_bytes_max <= WINDOW_BYTES_CEILING,
            "window_bytes_max",
            limits.window_bytes_max,
            "at most 4 MiB: a promise carries what is in flight in one frame",
        )?;
        rule(
            limits.owed_bytes_max >= limits.batch_bytes_max,
            "owed_bytes_max",
            limits.owed_bytes_max,
            "at least batch_bytes_max",
        )?;
        rule(
            (1..=READS_WAITING_MAX).contains(&limits.fetches_max),
            "fetches_max",
            limits.fetches_max,
            "1 to 16",
        )?;
        rule(
            limits.intake_bytes_max >= limits.batch_bytes_max,
            "intake_bytes_max",
            limits.intake_bytes_max,
            "at least batch_bytes_max",
        )?;
        rule(
            limits.state_hash_slots >= 1,
            "state_hash_slots",
            limits.state_hash_slots as usize,
            "at least 1",
        )?;
        rule(
            (1..=PART_BYTES_MAX).contains(&(limits.snapshot_part_bytes as usize)),
            "snapshot_part_bytes",
            limits.snapshot_part_bytes as usize,
            "1 byte to 1 MiB",
        )?;
        rule(
            limits.snapshot_bytes_per_s >= u64::from(limits.snapshot_part_bytes),
            "snapshot_bytes_per_s",
            limits.snapshot_bytes_per_s as usize,
            "at least snapshot_part_bytes, or no peer ever gets a snapshot",
        )?;
        rule(
            limits.snapshot_step_bytes >= 1,
            "snapshot_step_bytes",
            limits.snapshot_step_bytes,
            "at least 1",
        )
    }

    fn check_timers(&self) -> Result<(), ConfigError> {
        let timers = &self.timers;
        if timers.heartbeat_ns == 0 || timers.election_timeout_ns < 3 * timers.heartbeat_ns {
            return Err(ConfigError::Limit {
                name: "election_timeout_ns",
                value: timers.election_timeout_ns,
                rule: "at least three heartbeats, or one lost heartbeat elects a leader",
            });
        }
        Ok(())
    }

    /// The named limits of what the engine holds in memory, in bytes: their sum is printed at start.
    pub fn memory_budget(&self) -> Vec<(&'static str, u64)> {
        memory_budget(self)
    }

    /// Bytes of values accepted and not known to be chosen. A leader has at most one window open, and may hear of
    /// a choice one window before its followers do.
    pub fn accept_ahead_bytes_max(&self) -> usize {
        2 * self.limits.window_bytes_max + 2 * self.limits.batch_bytes_max
    }

    /// The same in slots.
    pub fn accept_ahead_slots_max(&self) -> u64 {
        2 * self.limits.window_slots_max + 2
    }

    /// Bytes of records that can ever wait in the WAL: what the disk may owe, one batch beyond, promises, and what a new
    /// leader proposes again at once: at most all that each promise may list. Its own promise is durable by then, and
    /// with it all that was owed before.
    pub fn wal_pending_bytes_max(&self) -> usize {
        let slot = self.limits.batch_bytes_max + OWED_RECORD_BYTES;
        let promise = self.accept_ahead_bytes_max()
            + self.accept_ahead_slots_max() as usize * OWED_RECORD_BYTES;
        self.limits.owed_bytes_max
            + OWED_PROMISE_BYTES_MAX
            + 2 * slot
            + usize::from(self.replicas) * promise
    }
}

/// Records must fit one group of the WAL.
pub const BATCH_BYTES_CEILING: usize = 1 << 20;
/// A Promise carries up to two windows and must fit one frame of 16 MiB.
pub const WINDOW_BYTES_CEILING: usize = 4 << 20;

impl Default for Timers {
    fn default() -> Timers {
        const MS: u64 = 1_000_000;
        Timers {
            heartbeat_ns: 30 * MS,
            election_timeout_ns: 300 * MS,
            election_jitter_ns: 100 * MS,
            retransmit_ns: 200 * MS,
            disk_stall_ns: 2_000 * MS,
            slot_pace_ns: MS / 4,
        }
    }
}

impl Default for Limits {
    fn default() -> Limits {
        const KIB: usize = 1 << 10;
        const MIB: usize = 1 << 20;
        Limits {
            window_slots_max: 256,
            window_bytes_max: 4 * MIB,
            peer_bytes_max: 4 * MIB,
            owed_bytes_max: OWED_BYTES_MAX,
            batch_bytes_max: MIB,
            request_bytes_max: 512 * KIB,
            command_bytes_max: 256 * KIB,
            intake_bytes_max: 16 * MIB,
            cache_bytes_max: 32 * MIB,
            fetch_bytes_max: MIB,
            fetches_max: 4,
            snapshot_distance_bytes: 256 << 20,
            snapshot_step_bytes: 64 * KIB,
            snapshot_kept_bytes_max: 64 * MIB,
            snapshot_backlog_bytes_max: 4 * MIB,
            snapshot_part_bytes: 256 << 10,
            snapshot_bytes_per_s: 128 << 20,
            snapshot_pin_bytes_max: 8 << 30,
            state_hash_slots: STATE_HASH_SLOTS,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_for_every_size() {
        for replicas in 1..=REPLICAS_MAX {
            assert_eq!(Config::new(ReplicaId(1), replicas, 0).check(), Ok(()));
        }
    }

    #[test]
    fn each_broken_rule_is_named() {
        let broken = |change: fn(&mut Config)| {
            let mut config = Config::new(ReplicaId(1), 3, 0);
            change(&mut config);
            config.check().expect_err("the rule is broken").to_string()
        };
        assert!(broken(|c| c.replicas = 0).contains("1 to 15"));
        assert!(broken(|c| c.replica = ReplicaId(4)).contains("replica = 4"));
        assert!(broken(|c| c.quorums.accept = 1).contains("intersect"));
        assert!(broken(|c| c.limits.command_bytes_max = 1 << 20).contains("command_bytes_max"));
        assert!(broken(|c| c.limits.request_bytes_max = 2 << 20).contains("request_bytes_max"));
        assert!(broken(|c| c.limits.batch_bytes_max = 2 << 20).contains("batch_bytes_max"));
        assert!(broken(|c| c.limits.state_hash_slots = 0).contains("state_hash_slots"));
        assert!(broken(|c| c.timers.heartbeat_ns = 200_000_000).contains("election_timeout_ns"));
    }
}
