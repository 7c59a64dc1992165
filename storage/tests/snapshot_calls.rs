//! What each call of the snapshot store does and answers, also when the disk fails or is full.

mod common;

use bytes::Bytes;
use common::snapshots::{
    append, body, checksum, counter, info, restored, store, temporary_files, two, write,
};
use synod_engine::ids::Slot;
use synod_engine::seams::{Origin, SnapshotEvent, SnapshotStore};
use synod_storage::backend::Fault;
use synod_storage::config::SNAPSHOT_READS_MAX;
use synod_storage::disk::Disk;
use synod_storage::snapshot::format::{CHUNK_BODY, name};

/// Trap 32, and any other failure: it costs the attempt, leaves nothing behind, and the next one works.
#[test]
fn a_failure_at_any_call_costs_the_attempt_only() {
    let content = body(30, CHUNK_BODY + 100);
    for fault in [Fault::Io, Fault::Full, Fault::Short(512)] {
        // Make, header, chunk, chunk, footer, sync, rename, directory sync.
        for call in 0..8 {
            let (disk, bodies) = two();
            let mut store = store(&disk);
            let mut faults = vec![Fault::None; call];
            faults.push(fault);
            disk.inject(&faults);
            let event = write(&mut store, 30, &content);
            let what = format!("{fault:?} at call {call}");
            let Some(SnapshotEvent::Failed { slot, why }) = event else {
                panic!("{what}: {event:?}");
            };
            assert!(
                slot == Slot(30) && why.contains("/memory/snap-new.tmp"),
                "{why}"
            );
            assert_eq!(store.poll(), None, "{what}");
            assert_eq!(store.backlog(), 0, "{what}");
            assert_eq!(disk.list().unwrap().len(), 2, "{what}");
            assert_eq!(store.complete().len(), 2, "{what}");
            assert_eq!(counter(&store, "snapshot_files_failed"), 1);
            assert_eq!(store.notes().take().len(), 1);
            assert!(
                restored(&mut common::snapshots::store(&disk)) == Some((20, bodies[1].clone()))
            );
            let event = write(&mut store, 31, &content);
            assert_eq!(
                event,
                Some(SnapshotEvent::Durable(info(31, &content))),
                "{what}"
            );
        }
    }
}

#[test]
fn a_full_disk_is_met_again_and_again_until_there_is_room() {
    let (disk, bodies) = two();
    let mut store = store(&disk);
    disk.fill(true);
    for slot in 30..40 {
        store.begin(Slot(slot));
        append(&mut store, &bodies[0]);
        assert!(matches!(store.poll(), Some(SnapshotEvent::Failed { .. })));
        append(&mut store, &bodies[0]);
        store.finish(1, Origin::Replayable);
        assert_eq!((store.poll(), store.backlog()), (None, 0));
        assert_eq!(disk.list().unwrap().len(), 2);
    }
    disk.fill(false);
    let event = write(&mut store, 40, &bodies[0]);
    assert_eq!(event, Some(SnapshotEvent::Durable(info(40, &bodies[0]))));
}

/// A name that is not durable may hold the old one after a crash or the new one; both are of that slot.
#[test]
fn a_replacement_that_fails_at_the_last_call_leaves_one_of_the_two() {
    let (disk, bodies) = two();
    let mut store = store(&disk);
    let newer = body(99, 5000);
    let mut faults = vec![Fault::None; 6];
    faults.push(Fault::Io);
    disk.inject(&faults);
    let event = write(&mut store, 20, &newer);
    assert!(
        matches!(event, Some(SnapshotEvent::Failed { .. })),
        "{event:?}"
    );
    assert_eq!(store.complete(), [info(10, &bodies[0]), info(20, &newer)]);
    for keep in [false, true] {
        let crashed = disk.crash(|_| false, |_| keep);
        let expected = if keep { &newer } else { &bodies[1] };
        assert!(restored(&mut common::snapshots::store(&crashed)) == Some((20, expected.clone())));
    }
}

#[test]
fn an_abandoned_snapshot_is_gone_without_a_word() {
    let (disk, bodies) = two();
    let mut store = store(&disk);
    for _ in 0..3 {
        store.begin(Slot(30));
        append(&mut store, &bodies[0]);
        store.abandon();
        assert_eq!((store.poll(), store.backlog()), (None, 0));
        assert_eq!(temporary_files(&disk), 0);
    }
    store.begin(Slot(30));
    disk.inject(&[Fault::Io]);
    append(&mut store, &bodies[0]);
    store.abandon();
    assert_eq!(store.poll(), None, "nor is its failure told");
    assert_eq!(counter(&store, "snapshot_files_abandoned"), 4);
    let event = write(&mut store, 30, &bodies[0]);
    assert_eq!(event, Some(SnapshotEvent::Durable(info(30, &bodies[0]))));
    store.abandon();
    assert_eq!(store.complete().len(), 3);
}

#[test]
fn reads_are_bounded_and_damage_ends_them() {
    let (disk, bodies) = two();
    let mut store = store(&disk);
    for _ in 0..SNAPSHOT_READS_MAX {
        assert!(store.read(Slot(10), 5, 100));
    }
    assert!(!store.read(Slot(10), 5, 100));
    assert_eq!(counter(&store, "snapshot_reads_refused"), 1);
    let expected = Bytes::copy_from_slice(&bodies[0][5..105]);
    for _ in 0..SNAPSHOT_READS_MAX {
        let event = store.poll();
        assert!(matches!(event, Some(SnapshotEvent::Read { bytes, .. }) if bytes == expected));
    }
    assert!(store.read(Slot(11), 0, 10));
    assert!(matches!(
        store.poll(),
        Some(SnapshotEvent::Unreadable { slot: Slot(11), .. })
    ));
    assert_eq!(store.notes().take().len(), 0);
    // The second chunk is damaged: what is before it can still be read.
    disk.tamper(&name(Slot(20)), |bytes| bytes[4096 + (256 << 10) + 50] ^= 1);
    assert!(store.read(Slot(20), 0, CHUNK_BODY));
    assert!(matches!(store.poll(), Some(SnapshotEvent::Read { .. })));
    assert!(store.read(Slot(20), 0, CHUNK_BODY + 1));
    assert!(matches!(
        store.poll(),
        Some(SnapshotEvent::Unreadable { slot: Slot(20), .. })
    ));
    assert_eq!(store.complete(), [info(10, &bodies[0])]);
    let notes = store.notes().take();
    assert!(
        notes.len() == 1 && notes[0].contains("offset 266240"),
        "{notes:?}"
    );
}

/// A transfer that goes on while its snapshot is replaced must not be given a mixture.
#[test]
fn a_read_is_of_the_snapshot_that_is_listed() {
    let (disk, bodies) = two();
    let mut store = store(&disk);
    assert!(store.read(Slot(20), 0, 10));
    let newer = body(77, 3 * CHUNK_BODY);
    write(&mut store, 20, &newer);
    while store.poll().is_some() {}
    assert!(store.read(Slot(20), 0, 10));
    let Some(SnapshotEvent::Read { bytes, .. }) = store.poll() else {
        panic!("it can be read");
    };
    assert_eq!(bytes, newer[..10]);
    assert_ne!(bytes, bodies[1][..10]);
    // Replaced, and that is not known here yet: the read is of one that is gone, and costs the new one nothing. A
    // file that is being read goes on being read; at its end it is closed.
    assert!(store.read(Slot(20), newer.len() as u64 - 1, 10));
    assert!(store.poll().is_some());
    store.begin(Slot(20));
    append(&mut store, &bodies[1]);
    store.finish(checksum(&bodies[1]), Origin::Replayable);
    assert!(store.read(Slot(20), 10, 10));
    assert_eq!(
        store.poll(),
        Some(SnapshotEvent::Durable(info(20, &bodies[1])))
    );
    assert!(matches!(
        store.poll(),
        Some(SnapshotEvent::Unreadable { slot: Slot(20), .. })
    ));
    assert_eq!(store.complete().len(), 2);
    assert!(restored(&mut store) == Some((20, bodies[1].clone())));
}

#[test]
fn only_what_is_below_is_dropped() {
    let (disk, _) = two();
    let mut store = store(&disk);
    for (below, left) in [(10, 2), (11, 1), (11, 1), (20, 1), (21, 0), (21, 0)] {
        store.drop_below(Slot(below));
        assert_eq!((store.complete().len(), store.poll()), (left, None));
        assert_eq!(disk.list().unwrap().len(), left);
    }
    assert_eq!(counter(&store, "snapshot_files_removed"), 2);
}

/// A file that can't be removed now goes with the next removal.
#[test]
fn a_removal_that_fails_is_tried_again() {
    let (disk, _) = two();
    let mut store = store(&disk);
    disk.inject(&[Fault::Io]);
    store.drop_below(Slot(20));
    assert_eq!((store.poll(), store.complete().len()), (None, 1));
    assert_eq!(disk.list().unwrap().len(), 2);
    store.drop_below(Slot(20));
    assert_eq!(disk.list().unwrap().len(), 1);
}
