//! One replica: the roles put together. Events go in, plain data comes out; no IO, clock or randomness inside.

mod arriving;
mod fetching;
mod following;
mod leading;
mod rejoining;
mod replay;
mod snapshotting;

use std::collections::VecDeque;

use crate::acceptor::Acceptor;
use crate::admission::{Admission, Refusals};
use crate::batch::Intake;
use crate::candidate::Candidate;
use crate::client::{REQUEST_HEADER_BYTES, Request};
use crate::config::Config;
use crate::download::Download;
use crate::election::Election;
use crate::fetching::Fetches;
use crate::ids::{Ballot, Incarnation, Lsn, ReplicaId, ReplicaSet, Slot, Time};
use crate::leader::Leader;
use crate::learner::Learner;
use crate::mending::Mending;
use crate::message::{Message, Value};
use crate::newcomer::Newcomer;
use crate::output::{Leadership, Output};
use crate::persist::Persist;
use crate::retention::Retention;
use crate::slots::Slots;
use crate::tenure::Tenure;

pub use replay::Replay;

/// Slots whose chosen values may stay in memory for peers that lag, whatever their size.
pub(crate) const CACHE_SLOTS_MAX: u64 = 65_536;

#[derive(Clone, Debug)]
pub struct Replica {
    config: Config,
    /// Set while records are missing that this replica may have to answer for.
    mending: Option<Mending>,
    /// Set while it is not settled whether an empty disk is a new one.
    newcomer: Option<Newcomer>,
    role: Role,
    acceptor: Acceptor,
    slots: Slots,
    learner: Learner,
    fetches: Fetches,
    election: Election,
    persist: Persist,
    tenure: Tenure,
    retention: Retention,
    /// The snapshot that comes in, of a replica below the trim floor of the others.
    download: Option<Download>,
    intake: Intake,
    /// The highest round in any ballot seen: the next candidacy goes above it.
    round_seen: u64,
    /// Who leads, as far as is known, and what of that the clients were told.
    leadership: Leadership,
    announced: Leadership,
    /// Messages of this replica to itself, delivered before the step ends: the leader's own acceptor takes the
    /// same path as any other.
    to_self: VecDeque<Message>,
    refusals: Refusals,
    counters: Counters,
}

/// What this replica is as a proposer. Leader state cannot exist on a follower.
#[derive(Clone, Debug)]
enum Role {
    Follower,
    Candidate(Candidate),
    Leader(Leader),
}

/// Everything that can happen to a replica.
#[derive(Clone, Debug)]
pub enum Input {
    /// An admitted request of a client; only while [`Replica::serves`].
    Request(Request),
    Message {
        from: ReplicaId,
        message: Message,
    },
    /// Every record up to here is on disk.
    Durable(Lsn),
    /// What the own WAL holds of the slots that were asked for, from `from` on; empty if it can't be read.
    Recalled {
        from: Slot,
        values: Vec<Value>,
    },
    /// [`Replica::deadline`] has come.
    Deadline,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub elections: u64,
    pub leaderships: u64,
    pub step_downs: u64,
    pub disk_stalls: u64,
    /// Times that it gave way as an established leader: nothing was chosen, or its disk held up those of the others.
    pub progress_stalls: u64,
    pub disk_handovers: u64,
    /// Times that it was not run for so long that its peers' silence says nothing about them.
    pub own_stalls: u64,
    pub proposals: u64,
    pub no_ops: u64,
    pub accepts_resent: u64,
    pub fetches_sent: u64,
    pub fetches_served: u64,
    pub slots_fetched: u64,
    pub prepare_below_trim_floor: u64,
    /// Prepares, Accepts at a new ballot, and fetched values that were dropped because the disk owes too much already.
    pub promises_without_room: u64,
    pub chosen_without_room: u64,
    /// Slots that were read back from the own WAL behind a hole.
    pub slots_recalled: u64,
    /// Times that such a slot turned out to be unreadable.
    pub slots_unreadable: u64,
    pub readmissions_proposed: u64,
    /// Times that a peer with an empty disk was told that it took part before.
    pub newcomers_refused: u64,
    /// Times that a peer was given a snapshot in place of slots.
    pub snapshots_offered: u64,
    pub downloads_begun: u64,
    pub downloads_failed: u64,
    pub snapshot_parts_asked: u64,
    pub snapshot_parts_unwanted: u64,
}

impl Replica {
    /// Handles one event. It never fails: what is wrong with a message is counted and the message ignored.
    pub fn step(&mut self, now: Time, input: Input, out: &mut Output) {
        match input {
            Input::Request(request) => {
                assert!(
                    self.serves(),
                    "a request was admitted by a replica that does not lead"
                );
                self.intake.push(&request);
            }
            Input::Message { from, message } => {
                if self.peers().contains(from) {
                    let admission = Admission::new(&self.config, self.round_seen);
                    match admission.admit(from, &message) {
                        Ok(()) => self.on_message(now, from, message, out),
                        Err(refusal) => self.refusals.count(refusal),
                    }
                }
            }
            Input::Durable(lsn) => self.on_durable(now, lsn, out),
            Input::Recalled { from, values } => self.on_recalled(now, from, values, out),
            Input::Deadline => self.on_deadline(now, out),
        }
        self.deliver_to_self(now, out);
    }

    /// Nothing was run here for `gap_ns` until now: what the peers sent meanwhile lies in the sockets, so their silence is
    /// none, and neither is a lack of progress.
    pub fn slept(&mut self, gap_ns: u64) {
        self.counters.own_stalls += 1;
        self.election.slept(gap_ns);
        if let Role::Leader(leader) = &mut self.role {
            leader.slept(gap_ns);
        }
    }

    /// Once per turn, after all inputs: proposes what gathered, as far as the window has room, and serves peers
    /// that lag. Batches fall out of the turn.
    pub fn flush(&mut self, now: Time, out: &mut Output) {
        self.propose_batches(now, out);
        self.serve_lagging(now, out);
        self.deliver_to_self(now, out);
        self.slots.note_durable(self.persist.durable());
        self.settle_newcomer(now, out);
        self.send_heartbeat(now, out);
        self.tell_leadership(out);
        self.retain(now, out);
        self.slots.evict(
            self.config.limits.cache_bytes_max,
            CACHE_SLOTS_MAX,
            self.persist.durable(),
        );
        self.check();
    }

    /// When to step with [`Input::Deadline`] at the latest. There are no timers inside.
    pub fn deadline(&self) -> Time {
        let timers = &self.config.timers;
        let follows = matches!(self.role, Role::Follower);
        let mut deadline = self.election.deadline(&self.config, follows);
        let mut or = |other: Option<Time>| {
            if let Some(other) = other {
                deadline = deadline.min(other);
            }
        };
        match &self.role {
            Role::Follower => or(self.catch_up_deadline()),
            Role::Candidate(candidate) => or(Some(candidate.deadline(timers))),
            Role::Leader(_) => or(self.persist.stall_at(timers.disk_stall_ns)),
        }
        deadline
    }

    /// Whether this replica leads and everything that former leaders may have chosen is chosen and applied, so
    /// that clients can be served.
    pub fn serves(&self) -> bool {
        match &self.role {
            Role::Leader(leader) => leader.established(self.slots.commit_index()),
            Role::Follower | Role::Candidate(_) => false,
        }
    }

    /// Whether a request of so many bytes of commands would still fit the intake.
    pub fn has_room_for(&self, request: &Request) -> bool {
        let length = REQUEST_HEADER_BYTES + request.commands.len();
        self.intake.bytes() + length <= self.config.limits.intake_bytes_max
    }

    /// Bytes of requests admitted and not yet proposed.
    pub fn intake_bytes(&self) -> usize {
        self.intake.bytes()
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    pub fn commit_index(&self) -> Slot {
        self.slots.commit_index()
    }

    pub fn promised(&self) -> Ballot {
        self.acceptor.promised()
    }

    /// What a restart has to be told besides the records: which life of its disk this is.
    pub fn incarnation(&self) -> Incarnation {
        self.acceptor.incarnation()
    }

    pub fn trim_floor(&self) -> Slot {
        self.acceptor.trim_floor()
    }

    pub fn appended(&self) -> Lsn {
        self.persist.appended()
    }

    pub fn durable(&self) -> Lsn {
        self.persist.durable()
    }

    /// Slots proposed by this replica as leader and not yet chosen.
    pub fn in_flight_slots(&self) -> u64 {
        match &self.role {
            Role::Leader(leader) => leader.in_flight_slots(),
            Role::Follower | Role::Candidate(_) => 0,
        }
    }

    fn leads(&self) -> bool {
        matches!(self.role, Role::Leader(_))
    }

    fn peers(&self) -> ReplicaSet {
        ReplicaSet::first(self.config.replicas).without(self.config.replica)
    }

    fn on_message(&mut self, now: Time, from: ReplicaId, message: Message, out: &mut Output) {
        match message {
            Message::Prepare(prepare) => self.on_prepare(now, from, prepare, out),
            Message::Promise(promise) => self.on_promise(now, from, promise, out),
            Message::Reject(reject) => self.on_reject(now, reject),
            Message::Accept(accept) => self.on_accept(now, from, accept, out),
            Message::Accepted(accepted) => self.on_accepted(now, from, accepted, out),
            Message::Heartbeat(heartbeat) => self.on_heartbeat(now, from, heartbeat, out),
            Message::Known(known) => self.on_known(from, known),
            Message::Fetch(fetch) => self.on_fetch(now, from, fetch, out),
            Message::Chosen(chosen) => self.on_chosen(now, chosen, out),
            Message::FetchSnapshot(fetch) => self.on_fetch_snapshot(now, from, &fetch, out),
            Message::SnapshotPart(part) => self.on_snapshot_part(now, from, part, out),
            Message::StateHash(hash) => out.hashes.push((from, hash)),
        }
    }

    fn deliver_to_self(&mut self, now: Time, out: &mut Output) {
        while let Some(message) = self.to_self.pop_front() {
            self.on_message(now, self.config.replica, message, out);
        }
    }

    fn send(&mut self, to: ReplicaId, message: Message, out: &mut Output) {
        if to == self.config.replica {
            self.to_self.push_back(message);
        } else {
            out.send(to, message);
        }
    }

    fn on_durable(&mut self, now: Time, lsn: Lsn, out: &mut Output) {
        if self.persist.advance(now, lsn) {
            self.release(out);
            if let Some(floor) = self.retention.trimmed(lsn) {
                out.trim = Some(floor);
            }
        }
    }

    /// Sends every reply whose record is durable by now.
    fn release(&mut self, out: &mut Output) {
        for (to, message) in self.acceptor.release(self.persist.durable(), &self.slots) {
            self.send(to, message, out);
        }
    }

    fn on_deadline(&mut self, now: Time, out: &mut Output) {
        match &self.role {
            Role::Follower => {
                self.catch_up(now, self.config.timers.retransmit_ns, out);
                self.stand_if_due(now, out);
            }
            Role::Candidate(_) => self.on_candidate_deadline(now, out),
            Role::Leader(leader) => {
                let established = leader.established(self.slots.commit_index());
                let waiting_ns = if established {
                    leader.stuck_ns(now)
                } else {
                    now.since(leader.progress_at())
                };
                self.on_leader_deadline(now, established, waiting_ns);
            }
        }
    }

    /// Gives up leading or standing, for the reason that the caller counted.
    fn step_down(&mut self, now: Time) {
        if self.leads() {
            self.counters.step_downs += 1;
        }
        self.role = Role::Follower;
        // Requests that were not proposed yet are forgotten: their clients send them again to the next leader.
        self.intake.clear();
        self.tenure.kept_up();
        self.election.back_off(now, &self.config);
    }

    fn see_ballot(&mut self, ballot: Ballot) {
        self.round_seen = self.round_seen.max(ballot.round);
    }

    fn check(&self) {
        let commit_index = self.slots.commit_index();
        self.acceptor.check();
        assert!(
            self.acceptor.trim_floor() <= commit_index.next() || self.mending.is_some(),
            "trimmed to {} beyond the commit index {commit_index}",
            self.acceptor.trim_floor()
        );
        assert!(
            commit_index <= self.slots.last(),
            "chosen to {commit_index} beyond the last slot"
        );
        if let Role::Leader(leader) = &self.role {
            leader.check(commit_index);
        }
    }

    pub fn report(&self, report: &mut dyn FnMut(&'static str, u64)) {
        let acceptor = &self.acceptor.counters;
        let own = &self.counters;
        report("replica", u64::from(self.config.replica.0));
        report("leading", u64::from(self.serves()));
        report(
            "leader",
            self.leadership
                .leader
                .map_or(0, |replica| u64::from(replica.0)),
        );
        report("ballot_round", self.acceptor.promised().round);
        report("commit_index", self.slots.commit_index().0);
        report("trim_floor", self.acceptor.trim_floor().0);
        report("lsn_appended", self.persist.appended().0);
        report("lsn_durable", self.persist.durable().0);
        report("intake_bytes", self.intake.bytes() as u64);
        report("window_slots", self.in_flight_slots());
        report("elections", own.elections);
        report("leaderships", own.leaderships);
        report("step_downs", own.step_downs);
        report("disk_stalls", own.disk_stalls);
        report("progress_stalls", own.progress_stalls);
        report("disk_handovers", own.disk_handovers);
        report("own_stalls", own.own_stalls);
        report("proposals", own.proposals);
        report("no_ops", own.no_ops);
        report("accepts_resent", own.accepts_resent);
        report("accepts_duplicate", acceptor.accepts_duplicate);
        report("accepts_out_of_order", acceptor.accepts_out_of_order);
        report("accepts_too_far_ahead", acceptor.accepts_too_far_ahead);
        report("accepts_without_room", acceptor.accepts_without_room);
        report("promises_without_room", own.promises_without_room);
        report("chosen_without_room", own.chosen_without_room);
        report("owed_bytes", self.persist.owed_bytes() as u64);
        report("rejects", acceptor.rejects);
        report("replies_fenced", acceptor.replies_fenced);
        report("votes_withheld", acceptor.votes_withheld);
        report("voting", u64::from(self.may_promise()));
        report("slots_missing", self.slots_missing());
        report("slots_recalled", own.slots_recalled);
        report("slots_unreadable", own.slots_unreadable);
        report("readmissions_proposed", own.readmissions_proposed);
        report("newcomers_refused", own.newcomers_refused);
        report("fetches_sent", own.fetches_sent);
        report("fetches_served", own.fetches_served);
        report("slots_fetched", own.slots_fetched);
        report("prepare_below_trim_floor", own.prepare_below_trim_floor);
        self.refusals.report(report);
        self.report_snapshots(report);
    }
}
