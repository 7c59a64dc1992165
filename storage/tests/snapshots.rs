//! Snapshot files: complete and intact, or a line that names them and an older one; whatever the disk does.

mod common;

use bytes::Bytes;
use common::snapshots::{
    OWNER, Store, append, body, counter, info, restored, store, temporary_files, two, write,
};
use synod_engine::ids::{ClusterId, ReplicaId, Slot};
use synod_engine::seams::{SnapshotEvent, SnapshotStore};
use synod_storage::backend::MemoryDisk;
use synod_storage::disk::Disk;
use synod_storage::snapshot::format::{CHUNK_BODY, Header, name, seal_chunk};
use synod_storage::snapshot::{Owner, Snapshots};

#[test]
fn a_snapshot_comes_back_as_it_was_written() {
    let full = CHUNK_BODY;
    for bytes in [
        0,
        1,
        4088,
        4089,
        full - 1,
        full,
        full + 1,
        2 * full,
        3 * full + 77,
    ] {
        let disk = MemoryDisk::new();
        let body = body(5, bytes);
        let mut writer = store(&disk);
        assert_eq!(writer.complete(), []);
        let event = write(&mut writer, 5, &body);
        assert_eq!(event, Some(SnapshotEvent::Durable(info(5, &body))));
        assert_eq!((writer.poll(), writer.backlog()), (None, 0));
        let crashed = disk.crash(|_| false, |_| false);
        let mut store = store(&crashed);
        assert_eq!(store.complete(), [info(5, &body)]);
        assert!(restored(&mut store) == Some((5, body.clone())));
        assert_eq!(store.notes().take(), [""; 0]);
        for (offset, bytes_max) in [(0, 1), (0, bytes + 1), (bytes / 2, full + 9), (bytes, 10)] {
            assert!(store.read(Slot(5), offset as u64, bytes_max));
            let part = Bytes::copy_from_slice(&body[offset..bytes.min(offset + bytes_max)]);
            let expected = SnapshotEvent::Read {
                slot: Slot(5),
                offset: offset as u64,
                bytes: part,
            };
            assert_eq!(
                store.poll(),
                Some(expected),
                "{bytes_max} bytes from {offset}"
            );
        }
    }
}

/// Begin, append, finish, replace, abandon and remove, until something fails. Returns what was said to be durable and
/// not dropped since: for each slot the bodies that may be found under it.
fn live(disk: &MemoryDisk) -> Vec<(u64, Vec<Vec<u8>>)> {
    let mut store = store(disk);
    let mut kept: Vec<(u64, Vec<Vec<u8>>)> = Vec::new();
    for (slot, bytes) in [(10, 9000), (20, 5000), (20, 7000), (30, 100), (40, 5000)] {
        let content = body(slot + bytes as u64, bytes);
        let event = write(&mut store, slot, &content);
        let durable = event == Some(SnapshotEvent::Durable(info(slot, &content)));
        match kept.iter_mut().find(|(kept, _)| *kept == slot) {
            // One or the other, until the answer is there.
            Some((_, bodies)) if durable => *bodies = vec![content],
            Some((_, bodies)) => bodies.push(content),
            None if durable => kept.push((slot, vec![content])),
            None => {}
        }
        if slot == 30 {
            store.begin(Slot(35));
            append(&mut store, &body(35, 9000));
            store.abandon();
            store.drop_below(Slot(20));
            kept.retain(|(slot, _)| *slot >= 20);
        }
    }
    kept
}

/// Traps 17 and 24: what was answered to be durable outlives the power at any moment, names included; and what was
/// not is either complete or not there.
#[test]
fn the_power_may_fail_at_any_call() {
    let calls = {
        let disk = MemoryDisk::new();
        assert_eq!(live(&disk).len(), 3);
        disk.changes()
    };
    assert!(calls > 30);
    for call in 1..=calls {
        for choice in 0..8u32 {
            let disk = MemoryDisk::new();
            disk.power_off_at(call);
            let kept = live(&disk);
            let crashed = disk.crash(
                |i| choice == 1 || choice > 1 && !(i as u32 * 7 + choice).is_multiple_of(3),
                |i| choice == 1 || choice > 1 && choice >> (i % 3) & 1 == 1,
            );
            let what = format!("power off at call {call}, choice {choice}");
            let mut store = store(&crashed);
            assert_eq!(store.notes().take(), [""; 0], "{what}");
            let found: Vec<u64> = store.complete().iter().map(|info| info.slot.0).collect();
            for (slot, bodies) in kept.iter().rev() {
                assert!(
                    found.contains(slot),
                    "{what}: {slot} is gone, {found:?} is left"
                );
                store = open_only(&crashed, *slot);
                let (_, whole) = restored(&mut store).unwrap_or_else(|| panic!("{what}: {slot}"));
                assert!(bodies.contains(&whole), "{what}: slot {slot} is another");
            }
            let mut store = self::store(&crashed);
            let event = write(&mut store, 50, b"after");
            assert_eq!(
                event,
                Some(SnapshotEvent::Durable(info(50, b"after"))),
                "{what}"
            );
            assert!(
                restored(&mut store) == Some((50, b"after".to_vec())),
                "{what}"
            );
            assert_eq!(temporary_files(&crashed), 0, "{what}");
        }
    }
}

/// A store that lists only the snapshot of this slot and older ones.
fn open_only(disk: &MemoryDisk, slot: u64) -> Store {
    let copy = disk.copy();
    for (name, _) in copy.list().unwrap() {
        let of = synod_storage::snapshot::slot_of_name(&name);
        if of.is_some_and(|of| of.0 > slot) {
            copy.lose(&name);
        }
    }
    store(&copy)
}

/// Any flipped bit is found, by the listing or by the read, and the older snapshot is used instead.
#[test]
fn of_a_damaged_snapshot_a_line_is_left_and_the_older_one_is_used() {
    let (disk, bodies) = two();
    let file = name(Slot(20));
    let size = disk.contents(&file).len();
    let places = (0..72)
        .chain(4096..4110)
        .chain((80..size).step_by(997))
        .chain(size - 4096..size - 4096 + 72)
        .chain([size - 1]);
    for place in places {
        let damaged = disk.copy();
        damaged.tamper(&file, |bytes| bytes[place] ^= 1 << (place % 8));
        check_older_is_used(&damaged, &bodies[0], &format!("a flipped bit at {place}"));
    }
    type Damage = fn(&mut Vec<u8>);
    let damages: [(&str, Damage); 6] = [
        ("cut", |bytes| bytes.truncate(bytes.len() - 4096)),
        ("cut within a page", |bytes| bytes.truncate(bytes.len() - 1)),
        ("empty", |bytes| bytes.clear()),
        ("longer", |bytes| bytes.extend([0; 4096])),
        ("a chunk is lost", |bytes| {
            bytes[4096..4096 + (256 << 10)].fill(0)
        }),
        ("chunks are swapped", |bytes| {
            let (front, back) = bytes[4096..].split_at_mut(256 << 10);
            front.swap_with_slice(&mut back[..256 << 10]);
        }),
    ];
    for (what, damage) in damages {
        let damaged = disk.copy();
        damaged.tamper(&file, damage);
        check_part_is_unreadable(&damaged, what);
        check_older_is_used(&damaged, &bodies[0], what);
    }
    // A chunk that is right by itself, and not what was written: only the seal of the whole tells.
    let damaged = disk.copy();
    damaged.tamper(&file, |bytes| {
        let nonce = Header::decode(&bytes[..4096]).unwrap().nonce;
        let chunk = &mut bytes[4096..4096 + (256 << 10)];
        chunk[100] ^= 1;
        seal_chunk(chunk, nonce, 0, CHUNK_BODY);
    });
    check_older_is_used(&damaged, &bodies[0], "a chunk was written anew");
    // Of another snapshot, at the same place: as if its blocks were given out twice.
    let damaged = disk.copy();
    let other = disk.contents(&name(Slot(10)));
    damaged.tamper(&file, |bytes| {
        bytes[4096..4096 + (256 << 10)].copy_from_slice(&other[4096..4096 + (256 << 10)]);
    });
    check_part_is_unreadable(&damaged, "another's chunk");
    check_older_is_used(&damaged, &bodies[0], "another's chunk");
    let damaged = disk.copy();
    damaged.tamper(&file, |bytes| *bytes = other);
    check_older_is_used(&damaged, &bodies[0], "another's contents");
}

/// A peer gets nothing of a damaged chunk, though nobody reads the whole for it.
fn check_part_is_unreadable(disk: &MemoryDisk, what: &str) {
    let mut store = store(disk);
    assert!(store.read(Slot(20), 0, 10));
    let event = store.poll();
    let unreadable = matches!(
        event,
        Some(SnapshotEvent::Unreadable { slot: Slot(20), .. })
    );
    assert!(unreadable, "{what}: {event:?}");
}

fn check_older_is_used(disk: &MemoryDisk, older: &[u8], what: &str) {
    let mut store = store(disk);
    assert!(restored(&mut store) == Some((10, older.to_vec())), "{what}");
    let notes = store.notes().take();
    assert_eq!(notes.len(), 1, "{what}: {notes:?}");
    assert!(notes[0].contains(&name(Slot(20))), "{what}: {notes:?}");
    assert_eq!(store.complete().len(), 1, "{what}");
    assert_eq!(counter(&store, "snapshot_files_unreadable"), 1);
    // It stays for whoever wants to look, until newer ones are there.
    store.drop_below(Slot(20));
    assert!(
        disk.list()
            .unwrap()
            .iter()
            .any(|(file, _)| *file == name(Slot(20)))
    );
    store.drop_below(Slot(21));
    assert_eq!(disk.list().unwrap(), [], "{what}");
}

#[test]
fn what_the_engine_refuses_is_not_used_either() {
    let (disk, _) = two();
    let mut store = store(&disk);
    let found = store.restore(|info, _| match info.slot {
        Slot(20) => Err("it is of body version 9".to_string()),
        slot => Ok(slot),
    });
    assert_eq!(found.map(|(_, slot)| slot), Some(Slot(10)));
    let notes = store.notes().take();
    assert!(notes.len() == 1 && notes[0].contains("body version 9; the one of slot 10 is tried"));
    let none = store.restore(|_, _| Err::<(), _>("no".to_string()));
    assert!(none.is_none() && store.complete().is_empty());
    let notes = store.notes().take();
    assert!(notes[0].ends_with("there is no other"), "{notes:?}");
}

/// Files of others and of other builds are told, not used, and not touched.
#[test]
fn foreign_files_and_other_versions_are_left_alone() {
    let others = [
        (
            "cluster",
            Owner {
                cluster: ClusterId(0xc2),
                ..OWNER
            },
        ),
        (
            "replica",
            Owner {
                replica: ReplicaId(3),
                ..OWNER
            },
        ),
    ];
    for (what, owner) in others {
        let (disk, bodies) = two();
        let mut other = Snapshots::open(disk.clone(), owner, 7, None).unwrap();
        other.notes().take();
        write(&mut other, 15, b"theirs");
        check_left_alone(&disk, what, &bodies[1]);
    }
    let (disk, bodies) = two();
    let mut mine = store(&disk);
    write(&mut mine, 15, b"of the future");
    disk.tamper(&name(Slot(15)), |bytes| bytes[8] = 12);
    check_left_alone(&disk, "version 12", &bodies[1]);
}

fn check_left_alone(disk: &MemoryDisk, what: &str, newest: &[u8]) {
    let file = name(Slot(15));
    let mut store = store(disk);
    let notes = store.notes().take();
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(
        notes[0].contains(&file) && notes[0].contains(what),
        "{notes:?}"
    );
    let slots: Vec<u64> = store.complete().iter().map(|info| info.slot.0).collect();
    assert_eq!(slots, [10, 20]);
    assert!(restored(&mut store) == Some((20, newest.to_vec())));
    store.drop_below(Slot(100));
    let files: Vec<String> = disk
        .list()
        .unwrap()
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    assert_eq!(files, [file]);
}
