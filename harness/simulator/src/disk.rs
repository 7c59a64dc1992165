//! The disk of a new replica, with recycled files if the seed says so.

use synod_engine::ids::{Ballot, Incarnation, Lsn, ReplicaId, Slot};
use synod_engine::message::{Accept, Record, Value};
use synod_engine::seams::Wal;
use synod_storage::backend::{MemoryBackend, MemoryDisk};
use synod_storage::disk::{Disk, OpenMode};
use synod_storage::format::{GROUPS_AT, PAGE, SECTOR};
use synod_storage::{initialise, initialise_readmitted, scan_disk};

use crate::faults::Fault;
use crate::member::options;
use crate::random::Random;
use crate::swarm::Plan;

/// Bytes of a stale record's value: about what the clients write, so that groups of old and new begin at the same places.
const STALE_VALUE_BYTES: usize = 200;
/// The stream of randomness that new disks are numbered from.
const INCARNATIONS: u64 = 0x1ca;

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

/// A disk as `synod replica --readmit` leaves it: empty, under a number from the seed: as often lower
/// than that of the former life as higher.
pub fn readmitted(plan: &Plan, replica: ReplicaId, life: u64) -> (MemoryDisk, Incarnation) {
    let disk = MemoryDisk::new();
    let options = options(plan, replica, life);
    let incarnation = Incarnation(Random::new(options.seed, INCARNATIONS).draw().max(1));
    initialise_readmitted(&disk, &options, incarnation).expect("an empty disk can be readmitted");
    (disk, incarnation)
}

/// Changes synced data of a WAL behind its back. Returns false if there is nothing yet that could be damaged.
///
/// Flipped bits may hit anything in a segment: they are always told from what was never written. A sector that is
/// lost or replaced whole may not: where nothing behind proves that it was written, it looks like the torn end of
/// the log, and no log of this kind can tell. So those strike segments with a used one behind.
///
/// What is behind has to be durable itself, or the next crash takes the proof away.
pub fn damage(disk: &MemoryDisk, fault: Fault, random: &mut Random) -> bool {
    let mut used = used_segments(&disk.crash(|_| false, |_| false));
    if fault != Fault::BitRot {
        used.pop();
    }
    if used.is_empty() {
        return false;
    }
    let (name, end) = used.swap_remove(random.below(used.len() as u64) as usize);
    let contents = disk.contents(&name);
    let sectors = end / SECTOR as u64;
    let groups_at = GROUPS_AT / SECTOR as u64;
    match fault {
        Fault::BitRot => {
            for _ in 0..random.between(1, 8) {
                let (byte, bit) = (random.below(end) as usize, random.below(8));
                disk.tamper(&name, |bytes| bytes[byte] ^= 1 << bit);
            }
        }
        Fault::MisdirectedWrite => {
            // One sector of a group went where another one was.
            let from = random.between(groups_at, sectors - 1) as usize * SECTOR;
            let to = random.between(groups_at, sectors - 1) as usize * SECTOR;
            let sector = contents[from..from + SECTOR].to_vec();
            disk.tamper(&name, |bytes| {
                bytes[to..to + SECTOR].copy_from_slice(&sector)
            });
            return from != to;
        }
        _ => {
            // A page of a group never arrived.
            let page = PAGE / SECTOR;
            let at = random.between(groups_at, sectors - 1) as usize / page * PAGE;
            disk.tamper(&name, |bytes| bytes[at..at + PAGE].fill(0));
        }
    }
    true
}

/// The segments that hold groups of this WAL, oldest first, and where these end.
fn used_segments(disk: &MemoryDisk) -> Vec<(String, u64)> {
    let report = scan_disk(disk, &mut |_| {});
    let segments = report.map_or(Vec::new(), |report| report.segments);
    segments
        .iter()
        .filter(|segment| segment.end > GROUPS_AT)
        .map(|segment| (segment.sequence.segment_name(), segment.end))
        .collect()
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
    let (mut wal, _) = MemoryBackend::open(&disk, options, &mut |_| {})
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What `from` holds, durably but for the groups of its last segment.
    fn with_undurable_end(from: &MemoryDisk) -> MemoryDisk {
        let disk = MemoryDisk::new();
        let (last, _) = used_segments(from).pop().expect("it holds groups");
        for (name, _) in from.list().expect("listing a memory disk works") {
            let contents = from.contents(&name);
            if name != last {
                put_file(&disk, &name, &contents);
                continue;
            }
            let (head, groups) = contents.split_at(GROUPS_AT as usize);
            put_file(&disk, &name, head);
            disk.open(&name, OpenMode::Segment)
                .and_then(|file| disk.write_at(&file, GROUPS_AT, groups))
                .expect("a sound memory disk takes a write");
        }
        disk
    }

    #[test]
    fn a_write_is_lost_only_where_what_is_behind_it_outlives_a_crash() {
        let plan = Plan::calm(3, 1);
        for fault in [Fault::LostWrite, Fault::MisdirectedWrite] {
            let two = donor(&plan, ReplicaId(1), 2);
            let half = with_undurable_end(&two);
            assert_eq!(used_segments(&half), used_segments(&two));
            let mut random = Random::new(1, 1);
            let mut struck = |disk| (0..20).any(|_| damage(disk, fault, &mut random));
            assert!(struck(&two), "{fault}");
            assert!(!struck(&half), "{fault}");
        }
    }
}
