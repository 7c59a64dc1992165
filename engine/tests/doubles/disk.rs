//! A WAL whose records become durable when the test says so.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use synod_engine::ids::{Lsn, Slot};
use synod_engine::message::Record;
use synod_engine::seams::{Wal, WalFailed, WalRead};

#[derive(Debug, Default)]
pub struct Disk {
    pub records: Vec<(Lsn, Record)>,
    /// Handed to the disk, not yet finished.
    pub submitted: Lsn,
    pub durable: Lsn,
    reads: VecDeque<WalRead>,
}

#[derive(Clone, Debug, Default)]
pub struct DiskHandle(pub Rc<RefCell<Disk>>);

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
        Ok(self.0.borrow().durable)
    }

    fn read(&mut self, from: Slot, through: Slot, bytes_max: usize) -> bool {
        let mut disk = self.0.borrow_mut();
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
