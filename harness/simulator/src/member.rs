//! One replica through all its lives: its disk, its clock, and the driver while it runs.

use std::cell::RefCell;
use std::rc::Rc;

use bytes::Bytes;

use synod_engine::driver::Driver;
use synod_engine::ids::{ClusterId, Incarnation, ReplicaId, Slot};
use synod_engine::recovery::{Hole, OnDisk, Recovery};
use synod_engine::seams::{Arrival, StateMachine, Wal, WalFailed};
use synod_engine::snapshot::{Restored, Restoring};
use synod_storage::Replayed;
use synod_storage::backend::{MemoryBackend, MemoryDisk};
use synod_storage::config::Options;

use crate::checker::{Agreement, Executed, Found, MEMORY, Model, Seen, Shadow, Violation};
use crate::clock::Clock;
use crate::milestones::Milestones;
use crate::outbox::{Outbox, Sent};
use crate::seams::Seams;
use crate::snapshots::{File, SimulatedStore, SnapshotDisk};
use crate::swarm::Plan;
use crate::wal::{Appended, SimulatedWal};
use crate::witness::Witness;

pub const CLUSTER: ClusterId = ClusterId(0x5e0d);

/// The production event loop over simulated disk, network and snapshots.
pub type SimulatedDriver<S> =
    Driver<<S as Seams>::Wal, <S as Seams>::Network, Witness, <S as Seams>::Snapshots>;

pub struct Member<S: Seams> {
    pub id: ReplicaId,
    pub disk: MemoryDisk,
    pub snapshots: SnapshotDisk,
    pub clock: Clock,
    /// Counts lives, so that events for a former one are dropped.
    pub life: u64,
    pub running: Option<Running<S>>,
    pub shadow: Shadow,
    /// What arrived since the last turn.
    pub inbox: Vec<Arrival>,
    pub turn_at: Option<u64>,
    pub wake_at: Option<u64>,
    /// It stands still until then: no turn, no reading.
    pub paused_until: u64,
    /// It just went on: its first turn comes before anything was read.
    pub woke: bool,
    /// Its disk finishes nothing before.
    pub stalled_until: u64,
    pub limp: Option<Limp>,
    pub disk_is_full: bool,
    /// A fault was injected that makes the WAL fail: it is no bug if it does.
    pub failure_expected: bool,
    /// It shall die again so many times while it recovers.
    pub storms: u64,
    /// Never to be started again.
    pub gone: bool,
    pub impairment: Impairment,
    /// The life in which that happened.
    pub impaired_in: u64,
    /// Under which life of its disk the cluster knows it, or shall.
    pub incarnation: Incarnation,
    /// The snapshot with which it was ahead of its WAL when it died.
    pub ahead: Option<Slot>,
    /// Recycled files that were put on its disk and are not used yet.
    pub stale_files: usize,
    pub milestones: Milestones,
}

/// A disk that takes so much and no more, and until when it is busy with what it was given.
#[derive(Clone, Copy, Debug)]
pub struct Limp {
    pub ns_per_byte: u64,
    pub busy_until: u64,
}

/// What a replica lost of what it had acknowledged, and has not got back yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Impairment {
    None,
    /// Synced data was changed behind its back.
    Damaged,
    /// Everything is gone.
    Wiped,
}

pub struct Running<S: Seams> {
    pub driver: SimulatedDriver<S>,
    pub wal: SimulatedWal,
    pub store: SimulatedStore,
    /// What the store has under way and an end is scheduled for.
    pub stored: usize,
    pub outbox: Outbox,
    done: Rc<RefCell<Vec<Executed>>>,
    /// Commands executed and checked.
    position: usize,
    /// Slots seen committed and checked.
    committed: Slot,
    /// Writes under way, in the order of the backend.
    pub writes: Vec<u64>,
    pub next_write: u64,
    /// What a client that connects is told first.
    pub announcement: Option<Bytes>,
    appended: Vec<Appended>,
    /// Whether only the other replicas shall notice that its state is wrong.
    misapplies: bool,
}

/// Why a start did not succeed.
pub enum StartFailed {
    /// The disk did not work, as was to be expected.
    Disk(String),
    /// The damage done to the disk is more than the replica can repair: the operator has to wipe and readmit it.
    Damaged(String),
    Violation(Violation),
}

impl From<Violation> for StartFailed {
    fn from(violation: Violation) -> StartFailed {
        StartFailed::Violation(violation)
    }
}

pub fn options(plan: &Plan, replica: ReplicaId, life: u64) -> Options {
    Options {
        cluster: CLUSTER,
        replica,
        segment_bytes: plan.segment_bytes,
        segments_ready: plan.segments_ready,
        segments_recycled_max: 4 + plan.segments_ready,
        writes_in_flight_max: plan.writes_in_flight_max,
        pending_bytes_max: plan.config(replica, life).wal_pending_bytes_max(),
        seed: plan.seed ^ u64::from(replica.0) << 56 ^ life << 32,
    }
}

impl<S: Seams> Member<S> {
    pub fn new(id: ReplicaId, disk: MemoryDisk, clock: Clock, stale_files: usize) -> Member<S> {
        Member {
            id,
            disk,
            snapshots: SnapshotDisk::default(),
            clock,
            life: 0,
            running: None,
            shadow: Shadow::new(id),
            inbox: Vec::new(),
            turn_at: None,
            wake_at: None,
            paused_until: 0,
            woke: false,
            stalled_until: 0,
            limp: None,
            disk_is_full: false,
            failure_expected: false,
            storms: 0,
            gone: false,
            impairment: Impairment::None,
            impaired_in: 0,
            incarnation: Incarnation::FOUNDING,
            ahead: None,
            stale_files,
            milestones: Milestones::default(),
        }
    }

    /// Rebuilds the replica from its disk with the production recovery, and checks what it found there.
    pub fn start(
        &mut self,
        now: u64,
        plan: &Plan,
        seams: &S,
        agreement: &mut Agreement,
        model: &mut Model,
    ) -> Result<(), StartFailed> {
        assert!(self.running.is_none(), "{} runs already", self.id);
        let config = plan.config(self.id, self.life);
        config.check().expect("plans hold valid configurations");
        let misapplies = plan.misapplies.filter(|which| which.replica == self.id);
        let witness =
            misapplies.map_or_else(Witness::default, |which| Witness::misapplying(which.after));
        let done = witness.done();
        let mut recovery = match self.newest_snapshot(&witness)? {
            Some(restored) => {
                let (slot, state) = (restored.state.applied(), &restored.state);
                model.check_restored(self.id, slot, state.machine.machine(), &state.sessions)?;
                Recovery::from_snapshot(config, restored)
            }
            None => Recovery::new(config, witness),
        };
        let covers = recovery.covers();
        self.milestones.starts_from_snapshot += u64::from(covers > Slot::ZERO);
        let mut found = Found {
            covers,
            ..Found::default()
        };
        let opened = MemoryBackend::open_above(
            &self.disk,
            options(plan, self.id, self.life),
            covers,
            &mut |replayed| match replayed {
                Replayed::Record(at, record) => {
                    found.records.push((at.lsn, Seen::of(&record)));
                    recovery.visit(at.lsn, record);
                }
                Replayed::Hole(hole) => {
                    found.holes.push((hole.first, hole.next));
                    recovery.hole(Hole {
                        next: hole.next,
                        promised: hole.carried.promised,
                        trim_floor: hole.carried.trim_floor,
                        slot_max: hole.carried.slot_max,
                    });
                }
            },
        );
        let (mut core, opened) = match opened {
            Ok(opened) => opened,
            Err(error) if self.failure_expected || self.disk_is_full => {
                return Err(StartFailed::Disk(error.to_string()));
            }
            Err(error) if self.impairment == Impairment::Damaged => {
                return Err(StartFailed::Damaged(error.to_string()));
            }
            Err(error) => {
                let what = format!("{} refuses its WAL: {error}", self.id);
                return Err(Violation::new(MEMORY, what).into());
            }
        };
        core.backend_mut().hold();
        if let Err(WalFailed(why)) = core.durable() {
            return self.failed_at_start(why);
        }
        found.last = opened.last;
        self.shadow.recovered(&found, agreement)?;
        self.note_ahead(covers, agreement);
        let store = SimulatedStore::open(self.snapshots.clone());
        let wal = SimulatedWal::new(core, opened.last);
        let outbox = Outbox::default();
        let driver = recovery.start(
            self.clock.at(now),
            seams.wal(self.id, wal.clone()),
            seams.network(self.id, outbox.clone()),
            seams.snapshots(self.id, store.clone()),
            OnDisk {
                incarnation: opened.incarnation,
                last: opened.last,
                promised: opened.carried.promised,
                trim_floor: opened.carried.trim_floor,
            },
        );
        let driver = driver.map_err(|error| Violation::new(MEMORY, error.to_string()))?;
        let below_floor = driver.replica().trim_floor() > covers.next();
        self.milestones.starts_below_floor += u64::from(below_floor);
        if driver.replica().promised() < self.shadow.promised() {
            let (now, before) = (driver.replica().promised(), self.shadow.promised());
            let what = format!(
                "{} recovers the promise {now}, it had made {before}",
                self.id
            );
            return Err(Violation::new(MEMORY, what).into());
        }
        self.running = Some(Running {
            driver,
            wal,
            store,
            stored: 0,
            outbox,
            done,
            position: model.operations_through(covers),
            committed: covers,
            writes: Vec::new(),
            next_write: 0,
            announcement: None,
            appended: Vec::new(),
            misapplies: misapplies.is_some(),
        });
        self.observe(now, agreement, model)?;
        Ok(())
    }

    /// The state of the newest snapshot that is intact, as the harness finds it; what is not is removed.
    fn newest_snapshot(
        &mut self,
        witness: &Witness,
    ) -> Result<Option<Restored<Witness>>, Violation> {
        let files = self.snapshots.files();
        for file in files.iter().rev() {
            let File {
                info,
                bytes,
                damaged,
                ..
            } = file;
            let mut restoring = Restoring::new(witness.empty());
            let portions = bytes.chunks(1 + info.slot.0 as usize % 900);
            let restored = portions
                .map(|portion| restoring.take(portion))
                .collect::<Result<Vec<()>, _>>()
                .and_then(|_| restoring.finish());
            match restored {
                Ok(restored) if !damaged => return Ok(Some(restored)),
                Err(_) if *damaged => {
                    self.milestones.damaged_found += 1;
                    self.snapshots.remove(info.slot);
                }
                Ok(_) => {
                    let what = format!("{} restores a damaged snapshot", self.id);
                    return Err(Violation::new(MEMORY, what));
                }
                Err(error) => {
                    let what = format!("{} refuses an intact snapshot: {error}", self.id);
                    return Err(Violation::new(MEMORY, what));
                }
            }
        }
        Ok(None)
    }

    /// Whether the snapshot with which it was ahead of its WAL is gone, and the WAL says something else.
    fn note_ahead(&mut self, covers: Slot, agreement: &Agreement) {
        let Some(slot) = self.ahead.take_if(|slot| *slot > covers) else {
            return;
        };
        self.milestones.snapshots_ahead_lost += 1;
        let stale = (covers.next().0..=slot.0).map(Slot).any(|slot| {
            let held = self.shadow.held(slot);
            held.is_some() && held != agreement.chosen(slot)
        });
        self.milestones.snapshots_ahead_lost_over_stale += u64::from(stale);
    }

    fn failed_at_start(&self, why: String) -> Result<(), StartFailed> {
        if self.failure_expected || self.disk_is_full {
            return Err(StartFailed::Disk(why));
        }
        let what = format!("{} fails at its start, the disk is sound: {why}", self.id);
        Err(Violation::new(MEMORY, what).into())
    }

    /// Looks at what the last turn did to WAL, log and state, and checks it.
    pub fn observe(
        &mut self,
        now: u64,
        agreement: &mut Agreement,
        model: &mut Model,
    ) -> Result<(), Violation> {
        let running = self.running.as_mut().expect("only what runs is observed");
        running.wal.take_appended(&mut running.appended);
        for Appended { lsn, seen, value } in running.appended.drain(..) {
            if let Seen::Accepted {
                slot, ballot, hash, ..
            } = seen
            {
                agreement.proposed(slot, ballot, hash, &value)?;
            }
            self.shadow.append(lsn, seen)?;
        }
        self.shadow
            .advance(running.wal.claimed_durable(), agreement)?;
        self.shadow.covered(self.snapshots.covers());
        let covers = self.snapshots.highest();
        // A replica whose snapshots are damaged gets back what it trimmed before it takes part again.
        if let Some(floor) = running.wal.take_trimmed()
            && running.driver.replica().may_promise()
        {
            self.shadow.check_trim(floor, covers)?;
        }
        let installed = running.driver.replica().installed();
        let installed_now = running.committed < installed;
        if installed_now {
            self.milestones.snapshots_installed += 1;
            // It holds the state after that slot, without having executed what led to it.
            if installed > agreement.committed_through() || installed > covers {
                let what = format!("{} installs a snapshot of {installed}", self.id);
                return Err(Violation::new(MEMORY, what));
            }
            running.committed = installed;
            running.position = model.operations_through(installed);
        }
        let commit_index = running.driver.replica().commit_index();
        while running.committed < commit_index {
            let slot = running.committed.next();
            let Some(hash) = self.shadow.held(slot) else {
                let what = format!("{} commits {slot} without a record of it", self.id);
                return Err(Violation::new(MEMORY, what));
            };
            if let Some(value) = agreement.committed(now, self.id, slot, hash)? {
                model.execute(slot, value);
            }
            running.committed = slot;
        }
        let mut done = running.done.borrow_mut();
        model.check_applied(self.id, running.position, &done)?;
        let news = !done.is_empty();
        running.position += done.len();
        done.clear();
        if news && !running.misapplies {
            let state = running.driver.state();
            let hash = state.machine.hash();
            model.check_state(self.id, state.applied(), running.position, hash)?;
        }
        if installed_now {
            let state = running.driver.state();
            let machine = state.machine.machine();
            model.check_restored(self.id, state.applied(), machine, &state.sessions)?;
        }
        Ok(())
    }

    /// Notes whether what it lost is back: it takes part again, and everything that it was given is on its disk.
    pub fn note_repair(&mut self) {
        let replica = self
            .running
            .as_ref()
            .map(|running| running.driver.replica());
        let whole = replica.is_some_and(|replica| {
            // Damage that a running replica has not met yet is repaired at its next start at the earliest.
            self.life > self.impaired_in
                && replica.may_promise()
                && replica.durable() == replica.appended()
        });
        if whole {
            self.impairment = Impairment::None;
        }
    }

    /// Takes what the replica sent.
    pub fn take_sent(&mut self, sent: &mut Sent) {
        if let Some(running) = &self.running {
            running.outbox.take(sent);
        }
    }

    pub fn counter(&self, wanted: &str) -> u64 {
        let mut found = 0;
        if let Some(running) = &self.running {
            running.driver.report(&mut |name, value| {
                if name == wanted {
                    found = value;
                }
            });
        }
        found
    }
}
