//! Which snapshots a directory holds.

use synod_engine::ids::Slot;
use synod_engine::seams::{Origin, SnapshotInfo};

use super::file::{Owner, SnapshotError, SnapshotFile};
use super::format::slot_of_name;
use crate::disk::Disk;
use crate::error::OpenError;

/// Snapshots and where each came from.
pub type Listed = Vec<(SnapshotInfo, Origin)>;

/// Files that no start would use, and why.
pub type Refused = Vec<(Slot, SnapshotError)>;

/// The snapshots of a directory, oldest first, by their headers and footers; and why the other files are none of them.
pub fn list<D: Disk>(disk: &D, owner: Owner) -> Result<(Listed, Refused), OpenError> {
    let files = disk
        .list()
        .map_err(OpenError::io("listing", disk.path("")))?;
    let (mut complete, mut refused) = (Vec::new(), Vec::new());
    for slot in files.iter().filter_map(|(name, _)| slot_of_name(name)) {
        match SnapshotFile::open(disk, owner, slot) {
            Ok(file) => complete.push((file.info(), file.origin())),
            Err(error) => refused.push((slot, error)),
        }
    }
    complete.sort_by_key(|(info, _)| info.slot);
    Ok((complete, refused))
}
