//! From the records of a WAL to a running replica.

use std::cell::RefCell;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};

use synod_engine::client::Request;
use synod_engine::config::Config;
use synod_engine::driver::Driver;
use synod_engine::ids::{
    Ballot, ClientId, CommandNumber, Incarnation, Lsn, ReplicaId, SessionId, Slot, Time,
};
use synod_engine::machine::LogMachine;
use synod_engine::members::Members;
use synod_engine::message::{Accept, Record, Value};
use synod_engine::recovery::{Hole, OnDisk, Recovery, RecoveryError};
use synod_engine::reply::Reply;
use synod_engine::seams::{
    Frame, Lane, Network, Origin, SnapshotEvent, SnapshotInfo, SnapshotStore, StateMachine, Wal,
    WalFailed, WalRead,
};
use synod_engine::sessions::{Sessions, session_id};
use synod_engine::snapshot::{NoSnapshots, Restored};
use synod_engine::state::State;

use super::ballot;
use super::one::config;

/// A disk and a network on which nothing happens.
struct Nothing;

/// A disk that keeps what is appended.
#[derive(Clone, Default)]
struct Appended(Rc<RefCell<Vec<(Lsn, Record)>>>);

impl Wal for Appended {
    fn append(&mut self, lsn: Lsn, record: &Record) {
        self.0.borrow_mut().push((lsn, record.clone()));
    }

    fn submit(&mut self) {}

    fn durable(&mut self) -> Result<Lsn, WalFailed> {
        Ok(Lsn::ZERO)
    }

    fn read(&mut self, _from: Slot, _through: Slot, _bytes_max: usize) -> bool {
        false
    }

    fn take_read(&mut self) -> Result<Option<WalRead>, WalFailed> {
        Ok(None)
    }

    fn trim(&mut self, _floor: Slot) {}

    fn counters(&self, _report: &mut dyn FnMut(&'static str, u64)) {}
}

/// A place with one snapshot, which came from there.
struct One([SnapshotInfo; 1], Origin);

impl SnapshotStore for One {
    fn complete(&self) -> &[SnapshotInfo] {
        &self.0
    }

    fn begin(&mut self, _slot: Slot) {}

    fn append(&mut self, _bytes: Bytes) {}

    fn backlog(&self) -> usize {
        0
    }

    fn finish(&mut self, _checksum: u64, _origin: Origin) {}

    fn origin(&self, slot: Slot) -> Origin {
        assert_eq!(slot, self.0[0].slot);
        self.1
    }

    fn abandon(&mut self) {}

    fn read(&mut self, _slot: Slot, _offset: u64, _bytes_max: usize) -> bool {
        false
    }

    fn poll(&mut self) -> Option<SnapshotEvent> {
        None
    }

    fn drop_below(&mut self, _slot: Slot) {}

    fn counters(&self, _report: &mut dyn FnMut(&'static str, u64)) {}
}

impl Wal for Nothing {
    fn append(&mut self, _lsn: Lsn, _record: &Record) {}

    fn submit(&mut self) {}

    fn durable(&mut self) -> Result<Lsn, WalFailed> {
        Ok(Lsn::ZERO)
    }

    fn read(&mut self, _from: Slot, _through: Slot, _bytes_max: usize) -> bool {
        false
    }

    fn take_read(&mut self) -> Result<Option<WalRead>, WalFailed> {
        Ok(None)
    }

    fn trim(&mut self, _floor: Slot) {}

    fn counters(&self, _report: &mut dyn FnMut(&'static str, u64)) {}
}

impl Network for Nothing {
    fn send(&mut self, _to: ReplicaId, _lane: Lane, _frame: Frame) {}

    fn reply(&mut self, _client: ClientId, _frame: Bytes) {}

    fn expel(&mut self, _client: ClientId) {}

    fn announce(&mut self, _frame: Bytes) {}

    fn flush(&mut self) {}

    fn counters(&self, _report: &mut dyn FnMut(&'static str, u64)) {}
}

type Started = Result<Driver<Nothing, Nothing, LogMachine>, RecoveryError>;

fn start(recovery: Recovery<LogMachine>, disk: OnDisk) -> Started {
    recovery.start(Time(0), Nothing, Nothing, NoSnapshots::default(), disk)
}

fn recovery() -> Recovery<LogMachine> {
    let config: Config = config(3);
    Recovery::new(config, LogMachine::default())
}

fn request(session: SessionId, commands: &[&[u8]]) -> Value {
    let mut encoded = Vec::new();
    for command in commands {
        encoded.extend((command.len() as u32).to_le_bytes());
        encoded.extend_from_slice(command);
    }
    let request = Request {
        session,
        first: CommandNumber(1),
        acknowledged: CommandNumber(1),
        count: commands.len() as u32,
        commands: encoded.into(),
    };
    let mut value = BytesMut::new();
    request.put(&mut value);
    value.freeze()
}

#[test]
fn what_the_records_prove_to_be_chosen_is_applied() {
    let mut recovery = recovery();
    let session = session_id(Slot(1), 0);
    let values = [
        request(SessionId::NONE, &[]),
        request(session, &[b"x", b"y"]),
    ];
    for (slot, value) in (1..).zip(values) {
        let slot = Slot(slot);
        recovery.visit(Lsn(slot.0), Record::Chosen { slot, value });
    }
    let promised = ballot(4, 2);
    recovery.visit(Lsn(3), Record::Promised { ballot: promised });
    let driver = start(recovery, OnDisk::default()).expect("nothing was trimmed");
    assert_eq!(driver.replica().commit_index(), Slot(2));
    assert_eq!(
        (driver.replica().appended(), driver.replica().durable()),
        (Lsn(3), Lsn(3))
    );
    assert_eq!(driver.replica().promised(), promised);
    let mut machine = LogMachine::default();
    for command in [b"x", b"y"] {
        machine.apply(command, &mut Reply::new(&mut BytesMut::new(), 100));
    }
    assert_eq!(driver.state().machine, machine);
    assert_eq!(
        driver.state().sessions.last(session),
        Some(CommandNumber(2))
    );
}

#[test]
fn a_hole_tells_what_was_promised_and_which_slots_may_be_lost() {
    let mut recovery = recovery();
    let value = Value::from_static(b"");
    recovery.visit(
        Lsn(1),
        Record::Chosen {
            slot: Slot(1),
            value: value.clone(),
        },
    );
    recovery.hole(Hole {
        next: Lsn(6),
        promised: ballot(3, 3),
        trim_floor: Slot(2),
        slot_max: Slot(4),
    });
    recovery.visit(
        Lsn(6),
        Record::Chosen {
            slot: Slot(3),
            value,
        },
    );
    let driver = start(recovery, OnDisk::default()).expect("nothing was trimmed");
    let replica = driver.replica();
    assert_eq!(
        (replica.promised(), replica.trim_floor()),
        (ballot(3, 3), Slot(2))
    );
    assert_eq!(
        (replica.commit_index(), replica.appended()),
        (Slot(1), Lsn(6))
    );
    assert_eq!(replica.slots_missing(), 2);
    assert!(!replica.may_promise());
}

#[test]
fn what_was_carried_over_from_segments_that_are_gone_counts() {
    let disk = OnDisk {
        incarnation: Incarnation(4),
        promised: ballot(3, 3),
        trim_floor: Slot::ZERO,
        last: Lsn(9),
    };
    let driver = start(recovery(), disk).expect("nothing was trimmed");
    assert_eq!(driver.replica().promised(), ballot(3, 3));
    assert_eq!(driver.replica().incarnation(), Incarnation(4));
    assert_eq!(driver.replica().appended(), Lsn(9));
}

#[test]
fn a_lone_replica_whose_wal_begins_later_needs_what_came_before() {
    for (floor, starts) in [(0, true), (1, true), (2, false), (9, false)] {
        let trim_floor = Slot(floor);
        let recovery = Recovery::new(config(1), LogMachine::default());
        let disk = OnDisk {
            trim_floor,
            promised: Ballot::ZERO,
            incarnation: Incarnation::FOUNDING,
            last: Lsn::ZERO,
        };
        let error = start(recovery, disk).err();
        let covers = Slot::ZERO;
        let floor = trim_floor;
        let wanted = (!starts).then_some(RecoveryError::Trimmed { floor, covers });
        assert_eq!(error, wanted, "{floor}");
    }
}

#[test]
#[should_panic(expected = "came after")]
fn records_come_in_order() {
    let mut recovery = recovery();
    let promised = Record::Promised {
        ballot: ballot(1, 1),
    };
    recovery.visit(Lsn(2), promised.clone());
    recovery.visit(Lsn(2), promised);
}

fn from_snapshot(slot: u64) -> Recovery<LogMachine> {
    let restored = Restored {
        state: State::at(Slot(slot), LogMachine::default(), Sessions::default()),
        members: Members::default(),
        checksum: 1,
    };
    Recovery::from_snapshot(config(3), restored)
}

fn accepted(slot: u64, round: u64, commit_index: u64) -> Record {
    Record::Accepted(Accept {
        ballot: ballot(round, 2),
        slot: Slot(slot),
        commit_index: Slot(commit_index),
        value: Value::new(),
    })
}

#[test]
fn a_start_from_a_snapshot_applies_only_what_lies_above() {
    let mut recovery = from_snapshot(5);
    assert_eq!(recovery.covers(), Slot(5));
    // The first records may lie below, and a mending replica may have written some again.
    for (lsn, record) in [
        accepted(4, 9, 3),
        accepted(5, 2, 4),
        accepted(6, 2, 5),
        accepted(7, 2, 6),
        accepted(8, 2, 7),
        accepted(6, 3, 5),
    ]
    .into_iter()
    .enumerate()
    {
        recovery.visit(Lsn(20 + lsn as u64), record);
    }
    let driver = start(recovery, OnDisk::default()).expect("there is a snapshot");
    let replica = driver.replica();
    assert_eq!(replica.commit_index(), Slot(7));
    assert_eq!(driver.state().applied(), Slot(7));
    // Ballots of records below count all the same.
    assert_eq!(replica.promised(), ballot(9, 2));
    assert!(replica.may_promise());
    // What the WAL holds of slots below may be stale if the snapshot came from a peer.
    assert_eq!(replica.trim_floor(), Slot(6));
}

#[test]
fn a_snapshot_below_the_floor_has_the_rest_fetched_before_the_replica_promises() {
    for told_by_record in [true, false] {
        let mut recovery = from_snapshot(5);
        recovery.visit(Lsn(30), accepted(6, 2, 5));
        if told_by_record {
            recovery.visit(Lsn(31), Record::Trimmed { floor: Slot(10) });
        }
        recovery.visit(Lsn(32), accepted(10, 3, 9));
        recovery.visit(Lsn(33), accepted(11, 3, 9));
        let disk = OnDisk {
            trim_floor: Slot(10),
            ..OnDisk::default()
        };
        let driver = start(recovery, disk).expect("peers can help");
        let replica = driver.replica();
        assert_eq!(replica.commit_index(), Slot(5), "{told_by_record}");
        assert_eq!(replica.slots_missing(), 4, "{told_by_record}");
        assert!(!replica.may_promise());
        assert_eq!(replica.promised(), ballot(3, 2));
    }
}

/// Starts from a snapshot at 15 above a WAL that holds values at a ballot of which nothing was chosen, and returns what
/// that start appends.
fn starts_over_stale(stale: &[(Lsn, Record)], origin: Origin, floor: u64) -> Vec<(Lsn, Record)> {
    let mut recovery = from_snapshot(15);
    for (lsn, record) in stale {
        recovery.visit(*lsn, record.clone());
    }
    let info = SnapshotInfo {
        slot: Slot(15),
        bytes: 1,
        checksum: 1,
    };
    let disk = OnDisk {
        last: Lsn(10),
        trim_floor: Slot(floor),
        ..OnDisk::default()
    };
    let wal = Appended::default();
    let driver = recovery
        .start(Time(0), wal.clone(), Nothing, One([info], origin), disk)
        .expect("there is a snapshot");
    let appended = wal.0.take();
    assert_eq!(driver.replica().appended().0, 10 + appended.len() as u64);
    appended
}

#[test]
fn a_lost_snapshot_that_was_ahead_of_the_wal_leaves_nothing_to_be_taken_for_chosen() {
    // 11 to 20 at a ballot of which nothing was chosen; a peer's snapshot at 15 was durable when the replica died.
    let stale: Vec<_> = (1..=10)
        .map(|lsn| (Lsn(lsn), accepted(10 + lsn, 1, 10)))
        .collect();
    let floor = Record::Trimmed { floor: Slot(16) };
    let appended = starts_over_stale(&stale, Origin::Ahead, 6);
    assert_eq!(appended, [(Lsn(11), floor)]);
    // It went on from there, and then lost the snapshot: the start before is all that a record of a later slot stands on.
    let mut again = from_snapshot(10);
    for (lsn, record) in stale.iter().cloned().chain(appended) {
        again.visit(lsn, record);
    }
    again.visit(Lsn(12), accepted(16, 2, 15));
    let disk = OnDisk {
        last: Lsn(12),
        ..OnDisk::default()
    };
    let driver = start(again, disk).expect("peers can help");
    let replica = driver.replica();
    assert_eq!(replica.commit_index(), Slot(10));
    assert_eq!(replica.slots_missing(), 5);
    assert!(!replica.may_promise());
}

#[test]
fn a_start_writes_the_floor_only_for_a_snapshot_ahead_of_the_wal_and_once() {
    let stale = [(Lsn(10), accepted(16, 1, 10))];
    assert_eq!(starts_over_stale(&stale, Origin::Replayable, 6), []);
    assert_eq!(starts_over_stale(&stale, Origin::Ahead, 16), []);
}
