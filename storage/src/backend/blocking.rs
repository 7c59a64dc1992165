//! The portable way: a thread with pwrite and one fdatasync for everything that waited.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::retries::{FULL_PAUSE, Retries, TRANSIENT_MAX, TRANSIENT_PAUSE, is_full, is_transient};
use super::{GroupWrite, Written};
use crate::buffer::AlignedBuffer;
use crate::disk::{Disk, RealDisk};
use crate::signal::Signal;
use crate::worker::Worker;

pub struct BlockingWriter {
    buffers: Vec<AlignedBuffer>,
    worker: Worker<GroupWrite<Arc<File>>, (Written, AlignedBuffer)>,
    retries: Retries,
    stop: Arc<AtomicBool>,
}

impl BlockingWriter {
    pub fn new(
        disk: RealDisk,
        signal: Signal,
        group_bytes: usize,
        writes_max: usize,
    ) -> io::Result<BlockingWriter> {
        let retries = Retries::default();
        let stop = Arc::new(AtomicBool::new(false));
        let told = signal.clone();
        let mut batches = Batches {
            disk,
            failed: false,
            retries: retries.clone(),
            stop: stop.clone(),
            tell: Box::new(move || told.notify()),
        };
        let work = move |batch: &mut Vec<_>, done: &mut dyn FnMut(_)| batches.write(batch, done);
        Ok(BlockingWriter {
            worker: Worker::new("wal-writer", writes_max, Some(signal), Box::new(work))?,
            buffers: (0..writes_max)
                .map(|_| AlignedBuffer::new(group_bytes))
                .collect(),
            retries,
            stop,
        })
    }

    pub fn retries(&self) -> Retries {
        self.retries.clone()
    }

    pub fn take_buffer(&mut self) -> Option<AlignedBuffer> {
        self.buffers.pop()
    }

    pub fn start_write(&mut self, write: GroupWrite<Arc<File>>) {
        self.worker.start(write);
    }

    pub fn take_written(&mut self) -> Option<Written> {
        let (written, buffer) = self.worker.take()?;
        self.buffers.push(buffer);
        Some(written)
    }
}

impl Drop for BlockingWriter {
    /// The thread may wait for room, and is waited for.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// What the thread does.
struct Batches<D> {
    disk: D,
    failed: bool,
    retries: Retries,
    stop: Arc<AtomicBool>,
    /// Wakes the loop while a batch waits, so that somebody is told.
    tell: Box<dyn Fn() + Send>,
}

impl<D: Disk> Batches<D> {
    /// Writes every group that waits and makes them durable together. Once anything failed, nothing is written or
    /// synced again: the kernel may have dropped the pages, and a later sync would "succeed" without them.
    fn write(
        &mut self,
        batch: &mut Vec<GroupWrite<D::File>>,
        done: &mut dyn FnMut((Written, AlignedBuffer)),
    ) where
        D::File: SameFile,
    {
        let outcome = match self.failed {
            true => Err(io::Error::other("an earlier write failed")),
            false => self.until_durable(batch),
        };
        self.failed |= outcome.is_err();
        for write in batch.drain(..) {
            let outcome = match &outcome {
                Ok(()) => Ok(()),
                Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
            };
            let ticket = write.ticket;
            done((Written { ticket, outcome }, write.buffer));
        }
    }

    /// A sync that found no room may have dropped pages as well. But whatever is not durable yet is in this batch and
    /// its buffers, so writing all of it again, and then syncing, proves what the first sync would have proved.
    fn until_durable(&self, batch: &[GroupWrite<D::File>]) -> io::Result<()>
    where
        D::File: SameFile,
    {
        let started = Instant::now();
        let mut waits = false;
        loop {
            let pause = match self.attempt(batch) {
                Err(error) if is_full(&error) => {
                    self.retries.note_full(&mut waits);
                    (self.tell)();
                    FULL_PAUSE
                }
                Err(error) if is_transient(&error) && started.elapsed() < TRANSIENT_MAX => {
                    self.retries.note_transient();
                    TRANSIENT_PAUSE
                }
                Ok(()) => {
                    self.retries.note_room(&mut waits);
                    return Ok(());
                }
                Err(error) => return Err(error),
            };
            self.rest(pause)?;
        }
    }

    fn attempt(&self, batch: &[GroupWrite<D::File>]) -> io::Result<()>
    where
        D::File: SameFile,
    {
        for (i, write) in batch.iter().enumerate() {
            let bytes = &write.buffer.as_ref()[..write.bytes];
            self.disk.write_at(&write.file, write.offset, bytes)?;
            let next = batch.get(i + 1);
            if next.is_none_or(|next| !next.file.is_same(&write.file)) {
                self.disk.sync(&write.file)?;
            }
        }
        Ok(())
    }

    /// In naps, so that a closing WAL waits for one only.
    fn rest(&self, pause: Duration) -> io::Result<()> {
        let until = Instant::now() + pause;
        while Instant::now() < until {
            if self.stop.load(Ordering::Relaxed) {
                return Err(io::Error::other("the WAL was closed meanwhile"));
            }
            std::thread::sleep(TRANSIENT_PAUSE);
        }
        Ok(())
    }
}

/// Whether a sync of one is a sync of the other.
trait SameFile {
    fn is_same(&self, other: &Self) -> bool;
}

impl SameFile for Arc<File> {
    fn is_same(&self, other: &Arc<File>) -> bool {
        Arc::ptr_eq(self, other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::memory::{Fault, MemoryDisk, MemoryFile};
    use crate::disk::OpenMode;

    impl SameFile for MemoryFile {
        fn is_same(&self, other: &MemoryFile) -> bool {
            self == other
        }
    }

    /// Writes two groups, whose calls meet these faults; what came of each, and the counts.
    fn written(faults: &[Fault]) -> (MemoryDisk, Vec<bool>, Retries) {
        let disk = MemoryDisk::new();
        let file = disk.open("segment", OpenMode::CreateSegment).unwrap();
        disk.sync_directory().unwrap();
        let retries = Retries::default();
        let mut batches = Batches {
            disk: disk.clone(),
            failed: false,
            retries: retries.clone(),
            stop: Arc::default(),
            tell: Box::new(|| {}),
        };
        let group = |ticket: u64| {
            let mut buffer = AlignedBuffer::new(4096);
            buffer.as_mut_slice().fill(ticket as u8);
            GroupWrite {
                ticket,
                file,
                offset: ticket * 4096,
                buffer,
                bytes: 4096,
            }
        };
        disk.inject(faults);
        let mut outcomes = Vec::new();
        for batch in [vec![group(0), group(1)], vec![group(2)]] {
            let mut batch = batch;
            batches.write(&mut batch, &mut |(written, _)| {
                outcomes.push(written.outcome.is_ok());
            });
        }
        (disk, outcomes, retries)
    }

    #[test]
    fn missing_room_is_waited_for_and_then_everything_is_written_again() {
        // The calls of the first batch are two writes and a sync.
        for call in 0..3 {
            let mut faults = vec![Fault::None; call];
            faults.extend([Fault::Full, Fault::Full]);
            let (disk, outcomes, retries) = written(&faults);
            assert_eq!(outcomes, [true; 3], "call {call}");
            assert_eq!(retries.full_tries(), 2);
            assert!(!retries.is_full());
            let after_crash = disk.crash(|_| false, |_| false);
            let found = after_crash.contents("segment");
            assert!((0..3).all(|i| found[i * 4096..][..4096] == [i as u8; 4096]));
        }
    }

    #[test]
    fn anything_else_is_final() {
        for call in 0..3 {
            let mut faults = vec![Fault::None; call];
            faults.push(Fault::Io);
            let (_, outcomes, retries) = written(&faults);
            assert_eq!(outcomes, [false; 3], "call {call}");
            assert_eq!(retries.full_tries(), 0);
        }
    }
}
