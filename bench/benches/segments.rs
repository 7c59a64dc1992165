//! Appending to recycled segments against new ones, interleaved, through the files and the backend of a replica.
//!
//! `cargo bench -p synod-bench --bench segments -- [megabytes per run] [repeats]`, by default 1,024 and 3.
//!
//! Three logs: *recycled* is trimmed all the time and writes into the files it dropped; *new* is trimmed as well, but
//! keeps no file, so that each segment is made, filled with zeros, and removed again; *growing* is never trimmed.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use synod_bench::value;
use synod_engine::ids::{Ballot, ClusterId, Lsn, ReplicaId, Slot};
use synod_engine::message::{Accept, Record};
use synod_engine::seams::Wal;
use synod_storage::{Config, FileWal};

/// Segments between two trims: 512 MiB, about what a snapshot would allow.
const TRIM_SEGMENTS: u64 = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Log {
    Recycled,
    New,
    Growing,
}

/// How the records come.
struct Load {
    name: &'static str,
    value: Bytes,
    /// Records that wait for the disk at once.
    depth: u64,
    share: f64,
}

struct Appender {
    wal: FileWal,
    log: Log,
    lsn: Lsn,
    slot: Slot,
    /// Where the distances between trims end, the last two.
    marks: VecDeque<Slot>,
    /// Bytes of values since the last of them.
    since: u64,
    distance: u64,
    _directory: tempfile::TempDir,
}

struct Figures {
    megabytes_per_second: f64,
    median: Duration,
    p99: Duration,
    created: u64,
    waits: u64,
}

impl Appender {
    fn new(log: Log) -> Appender {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
        let mut config = Config::new(directory.path().join("data"), ClusterId(1), ReplicaId(1), 1);
        if log == Log::New {
            config.segments_recycled_max = 0;
        }
        let distance = TRIM_SEGMENTS * config.segment_bytes;
        synod_storage::init(&config).expect("a fresh directory can be initialised");
        let (wal, _) = synod_storage::open(config, &mut |_| {}).expect("a fresh WAL opens");
        Appender {
            wal,
            log,
            lsn: Lsn::ZERO,
            slot: Slot::ZERO,
            marks: VecDeque::new(),
            since: 0,
            distance,
            _directory: directory,
        }
    }

    fn append(&mut self, record: &Record) {
        self.lsn = self.lsn.next();
        self.wal.append(self.lsn, record);
        self.wal.submit();
    }

    fn wait_for(&mut self, lsn: Lsn) {
        while self.wal.durable().expect("the disk works") < lsn {
            std::thread::yield_now();
        }
    }

    /// Writes that many bytes of values, and how long each record took.
    fn write(&mut self, load: &Load, bytes: u64) -> Vec<Duration> {
        let records = bytes.div_ceil(load.value.len() as u64);
        let mut started = VecDeque::new();
        let mut took = Vec::with_capacity(records as usize);
        for _ in 0..records {
            self.slot = self.slot.next();
            let accept = Record::Accepted(Accept {
                ballot: Ballot {
                    round: 1,
                    replica: ReplicaId(1),
                },
                slot: self.slot,
                commit_index: Slot::ZERO,
                value: load.value.clone(),
            });
            started.push_back(Instant::now());
            self.append(&accept);
            if started.len() as u64 >= load.depth {
                self.wait_for(Lsn(self.lsn.0 + 1 - load.depth));
                took.extend(started.pop_front().map(|at| at.elapsed()));
            }
            self.trim(load.value.len());
        }
        self.wait_for(self.lsn);
        took
    }

    /// As if a snapshot was taken at each distance, and the one before last was dropped.
    fn trim(&mut self, bytes: usize) {
        self.since += bytes as u64;
        if self.log == Log::Growing || self.since < self.distance {
            return;
        }
        self.since = 0;
        self.marks.push_back(self.slot);
        if self.marks.len() > 1
            && let Some(floor) = self.marks.pop_front()
        {
            self.append(&Record::Trimmed { floor });
            self.wait_for(self.lsn);
            self.wal.trim(floor);
        }
    }

    fn counter(&self, wanted: &str) -> u64 {
        let mut found = 0;
        self.wal.counters(&mut |name, value| {
            if name == wanted {
                found = value;
            }
        });
        found
    }
}

fn measure(log: Log, load: &Load, bytes: u64) -> Figures {
    let mut appender = Appender::new(log);
    // Until files are recycled, all logs are the same.
    let warm = match log {
        Log::Growing => 0,
        Log::Recycled | Log::New => 4 * appender.distance,
    };
    let fast = Load {
        name: "warm",
        value: value(1, 1_960, 128),
        depth: 4,
        share: 1.0,
    };
    appender.write(&fast, warm);
    let created = appender.counter("wal_segments_created");
    let waits = appender.counter("wal_waits_for_segment");
    let started = Instant::now();
    let mut took = appender.write(load, bytes);
    let seconds = started.elapsed().as_secs_f64();
    took.sort();
    Figures {
        megabytes_per_second: bytes as f64 / 1e6 / seconds,
        median: took[took.len() / 2],
        p99: took[took.len() * 99 / 100],
        created: appender.counter("wal_segments_created") - created,
        waits: appender.counter("wal_waits_for_segment") - waits,
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if !arguments.iter().any(|argument| argument == "--bench") {
        // `cargo test` builds and starts benchmarks too.
        return;
    }
    let mut numbers = arguments
        .iter()
        .filter_map(|argument| argument.parse().ok());
    let megabytes: u64 = numbers.next().unwrap_or(1024);
    let repeats: u64 = numbers.next().unwrap_or(3);
    let loads = [
        Load {
            name: "256 KiB, 4 at once",
            value: value(1, 1_960, 128),
            depth: 4,
            share: 1.0,
        },
        Load {
            name: "16 KiB, 1 at once",
            value: value(1, 122, 128),
            depth: 1,
            share: 0.1,
        },
    ];
    println!(
        "{:20} {:9} {:>8} {:>9} {:>9} {:>8} {:>6}",
        "load", "log", "MB/s", "p50 us", "p99 us", "created", "waits"
    );
    for load in &loads {
        for _ in 0..repeats {
            for log in [Log::Recycled, Log::New, Log::Growing] {
                let bytes = (megabytes as f64 * load.share) as u64 * 1_000_000;
                let figures = measure(log, load, bytes);
                println!(
                    "{:20} {:9} {:8.0} {:9} {:9} {:8} {:6}",
                    load.name,
                    format!("{log:?}").to_lowercase(),
                    figures.megabytes_per_second,
                    figures.median.as_micros(),
                    figures.p99.as_micros(),
                    figures.created,
                    figures.waits
                );
            }
        }
    }
}
