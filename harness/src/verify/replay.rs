//! Replays the slots of one WAL in order.

use std::collections::BTreeMap;
use std::path::Path;

use synod_engine::ids::Slot;
use synod_engine::message::Value;
use synod_storage::Replayed;

use super::Verdict;
use super::machine::{Machine, Stamp};
use super::sessions::Sessions;
use super::slots::{Slots, slot_value};
use super::snapshots::{Kept, Start};
use super::stamps::{ClientAccount, Stamps};

/// Values that came before a slot in front of them. They are few: a slot is written again only after a crash or
/// a change of leader, and then within the window of slots in flight.
const EARLY_SLOTS_MAX: usize = 1_000_000;

pub struct Replay {
    machine: Machine,
    sessions: Sessions,
    stamps: Stamps,
    next: Slot,
    early: BTreeMap<Slot, Value>,
    /// Snapshots to compare with once their slot is executed.
    snapshots: Vec<Kept>,
    diverged: u64,
    /// Slots whose value is no batch.
    malformed: u64,
    findings: Vec<String>,
}

impl Replay {
    /// Begins behind `start`, and compares with those of the `snapshots` that come then.
    pub fn new(start: Start, clients: &[ClientAccount], snapshots: Vec<Kept>) -> Replay {
        let mut replay = Replay {
            machine: start.machine,
            stamps: Stamps::new(clients, start.slot, start.sessions.clone()),
            sessions: Sessions::restored(start.sessions),
            next: start.slot.next(),
            early: BTreeMap::new(),
            snapshots,
            diverged: 0,
            malformed: 0,
            findings: Vec::new(),
        };
        replay.compare(start.slot);
        replay
    }

    /// Streams a WAL whose newest records are already known.
    pub fn follow(&mut self, directory: &Path, table: &Slots) -> anyhow::Result<()> {
        let mut failure = None;
        // Holes were refused or allowed when the table was made.
        synod_storage::scan(directory, &mut |replayed| {
            let Replayed::Record(at, record) = replayed else {
                return;
            };
            let Some((slot, value)) = slot_value(&record) else {
                return;
            };
            if failure.is_none() && table.is_newest(slot, at.lsn) {
                failure = self.slot(slot, value.clone(), table).err();
            }
        })?;
        match failure {
            Some(error) => Err(error),
            None => self.drain(table),
        }
    }

    /// Returns the state hash after the last slot.
    pub fn finish(self, verdict: &mut Verdict) -> u64 {
        verdict.diverged += self.diverged;
        verdict.malformed += self.malformed;
        for finding in self.findings {
            verdict.finding(|| finding);
        }
        self.stamps.finish(verdict);
        self.machine.hash()
    }

    fn slot(&mut self, slot: Slot, value: Value, table: &Slots) -> anyhow::Result<()> {
        if slot < self.next {
            return Ok(());
        }
        self.early.insert(slot, value);
        anyhow::ensure!(
            self.early.len() <= EARLY_SLOTS_MAX,
            "more than {EARLY_SLOTS_MAX} slots came before slot {}",
            self.next.0
        );
        self.drain(table)
    }

    /// Executes what is next. A slot that the WAL lacks was counted before, and is stepped over.
    fn drain(&mut self, table: &Slots) -> anyhow::Result<()> {
        while self.next <= table.commit_index() {
            match self.early.remove(&self.next) {
                Some(value) => self.execute(&value),
                None if table.has(self.next) => return Ok(()),
                None => {}
            }
            self.compare(self.next);
            self.next = self.next.next();
        }
        Ok(())
    }

    /// Everything up to `slot` is executed: the snapshots of that slot must say the same.
    fn compare(&mut self, slot: Slot) {
        for kept in self.snapshots.iter().filter(|kept| kept.slot == slot) {
            let equal_state = kept.state_hash == self.machine.hash();
            let what = match (equal_state, self.sessions.agree_with(&kept.sessions)) {
                (true, true) => continue,
                (false, _) => "another state",
                (true, false) => "other sessions",
            };
            self.diverged += 1;
            self.findings.push(format!(
                "replica {} has {what} in its snapshot of slot {} than the replay of the slots gives",
                kept.replica.0, slot.0
            ));
        }
    }

    fn execute(&mut self, value: &Value) {
        let Replay {
            machine,
            sessions,
            stamps,
            next,
            ..
        } = self;
        machine.begin_slot();
        let is_batch = sessions.apply(*next, value, &mut |session, command, is_first| {
            if is_first {
                machine.begin_request();
            }
            machine.apply(command);
            match machine.stamp(command) {
                Stamp::Of(stamp) => stamps.executed(session, stamp),
                Stamp::NoRoom => stamps.counted(),
                Stamp::Missing => stamps.unstamped(),
            }
        });
        if !is_batch {
            self.malformed += 1;
            if self.malformed == 1 {
                let slot = self.next.0;
                self.findings.push(format!(
                    "slot {slot} holds no batch of commands, so nothing of it counts: a replica that led had a bug or a \
                     flipped bit"
                ));
            }
        }
    }
}
