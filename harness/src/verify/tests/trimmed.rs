//! WALs that were trimmed, with the snapshots that stand for what is gone.

use synod_engine::config::Limits;
use synod_engine::ids::Lsn;
use synod_engine::machine::LogMachine;
use synod_engine::members::Members;
use synod_engine::seams::SnapshotStore;
use synod_engine::snapshot::{Step, Taking};
use synod_engine::state::State;
use synod_storage::DataDirectory;

use super::*;

/// One replica's disk: the snapshots that it kept, and what its WAL holds.
struct Disk {
    snapshots: Vec<State<LogMachine>>,
    log: Vec<Record>,
}

/// The state after the first `slots` of `history`.
fn state_after(history: &[Record], slots: usize) -> State<LogMachine> {
    let mut state = State::new(LogMachine::default());
    for record in &history[..slots] {
        let (slot, value) = super::super::slots::slot_value(record).unwrap();
        state.apply(slot, value.clone(), |_, _| {});
    }
    state
}

/// Snapshots after slots 2 and 3, so that the WAL begins with slot 3.
fn trimmed() -> Disk {
    let history = history();
    let mut log = vec![Record::Trimmed { floor: Slot(3) }];
    log.extend_from_slice(&history[2..]);
    Disk {
        snapshots: vec![state_after(&history, 2), state_after(&history, 3)],
        log,
    }
}

fn write_snapshot(directory: &Path, replica: u8, state: &mut State<LogMachine>) {
    let config = Config::new(directory.to_owned(), ClusterId(1), ReplicaId(replica), 1);
    let data = DataDirectory::open(config).unwrap();
    let mut store = data.open_snapshots().unwrap();
    let mut taking = Taking::begin(state, &Members::default(), Lsn::ZERO, &mut store);
    while taking.step(state, &mut store, 1 << 16, &Limits::default(), Lsn::ZERO) != Step::Written {}
    let started = Instant::now();
    while store.poll().is_none() {
        assert!(started.elapsed() < Duration::from_secs(30));
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(store.complete().last().unwrap().slot, state.applied());
}

fn verdict(disks: Vec<Disk>, acknowledged: u64) -> anyhow::Result<Verdict> {
    let directory = tempfile::tempdir().unwrap();
    let mut replicas = Vec::new();
    for (mut disk, id) in disks.into_iter().zip(1..) {
        let path = directory.path().join(id.to_string());
        write_wal(&path, id, &disk.log);
        for state in &mut disk.snapshots {
            write_snapshot(&path, id, state);
        }
        replicas.push(ReplicaEvidence {
            replica: ReplicaId(id),
            directory: path,
            state_hash: hash_of(1..7),
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
            acknowledged,
            session: Some(SESSION),
        }],
    };
    check(&evidence, &mut |_| {})
}

#[test]
fn the_replay_begins_behind_the_oldest_snapshot() {
    let verdict = verdict(vec![trimmed(), trimmed()], 6).unwrap();
    assert!(verdict.is_clean(), "{:?}", verdict.findings);
    assert_eq!((verdict.from_slot, verdict.snapshots), (3, 4));
    assert_eq!((verdict.executed, verdict.vouched), (3, 3));
}

#[test]
fn one_whole_wal_is_enough_to_replay_everything() {
    let whole = Disk {
        snapshots: vec![state_after(&history(), 3)],
        log: history(),
    };
    let verdict = verdict(vec![trimmed(), whole], 6).unwrap();
    assert!(verdict.is_clean(), "{:?}", verdict.findings);
    assert_eq!((verdict.from_slot, verdict.snapshots), (1, 3));
    assert_eq!((verdict.executed, verdict.vouched), (6, 0));
}

#[test]
fn a_command_that_is_neither_in_the_snapshot_nor_behind_it_is_lost() {
    let verdict = verdict(vec![trimmed(), trimmed()], 8).unwrap();
    assert_eq!((verdict.lost, verdict.diverged), (2, 0));
}

/// The younger of two snapshots says otherwise than the slots between them.
#[test]
fn a_snapshot_of_another_state_or_with_other_sessions_is_found() {
    let mut history = history();
    history[2] = accepted(3, 1, &entry(SESSION, 4, 4..6));
    let mut other_state = trimmed();
    other_state.snapshots[1] = state_after(&history, 3);
    let verdict = verdict(vec![trimmed(), other_state], 6).unwrap();
    assert_eq!(verdict.diverged, 1, "{:?}", verdict.findings);
    assert!(verdict.findings[0].contains("replica 2 has another state in its snapshot of slot 3"));
}

#[test]
fn a_session_that_a_snapshot_lacks_is_found() {
    let full = state_after(&history(), 3);
    let mut other = trimmed();
    other.snapshots[1] = State::at(Slot(3), full.machine, Default::default());
    let verdict = verdict(vec![trimmed(), other], 6).unwrap();
    assert_eq!(verdict.diverged, 1, "{:?}", verdict.findings);
    assert!(verdict.findings[0].contains("replica 2 has other sessions in its snapshot of slot 3"));
}

#[test]
fn without_the_snapshot_that_stands_for_trimmed_slots_nothing_can_be_checked() {
    let mut disk = trimmed();
    disk.snapshots.clear();
    let error = verdict(vec![disk], 6).unwrap_err();
    assert!(
        format!("{error:#}").contains("no replica has a snapshot"),
        "{error:#}"
    );
}
