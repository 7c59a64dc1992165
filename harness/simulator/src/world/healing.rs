//! The second phase: a random quorum works from now on, everything else stays broken for ever.

use synod_engine::ids::{ReplicaId, ReplicaSet};

use crate::member::Impairment;
use crate::random::Random;
use crate::seams::Seams;

use super::event::Event;
use super::{World, stream};

/// How one of those that stay broken is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Broken {
    Down,
    Isolated,
    /// Hears nobody, but is heard.
    Deaf,
    /// Hears everybody, but is not heard.
    Mute,
    /// Hears and is heard, but its disk finishes nothing any more.
    DiskHangs,
    /// Stands still.
    Paused,
    /// What carries values does not get through to the others.
    Valueless,
}

impl<S: Seams> World<S> {
    /// Heals a random quorum and returns it. `submit` more commands are allowed to each client.
    pub fn heal(&mut self, submit: u64) -> ReplicaSet {
        self.healed = true;
        let mut random = Random::new(self.plan.seed, stream::HEALING);
        let mut order: Vec<ReplicaId> = self.replicas().collect();
        random.shuffle(&mut order);
        // The quorum consists of replicas that lost nothing: of each chosen value one of them has a copy. Others may
        // be healed as well and have to be repaired.
        self.impairments_left();
        order.sort_by_key(|replica| self.member(*replica).impairment != Impairment::None);
        let count = random.between(
            self.plan.working_min() as u64,
            u64::from(self.plan.replicas),
        );
        let working: ReplicaSet = order.into_iter().take(count as usize).collect();
        self.trace_line(format_args!("{working} are healed"));
        for replica in self.replicas() {
            if working.contains(replica) {
                self.heal_member(replica);
            } else {
                self.break_for_good(replica, working, &mut random);
            }
            for other in working.iter().filter(|other| *other != replica) {
                if working.contains(replica) {
                    self.links.heal(replica, other);
                }
            }
        }
        for index in 0..self.clients.len() {
            self.clients[index].finish_with(self.now, submit);
            self.client_acts(index);
        }
        working
    }

    fn heal_member(&mut self, replica: ReplicaId) {
        let now = self.now;
        self.make_room(replica);
        let member = self.member_mut(replica);
        member.storms = 0;
        // Nor does a failure strike that its disk was to meet later.
        member.disk.sound();
        member.snapshots.sound();
        member.paused_until = member.paused_until.min(now);
        let life = member.life;
        self.thaw_disk(replica);
        if !self.alive(replica) {
            self.schedule(now, Event::Start { replica, life });
        } else {
            self.turn_again(replica);
        }
        for client in 0..self.clients.len() {
            self.schedule(now, Event::Connect { client, replica });
        }
    }

    /// A turn that waited for the end of a pause comes now.
    fn turn_again(&mut self, at: ReplicaId) {
        let (now, member) = (self.now, self.member_mut(at));
        member.turn_at = Some(now);
        let life = member.life;
        self.schedule(now, Event::Turn { at, life });
    }

    fn break_for_good(&mut self, replica: ReplicaId, working: ReplicaSet, random: &mut Random) {
        let broken = random.one_of(&[
            Broken::Down,
            Broken::Isolated,
            Broken::Deaf,
            Broken::Mute,
            Broken::DiskHangs,
            Broken::Paused,
            Broken::Valueless,
        ]);
        self.trace_line(format_args!("{replica} stays broken: {broken:?}"));
        for other in working.iter() {
            if matches!(broken, Broken::Isolated | Broken::Deaf) {
                self.links.cut(other, replica);
            }
            if matches!(broken, Broken::Isolated | Broken::Mute) {
                self.links.cut(replica, other);
            }
        }
        if broken == Broken::Valueless {
            for other in self.replicas().filter(|other| *other != replica) {
                self.links.cut_data(replica, other);
            }
        }
        let member = self.member_mut(replica);
        match broken {
            Broken::Down => {
                member.gone = true;
                if self.alive(replica) {
                    self.crash(replica);
                }
            }
            Broken::DiskHangs => member.stalled_until = u64::MAX,
            Broken::Paused => member.paused_until = u64::MAX,
            Broken::Isolated | Broken::Deaf | Broken::Mute | Broken::Valueless => {}
        }
    }
}
