//! Reads a WAL without taking part: for `synod wal inspect` and `verify`, and for checkers.

use std::fs::OpenOptions;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use synod_engine::ids::{Ballot, Lsn, Slot};
use synod_engine::seams::SnapshotInfo;

use crate::data_directory::identity_of;
use crate::disk::{Disk, RealDisk};
use crate::error::OpenError;
use crate::format::{Identity, LOCK_FILE, Sequence};
use crate::recovery::{Cut, Hole, Replayed, Segment, recover};
use crate::snapshot::file::SnapshotFile;
use crate::snapshot::{self, Owner};

/// What a WAL holds. Damage with nothing intact behind it is the error of the scan; what is before was visited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanReport {
    pub identity: Identity,
    pub segments: Vec<Segment>,
    pub empty_segments: Vec<Sequence>,
    pub ready_files: Vec<String>,
    pub last_lsn: Lsn,
    pub promised: Ballot,
    pub trim_floor: Slot,
    pub records: u64,
    pub bytes: u64,
    /// What was durable and cannot be read any more.
    pub holes: Vec<Hole>,
    /// Where a torn tail would be cut at the next open.
    pub tail: Option<Cut>,
    /// Oldest first. Of these, header and footer were checked.
    pub snapshots: Vec<SnapshotInfo>,
    /// A line for each snapshot file that no start would use.
    pub snapshots_refused: Vec<String>,
}

/// Scans a directory that no process uses; refuses one that is in use.
pub fn scan(directory: &Path, visit: &mut dyn FnMut(Replayed)) -> Result<ScanReport, OpenError> {
    scan_directory(directory, false, visit)
}

/// With `force`, also scans a directory in use; what its process changes meanwhile may then look like damage.
pub fn scan_directory(
    directory: &Path,
    force: bool,
    visit: &mut dyn FnMut(Replayed),
) -> Result<ScanReport, OpenError> {
    identity_of(directory)?;
    // Opened, never created or written: a scan changes nothing.
    let path = directory.join(LOCK_FILE);
    let lock = OpenOptions::new().read(true).open(&path).ok();
    if let Some(file) = &lock
        && !force
        && flock(file, FlockOperation::NonBlockingLockShared).is_err()
    {
        let holder = match std::fs::read_to_string(&path) {
            Ok(pid) if !pid.is_empty() => format!("process {}", pid.trim()),
            Ok(_) | Err(_) => "another process".to_string(),
        };
        return Err(OpenError::Locked {
            path: directory.to_path_buf(),
            holder,
        });
    }
    scan_disk(&RealDisk::new(directory, false, false), visit)
}

/// The snapshots of a directory that no process uses, oldest first, to be read; and a line for each file that no start
/// would use. Changes nothing.
pub fn scan_snapshots(
    directory: &Path,
) -> Result<(Vec<SnapshotFile<RealDisk>>, Vec<String>), OpenError> {
    let identity = identity_of(directory)?;
    let owner = Owner {
        cluster: identity.cluster,
        replica: identity.replica,
    };
    let disk = RealDisk::new(directory, false, false);
    let (complete, refused) = snapshot::list(&disk, owner)?;
    let mut refused: Vec<String> = refused.iter().map(|(_, error)| error.to_string()).collect();
    let mut files = Vec::new();
    for (info, _) in complete {
        match SnapshotFile::open(&disk, owner, info.slot) {
            Ok(file) => files.push(file),
            Err(error) => refused.push(error.to_string()),
        }
    }
    Ok((files, refused))
}

/// Scans any disk.
pub fn scan_disk<D: Disk>(
    disk: &D,
    visit: &mut dyn FnMut(Replayed),
) -> Result<ScanReport, OpenError> {
    let identity = crate::directory::read_identity(disk)?;
    let found = recover(disk, &identity, Slot::ZERO, visit)?;
    let owner = Owner {
        cluster: identity.cluster,
        replica: identity.replica,
    };
    let (snapshots, refused) = snapshot::list(disk, owner)?;
    Ok(ScanReport {
        identity,
        segments: found.segments,
        empty_segments: found.empty,
        ready_files: found.ready_files,
        last_lsn: found.last,
        promised: found.carried.promised,
        trim_floor: found.carried.trim_floor,
        records: found.records,
        bytes: found.bytes,
        holes: found.holes,
        tail: found.cut,
        snapshots: snapshots.into_iter().map(|(info, _)| info).collect(),
        snapshots_refused: refused.iter().map(|(_, error)| error.to_string()).collect(),
    })
}
