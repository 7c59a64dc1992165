//! Where a simulated replica keeps its snapshots: what is durable outlives the process, the rest is lost with it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use bytes::Bytes;

use synod_engine::ids::Slot;
use synod_engine::seams::{Origin, SnapshotEvent, SnapshotInfo, SnapshotStore};

use crate::random::Random;

/// Reads under way at most.
const READS_MAX: usize = 16;

/// The files of one replica. Clones share them; the disk outlives the replica's processes.
#[derive(Clone, Default)]
pub struct SnapshotDisk(Rc<RefCell<Files>>);

#[derive(Default)]
struct Files {
    /// Complete and durable, oldest first.
    complete: Vec<File>,
    full: bool,
    /// So many of the next snapshots can't be written.
    failures: u64,
    /// Snapshots that became durable.
    kept: u64,
}

#[derive(Clone)]
pub struct File {
    pub info: SnapshotInfo,
    pub bytes: Vec<u8>,
    pub origin: Origin,
    /// Its bytes are not what was written.
    pub damaged: bool,
}

impl SnapshotDisk {
    /// What a start finds, oldest first.
    pub fn files(&self) -> Vec<File> {
        self.0.borrow().complete.clone()
    }

    /// The highest slot that an intact snapshot covers.
    pub fn covers(&self) -> Slot {
        let files = self.0.borrow();
        let intact = files.complete.iter().filter(|file| !file.damaged);
        intact
            .map(|file| file.info.slot)
            .max()
            .unwrap_or(Slot::ZERO)
    }

    fn infos(&self) -> Vec<SnapshotInfo> {
        let files = self.0.borrow();
        files.complete.iter().map(|file| file.info).collect()
    }

    /// The highest slot of any snapshot, whatever became of it.
    pub fn highest(&self) -> Slot {
        let files = self.0.borrow();
        files
            .complete
            .last()
            .map_or(Slot::ZERO, |file| file.info.slot)
    }

    pub fn remove(&self, slot: Slot) {
        let files = &mut self.0.borrow_mut().complete;
        files.retain(|file| file.info.slot != slot);
    }

    pub fn kept(&self) -> u64 {
        self.0.borrow().kept
    }

    pub fn fill(&self, full: bool) {
        self.0.borrow_mut().full = full;
    }

    /// No failure that was still to come comes any more.
    pub fn sound(&self) {
        self.0.borrow_mut().failures = 0;
    }

    pub fn fail_next(&self) {
        self.0.borrow_mut().failures += 1;
    }

    /// Flips bits in the newest snapshot, or in all. Returns false if there is none.
    pub fn damage(&self, random: &mut Random) -> bool {
        let files = &mut self.0.borrow_mut().complete;
        let count = if random.permille(300) { files.len() } else { 1 };
        for file in files.iter_mut().rev().take(count) {
            let byte = random.below(file.bytes.len() as u64) as usize;
            file.bytes[byte] ^= 1 << random.below(8);
            file.damaged = true;
        }
        !files.is_empty()
    }

    /// Flips a bit of the snapshot at `slot`. Returns false if it is not there.
    pub fn damage_one(&self, slot: Slot, random: &mut Random) -> bool {
        let files = &mut self.0.borrow_mut().complete;
        let Some(file) = files.iter_mut().find(|file| file.info.slot == slot) else {
            return false;
        };
        let byte = random.below(file.bytes.len() as u64) as usize;
        file.bytes[byte] ^= 1 << random.below(8);
        file.damaged = true;
        true
    }
}

/// A handle of one process: clones share it.
#[derive(Clone)]
pub struct SimulatedStore {
    process: Rc<RefCell<Process>>,
    infos: Vec<SnapshotInfo>,
}

struct Process {
    disk: SnapshotDisk,
    writing: Option<(Slot, Vec<u8>)>,
    backlog: usize,
    /// What the disk has to do, in its order.
    under_way: VecDeque<Work>,
    /// What a replica was told of, or will be with the next call.
    ended: VecDeque<SnapshotEvent>,
    parts_read: u64,
}

enum Work {
    Write(usize),
    Finish(File),
    Read {
        slot: Slot,
        offset: u64,
        bytes: usize,
    },
}

impl SimulatedStore {
    pub fn open(disk: SnapshotDisk) -> SimulatedStore {
        SimulatedStore {
            infos: disk.infos(),
            process: Rc::new(RefCell::new(Process {
                disk,
                writing: None,
                backlog: 0,
                under_way: VecDeque::new(),
                ended: VecDeque::new(),
                parts_read: 0,
            })),
        }
    }

    pub fn under_way(&self) -> usize {
        self.process.borrow().under_way.len()
    }

    /// Ends what has been under way for longest. Returns the slot of a snapshot that became durable by that.
    pub fn complete_next(&self) -> Option<Slot> {
        self.process.borrow_mut().complete_next()
    }

    /// The process dies. A file that was being finished is there whole or not at all, as the seed says.
    pub fn crash(&self, random: &mut Random) {
        let mut process = self.process.borrow_mut();
        let under_way = std::mem::take(&mut process.under_way);
        for work in under_way {
            match work {
                Work::Finish(file) if random.permille(500) => process.disk.keep(file),
                Work::Finish(_) | Work::Write(_) | Work::Read { .. } => {}
            }
        }
    }
}

impl SnapshotDisk {
    fn keep(&self, file: File) {
        let disk = &mut *self.0.borrow_mut();
        disk.kept += 1;
        let files = &mut disk.complete;
        files.retain(|known| known.info.slot != file.info.slot);
        files.push(file);
        files.sort_by_key(|file| file.info.slot);
    }

    /// Whether a snapshot that is to become durable now can.
    fn takes(&self) -> bool {
        let mut files = self.0.borrow_mut();
        if files.full {
            return false;
        }
        let fails = files.failures > 0;
        files.failures = files.failures.saturating_sub(1);
        !fails
    }
}

impl Process {
    fn complete_next(&mut self) -> Option<Slot> {
        match self.under_way.pop_front() {
            None => {}
            Some(Work::Write(bytes)) => self.backlog -= bytes,
            Some(Work::Finish(file)) => {
                let info = file.info;
                if self.disk.takes() {
                    self.disk.keep(file);
                    self.ended.push_back(SnapshotEvent::Durable(info));
                    return Some(info.slot);
                } else {
                    let why = "the simulated disk refuses".to_string();
                    let slot = info.slot;
                    self.ended.push_back(SnapshotEvent::Failed { slot, why });
                }
            }
            Some(Work::Read {
                slot,
                offset,
                bytes,
            }) => {
                let event = self.read(slot, offset, bytes);
                self.ended.push_back(event);
            }
        }
        None
    }

    fn read(&mut self, slot: Slot, offset: u64, bytes: usize) -> SnapshotEvent {
        self.parts_read += 1;
        let files = self.disk.files();
        let intact = |file: &&File| file.info.slot == slot && !file.damaged;
        let Some(file) = files.iter().find(intact) else {
            self.disk.remove(slot);
            let why = "the simulated disk damaged it".to_string();
            return SnapshotEvent::Unreadable { slot, why };
        };
        let start = (offset as usize).min(file.bytes.len());
        let end = (start + bytes).min(file.bytes.len());
        SnapshotEvent::Read {
            slot,
            offset,
            bytes: Bytes::copy_from_slice(&file.bytes[start..end]),
        }
    }
}

impl SnapshotStore for SimulatedStore {
    fn complete(&self) -> &[SnapshotInfo] {
        &self.infos
    }

    fn begin(&mut self, slot: Slot) {
        let mut process = self.process.borrow_mut();
        assert!(
            process.writing.is_none(),
            "one snapshot is written at a time"
        );
        process.writing = Some((slot, Vec::new()));
    }

    fn append(&mut self, bytes: Bytes) {
        let mut process = self.process.borrow_mut();
        let Some((_, written)) = &mut process.writing else {
            panic!("bytes are appended to no snapshot");
        };
        written.extend_from_slice(&bytes);
        process.backlog += bytes.len();
        process.under_way.push_back(Work::Write(bytes.len()));
    }

    fn backlog(&self) -> usize {
        self.process.borrow().backlog
    }

    fn finish(&mut self, checksum: u64, origin: Origin) {
        let mut process = self.process.borrow_mut();
        let (slot, bytes) = process.writing.take().expect("a snapshot is being written");
        let info = SnapshotInfo {
            slot,
            bytes: bytes.len() as u64,
            checksum,
        };
        process.under_way.push_back(Work::Finish(File {
            info,
            bytes,
            origin,
            damaged: false,
        }));
    }

    fn origin(&self, slot: Slot) -> Origin {
        let files = self.process.borrow().disk.files();
        let file = files.iter().find(|file| file.info.slot == slot);
        file.map_or(Origin::Replayable, |file| file.origin)
    }

    fn abandon(&mut self) {
        let mut process = self.process.borrow_mut();
        process.writing = None;
        process
            .under_way
            .retain(|work| matches!(work, Work::Read { .. }));
        process.backlog = 0;
        process.ended.retain(|event| {
            !matches!(
                event,
                SnapshotEvent::Failed { .. } | SnapshotEvent::Durable(_)
            )
        });
    }

    fn read(&mut self, slot: Slot, offset: u64, bytes_max: usize) -> bool {
        let mut process = self.process.borrow_mut();
        let reads = |work: &&Work| matches!(work, Work::Read { .. });
        if process.under_way.iter().filter(reads).count() >= READS_MAX {
            return false;
        }
        process.under_way.push_back(Work::Read {
            slot,
            offset,
            bytes: bytes_max,
        });
        true
    }

    fn poll(&mut self) -> Option<SnapshotEvent> {
        let mut process = self.process.borrow_mut();
        let event = process.ended.pop_front();
        if event.is_some() {
            self.infos = process.disk.infos();
        }
        event
    }

    fn drop_below(&mut self, slot: Slot) {
        let process = self.process.borrow_mut();
        process
            .disk
            .0
            .borrow_mut()
            .complete
            .retain(|file| file.info.slot >= slot);
        self.infos = process.disk.infos();
    }

    fn counters(&self, report: &mut dyn FnMut(&'static str, u64)) {
        report("snapshot_store_reads", self.process.borrow().parts_read);
    }
}
