//! Reads parts of complete snapshots for peers, beside the loop.

use bytes::{Bytes, BytesMut};
use synod_engine::seams::SnapshotInfo;

use super::file::{Owner, SnapshotError, SnapshotFile};
use crate::disk::Disk;

pub struct ReadJob {
    pub info: SnapshotInfo,
    pub offset: u64,
    pub bytes_max: usize,
}

pub struct ReadDone {
    pub info: SnapshotInfo,
    pub offset: u64,
    pub outcome: Result<Bytes, String>,
}

pub struct Reader<D: Disk> {
    disk: D,
    owner: Owner,
    /// The file that was read last, and the chunk: a transfer goes from front to end.
    open: Option<Open<D>>,
}

struct Open<D: Disk> {
    info: SnapshotInfo,
    file: SnapshotFile<D>,
    chunk: Option<(u64, Bytes)>,
}

impl<D: Disk> Reader<D> {
    pub fn new(disk: D, owner: Owner) -> Reader<D> {
        Reader {
            disk,
            owner,
            open: None,
        }
    }

    pub fn run(&mut self, job: &ReadJob) -> ReadDone {
        let outcome = self.read(job).map_err(|error| {
            self.open = None;
            error.to_string()
        });
        // At the end of a transfer neither memory nor a removed file's room is held any longer.
        let at_end = |bytes: &Bytes| job.offset + bytes.len() as u64 >= job.info.bytes;
        if outcome.as_ref().is_ok_and(at_end) {
            self.open = None;
        }
        ReadDone {
            info: job.info,
            offset: job.offset,
            outcome,
        }
    }

    fn read(&mut self, job: &ReadJob) -> Result<Bytes, SnapshotError> {
        let mut open = match self.open.take().filter(|open| open.info == job.info) {
            Some(open) => open,
            None => {
                let file = SnapshotFile::open(&self.disk, self.owner, job.info.slot)?;
                let info = file.info();
                if info != job.info {
                    let path = self.disk.path(&super::format::name(job.info.slot));
                    let why = "another snapshot of its slot took its place".to_string();
                    return Err(SnapshotError::Refused { path, why });
                }
                let chunk = None;
                Open { info, file, chunk }
            }
        };
        let first = open.file.part(job.offset, job.bytes_max, &mut open.chunk)?;
        let mut next = job.offset + first.len() as u64;
        let end = job
            .info
            .bytes
            .min(job.offset.saturating_add(job.bytes_max as u64));
        if next >= end {
            self.open = Some(open);
            return Ok(first);
        }
        let mut bytes = BytesMut::with_capacity((end - job.offset) as usize);
        bytes.extend_from_slice(&first);
        while next < end {
            let part = open
                .file
                .part(next, (end - next) as usize, &mut open.chunk)?;
            bytes.extend_from_slice(&part);
            next += part.len() as u64;
        }
        self.open = Some(open);
        Ok(bytes.freeze())
    }
}
