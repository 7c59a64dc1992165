//! A deterministic disk in memory for tests and the simulator: sectors, directory, syncs, crashes and faults.
//!
//! Reads see what was written; a crash keeps what was synced, and of the rest whatever the caller chooses, sector by
//! sector and name by name.

mod disk;

use std::collections::VecDeque;
use std::io;

use synod_engine::ids::Slot;

use super::retries::{Retries, is_full};
use super::{Backend, GroupWrite, Written};
use crate::buffer::AlignedBuffer;
use crate::config::Options;
use crate::directory::{check_identity, clear_temporary};
use crate::error::OpenError;
use crate::recovery::Replayed;
use crate::signal::Signal;
use crate::wal::{Opened, WalCore, group_bytes_max};

pub use disk::{Fault, MemoryDisk, MemoryFile};

/// The backend over a [`MemoryDisk`]: writes end at once, or when the test says so.
pub struct MemoryBackend {
    disk: MemoryDisk,
    buffers: Vec<AlignedBuffer>,
    under_way: VecDeque<GroupWrite<MemoryFile>>,
    written: VecDeque<Written>,
    /// Writes stay under way until [`MemoryBackend::complete`].
    holds: bool,
    retries: Retries,
    /// Those of the writes under way that found no room.
    waiting: Vec<u64>,
}

impl MemoryBackend {
    pub fn new(disk: MemoryDisk, group_bytes: usize, writes_max: usize) -> MemoryBackend {
        MemoryBackend {
            disk,
            buffers: (0..writes_max)
                .map(|_| AlignedBuffer::new(group_bytes))
                .collect(),
            under_way: VecDeque::new(),
            written: VecDeque::new(),
            holds: false,
            retries: Retries::default(),
            waiting: Vec::new(),
        }
    }

    /// Opens the WAL of an initialised memory disk, as [`crate::open`] does with files.
    pub fn open(
        disk: &MemoryDisk,
        options: Options,
        visit: &mut dyn FnMut(Replayed),
    ) -> Result<(WalCore<MemoryBackend>, Opened), OpenError> {
        MemoryBackend::open_above(disk, options, Slot::ZERO, visit)
    }

    /// The same with a snapshot, as [`crate::DataDirectory::open_wal`] does.
    pub fn open_above(
        disk: &MemoryDisk,
        options: Options,
        covers: Slot,
        visit: &mut dyn FnMut(Replayed),
    ) -> Result<(WalCore<MemoryBackend>, Opened), OpenError> {
        options.check();
        let identity = check_identity(disk, options.cluster, options.replica)?;
        clear_temporary(disk)?;
        let group_bytes = group_bytes_max(identity.segment_bytes);
        let backend = MemoryBackend::new(disk.clone(), group_bytes, options.writes_in_flight_max);
        WalCore::open(backend, options, &identity, covers, visit)
    }

    /// From now on writes end only by [`MemoryBackend::complete`].
    pub fn hold(&mut self) {
        self.holds = true;
    }

    pub fn under_way(&self) -> usize {
        self.under_way.len()
    }

    /// Of the `i`-th write under way.
    pub fn bytes_under_way(&self, i: usize) -> usize {
        self.under_way.get(i).map_or(0, |write| write.bytes)
    }

    /// Ends the `i`-th write under way: its sectors are durable, unless the disk fails it. One that finds no room stays
    /// under way, in its place.
    pub fn complete(&mut self, i: usize) {
        let write = &self.under_way[i];
        let ticket = write.ticket;
        let outcome = self.disk.finish_group(&write.file, ticket);
        let mut waits = self.waiting.contains(&ticket);
        self.waiting.retain(|other| *other != ticket);
        if outcome.as_ref().is_err_and(is_full) {
            self.retries.note_full(&mut waits);
            self.waiting.push(ticket);
            return;
        }
        self.retries.note_room(&mut waits);
        let write = self.under_way.remove(i);
        let write = write.expect("no such write is under way");
        self.written.push_back(Written {
            ticket: write.ticket,
            outcome,
        });
        self.buffers.push(write.buffer);
    }
}

impl Backend for MemoryBackend {
    type Disk = MemoryDisk;

    fn disk(&self) -> &MemoryDisk {
        &self.disk
    }

    fn signal(&self) -> Option<Signal> {
        None
    }

    fn take_buffer(&mut self) -> Option<AlignedBuffer> {
        self.buffers.pop()
    }

    fn start_write(&mut self, write: GroupWrite<MemoryFile>) {
        let bytes = &write.buffer.as_ref()[..write.bytes];
        self.disk
            .start_group(&write.file, write.ticket, write.offset, bytes);
        self.under_way.push_back(write);
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.holds {
            let mut at = 0;
            for _ in 0..self.under_way.len() {
                let before = self.under_way.len();
                self.complete(at);
                // What found no room is tried again by the next call.
                at += usize::from(self.under_way.len() == before);
            }
        }
        Ok(())
    }

    fn retries(&self) -> Retries {
        self.retries.clone()
    }

    fn take_written(&mut self) -> Option<Written> {
        self.written.pop_front()
    }
}
