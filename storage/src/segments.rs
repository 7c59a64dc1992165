//! The segments of an open WAL: the one being filled, those prepared ahead, those a trim may drop.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use synod_engine::ids::Slot;

use crate::config::{Options, SEGMENTS_RESERVED};
use crate::disk::Disk;
use crate::format::{GROUPS_AT, Identity, SegmentIdentity, Sequence, mix};
use crate::keeper::{Hints, Job, Keeper, Origin, Outcome, Prepared};
use crate::notes::Notes;
use crate::recovery::Recovered;
use crate::signal::Signal;
use crate::worker::Worker;

/// Jobs that can wait for the keeper: a trim may drop many segments at once, the rest waits for the next one.
const KEEPER_JOBS_MAX: usize = 256;

pub struct Segments<D: Disk> {
    pub segment_bytes: u64,
    ready_wanted: usize,
    active: Option<Active<D::File>>,
    /// Where the groups of the segment before the active one end.
    preceding_end: u64,
    prepared: VecDeque<Prepared<D::File>>,
    /// Segments ordered from the keeper and not there yet.
    preparing: usize,
    /// The disk had no room for the next segment when that was tried last.
    full: bool,
    keeper: Worker<Job, Outcome<D::File>>,
    keeper_jobs: usize,
    hints: Hints,
    /// Used segments that a trim has not dropped, oldest first, the active one included.
    live: VecDeque<Used>,
    /// The sequence of the oldest live segment, for the reader.
    live_from: Arc<AtomicU64>,
    /// A segment is needed and none is ready, and that was counted.
    waiting: bool,
    notes: Notes,
    counts: Counts,
}

#[derive(Default)]
struct Counts {
    begun: u64,
    created: u64,
    recycled: u64,
    dropped: u64,
    deleted: u64,
    waits: u64,
    refused_for_room: u64,
}

/// The segment that is being filled.
pub struct Active<F> {
    pub sequence: Sequence,
    pub identity: SegmentIdentity,
    pub file: F,
    /// Where the next group goes.
    pub position: u64,
}

struct Used {
    sequence: Sequence,
    /// The highest slot in this segment or an earlier one.
    slot_max: Slot,
}

impl<D: Disk> Segments<D> {
    /// Goes on behind what was recovered, always in a new segment: never behind a cut, where groups of the earlier
    /// life may stand.
    pub fn new(
        disk: D,
        signal: Option<Signal>,
        options: &Options,
        identity: &Identity,
        recovered: &Recovered,
        notes: Notes,
    ) -> io::Result<Segments<D>> {
        let hints = Hints::default();
        let mut keeper = Keeper {
            disk,
            cluster: identity.cluster,
            replica: identity.replica,
            segment_bytes: identity.segment_bytes,
            seed: mix(identity.incarnation.0, options.seed),
            next: recovered.next_sequence(),
            ready_files: recovered.ready_files.iter().cloned().collect(),
            ready_files_max: options.segments_recycled_max,
            hints: hints.clone(),
            paces: signal.is_some(),
        };
        let used = &recovered.segments;
        let mut segments = Segments {
            segment_bytes: identity.segment_bytes,
            ready_wanted: options.segments_ready,
            active: None,
            preceding_end: used.last().map_or(0, |segment| segment.end),
            prepared: VecDeque::new(),
            preparing: 0,
            full: false,
            keeper: Worker::new(
                "wal-keeper",
                KEEPER_JOBS_MAX,
                signal,
                Box::new(move |jobs, done| jobs.drain(..).for_each(|job| done(keeper.run(job)))),
            )?,
            keeper_jobs: 0,
            hints,
            live: used
                .iter()
                .map(|segment| Used {
                    sequence: segment.sequence,
                    slot_max: segment.slot_max,
                })
                .collect(),
            live_from: Arc::new(AtomicU64::new(used.first().map_or(0, |s| s.sequence.0))),
            waiting: false,
            notes,
            counts: Counts::default(),
        };
        for sequence in &recovered.empty {
            segments.order(Job::Renew(*sequence));
        }
        segments.order_missing();
        Ok(segments)
    }

    /// The sequence below which segments are gone, kept up to date.
    pub fn live_from(&self) -> Arc<AtomicU64> {
        self.live_from.clone()
    }

    pub fn active_mut(&mut self) -> Option<&mut Active<D::File>> {
        self.active.as_mut()
    }

    pub fn active_sequence(&self) -> Sequence {
        self.active
            .as_ref()
            .map_or(Sequence(0), |active| active.sequence)
    }

    pub fn preceding_end(&self) -> u64 {
        self.preceding_end
    }

    /// Bytes left in the active segment.
    pub fn room(&self) -> u64 {
        self.active
            .as_ref()
            .map_or(0, |active| self.segment_bytes - active.position)
    }

    /// Goes on to the next segment; false while none is ready. Every group before must be durable.
    pub fn begin(&mut self, slot_max: Slot) -> bool {
        // What a full disk still has is for the next start, which can't go on in the segment of its last life.
        let reserved = match self.full && self.active.is_some() {
            true => SEGMENTS_RESERVED,
            false => 0,
        };
        if self.prepared.len() <= reserved {
            self.counts.waits += u64::from(!self.waiting);
            self.waiting = true;
            return false;
        }
        let prepared = self.prepared.pop_front().expect("more than are reserved");
        self.waiting = false;
        if let Some(active) = &self.active {
            assert!(
                prepared.sequence == active.sequence.next(),
                "segments are used out of order"
            );
            self.preceding_end = active.position;
        }
        self.active = Some(Active {
            sequence: prepared.sequence,
            identity: prepared.identity,
            file: prepared.file,
            position: GROUPS_AT,
        });
        self.live.push_back(Used {
            sequence: prepared.sequence,
            slot_max,
        });
        self.counts.begun += 1;
        self.order_missing();
        true
    }

    /// A group went to the active segment; `slot_max` is the highest slot of the WAL with it.
    pub fn advance(&mut self, bytes: u64, slot_max: Slot) {
        let active = self.active.as_mut().expect("a group without a segment");
        active.position += bytes;
        assert!(
            active.position <= self.segment_bytes,
            "a group crosses its segment's end"
        );
        let newest = self.live.back_mut().expect("the active segment is live");
        newest.slot_max = slot_max;
    }

    /// Takes in what the keeper finished.
    pub fn collect(&mut self) -> Result<(), String> {
        while let Some(outcome) = self.keeper.take() {
            self.keeper_jobs -= 1;
            match outcome {
                Outcome::Prepared(prepared) => self.take_in(prepared),
                Outcome::Dropped(dropped) => {
                    self.counts.dropped += 1;
                    self.counts.deleted += dropped.deleted;
                }
                Outcome::NoRoom(what) => self.note_full(&what),
                Outcome::Failed(what) => return Err(what),
            }
        }
        // A trim may have filled the keeper's queue when the last segment began, or the disk may have been full.
        self.order_missing();
        Ok(())
    }

    fn take_in(&mut self, prepared: Prepared<D::File>) {
        match prepared.origin {
            Origin::Earlier => {}
            Origin::Recycled => self.counts.recycled += 1,
            Origin::New => self.counts.created += 1,
        }
        self.preparing -= 1;
        self.prepared.push_back(prepared);
        self.note_ready();
        if self.full {
            self.full = false;
            self.notes
                .add("there is room for segments again".to_string());
        }
    }

    /// Not final: nothing was promised about a segment that is not there yet. The log goes on with what is prepared,
    /// then stands still like on a disk that hangs, until there is room.
    fn note_full(&mut self, what: &str) {
        self.preparing -= 1;
        self.counts.refused_for_room += 1;
        if !self.full {
            self.full = true;
            self.notes.add(format!(
                "{what}; the log goes on with the {} segments that are prepared ({SEGMENTS_RESERVED} stays in reserve \
                 for a restart), then waits until there is room",
                self.prepared.len()
            ));
        }
    }

    /// Drops the oldest segments whose slots all lie below `floor`, but none from `keep_from` on: that one carries
    /// promise and floor. Returns whether there were any.
    pub fn recycle(&mut self, floor: Slot, keep_from: Sequence) -> bool {
        let mut dropped = false;
        while let Some(oldest) = self.live.front() {
            let needed = oldest.slot_max >= floor || oldest.sequence >= keep_from;
            if needed || self.keeper_jobs >= KEEPER_JOBS_MAX {
                break;
            }
            let sequence = oldest.sequence;
            // Before the file changes: a reader that meets the change knows what it means.
            self.live_from.store(sequence.next().0, Ordering::Release);
            self.live.pop_front();
            self.keeper_jobs += 1;
            self.keeper.start(Job::Recycle(sequence));
            dropped = true;
        }
        dropped
    }

    fn order_missing(&mut self) {
        self.note_ready();
        while self.keeper_jobs < KEEPER_JOBS_MAX
            && self.prepared.len() + self.preparing < self.ready_wanted
        {
            self.order(Job::Prepare);
        }
    }

    fn order(&mut self, job: Job) {
        self.preparing += 1;
        self.keeper_jobs += 1;
        self.keeper.start(job);
    }

    fn note_ready(&self) {
        let ready = self.prepared.len();
        self.hints.ready.store(ready, Ordering::Relaxed);
    }

    /// Whether there was no room for the next segment when that was tried last.
    pub fn is_full(&self) -> bool {
        self.full
    }

    pub fn counters(&self, report: &mut dyn FnMut(&'static str, u64)) {
        let counts = &self.counts;
        report("wal_segments", counts.begun);
        report("wal_segments_created", counts.created);
        report("wal_segments_recycled", counts.recycled);
        report("wal_segments_dropped", counts.dropped);
        report("wal_segments_deleted", counts.deleted);
        report("wal_segments_live", self.live.len() as u64);
        report("wal_segments_ready", self.prepared.len() as u64);
        report("wal_waits_for_segment", counts.waits);
        report("wal_disk_full_tries", counts.refused_for_room);
    }
}

impl<D: Disk> Drop for Segments<D> {
    fn drop(&mut self) {
        self.hints.stop.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use synod_engine::ids::{ClusterId, ReplicaId};

    use super::*;
    use crate::backend::MemoryDisk;
    use crate::directory::{initialise, read_identity};
    use crate::recovery::recover;

    fn opened() -> Segments<MemoryDisk> {
        let options = Options {
            cluster: ClusterId(1),
            replica: ReplicaId(2),
            segment_bytes: 16 << 10,
            segments_ready: 2,
            segments_recycled_max: 6,
            writes_in_flight_max: 1,
            pending_bytes_max: crate::config::PENDING_BYTES_MAX_DEFAULT,
            seed: 7,
        };
        let disk = MemoryDisk::new();
        initialise(&disk, &options).unwrap();
        let identity = read_identity(&disk).unwrap();
        let recovered = recover(&disk, &identity, Slot::ZERO, &mut |_| {}).unwrap();
        Segments::new(
            disk,
            None,
            &options,
            &identity,
            &recovered,
            Notes::default(),
        )
        .unwrap()
    }

    #[test]
    fn the_keeper_is_told_what_is_ready_and_when_to_stop() {
        let mut segments = opened();
        let hints = segments.hints.clone();
        let ready = |hints: &Hints| hints.ready.load(Ordering::Relaxed);
        segments.collect().unwrap();
        assert_eq!(ready(&hints), 2);
        assert!(segments.begin(Slot::ZERO));
        assert_eq!(ready(&hints), 1);
        assert!(!hints.stop.load(Ordering::Relaxed));
        drop(segments);
        assert!(hints.stop.load(Ordering::Relaxed));
    }

    #[test]
    fn a_reader_knows_at_once_what_a_trim_dropped() {
        let mut segments = opened();
        let live_from = segments.live_from();
        for slot in 1..=4 {
            segments.collect().unwrap();
            assert!(segments.begin(Slot(slot)));
        }
        assert_eq!(segments.active_sequence(), Sequence(4));
        assert!(segments.recycle(Slot(3), Sequence(4)));
        assert_eq!(live_from.load(Ordering::Acquire), 3);
        assert!(!segments.recycle(Slot(3), Sequence(4)));
        assert!(segments.recycle(Slot(9), Sequence(4)), "but not the newest");
        assert_eq!(live_from.load(Ordering::Acquire), 4);
    }

    #[test]
    fn the_keepers_queue_never_overflows() {
        let mut segments = opened();
        for slot in 1..=300 {
            segments.collect().unwrap();
            assert!(segments.begin(Slot(slot)));
        }
        segments.collect().unwrap();
        assert!(segments.recycle(Slot(301), Sequence(300)));
        assert_eq!(segments.keeper_jobs, KEEPER_JOBS_MAX);
        assert!(segments.begin(Slot(301)));
        assert_eq!(segments.keeper_jobs, KEEPER_JOBS_MAX);
        assert!(!segments.recycle(Slot(301), Sequence(301)));
        assert_eq!((segments.prepared.len(), segments.preparing), (1, 0));
        segments.collect().unwrap();
        assert_eq!((segments.prepared.len(), segments.preparing), (1, 1));
    }
}
