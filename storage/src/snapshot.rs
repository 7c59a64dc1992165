//! The snapshots of one replica: written beside the loop, complete and checked or not there at all. The files are
//! drawn in [`format`].
//!
//! ```text
//!   begin, append, finish ─► chunks ─► writer (thread): temporary file, sync, rename, directory sync ─► Durable
//!   read ──────────────────────────► reader (thread): parts of a complete one, checked ──────────────► Read
//! ```
//! Unlike the WAL nothing here is final: of a snapshot nothing was promised before it is durable, so a full disk or a
//! failed sync costs the attempt and not the replica.

pub mod file;
pub mod format;
mod listing;
mod reader;
mod writer;

use std::collections::VecDeque;
use std::io;

use bytes::Bytes;
use synod_engine::ids::Slot;
use synod_engine::seams::{Origin, SnapshotEvent, SnapshotInfo, SnapshotStore};

use crate::buffer::AlignedBuffer;
use crate::config::{SNAPSHOT_BACKLOG_BYTES_MAX, SNAPSHOT_READ_BYTES_MAX, SNAPSHOT_READS_MAX};
use crate::disk::Disk;
use crate::error::OpenError;
use crate::notes::Notes;
use crate::signal::Signal;
use crate::worker::Worker;
use file::SnapshotFile;
pub use file::{Body, Owner, SnapshotError};
use format::{CHUNK_BODY, CHUNK_BYTES, CHUNK_HEAD};
pub use format::{PREFIX, slot_of_name};
pub use listing::{Listed, Refused, list};
use reader::{ReadDone, ReadJob, Reader};
use writer::{Attempt, Job, News, Outcome, Writer};

/// Jobs handed to the writer's thread at once; the rest waits here.
const WRITER_JOBS_MAX: usize = 32;
/// Chunk buffers kept for the next chunks.
const SPARE_BUFFERS_MAX: usize = 4;

pub struct Snapshots<D: Disk> {
    disk: D,
    owner: Owner,
    /// Oldest first.
    complete: Vec<SnapshotInfo>,
    /// Of those the ones that are ahead of the WAL.
    ahead: Vec<Slot>,
    /// Files of this replica that are of no use, to go with the next removal.
    waste: Vec<Slot>,
    writing: Option<Writing>,
    attempts: u64,
    /// For the writer, once it takes more.
    queued: VecDeque<Job>,
    writer: Worker<Job, Outcome>,
    writer_jobs: usize,
    spare: Vec<AlignedBuffer>,
    backlog: usize,
    reader: Worker<ReadJob, ReadDone>,
    /// Asked for and not yet taken.
    reads: usize,
    events: VecDeque<SnapshotEvent>,
    notes: Notes,
    counts: Counts,
}

/// The snapshot that is being appended to, or finished.
struct Writing {
    attempt: Attempt,
    slot: Slot,
    filling: AlignedBuffer,
    filled: usize,
    finishing: bool,
}

#[derive(Default)]
struct Counts {
    durable: u64,
    failed: u64,
    abandoned: u64,
    unreadable: u64,
    removed: u64,
    bytes_written: u64,
    backlog_peak: u64,
    reads: u64,
    reads_refused: u64,
}

impl<D: Disk> Snapshots<D> {
    /// Lists the snapshots of a directory. Those that can't be used get a line among the notes and stay where they are.
    /// Of the others header and footer are checked here, the rest when it is read. `seed` tells this opening from
    /// others. Without a signal there are no threads, and everything happens in place.
    pub fn open(
        disk: D,
        owner: Owner,
        seed: u64,
        signal: Option<Signal>,
    ) -> Result<Snapshots<D>, OpenError> {
        let threads = OpenError::io("starting the threads of", disk.path(""));
        let paces = signal.is_some();
        let (writer, reader) = workers(&disk, owner, seed, paces, signal).map_err(threads)?;
        let (complete, refused) = list(&disk, owner)?;
        let is_ahead = |(_, origin): &&(SnapshotInfo, Origin)| *origin == Origin::Ahead;
        let ahead = complete.iter().filter(is_ahead);
        let ahead = ahead.map(|(info, _)| info.slot).collect();
        let mut snapshots = Snapshots {
            disk,
            owner,
            complete: complete.into_iter().map(|(info, _)| info).collect(),
            ahead,
            waste: Vec::new(),
            writing: None,
            attempts: 0,
            queued: VecDeque::new(),
            writer,
            writer_jobs: 0,
            spare: Vec::new(),
            backlog: 0,
            reader,
            reads: 0,
            events: VecDeque::new(),
            notes: Notes::default(),
            counts: Counts::default(),
        };
        for (slot, error) in refused {
            snapshots.refuse(slot, &error);
            snapshots.notes.add(format!("{error}; it is not used"));
        }
        Ok(snapshots)
    }

    /// Lines for the operator: what can't be used, and what went wrong while the store runs. A handle.
    pub fn notes(&self) -> Notes {
        self.notes.clone()
    }

    /// Has the newest snapshot restored that is intact as a whole and that `attempt` can make use of, and says which.
    /// What `attempt` is given ends early where a file is damaged; its result counts only if the whole is intact.
    /// The others get a line each and are complete no more. Blocks: for the start, before the loop.
    pub fn restore<T>(
        &mut self,
        mut attempt: impl FnMut(&SnapshotInfo, &mut Body<D>) -> Result<T, String>,
    ) -> Option<(SnapshotInfo, T)> {
        while let Some(info) = self.complete.last().copied() {
            match self.restore_one(&info, &mut attempt) {
                Ok(restored) => return Some((info, restored)),
                Err(error) => {
                    self.refuse(info.slot, &error);
                    let next = match self.complete.last() {
                        Some(older) => format!("the one of slot {} is tried", older.slot.0),
                        None => "there is no other".to_string(),
                    };
                    self.notes.add(format!("{error}; {next}"));
                }
            }
        }
        None
    }

    fn restore_one<T>(
        &self,
        info: &SnapshotInfo,
        attempt: &mut impl FnMut(&SnapshotInfo, &mut Body<D>) -> Result<T, String>,
    ) -> Result<T, SnapshotError> {
        let mut body = Body::new(SnapshotFile::open(&self.disk, self.owner, info.slot)?);
        let restored = attempt(info, &mut body);
        // Damage explains a refusal better than the attempt can, and counts without one.
        body.finish()?;
        restored.map_err(|why| SnapshotError::Refused {
            path: self.disk.path(&format::name(info.slot)),
            why,
        })
    }

    fn refuse(&mut self, slot: Slot, error: &SnapshotError) {
        self.complete.retain(|info| info.slot != slot);
        self.counts.unreadable += 1;
        if error.is_waste() {
            self.waste.push(slot);
        }
    }

    /// Puts the one that was written in its place.
    fn add(&mut self, info: SnapshotInfo, origin: Origin) {
        self.ahead.retain(|slot| *slot != info.slot);
        if origin == Origin::Ahead {
            self.ahead.push(info.slot);
        }
        self.waste.retain(|slot| *slot != info.slot);
        self.complete.retain(|other| other.slot != info.slot);
        self.complete.push(info);
        self.complete.sort_by_key(|info| info.slot);
    }

    fn order(&mut self, job: Job) {
        self.queued.push_back(job);
        self.pump();
    }

    fn pump(&mut self) {
        while self.writer_jobs < WRITER_JOBS_MAX
            && let Some(job) = self.queued.pop_front()
        {
            self.writer_jobs += 1;
            self.writer.start(job);
        }
    }

    /// Hands a full chunk, or the last one, to the writer.
    fn send_chunk(&mut self) {
        let next = self.buffer();
        if let Some(writing) = &mut self.writing {
            let chunk = std::mem::replace(&mut writing.filling, next);
            let filled = std::mem::take(&mut writing.filled);
            let attempt = writing.attempt;
            self.order(Job::Chunk(attempt, chunk, filled));
        }
    }

    fn buffer(&mut self) -> AlignedBuffer {
        let spare = self.spare.pop();
        spare.unwrap_or_else(|| AlignedBuffer::new(CHUNK_BYTES))
    }

    fn collect(&mut self) {
        while let Some(outcome) = self.writer.take() {
            self.writer_jobs -= 1;
            self.take_outcome(outcome);
        }
        self.pump();
        while let Some(done) = self.reader.take() {
            self.take_read(done);
        }
    }

    fn take_outcome(&mut self, outcome: Outcome) {
        self.backlog -= outcome.bytes;
        self.counts.bytes_written += outcome.bytes as u64;
        if let Some(buffer) = outcome.buffer
            && self.spare.len() < SPARE_BUFFERS_MAX
        {
            self.spare.push(buffer);
        }
        match outcome.news {
            News::Nothing => {}
            News::Durable(info, origin) => {
                self.counts.durable += 1;
                self.add(info, origin);
                if self.ends(outcome.attempt).is_some() {
                    self.events.push_back(SnapshotEvent::Durable(info));
                }
            }
            News::Failed { why, replaced } => {
                self.counts.failed += 1;
                if let Some((info, origin)) = replaced {
                    self.add(info, origin);
                }
                if let Some(slot) = self.ends(outcome.attempt) {
                    self.notes.add(format!(
                        "the snapshot of slot {} could not be written, the next one is tried in time: {why}",
                        slot.0
                    ));
                    self.events.push_back(SnapshotEvent::Failed { slot, why });
                }
            }
            News::Removed { count, left } => {
                self.counts.removed += count;
                self.waste.extend(left);
            }
        }
    }

    /// The slot of the attempt, if that is the present one, which thereby ends.
    fn ends(&mut self, attempt: Attempt) -> Option<Slot> {
        let ended = self.writing.take_if(|writing| writing.attempt == attempt)?;
        self.forget_queued(&ended);
        Some(ended.slot)
    }

    /// Nothing more of this attempt goes to the writer.
    fn forget_queued(&mut self, ended: &Writing) {
        self.backlog -= ended.filled;
        self.queued.retain(|job| match job {
            Job::Chunk(attempt, _, bytes) if *attempt == ended.attempt => {
                self.backlog -= bytes;
                false
            }
            Job::Begin(attempt, _) | Job::Finish { attempt, .. } => *attempt != ended.attempt,
            Job::Chunk(..) | Job::Abandon(_) | Job::Remove(_) => true,
        });
    }

    fn take_read(&mut self, done: ReadDone) {
        let ReadDone {
            info,
            offset,
            outcome,
        } = done;
        let slot = info.slot;
        let event = match outcome {
            Ok(bytes) => SnapshotEvent::Read {
                slot,
                offset,
                bytes,
            },
            Err(why) => {
                // It may have been dropped meanwhile, or replaced by one that is intact.
                if self.complete.contains(&info) {
                    self.complete.retain(|info| info.slot != slot);
                    self.waste.push(slot);
                    self.counts.unreadable += 1;
                    self.notes.add(why.clone());
                }
                SnapshotEvent::Unreadable { slot, why }
            }
        };
        self.events.push_back(event);
    }
}

impl<D: Disk> SnapshotStore for Snapshots<D> {
    fn complete(&self) -> &[SnapshotInfo] {
        &self.complete
    }

    fn begin(&mut self, slot: Slot) {
        assert!(self.writing.is_none(), "two snapshots are written at once");
        self.attempts += 1;
        let attempt = Attempt(self.attempts);
        let filling = self.buffer();
        self.writing = Some(Writing {
            attempt,
            slot,
            filling,
            filled: 0,
            finishing: false,
        });
        self.order(Job::Begin(attempt, slot));
    }

    fn append(&mut self, mut bytes: Bytes) {
        while !bytes.is_empty()
            && let Some(writing) = &mut self.writing
        {
            assert!(!writing.finishing, "appended to a finished snapshot");
            let part = bytes.split_to(bytes.len().min(CHUNK_BODY - writing.filled));
            let at = CHUNK_HEAD + writing.filled;
            writing.filling.as_mut_slice()[at..at + part.len()].copy_from_slice(&part);
            writing.filled += part.len();
            self.backlog += part.len();
            if writing.filled == CHUNK_BODY {
                self.send_chunk();
            }
        }
        assert!(
            self.backlog <= SNAPSHOT_BACKLOG_BYTES_MAX,
            "more of a snapshot waits for the disk than the engine allows"
        );
        self.counts.backlog_peak = self.counts.backlog_peak.max(self.backlog as u64);
    }

    fn backlog(&self) -> usize {
        self.backlog
    }

    fn origin(&self, slot: Slot) -> Origin {
        if self.ahead.contains(&slot) {
            Origin::Ahead
        } else {
            Origin::Replayable
        }
    }

    fn finish(&mut self, checksum: u64, origin: Origin) {
        if self
            .writing
            .as_ref()
            .is_some_and(|writing| writing.filled > 0)
        {
            self.send_chunk();
        }
        let Some(writing) = &mut self.writing else {
            return;
        };
        assert!(!writing.finishing, "a snapshot is finished once");
        writing.finishing = true;
        let (attempt, slot) = (writing.attempt, writing.slot);
        let replaces = self.complete.iter().any(|info| info.slot == slot);
        self.order(Job::Finish {
            attempt,
            checksum,
            origin,
            replaces,
        });
    }

    fn abandon(&mut self) {
        if let Some(ended) = self.writing.take() {
            self.counts.abandoned += 1;
            self.forget_queued(&ended);
            self.order(Job::Abandon(ended.attempt));
        }
    }

    fn read(&mut self, slot: Slot, offset: u64, bytes_max: usize) -> bool {
        if self.reads >= SNAPSHOT_READS_MAX {
            self.counts.reads_refused += 1;
            return false;
        }
        self.reads += 1;
        self.counts.reads += 1;
        match self.complete.iter().find(|info| info.slot == slot) {
            Some(info) => self.reader.start(ReadJob {
                info: *info,
                offset,
                bytes_max: bytes_max.min(SNAPSHOT_READ_BYTES_MAX),
            }),
            None => self.events.push_back(SnapshotEvent::Unreadable {
                slot,
                why: format!("there is no snapshot of slot {}", slot.0),
            }),
        }
        true
    }

    fn poll(&mut self) -> Option<SnapshotEvent> {
        self.collect();
        let event = self.events.pop_front()?;
        match event {
            SnapshotEvent::Read { .. } | SnapshotEvent::Unreadable { .. } => self.reads -= 1,
            SnapshotEvent::Durable(_) | SnapshotEvent::Failed { .. } => {}
        }
        Some(event)
    }

    fn drop_below(&mut self, slot: Slot) {
        self.ahead.retain(|ahead| *ahead >= slot);
        let superseded = self.complete.extract_if(.., |info| info.slot < slot);
        let mut gone: Vec<Slot> = superseded.map(|info| info.slot).collect();
        gone.extend(self.waste.extract_if(.., |waste| *waste < slot));
        if !gone.is_empty() {
            self.order(Job::Remove(gone));
        }
    }

    fn counters(&self, report: &mut dyn FnMut(&'static str, u64)) {
        let counts = &self.counts;
        report("snapshot_files", self.complete.len() as u64);
        report("snapshot_files_durable", counts.durable);
        report("snapshot_files_failed", counts.failed);
        report("snapshot_files_abandoned", counts.abandoned);
        report("snapshot_files_unreadable", counts.unreadable);
        report("snapshot_files_removed", counts.removed);
        report("snapshot_bytes_written", counts.bytes_written);
        report("snapshot_backlog_bytes", self.backlog as u64);
        report("snapshot_backlog_bytes_peak", counts.backlog_peak);
        report("snapshot_reads", counts.reads);
        report("snapshot_reads_refused", counts.reads_refused);
    }
}

type Workers = (Worker<Job, Outcome>, Worker<ReadJob, ReadDone>);

fn workers<D: Disk>(
    disk: &D,
    owner: Owner,
    seed: u64,
    paces: bool,
    signal: Option<Signal>,
) -> io::Result<Workers> {
    let mut writer = Writer::new(disk.clone(), owner, seed, paces);
    let mut reader = Reader::new(disk.clone(), owner);
    let writer = Worker::new(
        "snapshot-writer",
        WRITER_JOBS_MAX,
        signal.clone(),
        Box::new(move |jobs, done| jobs.drain(..).for_each(|job| done(writer.run(job)))),
    )?;
    let reader = Worker::new(
        "snapshot-reader",
        SNAPSHOT_READS_MAX,
        signal,
        Box::new(move |jobs, done| jobs.drain(..).for_each(|job| done(reader.run(&job)))),
    )?;
    Ok((writer, reader))
}
