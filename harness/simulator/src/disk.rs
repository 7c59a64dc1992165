//! The disk of a new replica, with recycled files if the seed says so.

use synod_engine::ids::{Ballot, Lsn, ReplicaId, Slot};
use synod_engine::message::{Accept, Record, Value};
use synod_engine::seams::Wal;
use synod_storage::backend::{MemoryBackend, MemoryDisk};
use synod_storage::disk::{Disk, OpenMode};
use synod_storage::initialise;

use crate::member::options;
use crate::swarm::Plan;

/// Bytes of a stale record's value: about what the clients write, so that groups of old and new begin at the same places.
const STALE_VALUE_BYTES: usize = 200;

/// A disk as `synod replica --init` leaves it, with so many recycled files.
///
/// The files are segments of an earlier life of the same replica in the same cluster, full of valid groups whose
/// records start at the first lsn: nothing but the identity of the segment tells them from new ones.
pub fn initialised(plan: &Plan, replica: ReplicaId, stale_files: usize) -> MemoryDisk {
    let disk = MemoryDisk::new();
    let options = options(plan, replica, 0);
    initialise(&disk, &options).expect("an empty disk can be initialised");
    if stale_files > 0 {
        let donor = donor(plan, replica, stale_files);
        for i in 1..=stale_files {
            let contents = donor.contents(&format!("wal-{i:016}.seg"));
            // The numbers are those of segments that were dropped long ago.
            put_file(&disk, &format!("ready-{i:016}.seg"), &contents);
        }
    }
    disk
}

/// How many of the recycled files are not in use yet.
pub fn stale_files_left(disk: &MemoryDisk) -> usize {
    let files = disk.list().expect("listing a memory disk works");
    files
        .iter()
        .filter(|(name, _)| name.starts_with("ready-"))
        .count()
}

fn put_file(disk: &MemoryDisk, name: &str, contents: &[u8]) {
    disk.open(name, OpenMode::CreateSegment)
        .and_then(|file| {
            disk.write_at(&file, 0, contents)?;
            disk.sync(&file)?;
            disk.sync_directory()
        })
        .expect("a sound memory disk takes a new file");
}

/// The disk of the earlier life: `segments` segments full of one record a group.
fn donor(plan: &Plan, replica: ReplicaId, segments: usize) -> MemoryDisk {
    let disk = MemoryDisk::new();
    let mut options = options(plan, replica, 1 << 20);
    options.segments_ready = 1;
    initialise(&disk, &options).expect("an empty disk can be initialised");
    let (mut wal, _) = MemoryBackend::open(&disk, options, &mut |_, _| {})
        .expect("an initialised disk can be opened");
    let groups_per_segment = plan.segment_bytes / 4096 - 1;
    let ballot = Ballot {
        round: 1,
        replica: ReplicaId(1),
    };
    for slot in 1..=groups_per_segment * segments as u64 {
        let accept = Accept {
            ballot,
            slot: Slot(slot),
            commit_index: Slot(slot - 1),
            value: Value::from(vec![0x5a; STALE_VALUE_BYTES]),
        };
        wal.append(Lsn(slot), &Record::Accepted(accept));
        wal.submit();
        wal.durable().expect("a sound memory disk works");
    }
    disk
}
