//! Who should lead: elections by quorum-connectivity, after the ballot leader election of Omni-Paxos (Ng, Haridi,
//! Carbone, EuroSys 2023), with heartbeats that also carry whether their sender knows a live leader.
//!
//! A replica stands only if it hears a quorum and that quorum hears it, and if none of the replicas it hears knows
//! of a live leader. So neither a replica with a broken link to a healthy leader nor one that could not lead
//! disturbs anyone, and in each partial partition somebody who can lead does stand.

use crate::config::Config;
use crate::ids::{Ballot, REPLICAS_MAX, ReplicaId, ReplicaSet, Slot, Time};
use crate::message::{Heartbeat, HeartbeatRole};

/// Consecutive failed candidacies double the random back-off, up to this power of two.
const BACKOFF_DOUBLINGS_MAX: u32 = 5;

/// The same for the patience of a candidate.
const PATIENCE_DOUBLINGS_MAX: u32 = 3;

#[derive(Clone, Debug)]
pub struct Election {
    heard: [Option<Heard>; REPLICAS_MAX as usize + 1],
    /// The ballot of the leader that was heard last, and when.
    leader: Option<(Ballot, Time)>,
    /// Whether that time was moved on already because this replica slept.
    leader_is_excused: bool,
    /// When to send the next heartbeat.
    heartbeat_at: Time,
    /// When to stand, if nothing speaks against it by then.
    stand_at: Time,
    /// Candidacies since a leader was last heard.
    attempts: u32,
    /// What the last heartbeat said, so that a change is told at once.
    told: Option<HeartbeatRole>,
    random: Random,
}

/// A disk that owes no more than this part of the limit has time.
const QUICK_OWED_SHARE: u64 = 8;

/// What decides, besides the clock and the heartbeats, whether a replica is fit to stand.
#[derive(Clone, Copy, Debug)]
pub struct Candidacy {
    pub promised: Ballot,
    pub commit_index: Slot,
    /// Its disk owes something and makes no progress: it could not lead.
    pub disk_stalled: bool,
}

#[derive(Clone, Debug)]
struct Heard {
    at: Time,
    /// Whether that time was moved on already because this replica slept.
    is_excused: bool,
    heartbeat: Heartbeat,
}

impl Election {
    pub fn new(config: &Config, now: Time) -> Election {
        let mut random = Random::new(config.seed ^ (u64::from(config.replica.0) << 56));
        let stand_at = now.plus(random.below(config.timers.election_jitter_ns));
        Election {
            heard: [const { None }; REPLICAS_MAX as usize + 1],
            leader: None,
            leader_is_excused: false,
            heartbeat_at: now,
            stand_at,
            attempts: 0,
            told: None,
            random,
        }
    }

    pub fn on_heartbeat(&mut self, now: Time, from: ReplicaId, heartbeat: Heartbeat) {
        self.heard[usize::from(from.0)] = Some(Heard {
            at: now,
            is_excused: false,
            heartbeat,
        });
    }

    /// Whether a heartbeat of this peer was ever heard by this process: of one that has a vote, for others come no
    /// further than to the question for it.
    pub fn has_heard(&self, peer: ReplicaId) -> bool {
        self.heard[usize::from(peer.0)].is_some()
    }

    /// This replica was not run for so long. Whom it heard shortly before it need not have been silent meanwhile; but
    /// once is enough, or one that sleeps again and again would never notice that somebody is gone.
    pub fn slept(&mut self, gap_ns: u64) {
        for heard in self.heard.iter_mut().flatten() {
            if !std::mem::replace(&mut heard.is_excused, true) {
                heard.at = heard.at.plus(gap_ns);
            }
        }
        if let Some((_, at)) = &mut self.leader
            && !std::mem::replace(&mut self.leader_is_excused, true)
        {
            *at = at.plus(gap_ns);
            // Never due while the leader lives, or it would wake for nothing until then.
            self.stand_at = self.stand_at.plus(gap_ns);
        }
    }

    /// A promise says more recently than the last heartbeat what its sender holds.
    pub fn note_held(&mut self, from: ReplicaId, commit_index: Slot, trim_floor: Slot) {
        if let Some(heard) = &mut self.heard[usize::from(from.0)] {
            let known = &mut heard.heartbeat;
            known.commit_index = known.commit_index.max(commit_index);
            known.trim_floor = known.trim_floor.max(trim_floor);
        }
    }

    /// Notes a sign of life of the leader of `ballot`.
    pub fn on_leader(&mut self, now: Time, ballot: Ballot, config: &Config) {
        self.leader = Some((ballot, now));
        self.leader_is_excused = false;
        self.attempts = 0;
        let jitter = self.random.below(config.timers.election_jitter_ns);
        self.stand_at = now.plus(config.timers.election_timeout_ns).plus(jitter);
    }

    /// Forgets the leader and waits a random while before standing; longer after each failed candidacy.
    pub fn back_off(&mut self, now: Time, config: &Config) {
        self.leader = None;
        let doublings = self.attempts.min(BACKOFF_DOUBLINGS_MAX);
        let range = config.timers.election_jitter_ns << doublings;
        self.stand_at = now.plus(self.random.below(range));
    }

    /// Leaves a candidate that was just promised the time to become leader.
    pub fn give_way(&mut self, now: Time, config: &Config) {
        let jitter = self.random.below(config.timers.election_jitter_ns);
        let until = now.plus(config.timers.election_timeout_ns).plus(jitter);
        self.stand_at = self.stand_at.max(until);
    }

    /// After leading in vain: the others get the time to notice, to stand, and to win, and if the next one leads in vain as
    /// well, to be given up, too. Otherwise two of that kind would take turns for ever.
    pub fn retire(&mut self, now: Time, config: &Config) {
        let next_one_ns = 2 * config.timers.disk_stall_ns;
        let until = now.plus(config.timers.election_timeout_ns.max(next_one_ns));
        self.give_way(until, config);
    }

    /// Whoever may not stand looks again later, lest it wake for nothing.
    pub fn give_way_if_due(&mut self, now: Time, config: &Config) {
        if now >= self.stand_at {
            self.stand_at = now.plus(config.timers.election_timeout_ns);
        }
    }

    pub fn stood(&mut self) {
        self.leader = None;
        self.attempts += 1;
    }

    /// How long a candidate waits for promises. Longer after each failure: a fixed patience would never elect anybody
    /// where the disks of the others need longer than it.
    pub fn patience_ns(&self, config: &Config) -> u64 {
        let doublings = self.attempts.saturating_sub(1).min(PATIENCE_DOUBLINGS_MAX);
        config.timers.election_timeout_ns << doublings
    }

    /// The ballot of the leader, if it was heard within an election timeout.
    pub fn live_leader(&self, now: Time, config: &Config) -> Option<Ballot> {
        let (ballot, at) = self.leader?;
        (now.since(at) < config.timers.election_timeout_ns).then_some(ballot)
    }

    /// The replicas heard within an election timeout, this one included.
    pub fn hears(&self, now: Time, config: &Config) -> ReplicaSet {
        let mut hears = ReplicaSet::one(config.replica);
        for (replica, _) in self.fresh(now, config) {
            hears.insert(replica);
        }
        hears
    }

    fn fresh<'a>(
        &'a self,
        now: Time,
        config: &'a Config,
    ) -> impl Iterator<Item = (ReplicaId, &'a Heartbeat)> + 'a {
        let timeout = config.timers.election_timeout_ns;
        ReplicaSet::first(config.replicas)
            .without(config.replica)
            .iter()
            .filter_map(move |replica| {
                let heard = self.heard[usize::from(replica.0)].as_ref()?;
                (now.since(heard.at) < timeout).then_some((replica, &heard.heartbeat))
            })
    }

    /// How many others follow closely, with a disk that owes next to nothing.
    pub fn quick(&self, now: Time, config: &Config, commit_index: Slot) -> usize {
        let owed_max = config.limits.owed_bytes_max as u64 / QUICK_OWED_SHARE;
        let lag_max = 2 * config.limits.window_slots_max;
        self.fresh(now, config)
            .filter(|(_, heartbeat)| {
                heartbeat.role == HeartbeatRole::Following
                    && u64::from(heartbeat.owed_bytes) <= owed_max
                    && heartbeat.received.0 + lag_max >= commit_index.0
            })
            .count()
    }

    /// Whether a quorum is heard and hears this replica: links are tried in both directions.
    pub fn quorum_connected(&self, now: Time, config: &Config) -> bool {
        let both_ways = self
            .fresh(now, config)
            .filter(|(_, heartbeat)| heartbeat.hears.contains(config.replica))
            .count();
        both_ways + 1 >= config.quorums.connected()
    }

    /// Whether a replica that is heard leads, or hears a leader, at `promised` or above.
    fn vetoed(&self, now: Time, config: &Config, promised: Ballot) -> bool {
        self.fresh(now, config).any(|(_, heartbeat)| {
            heartbeat.ballot >= promised
                && match heartbeat.role {
                    HeartbeatRole::Leading | HeartbeatRole::Following => true,
                    HeartbeatRole::Standing
                    | HeartbeatRole::Searching
                    | HeartbeatRole::Readmitting { .. }
                    | HeartbeatRole::Founding => false,
                }
        })
    }

    /// Whether to stand now. If its time has come but something speaks against it, looks again a heartbeat later.
    pub fn should_stand(&mut self, now: Time, config: &Config, candidacy: Candidacy) -> bool {
        if now < self.stand_at || self.live_leader(now, config).is_some() {
            return false;
        }
        if candidacy.disk_stalled
            || !self.quorum_connected(now, config)
            || self.vetoed(now, config, candidacy.promised)
        {
            self.stand_at = now.plus(config.timers.heartbeat_ns);
            return false;
        }
        if self.attempts == 0 && self.far_behind(now, config, candidacy.commit_index) {
            // Others would lead sooner: this one would have to fetch first. It still stands if nobody else does.
            self.attempts = 1;
            self.stand_at = now.plus(config.timers.election_timeout_ns);
            return false;
        }
        true
    }

    fn far_behind(&self, now: Time, config: &Config, commit_index: Slot) -> bool {
        self.fresh(now, config).any(|(_, heartbeat)| {
            heartbeat.commit_index.0 > commit_index.0 + config.limits.window_slots_max
        })
    }

    /// Whether a heartbeat is due: by the clock, or because its role changed.
    pub fn heartbeat_due(&self, now: Time, role: HeartbeatRole) -> bool {
        now >= self.heartbeat_at || self.told != Some(role)
    }

    pub fn heartbeat_sent(&mut self, now: Time, role: HeartbeatRole, config: &Config) {
        self.heartbeat_at = now.plus(config.timers.heartbeat_ns);
        self.told = Some(role);
    }

    /// The highest slot that a replica which is heard holds as chosen.
    pub fn highest_commit_index(&self, now: Time, config: &Config) -> Slot {
        let heard = self.fresh(now, config);
        let held = heard.map(|(_, heartbeat)| heartbeat.commit_index);
        held.max().unwrap_or(Slot::ZERO)
    }

    /// A replica that is known to hold chosen slots above `commit_index`: rather all up to `through`, and rather one
    /// that does not lead, for that has other things to do.
    pub fn best_source(
        &self,
        now: Time,
        config: &Config,
        commit_index: Slot,
        through: Slot,
        except: Option<ReplicaId>,
    ) -> Option<ReplicaId> {
        self.fresh(now, config)
            .filter(|(replica, heartbeat)| {
                Some(*replica) != except
                    && heartbeat.commit_index > commit_index
                    && heartbeat.trim_floor <= commit_index.next()
            })
            // A question to somebody who does not hear it costs a timeout.
            .max_by_key(|(_, heartbeat)| {
                (
                    heartbeat.hears.contains(config.replica),
                    heartbeat.commit_index >= through,
                    heartbeat.role != HeartbeatRole::Leading,
                    heartbeat.commit_index,
                )
            })
            .map(|(replica, _)| replica)
    }

    /// Whether `peer` says that it hears this replica, so that a question may be answered.
    pub fn is_heard_by(&self, now: Time, config: &Config, peer: ReplicaId) -> bool {
        self.fresh(now, config)
            .any(|(replica, heartbeat)| replica == peer && heartbeat.hears.contains(config.replica))
    }

    /// A replica that holds more, but not all that comes after `commit_index`: it has a snapshot of the rest. Rather
    /// one that does not lead, for that has other things to do.
    pub fn snapshot_source(
        &self,
        now: Time,
        config: &Config,
        commit_index: Slot,
        except: Option<ReplicaId>,
    ) -> Option<ReplicaId> {
        self.fresh(now, config)
            .filter(|(replica, heartbeat)| {
                Some(*replica) != except && heartbeat.trim_floor > commit_index.next()
            })
            .max_by_key(|(_, heartbeat)| {
                (
                    heartbeat.hears.contains(config.replica),
                    heartbeat.role != HeartbeatRole::Leading,
                    heartbeat.trim_floor,
                )
            })
            .map(|(replica, _)| replica)
    }

    /// When something here is due next. Who leads or stands already does not wait to stand.
    pub fn deadline(&self, config: &Config, follows: bool) -> Time {
        if !follows {
            return self.heartbeat_at;
        }
        let expiry = match (self.leader, self.told) {
            (Some((_, at)), Some(HeartbeatRole::Following)) => {
                at.plus(config.timers.election_timeout_ns)
            }
            _ => self.stand_at,
        };
        self.heartbeat_at.min(self.stand_at).min(expiry)
    }
}

/// A small deterministic generator (splitmix64, Steele et al. 2014): quality enough for back-off.
#[derive(Clone, Debug)]
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Random {
        Random(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`, or 0 if the limit is 0.
    fn below(&mut self, limit: u64) -> u64 {
        self.next().checked_rem(limit).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stand_at(replica: u8, attempts: u32) -> u64 {
        let config = Config::new(ReplicaId(replica), 3, 42);
        let mut election = Election::new(&config, Time(0));
        for _ in 0..attempts {
            election.stood();
        }
        election.back_off(Time(0), &config);
        election.stand_at.0
    }

    #[test]
    fn trap_9_back_off_differs_between_replicas_and_widens_with_failures() {
        assert_ne!(stand_at(1, 1), stand_at(2, 1));
        assert_ne!(stand_at(2, 1), stand_at(3, 1));
        let widest = |attempts| (1..=15).map(|replica| stand_at(replica, attempts)).max();
        assert!(widest(5) > widest(0));
        // Bounded, so that a long partition does not make a replica stay away for ever.
        assert!(
            widest(1_000) <= Some(Config::new(ReplicaId(1), 3, 0).timers.election_jitter_ns << 5)
        );
    }

    #[test]
    fn the_generator_gives_the_published_numbers() {
        let mut random = Random::new(1_234_567);
        let numbers: Vec<u64> = (0..5).map(|_| random.next()).collect();
        assert_eq!(
            numbers,
            [
                6_457_827_717_110_365_317,
                3_203_168_211_198_807_973,
                9_817_491_932_198_370_423,
                4_593_380_528_125_082_431,
                16_408_922_859_458_223_821
            ]
        );
        assert_eq!(random.below(0), 0);
        assert!((0..100).all(|_| random.below(7) < 7));
    }
}
