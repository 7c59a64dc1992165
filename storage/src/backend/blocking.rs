//! The portable way: a thread with pwrite and one fdatasync for everything that waited.

use std::fs::File;
use std::io;
use std::sync::Arc;

use super::{GroupWrite, Written};
use crate::buffer::AlignedBuffer;
use crate::disk::{Disk, RealDisk};
use crate::signal::Signal;
use crate::worker::Worker;

type Write = GroupWrite<Arc<File>>;

pub struct BlockingWriter {
    buffers: Vec<AlignedBuffer>,
    worker: Worker<Write, (Written, AlignedBuffer)>,
}

impl BlockingWriter {
    pub fn new(
        disk: RealDisk,
        signal: Signal,
        group_bytes: usize,
        writes_max: usize,
    ) -> io::Result<BlockingWriter> {
        let mut failed = false;
        let work = move |batch: &mut Vec<Write>, done: &mut dyn FnMut((Written, AlignedBuffer))| {
            write_batch(&disk, batch, &mut failed, done);
        };
        Ok(BlockingWriter {
            worker: Worker::new("wal-writer", writes_max, Some(signal), Box::new(work))?,
            buffers: (0..writes_max)
                .map(|_| AlignedBuffer::new(group_bytes))
                .collect(),
        })
    }
}

/// Writes every group that waits and makes them durable together. Once anything failed, nothing is written or
/// synced again: the kernel may have dropped the pages, and a later sync would "succeed" without them.
fn write_batch(
    disk: &RealDisk,
    batch: &mut Vec<Write>,
    failed: &mut bool,
    done: &mut dyn FnMut((Written, AlignedBuffer)),
) {
    let mut outcome = if *failed {
        Err(io::Error::other("an earlier write failed"))
    } else {
        Ok(())
    };
    for (i, write) in batch.iter().enumerate() {
        let bytes = &write.buffer.as_ref()[..write.bytes];
        let last_of_file = batch
            .get(i + 1)
            .is_none_or(|next| !Arc::ptr_eq(&next.file, &write.file));
        outcome = outcome.and_then(|()| disk.write_at(&write.file, write.offset, bytes));
        if last_of_file {
            outcome = outcome.and_then(|()| disk.sync(&write.file));
        }
    }
    *failed |= outcome.is_err();
    for write in batch.drain(..) {
        let outcome = match &outcome {
            Ok(()) => Ok(()),
            Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
        };
        let ticket = write.ticket;
        done((Written { ticket, outcome }, write.buffer));
    }
}

impl BlockingWriter {
    pub fn take_buffer(&mut self) -> Option<AlignedBuffer> {
        self.buffers.pop()
    }

    pub fn start_write(&mut self, write: Write) {
        self.worker.start(write);
    }

    pub fn take_written(&mut self) -> Option<Written> {
        let (written, buffer) = self.worker.take()?;
        self.buffers.push(buffer);
        Some(written)
    }
}
