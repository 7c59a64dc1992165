//! Snapshots on the memory disk, and bodies to fill them with.

use bytes::Bytes;
use synod_engine::ids::{ClusterId, ReplicaId, Slot};
use synod_engine::seams::{Origin, SnapshotEvent, SnapshotInfo, SnapshotStore};
use synod_storage::backend::MemoryDisk;
use synod_storage::disk::Disk;
use synod_storage::snapshot::format::CHUNK_BODY;
use synod_storage::snapshot::{Owner, Snapshots};

pub type Store = Snapshots<MemoryDisk>;

pub const OWNER: Owner = Owner {
    cluster: ClusterId(0xc1),
    replica: ReplicaId(2),
};

pub fn store(disk: &MemoryDisk) -> Store {
    Snapshots::open(disk.clone(), OWNER, 7, None).expect("a memory disk can be listed")
}

/// Every byte tells of slot and place.
pub fn body(slot: u64, bytes: usize) -> Vec<u8> {
    (0..bytes)
        .map(|i| (slot.wrapping_mul(131) ^ i as u64 ^ (i as u64 >> 8) ^ (i as u64 >> 16)) as u8)
        .collect()
}

pub fn checksum(body: &[u8]) -> u64 {
    body.iter()
        .fold(7, |sum, byte| u64::rotate_left(sum, 5) ^ u64::from(*byte))
}

pub fn info(slot: u64, body: &[u8]) -> SnapshotInfo {
    SnapshotInfo {
        slot: Slot(slot),
        bytes: body.len() as u64,
        checksum: checksum(body),
    }
}

pub fn append(store: &mut Store, body: &[u8]) {
    for piece in body.chunks(100_000) {
        store.append(Bytes::copy_from_slice(piece));
    }
}

pub fn write(store: &mut Store, slot: u64, body: &[u8]) -> Option<SnapshotEvent> {
    store.begin(Slot(slot));
    append(store, body);
    store.finish(checksum(body), Origin::Replayable);
    store.poll()
}

/// Two complete ones, of two chunks and a bit each.
pub fn two() -> (MemoryDisk, [Vec<u8>; 2]) {
    let disk = MemoryDisk::new();
    let mut store = store(&disk);
    let bodies = [
        body(10, 2 * CHUNK_BODY + 5000),
        body(20, 2 * CHUNK_BODY + 6000),
    ];
    for (slot, body) in [10, 20].into_iter().zip(&bodies) {
        let event = write(&mut store, slot, body);
        assert_eq!(event, Some(SnapshotEvent::Durable(info(slot, body))));
    }
    (disk, bodies)
}

/// What a start would make use of. The engine checks more; here the store has to find the damage by itself.
pub fn restored(store: &mut Store) -> Option<(u64, Vec<u8>)> {
    let found = store.restore(|_, parts| {
        let whole: Vec<Bytes> = parts.collect();
        Ok(whole.concat())
    });
    found.map(|(info, whole)| (info.slot.0, whole))
}

pub fn temporary_files(disk: &MemoryDisk) -> usize {
    let files = disk.list().unwrap();
    files
        .iter()
        .filter(|(name, _)| name.ends_with(".tmp"))
        .count()
}

pub fn counter(store: &Store, wanted: &str) -> u64 {
    let mut found = None;
    store.counters(&mut |name, value| {
        if name == wanted {
            found = Some(value);
        }
    });
    found.unwrap_or_else(|| panic!("no counter is called {wanted}"))
}
