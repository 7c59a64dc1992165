//! Makes segments ahead of need and recycles dropped ones. Everything here may block, so it runs beside the loop.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use synod_engine::ids::{ClusterId, ReplicaId};

use crate::buffer::AlignedBuffer;
use crate::disk::{Disk, OpenMode};
use crate::format::{PAGE, SegmentHeader, SegmentIdentity, Sequence};

/// Zeros written at once: small, so that a group that comes meanwhile waits for little.
const ZERO_BYTES: usize = 256 << 10;

/// What the keeper is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Job {
    /// Give the empty segment of this number, left over from before, a new identity.
    Renew(Sequence),
    /// Make the segment of this number, from a recycled file if there is one.
    Prepare(Sequence),
    /// Take the segment of this number out of the WAL and keep its file.
    Recycle(Sequence),
}

pub enum Outcome<F> {
    Prepared(Prepared<F>),
    Recycled,
    Failed(String),
}

/// An empty segment: full size, header durable, name durable.
pub struct Prepared<F> {
    pub sequence: Sequence,
    pub identity: SegmentIdentity,
    pub file: F,
}

/// What the loop tells its keeper while that works.
#[derive(Clone, Default)]
pub struct Hints {
    /// The WAL closes: stop at the next chance.
    pub stop: Arc<AtomicBool>,
    /// Segments that are ready now; while there is one, the keeper leaves the disk idle half of the time.
    pub ready: Arc<AtomicUsize>,
}

pub struct Keeper<D: Disk> {
    pub disk: D,
    pub cluster: ClusterId,
    pub replica: ReplicaId,
    pub segment_bytes: u64,
    /// Mixed from the incarnation and the seed of this opening.
    pub seed: u64,
    /// Names of recycled files.
    pub ready_files: VecDeque<String>,
    pub ready_files_max: usize,
    pub hints: Hints,
    /// Whether it shares a real disk with the loop, and so leaves it idle now and then. In place there is no loop
    /// beside it, and no clock in a simulation.
    pub paces: bool,
}

impl<D: Disk> Keeper<D> {
    pub fn run(&mut self, job: Job) -> Outcome<D::File> {
        let name = match job {
            Job::Renew(sequence) | Job::Prepare(sequence) => sequence.segment_name(),
            Job::Recycle(sequence) => sequence.ready_name(),
        };
        let done = match job {
            Job::Renew(sequence) => self.renew(sequence).map(Outcome::Prepared),
            Job::Prepare(sequence) => self.prepare(sequence).map(Outcome::Prepared),
            Job::Recycle(sequence) => self.recycle(sequence).map(|()| Outcome::Recycled),
        };
        done.unwrap_or_else(|error| {
            let path = self.disk.path(&name);
            let what = match job {
                Job::Renew(_) | Job::Prepare(_) => "preparing segment",
                Job::Recycle(_) => "recycling segment",
            };
            Outcome::Failed(format!("{what} {}: {error}", path.display()))
        })
    }

    /// The header is one sector, so a crash leaves the old identity or the new one; both are of an empty segment.
    fn renew(&mut self, sequence: Sequence) -> io::Result<Prepared<D::File>> {
        let name = sequence.segment_name();
        let old = self.identity_of(&name)?.unwrap_or(SegmentIdentity(0));
        let file = self.disk.open(&name, OpenMode::Segment)?;
        let identity = self.write_header(&file, sequence, old)?;
        Ok(Prepared {
            sequence,
            identity,
            file,
        })
    }

    pub fn prepare(&mut self, sequence: Sequence) -> io::Result<Prepared<D::File>> {
        let (from, file, old) = match self.take_ready_file()? {
            Some(found) => found,
            None => {
                let name = sequence.temporary_name();
                let file = self.zero_filled(&name)?;
                (name, file, SegmentIdentity(0))
            }
        };
        let identity = self.write_header(&file, sequence, old)?;
        // Only now the name: whatever is called a segment has its full size and a header of this life.
        self.disk.rename(&from, &sequence.segment_name())?;
        self.disk.sync_directory()?;
        Ok(Prepared {
            sequence,
            identity,
            file,
        })
    }

    /// The name goes, durably, before the file may get a new header: a segment's header never changes under it.
    fn recycle(&mut self, sequence: Sequence) -> io::Result<()> {
        let ready = sequence.ready_name();
        self.disk.rename(&sequence.segment_name(), &ready)?;
        self.disk.sync_directory()?;
        if self.ready_files.len() < self.ready_files_max {
            self.ready_files.push_back(ready);
            return Ok(());
        }
        self.disk.remove(&ready)?;
        self.disk.sync_directory()
    }

    /// A recycled file of the right size with a readable header; others are removed.
    #[allow(clippy::type_complexity)]
    fn take_ready_file(&mut self) -> io::Result<Option<(String, D::File, SegmentIdentity)>> {
        while let Some(name) = self.ready_files.pop_front() {
            if self.has_full_size(&name)?
                && let Some(old) = self.identity_of(&name)?
            {
                let file = self.disk.open(&name, OpenMode::Segment)?;
                return Ok(Some((name, file, old)));
            }
            self.disk.remove(&name)?;
        }
        Ok(None)
    }

    /// A segment whose file was damaged is recycled like any other, whatever its size.
    fn has_full_size(&self, name: &str) -> io::Result<bool> {
        let files = self.disk.list()?;
        let bytes = files.iter().find(|(file, _)| file == name);
        Ok(bytes.is_some_and(|(_, bytes)| *bytes == self.segment_bytes))
    }

    fn identity_of(&self, name: &str) -> io::Result<Option<SegmentIdentity>> {
        let file = self.disk.open(name, OpenMode::Read)?;
        let mut page = vec![0; PAGE];
        self.disk.read_at(&file, 0, &mut page)?;
        let header = SegmentHeader::decode(&page).ok();
        Ok(header
            .filter(|header| header.segment_bytes == self.segment_bytes)
            .map(|header| header.identity))
    }

    fn write_header(
        &self,
        file: &D::File,
        sequence: Sequence,
        old: SegmentIdentity,
    ) -> io::Result<SegmentIdentity> {
        let identity = old.following(self.seed, sequence);
        let header = SegmentHeader {
            cluster: self.cluster,
            replica: self.replica,
            segment_bytes: self.segment_bytes,
            sequence,
            identity,
        };
        let mut page = AlignedBuffer::new(PAGE);
        header.encode(page.as_mut_slice());
        self.disk.write_at(file, 0, page.as_ref())?;
        self.disk.sync(file)?;
        Ok(identity)
    }

    /// Zeros on disk, not promised ones: an unwritten extent would cost a metadata update at each group.
    fn zero_filled(&self, name: &str) -> io::Result<D::File> {
        let file = self.disk.open(name, OpenMode::CreateSegment)?;
        let zeros = AlignedBuffer::new(ZERO_BYTES);
        let mut at = 0;
        while at < self.segment_bytes {
            if self.hints.stop.load(Ordering::Relaxed) {
                return Err(io::Error::other("the WAL was closed meanwhile"));
            }
            let started = Instant::now();
            let bytes = (self.segment_bytes - at).min(ZERO_BYTES as u64);
            self.disk
                .write_at(&file, at, &zeros.as_ref()[..bytes as usize])?;
            at += bytes;
            if self.paces && self.hints.ready.load(Ordering::Relaxed) > 0 {
                std::thread::sleep(started.elapsed());
            }
        }
        // The sync of the header makes them durable, before the file gets its name.
        Ok(file)
    }
}
