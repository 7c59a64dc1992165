//! What a replica does as proposer: standing, Phase 1, proposing.

use crate::candidate::{Candidate, Phase1};
use crate::election::Candidacy;
use crate::ids::{Ballot, ReplicaId, Slot, Time};
use crate::leader::Leader;
use crate::message::{Accept, Accepted, Message, Prepare, Promise, Reject, Value};
use crate::output::Output;

use super::{Replica, Role};

impl Replica {
    pub(super) fn stand_if_due(&mut self, now: Time, out: &mut Output) {
        if !self.may_promise() || self.is_downloading(now) {
            return self.election.give_way_if_due(now, &self.config);
        }
        // One that owes for so long could not get its own promise to disk either, and others would wait for it.
        let patience_ns = self.config.timers.election_timeout_ns;
        let candidacy = Candidacy {
            promised: self.acceptor.promised(),
            commit_index: self.slots.commit_index(),
            disk_stalled: self.persist.stalled(now, patience_ns) || !self.persist.has_room(),
        };
        if self.election.should_stand(now, &self.config, candidacy) {
            self.stand(now, out);
        }
    }

    /// Becomes a candidate: promises the new ballot to itself first, and asks the others once that is durable, so
    /// that no restart can make it use the ballot twice (phxpaxos#145).
    fn stand(&mut self, now: Time, out: &mut Output) {
        let seen = self.round_seen.max(self.acceptor.promised().round);
        // At the end of all rounds nobody can stand any more: rather no leader than a ballot that is used twice.
        let Some(round) = seen.checked_add(1) else {
            return self.election.give_way(now, &self.config);
        };
        self.counters.elections += 1;
        self.election.stood();
        let ballot = Ballot {
            round,
            replica: self.config.replica,
        };
        self.role = Role::Candidate(Candidate::new(ballot, now));
        let prepare = Prepare {
            ballot,
            commit_index: self.slots.commit_index(),
        };
        self.to_self.push_back(Message::Prepare(prepare));
        self.deliver_to_self(now, out);
    }

    pub(super) fn on_promise(
        &mut self,
        now: Time,
        from: ReplicaId,
        promise: Promise,
        out: &mut Output,
    ) {
        match &mut self.role {
            Role::Candidate(candidate) if candidate.ballot == promise.ballot => {
                if from == self.config.replica && !candidate.announced {
                    candidate.announced = true;
                    candidate.since = now;
                }
                self.learner
                    .hear(now, promise.commit_index, self.slots.commit_index());
                self.election
                    .note_held(from, promise.commit_index, promise.trim_floor);
                candidate.on_promise(from, promise);
                self.ask_for_promises(now, out);
                self.continue_phase1(now, out);
            }
            Role::Leader(leader) if leader.ballot == promise.ballot => {
                // Late: not needed for the quorum, but it says where this peer's stream has to start.
                let next = promise.commit_index.next();
                if next >= self.slots.base() {
                    leader.stream_from(now, from, next);
                }
            }
            Role::Follower | Role::Candidate(_) | Role::Leader(_) => {}
        }
    }

    /// Sends the Prepare to everyone who has not answered, once this replica's own promise is durable.
    fn ask_for_promises(&mut self, now: Time, out: &mut Output) {
        let peers = self.peers();
        let Role::Candidate(candidate) = &mut self.role else {
            return;
        };
        if !candidate.announced || now < candidate.ask_at {
            return;
        }
        // Not with each heartbeat: a promise carries everything open, and copies of it would queue on a slow link.
        candidate.ask_at = now.plus(self.config.timers.retransmit_ns);
        let prepare = Prepare {
            ballot: candidate.ballot,
            commit_index: self.slots.commit_index(),
        };
        let promised = candidate.promised(self.slots.members());
        let missing = peers
            .iter()
            .filter(|peer| !promised.contains(*peer))
            .collect();
        out.broadcast(missing, Message::Prepare(prepare));
    }

    pub(super) fn continue_phase1(&mut self, now: Time, out: &mut Output) {
        let Role::Candidate(candidate) = &mut self.role else {
            return;
        };
        let commit_index = self.slots.commit_index();
        match candidate.progress(self.config.quorums, self.slots.members(), commit_index) {
            Phase1::Waiting => {}
            Phase1::Behind { .. } => self.fetch_if_behind(now, 0, Slot(u64::MAX), out),
            Phase1::BelowTrimFloor => {
                // Trap 7: nothing is proposed without those slots. While the snapshot comes, another may lead.
                self.counters.prepare_below_trim_floor += 1;
                self.fetch_if_behind(now, 0, Slot(u64::MAX), out);
                self.step_down(now);
                self.election.give_way(now, &self.config);
            }
            Phase1::Recovered(values) => self.lead(now, values, out),
        }
    }

    /// Phase 1 is over: proposes what may have been chosen, closes the gaps, and ends with a no-op of its own.
    /// Everything that former leaders chose is chosen here once that no-op is.
    fn lead(&mut self, now: Time, mut values: Vec<Value>, out: &mut Output) {
        let Role::Candidate(candidate) = std::mem::replace(&mut self.role, Role::Follower) else {
            unreachable!("only a candidate becomes leader");
        };
        self.counters.leaderships += 1;
        self.end_download(out);
        self.fetches.clear();
        values.push(Value::new());
        let next = self.slots.commit_index().next();
        let barrier = Slot(next.0 + values.len() as u64 - 1);
        let mut leader = Leader::new(candidate.ballot, &self.config, now, next, barrier);
        for (replica, commit_index) in candidate.commit_indexes(self.slots.members()) {
            if commit_index.next() >= self.slots.base() {
                leader.stream_from(now, replica, commit_index.next());
            }
        }
        self.role = Role::Leader(leader);
        for value in values {
            self.propose(now, value, out);
        }
    }

    pub(super) fn propose(&mut self, now: Time, value: Value, out: &mut Output) {
        let Role::Leader(leader) = &mut self.role else {
            unreachable!("only a leader proposes");
        };
        self.counters.proposals += 1;
        self.counters.no_ops += u64::from(value.is_empty());
        let (slot, to) = leader.propose(now, value.len(), &self.config);
        let accept = Accept {
            ballot: leader.ballot,
            slot,
            commit_index: self.slots.commit_index(),
            value,
        };
        out.broadcast(to, Message::Accept(accept.clone()));
        self.to_self.push_back(Message::Accept(accept));
        self.deliver_to_self(now, out);
    }

    #[inline(never)]
    pub(super) fn propose_batches(&mut self, now: Time, out: &mut Output) {
        while let Role::Leader(leader) = &self.role {
            if !self.persist.has_room() {
                if self.intake.bytes() > 0 {
                    self.tenure.throttled(now);
                }
                return;
            }
            if !leader.has_room(&self.config) {
                return;
            }
            let Some(value) = self.intake.take() else {
                return;
            };
            self.propose(now, value, out);
        }
    }

    /// Sends to peers that lag what they are missing, as far as each one's own window has room.
    pub(super) fn serve_lagging(&mut self, now: Time, out: &mut Output) {
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        while let Some((to, slot)) = leader.next_for(&self.config, &self.slots) {
            let entry = self
                .slots
                .get(slot)
                .expect("a streaming peer's next slot is in memory");
            let accept = Accept {
                ballot: leader.ballot,
                slot,
                commit_index: self.slots.commit_index(),
                value: entry.value.clone(),
            };
            leader.sent(now, to, slot, accept.value.len());
            self.counters.accepts_resent += 1;
            out.send(to, Message::Accept(accept));
        }
    }

    #[inline(never)]
    pub(super) fn on_accepted(
        &mut self,
        now: Time,
        from: ReplicaId,
        accepted: Accepted,
        out: &mut Output,
    ) {
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        if accepted.ballot != leader.ballot || accepted.through >= leader.next() {
            return;
        }
        let quorum = self.config.quorums.accept;
        let chosen = leader.on_accepted(now, from, accepted.through, quorum);
        if chosen > self.slots.commit_index() {
            self.slots.advance(chosen, out);
            self.learner.progressed(now, chosen);
            leader.on_chosen(now, chosen);
            if self.serves() {
                let ballot = accepted.ballot;
                self.note_leadership(ballot, Some(self.config.replica));
            }
        }
    }

    pub(super) fn on_reject(&mut self, now: Time, reject: Reject) {
        self.see_ballot(reject.promised);
        let own = match &self.role {
            Role::Follower => return,
            Role::Candidate(candidate) => candidate.ballot,
            Role::Leader(leader) => leader.ballot,
        };
        if reject.promised > own {
            self.step_down(now);
        }
    }

    pub(super) fn on_candidate_deadline(&mut self, now: Time, out: &mut Output) {
        let Role::Candidate(candidate) = &self.role else {
            return;
        };
        let promised = candidate.promised(self.slots.members());
        let fetching = promised.len() >= usize::from(self.config.quorums.prepare);
        let timers = &self.config.timers;
        let hopeless = if fetching {
            self.learner.behind_ns(now) >= timers.election_timeout_ns
        } else if candidate.announced {
            now.since(candidate.since) >= self.election.patience_ns(&self.config)
        } else {
            // Its own disk owes the promise.
            now.since(candidate.since) >= timers.disk_stall_ns
        };
        if hopeless {
            return self.step_down(now);
        }
        self.ask_for_promises(now, out);
        self.continue_phase1(now, out);
    }

    /// A leader leads only while a quorum hears it and its disk makes progress, it has to get established, and what it
    /// proposes has to get chosen. `waiting_ns` is how long it has been waiting for that.
    pub(super) fn on_leader_deadline(&mut self, now: Time, established: bool, waiting_ns: u64) {
        let first_ns = self.config.timers.disk_stall_ns;
        let patience_ns = self.tenure.patience_ns(now, first_ns);
        if self.persist.owed_bytes() < self.config.limits.owed_bytes_max / 2 {
            self.tenure.kept_up();
        }
        if self.persist.stalled(now, first_ns) {
            self.counters.disk_stalls += 1;
            self.step_down(now);
            self.election.give_way(now, &self.config);
        } else if !self.election.quorum_connected(now, &self.config) {
            self.step_down(now);
        } else if !established && waiting_ns >= first_ns {
            // Nobody acknowledges: promised higher meanwhile, perhaps, and the Reject got lost.
            self.retire(now);
        } else if established && waiting_ns >= patience_ns {
            // Heard by a quorum, and yet its values do not get through: somebody else's may.
            self.counters.progress_stalls += 1;
            self.retire(now);
        } else if self.tenure.throttled_ns(now) >= patience_ns && self.others_keep_up(now) {
            self.counters.disk_handovers += 1;
            self.retire(now);
        }
    }

    /// Whether the others could choose without this replica's disk, and have nothing to do.
    fn others_keep_up(&self, now: Time) -> bool {
        let commit_index = self.slots.commit_index();
        let quick = self.election.quick(now, &self.config, commit_index);
        quick >= usize::from(self.config.quorums.accept)
    }

    /// Gives up leading in favour of whoever else could.
    fn retire(&mut self, now: Time) {
        self.step_down(now);
        self.tenure.gave_way(now, self.config.timers.disk_stall_ns);
        self.election.retire(now, &self.config);
    }

    /// Tells what changed about the leader since the last turn.
    pub(super) fn tell_leadership(&mut self, out: &mut Output) {
        if self.leadership.leader == Some(self.config.replica) && !self.serves() {
            self.leadership.leader = None;
        }
        if self.announced != self.leadership {
            self.announced = self.leadership;
            out.leadership = Some(self.leadership);
        }
    }
}
