//! What a replica does about snapshots: when one is due, how far the WAL may go, helping a peer to one, and getting one.

use crate::download::{Download, Taken};
use crate::ids::{ReplicaId, Slot, Time};
use crate::members::Members;
use crate::message::{FetchSnapshot, Message, Record, SnapshotPart};
use crate::output::{Incoming, Output};
use crate::seams::SnapshotInfo;

use super::{Replica, Role};

impl Replica {
    /// Whether to take a snapshot now.
    pub fn snapshot_due(&self) -> bool {
        self.download.is_none()
            && self
                .retention
                .due(self.persist.appended_bytes(), self.slots.commit_index())
    }

    /// Who takes part according to what is applied: part of a snapshot.
    pub fn members(&self) -> &Members {
        self.slots.members()
    }

    pub fn newest_snapshot(&self) -> SnapshotInfo {
        self.retention.newest()
    }

    /// The slot of the last snapshot that this replica took over from a peer; zero without one.
    pub fn installed(&self) -> Slot {
        self.retention.installed_slot()
    }

    /// The one that was due is being taken.
    pub fn snapshot_begun(&mut self) {
        let appended = self.persist.appended_bytes();
        self.retention.begun(&self.config.limits, appended);
    }

    /// It is durable.
    pub fn snapshot_taken(&mut self, snapshot: SnapshotInfo) {
        self.retention.taken(snapshot);
    }

    /// It could not be written, or was given up.
    pub fn snapshot_failed(&mut self) {
        let appended = self.persist.appended_bytes();
        self.retention.failed(&self.config.limits, appended);
    }

    /// A complete one can't be read any more.
    pub fn snapshot_lost(&mut self, slot: Slot) {
        self.retention.lost(slot);
    }

    /// Lets the WAL go as far as durable snapshots, and peers that are being helped, allow. The record of the floor is
    /// durable before anything is freed.
    pub(super) fn retain(&mut self, now: Time, out: &mut Output) {
        if self.retention.is_trimming() {
            return;
        }
        let appended = self.persist.appended_bytes();
        let floor = self.retention.floor(now, &self.config, appended);
        if floor > self.acceptor.trim_floor() {
            self.raise_floor(now, floor, out);
        }
    }

    fn raise_floor(&mut self, now: Time, floor: Slot, out: &mut Output) {
        let lsn = self.persist.append(now, Record::Trimmed { floor }, out);
        self.acceptor.trim(floor);
        self.retention.trimming(lsn, floor);
    }

    /// At a start from a snapshot that is ahead of the WAL, before any other record: if it gets lost, nobody must take
    /// what the WAL says of the slots that it covers for chosen, or for all that this replica acknowledged.
    ///
    /// A crash between the snapshot and the record of the floor leads here. Without the record a later start from an
    /// older snapshot would find records whose commit index lies above, and take the newest earlier record of each slot
    /// for the chosen value, which may be one that a deposed leader never got chosen.
    pub fn started_ahead(&mut self, now: Time, covers: Slot, out: &mut Output) {
        self.raise_floor(now, covers.next(), out);
    }

    pub(super) fn on_fetch_snapshot(
        &mut self,
        now: Time,
        from: ReplicaId,
        fetch: &FetchSnapshot,
        out: &mut Output,
    ) {
        let stands_for_floor = self.acceptor.trim_floor().previous();
        if self.retention.newest().slot < stands_for_floor {
            // What is below the floor is nowhere here any more: neither this peer nor another can be helped.
            self.retention.want(stands_for_floor);
        }
        let appended = self.persist.appended_bytes();
        out.parts
            .extend(self.retention.serve(now, from, fetch, appended));
    }

    /// A peer asked for slots from `from` on that this replica can't give: trimmed, or below its snapshot and
    /// unreadable. It gets the beginning of the newest snapshot instead.
    pub fn offer_snapshot(&mut self, now: Time, to: ReplicaId, from: Slot, out: &mut Output) {
        if self.retention.newest().slot < from {
            // None covers it yet. The peer asks again, and nobody else may be there to help it.
            if from <= self.slots.commit_index() {
                self.retention.want(from);
            }
            return;
        }
        let fetch = FetchSnapshot {
            snapshot: None,
            offset: 0,
            bytes: self.config.limits.snapshot_part_bytes,
        };
        self.counters.snapshots_offered += 1;
        self.on_fetch_snapshot(now, to, &fetch, out);
    }

    /// Whether a snapshot is on its way here, with signs of life.
    pub(super) fn is_downloading(&self, now: Time) -> bool {
        let silence_ns = self.config.timers.election_timeout_ns;
        self.download
            .as_ref()
            .is_some_and(|download| download.is_complete() || download.silent_ns(now) < silence_ns)
    }

    pub(super) fn begin_download(&mut self, now: Time, source: ReplicaId, out: &mut Output) {
        self.counters.downloads_begun += 1;
        self.download = Some(Download::new(
            now,
            source,
            self.config.limits.snapshot_part_bytes,
        ));
        self.continue_download(now, out);
    }

    /// Asks for what comes next, and again for what got lost. When the source has gone silent, whoever else can help
    /// is asked.
    pub(super) fn continue_download(&mut self, now: Time, out: &mut Output) {
        let commit_index = self.slots.commit_index();
        let Some(download) = &mut self.download else {
            return;
        };
        if download.slot().is_some_and(|slot| slot <= commit_index) {
            return self.end_download(out);
        }
        let patience_ns = self.config.timers.election_timeout_ns;
        if !download.is_complete() && download.silent_ns(now) >= patience_ns {
            let except = Some(download.source());
            let other = self
                .election
                .best_source(now, &self.config, commit_index, Slot::ZERO, except)
                .or_else(|| {
                    self.election
                        .snapshot_source(now, &self.config, commit_index, except)
                });
            if other.is_some() {
                self.fetches.pause(download.source(), now);
                self.end_download(out);
                return self.fetch_if_behind(now, 0, Slot(u64::MAX), out);
            }
        }
        let (source, retry_ns) = (download.source(), self.config.timers.retransmit_ns);
        while let Some(fetch) = download.ask(now, retry_ns) {
            self.counters.snapshot_parts_asked += 1;
            out.send(source, Message::FetchSnapshot(fetch));
        }
    }

    /// Before each turn's work: whether the disk can take more of what comes in.
    pub fn pace_download(&mut self, now: Time, has_room: bool, out: &mut Output) {
        if let Some(download) = &mut self.download
            && download.pace(now, has_room)
        {
            self.continue_download(now, out);
        }
    }

    pub(super) fn end_download(&mut self, out: &mut Output) {
        if self.download.take().is_some() {
            out.incoming.push(Incoming::Abandon);
        }
    }

    pub(super) fn catch_up_deadline(&self) -> Option<Time> {
        let retry_ns = self.config.timers.retransmit_ns;
        match &self.download {
            Some(download) => Some(download.deadline(retry_ns)),
            None => {
                let impatient_at = self.learner.impatient_at(retry_ns);
                impatient_at.map(|at| at.max(self.fetches.deadline()))
            }
        }
    }

    pub(super) fn on_snapshot_part(
        &mut self,
        now: Time,
        from: ReplicaId,
        part: SnapshotPart,
        out: &mut Output,
    ) {
        let commit_index = self.slots.commit_index();
        let leads = self.leads();
        let offered = self.download.is_none() && part.offset == 0;
        if offered && self.may_install(part.snapshot.slot) {
            self.counters.downloads_begun += 1;
            let part_bytes = self.config.limits.snapshot_part_bytes;
            self.download = Some(Download::new(now, from, part_bytes));
        }
        let Some(download) = &mut self.download else {
            return;
        };
        if leads || download.source() != from {
            self.counters.snapshot_parts_unwanted += 1;
            return;
        }
        match download.take(now, &part, commit_index) {
            Taken::Unwanted => self.counters.snapshot_parts_unwanted += 1,
            Taken::First => {
                out.incoming.push(Incoming::Begin(part.snapshot));
                self.take_part(now, part, out);
            }
            Taken::Next => self.take_part(now, part, out),
        }
    }

    fn take_part(&mut self, now: Time, part: SnapshotPart, out: &mut Output) {
        let commit_index = self.slots.commit_index();
        self.learner.progressed(now, commit_index);
        out.incoming.push(Incoming::Part(part.bytes));
        let complete = self.download.as_ref().is_some_and(Download::is_complete);
        if complete {
            out.incoming.push(Incoming::Complete);
        }
        self.continue_download(now, out);
    }

    /// What came in is no snapshot, or could not be made durable: another attempt follows after a pause.
    pub fn download_failed(&mut self, now: Time) {
        if let Some(download) = self.download.take() {
            self.counters.downloads_failed += 1;
            let pause_ns = self.config.timers.election_timeout_ns;
            self.fetches.pause(download.source(), now.plus(pause_ns));
        }
    }

    /// Whether a snapshot at `slot` would bring this replica ahead: a leader holds everything, and another may have
    /// caught up in the meantime.
    pub fn may_install(&self, slot: Slot) -> bool {
        !self.leads() && slot > self.slots.commit_index()
    }

    /// A snapshot that came from a peer is durable: it becomes this replica's state, which the caller changes in the
    /// same turn. The acknowledgement of its slots waits for the record of the floor, and so for the snapshot
    /// (ClickHouse/NuRaft#121 acknowledged first).
    pub fn install(
        &mut self,
        now: Time,
        snapshot: SnapshotInfo,
        members: Members,
        out: &mut Output,
    ) {
        let slot = snapshot.slot;
        assert!(
            self.may_install(slot),
            "a snapshot of {slot} is installed at {}",
            self.slots.commit_index()
        );
        self.download = None;
        self.slots.install(slot, members);
        let appended = self.persist.appended_bytes();
        self.retention
            .installed(snapshot, &self.config.limits, appended);
        self.raise_floor(now, slot.next(), out);
        self.acceptor.caught_up(slot, self.persist.appended());
        self.caught_up(now, out);
        if matches!(self.role, Role::Candidate(_)) {
            self.continue_phase1(now, out);
        }
        self.deliver_to_self(now, out);
    }

    pub(super) fn report_snapshots(&self, report: &mut dyn FnMut(&'static str, u64)) {
        let (own, kept) = (&self.counters, &self.retention.counters);
        report("snapshot_slot", self.retention.newest().slot.0);
        report("snapshot_bytes", self.retention.newest().bytes);
        report("snapshots_taken", kept.snapshots_taken);
        report("snapshots_failed", kept.snapshots_failed);
        report("snapshots_installed", kept.snapshots_installed);
        report("pins_expired", kept.pins_expired);
        report("snapshots_offered", own.snapshots_offered);
        report("downloads_begun", own.downloads_begun);
        report("downloads_failed", own.downloads_failed);
        report("snapshot_parts_asked", own.snapshot_parts_asked);
        report("snapshot_parts_unwanted", own.snapshot_parts_unwanted);
    }
}
