//! The first start of a replica, or what looks like one ([`crate::newcomer`]), and what its peers say to that.

use crate::ids::{Ballot, Incarnation, ReplicaId, Slot, Time};
use crate::message::{Known, Message, Record};
use crate::newcomer::Newcomer;
use crate::output::Output;

use super::Replica;

impl Replica {
    /// To be called at each start: a founding member that never promised anything has no vote until its peers have
    /// answered. One that is alone has nobody to ask.
    pub fn arrive(&mut self, now: Time) {
        let never_voted = self.acceptor.incarnation() == Incarnation::FOUNDING
            && self.acceptor.promised() == Ballot::ZERO;
        if never_voted && self.config.replicas > 1 {
            self.newcomer = Some(Newcomer::new(now));
        }
    }

    /// Who knows that this replica, whose disk is empty, took part before. It will never have a vote with this disk.
    pub fn disowned_by(&self) -> Option<ReplicaId> {
        self.newcomer.as_ref()?.disowned_by()
    }

    /// A peer with an empty disk asks whether it is known.
    pub(super) fn answer_newcomer(&mut self, from: ReplicaId, out: &mut Output) {
        let took_part = self.took_part(from);
        self.counters.newcomers_refused += u64::from(took_part);
        let known = Known {
            took_part,
            commit_index: self.slots.commit_index(),
        };
        out.send(from, Message::Known(known));
    }

    /// Whether `peer` is known to have had a vote: because it was heard with one by this process, because the log
    /// readmitted it, because its ballot was promised here, or because nothing is chosen without everybody.
    fn took_part(&self, peer: ReplicaId) -> bool {
        let promised = self.acceptor.promised();
        let takes_all = self.config.quorums.accept == self.config.replicas;
        self.election.has_heard(peer)
            || self.slots.members().incarnation(peer) != Incarnation::FOUNDING
            || promised.round > 0 && promised.replica == peer
            || takes_all && self.slots.commit_index() > Slot::ZERO
    }

    pub(super) fn on_known(&mut self, from: ReplicaId, known: Known) {
        if let Some(newcomer) = &mut self.newcomer {
            newcomer.on_answer(from, known);
        }
    }

    /// Gives a newcomer its vote once it may have it. The disk knows first: a ballot that nobody proposes in says so.
    pub(super) fn settle_newcomer(&mut self, now: Time, out: &mut Output) {
        let Some(newcomer) = &mut self.newcomer else {
            return;
        };
        let held = self.slots.commit_index();
        match newcomer.vote {
            Some(lsn) if lsn <= self.persist.durable() => {
                self.newcomer = None;
                if self.election.live_leader(now, &self.config).is_none() {
                    // It did not stand so far, and need not wait for a leader that nobody could elect.
                    self.election.back_off(now, &self.config);
                }
            }
            None if newcomer.may_vote(now, &self.config, held) => {
                let ballot = Ballot {
                    round: 0,
                    replica: self.config.replica,
                };
                self.acceptor.raise_promise(ballot);
                let lsn = self.persist.append(now, Record::Promised { ballot }, out);
                newcomer.vote = Some(lsn);
            }
            Some(_) | None => {}
        }
    }
}
