//! A simulated WAL: records become durable when the simulation says so, and a crash forgets the rest.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use synod_engine::ids::{Lsn, Slot};
use synod_engine::message::Record;
use synod_engine::seams::{Wal, WalFailed, WalRead};

/// What survives a crash of its replica.
#[derive(Debug, Default)]
pub struct Disk {
    pub records: Vec<(Lsn, Record)>,
    /// Handed to the disk, not yet finished.
    pub submitted: Lsn,
    pub durable: Lsn,
    pub failed: bool,
    pub reads_asked: u64,
    reads: VecDeque<WalRead>,
}

#[derive(Clone, Debug, Default)]
pub struct DiskHandle(pub Rc<RefCell<Disk>>);

impl Disk {
    /// Loses everything after `keep` records beyond the durable ones.
    pub fn crash(&mut self, keep: usize) {
        let durable = self.durable;
        let durable_count = self
            .records
            .iter()
            .filter(|(lsn, _)| *lsn <= durable)
            .count();
        self.records.truncate(durable_count + keep);
        let last = self.records.last().map_or(Lsn::ZERO, |(lsn, _)| *lsn);
        self.submitted = last;
        self.durable = last;
        self.reads.clear();
    }

    /// Whether a durable record holds a value for this slot.
    pub fn holds(&self, slot: Slot) -> bool {
        self.records
            .iter()
            .rev()
            .any(|(lsn, record)| *lsn <= self.durable && slot_of(record) == Some(slot))
    }
}

fn slot_of(record: &Record) -> Option<Slot> {
    match record {
        Record::Accepted(accept) => Some(accept.slot),
        Record::Chosen { slot, .. } => Some(*slot),
        Record::Promised { .. } | Record::Trimmed { .. } => None,
    }
}

impl Wal for DiskHandle {
    fn append(&mut self, lsn: Lsn, record: &Record) {
        let mut disk = self.0.borrow_mut();
        let last = disk.records.last().map_or(Lsn::ZERO, |(lsn, _)| *lsn);
        assert_eq!(lsn, last.next(), "records are appended in order");
        disk.records.push((lsn, record.clone()));
    }

    fn submit(&mut self) {
        let mut disk = self.0.borrow_mut();
        disk.submitted = disk.records.last().map_or(Lsn::ZERO, |(lsn, _)| *lsn);
    }

    fn durable(&mut self) -> Result<Lsn, WalFailed> {
        let disk = self.0.borrow();
        if disk.failed {
            return Err(WalFailed("the simulated disk failed".into()));
        }
        Ok(disk.durable)
    }

    fn read(&mut self, from: Slot, through: Slot, bytes_max: usize) -> bool {
        let mut disk = self.0.borrow_mut();
        disk.reads_asked += 1;
        let mut newest = BTreeMap::new();
        for (lsn, record) in &disk.records {
            if *lsn > disk.durable {
                break;
            }
            match record {
                Record::Accepted(accept) => {
                    newest.insert(accept.slot, accept.value.clone());
                }
                Record::Chosen { slot, value } => {
                    newest.insert(*slot, value.clone());
                }
                Record::Promised { .. } | Record::Trimmed { .. } => {}
            }
        }
        let mut values = Vec::new();
        let mut bytes = 0;
        let mut slot = from;
        while slot <= through && (values.is_empty() || bytes < bytes_max) {
            let Some(value) = newest.get(&slot) else {
                break;
            };
            bytes += value.len();
            values.push(value.clone());
            slot = slot.next();
        }
        disk.reads.push_back(WalRead { from, values });
        true
    }

    fn take_read(&mut self) -> Result<Option<WalRead>, WalFailed> {
        Ok(self.0.borrow_mut().reads.pop_front())
    }

    fn trim(&mut self, _floor: Slot) {}

    fn counters(&self, _report: &mut dyn FnMut(&'static str, u64)) {}
}
