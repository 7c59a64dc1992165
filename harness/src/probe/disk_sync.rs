//! How long a small durable write takes, and how the WAL would be written, both measured on the disk itself.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde::{Deserialize, Serialize};
use synod_engine::ids::{ClusterId, ReplicaId};
use synod_storage as storage;

const SYNCS_MAX: usize = 200;
const SYNCS_TIME_MAX: Duration = Duration::from_secs(2);
const BLOCK_BYTES: usize = 4096;
/// Written once before, as a segment of the WAL is prepared, so that a sync carries no change of the file's size.
const FILE_BLOCKS: u64 = 256;

/// Of one block each, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SyncTimes {
    pub count: u64,
    pub p50_us: f64,
    pub p99_us: f64,
    pub max_us: f64,
}

/// `directory` must be empty, or not be there yet.
pub fn measure(directory: &Path) -> anyhow::Result<SyncTimes> {
    let path = directory.join("sync");
    let file = File::create(&path).with_context(|| path.display().to_string())?;
    let zeros = vec![0u8; BLOCK_BYTES];
    for block in 0..FILE_BLOCKS {
        file.write_all_at(&zeros, block * BLOCK_BYTES as u64)?;
    }
    file.sync_all()?;
    let started = Instant::now();
    let mut times = Vec::new();
    while times.len() < SYNCS_MAX && started.elapsed() < SYNCS_TIME_MAX {
        let block = times.len() as u64 % FILE_BLOCKS;
        let before = Instant::now();
        file.write_all_at(&zeros, block * BLOCK_BYTES as u64)?;
        file.sync_data()?;
        times.push(before.elapsed());
    }
    std::fs::remove_file(&path)?;
    times.sort_unstable();
    let at = |share: f64| {
        let index = ((times.len() - 1) as f64 * share).round() as usize;
        (times[index].as_nanos() as f64 / 100.0).round() / 10.0
    };
    Ok(SyncTimes {
        count: times.len() as u64,
        p50_us: at(0.5),
        p99_us: at(0.99),
        max_us: at(1.0),
    })
}

/// Opens a WAL of its own and returns how it would be written: whether io_uring may be used is best found by using it.
pub fn backend(directory: &Path) -> anyhow::Result<String> {
    let (cluster, replica) = (ClusterId(1), ReplicaId(1));
    let mut config = storage::Config::new(directory.join("wal"), cluster, replica, 1);
    config.segment_bytes = storage::config::SEGMENT_BYTES_MIN;
    config.segments_ready = 1;
    storage::init(&config)?;
    let (wal, report) = storage::open(config, &mut |_| {})?;
    drop(wal);
    std::fs::remove_dir_all(directory.join("wal"))?;
    Ok(report.backend)
}
