//! The acceptor: verdicts, the limit of how far it goes ahead, and what the disk releases.

use proptest::prelude::*;

use synod_engine::acceptor::{AcceptVerdict, Acceptor, AheadLimit, Counters, PrepareVerdict};
use synod_engine::config::Config;
use synod_engine::ids::{Ballot, Incarnation, Lsn, ReplicaId, Slot};
use synod_engine::message::{Accept, Accepted, AcceptedValue, Message, Promise, Value};
use synod_engine::output::Output;
use synod_engine::slots::Slots;

use super::ballot;

/// An acceptor with what a replica keeps around it: the slots, and a disk that is done when it is told to be.
struct Fixture {
    acceptor: Acceptor,
    slots: Slots,
    appended: u64,
    ahead: AheadLimit,
}

impl Fixture {
    fn new() -> Fixture {
        Fixture {
            acceptor: Acceptor::new(),
            slots: Slots::new(),
            appended: 0,
            ahead: AheadLimit::NONE,
        }
    }

    fn append(&mut self) -> Lsn {
        self.appended += 1;
        Lsn(self.appended)
    }

    fn prepare(&mut self, from: u8, ballot: Ballot) -> PrepareVerdict {
        let verdict = self.acceptor.prepare(ballot);
        if verdict == PrepareVerdict::Promise {
            let lsn = self.append();
            self.acceptor.hold_promise(ReplicaId(from), lsn);
        }
        verdict
    }

    fn accept(&mut self, ballot: Ballot, slot: u64, bytes: usize) -> AcceptVerdict {
        let accept = Accept {
            ballot,
            slot: Slot(slot),
            commit_index: Slot::ZERO,
            value: Value::from(vec![7; bytes]),
        };
        let appended = Lsn(self.appended);
        let verdict = self
            .acceptor
            .accept(&accept, &self.slots, appended, self.ahead);
        if verdict == AcceptVerdict::Accept {
            let lsn = self.append();
            self.slots.accept(accept.slot, ballot, accept.value, lsn);
            self.acceptor.hold_accepted(accept.slot, lsn);
        }
        self.acceptor.check();
        verdict
    }

    fn commit(&mut self, through: u64) {
        self.slots.advance(Slot(through), &mut Output::default());
    }

    /// What leaves when everything up to `durable` is on disk.
    fn durable(&mut self, durable: u64) -> Vec<(ReplicaId, Message)> {
        let released = self.acceptor.release(Lsn(durable), &self.slots);
        self.acceptor.check();
        released
    }
}

fn accepted(ballot: Ballot, through: u64) -> (ReplicaId, Message) {
    let message = Message::Accepted(Accepted {
        ballot,
        through: Slot(through),
    });
    (ballot.replica, message)
}

#[test]
fn a_prepare_is_promised_once_repeated_when_equal_and_rejected_when_lower() {
    let mut fixture = Fixture::new();
    assert_eq!(fixture.prepare(2, ballot(5, 2)), PrepareVerdict::Promise);
    assert_eq!(fixture.prepare(2, ballot(5, 2)), PrepareVerdict::Repeat);
    assert_eq!(fixture.prepare(1, ballot(5, 1)), PrepareVerdict::Reject);
    assert_eq!(fixture.prepare(3, ballot(4, 3)), PrepareVerdict::Reject);
    assert_eq!(fixture.acceptor.promised(), ballot(5, 2));
    assert_eq!(fixture.acceptor.counters.rejects, 2);
    assert_eq!(fixture.prepare(3, ballot(5, 3)), PrepareVerdict::Promise);
    assert_eq!(fixture.acceptor.promised(), ballot(5, 3));
}

#[test]
fn every_verdict_on_an_accept_is_counted() {
    let mut fixture = Fixture::new();
    fixture.ahead.slots = 3;
    let now = ballot(5, 2);
    assert_eq!(fixture.accept(now, 1, 1), AcceptVerdict::Accept);
    assert_eq!(fixture.accept(now, 1, 1), AcceptVerdict::Duplicate);
    assert_eq!(fixture.accept(now, 3, 1), AcceptVerdict::OutOfOrder);
    assert_eq!(fixture.accept(now, 2, 1), AcceptVerdict::Accept);
    assert_eq!(fixture.accept(now, 1, 1), AcceptVerdict::Duplicate);
    assert_eq!(fixture.accept(now, 4, 1), AcceptVerdict::OutOfOrder);
    assert_eq!(fixture.accept(now, 3, 1), AcceptVerdict::Accept);
    for _ in 0..2 {
        assert_eq!(fixture.accept(now, 4, 1), AcceptVerdict::TooFarAhead);
        assert_eq!(fixture.accept(ballot(5, 1), 4, 1), AcceptVerdict::Reject);
    }
    let counted = Counters {
        accepts_duplicate: 2,
        accepts_out_of_order: 2,
        accepts_too_far_ahead: 2,
        rejects: 2,
        ..Counters::default()
    };
    assert_eq!(fixture.acceptor.counters, counted);
}

#[test]
fn a_higher_ballot_starts_over_at_the_commit_index() {
    let mut fixture = Fixture::new();
    let (old, new) = (ballot(1, 1), ballot(2, 2));
    for slot in 1..=3 {
        assert_eq!(fixture.accept(old, slot, 1), AcceptVerdict::Accept);
    }
    fixture.commit(1);
    assert_eq!(fixture.acceptor.received(old, Slot(1)), Slot(3));
    assert_eq!(fixture.acceptor.received(new, Slot(1)), Slot(1));
    assert_eq!(fixture.accept(new, 3, 1), AcceptVerdict::OutOfOrder);
    // Trap 4: the promise rose although no value was taken.
    assert_eq!(fixture.acceptor.promised(), new);
    assert_eq!(fixture.acceptor.received(old, Slot(1)), Slot(1));
    assert_eq!(fixture.accept(new, 1, 1), AcceptVerdict::Duplicate);
    assert_eq!(fixture.accept(new, 2, 1), AcceptVerdict::Accept);
    assert_eq!(fixture.accept(new, 2, 1), AcceptVerdict::Duplicate);
    assert_eq!(fixture.acceptor.received(new, Slot(1)), Slot(2));
    assert_eq!(fixture.acceptor.received(new, Slot(7)), Slot(7));
}

#[test]
fn the_limits_are_those_of_the_configuration() {
    let config = Config::new(ReplicaId(1), 3, 0);
    let limit = AheadLimit::of(&config, true);
    assert_eq!(limit.slots, config.accept_ahead_slots_max());
    assert_eq!(limit.bytes, config.accept_ahead_bytes_max());
}

proptest! {
    /// A former leader left values open; a new one proposes over them.
    #[test]
    fn it_goes_ahead_by_so_many_slots_and_bytes_and_not_further(
        left in proptest::collection::vec(0usize..6, 0..6),
        committed in 0u64..6,
        slots in 1u64..5,
        bytes in 1usize..16,
        lengths in proptest::collection::vec(0usize..9, 1..7),
    ) {
        let mut fixture = Fixture::new();
        for (slot, length) in (1..).zip(&left) {
            fixture.accept(ballot(1, 1), slot, *length);
        }
        let committed = committed.min(left.len() as u64);
        fixture.commit(committed);
        fixture.ahead = AheadLimit {
            slots,
            bytes,
            disk_has_room: true,
        };
        let mut open = 0;
        for (slot, length) in (committed + 1..).zip(lengths) {
            let fits = slot - committed <= slots && open + length <= bytes;
            let wanted = if fits { AcceptVerdict::Accept } else { AcceptVerdict::TooFarAhead };
            prop_assert_eq!(fixture.accept(ballot(2, 2), slot, length), wanted);
            if !fits {
                break;
            }
            open += length;
        }
    }
}

#[test]
fn an_acknowledgement_leaves_with_the_disk_as_one_and_only_at_the_promised_ballot() {
    let mut fixture = Fixture::new();
    let (old, new) = (ballot(1, 1), ballot(2, 2));
    assert_eq!(fixture.acceptor.acknowledgement(), None);
    fixture.accept(old, 1, 1);
    fixture.accept(old, 2, 1);
    fixture.accept(old, 3, 1);
    assert_eq!(fixture.acceptor.acknowledgement(), None);
    // Nothing of it is durable: there is nothing to say.
    assert_eq!(fixture.durable(0), []);
    assert_eq!(fixture.durable(2), [accepted(old, 2)]);
    assert_eq!(fixture.durable(2), []);
    assert_eq!(fixture.acceptor.acknowledgement(), Some(accepted(old, 2)));
    // A higher ballot is promised before the third value is durable: no word of it any more.
    fixture.prepare(2, new);
    assert_eq!(fixture.acceptor.acknowledgement(), None);
    assert_eq!(fixture.durable(3), []);
    assert_eq!(fixture.acceptor.counters.replies_fenced, 1);
    let [(to, Message::Promise(promise))] = &fixture.durable(4)[..] else {
        panic!("no promise");
    };
    assert_eq!((*to, promise.ballot), (ReplicaId(2), new));
    assert_eq!(fixture.acceptor.acknowledgement(), None);
    // What is chosen counts at the new ballot at once, as far as it is durable.
    fixture.commit(2);
    assert_eq!(fixture.accept(new, 3, 1), AcceptVerdict::Accept);
    assert_eq!(fixture.durable(4), [accepted(new, 2)]);
    assert_eq!(fixture.durable(5), [accepted(new, 3)]);
}

#[test]
fn each_reply_that_came_too_late_is_counted() {
    let mut fixture = Fixture::new();
    fixture.prepare(2, ballot(1, 2));
    fixture.prepare(3, ballot(1, 3));
    fixture.prepare(2, ballot(2, 2));
    assert_eq!(fixture.durable(2), []);
    assert_eq!(fixture.acceptor.counters.replies_fenced, 2);
    assert_eq!(fixture.durable(3).len(), 1);
}

#[test]
fn a_promise_tells_everything_that_is_open_when_it_leaves() {
    let mut fixture = Fixture::new();
    fixture.acceptor.live_as(Incarnation(4));
    fixture.acceptor.trim(Slot(2));
    fixture.acceptor.trim(Slot(1));
    for slot in 1..=3 {
        fixture.accept(ballot(1, 1), slot, 2);
    }
    fixture.commit(1);
    fixture.prepare(3, ballot(2, 3));
    fixture.commit(2);
    let promise = Promise {
        ballot: ballot(2, 3),
        incarnation: Incarnation(4),
        commit_index: Slot(2),
        trim_floor: Slot(2),
        accepted: vec![AcceptedValue {
            slot: Slot(3),
            ballot: ballot(1, 1),
            value: Value::from(vec![7; 2]),
        }],
    };
    let released = fixture.durable(4);
    assert_eq!(released, [(ReplicaId(3), Message::Promise(promise))]);
    assert_eq!(fixture.acceptor.incarnation(), Incarnation(4));
    assert_eq!(fixture.acceptor.trim_floor(), Slot(2));
}

#[test]
fn it_knows_to_whom_it_owes_its_present_promise() {
    let mut fixture = Fixture::new();
    fixture.prepare(2, ballot(1, 2));
    assert!(fixture.acceptor.holds_promise_to(ReplicaId(2)));
    assert!(!fixture.acceptor.holds_promise_to(ReplicaId(3)));
    fixture.prepare(3, ballot(2, 3));
    assert!(!fixture.acceptor.holds_promise_to(ReplicaId(2)));
    assert!(fixture.acceptor.holds_promise_to(ReplicaId(3)));
    fixture.durable(2);
    assert!(!fixture.acceptor.holds_promise_to(ReplicaId(3)));
    // An acknowledgement that waits is no promise.
    fixture.accept(ballot(2, 3), 1, 1);
    assert!(!fixture.acceptor.holds_promise_to(ReplicaId(3)));
}

#[test]
fn what_was_fetched_counts_as_received_and_is_acknowledged_to_a_leader_only() {
    let mut fixture = Fixture::new();
    let mut out = Output::default();
    for slot in 1..=2 {
        let lsn = fixture.append();
        fixture
            .slots
            .choose(Slot(slot), Value::new(), lsn, &mut out);
        fixture.acceptor.caught_up(Slot(slot), lsn);
    }
    // Nobody has proposed anything yet: there is nobody to tell.
    assert_eq!(fixture.durable(2), []);
    assert_eq!(fixture.acceptor.acknowledgement(), None);
    let leader = ballot(1, 3);
    assert_eq!(fixture.accept(leader, 3, 1), AcceptVerdict::Accept);
    assert_eq!(fixture.durable(3), [accepted(leader, 3)]);
    // Ahead of what the leader's stream brought.
    let lsn = fixture.append();
    fixture.acceptor.caught_up(Slot(4), lsn);
    assert_eq!(fixture.acceptor.received(leader, Slot(3)), Slot(4));
    assert_eq!(fixture.durable(4), [accepted(leader, 4)]);
}

#[test]
fn a_promise_only_rises() {
    let mut acceptor = Acceptor::new();
    acceptor.raise_promise(ballot(3, 1));
    acceptor.raise_promise(ballot(2, 2));
    assert_eq!(acceptor.promised(), ballot(3, 1));
    assert_eq!(acceptor.prepare(ballot(2, 3)), PrepareVerdict::Reject);
}

#[test]
#[should_panic(expected = "beyond what was received")]
fn to_acknowledge_what_was_not_received_ends_the_process() {
    let mut fixture = Fixture::new();
    fixture.accept(ballot(1, 1), 1, 1);
    fixture.acceptor.hold_accepted(Slot(2), Lsn(1));
    fixture.durable(1);
}
