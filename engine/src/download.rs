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
            let newer = self
                .snapshot
                .is_none_or(|known| known.slot < snapshot.slot && self.asked > self.received);
            if !newer || part.offset != 0 || snapshot.slot <= newer_than {
                return Taken::Unwanted;
            }
            self.snapshot = Some(snapshot);
            self.received = length;
            self.asked = length;
            self.progress_at = now;
            return Taken::First;
        }
        // Parts that nobody asked for could come faster than the disk takes them.
        if part.offset != self.received || part.offset >= self.asked {
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

#[cfg(test)]
mod tests {
    use super::*;

    const RETRY_NS: u64 = 100;
    const PART: u64 = 10;

    fn info(slot: u64, bytes: u64) -> SnapshotInfo {
        SnapshotInfo {
            slot: Slot(slot),
            bytes,
            checksum: slot,
        }
    }

    fn part(snapshot: SnapshotInfo, offset: u64, length: u64) -> SnapshotPart {
        SnapshotPart {
            snapshot,
            offset,
            bytes: vec![0; length as usize].into(),
        }
    }

    fn asked(download: &mut Download, now: u64) -> Vec<u64> {
        std::iter::from_fn(|| download.ask(Time(now), RETRY_NS))
            .map(|fetch| fetch.offset)
            .collect()
    }

    fn begun(snapshot: SnapshotInfo) -> Download {
        let mut download = Download::new(Time(0), ReplicaId(2), PART as u32);
        assert_eq!(asked(&mut download, 0), [0]);
        let taken = download.take(Time(1), &part(snapshot, 0, PART), Slot(3));
        assert_eq!(taken, Taken::First);
        download
    }

    #[test]
    fn a_few_parts_are_asked_for_ahead_and_lost_ones_again() {
        let snapshot = info(9, 75);
        let mut download = begun(snapshot);
        assert_eq!(asked(&mut download, 1), [10, 20, 30, 40]);
        assert_eq!(asked(&mut download, 2), [0; 0]);
        assert_eq!(
            download.take(Time(5), &part(snapshot, 20, PART), Slot(3)),
            Taken::Unwanted
        );
        assert_eq!(
            download.take(Time(5), &part(snapshot, 10, PART), Slot(3)),
            Taken::Next
        );
        assert_eq!(asked(&mut download, 5), [50]);
        let again = download.deadline(RETRY_NS);
        assert_eq!(again, Time(105));
        // Not before a pause, and then only what is missing.
        assert_eq!(asked(&mut download, 104), [0; 0]);
        assert_eq!(asked(&mut download, 105), [20, 30, 40, 50]);
        for offset in (20..70).step_by(10) {
            let next = part(snapshot, offset, PART);
            assert_eq!(download.take(Time(110), &next, Slot(3)), Taken::Next);
            asked(&mut download, 110);
        }
        assert!(!download.is_complete());
        let last = part(snapshot, 70, 5);
        assert_eq!(download.take(Time(111), &last, Slot(3)), Taken::Next);
        assert!(download.is_complete());
        // The source learns now and then that what comes behind is still needed.
        assert_eq!(download.ask(Time(150), RETRY_NS), None);
        let sign = download.ask(Time(210), RETRY_NS);
        assert_eq!(sign.map(|fetch| fetch.offset), Some(75));
    }

    #[test]
    fn a_newer_snapshot_starts_over_and_an_older_or_odd_one_does_not() {
        let mut download = begun(info(9, 75));
        assert_eq!(asked(&mut download, 1), [10, 20, 30, 40]);
        for odd in [
            part(info(8, 75), 0, PART),
            part(info(9, 74), 0, PART),
            part(info(11, 75), 10, PART),
            part(info(11, 75), 0, 7),
            part(info(11, 75), 0, 0),
            part(info(11, 5), 0, PART),
        ] {
            assert_eq!(
                download.take(Time(2), &odd, Slot(3)),
                Taken::Unwanted,
                "{odd:?}"
            );
        }
        let newer = part(info(11, 75), 0, PART);
        assert_eq!(download.take(Time(2), &newer, Slot(11)), Taken::Unwanted);
        assert_eq!(download.take(Time(2), &newer, Slot(10)), Taken::First);
        assert_eq!(download.slot(), Some(Slot(11)));
        assert_eq!(asked(&mut download, 2), [10, 20, 30, 40]);
    }

    #[test]
    fn what_nobody_asked_for_is_unwanted_however_well_it_fits() {
        let snapshot = info(9, 75);
        let mut download = begun(snapshot);
        download.pace(Time(2), false);
        let next = part(snapshot, 10, PART);
        let newer = part(info(11, 75), 0, PART);
        for unasked in [&next, &newer] {
            let taken = download.take(Time(2), unasked, Slot(3));
            assert_eq!(taken, Taken::Unwanted);
        }
        assert!(download.pace(Time(3), true));
        assert_eq!(asked(&mut download, 3), [10, 20, 30, 40]);
        assert_eq!(download.take(Time(4), &next, Slot(3)), Taken::Next);
    }

    #[test]
    fn nothing_is_asked_for_while_the_disk_cannot_follow() {
        let snapshot = info(9, 75);
        let mut download = begun(snapshot);
        assert!(!download.pace(Time(2), false));
        assert_eq!(asked(&mut download, 2), [0; 0]);
        assert!(download.pace(Time(900), true));
        assert!(download.silent_ns(Time(950)) < RETRY_NS);
        assert_eq!(asked(&mut download, 950), [10, 20, 30, 40]);
    }
}
