//! When scheduled faults strike, and what they do.

use synod_engine::ids::ReplicaId;

use crate::faults::Fault;
use crate::seams::Seams;

use super::World;
use super::event::{Event, Mending};
use super::lives::STORM_RESTARTS_MAX;
use super::shapes::{chain, constrained_election, one_way, partition, quorum_loss};

const MS: u64 = 1_000_000;

/// Bursts of opened sessions that come one after the other: enough to fill the table of sessions.
const CROWD_BURSTS: u64 = 22;

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
        | Fault::ClientReorder
        | Fault::SnapshotAhead => false,
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
        | Fault::StatusFlood
        | Fault::Visitors
        | Fault::Overload
        | Fault::SnapshotRot
        | Fault::SnapshotFailure
        | Fault::Eviction
        | Fault::DiskFreeze
        | Fault::DiskLimp
        | Fault::DataCut => true,
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
            Fault::DiskFreeze | Fault::DiskLimp => self.slow_disk(fault, replica),
            Fault::DataCut => self.cut_data(replica),
            Fault::BitRot | Fault::MisdirectedWrite | Fault::LostWrite | Fault::SnapshotRot => {
                self.damage(fault, replica);
            }
            Fault::SnapshotFailure => {
                self.strikes.note(fault);
                self.member(replica).snapshots.fail_next();
            }
            Fault::Eviction => {
                self.strikes.note(fault);
                self.crowd(CROWD_BURSTS);
            }
            Fault::Wipe => {
                if self.impairments_left() > 0 {
                    self.strikes.note(fault);
                    self.wipe(replica);
                    self.restart_later(replica);
                }
            }
            Fault::ClientDisconnect
            | Fault::AbandonedSession
            | Fault::SharedSession
            | Fault::StatusFlood
            | Fault::Visitors
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
            | Fault::ClientReorder
            | Fault::SnapshotAhead => unreachable!("{fault} has no moments of its own"),
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

    /// The data lanes from a replica, or from the leader, to some or all others are cut for a while.
    fn cut_data(&mut self, replica: ReplicaId) {
        let leader = self.serving().unwrap_or(replica);
        let replicas: Vec<ReplicaId> = self.replicas().collect();
        let random = &mut self.faults[Fault::DataCut as usize];
        let from = random.one_of(&[leader, leader, replica]);
        let share = random.one_of(&[500, 1_000]);
        let cut: Vec<_> = replicas
            .into_iter()
            .filter(|to| *to != from && random.permille(share))
            .map(|to| (from, to))
            .collect();
        if cut.is_empty() {
            return;
        }
        let lasts = 500 * MS + random.below(20_000 * MS);
        self.strikes.note(Fault::DataCut);
        self.trace_line(format_args!("{} data lanes of {from} are cut", cut.len()));
        for (from, to) in &cut {
            self.links.cut_data(*from, *to);
        }
        let mending = Mending::Data(cut);
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
        let mending = Mending::Flap {
            from,
            to,
            is_cut,
            left,
        };
        self.schedule(self.now + pause, Event::Mend { mending });
    }

    pub(super) fn mend(&mut self, mending: Mending) {
        match mending {
            Mending::Room(replica) => self.make_room(replica),
            Mending::Crowd { left } if self.healed || left == 0 => {}
            Mending::Crowd { left } => self.crowd(left),
            // What is broken when a quorum is healed stays broken.
            _ if self.healed => {}
            Mending::SnapshotAhead { replica, slot } => self.lose_ahead(replica, slot),
            Mending::Links(cut) => {
                for (from, to) in cut {
                    self.links.mend(from, to);
                }
            }
            Mending::Slow(from, to) => self.links.slow(from, to, 0),
            Mending::Data(cut) => {
                for (from, to) in cut {
                    self.links.mend_data(from, to);
                }
            }
            Mending::Limp(replica) => self.member_mut(replica).limp = None,
            Mending::Flap {
                from,
                to,
                is_cut,
                left,
            } => self.flap(from, to, is_cut, left),
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
                self.trace_line(format_args!(
                    "the power of {replica} fails in {call} disk calls"
                ));
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
                self.trace_line(format_args!(
                    "the clock of {replica} jumps {ahead} ns ahead"
                ));
                let now = self.now;
                self.member_mut(replica).clock.jump(now, ahead);
                self.turn_soon(replica);
            }
        }
    }

    pub(super) fn make_room(&mut self, replica: ReplicaId) {
        let member = self.member_mut(replica);
        // A call that met the full disk may not have been reported yet.
        member.failure_expected |= member.disk_is_full;
        member.disk_is_full = false;
        member.disk.fill(false);
        member.snapshots.fill(false);
    }
}
