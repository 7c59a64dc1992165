//! What a replica does as acceptor and learner, whoever leads.

use crate::acceptor::{AcceptVerdict, AheadLimit, PrepareVerdict};
use crate::ids::{Ballot, ReplicaId, Slot, Time};
use crate::message::{
    Accept, Chosen, Fetch, Heartbeat, HeartbeatRole, Message, Prepare, Record, Reject, Value,
};
use crate::output::{Leadership, Output, ReadForPeer};

use super::{Replica, Role};

/// Values below this size are copied out of the network's buffers.
const PINNING_BYTES_MIN: usize = 16 << 10;

/// A value that is kept must not keep a whole train of packets with it, many times its own size; a large one that
/// spans packets has a buffer of its own already.
pub(super) fn unpinned(value: Value) -> Value {
    if value.len() < PINNING_BYTES_MIN {
        Value::copy_from_slice(&value)
    } else {
        value
    }
}

impl Replica {
    pub(super) fn on_prepare(
        &mut self,
        now: Time,
        from: ReplicaId,
        prepare: Prepare,
        out: &mut Output,
    ) {
        let ballot = prepare.ballot;
        self.see_ballot(ballot);
        if !self.may_promise() {
            self.acceptor.counters.votes_withheld += 1;
            return;
        }
        if ballot > self.acceptor.promised() && !self.persist.has_room_for_promise() {
            // Each candidacy costs a record, and the disk takes none.
            self.counters.promises_without_room += 1;
            return;
        }
        match self.acceptor.prepare(ballot) {
            PrepareVerdict::Reject => self.reject(from, out),
            PrepareVerdict::Promise => {
                self.yield_to(now, ballot);
                let lsn = self.persist.append(now, Record::Promised { ballot }, out);
                self.acceptor.hold_promise(from, lsn);
                self.election.give_way(now, &self.config);
            }
            PrepareVerdict::Repeat => {
                if !self.acceptor.holds_promise_to(from) {
                    self.acceptor.hold_promise(from, self.persist.appended());
                }
                self.release(out);
            }
        }
    }

    /// Ends a candidacy or leadership of this replica at a lower ballot.
    fn yield_to(&mut self, now: Time, ballot: Ballot) {
        let own = match &self.role {
            Role::Follower => return,
            Role::Candidate(candidate) => candidate.ballot,
            Role::Leader(leader) => leader.ballot,
        };
        if own < ballot {
            self.step_down(now);
        }
    }

    fn reject(&mut self, to: ReplicaId, out: &mut Output) {
        let promised = self.acceptor.promised();
        self.send(to, Message::Reject(Reject { promised }), out);
    }

    #[inline(never)]
    pub(super) fn on_accept(
        &mut self,
        now: Time,
        from: ReplicaId,
        accept: Accept,
        out: &mut Output,
    ) {
        let Accept {
            ballot,
            slot,
            commit_index,
            ..
        } = accept;
        self.see_ballot(ballot);
        if !self.admitted() {
            self.acceptor.counters.votes_withheld += 1;
            self.election.on_leader(now, ballot, &self.config);
            return self.learn_from_leader(now, ballot, commit_index, out);
        }
        let own = from == self.config.replica;
        let accept = Accept {
            value: unpinned(accept.value),
            ..accept
        };
        let ahead = if own {
            AheadLimit::NONE
        } else {
            AheadLimit::of(&self.config, self.persist.has_room())
        };
        let promised = self.acceptor.promised();
        if !own && ballot > promised && !self.persist.has_room_for_promise() {
            self.counters.promises_without_room += 1;
            return;
        }
        let appended = self.persist.appended();
        // Whatever raises the promise gets a record, the next one: no acknowledgement at a ballot leaves before it.
        let after = if ballot > promised {
            appended.next()
        } else {
            appended
        };
        let verdict = self.acceptor.accept(&accept, &self.slots, after, ahead);
        if verdict == AcceptVerdict::Reject {
            return self.reject(from, out);
        }
        if !own {
            self.yield_to(now, ballot);
            self.election.on_leader(now, ballot, &self.config);
        }
        if verdict != AcceptVerdict::Accept && ballot > promised {
            // The promise rose without a value whose record would carry it.
            self.persist.append(now, Record::Promised { ballot }, out);
        }
        match verdict {
            AcceptVerdict::Accept => {
                let value = accept.value.clone();
                let record = Record::Accepted(Accept {
                    commit_index: self.slots.commit_index(),
                    ..accept
                });
                let lsn = self.persist.append(now, record, out);
                self.slots.accept(slot, ballot, value, lsn);
                self.acceptor.hold_accepted(slot, lsn);
            }
            AcceptVerdict::Duplicate => {
                self.release(out);
                if let Some((to, message)) = self.acceptor.acknowledgement() {
                    self.send(to, message, out);
                }
            }
            // The leader notices by the heartbeats that nothing arrives, and sends again.
            AcceptVerdict::OutOfOrder
            | AcceptVerdict::TooFarAhead
            | AcceptVerdict::NoRoom
            | AcceptVerdict::Reject => {}
        }
        if !own {
            self.learn_from_leader(now, ballot, commit_index, out);
        }
    }

    /// What was accepted at the leader's ballot, up to what that leader says is chosen, is the chosen value.
    fn learn_from_leader(&mut self, now: Time, ballot: Ballot, chosen: Slot, out: &mut Output) {
        let commit_index = self.slots.commit_index();
        self.learner.hear_leader(now, ballot, chosen, commit_index);
        self.advance_by_leader(now, out);
    }

    pub(super) fn advance_by_leader(&mut self, now: Time, out: &mut Output) {
        let commit_index = self.slots.commit_index();
        let (ballot, chosen) = self.learner.by_leader();
        let through = chosen.min(self.acceptor.received(ballot, commit_index));
        if through > commit_index {
            self.slots.advance(through, out);
            self.learner.progressed(now, through);
            self.end_mending();
        }
    }

    pub(super) fn on_heartbeat(
        &mut self,
        now: Time,
        from: ReplicaId,
        heartbeat: Heartbeat,
        out: &mut Output,
    ) {
        let ballot = heartbeat.ballot;
        let commit_index = heartbeat.commit_index;
        self.see_ballot(ballot);
        match heartbeat.role {
            // Neither a vote nor a link that a leader could rely on.
            HeartbeatRole::Readmitting { incarnation } => {
                return self.readmit(now, from, incarnation, commit_index, out);
            }
            HeartbeatRole::Founding => return self.answer_newcomer(from, out),
            HeartbeatRole::Leading
            | HeartbeatRole::Following
            | HeartbeatRole::Standing
            | HeartbeatRole::Searching => {}
        }
        if let Role::Leader(leader) = &mut self.role {
            leader.on_heartbeat(now, from, &heartbeat, &self.slots, &self.config);
        }
        self.learner
            .hear(now, commit_index, self.slots.commit_index());
        self.retention.hear(now, from, commit_index);
        let role = heartbeat.role;
        self.election.on_heartbeat(now, from, heartbeat);
        match role {
            HeartbeatRole::Leading => self.on_leading(now, from, ballot, commit_index, out),
            // Somebody leads at a higher ballot: whatever this replica leads is over, told or not.
            HeartbeatRole::Following => self.yield_to(now, ballot),
            HeartbeatRole::Standing if ballot >= self.acceptor.promised() => {
                self.election.give_way(now, &self.config);
            }
            HeartbeatRole::Standing
            | HeartbeatRole::Searching
            | HeartbeatRole::Readmitting { .. }
            | HeartbeatRole::Founding => {}
        }
    }

    fn on_leading(
        &mut self,
        now: Time,
        from: ReplicaId,
        ballot: Ballot,
        commit_index: Slot,
        out: &mut Output,
    ) {
        if ballot < self.acceptor.promised() {
            // It does not know that it was deposed.
            return self.reject(from, out);
        }
        self.yield_to(now, ballot);
        self.election.on_leader(now, ballot, &self.config);
        self.note_leadership(ballot, Some(ballot.replica));
        self.learn_from_leader(now, ballot, commit_index, out);
        self.begin_voting(now, ballot, commit_index, out);
        self.settle_mending(now, ballot, commit_index, out);
    }

    pub(super) fn note_leadership(&mut self, ballot: Ballot, leader: Option<ReplicaId>) {
        if ballot >= self.leadership.ballot {
            self.leadership = Leadership { ballot, leader };
        }
    }

    pub(super) fn on_fetch(&mut self, now: Time, from: ReplicaId, fetch: Fetch, out: &mut Output) {
        let through = fetch.through.min(self.slots.commit_index());
        let first = fetch.from.max(Slot(1));
        if first > through {
            return;
        }
        if first < self.acceptor.trim_floor() {
            return self.offer_snapshot(now, from, first, out);
        }
        self.counters.fetches_served += 1;
        if first < self.slots.base() {
            // Only what left memory, and so is durable: the WAL may know an older value of a later slot, one that was
            // accepted and never chosen.
            out.reads.push(ReadForPeer {
                to: from,
                from: first,
                through: through.min(self.slots.base().previous()),
            });
            return;
        }
        let bytes_max = self.config.limits.fetch_bytes_max;
        let values = self.slots.run(first, through, bytes_max);
        out.send(
            from,
            Message::Chosen(Chosen {
                from: first,
                values,
            }),
        );
    }

    fn heartbeat_role(&self, now: Time) -> HeartbeatRole {
        match &self.role {
            Role::Leader(leader) if leader.established(self.slots.commit_index()) => {
                HeartbeatRole::Leading
            }
            Role::Leader(_) | Role::Candidate(_) => HeartbeatRole::Standing,
            Role::Follower if self.newcomer.is_some() => HeartbeatRole::Founding,
            Role::Follower if !self.admitted() => HeartbeatRole::Readmitting {
                incarnation: self.asks_as(),
            },
            Role::Follower if self.election.live_leader(now, &self.config).is_some() => {
                HeartbeatRole::Following
            }
            Role::Follower => HeartbeatRole::Searching,
        }
    }

    pub(super) fn send_heartbeat(&mut self, now: Time, out: &mut Output) {
        let role = self.heartbeat_role(now);
        if !self.election.heartbeat_due(now, role) {
            return;
        }
        let ballot = match (&self.role, self.election.live_leader(now, &self.config)) {
            (Role::Leader(leader), _) => leader.ballot,
            (Role::Candidate(candidate), _) => candidate.ballot,
            (Role::Follower, Some(leader)) => leader,
            (Role::Follower, None) => self.acceptor.promised(),
        };
        let commit_index = self.slots.commit_index();
        let heartbeat = Heartbeat {
            ballot,
            role,
            hears: self.election.hears(now, &self.config),
            commit_index,
            received: self.acceptor.received(ballot, commit_index),
            stored: self.slots.stored(),
            owed_bytes: u32::try_from(self.persist.owed_bytes()).unwrap_or(u32::MAX),
            trim_floor: self.acceptor.trim_floor(),
        };
        out.broadcast(self.peers(), Message::Heartbeat(heartbeat));
        // An acknowledgement that got lost has nothing after it that would make up for it: say it again.
        if let (Role::Follower, Some((to, message))) = (&self.role, self.acceptor.acknowledgement())
        {
            self.send(to, message, out);
        }
        self.election.heartbeat_sent(now, role, &self.config);
    }
}
