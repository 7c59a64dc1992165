//! How long a replica's disk takes to be ready, by what was written since it was made.
//!
//! `cargo bench -p synod-bench --bench start -- [gigabytes]`, by default 20.
//!
//! Starts after so many gigabytes with a snapshot and a log that was trimmed by it, a whole distance behind the newest
//! snapshot; then with a fifth of the gigabytes, none of them trimmed, with the snapshot and without it.

use std::path::PathBuf;
use std::time::Instant;

use bytes::Bytes;
use synod_bench::value;
use synod_engine::ids::{Ballot, ClusterId, Lsn, ReplicaId, Slot};
use synod_engine::message::{Accept, Record};
use synod_engine::seams::{Origin, SnapshotEvent, SnapshotStore, Wal};
use synod_storage::{Config, DataDirectory, FileSnapshots, FileWal};

/// Bytes of WAL between two snapshots.
const DISTANCE_BYTES: u64 = 1 << 30;
const SNAPSHOT_BYTES: usize = 256 << 20;

struct Writer {
    wal: FileWal,
    store: FileSnapshots,
    value: Bytes,
    lsn: Lsn,
    slot: Slot,
    trims: bool,
}

impl Writer {
    fn append(&mut self, record: &Record) {
        self.lsn = self.lsn.next();
        self.wal.append(self.lsn, record);
        self.wal.submit();
        while self.wal.durable().expect("the disk works").0 + 4 < self.lsn.0 {
            std::thread::yield_now();
        }
    }

    fn write(&mut self, bytes: u64) {
        for _ in 0..bytes / self.value.len() as u64 {
            self.slot = self.slot.next();
            let accept = Accept {
                ballot: Ballot {
                    round: 1,
                    replica: ReplicaId(1),
                },
                slot: self.slot,
                commit_index: self.slot.previous(),
                value: self.value.clone(),
            };
            self.append(&Record::Accepted(accept));
        }
    }

    fn settle(&mut self) {
        while self.wal.durable().expect("the disk works") < self.lsn {
            std::thread::yield_now();
        }
    }

    /// Writes a snapshot and trims below the one before.
    fn snapshot(&mut self) {
        let piece = Bytes::from(vec![7; 1 << 20]);
        self.store.begin(self.slot);
        for _ in 0..SNAPSHOT_BYTES >> 20 {
            self.store.append(piece.clone());
            while self.store.backlog() > 4 << 20 {
                assert_eq!(self.store.poll(), None);
                std::thread::yield_now();
            }
        }
        self.store.finish(1, Origin::Replayable);
        let event = loop {
            match self.store.poll() {
                Some(event) => break event,
                None => std::thread::yield_now(),
            }
        };
        assert!(matches!(event, SnapshotEvent::Durable(_)), "{event:?}");
        let older = self
            .store
            .complete()
            .iter()
            .rev()
            .nth(1)
            .map(|info| info.slot);
        if let Some(older) = older.filter(|_| self.trims) {
            let floor = older.next();
            self.append(&Record::Trimmed { floor });
            self.settle();
            self.wal.trim(floor);
            self.store.drop_below(older);
        }
    }
}

fn written(config: &Config, bytes: u64, trims: bool) {
    synod_storage::init(config).expect("a fresh directory can be initialised");
    let data = DataDirectory::open(config.clone()).expect("it opens");
    let store = data.open_snapshots().expect("it opens");
    let (wal, _) = data.open_wal(Slot::ZERO, &mut |_| {}).expect("it opens");
    let mut writer = Writer {
        wal,
        store,
        value: value(1, 1_960, 128),
        lsn: Lsn::ZERO,
        slot: Slot::ZERO,
        trims,
    };
    for part in 0..bytes / DISTANCE_BYTES {
        if part > 0 {
            writer.snapshot();
        }
        writer.write(DISTANCE_BYTES);
    }
    writer.settle();
}

/// Opens everything, with or without the snapshot, and prints how long it takes until a record is durable.
fn start(name: &str, config: &Config, with_snapshot: bool) {
    let started = Instant::now();
    let data = DataDirectory::open(config.clone()).expect("it opens");
    let mut store = data.open_snapshots().expect("it opens");
    let restored = match with_snapshot {
        true => store.restore(|_, parts| Ok(parts.map(|part| part.len()).sum::<usize>())),
        false => None,
    };
    let restoring = started.elapsed();
    let covers = restored.map_or(Slot::ZERO, |(info, _)| info.slot);
    let (mut wal, report) = data.open_wal(covers, &mut |_| {}).expect("it opens");
    let lsn = report.last_lsn.next();
    let floor = report.trim_floor;
    wal.append(lsn, &Record::Trimmed { floor });
    while wal.durable().expect("the disk works") < lsn {
        wal.submit();
        std::thread::yield_now();
    }
    println!(
        "{name}: ready after {:.2} s, of that the snapshot {:.2} s; {} MB of the log were read, {} segments passed over",
        started.elapsed().as_secs_f64(),
        restoring.as_secs_f64(),
        report.bytes >> 20,
        report.segments_skipped
    );
}

fn config(path: PathBuf) -> Config {
    Config::new(path, ClusterId(1), ReplicaId(1), 1)
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if !arguments.iter().any(|argument| argument == "--bench") {
        // `cargo test` builds and starts benchmarks too.
        return;
    }
    let gigabytes: u64 = arguments.iter().find_map(|a| a.parse().ok()).unwrap_or(20);
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let trimmed = config(directory.path().join("trimmed"));
    written(&trimmed, gigabytes << 30, true);
    start(&format!("{gigabytes} GB, trimmed"), &trimmed, true);
    start(
        &format!("{gigabytes} GB, trimmed, once more"),
        &trimmed,
        true,
    );
    std::fs::remove_dir_all(&trimmed.directory).expect("it can be removed");
    let gigabytes = gigabytes.div_ceil(5);
    let whole = config(directory.path().join("whole"));
    written(&whole, gigabytes << 30, false);
    start(&format!("{gigabytes} GB, never trimmed"), &whole, true);
    start(
        &format!("{gigabytes} GB, never trimmed, no snapshot"),
        &whole,
        false,
    );
}
