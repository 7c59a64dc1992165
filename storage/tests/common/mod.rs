//! A WAL on the memory disk, and records to fill it with.
#![allow(dead_code)]

pub mod snapshots;

use bytes::Bytes;
use synod_engine::ids::{Ballot, ClusterId, Lsn, ReplicaId, Slot};
use synod_engine::message::{Accept, Record};
use synod_engine::seams::{Wal, WalRead};
use synod_storage::backend::{MemoryBackend, MemoryDisk};
use synod_storage::config::Options;
use synod_storage::group::Carried;
use synod_storage::wal::Opened;
use synod_storage::{Hole, OpenError, Replayed, WalCore, initialise, scan_disk};

pub type MemoryWal = WalCore<MemoryBackend>;
pub type Records = Vec<(Lsn, Record)>;

pub fn options(segment_bytes: u64) -> Options {
    Options {
        cluster: ClusterId(0xc1),
        replica: ReplicaId(2),
        segment_bytes,
        segments_ready: 1,
        segments_recycled_max: 5,
        writes_in_flight_max: 4,
        pending_bytes_max: synod_storage::config::PENDING_BYTES_MAX_DEFAULT,
        seed: 7,
    }
}

/// An initialised memory disk.
pub fn disk(options: &Options) -> MemoryDisk {
    let disk = MemoryDisk::new();
    initialise(&disk, options).expect("a new memory disk can be initialised");
    disk
}

pub fn open(
    disk: &MemoryDisk,
    options: Options,
) -> Result<(MemoryWal, Records, Opened), OpenError> {
    let mut records = Vec::new();
    let (wal, opened) = MemoryBackend::open(disk, options, &mut |replayed| {
        records.extend(record_of(replayed));
    })?;
    Ok((wal, records, opened))
}

/// What a recovery would find, without opening. Holes are for [`scan_holes`].
pub fn scan(disk: &MemoryDisk) -> Result<Records, OpenError> {
    let (records, holes) = scan_holes(disk)?;
    assert_eq!(holes, [], "nothing was damaged");
    Ok(records)
}

/// What a recovery would find, and where something is lost. Both come in the order of their lsns.
pub fn scan_holes(disk: &MemoryDisk) -> Result<(Records, Vec<Hole>), OpenError> {
    let (mut records, mut holes) = (Records::new(), Vec::new());
    let mut next = None;
    let report = scan_disk(disk, &mut |replayed| match replayed {
        Replayed::Record(at, record) => {
            assert!(
                next.is_none_or(|next| next == at.lsn),
                "a gap without a hole"
            );
            next = Some(at.lsn.next());
            records.push((at.lsn, record));
        }
        Replayed::Hole(hole) => {
            let from = next.unwrap_or(Lsn(1));
            assert!(
                hole.first == from && hole.next > from,
                "{hole:?} after {from:?}"
            );
            next = Some(hole.next);
            holes.push(hole);
        }
    })?;
    assert_eq!(report.holes, holes);
    Ok((records, holes))
}

/// Everything outside the holes is there, and nothing that a hole hides went beyond what it tells.
pub fn check_around_holes(
    records: &Records,
    holes: &[Hole],
    history: &[(Lsn, Record)],
    what: &str,
) {
    let lost = |lsn: &Lsn| {
        holes
            .iter()
            .any(|hole| hole.first <= *lsn && *lsn < hole.next)
    };
    let left = history.iter().filter(|(lsn, _)| !lost(lsn));
    assert!(records.iter().eq(left), "{what}: opened to other records");
    for hole in holes {
        let mut carried = Carried::default();
        let before = &history[..hole.next.0 as usize - 1];
        before.iter().for_each(|(_, record)| carried.absorb(record));
        assert_eq!(hole.carried, carried, "{what}");
    }
}

pub fn record_of(replayed: Replayed) -> Option<(Lsn, Record)> {
    match replayed {
        Replayed::Record(at, record) => Some((at.lsn, record)),
        Replayed::Hole(_) => None,
    }
}

pub fn ballot(round: u64) -> Ballot {
    Ballot {
        round,
        replica: ReplicaId(1 + (round % 3) as u8),
    }
}

/// A value whose every byte tells of slot and place, so that no mix-up goes unseen. Never zero.
pub fn value(slot: u64, bytes: usize) -> Bytes {
    (0..bytes)
        .map(|i| ((slot.wrapping_mul(31) + i as u64) % 255) as u8 + 1)
        .collect::<Vec<u8>>()
        .into()
}

pub fn accepted(slot: u64, bytes: usize) -> Record {
    Record::Accepted(Accept {
        ballot: ballot(3),
        slot: Slot(slot),
        commit_index: Slot(slot - 1),
        value: value(slot, bytes),
    })
}

pub fn promised(round: u64) -> Record {
    Record::Promised {
        ballot: ballot(round),
    }
}

pub fn trimmed(floor: u64) -> Record {
    Record::Trimmed { floor: Slot(floor) }
}

/// Appends and remembers: the oracle of what a WAL should hold.
#[derive(Default)]
pub struct History {
    pub records: Records,
}

impl History {
    pub fn append(&mut self, wal: &mut impl Wal, record: Record) {
        let lsn = self.last().next();
        wal.append(lsn, &record);
        self.records.push((lsn, record));
    }

    /// One record, one group, durable before this returns.
    pub fn write(&mut self, wal: &mut impl Wal, record: Record) {
        self.append(wal, record);
        wal.submit();
        settle(wal, self.last());
    }

    pub fn last(&self) -> Lsn {
        self.records.last().map_or(Lsn(0), |(lsn, _)| *lsn)
    }

    pub fn through(&self, lsn: Lsn) -> &[(Lsn, Record)] {
        &self.records[..lsn.0 as usize]
    }
}

/// Asks until everything up to `lsn` is durable; panics if the WAL fails or takes forever.
pub fn settle(wal: &mut impl Wal, lsn: Lsn) {
    for _ in 0..20_000 {
        if wal.durable().expect("the WAL works") >= lsn {
            return;
        }
        std::thread::sleep(std::time::Duration::from_micros(500));
    }
    panic!("lsn {} never became durable", lsn.0);
}

pub fn read(wal: &mut impl Wal, from: u64, through: u64, bytes_max: usize) -> WalRead {
    assert!(wal.read(Slot(from), Slot(through), bytes_max));
    for _ in 0..20_000 {
        if let Some(read) = wal.take_read().expect("the WAL works") {
            return read;
        }
        std::thread::sleep(std::time::Duration::from_micros(500));
    }
    panic!("a read never came back");
}

pub fn counter(wal: &impl Wal, name: &str) -> u64 {
    let mut found = None;
    wal.counters(&mut |counter, value| {
        if counter == name {
            found = Some(value);
        }
    });
    found.unwrap_or_else(|| panic!("no counter is called {name}"))
}
