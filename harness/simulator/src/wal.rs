//! The production WAL of a simulated replica, seen from both sides: the driver appends to it, the simulation decides
//! when its writes end and reads along.

use std::cell::RefCell;
use std::rc::Rc;

use synod_engine::ids::{Lsn, Slot};
use synod_engine::message::{Record, Value};
use synod_engine::seams::{Wal, WalFailed, WalRead};
use synod_storage::WalCore;
use synod_storage::backend::MemoryBackend;

use crate::checker::Seen;

/// A handle: clones share the WAL.
#[derive(Clone)]
pub struct SimulatedWal(Rc<RefCell<Shared>>);

struct Shared {
    core: WalCore<MemoryBackend>,
    /// What was appended since the simulation looked last.
    appended: Vec<Appended>,
    /// What the WAL last claimed.
    durable: Lsn,
    /// The floor that it was told to trim to since the simulation looked last.
    trimmed: Option<Slot>,
}

/// A record on its way into the WAL. The value is what the checkers learn proposals from.
pub struct Appended {
    pub lsn: Lsn,
    pub seen: Seen,
    pub value: Value,
}

impl SimulatedWal {
    pub fn new(core: WalCore<MemoryBackend>, durable: Lsn) -> SimulatedWal {
        SimulatedWal(Rc::new(RefCell::new(Shared {
            core,
            appended: Vec::new(),
            durable,
            trimmed: None,
        })))
    }

    pub fn writes_under_way(&self) -> usize {
        self.0.borrow_mut().core.backend_mut().under_way()
    }

    /// Of the `i`-th write under way.
    pub fn bytes_under_way(&self, i: usize) -> usize {
        self.0.borrow_mut().core.backend_mut().bytes_under_way(i)
    }

    /// Ends the `i`-th write under way. False if it found no room, and so stays under way in its place.
    pub fn complete(&self, i: usize) -> bool {
        let mut shared = self.0.borrow_mut();
        let backend = shared.core.backend_mut();
        let before = backend.under_way();
        backend.complete(i);
        backend.under_way() < before
    }

    pub fn claimed_durable(&self) -> Lsn {
        self.0.borrow().durable
    }

    /// The floor that it was told to trim to since the simulation looked last.
    pub fn take_trimmed(&self) -> Option<Slot> {
        self.0.borrow_mut().trimmed.take()
    }

    pub fn take_appended(&self, into: &mut Vec<Appended>) {
        into.append(&mut self.0.borrow_mut().appended);
    }
}

impl Wal for SimulatedWal {
    fn append(&mut self, lsn: Lsn, record: &Record) {
        let mut shared = self.0.borrow_mut();
        let value = match record {
            Record::Accepted(accept) => accept.value.clone(),
            Record::Chosen { value, .. } => value.clone(),
            Record::Promised { .. } | Record::Trimmed { .. } => Value::new(),
        };
        let seen = Seen::of(record);
        shared.appended.push(Appended { lsn, seen, value });
        shared.core.append(lsn, record);
    }

    fn pending_bytes_max(&self) -> usize {
        self.0.borrow().core.pending_bytes_max()
    }

    fn submit(&mut self) {
        self.0.borrow_mut().core.submit();
    }

    fn durable(&mut self) -> Result<Lsn, WalFailed> {
        let mut shared = self.0.borrow_mut();
        let durable = shared.core.durable()?;
        shared.durable = durable;
        Ok(durable)
    }

    fn read(&mut self, from: Slot, through: Slot, bytes_max: usize) -> bool {
        self.0.borrow_mut().core.read(from, through, bytes_max)
    }

    fn take_read(&mut self) -> Result<Option<WalRead>, WalFailed> {
        self.0.borrow_mut().core.take_read()
    }

    fn trim(&mut self, floor: Slot) {
        let mut shared = self.0.borrow_mut();
        shared.trimmed = Some(floor);
        shared.core.trim(floor);
    }

    fn counters(&self, report: &mut dyn FnMut(&'static str, u64)) {
        self.0.borrow().core.counters(report);
    }
}
