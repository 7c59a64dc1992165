//! The backend of real files that was chosen at open.

use std::fs::File;
use std::io;
use std::sync::Arc;

use super::{Backend, BlockingBackend, GroupWrite, UringBackend, Written};
use crate::buffer::AlignedBuffer;
use crate::disk::RealDisk;
use crate::signal::Signal;

pub enum FileBackend {
    Uring(Box<UringBackend>),
    Blocking(BlockingBackend),
}

impl Backend for FileBackend {
    type Disk = RealDisk;

    fn disk(&self) -> &RealDisk {
        match self {
            FileBackend::Uring(uring) => uring.disk(),
            FileBackend::Blocking(blocking) => blocking.disk(),
        }
    }

    fn signal(&self) -> Option<Signal> {
        match self {
            FileBackend::Uring(uring) => uring.signal(),
            FileBackend::Blocking(blocking) => blocking.signal(),
        }
    }

    fn take_buffer(&mut self) -> Option<AlignedBuffer> {
        match self {
            FileBackend::Uring(uring) => uring.take_buffer(),
            FileBackend::Blocking(blocking) => blocking.take_buffer(),
        }
    }

    fn start_write(&mut self, write: GroupWrite<Arc<File>>) {
        match self {
            FileBackend::Uring(uring) => uring.start_write(write),
            FileBackend::Blocking(blocking) => blocking.start_write(write),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            FileBackend::Uring(uring) => uring.flush(),
            FileBackend::Blocking(blocking) => blocking.flush(),
        }
    }

    fn take_written(&mut self) -> Option<Written> {
        match self {
            FileBackend::Uring(uring) => uring.take_written(),
            FileBackend::Blocking(blocking) => blocking.take_written(),
        }
    }
}
