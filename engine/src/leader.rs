//! Phase 2 on the leader's side: the window, what each peer was sent, and what a quorum has acknowledged.

use std::collections::VecDeque;

use crate::config::{Config, Timers};
use crate::ids::{Ballot, ReplicaId, ReplicaSet, Slot, Time};
use crate::message::Heartbeat;
use crate::quorum::Tally;
use crate::slots::Slots;

/// Slots that may be in flight however short the path is: one at the disks while the next one travels.
const IN_FLIGHT_MIN: u64 = 2;
/// The shortest commit latency is forgotten after this long, so that a longer path is noticed.
const LATENCY_MEMORY_NS: u64 = 10_000_000_000;

#[derive(Clone, Debug)]
pub struct Leader {
    pub ballot: Ballot,
    /// The next slot to propose in.
    next: Slot,
    /// The slot of this leader's own no-op. Once it is chosen, everything before is, and clients are served.
    barrier: Slot,
    tally: Tally,
    in_flight: VecDeque<InFlight>,
    in_flight_bytes: usize,
    peers: Vec<Peer>,
    latency: ShortestLatency,
    /// When something was chosen last, or this leadership began.
    progress_at: Time,
}

#[derive(Clone, Copy, Debug)]
struct InFlight {
    slot: Slot,
    bytes: usize,
    proposed_at: Time,
}

/// What one peer was sent.
#[derive(Clone, Debug)]
struct Peer {
    replica: ReplicaId,
    /// The next slot to send; meaningful while streaming.
    next: Slot,
    /// Whether Accepts flow. If not, the peer fetches, and its heartbeats say when it is near enough again.
    streaming: bool,
    /// Sent and not yet acknowledged: slot and bytes of each value.
    unacknowledged: VecDeque<(Slot, usize)>,
    unacknowledged_bytes: usize,
    /// What its last heartbeat said it had received, and since when that has not moved.
    received: Slot,
    stuck_since: Time,
    /// Its disk owes so much that it is sent nothing more.
    disk_is_behind: bool,
}

impl Leader {
    /// A leader that proposes from `next` on and is established once `barrier` is chosen.
    pub fn new(ballot: Ballot, config: &Config, now: Time, next: Slot, barrier: Slot) -> Leader {
        let peers = ReplicaSet::first(config.replicas)
            .without(config.replica)
            .iter()
            .map(Peer::new)
            .collect();
        Leader {
            ballot,
            next,
            barrier,
            tally: Tally::new(config.replicas),
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
            peers,
            latency: ShortestLatency::default(),
            progress_at: now,
        }
    }

    pub fn progress_at(&self) -> Time {
        self.progress_at
    }

    /// For how long something has been in flight and nothing was chosen.
    pub fn stuck_ns(&self, now: Time) -> u64 {
        self.in_flight.front().map_or(0, |oldest| {
            now.since(oldest.proposed_at.max(self.progress_at))
        })
    }

    /// This replica was not run for so long: what was acknowledged meanwhile is still to be read.
    pub fn slept(&mut self, gap_ns: u64) {
        self.progress_at = self.progress_at.plus(gap_ns);
        for peer in &mut self.peers {
            peer.stuck_since = peer.stuck_since.plus(gap_ns);
        }
    }

    pub fn next(&self) -> Slot {
        self.next
    }

    pub fn established(&self, commit_index: Slot) -> bool {
        commit_index >= self.barrier
    }

    pub fn in_flight_slots(&self) -> u64 {
        self.in_flight.len() as u64
    }

    /// Whether one more value may be proposed. Self-clocking: with few slots in flight batches leave at once and
    /// grow while they wait, so that throughput comes from batch size, not from depth (hashicorp/raft#541); depth
    /// follows the length of the path.
    pub fn has_room(&self, config: &Config) -> bool {
        let slots = self
            .latency
            .window(&config.timers, config.limits.window_slots_max);
        self.in_flight_slots() < slots && self.in_flight_bytes < config.limits.window_bytes_max
    }

    /// Notes a proposal and returns the peers that get it now; the others are behind and get it in their turn.
    pub fn propose(&mut self, now: Time, bytes: usize, config: &Config) -> (Slot, ReplicaSet) {
        let slot = self.next;
        self.next = slot.next();
        self.in_flight.push_back(InFlight {
            slot,
            bytes,
            proposed_at: now,
        });
        self.in_flight_bytes += bytes;
        let mut to = ReplicaSet::EMPTY;
        for peer in &mut self.peers {
            if peer.streaming && peer.next == slot && peer.has_room(config) {
                peer.sent(slot, bytes, now);
                to.insert(peer.replica);
            }
        }
        (slot, to)
    }

    /// Notes a cumulative acknowledgement and returns the commit index that follows from all of them.
    pub fn on_accepted(&mut self, now: Time, from: ReplicaId, through: Slot, quorum: u8) -> Slot {
        assert!(
            through < self.next,
            "{from} acknowledged {through}, but {} is the next to propose",
            self.next
        );
        self.tally.acknowledge(from, through);
        if let Some(peer) = self.peers.iter_mut().find(|peer| peer.replica == from) {
            peer.acknowledged(now, through);
        }
        self.tally.chosen(quorum)
    }

    /// Frees the window up to the commit index, and learns from it how long the path is.
    pub fn on_chosen(&mut self, now: Time, commit_index: Slot) {
        self.progress_at = now;
        while let Some(front) = self.in_flight.front().copied() {
            if front.slot > commit_index {
                break;
            }
            self.in_flight.pop_front();
            self.in_flight_bytes -= front.bytes;
            self.latency.observe(now, now.since(front.proposed_at));
        }
    }

    /// Starts to stream to a peer whose every slot below `next` is chosen or was received at this ballot.
    pub fn stream_from(&mut self, now: Time, peer: ReplicaId, next: Slot) {
        if let Some(peer) = self.peers.iter_mut().find(|p| p.replica == peer) {
            peer.rewind(now, next);
        }
    }

    /// Looks at what a peer says it has: resumes a stream that paused, or goes back to what got lost on the way.
    pub fn on_heartbeat(
        &mut self,
        now: Time,
        from: ReplicaId,
        heartbeat: &Heartbeat,
        slots: &Slots,
        config: &Config,
    ) {
        if heartbeat.ballot > self.ballot {
            return;
        }
        // A peer that does not follow this ballot yet has just what is chosen.
        let received = if heartbeat.ballot == self.ballot {
            heartbeat.received
        } else {
            heartbeat.commit_index
        };
        let next = self.next;
        let Some(peer) = self.peers.iter_mut().find(|peer| peer.replica == from) else {
            return;
        };
        // What it holds as chosen it may have fetched: that is never acknowledged at this ballot. Only what is durable
        // there frees its window: the commit index moves in memory, however far behind the disk is.
        peer.acknowledged(now, heartbeat.stored);
        peer.disk_is_behind = heartbeat.owed_bytes as usize >= config.limits.owed_bytes_max / 2;
        if received != peer.received {
            peer.received = received;
            peer.stuck_since = now;
        }
        let reachable = received.next() >= slots.base() && received < next;
        if peer.disk_is_behind {
            // It would drop what is sent again, too.
            return;
        }
        let retransmit_ns = config.timers.retransmit_ns;
        if !peer.streaming {
            if reachable {
                peer.rewind(now, received.next());
            }
        } else if received.next() < peer.next && now.since(peer.stuck_since) >= retransmit_ns {
            if reachable {
                peer.rewind(now, received.next());
            } else {
                peer.streaming = false;
            }
        }
    }

    /// The next slot that a lagging peer can be sent now, if any: sent one by one from memory.
    pub fn next_for(&mut self, config: &Config, slots: &Slots) -> Option<(ReplicaId, Slot)> {
        for peer in &mut self.peers {
            if !peer.streaming || peer.next >= self.next || !peer.has_room(config) {
                continue;
            }
            if peer.next < slots.base() {
                // Gone from memory while the peer lagged: it fetches the rest.
                peer.streaming = false;
                continue;
            }
            return Some((peer.replica, peer.next));
        }
        None
    }

    pub fn sent(&mut self, now: Time, to: ReplicaId, slot: Slot, bytes: usize) {
        if let Some(peer) = self.peers.iter_mut().find(|peer| peer.replica == to) {
            peer.sent(slot, bytes, now);
        }
    }

    /// The window spans from the commit index to the next slot, without a hole.
    pub fn check(&self, commit_index: Slot) {
        let last = Slot(commit_index.0 + self.in_flight_slots());
        assert_eq!(
            self.next,
            last.next(),
            "{} slots are in flight above the commit index {commit_index}",
            self.in_flight_slots()
        );
        assert!(
            self.in_flight
                .front()
                .is_none_or(|front| front.slot == commit_index.next()),
            "the window does not start after the commit index {commit_index}"
        );
    }
}

impl Peer {
    fn new(replica: ReplicaId) -> Peer {
        Peer {
            replica,
            next: Slot::ZERO,
            streaming: false,
            unacknowledged: VecDeque::new(),
            unacknowledged_bytes: 0,
            received: Slot::ZERO,
            stuck_since: Time(0),
            disk_is_behind: false,
        }
    }

    /// A slow peer costs the leader no more than this many bytes in its queues.
    fn has_room(&self, config: &Config) -> bool {
        !self.disk_is_behind
            && self.unacknowledged_bytes < config.limits.peer_bytes_max
            && (self.unacknowledged.len() as u64) < config.limits.window_slots_max
    }

    fn sent(&mut self, slot: Slot, bytes: usize, now: Time) {
        assert_eq!(slot, self.next, "a peer is sent slots in order");
        if self.unacknowledged.is_empty() {
            self.stuck_since = now;
        }
        self.next = slot.next();
        self.unacknowledged.push_back((slot, bytes));
        self.unacknowledged_bytes += bytes;
    }

    fn acknowledged(&mut self, now: Time, through: Slot) {
        while let Some((slot, bytes)) = self.unacknowledged.front().copied() {
            if slot > through {
                break;
            }
            self.unacknowledged.pop_front();
            self.unacknowledged_bytes -= bytes;
            self.stuck_since = now;
        }
    }

    fn rewind(&mut self, now: Time, next: Slot) {
        self.next = next;
        self.streaming = true;
        self.unacknowledged.clear();
        self.unacknowledged_bytes = 0;
        self.stuck_since = now;
    }
}

/// The shortest time from proposal to choice seen lately: the length of the path without the queues on it.
#[derive(Clone, Debug, Default)]
struct ShortestLatency {
    current_ns: Option<u64>,
    previous_ns: Option<u64>,
    since: Time,
}

impl ShortestLatency {
    fn observe(&mut self, now: Time, latency_ns: u64) {
        if now.since(self.since) > LATENCY_MEMORY_NS {
            self.previous_ns = self.current_ns.take();
            self.since = now;
        }
        self.current_ns = Some(
            self.current_ns
                .map_or(latency_ns, |shortest| shortest.min(latency_ns)),
        );
    }

    fn window(&self, timers: &Timers, slots_max: u64) -> u64 {
        let shortest = match (self.current_ns, self.previous_ns) {
            (Some(current), Some(previous)) => current.min(previous),
            (Some(only), None) | (None, Some(only)) => only,
            (None, None) => 0,
        };
        (shortest / timers.slot_pace_ns.max(1)).clamp(IN_FLIGHT_MIN.min(slots_max), slots_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES: usize = 256 << 10;

    #[test]
    fn trap_30_a_slow_peer_is_sent_a_bounded_number_of_bytes() {
        let config = Config::new(ReplicaId(1), 3, 1);
        let mut leader = Leader::new(Ballot::ZERO, &config, Time(0), Slot(1), Slot(1));
        for peer in [2, 3] {
            leader.stream_from(Time(0), ReplicaId(peer), Slot(1));
        }
        let mut sent_to_slow = 0;
        for _ in 0..1_000 {
            let (slot, to) = leader.propose(Time(0), BYTES, &config);
            sent_to_slow += if to.contains(ReplicaId(3)) { BYTES } else { 0 };
            for replica in [1, 2] {
                leader.on_accepted(Time(0), ReplicaId(replica), slot, config.quorums.accept);
            }
            assert!(to.contains(ReplicaId(2)), "the fast peer is served at once");
            leader.on_chosen(Time(0), slot);
        }
        assert!(sent_to_slow <= config.limits.peer_bytes_max + BYTES);
    }

    #[test]
    fn trap_26_the_window_is_small_on_a_short_path_and_follows_a_long_one() {
        let config = Config::new(ReplicaId(1), 3, 1);
        let in_flight_at = |latency_ns: u64| {
            let mut leader = Leader::new(Ballot::ZERO, &config, Time(0), Slot(1), Slot(1));
            let (slot, _) = leader.propose(Time(0), 10, &config);
            leader.on_accepted(Time(latency_ns), ReplicaId(1), slot, 1);
            leader.on_chosen(Time(latency_ns), slot);
            let mut in_flight = 0;
            while leader.has_room(&config) && in_flight < 1_000 {
                leader.propose(Time(latency_ns), 10, &config);
                in_flight += 1;
            }
            in_flight
        };
        assert_eq!(in_flight_at(300_000), 2);
        assert_eq!(in_flight_at(10_000_000), 40);
        assert_eq!(in_flight_at(1_000_000_000), config.limits.window_slots_max);
    }
}
