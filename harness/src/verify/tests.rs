//! The whole check against WALs on a disk, made by hand: clean ones, and each kind of damage it has to find.

mod trimmed;

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::{BufMut, BytesMut};
use synod_engine::client::Request;
use synod_engine::ids::{Ballot, ClusterId, CommandNumber, Lsn, ReplicaId, SessionId, Slot};
use synod_engine::message::{Accept, Record, Value};
use synod_engine::seams::Wal;
use synod_storage::{BackendChoice, Config};

use super::machine::Machine;
use super::*;

const SESSION: u64 = 1 << 16;

fn entry(session: u64, first: u64, numbers: std::ops::Range<u64>) -> Value {
    let mut commands = BytesMut::new();
    for number in numbers.clone() {
        commands.put_u32_le(20);
        commands.put_slice(&stamped(number));
    }
    let mut out = BytesMut::new();
    Request {
        session: SessionId(session),
        first: CommandNumber(first),
        acknowledged: CommandNumber(1),
        count: (numbers.end - numbers.start) as u32,
        commands: commands.freeze(),
    }
    .put(&mut out);
    out.freeze()
}

/// Command `number` of client 7.
fn stamped(number: u64) -> BytesMut {
    let mut command = BytesMut::new();
    command.put_u64_le(7);
    command.put_u64_le(number);
    command.put_slice(b"fill");
    command
}

fn accepted(slot: u64, round: u64, value: &Value) -> Record {
    Record::Accepted(Accept {
        ballot: Ballot {
            round,
            replica: ReplicaId(1),
        },
        slot: Slot(slot),
        commit_index: Slot(slot - 1),
        value: value.clone(),
    })
}

/// Session opened in slot 1; commands 1 to 6 in slots 2 and 3, a no-op in slot 4.
fn history() -> Vec<Record> {
    vec![
        accepted(1, 1, &entry(0, 99, 0..0)),
        accepted(2, 1, &entry(SESSION, 1, 1..4)),
        accepted(3, 1, &entry(SESSION, 4, 4..7)),
        accepted(4, 1, &Value::new()),
    ]
}

fn write_wal(directory: &Path, replica: u8, records: &[Record]) {
    let mut config = Config::new(directory.to_owned(), ClusterId(1), ReplicaId(replica), 1);
    config.segment_bytes = 1 << 20;
    config.backend = BackendChoice::Blocking;
    synod_storage::init(&config).unwrap();
    let (mut wal, _) = synod_storage::open(config, &mut |_| {}).unwrap();
    for (record, lsn) in records.iter().zip(1..) {
        wal.append(Lsn(lsn), record);
    }
    let started = Instant::now();
    while wal.durable().unwrap() < Lsn(records.len() as u64) {
        wal.submit();
        assert!(started.elapsed() < Duration::from_secs(30));
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn hash_of(numbers: std::ops::Range<u64>) -> u64 {
    let mut machine = Machine::new(MachineChoice::Log);
    for number in numbers {
        machine.apply(&stamped(number));
    }
    machine.hash()
}

struct Case {
    logs: Vec<Vec<Record>>,
    acknowledged: u64,
    state_hash: u64,
}

fn verdict(case: &Case) -> Verdict {
    let directory = tempfile::tempdir().unwrap();
    let mut replicas = Vec::new();
    for (records, id) in case.logs.iter().zip(1..) {
        let path = directory.path().join(id.to_string());
        write_wal(&path, id, records);
        replicas.push(ReplicaEvidence {
            replica: ReplicaId(id),
            directory: path,
            state_hash: case.state_hash,
        });
    }
    let evidence = Evidence {
        machine: MachineChoice::Log,
        commit_index: Slot(4),
        replicas,
        holes: false,
        clients: vec![ClientAccount {
            tag: 7,
            submitted: 8,
            acknowledged: case.acknowledged,
            session: Some(SESSION),
        }],
    };
    check(&evidence, &mut |_| {}).unwrap()
}

fn clean_case() -> Case {
    Case {
        logs: vec![history(), history()],
        acknowledged: 6,
        state_hash: hash_of(1..7),
    }
}

#[test]
fn a_clean_cluster_passes_even_with_overwritten_and_repeated_slots() {
    let mut case = clean_case();
    assert_eq!(verdict(&case).findings, Vec::<String>::new());
    // Replica 2 had accepted something else before, and got slot 3 late and twice.
    let old = accepted(2, 1, &entry(SESSION, 1, 1..2));
    let mut log = history();
    let late = log.remove(2);
    log.insert(1, old);
    log.push(late.clone());
    log.push(late);
    case.logs.insert(0, log);
    let verdict = verdict(&case);
    assert!(verdict.is_clean(), "{:?}", verdict.findings);
    assert_eq!(verdict.executed, 6);
}

#[test]
fn a_lost_command_is_found() {
    let mut case = clean_case();
    case.acknowledged = 8;
    let verdict = verdict(&case);
    assert_eq!(
        (verdict.lost, verdict.diverged),
        (2, 0),
        "{:?}",
        verdict.findings
    );
}

#[test]
fn a_command_that_a_second_session_repeats_is_found() {
    let mut case = clean_case();
    let mut out = BytesMut::new();
    out.put_slice(&entry(0, 98, 0..0));
    out.put_slice(&entry(4 << 16, 1, 5..6));
    for log in &mut case.logs {
        log[3] = accepted(4, 1, &out.clone().freeze());
    }
    let mut machine = Machine::new(MachineChoice::Log);
    for number in [1, 2, 3, 4, 5, 6, 5] {
        machine.apply(&stamped(number));
    }
    case.state_hash = machine.hash();
    let verdict = verdict(&case);
    assert_eq!(
        (verdict.duplicated, verdict.diverged),
        (1, 0),
        "{:?}",
        verdict.findings
    );
}

#[test]
fn a_replica_with_another_value_is_found() {
    let mut case = clean_case();
    case.logs[1][2] = accepted(3, 1, &entry(SESSION, 4, 4..6));
    let verdict = verdict(&case);
    assert_eq!(verdict.diverged, 1);
    assert_eq!(
        verdict.findings,
        ["replica 2 holds another value of slot 3"]
    );
}

#[test]
fn a_value_that_is_no_batch_counts_as_nothing_and_is_told() {
    let mut case = clean_case();
    for log in &mut case.logs {
        let whole = entry(SESSION, 7, 7..9);
        log[3] = accepted(4, 1, &whole.slice(..whole.len() - 1));
    }
    let verdict = verdict(&case);
    assert!(verdict.is_clean(), "{:?}", verdict.findings);
    assert_eq!((verdict.executed, verdict.malformed), (6, 1));
    assert!(verdict.findings[0].starts_with("slot 4 holds no batch"));
}

#[test]
fn a_replica_that_lacks_a_slot_is_found() {
    let mut case = clean_case();
    case.logs[1].pop();
    assert_eq!(verdict(&case).diverged, 1);
}

#[test]
fn a_live_state_that_the_slots_do_not_give_is_found() {
    let mut case = clean_case();
    case.state_hash ^= 1;
    assert_eq!(verdict(&case).diverged, 2);
}
