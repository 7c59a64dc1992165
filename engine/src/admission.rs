//! What a peer's message may say. Whoever has a peer's certificate is believed about what happened (that it accepted a
//! value, that a slot is chosen): nothing here makes this Byzantine fault tolerance. But a peer with a bug or a flipped
//! bit must not be able to stop the others, let alone for good. So each message is checked once, as it comes in and
//! before anything is made of it: what it says is within the bounds that hold for every honest one, and in the name of
//! its sender. What is not is counted by its reason and dropped.
//!
//! What a value holds is not looked at here. One that is no batch counts as nothing where it is applied, on every
//! replica alike ([`crate::batch`]): refusing it instead would make a slot whose value may be chosen impossible to
//! recover or to catch up on.

use crate::config::Config;
use crate::ids::{Ballot, ReplicaId, ReplicaSet, Slot};
use crate::message::{
    Accept, Accepted, Chosen, Fetch, FetchSnapshot, Heartbeat, HeartbeatRole, Known, Message,
    Prepare, Promise, Reject, SnapshotPart, Value,
};
use crate::snapshot::PART_BYTES_MAX;

/// No ballot is this many rounds above all that were seen. Rounds grow by one with each candidacy, so this is further
/// than any cluster comes, even for a replica that knows of none; and a wrong one leaves room for many more.
pub const ROUNDS_AHEAD_MAX: u64 = 1 << 48;

/// Slots that one Promise tells of, above its sender's commit index. More than two of the widest windows: a leader that
/// never got established adds a no-op to what it recovered, each time.
pub const PROMISE_SLOTS_MAX: u64 = 1 << 18;

/// Slots in one answer to a Fetch: more than any replica keeps in memory.
pub const CHOSEN_SLOTS_MAX: usize = 1 << 18;

/// What a message is checked against.
#[derive(Clone, Copy, Debug)]
pub struct Admission {
    own: ReplicaId,
    members: ReplicaSet,
    round_max: u64,
    value_bytes_max: usize,
}

/// Why a message of a peer was dropped unread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Somebody else's ballot, or one of nobody in this cluster.
    Ballot,
    /// A round that no honest replica can have come to.
    Round,
    /// A slot or offset that can't be.
    Slot,
    /// A value or part that is longer than any may be.
    Bytes,
    /// More than one message may tell of, or not in order.
    Count,
}

/// How many messages were refused, by reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refusals([u64; REASONS.len()]);

const REASONS: [(Refusal, &str); 5] = [
    (Refusal::Ballot, "messages_refused_ballot"),
    (Refusal::Round, "messages_refused_round"),
    (Refusal::Slot, "messages_refused_slot"),
    (Refusal::Bytes, "messages_refused_bytes"),
    (Refusal::Count, "messages_refused_count"),
];

impl Admission {
    /// Of a replica that saw no round above `round_seen`.
    pub fn new(config: &Config, round_seen: u64) -> Admission {
        Admission {
            own: config.replica,
            members: ReplicaSet::first(config.replicas),
            round_max: round_seen.saturating_add(ROUNDS_AHEAD_MAX),
            value_bytes_max: config.value_bytes_max,
        }
    }

    /// Whether `message` can have come from `from`, a peer.
    pub fn admit(&self, from: ReplicaId, message: &Message) -> Result<(), Refusal> {
        match message {
            Message::Accept(accept) => self.accept(from, accept),
            Message::Accepted(Accepted { ballot, through }) => {
                self.ballot_of(self.own, *ballot)?;
                slot(*through)
            }
            Message::Heartbeat(heartbeat) => self.heartbeat(from, heartbeat),
            Message::Prepare(prepare) => {
                let Prepare {
                    ballot,
                    commit_index,
                } = prepare;
                self.ballot_of(from, *ballot)?;
                slot(*commit_index)
            }
            Message::Promise(promise) => self.promise(promise),
            Message::Known(Known { commit_index, .. }) => slot(*commit_index),
            Message::Reject(Reject { promised }) => self.ballot(*promised),
            Message::Fetch(Fetch { from, .. }) => slot(*from),
            Message::Chosen(chosen) => self.chosen(chosen),
            Message::FetchSnapshot(fetch) => admit_fetch_snapshot(fetch),
            Message::SnapshotPart(part) => admit_part(part),
            Message::StateHash(hash) => real_slot(hash.slot),
        }
    }

    fn accept(&self, from: ReplicaId, accept: &Accept) -> Result<(), Refusal> {
        self.ballot_of(from, accept.ballot)?;
        real_slot(accept.slot)?;
        slot(accept.commit_index)?;
        self.value(&accept.value)
    }

    fn heartbeat(&self, from: ReplicaId, heartbeat: &Heartbeat) -> Result<(), Refusal> {
        match heartbeat.role {
            HeartbeatRole::Leading | HeartbeatRole::Standing => {
                self.ballot_of(from, heartbeat.ballot)?;
            }
            // Who promised nothing yet says so.
            HeartbeatRole::Searching
            | HeartbeatRole::Readmitting { .. }
            | HeartbeatRole::Founding
                if heartbeat.ballot == Ballot::ZERO => {}
            HeartbeatRole::Following
            | HeartbeatRole::Searching
            | HeartbeatRole::Readmitting { .. }
            | HeartbeatRole::Founding => self.ballot(heartbeat.ballot)?,
        }
        slot(heartbeat.commit_index)?;
        slot(heartbeat.received)?;
        slot(heartbeat.stored)?;
        slot(heartbeat.trim_floor.previous())
    }

    /// The slots of an honest promise are those above its sender's commit index, so they are told in a bounded number,
    /// and none is accepted above the ballot that is promised.
    fn promise(&self, promise: &Promise) -> Result<(), Refusal> {
        self.ballot_of(self.own, promise.ballot)?;
        slot(promise.commit_index)?;
        if promise.trim_floor > promise.commit_index.next() {
            return Err(Refusal::Slot);
        }
        let last = promise.commit_index.0 + PROMISE_SLOTS_MAX;
        let mut before = promise.commit_index;
        for accepted in &promise.accepted {
            if accepted.slot <= before || accepted.slot.0 > last {
                return Err(Refusal::Count);
            }
            before = accepted.slot;
            self.ballot(accepted.ballot)?;
            if accepted.ballot > promise.ballot {
                return Err(Refusal::Ballot);
            }
            self.value(&accepted.value)?;
        }
        slot(before)
    }

    fn chosen(&self, chosen: &Chosen) -> Result<(), Refusal> {
        real_slot(chosen.from)?;
        if chosen.values.len() > CHOSEN_SLOTS_MAX {
            return Err(Refusal::Count);
        }
        slot(Slot(chosen.from.0 + chosen.values.len() as u64))?;
        chosen.values.iter().try_for_each(|value| self.value(value))
    }

    fn value(&self, value: &Value) -> Result<(), Refusal> {
        if value.len() > self.value_bytes_max {
            return Err(Refusal::Bytes);
        }
        Ok(())
    }

    fn ballot_of(&self, replica: ReplicaId, ballot: Ballot) -> Result<(), Refusal> {
        if ballot.replica != replica {
            return Err(Refusal::Ballot);
        }
        self.ballot(ballot)
    }

    fn ballot(&self, ballot: Ballot) -> Result<(), Refusal> {
        if !self.members.contains(ballot.replica) {
            return Err(Refusal::Ballot);
        }
        if ballot.round > self.round_max {
            return Err(Refusal::Round);
        }
        Ok(())
    }
}

fn admit_fetch_snapshot(fetch: &FetchSnapshot) -> Result<(), Refusal> {
    let bytes = fetch.bytes as usize;
    if !(1..=PART_BYTES_MAX).contains(&bytes) {
        return Err(Refusal::Bytes);
    }
    fetch.snapshot.map_or(Ok(()), |known| real_slot(known.slot))
}

fn admit_part(part: &SnapshotPart) -> Result<(), Refusal> {
    real_slot(part.snapshot.slot)?;
    if !(1..=PART_BYTES_MAX).contains(&part.bytes.len()) {
        return Err(Refusal::Bytes);
    }
    let end = part.offset.checked_add(part.bytes.len() as u64);
    if end.is_none_or(|end| end > part.snapshot.bytes) {
        return Err(Refusal::Slot);
    }
    Ok(())
}

fn slot(slot: Slot) -> Result<(), Refusal> {
    if slot > Slot::MAX {
        return Err(Refusal::Slot);
    }
    Ok(())
}

/// One that a value can be for.
fn real_slot(real: Slot) -> Result<(), Refusal> {
    if real == Slot::ZERO {
        return Err(Refusal::Slot);
    }
    slot(real)
}

impl Refusals {
    pub fn count(&mut self, refusal: Refusal) {
        let at = REASONS.iter().position(|(reason, _)| *reason == refusal);
        self.0[at.expect("every reason is listed")] += 1;
    }

    pub fn report(&self, report: &mut dyn FnMut(&'static str, u64)) {
        for ((_, name), count) in REASONS.iter().zip(self.0) {
            report(name, count);
        }
    }
}
