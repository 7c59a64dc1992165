//! A backend that cannot hand its writes on.

use synod_engine::ids::{Ballot, ClusterId, ReplicaId};

use super::*;
use crate::backend::memory::MemoryFile;
use crate::backend::{MemoryBackend, MemoryDisk, Retries, Written};
use crate::buffer::AlignedBuffer;
use crate::config::Options;
use crate::directory::{initialise, read_identity};
use crate::signal::Signal;

/// The memory disk, and a ring that takes nothing once it broke.
struct Broken {
    disk: MemoryBackend,
    broken: bool,
}

impl Backend for Broken {
    type Disk = MemoryDisk;

    fn disk(&self) -> &MemoryDisk {
        self.disk.disk()
    }

    fn signal(&self) -> Option<Signal> {
        self.disk.signal()
    }

    fn take_buffer(&mut self) -> Option<AlignedBuffer> {
        self.disk.take_buffer()
    }

    fn start_write(&mut self, write: GroupWrite<MemoryFile>) {
        self.disk.start_write(write);
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match self.broken {
            true => Err(std::io::Error::other("the ring is gone")),
            false => self.disk.flush(),
        }
    }

    fn retries(&self) -> Retries {
        Retries::default()
    }

    fn take_written(&mut self) -> Option<Written> {
        self.disk.take_written()
    }
}

#[test]
fn a_write_that_cannot_be_submitted_fails_the_wal_and_names_its_segment() {
    let options = Options {
        cluster: ClusterId(1),
        replica: ReplicaId(2),
        segment_bytes: 16 << 10,
        segments_ready: 1,
        segments_recycled_max: 5,
        writes_in_flight_max: 2,
        pending_bytes_max: crate::config::PENDING_BYTES_MAX_DEFAULT,
        seed: 7,
    };
    let disk = MemoryDisk::new();
    initialise(&disk, &options).unwrap();
    let identity = read_identity(&disk).unwrap();
    let backend = Broken {
        disk: MemoryBackend::new(disk, group_bytes_max(identity.segment_bytes), 2),
        broken: false,
    };
    let (mut wal, _) = WalCore::open(backend, options, &identity, Slot::ZERO, &mut |_| {}).unwrap();
    let record = Record::Promised {
        ballot: Ballot {
            round: 1,
            replica: ReplicaId(2),
        },
    };
    wal.append(Lsn(1), &record);
    wal.submit();
    assert_eq!(wal.durable(), Ok(Lsn::ZERO), "the segment is taken in");
    assert_eq!(wal.durable(), Ok(Lsn(1)));
    wal.backend_mut().broken = true;
    wal.append(Lsn(2), &record);
    wal.submit();
    let failed = wal.durable().expect_err("the ring is gone");
    let expected = "submitting a write to /memory/wal-0000000000000001.seg: the ring is gone";
    assert_eq!(failed.0, expected);
    wal.backend_mut().broken = false;
    wal.append(Lsn(3), &record);
    wal.submit();
    assert_eq!(wal.durable(), Err(failed));
}

#[test]
fn the_longest_value_is_what_a_group_of_its_own_just_takes() {
    for segment_bytes in [16 << 10, 128 << 10, 1 << 20, 64 << 20] {
        let longest = value_bytes_max(segment_bytes);
        let bytes = |length: usize| {
            record::encoded_bytes(&Record::Accepted(Accept {
                ballot: Ballot::ZERO,
                slot: Slot(1),
                commit_index: Slot(0),
                value: vec![0; length].into(),
            }))
        };
        let room = RECORD_BYTES_MAX.min(group::capacity(group_bytes_max(segment_bytes)));
        assert!(bytes(longest) <= room && bytes(longest + 1) > room);
    }
    assert!(value_bytes_max(128 << 10) < 128 << 10);
    assert!(value_bytes_max(64 << 20) >= 1 << 20);
}
