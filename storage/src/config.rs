//! What a WAL is told when it is made and opened, and the limits it keeps.

use std::path::PathBuf;

use synod_engine::ids::{ClusterId, ReplicaId};

/// Largest group, and so the largest single write, in bytes.
pub const GROUP_BYTES_MAX: usize = 2 << 20;
/// Largest encoded record in bytes: a value of 1 MiB and its fields.
pub const RECORD_BYTES_MAX: usize = (1 << 20) + 4096;
/// No further write starts while this many bytes are in flight: from here on depth only adds latency.
pub const IN_FLIGHT_BYTES_MAX: usize = 256 << 10;
/// The default of [`Options::pending_bytes_max`], for whoever has no windows of his own.
pub const PENDING_BYTES_MAX_DEFAULT: usize = 1 << 30;
/// Reads asked for and not yet taken.
pub const READS_IN_FLIGHT_MAX: usize = 8;
/// Bytes of a snapshot appended and not yet written. The engine stops far below; beyond it is a bug.
pub const SNAPSHOT_BACKLOG_BYTES_MAX: usize = 64 << 20;
/// Largest part of a snapshot that one read gives, in bytes.
pub const SNAPSHOT_READ_BYTES_MAX: usize = 4 << 20;
/// Reads of snapshots asked for and not yet taken.
pub const SNAPSHOT_READS_MAX: usize = 16;
/// Slots that one read answers at most.
pub const READ_SLOTS_MAX: usize = 65_536;
/// Groups that one read looks into at most.
pub const READ_RUNS_MAX: usize = 4096;
/// The default of [`Options::segments_recycled_max`]: 4 GiB in segments of the default size.
pub const SEGMENTS_RECYCLED_MAX_DEFAULT: usize = 64;
/// Most segments that may be kept for recycling, whatever is configured.
pub const SEGMENTS_RECYCLED_LIMIT: usize = 4096;
/// Prepared segments that a WAL on a full disk leaves for its next start, if so many are ready when the disk fills up.
pub const SEGMENTS_RESERVED: usize = 1;
/// The default size of a segment file in bytes.
pub const SEGMENT_BYTES_DEFAULT: u64 = 64 << 20;
/// Smallest segment in bytes that holds its header and one group; only tests go this low.
pub const SEGMENT_BYTES_MIN: u64 = 16 << 10;
/// Largest segment in bytes: offsets within a segment, counted in pages, fit 32 bits with room to spare.
pub const SEGMENT_BYTES_MAX: u64 = 4 << 30;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackendChoice {
    /// io_uring where kernel and file system allow it, the blocking thread otherwise.
    Auto,
    Uring,
    Blocking,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// A group counts as durable when the disk has it.
    Sync,
    /// For comparison only: a group counts as durable when the page cache has it. A power cut loses it.
    None,
}

#[derive(Clone, Debug)]
pub struct Config {
    pub directory: PathBuf,
    pub cluster: ClusterId,
    pub replica: ReplicaId,
    pub backend: BackendChoice,
    pub durability: Durability,
    pub segment_bytes: u64,
    /// Segments prepared ahead, so that the append path never makes a file. With one only, none is left in reserve
    /// when the disk fills up.
    pub segments_ready: usize,
    /// Files of dropped segments kept for recycling; further ones go back to the file system. What one trim drops
    /// should fit, or the steady state makes files.
    pub segments_recycled_max: usize,
    pub writes_in_flight_max: usize,
    /// Records that may wait for the disk, in encoded bytes. The engine says how much its windows allow; beyond it is a
    /// bug.
    pub pending_bytes_max: usize,
    /// Randomness as a value: from it come the identities of the segments.
    pub seed: u64,
}

/// The part of [`Config`] that does not depend on where the files are.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub cluster: ClusterId,
    pub replica: ReplicaId,
    pub segment_bytes: u64,
    pub segments_ready: usize,
    pub segments_recycled_max: usize,
    pub writes_in_flight_max: usize,
    pub pending_bytes_max: usize,
    pub seed: u64,
}

impl Config {
    pub fn new(directory: PathBuf, cluster: ClusterId, replica: ReplicaId, seed: u64) -> Config {
        Config {
            directory,
            cluster,
            replica,
            backend: BackendChoice::Auto,
            durability: Durability::Sync,
            segment_bytes: SEGMENT_BYTES_DEFAULT,
            segments_ready: 2,
            segments_recycled_max: SEGMENTS_RECYCLED_MAX_DEFAULT,
            writes_in_flight_max: 4,
            pending_bytes_max: PENDING_BYTES_MAX_DEFAULT,
            seed,
        }
    }

    pub fn options(&self) -> Options {
        Options {
            cluster: self.cluster,
            replica: self.replica,
            segment_bytes: self.segment_bytes,
            segments_ready: self.segments_ready,
            segments_recycled_max: self.segments_recycled_max,
            writes_in_flight_max: self.writes_in_flight_max,
            pending_bytes_max: self.pending_bytes_max,
            seed: self.seed,
        }
    }
}

impl Options {
    /// Panics on settings no WAL can run with; the harness checks what an operator may type before.
    pub fn check(&self) {
        assert!(
            (SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&self.segment_bytes)
                && self.segment_bytes.is_multiple_of(4096),
            "a segment of {} bytes is out of range or not whole pages",
            self.segment_bytes
        );
        assert!(
            (1..=64).contains(&self.writes_in_flight_max),
            "writes_in_flight_max is out of range"
        );
        assert!(
            self.pending_bytes_max >= GROUP_BYTES_MAX.min(self.segment_bytes as usize),
            "pending_bytes_max is below one group"
        );
        assert!(
            (1..=64).contains(&self.segments_ready),
            "segments_ready is out of range"
        );
        assert!(
            self.segments_recycled_max <= SEGMENTS_RECYCLED_LIMIT,
            "segments_recycled_max is out of range"
        );
    }
}
