//! Real files, through the writer that was chosen at open.

use std::fs::File;
use std::io;
use std::sync::Arc;

use super::{Backend, BlockingWriter, GroupWrite, Retries, UringWriter, Written};
use crate::buffer::AlignedBuffer;
use crate::disk::RealDisk;
use crate::signal::Signal;

pub struct FileBackend {
    disk: RealDisk,
    signal: Signal,
    writer: Writer,
}

pub enum Writer {
    Uring(Box<UringWriter>),
    Blocking(BlockingWriter),
}

impl FileBackend {
    pub fn new(disk: RealDisk, signal: Signal, writer: Writer) -> FileBackend {
        FileBackend {
            disk,
            signal,
            writer,
        }
    }
}

impl Backend for FileBackend {
    type Disk = RealDisk;

    fn disk(&self) -> &RealDisk {
        &self.disk
    }

    fn signal(&self) -> Option<Signal> {
        Some(self.signal.clone())
    }

    fn take_buffer(&mut self) -> Option<AlignedBuffer> {
        match &mut self.writer {
            Writer::Uring(uring) => uring.take_buffer(),
            Writer::Blocking(blocking) => blocking.take_buffer(),
        }
    }

    fn start_write(&mut self, write: GroupWrite<Arc<File>>) {
        match &mut self.writer {
            Writer::Uring(uring) => uring.start_write(write),
            Writer::Blocking(blocking) => blocking.start_write(write),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.writer {
            Writer::Uring(uring) => uring.flush(),
            // Each write went to the thread at once.
            Writer::Blocking(_) => Ok(()),
        }
    }

    fn take_written(&mut self) -> Option<Written> {
        match &mut self.writer {
            Writer::Uring(uring) => uring.take_written(),
            Writer::Blocking(blocking) => blocking.take_written(),
        }
    }

    fn retries(&self) -> Retries {
        match &self.writer {
            Writer::Uring(uring) => uring.retries(),
            Writer::Blocking(blocking) => blocking.retries(),
        }
    }
}
