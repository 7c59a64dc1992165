//! Makes segments ahead of need and recycles dropped ones. Everything here may block, so it runs beside the loop.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use synod_engine::ids::{ClusterId, ReplicaId};

use crate::backend::retries::is_passing;
use crate::buffer::AlignedBuffer;
use crate::disk::{Disk, OpenMode};
use crate::format::{PAGE, SegmentHeader, SegmentIdentity, Sequence};

/// Zeros written at once: small, so that a group that comes meanwhile waits for little.
const ZERO_BYTES: usize = 256 << 10;
/// How long the keeper rests on a full disk before it tries again, in naps, so that a closing WAL waits for one only.
const NAPS_WHILE_FULL: u32 = 20;
/// How often a job is tried in place of a thread that would wait.
const TRIES_IN_PLACE_MAX: u32 = 3;
const NAP: Duration = Duration::from_millis(5);

/// What the keeper is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Job {
    /// Give the empty segment of this number, left over from before, a new identity.
    Renew(Sequence),
    /// Make the next segment, from a recycled file if there is one.
    Prepare,
    /// Take the segment of this number out of the WAL and keep its file.
    Recycle(Sequence),
}

pub enum Outcome<F> {
    Prepared(Prepared<F>),
    Dropped(Dropped),
    /// The disk is full, or no file handle is free. Nothing of the attempt is left, and a later one may succeed.
    NoRoom(String),
    Failed(String),
}

/// What became of a dropped segment's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// Files that went back to the file system, this one or others.
    pub deleted: u64,
}

/// Where the file of a prepared segment comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Prepared before this opening.
    Earlier,
    Recycled,
    New,
}

/// An empty segment: full size, header durable, name durable.
pub struct Prepared<F> {
    pub sequence: Sequence,
    pub identity: SegmentIdentity,
    pub file: F,
    pub origin: Origin,
}

/// Why a segment could not be prepared.
#[derive(Debug)]
pub enum Trouble {
    NoRoom(io::Error),
    Failed(io::Error),
}

impl Trouble {
    fn of(error: io::Error) -> Trouble {
        match is_passing(&error) {
            true => Trouble::NoRoom(error),
            false => Trouble::Failed(error),
        }
    }
}

/// A recycled file.
struct Source<F> {
    name: String,
    file: F,
    /// Of its last life.
    identity: SegmentIdentity,
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
    /// The number of the segment that is prepared next: they are made in order, however often one is tried.
    pub next: Sequence,
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
        match job {
            Job::Renew(sequence) => match self.until_it_passes(|keeper| keeper.renew(sequence)) {
                Ok(prepared) => Outcome::Prepared(prepared),
                Err(error) => Outcome::Failed(self.told(job, &error)),
            },
            Job::Prepare => match self.prepare() {
                Ok(prepared) => Outcome::Prepared(prepared),
                Err(Trouble::Failed(error)) => Outcome::Failed(self.told(job, &error)),
                Err(Trouble::NoRoom(error)) => {
                    self.rest();
                    Outcome::NoRoom(self.told(job, &error))
                }
            },
            Job::Recycle(sequence) => match self.until_it_passes(|keeper| keeper.recycle(sequence))
            {
                Ok(dropped) => Outcome::Dropped(dropped),
                Err(error) => Outcome::Failed(self.told(job, &error)),
            },
        }
    }

    /// Tries again what may succeed later, unless the WAL closes. Each of these jobs can be done again from its start.
    fn until_it_passes<T>(
        &mut self,
        mut attempt: impl FnMut(&mut Self) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut tries = 0;
        loop {
            // In place nothing changes while this waits.
            let tries_left = self.paces || tries < TRIES_IN_PLACE_MAX;
            tries += 1;
            match attempt(self) {
                Err(error)
                    if is_passing(&error)
                        && tries_left
                        && !self.hints.stop.load(Ordering::Relaxed) =>
                {
                    self.rest();
                }
                done => return done,
            }
        }
    }

    fn told(&self, job: Job, error: &io::Error) -> String {
        let (what, name) = match job {
            Job::Renew(sequence) => ("preparing segment", sequence.segment_name()),
            Job::Prepare => ("preparing segment", self.next.segment_name()),
            Job::Recycle(sequence) => ("recycling segment", sequence.ready_name()),
        };
        format!("{what} {}: {error}", self.disk.path(&name).display())
    }

    /// The header is one sector, so a crash leaves the old identity or the new one; both are of an empty segment.
    fn renew(&mut self, sequence: Sequence) -> io::Result<Prepared<D::File>> {
        let name = sequence.segment_name();
        let old = self.identity_of(&name)?.unwrap_or(SegmentIdentity(0));
        let file = self.disk.open(&name, OpenMode::Segment)?;
        let identity = self.write_header(&file, sequence, old)?;
        self.next = self.next.max(sequence.next());
        Ok(Prepared {
            sequence,
            identity,
            file,
            origin: Origin::Earlier,
        })
    }

    /// Makes the next segment. A full disk, or no free file handle, leaves everything as it was before.
    pub fn prepare(&mut self) -> Result<Prepared<D::File>, Trouble> {
        let source = self.take_ready_file().map_err(Trouble::of)?;
        let (tried, origin) = match &source {
            Some(source) => (self.reuse(source), Origin::Recycled),
            None => (self.make(), Origin::New),
        };
        let (file, identity) = match tried {
            Ok(made) => made,
            Err(error) if is_passing(&error) => {
                self.tidy(source).map_err(Trouble::Failed)?;
                return Err(Trouble::NoRoom(error));
            }
            Err(error) => return Err(Trouble::Failed(error)),
        };
        // If this has to wait, the next attempt replaces the file by another one of the same name.
        self.disk.sync_directory().map_err(Trouble::of)?;
        let sequence = self.next;
        self.next = sequence.next();
        Ok(Prepared {
            sequence,
            identity,
            file,
            origin,
        })
    }

    fn reuse(&self, source: &Source<D::File>) -> io::Result<(D::File, SegmentIdentity)> {
        let identity = self.write_header(&source.file, self.next, source.identity)?;
        self.disk.rename(&source.name, &self.next.segment_name())?;
        Ok((source.file.clone(), identity))
    }

    /// Only last the name: whatever is called a segment has its full size and a header of this life.
    fn make(&self) -> io::Result<(D::File, SegmentIdentity)> {
        let temporary = self.next.temporary_name();
        let file = self.zero_filled(&temporary)?;
        let identity = self.write_header(&file, self.next, SegmentIdentity(0))?;
        self.disk.rename(&temporary, &self.next.segment_name())?;
        Ok((file, identity))
    }

    /// After an attempt that met a full disk: the recycled file is kept, the half of a new one is removed, since its
    /// room is what others wait for.
    fn tidy(&mut self, source: Option<Source<D::File>>) -> io::Result<()> {
        if let Some(source) = source {
            self.ready_files.push_front(source.name);
            return Ok(());
        }
        match self.disk.remove(&self.next.temporary_name()) {
            // The next attempt removes it.
            Err(error) if is_passing(&error) => Ok(()),
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Not to ask a full disk without pause.
    fn rest(&self) {
        for _ in 0..NAPS_WHILE_FULL {
            if !self.paces || self.hints.stop.load(Ordering::Relaxed) {
                return;
            }
            std::thread::sleep(NAP);
        }
    }

    /// The name goes, durably, before the file may get a new header: a segment's header never changes under it.
    fn recycle(&mut self, sequence: Sequence) -> io::Result<Dropped> {
        let ready = sequence.ready_name();
        if !self.ready_files.contains(&ready) {
            match self.disk.rename(&sequence.segment_name(), &ready) {
                // By an earlier attempt, after which the directory could not be synced.
                Err(error)
                    if error.kind() == io::ErrorKind::NotFound && self.has_full_size(&ready)? => {}
                renamed => renamed?,
            }
            self.disk.sync_directory()?;
            self.ready_files.push_back(ready);
        }
        let mut deleted = 0;
        // More than one if the limit was lowered, or a crash came between a rename and its removal.
        while self.ready_files.len() > self.ready_files_max {
            if let Some(surplus) = self.ready_files.front() {
                self.disk.remove(surplus)?;
                self.ready_files.pop_front();
                deleted += 1;
            }
        }
        if deleted > 0 {
            self.disk.sync_directory()?;
        }
        Ok(Dropped { deleted })
    }

    /// A recycled file of the right size with a readable header; others are removed.
    fn take_ready_file(&mut self) -> io::Result<Option<Source<D::File>>> {
        while let Some(name) = self.ready_files.front().cloned() {
            if self.has_full_size(&name)?
                && let Some(identity) = self.identity_of(&name)?
            {
                let file = self.disk.open(&name, OpenMode::Segment)?;
                self.ready_files.pop_front();
                return Ok(Some(Source {
                    name,
                    file,
                    identity,
                }));
            }
            self.disk.remove(&name)?;
            self.ready_files.pop_front();
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
        let file = match self.disk.open(name, OpenMode::CreateSegment) {
            // Of an attempt that could not be tidied up.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.disk.remove(name)?;
                self.disk.open(name, OpenMode::CreateSegment)?
            }
            opened => opened?,
        };
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
