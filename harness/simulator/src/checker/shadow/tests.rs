//! The checker of one replica's memory is fed bad behaviour, and finds it.

use synod_engine::ids::Incarnation;
use synod_engine::message::{Accept, Accepted, AcceptedValue, Prepare, Value};

use super::*;

const ME: ReplicaId = ReplicaId(2);

fn ballot(round: u64) -> Ballot {
    Ballot {
        round,
        replica: ReplicaId(1),
    }
}

fn value() -> Value {
    Value::from_static(b"value")
}

fn accepted(slot: u64, round: u64) -> Seen {
    Seen::of(&Record::Accepted(Accept {
        ballot: ballot(round),
        slot: Slot(slot),
        commit_index: Slot::ZERO,
        value: value(),
    }))
}

/// A replica with these records appended, of which so many are durable.
fn shadow(records: &[Seen], durable: u64) -> (Shadow, Agreement) {
    let (mut shadow, mut agreement) = (Shadow::new(ME), Agreement::new(2));
    for (lsn, seen) in (1..).map(Lsn).zip(records) {
        if let Seen::Accepted {
            slot, ballot, hash, ..
        } = *seen
        {
            agreement
                .proposed(slot, ballot, hash, &value())
                .expect("one value");
        }
        shadow.append(lsn, *seen).expect("in order");
    }
    shadow
        .advance(Lsn(durable), &mut agreement)
        .expect("all of it was written");
    (shadow, agreement)
}

fn promise(round: u64, listed: &[(u64, u64)]) -> Message {
    Message::Promise(Promise {
        ballot: ballot(round),
        incarnation: Incarnation::FOUNDING,
        commit_index: Slot::ZERO,
        trim_floor: Slot(1),
        accepted: listed
            .iter()
            .map(|(slot, round)| AcceptedValue {
                slot: Slot(*slot),
                ballot: ballot(*round),
                value: value(),
            })
            .collect(),
    })
}

fn acknowledgement(round: u64, through: u64) -> Message {
    Message::Accepted(Accepted {
        ballot: ballot(round),
        through: Slot(through),
    })
}

#[test]
fn what_is_said_before_it_is_durable_is_found() {
    let records = [
        Seen::Promised { ballot: ballot(3) },
        accepted(1, 3),
        accepted(2, 3),
    ];
    let (mut early, agreement) = shadow(&records, 0);
    early
        .check_sent(&promise(3, &[]), 0, &agreement)
        .expect_err("nothing is durable");
    let (mut partly, agreement) = shadow(&records, 2);
    partly
        .check_sent(&promise(3, &[]), 0, &agreement)
        .expect("the promise is");
    partly
        .check_sent(&acknowledgement(3, 1), 0, &agreement)
        .expect("slot 1 is");
    partly
        .check_sent(&acknowledgement(3, 2), 0, &agreement)
        .expect_err("slot 2 is not");
    partly
        .check_sent(&acknowledgement(2, 1), 0, &agreement)
        .expect_err("a stale ballot");
}

#[test]
fn a_promise_that_forgets_what_was_acknowledged_is_found() {
    let (mut shadow, agreement) = shadow(
        &[
            accepted(1, 3),
            accepted(2, 3),
            Seen::Promised { ballot: ballot(5) },
        ],
        3,
    );
    shadow
        .check_sent(&acknowledgement(3, 2), 0, &agreement)
        .expect("durable");
    let complete = promise(5, &[(1, 3), (2, 3)]);
    shadow
        .check_sent(&complete, 0, &agreement)
        .expect("everything is listed");
    shadow
        .check_sent(&promise(5, &[(1, 3)]), 0, &agreement)
        .expect_err("slot 2 is forgotten");
    shadow
        .check_sent(&promise(5, &[(1, 3), (2, 1)]), 0, &agreement)
        .expect_err("older");
    shadow
        .check_sent(&promise(4, &[(1, 3), (2, 3)]), 0, &agreement)
        .expect_err("a lower promise");
}

#[test]
fn a_ballot_that_is_used_in_two_lives_is_found() {
    let own = Ballot {
        round: 3,
        replica: ME,
    };
    let prepare = Message::Prepare(Prepare {
        ballot: own,
        commit_index: Slot::ZERO,
    });
    let (mut shadow, agreement) = shadow(&[Seen::Promised { ballot: own }], 1);
    shadow
        .check_sent(&prepare, 0, &agreement)
        .expect("the first use");
    shadow
        .check_sent(&prepare, 0, &agreement)
        .expect("asked again");
    shadow
        .check_sent(&prepare, 1, &agreement)
        .expect_err("another life");
}

#[test]
fn recovery_may_lose_only_what_was_not_durable_and_invents_nothing() {
    let records = [accepted(1, 3), accepted(2, 3), accepted(3, 3)];
    let found = |lsns: &[u64], holes: &[(u64, u64)]| Found {
        last: lsns
            .iter()
            .copied()
            .chain(holes.iter().map(|(_, next)| next - 1))
            .max()
            .map_or(Lsn::ZERO, Lsn),
        covers: Slot::ZERO,
        records: lsns
            .iter()
            .map(|lsn| (Lsn(*lsn), accepted(*lsn, 3)))
            .collect(),
        holes: holes
            .iter()
            .map(|(first, next)| (Lsn(*first), Lsn(*next)))
            .collect(),
    };
    let recovered = |found: Found| {
        let (mut shadow, mut agreement) = shadow(&records, 2);
        shadow.recovered(&found, &mut agreement).map(|()| shadow)
    };
    recovered(found(&[1, 2], &[])).expect("the third was not durable");
    recovered(found(&[1, 2, 3], &[])).expect("it may have survived");
    recovered(found(&[1], &[]))
        .map(drop)
        .expect_err("the second was durable");
    recovered(found(&[1, 2, 3, 4], &[]))
        .map(drop)
        .expect_err("the fourth was never written");
    recovered(found(&[1, 3], &[]))
        .map(drop)
        .expect_err("a gap is no hole");
    let mut mended = recovered(found(&[1, 3], &[(2, 3)])).expect("a hole is told");
    // What was lost is not durable any more.
    let agreement = Agreement::new(2);
    mended
        .check_sent(&acknowledgement(3, 1), 0, &agreement)
        .expect("still there");
    mended
        .check_sent(&acknowledgement(3, 2), 0, &agreement)
        .expect_err("lost");
}
