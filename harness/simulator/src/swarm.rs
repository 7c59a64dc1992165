//! What is drawn from a seed (swarm testing, Groce et al., ISSTA 2012): the size of the cluster, its limits and
//! timers, which faults strike and how often, and what the clients do. Some seeds are calm and some are hell.

use synod_engine::config::{Config, Limits, Timers};
use synod_engine::ids::ReplicaId;
use synod_engine::quorum::Quorums;

use crate::faults::{Fault, FaultSet};
use crate::links::LinkPlan;
use crate::random::Random;

const US: u64 = 1_000;
const MS: u64 = 1_000_000;
const S: u64 = 1_000_000_000;
const KIB: usize = 1 << 10;

/// What one fault adds to a plan is drawn from a stream of its own.
const AHEAD_STREAM: u64 = 50;

/// Everything that one simulation is.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub replicas: u8,
    pub quorums: Quorums,
    pub timers: Timers,
    pub limits: Limits,
    pub segment_bytes: u64,
    pub segments_ready: usize,
    pub writes_in_flight_max: usize,
    pub links: LinkPlan,
    /// A write takes this long, and the mean of what is added to it, in nanoseconds.
    pub disk_min_ns: u64,
    pub disk_jitter_ns: u64,
    /// What arrives within this time is taken in one turn.
    pub turn_ns: u64,
    pub clients: Vec<ClientPlan>,
    pub client_delay_ns: u64,
    /// Which faults strike.
    pub faults: FaultSet,
    /// Mean time between two strikes of each fault that is scheduled, in nanoseconds.
    pub every_ns: u64,
    /// How long the faults strike before a quorum is healed, in nanoseconds of simulated time.
    pub storm_ns: u64,
    /// How long the simulation lasts at least.
    pub virtual_ns: u64,
    /// A replica whose state machine goes wrong, unseen by its clients and by the checkers.
    pub misapplies: Option<Misapplies>,
}

/// After so many commands of its life, the state machine of `replica` executes one that nobody sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Misapplies {
    pub replica: ReplicaId,
    pub after: u64,
}

#[derive(Clone, Copy, Debug)]
pub struct ClientPlan {
    /// Commands without reply at most.
    pub window: u32,
    /// Commands submitted at once at most.
    pub run: u32,
    pub value_bytes: u64,
    pub keys: u64,
    /// Mean pause between submissions.
    pub think_ns: u64,
    pub retry_after_ns: u64,
}

/// What the command line leaves open to the seed.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// The sizes to choose from.
    pub replicas: Vec<u8>,
    pub faults: FaultSet,
    pub virtual_ns: u64,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds {
            replicas: vec![3, 5, 7],
            faults: FaultSet::ALL,
            virtual_ns: 60 * S,
        }
    }
}

/// How bad a seed is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Weather {
    Calm,
    /// A few kinds of faults, now and then.
    Mixed,
    /// Most kinds, all the time.
    Hell,
}

impl Plan {
    /// A cluster on a quiet network with the production timers and limits, without faults or clients.
    pub fn calm(replicas: u8, seed: u64) -> Plan {
        Plan {
            seed,
            replicas,
            quorums: Quorums::majority(replicas),
            timers: Timers::default(),
            limits: small_limits(64 * KIB as u64),
            segment_bytes: 64 * KIB as u64,
            segments_ready: 1,
            writes_in_flight_max: 4,
            links: LinkPlan {
                delay_min_ns: 50 * US,
                jitter_ns: 5 * US,
                loss: 0,
                repeat: 0,
                tail: 0,
                tail_ns: 0,
                reorders: false,
            },
            disk_min_ns: 100 * US,
            disk_jitter_ns: 10 * US,
            turn_ns: 10 * US,
            clients: Vec::new(),
            client_delay_ns: 50 * US,
            faults: FaultSet::NONE,
            every_ns: S,
            storm_ns: 0,
            virtual_ns: 0,
            misapplies: None,
        }
    }

    pub fn draw(seed: u64, bounds: &Bounds) -> Plan {
        let random = &mut Random::new(seed, 0);
        let replicas = random.one_of(&bounds.replicas);
        let weather = random.one_of(&[
            Weather::Calm,
            Weather::Mixed,
            Weather::Mixed,
            Weather::Hell,
            Weather::Hell,
        ]);
        let mut plan = Plan::calm(replicas, seed);
        plan.draw_faults(weather, bounds.faults, random);
        plan.draw_cluster(random);
        plan.draw_network(random);
        plan.draw_clients(random);
        plan.draw_ahead(seed);
        plan.every_ns = match weather {
            Weather::Calm | Weather::Mixed => random.one_of(&[8 * S, 20 * S]),
            Weather::Hell => random.one_of(&[2 * S, 5 * S, 10 * S]),
        };
        plan.virtual_ns = bounds.virtual_ns;
        plan.storm_ns = bounds.virtual_ns / 6 * 5;
        plan
    }

    fn draw_faults(&mut self, weather: Weather, allowed: FaultSet, random: &mut Random) {
        let share = match weather {
            Weather::Calm => 0,
            Weather::Mixed => 250,
            Weather::Hell => 600,
        };
        for fault in Fault::ALL {
            // Drawn for each, allowed or not: what one seed does with a fault does not depend on the others.
            let on = random.below(1000) < share;
            if on && allowed.contains(fault) {
                self.faults.insert(fault);
            }
        }
    }

    fn draw_cluster(&mut self, random: &mut Random) {
        let segment_bytes = random.one_of(&[16u64, 16, 24, 32, 48, 64, 128]) << 10;
        self.segment_bytes = segment_bytes;
        self.segments_ready = random.between(1, 3) as usize;
        self.writes_in_flight_max = random.one_of(&[1, 2, 4, 8]);
        self.limits = small_limits(segment_bytes);
        if random.permille(500) {
            self.limits.window_slots_max = random.one_of(&[1, 2, 7, 64]);
            self.limits.cache_bytes_max = random.one_of(&[0, 512, 4 * KIB, 64 * KIB]);
            self.limits.fetch_bytes_max = random.one_of(&[500, 4_000, 30_000]);
        }
        let batch = self.limits.batch_bytes_max;
        self.limits.owed_bytes_max = random.one_of(&[batch, 2 * batch, 256 * KIB]);
        self.draw_snapshots(random);
        let scale = random.one_of(&[(1, 1), (1, 1), (1, 3), (3, 1)]);
        let scaled = |ns: u64| ns * scale.0 / scale.1;
        let timers = Timers::default();
        self.timers = Timers {
            heartbeat_ns: scaled(timers.heartbeat_ns),
            election_timeout_ns: scaled(timers.election_timeout_ns),
            election_jitter_ns: scaled(timers.election_jitter_ns),
            retransmit_ns: scaled(timers.retransmit_ns),
            disk_stall_ns: scaled(timers.disk_stall_ns),
            slot_pace_ns: timers.slot_pace_ns,
        };
        let flexible = random.permille(100);
        let prepare = self.replicas - random.below(u64::from(self.replicas).div_ceil(2)) as u8;
        if flexible {
            self.quorums = Quorums {
                replicas: self.replicas,
                prepare,
                accept: self.replicas - prepare + 1,
            };
        }
        self.disk_min_ns = random.one_of(&[20 * US, 100 * US, MS]);
        self.disk_jitter_ns = random.one_of(&[10 * US, 500 * US, 5 * MS]);
        self.turn_ns = random.one_of(&[5 * US, 50 * US, 500 * US]);
    }

    /// Most seeds take snapshots every few dozen slots, so that trimming, recycling and catch-up by snapshot are the
    /// rule.
    fn draw_snapshots(&mut self, random: &mut Random) {
        let distances = [1 << 12, 1 << 13, 20_000, 50_000, 200_000, 1 << 40];
        self.limits.snapshot_distance_bytes = random.one_of(&distances);
        self.limits.snapshot_step_bytes = random.one_of(&[1, 200, 5_000]);
        self.limits.snapshot_kept_bytes_max = random.one_of(&[2_000, 1 << 20, 1 << 20]);
        self.limits.snapshot_backlog_bytes_max = random.one_of(&[1, 1_000, 1 << 20]);
        self.limits.snapshot_part_bytes = random.one_of(&[300, 1_000, 10_000]);
        self.limits.snapshot_bytes_per_s = random.one_of(&[1 << 18, 1 << 30]);
        self.limits.snapshot_pin_bytes_max = random.one_of(&[1_000, 100_000, 1 << 30]);
    }

    /// Snapshots that come close behind each other, and leaders that propose far ahead: so a peer's snapshot ends among
    /// the slots of which a deposed leader holds values that were never chosen.
    fn draw_ahead(&mut self, seed: u64) {
        let random = &mut Random::new(seed, AHEAD_STREAM);
        if !self.faults.contains(Fault::SnapshotAhead) || !random.permille(700) {
            return;
        }
        self.timers.slot_pace_ns = random.one_of(&[1_000, 10_000]);
        self.limits.window_slots_max = random.one_of(&[7, 64, 64]);
        self.limits.snapshot_distance_bytes = random.one_of(&[500, 1_000, 2_000]);
        self.limits.snapshot_step_bytes = 5_000;
        self.limits.snapshot_kept_bytes_max = 1 << 20;
        self.limits.snapshot_backlog_bytes_max = 1 << 20;
    }

    fn draw_network(&mut self, random: &mut Random) {
        let base = random.one_of(&[20 * US, 100 * US, MS, 10 * MS]);
        let loss = random.between(1, 300) * random.one_of(&[1, 1, 10]) / 10;
        let repeat = random.between(1, 500) * random.one_of(&[1, 1, 10]) / 10;
        let tail = random.between(1, 100);
        let tail_ns = random.one_of(&[10, 30, 100]) * MS;
        let on = |fault| u64::from(self.faults.contains(fault));
        self.links = LinkPlan {
            delay_min_ns: base,
            jitter_ns: base / random.one_of(&[1, 4, 16]),
            loss: loss.max(1) * on(Fault::Loss),
            repeat: repeat.max(1) * on(Fault::Duplication),
            tail: tail * on(Fault::Delay),
            tail_ns,
            reorders: self.faults.contains(Fault::Reordering),
        };
        self.client_delay_ns = random.one_of(&[20 * US, 200 * US, 2 * MS]);
    }

    fn draw_clients(&mut self, random: &mut Random) {
        let clients = random.between(1, 6);
        let per_second = random.one_of(&[5, 20, 30, 60, 120]);
        let keys = random.one_of(&[1, 3, 10]);
        let impatient = self.faults.contains(Fault::ClientRetry);
        for _ in 0..clients {
            let window = random.one_of(&[1, 2, 8, 16]);
            let run = random.between(1, u64::from(window).min(8)) as u32;
            let value_bytes = random.one_of(&[0, 16, 100, 300]);
            let retry = random.one_of(&[200, 400, 1_000]) * MS;
            let hasty = random.one_of(&[2, 10, 50]) * MS;
            self.clients.push(ClientPlan {
                window,
                run,
                value_bytes,
                keys,
                think_ns: S * clients * u64::from(run).div_ceil(2) / per_second,
                retry_after_ns: if impatient { hasty } else { retry },
            });
        }
    }

    /// Scheduled faults strike on average this often.
    pub fn interval_ns(&self, fault: Fault) -> u64 {
        let times = match fault {
            // These need a whole election or recovery to show what they do.
            Fault::QuorumLoss | Fault::ConstrainedElection | Fault::Chained => 2,
            Fault::RestartStorm | Fault::Wipe | Fault::DiskFull | Fault::SyncError => 3,
            Fault::Overload | Fault::AbandonedSession | Fault::SnapshotRot => 2,
            Fault::Eviction => 4,
            Fault::StatusFlood | Fault::Visitors => 2,
            Fault::DiskFreeze | Fault::DiskLimp | Fault::DataCut => 2,
            Fault::BitRot | Fault::MisdirectedWrite | Fault::LostWrite => 2,
            _ => 1,
        };
        self.every_ns * times
    }

    pub fn config(&self, replica: ReplicaId, life: u64) -> Config {
        let mut config = Config::new(replica, self.replicas, self.seed ^ life << 40);
        config.quorums = self.quorums;
        config.timers = self.timers;
        config.limits = self.limits;
        config
    }

    /// Replicas that may be impaired (their disk damaged and not repaired, or wiped and not readmitted) at one time.
    ///
    /// This is what the promise covers: a chosen value is durable on an accept quorum, so with at most
    /// `accept - 1` copies gone one is left; a leader needs a prepare quorum of voters, so at most
    /// `replicas - prepare` may be without a vote; and never more than a minority.
    pub fn impaired_max(&self) -> usize {
        let quorums = &self.quorums;
        let most = (quorums.accept - 1)
            .min(self.replicas - quorums.prepare)
            .min((self.replicas - 1) / 2);
        usize::from(most)
    }

    /// Replicas that must work for progress.
    pub fn working_min(&self) -> usize {
        self.quorums.connected()
    }
}

/// Limits that fit segments of this size, and that small clusters meet.
fn small_limits(segment_bytes: u64) -> Limits {
    let batch = segment_bytes as usize / 2 - KIB;
    Limits {
        window_slots_max: 256,
        window_bytes_max: 256 * KIB,
        peer_bytes_max: 256 * KIB,
        owed_bytes_max: 256 * KIB,
        batch_bytes_max: batch,
        request_bytes_max: batch,
        command_bytes_max: 4 * KIB,
        intake_bytes_max: batch + 4 * KIB,
        cache_bytes_max: 256 * KIB,
        fetch_bytes_max: 64 * KIB,
        fetches_max: 4,
        // None, unless a seed says otherwise.
        snapshot_distance_bytes: 1 << 40,
        snapshot_step_bytes: 1_000,
        snapshot_kept_bytes_max: 1 << 20,
        snapshot_backlog_bytes_max: 64 * KIB,
        snapshot_part_bytes: 4_000,
        snapshot_bytes_per_s: 1 << 30,
        snapshot_pin_bytes_max: 1 << 20,
        state_hash_slots: 16,
    }
}
