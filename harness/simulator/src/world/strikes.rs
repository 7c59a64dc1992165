//! When scheduled faults strike, and what they do.

use synod_engine::ids::{ReplicaId, ReplicaSet};
use synod_storage::backend::Fault as DiskFault;

use crate::faults::Fault;
use crate::random::Random;
use crate::seams::Seams;

use super::World;
use super::event::{Event, Mending};
use super::lives::STORM_RESTARTS_MAX;

const MS: u64 = 1_000_000;

/// Whether a fault happens at moments of its own; the others happen to every frame, crash or client alike.
fn is_scheduled(fault: Fault) -> bool {
    match fault {
        Fault::Loss
        | Fault::Duplication
        | Fault::Delay
        | Fault::Reordering
        | Fault::TornWrite
        | Fault::StaleSegment
        | Fault::ClockDrift
        | Fault::ClientRetry
        | Fault::ClientDuplicate
        | Fault::ClientReorder => false,
        Fault::OneWay
        | Fault::Partition
        | Fault::QuorumLoss
        | Fault::ConstrainedElection
        | Fault::Chained
        | Fault::SlowLink
        | Fault::FlappingLink
        | Fault::Clog
        | Fault::Crash
        | Fault::PowerCut
        | Fault::RestartStorm
        | Fault::BitRot
        | Fault::MisdirectedWrite
        | Fault::LostWrite
        | Fault::DiskStall
        | Fault::SyncError
        | Fault::DiskFull
        | Fault::Wipe
        | Fault::Pause
        | Fault::ClockJump
        | Fault::ClientDisconnect
        | Fault::AbandonedSession
        | Fault::SharedSession
        | Fault::Overload => true,
    }
}

impl<S: Seams> World<S> {
    pub(super) fn schedule_strikes(&mut self) {
        for fault in self.plan.faults.iter().filter(|fault| is_scheduled(*fault)) {
            self.schedule_strike(fault);
        }
    }

    fn schedule_strike(&mut self, fault: Fault) {
        let mean = self.plan.interval_ns(fault);
        let pause = self.faults[fault as usize].exponential(mean);
        self.schedule(self.now + pause, Event::Strike { fault });
    }

    pub(super) fn strike(&mut self, fault: Fault) {
        if self.healed {
            return;
        }
        self.schedule_strike(fault);
        let random = &mut self.faults[fault as usize];
        let replica = ReplicaId(1 + random.below(u64::from(self.plan.replicas)) as u8);
        match fault {
            Fault::OneWay
            | Fault::Partition
            | Fault::QuorumLoss
            | Fault::ConstrainedElection
            | Fault::Chained => self.strike_links(fault),
            Fault::SlowLink | Fault::FlappingLink | Fault::Clog => self.strike_link(fault, replica),
            Fault::Crash
            | Fault::PowerCut
            | Fault::RestartStorm
            | Fault::Pause
            | Fault::ClockJump => self.strike_process(fault, replica),
            Fault::DiskStall | Fault::SyncError | Fault::DiskFull => {
                self.strike_disk(fault, replica);
            }
            Fault::BitRot | Fault::MisdirectedWrite | Fault::LostWrite | Fault::Wipe => {}
            Fault::ClientDisconnect
            | Fault::AbandonedSession
            | Fault::SharedSession
            | Fault::Overload => self.strike_clients(fault),
            Fault::Loss
            | Fault::Duplication
            | Fault::Delay
            | Fault::Reordering
            | Fault::TornWrite
            | Fault::StaleSegment
            | Fault::ClockDrift
            | Fault::ClientRetry
            | Fault::ClientDuplicate
            | Fault::ClientReorder => unreachable!("{fault} has no moments of its own"),
        }
    }

    /// Cuts a shape into the network, for a while.
    fn strike_links(&mut self, fault: Fault) {
        if self.plan.replicas < 3 {
            return;
        }
        let leader = self.serving().unwrap_or(ReplicaId(1));
        let random = &mut self.faults[fault as usize];
        let cut = match fault {
            Fault::OneWay => one_way(self.plan.replicas, random),
            Fault::Partition => partition(self.plan.replicas, random),
            Fault::QuorumLoss => quorum_loss(self.plan.replicas, leader, random),
            Fault::ConstrainedElection => constrained_election(self.plan.replicas, leader, random),
            _ => chain(self.plan.replicas, leader, random),
        };
        let longest = random.one_of(&[500, 3_000, 10_000]) * MS;
        let lasts = 50 * MS + random.below(longest);
        self.strikes.note(fault);
        self.trace_line(format_args!("{fault}: {} directions are cut", cut.len()));
        for (from, to) in &cut {
            self.links.cut(*from, *to);
        }
        let mending = Mending::Links(cut);
        self.schedule(self.now + lasts, Event::Mend { mending });
    }

    fn strike_link(&mut self, fault: Fault, from: ReplicaId) {
        let random = &mut self.faults[fault as usize];
        let to = ReplicaId(1 + random.below(u64::from(self.plan.replicas)) as u8);
        if from == to {
            return;
        }
        self.strikes.note(fault);
        self.trace_line(format_args!("{fault}: {from} -> {to}"));
        let random = &mut self.faults[fault as usize];
        let lasts = 100 * MS + random.below(5_000 * MS);
        let mending = match fault {
            Fault::SlowLink => {
                self.links.slow(from, to, random.between(5, 100));
                Mending::Slow(from, to)
            }
            Fault::FlappingLink => {
                let left = random.between(5, 40);
                return self.flap(from, to, false, left);
            }
            _ => return self.links.clog(from, to, self.now + lasts),
        };
        self.schedule(self.now + lasts, Event::Mend { mending });
    }

    fn flap(&mut self, from: ReplicaId, to: ReplicaId, is_cut: bool, left: u64) {
        match (is_cut, left) {
            (true, _) => self.links.mend(from, to),
            (false, 0) => return,
            (false, _) => self.links.cut(from, to),
        }
        let pause = MS + self.faults[Fault::FlappingLink as usize].below(300 * MS);
        let (is_cut, left) = (!is_cut, left.saturating_sub(1));
        let mending = Mending::Flap { from, to, is_cut, left };
        self.schedule(self.now + pause, Event::Mend { mending });
    }

    pub(super) fn mend(&mut self, mending: Mending) {
        match mending {
            Mending::Room(replica) => self.make_room(replica),
            // What is broken when a quorum is healed stays broken.
            _ if self.healed => {}
            Mending::Links(cut) => {
                for (from, to) in cut {
                    self.links.mend(from, to);
                }
            }
            Mending::Slow(from, to) => self.links.slow(from, to, 0),
            Mending::Flap { from, to, is_cut, left } => self.flap(from, to, is_cut, left),
        }
    }

    fn strike_process(&mut self, fault: Fault, replica: ReplicaId) {
        if !self.alive(replica) {
            return;
        }
        let random = &mut self.faults[fault as usize];
        match fault {
            Fault::Crash => {
                self.strikes.note(fault);
                // Now and then everybody at once.
                if random.permille(100) {
                    for other in self.replicas().filter(|other| *other != replica) {
                        if self.alive(other) {
                            self.stop_and_restart(other);
                        }
                    }
                }
                self.stop_and_restart(replica);
            }
            Fault::PowerCut => {
                let call = random.below(12);
                let member = self.member_mut(replica);
                member.failure_expected = true;
                member.disk.power_off_at(member.disk.changes() + 1 + call);
                self.strikes.note(fault);
                self.trace_line(format_args!("the power of {replica} fails in {call} disk calls"));
            }
            Fault::RestartStorm => {
                let storms = random.between(2, STORM_RESTARTS_MAX);
                self.member_mut(replica).storms = storms;
                self.stop_and_restart(replica);
            }
            Fault::Pause => {
                let longest = random.one_of(&[100, 1_000, 8_000]) * MS;
                let lasts = MS + random.below(longest);
                self.strikes.note(fault);
                self.trace_line(format_args!("{replica} stands still for {lasts} ns"));
                self.pause(replica, self.now + lasts);
            }
            _ => {
                let ahead = random.one_of(&[10, 500, 5_000]) * MS;
                let ahead = MS + random.below(ahead);
                self.strikes.note(fault);
                self.trace_line(format_args!("the clock of {replica} jumps {ahead} ns ahead"));
                let now = self.now;
                self.member_mut(replica).clock.jump(now, ahead);
                self.turn_soon(replica);
            }
        }
    }

    fn strike_disk(&mut self, fault: Fault, replica: ReplicaId) {
        let random = &mut self.faults[fault as usize];
        let longest = random.one_of(&[50, 1_000, 6_000]) * MS;
        let lasts = MS + random.below(longest);
        let now = self.now;
        match fault {
            Fault::DiskStall => {
                self.strikes.note(fault);
                self.trace_line(format_args!("the disk of {replica} stalls for {lasts} ns"));
                self.stall_disk(replica, now + lasts);
            }
            Fault::SyncError if self.alive(replica) => {
                self.strikes.note(fault);
                self.trace_line(format_args!("the next write of {replica} fails"));
                let member = self.member_mut(replica);
                member.failure_expected = true;
                member.disk.inject(&[DiskFault::Io]);
            }
            Fault::DiskFull => {
                self.strikes.note(fault);
                self.trace_line(format_args!("the disk of {replica} is full for {lasts} ns"));
                let member = self.member_mut(replica);
                member.disk_is_full = true;
                member.disk.fill(true);
                let mending = Mending::Room(replica);
                self.schedule(now + 3 * lasts, Event::Mend { mending });
            }
            _ => {}
        }
    }

    pub(super) fn make_room(&mut self, replica: ReplicaId) {
        let member = self.member_mut(replica);
        member.disk_is_full = false;
        member.disk.fill(false);
    }
}

type Cut = Vec<(ReplicaId, ReplicaId)>;

fn both_ways(pairs: impl Iterator<Item = (ReplicaId, ReplicaId)>) -> Cut {
    pairs.flat_map(|(a, b)| [(a, b), (b, a)]).collect()
}

fn pairs(replicas: u8) -> impl Iterator<Item = (ReplicaId, ReplicaId)> {
    (1..=replicas).flat_map(move |a| (a + 1..=replicas).map(move |b| (ReplicaId(a), ReplicaId(b))))
}

fn one_way(replicas: u8, random: &mut Random) -> Cut {
    let mut all: Cut = both_ways(pairs(replicas));
    random.shuffle(&mut all);
    let count = random.between(1, all.len() as u64 / 2) as usize;
    all.truncate(count);
    all
}

/// Two sides that hear nothing of each other, of any sizes.
fn partition(replicas: u8, random: &mut Random) -> Cut {
    let mut side = ReplicaSet::EMPTY;
    for replica in ReplicaSet::first(replicas).iter() {
        if random.permille(500) {
            side.insert(replica);
        }
    }
    both_ways(pairs(replicas).filter(|(a, b)| side.contains(*a) != side.contains(*b)))
}

/// Any replica but `not`.
fn other_than(replicas: u8, not: ReplicaId, random: &mut Random) -> ReplicaId {
    let drawn = ReplicaId(1 + random.below(u64::from(replicas) - 1) as u8);
    if drawn.0 >= not.0 { ReplicaId(drawn.0 + 1) } else { drawn }
}

/// Every link is cut but those of one replica, which is not the leader (Omni-Paxos, Ng et al., EuroSys 2023, §2).
pub fn quorum_loss(replicas: u8, leader: ReplicaId, random: &mut Random) -> Vec<(ReplicaId, ReplicaId)> {
    let hub = other_than(replicas, leader, random);
    both_ways(pairs(replicas).filter(|(a, b)| *a != hub && *b != hub))
}

/// The leader is cut off, and of the rest only one replica hears the others (ibid.).
pub fn constrained_election(
    replicas: u8,
    leader: ReplicaId,
    random: &mut Random,
) -> Vec<(ReplicaId, ReplicaId)> {
    let hub = other_than(replicas, leader, random);
    let cut = move |a: ReplicaId, b: ReplicaId| a == leader || b == leader || a != hub && b != hub;
    both_ways(pairs(replicas).filter(move |(a, b)| cut(*a, *b)))
}

/// Each replica hears its neighbours only, the leader at one end (ibid.).
pub fn chain(replicas: u8, leader: ReplicaId, random: &mut Random) -> Vec<(ReplicaId, ReplicaId)> {
    let mut order: Vec<ReplicaId> = ReplicaSet::first(replicas).without(leader).iter().collect();
    random.shuffle(&mut order);
    order.insert(0, leader);
    let place = move |replica: ReplicaId| order.iter().position(|known| *known == replica);
    both_ways(pairs(replicas).filter(move |(a, b)| {
        let (a, b) = (place(*a), place(*b));
        a.zip(b).is_some_and(|(a, b)| a.abs_diff(b) > 1)
    }))
}
