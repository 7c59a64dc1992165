//! Writes and removes snapshot files. Everything here may block, so it runs beside the loop.

use std::io;
use std::time::Instant;

use synod_engine::ids::Slot;
use synod_engine::seams::{Origin, SnapshotInfo};

use super::file::Owner;
use super::format::{self, Footer, Header, add_to_seal, chunk_at, footer_at, seal_chunk};
use crate::buffer::AlignedBuffer;
use crate::disk::{Disk, OpenMode};
use crate::format::{PAGE, mix};

/// One name for all: at most one snapshot is being written, and a start removes what it finds under it.
pub const TEMPORARY: &str = "snap-new.tmp";

/// Which attempt at a snapshot a job belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attempt(pub u64);

pub enum Job {
    Begin(Attempt, Slot),
    /// The body's next bytes, at the place where they stand in a chunk.
    Chunk(Attempt, AlignedBuffer, usize),
    Finish {
        attempt: Attempt,
        checksum: u64,
        origin: Origin,
        /// Whether a complete one of the same slot is replaced.
        replaces: bool,
    },
    Abandon(Attempt),
    Remove(Vec<Slot>),
}

pub struct Outcome {
    pub attempt: Attempt,
    /// Of the body, done with, one way or the other.
    pub bytes: usize,
    /// To be filled again.
    pub buffer: Option<AlignedBuffer>,
    pub news: News,
}

pub enum News {
    Nothing,
    Durable(SnapshotInfo, Origin),
    /// Nothing of it is left, unless it had `replaced` one of its slot already.
    Failed {
        why: String,
        replaced: Option<(SnapshotInfo, Origin)>,
    },
    Removed {
        count: u64,
        /// These could not be removed.
        left: Vec<Slot>,
    },
}

pub struct Writer<D: Disk> {
    disk: D,
    owner: Owner,
    seed: u64,
    /// Whether it shares a real disk with the loop, and so leaves that idle half of the time.
    paces: bool,
    current: Option<Current<D::File>>,
}

/// The file that is being written.
struct Current<F> {
    attempt: Attempt,
    file: F,
    header: Header,
    chunks: u64,
    bytes: u64,
    seal: u32,
}

/// What went wrong, doing what.
struct Trouble {
    what: &'static str,
    error: io::Error,
}

fn during(what: &'static str) -> impl FnOnce(io::Error) -> Trouble {
    move |error| Trouble { what, error }
}

impl<D: Disk> Writer<D> {
    pub fn new(disk: D, owner: Owner, seed: u64, paces: bool) -> Writer<D> {
        Writer {
            disk,
            owner,
            seed,
            paces,
            current: None,
        }
    }

    pub fn run(&mut self, job: Job) -> Outcome {
        match job {
            Job::Begin(attempt, slot) => {
                let begun = self.begin(attempt, slot);
                self.outcome(attempt, begun)
            }
            Job::Chunk(attempt, mut buffer, bytes) => {
                let written = self.chunk(attempt, &mut buffer, bytes);
                Outcome {
                    bytes,
                    buffer: Some(buffer),
                    ..self.outcome(attempt, written)
                }
            }
            Job::Finish {
                attempt,
                checksum,
                origin,
                replaces,
            } => {
                let news = self.finish(attempt, (checksum, origin), replaces);
                outcome(attempt, news)
            }
            Job::Abandon(attempt) => {
                if self.is_current(attempt) {
                    self.give_up();
                }
                outcome(attempt, News::Nothing)
            }
            Job::Remove(slots) => outcome(Attempt(0), self.remove(slots)),
        }
    }

    fn is_current(&self, attempt: Attempt) -> bool {
        self.current
            .as_ref()
            .is_some_and(|current| current.attempt == attempt)
    }

    /// A step that failed ends the attempt: nothing was promised of it, so unlike the WAL the replica goes on.
    fn outcome(&mut self, attempt: Attempt, done: Result<(), Trouble>) -> Outcome {
        let news = match done {
            Ok(()) => News::Nothing,
            Err(trouble) => {
                self.give_up();
                self.failed(trouble, None)
            }
        };
        outcome(attempt, news)
    }

    fn failed(&self, trouble: Trouble, replaced: Option<(SnapshotInfo, Origin)>) -> News {
        let path = self.disk.path(TEMPORARY);
        let why = format!("{} {}: {}", trouble.what, path.display(), trouble.error);
        News::Failed { why, replaced }
    }

    fn begin(&mut self, attempt: Attempt, slot: Slot) -> Result<(), Trouble> {
        assert!(self.current.is_none(), "two snapshots are written at once");
        let file = match self.disk.open(TEMPORARY, OpenMode::CreateSegment) {
            // One that could not be removed.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => self
                .disk
                .remove(TEMPORARY)
                .and_then(|()| self.disk.open(TEMPORARY, OpenMode::CreateSegment)),
            opened => opened,
        };
        let file = file.map_err(during("making"))?;
        let header = Header {
            cluster: self.owner.cluster,
            replica: self.owner.replica,
            slot,
            nonce: mix(mix(self.seed, attempt.0), slot.0),
        };
        let mut page = AlignedBuffer::new(PAGE);
        header.encode(page.as_mut_slice());
        let written = self.disk.write_at(&file, 0, page.as_ref());
        self.current = Some(Current {
            attempt,
            file,
            header,
            chunks: 0,
            bytes: 0,
            seal: 0,
        });
        written.map_err(during("writing"))
    }

    fn chunk(
        &mut self,
        attempt: Attempt,
        buffer: &mut AlignedBuffer,
        bytes: usize,
    ) -> Result<(), Trouble> {
        let Some(current) = self.current.as_mut().filter(|c| c.attempt == attempt) else {
            return Ok(());
        };
        let started = Instant::now();
        let number = current.chunks;
        let memory = buffer.as_mut_slice();
        let (total, crc) = seal_chunk(memory, current.header.nonce, number, bytes);
        self.disk
            .write_at(&current.file, chunk_at(number), &memory[..total])
            .map_err(during("writing"))?;
        current.chunks += 1;
        current.bytes += bytes as u64;
        current.seal = add_to_seal(current.seal, crc);
        if self.paces {
            std::thread::sleep(started.elapsed());
        }
        Ok(())
    }

    /// The name comes when all is durable, and the answer when the name is.
    fn finish(
        &mut self,
        attempt: Attempt,
        (checksum, origin): (u64, Origin),
        replaces: bool,
    ) -> News {
        if !self.is_current(attempt) {
            return News::Nothing;
        }
        let Some(current) = self.current.take() else {
            return News::Nothing;
        };
        let footer = Footer {
            bytes: current.bytes,
            checksum,
            seal: current.seal,
            origin,
        };
        let slot = current.header.slot;
        let name = format::name(slot);
        let mut page = AlignedBuffer::new(PAGE);
        footer.encode(&current.header, page.as_mut_slice());
        let at = footer_at(current.bytes);
        let written = self
            .disk
            .write_at(&current.file, at, page.as_ref())
            .map_err(during("writing"))
            .and_then(|()| self.disk.sync(&current.file).map_err(during("syncing")))
            .and_then(|()| {
                self.disk
                    .rename(TEMPORARY, &name)
                    .map_err(during("renaming"))
            });
        if let Err(trouble) = written {
            self.remove_temporary();
            return self.failed(trouble, None);
        }
        match self.disk.sync_directory() {
            Ok(()) => News::Durable(footer.info(slot), origin),
            Err(error) => {
                // The old one is gone, and this one is as good, whichever of them a crash leaves.
                let replaced = replaces.then(|| (footer.info(slot), origin));
                if !replaces {
                    let _ = self.disk.remove(&name);
                }
                self.failed(during("syncing the directory of")(error), replaced)
            }
        }
    }

    fn give_up(&mut self) {
        self.current = None;
        self.remove_temporary();
    }

    /// What can't be removed is tried again by the next attempt, and by the next start.
    fn remove_temporary(&self) {
        let _ = self.disk.remove(TEMPORARY);
    }

    fn remove(&self, slots: Vec<Slot>) -> News {
        let mut count = 0;
        let mut left = Vec::new();
        for slot in slots {
            match self.disk.remove(&format::name(slot)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => left.push(slot),
                Ok(()) | Err(_) => count += 1,
            }
        }
        // No sync: one that comes back after a crash is as good as it was, and gets removed again.
        News::Removed { count, left }
    }
}

fn outcome(attempt: Attempt, news: News) -> Outcome {
    Outcome {
        attempt,
        bytes: 0,
        buffer: None,
        news,
    }
}
