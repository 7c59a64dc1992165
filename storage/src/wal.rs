//! The WAL beside the loop: group commit, contiguous durability, segments, reads. Generic over the backend, so that
//! production, tests and simulator run the same code.

mod opening;

use std::collections::VecDeque;
use std::io;

use synod_engine::ids::{Ballot, Lsn, Slot};
use synod_engine::message::{Accept, Record, Value};
use synod_engine::seams::{Wal, WalFailed, WalRead};

use crate::backend::{Backend, GroupWrite, Retries};
use crate::config::{
    GROUP_BYTES_MAX, IN_FLIGHT_BYTES_MAX, READ_RUNS_MAX, READ_SLOTS_MAX, READS_IN_FLIGHT_MAX,
    RECORD_BYTES_MAX,
};
use crate::disk::Disk;
use crate::format::{GROUPS_AT, PAGE, Sequence};
use crate::group::{self, Carried, GroupHeader};
use crate::index::{Index, Location, Run, gather};
use crate::notes::Notes;
use crate::reader::{ReadDone, ReadJob};
use crate::record;
use crate::segments::Segments;
use crate::worker::Worker;

pub use opening::Opened;

pub struct WalCore<B: Backend> {
    backend: B,
    group_bytes_max: usize,
    writes_in_flight_max: usize,
    pending_bytes_max: usize,

    /// Appended and not yet sealed.
    pending: VecDeque<Record>,
    pending_bytes: usize,
    /// `durable ≤ sealed ≤ appended`, asserted after each move.
    appended: Lsn,
    sealed: Lsn,
    durable: Lsn,
    /// What the sealed records established.
    carried: Carried,

    /// In the order of their records; a finished one leaves only from the front.
    in_flight: VecDeque<InFlight>,
    in_flight_bytes: usize,
    next_ticket: u64,

    segments: Segments<B::Disk>,
    /// The segment that holds the newest durable group: what it carries makes older ones dispensable.
    durable_sequence: Sequence,
    durable_floor: Slot,
    wanted_floor: Slot,

    index: Index,
    reader: Worker<ReadJob, ReadDone>,
    reads_in_flight: usize,
    /// Finished reads that were not taken yet.
    read: VecDeque<ReadDone>,

    failed: Option<WalFailed>,
    /// What the backend tries again.
    retries: Retries,
    /// A write waits for room, and the operator was told.
    full: bool,
    notes: Notes,
    counts: Counts,
}

/// One group that was handed to the backend.
struct InFlight {
    ticket: u64,
    last: Lsn,
    bytes: usize,
    done: bool,
    sequence: Sequence,
    offset: u64,
    /// What the WAL establishes once this group is durable.
    carried: Carried,
    runs: Vec<Run>,
}

#[derive(Default)]
struct Counts {
    groups: u64,
    syncs: u64,
    records: u64,
    bytes: u64,
    waits_for_depth: u64,
    reads: u64,
    reads_refused: u64,
    reads_damaged: u64,
    pending_bytes_peak: u64,
}

impl<B: Backend> WalCore<B> {
    /// For tests and simulators, which decide what the disk does.
    pub fn backend_mut(&mut self) -> &mut B {
        &mut self.backend
    }

    /// What an operator should hear of while the WAL runs. A handle: it stays valid when the WAL is moved.
    pub fn notes(&self) -> Notes {
        self.notes.clone()
    }

    /// Starts groups as long as something waits and the depth allows it.
    fn pump(&mut self) {
        while !self.pending.is_empty() && self.failed.is_none() {
            let deep = self.in_flight.len() >= self.writes_in_flight_max
                || self.in_flight_bytes >= IN_FLIGHT_BYTES_MAX;
            if deep {
                self.counts.waits_for_depth += 1;
                break;
            }
            if !self.has_room() {
                // Only when all before is durable may a segment begin: that is how recovery knows that a segment
                // with a successor is complete.
                if !self.in_flight.is_empty() || !self.segments.begin(self.carried.slot_max) {
                    break;
                }
            }
            if !self.start_group() {
                break;
            }
        }
        // In every turn, for a write may wait to be tried again.
        if self.failed.is_none()
            && let Err(error) = self.backend.flush()
        {
            self.fail_at("submitting a write to", &error);
        }
    }

    /// Whether the active segment can take the next record.
    fn has_room(&self) -> bool {
        let next = self.pending.front().map_or(0, record::encoded_bytes);
        group::bytes_for(next) as u64 <= self.segments.room()
    }

    /// Seals the next group and hands it to the backend. False if no buffer is free.
    fn start_group(&mut self) -> bool {
        let Some(mut buffer) = self.backend.take_buffer() else {
            return false;
        };
        let room = (self.group_bytes_max as u64).min(self.segments.room());
        let room = group::capacity(room as usize);
        let (count, records_bytes) = fitting(&self.pending, room);
        let header = GroupHeader {
            bytes: group::bytes_for(records_bytes),
            records: count as u32,
            records_bytes,
            first: self.sealed.next(),
            durable: self.durable,
            preceding_end: self.segments.preceding_end(),
            carried: self.carried,
        };
        let mut runs = Vec::new();
        let active = self.segments.active_mut();
        let active = active.expect("a group without a segment");
        let (carried, offset) = (&mut self.carried, active.position);
        let (sequence, identity) = (active.sequence, active.identity);
        let memory = &mut buffer.as_mut_slice()[..header.bytes];
        let records = self.pending.iter().take(count);
        group::build(memory, &header, identity, offset, records, |item, place| {
            carried.absorb(item);
            if let Some((slot, bytes)) = record::slot_of(item) {
                let location = Location {
                    sequence,
                    identity,
                    offset,
                    group_bytes: header.bytes as u32,
                    at: place.at as u32,
                };
                gather(&mut runs, slot, location, bytes);
            }
        });
        self.pending.drain(..count);
        self.pending_bytes -= records_bytes;
        self.sealed = Lsn(self.sealed.0 + count as u64);
        assert!(
            self.sealed <= self.appended,
            "more was sealed than appended"
        );
        let write = GroupWrite {
            ticket: self.next_ticket,
            file: active.file.clone(),
            offset,
            buffer,
            bytes: header.bytes,
        };
        self.note_started(&header, runs, sequence, offset);
        self.backend.start_write(write);
        true
    }

    fn note_started(
        &mut self,
        header: &GroupHeader,
        runs: Vec<Run>,
        sequence: Sequence,
        offset: u64,
    ) {
        self.segments
            .advance(header.bytes as u64, self.carried.slot_max);
        self.in_flight.push_back(InFlight {
            ticket: self.next_ticket,
            last: self.sealed,
            bytes: header.bytes,
            done: false,
            sequence,
            offset,
            carried: self.carried,
            runs,
        });
        self.in_flight_bytes += header.bytes;
        self.next_ticket += 1;
        self.counts.groups += 1;
        self.counts.records += u64::from(header.records);
        self.counts.bytes += header.bytes as u64;
    }

    /// Takes in what backend and keeper finished.
    fn collect(&mut self) {
        while let Some(written) = self.backend.take_written() {
            let at = self
                .in_flight
                .iter()
                .position(|group| group.ticket == written.ticket);
            let group = &mut self.in_flight[at.expect("a write that was never started")];
            match written.outcome {
                Ok(()) => {
                    assert!(!group.done, "a write ended twice");
                    group.done = true;
                    self.in_flight_bytes -= group.bytes;
                    self.counts.syncs += 1;
                }
                Err(error) => {
                    let name = group.sequence.segment_name();
                    let path = self.backend.disk().path(&name);
                    let (path, offset) = (path.display(), group.offset);
                    let what = format!(
                        "writing {} bytes to {path}, offset {offset}: {error}",
                        group.bytes
                    );
                    self.fail(what);
                }
            }
        }
        self.advance();
        self.note_room();
        if let Err(what) = self.segments.collect() {
            self.fail(what);
        }
    }

    /// Tells the operator when writes begin to wait for room, and when there is room again. Meanwhile the log stands
    /// still as on a disk that hangs.
    fn note_room(&mut self) {
        let full = self.retries.is_full();
        if full == self.full {
            return;
        }
        self.full = full;
        let group = self.in_flight.iter().find(|group| !group.done);
        let sequence = group.map_or(self.durable_sequence, |group| group.sequence);
        let path = self.backend.disk().path(&sequence.segment_name());
        let path = path.display();
        self.notes.add(match full {
            true => format!(
                "writing {path}: no space left on its disk, or in a quota; the log waits until there is room"
            ),
            false => format!("writing {path}: there is room again, the log goes on"),
        });
    }

    /// Only the contiguous front is durable: a group that overtook another one waits for it.
    fn advance(&mut self) {
        if self.failed.is_some() {
            return;
        }
        while self.in_flight.front().is_some_and(|group| group.done) {
            let Some(group) = self.in_flight.pop_front() else {
                break;
            };
            assert!(
                group.last > self.durable && group.last <= self.sealed,
                "durable moves out of order"
            );
            self.durable = group.last;
            self.durable_sequence = group.sequence;
            self.durable_floor = group.carried.trim_floor;
            group
                .runs
                .into_iter()
                .for_each(|run| self.index.insert(run));
        }
    }

    /// Takes in what the reader finished.
    fn collect_read(&mut self) {
        while let Some(done) = self.reader.take() {
            self.read.push_back(done);
        }
    }

    /// Drops the oldest segments whose slots all lie below the wanted floor, as far as that floor is durable.
    fn recycle(&mut self) {
        let floor = self.wanted_floor.min(self.durable_floor);
        if self.failed.is_none() && self.segments.recycle(floor, self.durable_sequence) {
            self.index.forget_below(floor);
        }
        self.index.forget_some();
    }

    fn fail_at(&mut self, what: &str, error: &io::Error) {
        let sequence = self.segments.active_sequence();
        let path = self.backend.disk().path(&sequence.segment_name());
        self.fail(format!("{what} {}: {error}", path.display()));
    }

    /// For good: what comes later proves nothing about what was lost.
    fn fail(&mut self, what: String) {
        self.failed.get_or_insert(WalFailed(what));
    }
}

impl<B: Backend> Wal for WalCore<B> {
    fn append(&mut self, lsn: Lsn, record: &Record) {
        let bytes = record::encoded_bytes(record);
        assert!(
            lsn == self.appended.next(),
            "{lsn:?} appended behind {:?}",
            self.appended
        );
        assert!(
            bytes <= RECORD_BYTES_MAX.min(group::capacity(self.group_bytes_max)),
            "a record of {bytes} bytes is over the limit"
        );
        self.appended = lsn;
        self.pending_bytes += bytes;
        assert!(
            self.pending_bytes <= self.pending_bytes_max,
            "{} bytes wait for the disk, the engine's windows allow {}",
            self.pending_bytes,
            self.pending_bytes_max
        );
        let pending = self.pending_bytes as u64;
        self.counts.pending_bytes_peak = self.counts.pending_bytes_peak.max(pending);
        self.pending.push_back(record.clone());
    }

    fn pending_bytes_max(&self) -> usize {
        self.pending_bytes_max
    }

    fn submit(&mut self) {
        self.pump();
    }

    fn durable(&mut self) -> Result<Lsn, WalFailed> {
        self.collect();
        self.collect_read();
        self.pump();
        self.recycle();
        match &self.failed {
            Some(failed) => Err(failed.clone()),
            None => Ok(self.durable),
        }
    }

    fn read(&mut self, from: Slot, through: Slot, bytes_max: usize) -> bool {
        if self.reads_in_flight >= READS_IN_FLIGHT_MAX {
            self.counts.reads_refused += 1;
            return false;
        }
        let runs = self.index.find(from, through, READ_RUNS_MAX, bytes_max);
        self.reads_in_flight += 1;
        self.counts.reads += 1;
        self.reader.start(ReadJob {
            from,
            runs,
            slots_max: READ_SLOTS_MAX,
            bytes_max,
        });
        true
    }

    fn take_read(&mut self) -> Result<Option<WalRead>, WalFailed> {
        if let Some(failed) = &self.failed {
            return Err(failed.clone());
        }
        self.collect_read();
        let Some(done) = self.read.pop_front() else {
            return Ok(None);
        };
        self.reads_in_flight -= 1;
        if let Some(damage) = done.damage {
            self.counts.reads_damaged += 1;
            self.notes.add(damage);
        }
        Ok(Some(done.read))
    }

    fn trim(&mut self, floor: Slot) {
        self.wanted_floor = self.wanted_floor.max(floor);
        self.recycle();
    }

    fn counters(&self, report: &mut dyn FnMut(&'static str, u64)) {
        let counts = &self.counts;
        report("wal_syncs", counts.syncs);
        report("wal_groups", counts.groups);
        report("wal_records", counts.records);
        report("wal_bytes", counts.bytes);
        self.segments.counters(report);
        let full = self.segments.is_full() || self.full;
        report("wal_disk_full", u64::from(full));
        self.retries.counters(report);
        report("wal_waits_for_depth", counts.waits_for_depth);
        report("wal_reads", counts.reads);
        report("wal_reads_refused", counts.reads_refused);
        report("wal_reads_damaged", counts.reads_damaged);
        report("wal_writes_in_flight", self.in_flight.len() as u64);
        report("wal_bytes_in_flight", self.in_flight_bytes as u64);
        report("wal_pending_bytes", self.pending_bytes as u64);
        report("wal_pending_bytes_peak", counts.pending_bytes_peak);
        report("wal_index_slots", self.index.slots());
        report("wal_index_runs", self.index.runs() as u64);
        report("wal_appended_lsn", self.appended.0);
        report("wal_sealed_lsn", self.sealed.0);
        report("wal_durable_lsn", self.durable.0);
    }
}

/// The longest value that a segment of this size takes, in whatever record.
pub fn value_bytes_max(segment_bytes: u64) -> usize {
    let empty = Record::Accepted(Accept {
        ballot: Ballot::ZERO,
        slot: Slot::ZERO,
        commit_index: Slot::ZERO,
        value: Value::new(),
    });
    let room = RECORD_BYTES_MAX.min(group::capacity(group_bytes_max(segment_bytes)));
    room - record::encoded_bytes(&empty)
}

/// The largest group that a segment of this size takes.
pub fn group_bytes_max(segment_bytes: u64) -> usize {
    let room = (segment_bytes - GROUPS_AT).min(GROUP_BYTES_MAX as u64) as usize;
    room - room % PAGE
}

/// How many of the first records fit into `room` bytes, and what they take.
fn fitting(pending: &VecDeque<Record>, room: usize) -> (usize, usize) {
    let mut total = 0;
    for (count, record) in pending.iter().enumerate() {
        let bytes = record::encoded_bytes(record);
        if total + bytes > room {
            assert!(count > 0, "a record was given a group that cannot hold it");
            return (count, total);
        }
        total += bytes;
    }
    (pending.len(), total)
}

#[cfg(test)]
mod tests;
