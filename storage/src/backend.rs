//! Where groups go. Everything below this line may fail, tear or lie.

mod blocking;
mod completion;
mod file;
pub mod memory;
pub mod retries;
mod uring;

use std::io;

use crate::buffer::AlignedBuffer;
use crate::disk::Disk;
use crate::signal::Signal;

pub use blocking::BlockingWriter;
pub use file::{FileBackend, Writer};
pub use memory::{Fault, MemoryBackend, MemoryDisk};
pub use retries::Retries;
pub use uring::UringWriter;

/// One group on its way to the disk.
pub struct GroupWrite<F> {
    /// Given back with the outcome; the caller numbers its writes.
    pub ticket: u64,
    pub file: F,
    pub offset: u64,
    pub buffer: AlignedBuffer,
    /// How much of the buffer is to be written, in whole pages.
    pub bytes: usize,
}

/// A write that ended: on success the group is durable.
pub struct Written {
    pub ticket: u64,
    pub outcome: io::Result<()>,
}

/// Durable writes beside the loop. No call blocks.
pub trait Backend: Send {
    type Disk: Disk;

    fn disk(&self) -> &Self::Disk;

    /// What the threads beside the loop raise; without one there are no threads, and everything happens in place.
    fn signal(&self) -> Option<Signal>;

    /// An empty buffer, if fewer than the agreed number of writes are under way.
    fn take_buffer(&mut self) -> Option<AlignedBuffer>;

    /// Queues a write; it may not move before [`Backend::flush`].
    fn start_write(&mut self, write: GroupWrite<<Self::Disk as Disk>::File>);

    /// Hands on what is queued, and tries again what waits for that. Called in every turn.
    fn flush(&mut self) -> io::Result<()>;

    /// The next write that ended, in any order. Its buffer is free again.
    fn take_written(&mut self) -> Option<Written>;

    /// What is tried again meanwhile, or was.
    fn retries(&self) -> Retries;
}
