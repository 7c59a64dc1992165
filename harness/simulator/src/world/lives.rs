//! Replicas that start, stop, stand still and die.

use synod_engine::ids::{ReplicaId, Slot};

use crate::checker::Shadow;
use crate::disk;
use crate::faults::Fault;
use crate::member::{Impairment, Member, StartFailed};
use crate::seams::Seams;
use crate::snapshots::SnapshotDisk;

use super::World;
use super::event::{Event, Mending};

const MS: u64 = 1_000_000;

/// How often a replica that dies in a storm of restarts does so, at most.
pub const STORM_RESTARTS_MAX: u64 = 6;

impl<S: Seams> World<S> {
    /// Starts a replica from whatever its disk holds.
    pub fn start(&mut self, replica: ReplicaId) {
        let index = usize::from(replica.0) - 1;
        let now = self.now;
        let member = &mut self.members[index];
        if member.gone {
            return;
        }
        if member.storms > 0 {
            member.storms -= 1;
            member.failure_expected = true;
            let call = self.faults[Fault::RestartStorm as usize].below(24);
            member.disk.power_off_at(member.disk.changes() + 1 + call);
            self.strikes.note(Fault::RestartStorm);
        }
        let started = member.start(
            now,
            &self.plan,
            &self.seams,
            &mut self.agreement,
            &mut self.model,
        );
        match started {
            Ok(()) => {
                let life = member.life;
                self.trace_line(format_args!("{replica} starts, life {life}"));
                self.note_stale_segments(replica);
                self.turn_soon(replica);
                self.connect_all(replica);
            }
            Err(StartFailed::Disk(why)) => {
                self.trace_line(format_args!("{replica} cannot start: {why}"));
                self.stop_and_restart(replica);
            }
            Err(StartFailed::Damaged(why)) => {
                self.trace_line(format_args!("{replica} cannot repair its disk: {why}"));
                self.wipe(replica);
                self.restart_later(replica);
            }
            Err(StartFailed::Violation(violation)) => self.violate(Err(violation)),
        }
    }

    /// A recycled file that was taken into use since the replica was last looked at.
    fn note_stale_segments(&mut self, replica: ReplicaId) {
        let member = self.member_mut(replica);
        if member.stale_files > 0 {
            let left = disk::stale_files_left(&member.disk);
            let used = member.stale_files.saturating_sub(left);
            member.stale_files -= used;
            self.strikes.add(Fault::StaleSegment, used as u64);
        }
    }

    /// The process is gone at once. Of what its disk had not finished, the seed chooses what survives.
    pub fn crash(&mut self, replica: ReplicaId) {
        let torn = self.plan.faults.contains(Fault::TornWrite);
        let random = &mut self.faults[Fault::TornWrite as usize];
        // All, none, or each sector by a throw of the dice.
        let share = random.one_of(&[0, 0, 500, 900, 1000]);
        let share = if torn || share == 1000 { share } else { 0 };
        let index = usize::from(replica.0) - 1;
        let member = &mut self.members[index];
        let (at_risk, _) = member.disk.at_risk();
        let mut kept = 0;
        let names = random.below(2) * 1000;
        let mut dice = random.clone();
        member.disk = member.disk.crash(
            |_| {
                let keep = share == 1000 || dice.permille(share);
                kept += usize::from(keep);
                keep
            },
            |_| names == 1000 || torn && random.permille(500),
        );
        if kept > 0 && kept < at_risk {
            self.strikes.note(Fault::TornWrite);
        }
        let member = &mut self.members[index];
        if let Some(running) = &member.running {
            running.store.crash(&mut dice);
        }
        member.milestones.states_compared += member.counter("state_hashes_equal");
        member.running = None;
        member.inbox.clear();
        member.life += 1;
        member.turn_at = None;
        member.wake_at = None;
        member.paused_until = 0;
        member.failure_expected = false;
        member.disk.fill(member.disk_is_full);
        let (life, lost) = (member.life, at_risk - kept);
        self.trace_line(format_args!(
            "{replica} dies before life {life}, {lost} of {at_risk} unsynced sectors are lost"
        ));
        self.disconnect_all(replica);
    }

    /// A process that found its disk broken ends; somebody starts it again.
    pub fn stop_and_restart(&mut self, replica: ReplicaId) {
        self.crash(replica);
        self.restart_later(replica);
    }

    pub fn restart_later(&mut self, replica: ReplicaId) {
        let random = &mut self.faults[Fault::Crash as usize];
        let longest = random.one_of(&[5, 200, 3_000]) * MS;
        // The time within which a healed quorum has to have a leader is not for waiting until it runs.
        let longest = if self.healed { 5 * MS } else { longest };
        let pause = MS + random.below(longest);
        let life = self.member(replica).life;
        self.schedule(self.now + pause, Event::Start { replica, life });
    }

    /// How many more replicas may lose something of what they acknowledged.
    ///
    /// This is where it is decided what is survivable: see [`crate::swarm::Plan::impaired_max`]. A replica counts from
    /// the damage until it takes part again with everything on its disk.
    pub(super) fn impairments_left(&mut self) -> usize {
        for member in &mut self.members {
            member.note_repair();
        }
        let impaired = |member: &&Member<S>| member.impairment != Impairment::None;
        let count = self.members.iter().filter(impaired).count();
        self.plan.impaired_max().saturating_sub(count)
    }

    /// Changes what the disk of a replica had acknowledged. It finds out when it restarts, now or later.
    pub(super) fn damage(&mut self, fault: Fault, replica: ReplicaId) {
        let now_is_better = self.faults[fault as usize].permille(700);
        if self.impairments_left() == 0 || !self.alive(replica) {
            return;
        }
        if now_is_better {
            self.crash(replica);
        }
        let index = usize::from(replica.0) - 1;
        let member = &mut self.members[index];
        let random = &mut self.faults[fault as usize];
        let damaged = match fault {
            Fault::SnapshotRot => member.snapshots.damage(random),
            _ => disk::damage(&member.disk, fault, random),
        };
        if damaged {
            member.impairment = Impairment::Damaged;
            member.impaired_in = member.life - u64::from(now_is_better);
            self.strikes.note(fault);
            self.trace_line(format_args!("{fault} on the disk of {replica}"));
        }
        if now_is_better {
            self.restart_later(replica);
        }
    }

    /// A snapshot became durable. If the WAL does not hold what it covers, a crash in this moment leaves a replica whose
    /// WAL and snapshot say different things; and later the snapshot gets lost.
    pub(super) fn snapshot_kept(&mut self, at: ReplicaId, slot: Slot) {
        if !self.plan.faults.contains(Fault::SnapshotAhead) || self.healed {
            return;
        }
        let Some(driver) = self.driver(at) else {
            return;
        };
        let replica = driver.replica();
        let is_foreign = slot > replica.commit_index();
        let is_ahead = is_foreign || replica.durable() < replica.appended();
        let random = &mut self.faults[Fault::SnapshotAhead as usize];
        let strikes = is_ahead && random.permille(if is_foreign { 700 } else { 200 });
        if !strikes || self.impairments_left() == 0 {
            return;
        }
        let random = &mut self.faults[Fault::SnapshotAhead as usize];
        let longest = random.one_of(&[500, 2_000, 8_000]) * MS;
        let lost_in = MS + random.below(longest);
        self.strikes.note(Fault::SnapshotAhead);
        self.trace_line(format_args!("{at} is ahead of its WAL by {slot}"));
        self.member_mut(at).ahead = Some(slot);
        self.stop_and_restart(at);
        let replica = at;
        let mending = Mending::SnapshotAhead { replica, slot };
        self.schedule(self.now + lost_in, Event::Mend { mending });
    }

    /// Loses a snapshot with which a replica was ahead of its WAL; the replica finds out at once.
    pub(super) fn lose_ahead(&mut self, replica: ReplicaId, slot: Slot) {
        if self.impairments_left() == 0 || !self.alive(replica) {
            return;
        }
        self.crash(replica);
        let index = usize::from(replica.0) - 1;
        let random = &mut self.faults[Fault::SnapshotAhead as usize];
        let member = &mut self.members[index];
        if member.snapshots.damage_one(slot, random) {
            member.impairment = Impairment::Damaged;
            member.impaired_in = member.life.saturating_sub(1);
            self.trace_line(format_args!("{replica} loses its snapshot of {slot}"));
        }
        self.restart_later(replica);
    }

    /// The disk of a replica is replaced by an empty one, and the operator readmits it.
    pub(super) fn wipe(&mut self, replica: ReplicaId) {
        if self.alive(replica) {
            self.crash(replica);
        }
        let index = usize::from(replica.0) - 1;
        let member = &mut self.members[index];
        let (disk, incarnation) = disk::readmitted(&self.plan, replica, member.life);
        member.disk = disk;
        member.snapshots = SnapshotDisk::default();
        member.incarnation = incarnation;
        member.shadow = Shadow::new(replica);
        member.impairment = Impairment::Wiped;
        member.impaired_in = member.life.saturating_sub(1);
        member.stale_files = 0;
        member.ahead = None;
        member.disk.fill(member.disk_is_full);
        member.snapshots.fill(member.disk_is_full);
        self.trace_line(format_args!("{replica} has an empty disk, {incarnation:?}"));
    }

    /// Stops a replica's turns until then; its clock goes on.
    pub fn pause(&mut self, replica: ReplicaId, until: u64) {
        self.member_mut(replica).paused_until = until;
        self.schedule(until, Event::Resume { replica });
    }

    pub(super) fn resume(&mut self, replica: ReplicaId) {
        if self.alive(replica) && self.member(replica).paused_until <= self.now {
            self.member_mut(replica).woke = true;
            self.turn_soon(replica);
        }
    }
}
