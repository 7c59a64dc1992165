//! What a run takes minute by minute: a long run must be the same run in its last minute as in its second.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use synod_engine::ids::ReplicaId;
use synod_storage::format::LOCK_FILE;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::usage;
use crate::load::event::LoadMinute;

/// Often enough to see what a snapshot takes while it is written.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);
/// The unit of `st_blocks`, whatever the file system's own blocks are.
const BLOCK_BYTES: u64 = 512;
const SECONDS_PER_MINUTE: u64 = 60;

/// One minute of the measured window, from its load and its replicas.
#[derive(Clone, Debug, Serialize)]
pub struct Minute {
    #[serde(flatten)]
    pub load: LoadMinute,
    pub replicas: Vec<Taken>,
}

/// The most that a replica took during a minute, as seen once per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Taken {
    pub replica: u8,
    /// Resident; 0 while it was down.
    pub memory_bytes: u64,
    /// Of its data directory, as allocated.
    pub disk_bytes: u64,
}

type Samples = Vec<BTreeMap<ReplicaId, Taken>>;

/// Looks at the replicas from outside, so that it goes on whatever is done to them. Ends when it is dropped.
pub struct Watch {
    task: JoinHandle<()>,
    samples: Arc<Mutex<Samples>>,
}

impl Watch {
    /// The first minute begins now.
    pub fn start(directories: Vec<(ReplicaId, PathBuf)>) -> Watch {
        let samples = Arc::new(Mutex::new(Samples::new()));
        let task = tokio::spawn(follow(directories, Arc::clone(&samples)));
        Watch { task, samples }
    }

    /// The minutes of `load` with what the replicas took meanwhile.
    pub fn finish(self, load: &[LoadMinute]) -> Vec<Minute> {
        let samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        let minutes = load.iter().enumerate().map(|(minute, load)| Minute {
            load: *load,
            replicas: samples
                .get(minute)
                .map_or_else(Vec::new, |taken| taken.values().copied().collect()),
        });
        minutes.collect()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn follow(directories: Vec<(ReplicaId, PathBuf)>, samples: Arc<Mutex<Samples>>) {
    let started = Instant::now();
    let mut ticks = tokio::time::interval(SAMPLE_EVERY);
    loop {
        ticks.tick().await;
        let minute = (started.elapsed().as_secs() / SECONDS_PER_MINUTE) as usize;
        let mut samples = samples.lock().unwrap_or_else(PoisonError::into_inner);
        if samples.len() <= minute {
            samples.resize(minute + 1, BTreeMap::new());
        }
        for (id, directory) in &directories {
            note(&mut samples[minute], *id, look(*id, directory));
        }
    }
}

fn note(minute: &mut BTreeMap<ReplicaId, Taken>, id: ReplicaId, now: Taken) {
    let most = minute.entry(id).or_insert(now);
    most.memory_bytes = most.memory_bytes.max(now.memory_bytes);
    most.disk_bytes = most.disk_bytes.max(now.disk_bytes);
}

/// The lock of a data directory names the process that has it.
fn look(id: ReplicaId, directory: &Path) -> Taken {
    let process = std::fs::read_to_string(directory.join(LOCK_FILE)).ok();
    let process = process.and_then(|pid| pid.trim().parse().ok());
    Taken {
        replica: id.0,
        memory_bytes: process.and_then(usage::memory_bytes).unwrap_or(0),
        disk_bytes: allocated(directory),
    }
}

/// Files may come and go while they are counted.
fn allocated(directory: &Path) -> u64 {
    let Ok(files) = std::fs::read_dir(directory) else {
        return 0;
    };
    let metadata = files.filter_map(|file| file.ok()?.metadata().ok());
    metadata.map(|file| file.blocks() * BLOCK_BYTES).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_found_by_the_lock_of_its_directory() {
        let directory = tempfile::tempdir().unwrap();
        let id = ReplicaId(3);
        assert_eq!(look(id, directory.path()).memory_bytes, 0);
        let pid = format!("{}\n", std::process::id());
        std::fs::write(directory.path().join(LOCK_FILE), pid).unwrap();
        std::fs::write(directory.path().join("file"), vec![1; 1 << 20]).unwrap();
        let taken = look(id, directory.path());
        assert!(taken.memory_bytes > 100_000, "{taken:?}");
        assert!(taken.disk_bytes >= 1 << 20, "{taken:?}");
        assert_eq!(taken.replica, 3);
    }

    #[test]
    fn of_a_minute_the_most_is_kept() {
        let taken = |memory_bytes, disk_bytes| Taken {
            replica: 1,
            memory_bytes,
            disk_bytes,
        };
        let mut minute = BTreeMap::new();
        for now in [taken(5, 1), taken(2, 9), taken(0, 3)] {
            note(&mut minute, ReplicaId(1), now);
        }
        assert_eq!(minute[&ReplicaId(1)], taken(5, 9));
    }
}
