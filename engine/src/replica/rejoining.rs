//! The way back of a replica that lost records: some of them ([`crate::mending`]) or all ([`crate::members`]).

use crate::ids::{Ballot, Incarnation, Lsn, ReplicaId, Slot, Time};
use crate::members::Readmission;
use crate::mending::Mending;
use crate::message::{Record, Value};
use crate::output::{Output, ReadForPeer};

use super::{Replica, Role};

impl Replica {
    /// Whether this replica takes part at all: it never lost its disk as far as anybody knows, or the cluster readmitted
    /// it since.
    pub(super) fn admitted(&self) -> bool {
        let own = self.acceptor.incarnation();
        self.slots.members().incarnation(self.config.replica) == own
            && (own == Incarnation::FOUNDING || self.acceptor.promised() > Ballot::ZERO)
            && self.newcomer.is_none()
    }

    /// Whether a later life of this replica was readmitted: this disk is a remnant that must never vote again. Numbers
    /// do not tell earlier from later, but the log does: a disk that has a vote holds its own readmission, so that
    /// another one can only come after it. One that lost records may not have got back to its own yet.
    pub fn superseded(&self) -> bool {
        let current = self.slots.members().incarnation(self.config.replica);
        let own = self.acceptor.incarnation();
        let had_a_vote = self.acceptor.promised() > Ballot::ZERO && self.mending.is_none();
        current != own
            && current != Incarnation::FOUNDING
            && (own == Incarnation::FOUNDING || had_a_vote)
    }

    /// As what this replica asks to be readmitted: a disk that had a vote before does not ask, for what it was part of
    /// then is not forgotten.
    pub(super) fn asks_as(&self) -> Incarnation {
        if self.acceptor.promised() == Ballot::ZERO {
            self.acceptor.incarnation()
        } else {
            Incarnation::FOUNDING
        }
    }

    /// Whether it can tell what it accepted: only then it promises, and only then it stands.
    pub fn may_promise(&self) -> bool {
        self.admitted() && self.mending.is_none()
    }

    /// Slots whose chosen value has to come from a peer before this replica promises anything.
    pub fn slots_missing(&self) -> u64 {
        let held = self.slots.commit_index();
        let missing = self.mending.iter().flat_map(|mending| mending.missing());
        missing
            .map(|(first, last)| (last.0 + 1).saturating_sub(first.max(held.next()).0))
            .sum()
    }

    /// Brings this replica nearer to what is chosen: from its own WAL where that holds it, otherwise from a peer.
    pub(super) fn catch_up(&mut self, now: Time, patience_ns: u64, out: &mut Output) {
        if self.download.is_some() {
            return self.continue_download(now, out);
        }
        let next = self.slots.commit_index().next();
        let Some(mending) = &mut self.mending else {
            return self.fetch_if_behind(now, patience_ns, Slot(u64::MAX), out);
        };
        if let Some(through) = mending.at_hand(next) {
            if mending.may_read() {
                let to = self.config.replica;
                let from = next;
                out.reads.push(ReadForPeer { to, from, through });
            }
            return;
        }
        // Only what is missing: the rest is here, and perhaps nowhere else.
        let through = mending.missing_through(next).unwrap_or(Slot(u64::MAX));
        self.fetch_if_behind(now, patience_ns, through, out);
    }

    /// Part of the own WAL, asked for while mending. It is durable where it stands, so nothing is appended.
    pub(super) fn on_recalled(
        &mut self,
        now: Time,
        from: Slot,
        values: Vec<Value>,
        out: &mut Output,
    ) {
        let Some(mending) = &mut self.mending else {
            return;
        };
        mending.read_ended();
        let next = self.slots.commit_index().next();
        if values.is_empty() && from == next && mending.at_hand(from).is_some() {
            self.counters.slots_unreadable += 1;
            mending.lost(from);
        }
        let mut slot = from;
        for value in values {
            if slot == self.slots.commit_index().next() && mending.at_hand(slot).is_some() {
                self.slots.choose(slot, value, Lsn::ZERO, out);
                self.counters.slots_recalled += 1;
            }
            slot = slot.next();
        }
        self.caught_up(now, out);
    }

    /// After the commit index moved by other means than the leader's: goes on where that ended.
    pub(super) fn caught_up(&mut self, now: Time, out: &mut Output) {
        self.advance_by_leader(now, out);
        self.learner.progressed(now, self.slots.commit_index());
        self.end_mending();
        self.catch_up(now, 0, out);
    }

    /// Takes back what was accepted and is still open, once no slot is missing.
    pub(super) fn end_mending(&mut self) {
        let commit_index = self.slots.commit_index();
        if let Some(mending) = self.mending.take_if(|mending| mending.done(commit_index)) {
            for (slot, ballot, value) in mending.into_open() {
                // What the present leader sent meanwhile is newer.
                if slot > self.slots.last() {
                    self.slots.accept(slot, ballot, value, Lsn::ZERO);
                }
            }
        }
    }

    /// The leader of `ballot` says that every slot up to `chosen` is, and no other: with all of them held here, a new
    /// leader ends the mending even if nothing is ever proposed for a slot that is missing.
    pub(super) fn settle_mending(
        &mut self,
        now: Time,
        ballot: Ballot,
        chosen: Slot,
        out: &mut Output,
    ) {
        if !self.admitted() {
            // Its first promise has to come from the leader that says that it is readmitted.
            return;
        }
        let held = self.slots.commit_index();
        let settled = |mending: &mut Mending| {
            held >= chosen && held >= mending.chosen() && mending.settled_by(ballot)
        };
        if self.mending.take_if(settled).is_some() && self.acceptor.promised() < ballot {
            self.acceptor.raise_promise(ballot);
            self.persist.append(now, Record::Promised { ballot }, out);
        }
    }

    /// A leader hears from a replica that lost its disk and holds every slot up to `held`: it proposes to readmit it,
    /// once.
    pub(super) fn readmit(
        &mut self,
        now: Time,
        replica: ReplicaId,
        incarnation: Incarnation,
        held: Slot,
        out: &mut Output,
    ) {
        let readmission = Readmission {
            replica,
            incarnation,
        };
        let members = self.slots.members();
        // Never back to an earlier life, of which a heartbeat may be late: it was sent before the present life asked, and
        // so without the slot that readmitted this one.
        let news = incarnation != Incarnation::FOUNDING
            && incarnation != members.incarnation(replica)
            && held >= members.since(replica);
        if !news || !self.serves() || self.slots.open_readmission(replica) {
            return;
        }
        let has_room = match &self.role {
            Role::Leader(leader) => leader.has_room(&self.config),
            Role::Follower | Role::Candidate(_) => false,
        };
        if has_room && self.persist.has_room() {
            self.counters.readmissions_proposed += 1;
            self.propose(now, readmission.encode(), out);
        }
    }

    /// The leader of `ballot` says that every slot up to `chosen` is. If that covers this replica's own readmission,
    /// and it holds all before, it takes part from here on, and accepts nothing below `ballot`.
    pub(super) fn begin_voting(
        &mut self,
        now: Time,
        ballot: Ballot,
        chosen: Slot,
        out: &mut Output,
    ) {
        let members = self.slots.members();
        let replica = self.config.replica;
        let readmitted = self.acceptor.incarnation() != Incarnation::FOUNDING
            && members.incarnation(replica) == self.acceptor.incarnation()
            && chosen >= members.since(replica);
        if readmitted && self.acceptor.promised() == Ballot::ZERO {
            self.acceptor.raise_promise(ballot);
            self.persist.append(now, Record::Promised { ballot }, out);
        }
    }
}
