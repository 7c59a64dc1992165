//! The acceptor: promises, accepts, and holds each reply until its record is durable.

use std::collections::VecDeque;

use crate::config::Config;
use crate::ids::{Ballot, Incarnation, Lsn, ReplicaId, Slot};
use crate::message::{Accept, Accepted, Message, Promise};
use crate::slots::Slots;

#[derive(Clone, Debug)]
pub struct Acceptor {
    incarnation: Incarnation,
    /// Nothing below this is promised or accepted any more.
    promised: Ballot,
    /// The ballot that `received` and `acknowledged` count for: the highest one accepted at.
    accepting: Ballot,
    /// Every slot up to here was accepted at `accepting`, or is chosen and held.
    received: Slot,
    /// The part of `received` that is durable.
    acknowledged: Slot,
    /// Slots below were trimmed from the WAL: they were chosen.
    trim_floor: Slot,
    /// Replies that wait for the disk, in the order of their records.
    held: VecDeque<Held>,
    pub counters: Counters,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub accepts_duplicate: u64,
    pub accepts_out_of_order: u64,
    pub accepts_too_far_ahead: u64,
    /// Values that were dropped because the disk owes too much already.
    pub accepts_without_room: u64,
    pub rejects: u64,
    /// Prepares and Accepts that got no answer, because this replica lost what it would have to tell.
    pub votes_withheld: u64,
    /// Replies that became durable after a higher ballot was promised, and so were never sent.
    pub replies_fenced: u64,
}

#[derive(Clone, Debug)]
struct Held {
    after: Lsn,
    ballot: Ballot,
    reply: HeldReply,
}

#[derive(Clone, Debug)]
enum HeldReply {
    Promise { to: ReplicaId },
    Accepted { through: Slot },
}

/// What an acceptor makes of a Prepare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrepareVerdict {
    /// New: the caller appends `Record::Promised` and then holds the reply.
    Promise,
    /// Promised before: the reply goes out again once the promise is durable.
    Repeat,
    Reject,
}

/// What an acceptor makes of an Accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcceptVerdict {
    /// The caller appends `Record::Accepted` and then holds the reply.
    Accept,
    /// Already here at this ballot: acknowledged again as far as durable.
    Duplicate,
    /// An earlier slot is missing: dropped, the proposer sends from there again.
    OutOfOrder,
    /// Further above the commit index than any window allows: dropped.
    TooFarAhead,
    /// The disk owes too much: dropped, lest a disk that hangs fills the memory.
    NoRoom,
    Reject,
}

/// Which values an acceptor takes: how far above the commit index, and whether the disk has room for any.
#[derive(Clone, Copy, Debug)]
pub struct AheadLimit {
    pub slots: u64,
    pub bytes: usize,
    pub disk_has_room: bool,
}

impl AheadLimit {
    /// For what this replica proposes itself: its window is the limit.
    pub const NONE: AheadLimit = AheadLimit {
        slots: u64::MAX,
        bytes: usize::MAX,
        disk_has_room: true,
    };

    pub fn of(config: &Config, disk_has_room: bool) -> AheadLimit {
        AheadLimit {
            slots: config.accept_ahead_slots_max(),
            bytes: config.accept_ahead_bytes_max(),
            disk_has_room,
        }
    }
}

impl Acceptor {
    pub fn new() -> Acceptor {
        Acceptor {
            incarnation: Incarnation::FOUNDING,
            promised: Ballot::ZERO,
            accepting: Ballot::ZERO,
            received: Slot::ZERO,
            acknowledged: Slot::ZERO,
            trim_floor: Slot(1),
            held: VecDeque::new(),
            counters: Counters::default(),
        }
    }

    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    pub fn promised(&self) -> Ballot {
        self.promised
    }

    pub fn trim_floor(&self) -> Slot {
        self.trim_floor
    }

    /// How far an Accepted at `ballot` would reach if the disk were done.
    pub fn received(&self, ballot: Ballot, commit_index: Slot) -> Slot {
        if ballot == self.accepting {
            self.received.max(commit_index)
        } else {
            commit_index
        }
    }

    pub fn prepare(&mut self, ballot: Ballot) -> PrepareVerdict {
        if ballot < self.promised {
            self.counters.rejects += 1;
            return PrepareVerdict::Reject;
        }
        if ballot == self.promised {
            return PrepareVerdict::Repeat;
        }
        self.promised = ballot;
        PrepareVerdict::Promise
    }

    pub fn hold_promise(&mut self, to: ReplicaId, after: Lsn) {
        let ballot = self.promised;
        let reply = HeldReply::Promise { to };
        self.held.push_back(Held {
            after,
            ballot,
            reply,
        });
    }

    /// Acknowledgements of what is chosen already wait for the record `after`.
    pub fn accept(
        &mut self,
        accept: &Accept,
        slots: &Slots,
        after: Lsn,
        ahead: AheadLimit,
    ) -> AcceptVerdict {
        if accept.ballot < self.promised {
            self.counters.rejects += 1;
            return AcceptVerdict::Reject;
        }
        // To accept at a ballot is to promise it: the record of the value carries the ballot to disk.
        self.promised = accept.ballot;
        self.begin(accept.ballot, slots.commit_index(), after);
        if accept.slot <= self.received {
            self.counters.accepts_duplicate += 1;
            return AcceptVerdict::Duplicate;
        }
        if accept.slot > self.received.next() {
            self.counters.accepts_out_of_order += 1;
            return AcceptVerdict::OutOfOrder;
        }
        if !ahead.disk_has_room {
            self.counters.accepts_without_room += 1;
            return AcceptVerdict::NoRoom;
        }
        // Counted exactly only when the total is near the limit: what former leaders left above this slot is about
        // to be replaced and does not count.
        let mut bytes = slots.open_bytes() + accept.value.len();
        if bytes > ahead.bytes {
            bytes = slots.open_bytes_below(accept.slot) + accept.value.len();
        }
        if accept.slot.0 - slots.commit_index().0 > ahead.slots || bytes > ahead.bytes {
            self.counters.accepts_too_far_ahead += 1;
            return AcceptVerdict::TooFarAhead;
        }
        self.received = accept.slot;
        AcceptVerdict::Accept
    }

    /// Starts counting for a higher ballot. What was accepted before counts only where it is known to be chosen.
    fn begin(&mut self, ballot: Ballot, commit_index: Slot, after: Lsn) {
        if self.accepting < ballot {
            self.accepting = ballot;
            self.received = commit_index;
            self.acknowledged = Slot::ZERO;
            self.hold_accepted(commit_index, after);
        } else {
            self.received = self.received.max(commit_index);
        }
    }

    pub fn hold_accepted(&mut self, through: Slot, after: Lsn) {
        let ballot = self.accepting;
        let reply = HeldReply::Accepted { through };
        self.held.push_back(Held {
            after,
            ballot,
            reply,
        });
    }

    /// What may leave now that everything up to `durable` is on disk. Several acknowledgements become one: they
    /// are cumulative. A reply is fenced here, at release: if a higher ballot was promised since, it never leaves.
    pub fn release(&mut self, durable: Lsn, slots: &Slots) -> Vec<(ReplicaId, Message)> {
        let mut released = Vec::new();
        let mut acknowledges = false;
        while self.held.front().is_some_and(|held| held.after <= durable) {
            let held = self.held.pop_front().expect("the front was just seen");
            if held.ballot != self.promised {
                self.counters.replies_fenced += 1;
                continue;
            }
            match held.reply {
                HeldReply::Promise { to } => {
                    released.push((to, Message::Promise(self.promise(slots))));
                }
                HeldReply::Accepted { through } => {
                    self.acknowledged = self.acknowledged.max(through);
                    acknowledges = true;
                }
            }
        }
        if acknowledges {
            released.extend(self.acknowledgement());
        }
        released
    }

    /// The promise, with everything accepted so far. Built when it leaves, so that nothing accepted between the
    /// promise's record and its release could be missing from it.
    fn promise(&self, slots: &Slots) -> Promise {
        Promise {
            ballot: self.promised,
            incarnation: self.incarnation,
            commit_index: slots.commit_index(),
            trim_floor: self.trim_floor,
            accepted: slots.open(),
        }
    }

    /// The cumulative acknowledgement for the ballot being accepted at, unless a higher one was promised since.
    pub fn acknowledgement(&self) -> Option<(ReplicaId, Message)> {
        let nobody_asked = self.accepting == Ballot::ZERO || self.acknowledged == Slot::ZERO;
        if nobody_asked || self.accepting != self.promised {
            return None;
        }
        let accepted = Accepted {
            ballot: self.accepting,
            through: self.acknowledged,
        };
        Some((self.accepting.replica, Message::Accepted(accepted)))
    }

    /// Notes that every slot up to `through` is chosen and its record is `after`: it counts as received.
    pub fn caught_up(&mut self, through: Slot, after: Lsn) {
        self.received = self.received.max(through);
        self.hold_accepted(through, after);
    }

    /// Whether a reply to `ballot` is still waiting for the disk.
    pub fn holds_promise_to(&self, replica: ReplicaId) -> bool {
        self.held.iter().any(|held| {
            held.ballot == self.promised
                && matches!(held.reply, HeldReply::Promise { to } if to == replica)
        })
    }

    pub fn live_as(&mut self, incarnation: Incarnation) {
        self.incarnation = incarnation;
    }

    pub fn raise_promise(&mut self, ballot: Ballot) {
        self.promised = self.promised.max(ballot);
    }

    pub fn trim(&mut self, floor: Slot) {
        self.trim_floor = self.trim_floor.max(floor);
    }

    /// Trap 4: whoever accepted at a ballot has promised it.
    pub fn check(&self) {
        assert!(
            self.accepting <= self.promised,
            "accepted at {} above the promise {}",
            self.accepting,
            self.promised
        );
        assert!(
            self.acknowledged <= self.received,
            "acknowledged {} beyond what was received, {}",
            self.acknowledged,
            self.received
        );
    }
}

impl Default for Acceptor {
    fn default() -> Acceptor {
        Acceptor::new()
    }
}
