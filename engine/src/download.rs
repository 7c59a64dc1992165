//! The way of a snapshot to a replica that is below the trim floor: asked for part by part, a few ahead, so that what
//! is on the way is bounded by who receives it, and a lost part or a broken link costs what was ahead, not the rest.

use crate::ids::{ReplicaId, Slot, Time};
use crate::message::{FetchSnapshot, SnapshotPart};
use crate::seams::SnapshotInfo;
use crate::snapshot::PARTS_AHEAD;

#[derive(Clone, Debug)]
pub struct Download {
    source: ReplicaId,
    part_bytes: u32,
    /// Which one; unknown until the first part came.
    snapshot: Option<SnapshotInfo>,
    /// Every byte below is here.
    received: u64,
    /// Parts that begin below were asked for.
    asked: u64,
    /// When to ask again for what did not come.
    retry_at: Time,
    /// When a part came last, or this began.
    progress_at: Time,
    /// The disk has to catch up first.
    paused: bool,
}

/// What to do with a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is the first of a snapshot: what came of another one is void.
    First,
    Next,
    /// Not what comes next: dropped, and asked for again if it is missing.
    Unwanted,
}

impl Download {
    pub fn new(now: Time, source: ReplicaId, part_bytes: u32) -> Download {
        Download {
            source,
            part_bytes,
            snapshot: None,
            received: 0,
            asked: 0,
            retry_at: now,
            progress_at: now,
            paused: false,
        }
    }

    pub fn source(&self) -> ReplicaId {
        self.source
    }

    /// The slot of the snapshot, once it is known.
    pub fn slot(&self) -> Option<Slot> {
        self.snapshot.map(|snapshot| snapshot.slot)
    }

    /// Whether every byte is here: from then on it is the disk's turn.
    pub fn is_complete(&self) -> bool {
        self.snapshot
            .is_some_and(|snapshot| self.received == snapshot.bytes)
    }

    /// For how long nothing came that was waited for.
    pub fn silent_ns(&self, now: Time) -> u64 {
        now.since(self.progress_at)
    }

    /// Stops asking while the disk can't follow. Returns whether it goes on again now.
    pub fn pace(&mut self, now: Time, has_room: bool) -> bool {
        let resumes = self.paused && has_room;
        if self.paused {
            // Silence of the source is not to be told from this replica's own.
            self.progress_at = now;
        }
        self.paused = !has_room;
        resumes
    }

    /// Takes the next part, in order. `newer_than` is what this replica holds anyway.
    pub fn take(&mut self, now: Time, part: &SnapshotPart, newer_than: Slot) -> Taken {
        let length = part.bytes.len() as u64;
        let snapshot = part.snapshot;
        let end = part.offset.saturating_add(length);
        let whole = length == u64::from(self.part_bytes) || end == snapshot.bytes;
        if self.is_complete() || length == 0 || !whole || end > snapshot.bytes {
            return Taken::Unwanted;
        }
        if self.snapshot != Some(snapshot) {
            // The source has a newer one by now, and perhaps no longer the former.
            let newer = self.snapshot.is_none_or(|known| known.slot < snapshot.slot);
            if !newer || part.offset != 0 || snapshot.slot <= newer_than {
                return Taken::Unwanted;
            }
            self.snapshot = Some(snapshot);
            self.received = length;
            self.asked = length;
            self.progress_at = now;
            return Taken::First;
        }
        if part.offset != self.received {
            return Taken::Unwanted;
        }
        self.received = end;
        self.asked = self.asked.max(end);
        self.progress_at = now;
        Taken::Next
    }

    /// What to ask for now; after `retry_ns` without a part, again from where it stopped. While the disk is busy with
    /// the last parts, the source is told every `retry_ns` that what comes behind is still needed.
    pub fn ask(&mut self, now: Time, retry_ns: u64) -> Option<FetchSnapshot> {
        if self.is_complete() {
            let due = now >= self.retry_at;
            self.retry_at = if due {
                now.plus(retry_ns)
            } else {
                self.retry_at
            };
            return due.then_some(FetchSnapshot {
                snapshot: self.snapshot,
                offset: self.received,
                bytes: self.part_bytes,
            });
        }
        if self.paused {
            return None;
        }
        if now >= self.retry_at && self.silent_ns(now) >= retry_ns {
            self.asked = self.received;
        }
        let (snapshot, limit, end) = match self.snapshot {
            None => (None, 1, 1),
            Some(snapshot) => {
                let limit = self.received + PARTS_AHEAD * u64::from(self.part_bytes);
                (Some(snapshot), limit, snapshot.bytes)
            }
        };
        if self.asked >= limit.min(end) {
            return None;
        }
        let offset = self.asked;
        self.asked += u64::from(self.part_bytes);
        self.retry_at = now.plus(retry_ns);
        Some(FetchSnapshot {
            snapshot,
            offset,
            bytes: self.part_bytes,
        })
    }

    /// When [`Download::ask`] is due again although nothing comes.
    pub fn deadline(&self, retry_ns: u64) -> Time {
        if self.is_complete() {
            self.retry_at
        } else {
            self.retry_at.max(self.progress_at.plus(retry_ns))
        }
    }
}
