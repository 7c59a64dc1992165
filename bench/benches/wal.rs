//! Durable appends, one group in flight, through the files and the backend that a replica would use here.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use synod_bench::value;
use synod_engine::ids::{Ballot, ClusterId, Lsn, ReplicaId, Slot};
use synod_engine::message::{Accept, Record};
use synod_engine::seams::Wal;
use synod_storage::{BackendChoice, Config, FileWal};

struct Appender {
    wal: FileWal,
    lsn: Lsn,
    slot: Slot,
    _directory: tempfile::TempDir,
}

impl Appender {
    fn new(backend: BackendChoice) -> Appender {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
        let path = directory.path().join("data");
        let mut config = Config::new(path, ClusterId(1), ReplicaId(1), 1);
        config.backend = backend;
        synod_storage::init(&config).expect("a fresh directory can be initialised");
        let (wal, report) = synod_storage::open(config, &mut |_| {}).expect("a fresh WAL opens");
        println!("backend: {}", report.backend);
        Appender {
            wal,
            lsn: Lsn::ZERO,
            slot: Slot::ZERO,
            _directory: directory,
        }
    }

    fn append(&mut self, value: &bytes::Bytes) {
        self.lsn = self.lsn.next();
        self.slot = self.slot.next();
        let record = Record::Accepted(Accept {
            ballot: Ballot {
                round: 1,
                replica: ReplicaId(1),
            },
            slot: self.slot,
            commit_index: Slot::ZERO,
            value: value.clone(),
        });
        self.wal.append(self.lsn, &record);
        self.wal.submit();
        while self.wal.durable().expect("the disk works") < self.lsn {
            std::thread::yield_now();
        }
    }
}

fn wal(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("wal");
    group.sample_size(20);
    for (name, backend) in [
        ("auto", BackendChoice::Auto),
        ("blocking", BackendChoice::Blocking),
    ] {
        for (size, count) in [("1 command", 1), ("64 KiB", 490), ("256 KiB", 1_960)] {
            let value = value(1, count, 128);
            group.throughput(Throughput::Bytes(value.len() as u64));
            group.bench_function(format!("{name}, {size}"), |bencher| {
                let mut appender = Appender::new(backend);
                bencher.iter(|| appender.append(&value));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, wal);
criterion_main!(benches);
