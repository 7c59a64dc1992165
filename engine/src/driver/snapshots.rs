//! What the event loop does about snapshots each turn: a step of the one being taken, parts for peers, and the state
//! of a peer in place of the own.

use crate::codec;
use crate::ids::{Slot, Time};
use crate::message::{Message, SnapshotPart};
use crate::output::{Incoming, PartForPeer};
use crate::seams::{
    Network, Origin, SnapshotEvent, SnapshotInfo, SnapshotStore, StateMachine, Wal,
};
use crate::snapshot::{Restored, Restoring, Serving, Step, Taking, kept_bytes};

use super::Driver;

/// Steps of a snapshot are at least this far apart: with their size that bounds the share of the loop's time that
/// they take.
const STEP_NS: u64 = 500_000;
/// Steps are this much larger while what commands overwrite gathers.
const HURRY: usize = 4;
/// How often the store is asked while it has something to finish.
const POLL_NS: u64 = 2_000_000;

pub(super) struct Snapshots<S, M> {
    pub(super) store: S,
    writing: Writing<M>,
    serving: Serving,
    /// When the next step of the one being taken is due.
    step_at: Time,
    /// When to look at the store again although nothing else happens.
    wake_at: Option<Time>,
    counters: Counters,
}

/// What the store is writing.
enum Writing<M> {
    Nothing,
    Taking(Box<Taking>),
    /// Every byte is with the store.
    Taken(Slot),
    Receiving(SnapshotInfo, Box<Restoring<M>>),
    /// Every byte came, is intact and with the store.
    Received(SnapshotInfo, Box<Restored<M>>),
}

#[derive(Clone, Debug, Default)]
struct Counters {
    parts_sent: u64,
    parts_dropped: u64,
    over_limit: u64,
    unreadable: u64,
}

impl<S, M> Snapshots<S, M> {
    pub(super) fn new(store: S) -> Snapshots<S, M> {
        Snapshots {
            store,
            writing: Writing::Nothing,
            serving: Serving::default(),
            step_at: Time::default(),
            wake_at: None,
            counters: Counters::default(),
        }
    }

    pub(super) fn wake_at(&self) -> Option<Time> {
        self.wake_at
    }

    fn is_taking(&self) -> bool {
        matches!(self.writing, Writing::Taking(_) | Writing::Taken(_))
    }

    fn is_receiving(&self) -> bool {
        matches!(self.writing, Writing::Receiving(..) | Writing::Received(..))
    }
}

impl<W: Wal, N: Network, M: StateMachine, S: SnapshotStore> Driver<W, N, M, S> {
    /// Before the turn's other work: what the store finished. A state that comes from a peer takes the place of the
    /// own here, between two turns.
    pub(super) fn take_from_store(&mut self, now: Time) {
        while let Some(event) = self.snapshots.store.poll() {
            match event {
                SnapshotEvent::Durable(snapshot) => self.snapshot_durable(now, snapshot),
                SnapshotEvent::Failed { slot, .. } => self.snapshot_failed(now, slot),
                SnapshotEvent::Read {
                    slot,
                    offset,
                    bytes,
                } => {
                    if let Some(part) = self.snapshots.serving.read(slot, offset) {
                        self.send_part(part, bytes);
                    }
                }
                SnapshotEvent::Unreadable { slot, .. } => {
                    self.snapshots.counters.unreadable += 1;
                    self.snapshots.serving.forget(slot);
                    self.replica.snapshot_lost(slot);
                }
            }
        }
        let backlog_max = self.replica.config().limits.snapshot_backlog_bytes_max;
        let has_room = self.snapshots.store.backlog() < backlog_max;
        self.replica.pace_download(now, has_room, &mut self.out);
    }

    fn snapshot_durable(&mut self, now: Time, snapshot: SnapshotInfo) {
        match std::mem::replace(&mut self.snapshots.writing, Writing::Nothing) {
            Writing::Taken(slot) if slot == snapshot.slot => self.replica.snapshot_taken(snapshot),
            Writing::Received(expected, restored) if expected == snapshot => {
                self.install(now, snapshot, *restored);
            }
            other => self.snapshots.writing = other,
        }
    }

    fn install(&mut self, now: Time, snapshot: SnapshotInfo, restored: Restored<M>) {
        if !self.replica.may_install(snapshot.slot) {
            return self.replica.download_failed(now);
        }
        let Restored { state, members, .. } = restored;
        let counters = std::mem::take(&mut self.state.sessions.counters);
        let values_malformed = self.state.values_malformed;
        let scratch = std::mem::take(&mut self.state.scratch);
        self.state = state;
        self.comparison.replaced();
        self.state.scratch = scratch;
        self.state.sessions.counters = counters;
        self.state.values_malformed = values_malformed;
        self.replica.install(now, snapshot, members, &mut self.out);
    }

    fn snapshot_failed(&mut self, now: Time, slot: Slot) {
        let failed = match &self.snapshots.writing {
            Writing::Nothing => return,
            Writing::Taking(taking) => taking.slot(),
            Writing::Taken(slot) => *slot,
            Writing::Receiving(snapshot, _) | Writing::Received(snapshot, _) => snapshot.slot,
        };
        if failed != slot {
            return;
        }
        if self.snapshots.is_taking() {
            self.stop_taking();
            self.replica.snapshot_failed();
        } else {
            self.snapshots.writing = Writing::Nothing;
            self.replica.download_failed(now);
        }
    }

    fn stop_taking(&mut self) {
        self.snapshots.writing = Writing::Nothing;
        self.state.sessions.end_snapshot();
        self.state.machine.end_snapshot();
    }

    /// After everything chosen is applied.
    pub(super) fn run_snapshots(&mut self, now: Time) {
        if let Some(floor) = self.out.trim.take() {
            self.wal.trim(floor);
            self.snapshots.store.drop_below(floor.previous());
        }
        let mut incoming = std::mem::take(&mut self.out.incoming);
        for incoming in incoming.drain(..) {
            self.receive(now, incoming);
        }
        self.out.incoming = incoming;
        for part in self.out.parts.drain(..) {
            if !self.snapshots.serving.ask(part) {
                self.snapshots.counters.parts_dropped += 1;
            }
        }
        self.serve(now);
        self.take_snapshot(now);
        self.snapshots.wake_at = match &self.snapshots.writing {
            Writing::Taking(_) => Some(self.snapshots.step_at),
            Writing::Taken(_) | Writing::Receiving(..) | Writing::Received(..) => {
                Some(now.plus(POLL_NS))
            }
            Writing::Nothing if self.snapshots.serving.is_idle() => None,
            Writing::Nothing => Some(now.plus(POLL_NS)),
        };
    }

    fn take_snapshot(&mut self, now: Time) {
        let snapshots = &mut self.snapshots;
        if matches!(snapshots.writing, Writing::Nothing) && self.replica.snapshot_due() {
            self.replica.snapshot_begun();
            let members = self.replica.members();
            let taking = Taking::begin(
                &mut self.state,
                members,
                self.replica.appended(),
                &mut snapshots.store,
            );
            snapshots.writing = Writing::Taking(Box::new(taking));
            snapshots.step_at = now;
        }
        let Writing::Taking(taking) = &mut snapshots.writing else {
            return;
        };
        if now < snapshots.step_at {
            return;
        }
        snapshots.step_at = now.plus(STEP_NS);
        let limits = &self.replica.config().limits;
        let hurry = kept_bytes(&self.state) > limits.snapshot_kept_bytes_max / HURRY;
        let bytes = limits.snapshot_step_bytes * if hurry { HURRY } else { 1 };
        let durable = self.replica.durable();
        match taking.step(
            &mut self.state,
            &mut snapshots.store,
            bytes,
            limits,
            durable,
        ) {
            Step::More => {}
            Step::Written => snapshots.writing = Writing::Taken(taking.slot()),
            Step::OverLimit => {
                snapshots.counters.over_limit += 1;
                snapshots.store.abandon();
                self.stop_taking();
                self.replica.snapshot_failed();
            }
        }
    }

    fn receive(&mut self, now: Time, incoming: Incoming) {
        match incoming {
            Incoming::Begin(snapshot) => {
                self.snapshots.store.abandon();
                self.stop_taking();
                let restoring = Restoring::new(self.state.machine.empty());
                self.snapshots.writing = Writing::Receiving(snapshot, Box::new(restoring));
                self.snapshots.store.begin(snapshot.slot);
            }
            Incoming::Part(bytes) => {
                let Writing::Receiving(_, restoring) = &mut self.snapshots.writing else {
                    return;
                };
                if restoring.take(&bytes).is_err() {
                    return self.refuse_download(now);
                }
                self.snapshots.store.append(bytes);
            }
            Incoming::Complete => self.received(now),
            Incoming::Abandon => {
                if self.snapshots.is_receiving() {
                    self.snapshots.store.abandon();
                    self.snapshots.writing = Writing::Nothing;
                }
            }
        }
    }

    fn received(&mut self, now: Time) {
        let writing = std::mem::replace(&mut self.snapshots.writing, Writing::Nothing);
        let Writing::Receiving(snapshot, restoring) = writing else {
            self.snapshots.writing = writing;
            return;
        };
        let fits = |restored: &Restored<M>| {
            restored.checksum == snapshot.checksum && restored.state.applied() == snapshot.slot
        };
        match restoring.finish().ok().filter(fits) {
            Some(restored) => {
                self.snapshots
                    .store
                    .finish(snapshot.checksum, Origin::Ahead);
                self.snapshots.writing = Writing::Received(snapshot, Box::new(restored));
            }
            None => self.refuse_download(now),
        }
    }

    fn refuse_download(&mut self, now: Time) {
        self.snapshots.store.abandon();
        self.snapshots.writing = Writing::Nothing;
        self.replica.download_failed(now);
    }

    fn serve(&mut self, now: Time) {
        let rate = self.replica.config().limits.snapshot_bytes_per_s;
        let snapshots = &mut self.snapshots;
        while let Some(part) = snapshots.serving.next(now, rate) {
            let (slot, offset) = (part.snapshot.slot, part.offset);
            if snapshots.store.read(slot, offset, part.bytes) {
                snapshots.serving.reading(part);
            } else {
                snapshots.counters.parts_dropped += 1;
            }
        }
    }

    fn send_part(&mut self, part: PartForPeer, bytes: bytes::Bytes) {
        self.snapshots.counters.parts_sent += 1;
        let message = Message::SnapshotPart(SnapshotPart {
            snapshot: part.snapshot,
            offset: part.offset,
            bytes,
        });
        let frame = codec::encode(&message);
        self.network.send(part.to, codec::lane(&message), frame);
    }

    pub(super) fn report_snapshots(&self, report: &mut dyn FnMut(&'static str, u64)) {
        let counters = &self.snapshots.counters;
        report("snapshot_kept_bytes", kept_bytes(&self.state) as u64);
        report("snapshot_parts_sent", counters.parts_sent);
        report("snapshot_parts_dropped", counters.parts_dropped);
        report("snapshots_over_limit", counters.over_limit);
        report("snapshots_unreadable", counters.unreadable);
        self.snapshots.store.counters(report);
    }
}
