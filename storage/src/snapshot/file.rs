//! A complete snapshot file, read and checked.

use std::path::PathBuf;

use bytes::Bytes;
use synod_engine::ids::{ClusterId, ReplicaId, Slot};
use synod_engine::seams::{Origin, SnapshotInfo};

use super::format::{
    self, CHUNK_BODY, CHUNK_HEAD, Footer, Header, VERSION, add_to_seal, body_in_chunk, check_chunk,
    chunk_at, chunk_bytes, chunks, footer_at,
};
use crate::buffer::AlignedBuffer;
use crate::disk::{Disk, OpenMode};
use crate::format::{HeaderError, PAGE};

/// Whose snapshots a directory holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    pub cluster: ClusterId,
    pub replica: ReplicaId,
}

/// Why a snapshot file cannot be used, in one line that names it.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error("{}, offset {offset}: the snapshot is damaged ({why})", path.display())]
    Damaged {
        path: PathBuf,
        offset: u64,
        why: &'static str,
    },
    #[error(
        "{} is a snapshot of format version {found}, this build reads {expected}; use the build that wrote it",
        path.display()
    )]
    Version {
        path: PathBuf,
        found: u32,
        expected: u32,
    },
    #[error(
        "{} is a snapshot of cluster {found}, this replica is of cluster {expected}; take the file away",
        path.display()
    )]
    WrongCluster {
        path: PathBuf,
        found: ClusterId,
        expected: ClusterId,
    },
    #[error("{} is a snapshot of replica {found}, this is replica {expected}; take the file away", path.display())]
    WrongReplica {
        path: PathBuf,
        found: ReplicaId,
        expected: ReplicaId,
    },
    #[error("reading the snapshot {} failed: {source}", path.display())]
    Io {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{}: the snapshot cannot be restored: {why}", path.display())]
    Refused { path: PathBuf, why: String },
}

impl SnapshotError {
    /// Whether the file is this replica's own and of no use to any build, so that it may go when newer ones are there.
    pub fn is_waste(&self) -> bool {
        match self {
            SnapshotError::Damaged { .. }
            | SnapshotError::Io { .. }
            | SnapshotError::Refused { .. } => true,
            SnapshotError::Version { .. }
            | SnapshotError::WrongCluster { .. }
            | SnapshotError::WrongReplica { .. } => false,
        }
    }
}

/// Header and footer were checked when it was opened, each chunk is when it is read.
pub struct SnapshotFile<D: Disk> {
    disk: D,
    file: D::File,
    path: PathBuf,
    header: Header,
    footer: Footer,
}

impl<D: Disk> SnapshotFile<D> {
    pub fn open(disk: &D, owner: Owner, slot: Slot) -> Result<SnapshotFile<D>, SnapshotError> {
        let name = format::name(slot);
        let path = disk.path(&name);
        let io = |source| SnapshotError::Io {
            path: path.clone(),
            source,
        };
        let files = disk.list().map_err(io)?;
        let size = files.iter().find(|(file, _)| *file == name);
        let size = size.map_or(0, |(_, bytes)| *bytes);
        let damaged = |offset, why| SnapshotError::Damaged {
            path: path.clone(),
            offset,
            why,
        };
        let page = PAGE as u64;
        if size < 2 * page || !size.is_multiple_of(page) {
            return Err(damaged(size, "its size is wrong"));
        }
        let file = disk.open(&name, OpenMode::Read).map_err(io)?;
        let mut image = vec![0; PAGE];
        disk.read_at(&file, 0, &mut image).map_err(io)?;
        let told = |offset, error| match error {
            HeaderError::Damaged(why) => damaged(offset, why),
            HeaderError::Version(found) => SnapshotError::Version {
                path: path.clone(),
                found,
                expected: VERSION,
            },
        };
        let header = Header::decode(&image).map_err(|error| told(0, error))?;
        if header.slot != slot {
            return Err(damaged(0, "it is of another slot than its name"));
        }
        check_owner(&header, owner, &path)?;
        let end = size - page;
        disk.read_at(&file, end, &mut image).map_err(io)?;
        let footer = Footer::decode(&image, &header).map_err(|error| told(end, error))?;
        if footer_at(footer.bytes) != end {
            return Err(damaged(end, "its size is not what its footer says"));
        }
        Ok(SnapshotFile {
            disk: disk.clone(),
            file,
            path,
            header,
            footer,
        })
    }

    pub fn info(&self) -> SnapshotInfo {
        self.footer.info(self.header.slot)
    }

    pub fn origin(&self) -> Origin {
        self.footer.origin
    }

    /// The body's bytes in the chunk of this number, and the chunk's checksum.
    fn chunk(&self, number: u64) -> Result<(Bytes, u32), SnapshotError> {
        let body = body_in_chunk(self.footer.bytes, number);
        let mut buffer = AlignedBuffer::new(chunk_bytes(body));
        let offset = chunk_at(number);
        self.disk
            .read_at(&self.file, offset, buffer.as_mut_slice())
            .map_err(|source| SnapshotError::Io {
                path: self.path.clone(),
                source,
            })?;
        let crc = check_chunk(buffer.as_ref(), self.header.nonce, number, body)
            .map_err(|why| self.damaged(offset, why))?;
        let bytes = Bytes::from_owner(buffer).slice(CHUNK_HEAD..CHUNK_HEAD + body);
        Ok((bytes, crc))
    }

    /// The part of the body from `offset` on that is in one chunk, up to `bytes_max`; empty at the end. `kept` is the
    /// chunk read last.
    pub fn part(
        &self,
        offset: u64,
        bytes_max: usize,
        kept: &mut Option<(u64, Bytes)>,
    ) -> Result<Bytes, SnapshotError> {
        let number = offset / CHUNK_BODY as u64;
        if offset >= self.footer.bytes {
            return Ok(Bytes::new());
        }
        let chunk = match kept {
            Some((same, chunk)) if *same == number => chunk.clone(),
            Some(_) | None => {
                let (chunk, _) = self.chunk(number)?;
                *kept = Some((number, chunk.clone()));
                chunk
            }
        };
        let from = (offset % CHUNK_BODY as u64) as usize;
        Ok(chunk.slice(from..chunk.len().min(from.saturating_add(bytes_max))))
    }

    fn damaged(&self, offset: u64, why: &'static str) -> SnapshotError {
        SnapshotError::Damaged {
            path: self.path.clone(),
            offset,
            why,
        }
    }
}

fn check_owner(header: &Header, owner: Owner, path: &std::path::Path) -> Result<(), SnapshotError> {
    let path = path.to_path_buf();
    if header.cluster != owner.cluster {
        return Err(SnapshotError::WrongCluster {
            path,
            found: header.cluster,
            expected: owner.cluster,
        });
    }
    if header.replica != owner.replica {
        return Err(SnapshotError::WrongReplica {
            path,
            found: header.replica,
            expected: owner.replica,
        });
    }
    Ok(())
}

/// The body of a snapshot from its first byte to its last, chunk by chunk. It ends early where the file is damaged;
/// whether it is intact as a whole only [`Body::finish`] tells.
pub struct Body<D: Disk> {
    file: SnapshotFile<D>,
    next: u64,
    seal: u32,
    damage: Option<SnapshotError>,
}

impl<D: Disk> Body<D> {
    pub fn new(file: SnapshotFile<D>) -> Body<D> {
        Body {
            file,
            next: 0,
            seal: 0,
            damage: None,
        }
    }

    /// Reads what was not taken, and checks the whole.
    pub fn finish(mut self) -> Result<(), SnapshotError> {
        self.by_ref().for_each(drop);
        let footer = &self.file.footer;
        let why = "the seal of the whole is wrong";
        match self.damage {
            Some(damage) => Err(damage),
            None if self.seal != footer.seal => {
                Err(self.file.damaged(footer_at(footer.bytes), why))
            }
            None => Ok(()),
        }
    }
}

impl<D: Disk> Iterator for Body<D> {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let is_all = self.next == chunks(self.file.footer.bytes);
        if is_all || self.damage.is_some() {
            return None;
        }
        match self.file.chunk(self.next) {
            Ok((bytes, crc)) => {
                self.seal = add_to_seal(self.seal, crc);
                self.next += 1;
                Some(bytes)
            }
            Err(damage) => {
                self.damage = Some(damage);
                None
            }
        }
    }
}
