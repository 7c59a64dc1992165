//! When disks finish what they were given: writes of WALs, and what the places of snapshots have to do.

use synod_engine::ids::ReplicaId;
use synod_storage::backend::Fault as DiskFault;

use crate::faults::Fault;
use crate::member::Limp;
use crate::seams::Seams;

use super::World;
use super::event::{Event, Mending};

const MS: u64 = 1_000_000;

/// When a write without room is tried again.
const ROOM_TRIED_NS: u64 = 100_000_000;

impl<S: Seams> World<S> {
    /// Gives each write that the last turn started its time.
    pub(super) fn start_writes(&mut self, at: ReplicaId) {
        let (min, jitter) = (self.plan.disk_min_ns, self.plan.disk_jitter_ns);
        let index = usize::from(at.0) - 1;
        let life = self.members[index].life;
        let Some(running) = &mut self.members[index].running else {
            return;
        };
        let running_writes = running.wal.writes_under_way();
        let mut started = Vec::new();
        while running.writes.len() < running_writes {
            let bytes = running.wal.bytes_under_way(running.writes.len());
            running.next_write += 1;
            running.writes.push(running.next_write);
            started.push((running.next_write, bytes as u64));
        }
        for (write, bytes) in started {
            let mut due = self.now + min + self.disks.exponential(jitter);
            if let Some(limp) = &mut self.members[index].limp {
                // One after the other, each as long as its bytes take.
                limp.busy_until = limp.busy_until.max(self.now) + bytes * limp.ns_per_byte;
                due = due.max(limp.busy_until);
            }
            self.schedule(due, Event::Written { at, life, write });
        }
    }

    pub(super) fn written(&mut self, at: ReplicaId, life: u64, write: u64) {
        let now = self.now;
        let member = self.member_mut(at);
        if member.life != life {
            return;
        }
        if now < member.stalled_until {
            let due = member.stalled_until;
            return self.schedule(due, Event::Written { at, life, write });
        }
        let Some(running) = &mut member.running else {
            return;
        };
        // One that waited for the end of a stall may have ended earlier, when the disk was healed.
        let Some(place) = running.writes.iter().position(|known| *known == write) else {
            return;
        };
        if running.wal.complete(place) {
            running.writes.remove(place);
        } else {
            member.milestones.writes_without_room += 1;
            self.schedule(now + ROOM_TRIED_NS, Event::Written { at, life, write });
        }
        self.turn_soon(at);
    }

    /// Gives what the last turn asked of the place of snapshots its time.
    pub(super) fn start_storing(&mut self, at: ReplicaId) {
        let (min, jitter) = (self.plan.disk_min_ns, self.plan.disk_jitter_ns);
        let index = usize::from(at.0) - 1;
        let life = self.members[index].life;
        let Some(running) = &mut self.members[index].running else {
            return;
        };
        let under_way = running.store.under_way();
        let started = under_way.saturating_sub(running.stored);
        running.stored = under_way;
        for _ in 0..started {
            let due = self.now + min + self.stores.exponential(jitter);
            self.schedule(due, Event::Stored { at, life });
        }
    }

    pub(super) fn stored(&mut self, at: ReplicaId, life: u64) {
        let now = self.now;
        let member = self.member_mut(at);
        if member.life != life {
            return;
        }
        if now < member.stalled_until {
            let due = member.stalled_until;
            return self.schedule(due, Event::Stored { at, life });
        }
        let Some(running) = &mut member.running else {
            return;
        };
        let kept = running.store.complete_next();
        running.stored = running
            .store
            .under_way()
            .min(running.stored.saturating_sub(1));
        if let Some(slot) = kept {
            self.snapshot_kept(at, slot);
        }
    }

    pub(super) fn strike_disk(&mut self, fault: Fault, replica: ReplicaId) {
        let random = &mut self.faults[fault as usize];
        let longest = random.one_of(&[50, 1_000, 6_000]) * MS;
        let lasts = MS + random.below(longest);
        // On some file systems every write takes new room, on others only what grows.
        let copies = fault == Fault::DiskFull && random.below(2) == 0;
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
                let how = if copies {
                    ", for overwriting as well"
                } else {
                    ""
                };
                self.trace_line(format_args!(
                    "the disk of {replica} is full for {lasts} ns{how}"
                ));
                let member = self.member_mut(replica);
                member.disk_is_full = true;
                member.disk.fill(true);
                member.disk.copies_on_write(copies);
                member.snapshots.fill(true);
                let mending = Mending::Room(replica);
                self.schedule(now + 3 * lasts, Event::Mend { mending });
            }
            _ => {}
        }
    }

    /// A disk that is slow for long: it stands still, or takes less than comes in.
    pub(super) fn slow_disk(&mut self, fault: Fault, replica: ReplicaId) {
        let random = &mut self.faults[fault as usize];
        let lasts = 5_000 * MS + random.below(25_000 * MS);
        let ns_per_byte = 1_000_000 / random.one_of(&[20, 100, 500]);
        let now = self.now;
        self.strikes.note(fault);
        self.trace_line(format_args!("{fault} at {replica} for {lasts} ns"));
        if fault == Fault::DiskFreeze {
            return self.stall_disk(replica, now + lasts);
        }
        self.limp(replica, ns_per_byte);
        let mending = Mending::Limp(replica);
        self.schedule(now + lasts, Event::Mend { mending });
    }

    /// The disk takes a byte in so many nanoseconds from here on.
    pub fn limp(&mut self, replica: ReplicaId, ns_per_byte: u64) {
        self.member_mut(replica).limp = Some(Limp {
            ns_per_byte,
            busy_until: self.now,
        });
    }

    /// The disk takes writes and finishes none until then.
    pub fn stall_disk(&mut self, replica: ReplicaId, until: u64) {
        self.member_mut(replica).stalled_until = until;
    }

    /// A disk that stood still goes on: what was under way ends.
    pub fn thaw_disk(&mut self, replica: ReplicaId) {
        let now = self.now;
        let member = self.member_mut(replica);
        member.stalled_until = member.stalled_until.min(now);
        member.limp = None;
        let life = member.life;
        let running = member.running.as_ref();
        for write in running.map_or(Vec::new(), |running| running.writes.clone()) {
            let at = replica;
            self.schedule(now, Event::Written { at, life, write });
        }
        // What the place of snapshots has under way waits for the end of the stall as well, which is now.
        let member = self.member(replica);
        for _ in 0..member.running.as_ref().map_or(0, |running| running.stored) {
            let at = replica;
            self.schedule(now, Event::Stored { at, life });
        }
    }
}
