//! When disks finish what they were given: writes of WALs, and what the places of snapshots have to do.

use synod_engine::ids::ReplicaId;

use crate::seams::Seams;

use super::World;
use super::event::Event;

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
            running.next_write += 1;
            running.writes.push(running.next_write);
            started.push(running.next_write);
        }
        for write in started {
            let due = self.now + min + self.disks.exponential(jitter);
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
        running.writes.remove(place);
        running.wal.complete(place);
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
        running.store.complete_next();
        running.stored = running
            .store
            .under_way()
            .min(running.stored.saturating_sub(1));
    }
}
