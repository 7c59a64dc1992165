//! Where a replay starts: behind everything that a snapshot covers, so that its time does not grow with history.

use synod_engine::ids::{Lsn, Slot};

use crate::disk::Disk;

use super::Recovery;
use super::glimpse::{Glimpse, SegmentFile};

impl<D: Disk> Recovery<'_, D> {
    /// The last segment with no slot above the snapshot's in any segment before. Only an intact header tells; it was
    /// sealed when everything before its segment was durable, so it holds even if its group is torn. Damage before it
    /// is passed over as well: what it hides is covered, but for the promise, which the header carries.
    pub(super) fn start(&self, glimpses: &[Glimpse]) -> usize {
        let covered = |glimpse: &Glimpse| {
            let header = glimpse.first_group();
            header.is_some_and(|header| header.carried.slot_max <= self.covers)
        };
        match self.covers {
            Slot::ZERO => 0,
            _ => glimpses.iter().rposition(covered).unwrap_or(0),
        }
    }

    /// Takes in what the header of the last of these segments says about those before it, which are not read.
    pub(super) fn pass_over(&mut self, glimpses: &[Glimpse]) {
        let Some((start, before)) = glimpses.split_last() else {
            return;
        };
        for (i, glimpse) in before.iter().enumerate() {
            let next = glimpses[i + 1].first_group();
            let end = next.map_or(0, |next| next.preceding_end);
            let skipped = matches!(glimpse.file, SegmentFile::Readable { .. });
            self.found.segments_skipped += u64::from(skipped);
            // The next header that there is: a segment must not pass for one of lower slots than it has.
            let above = glimpses[i + 1..].iter().find_map(Glimpse::first_group);
            let above = above.map(|header| header.carried).unwrap_or_default();
            self.found.carried = self.found.carried.max(above);
            self.leave(glimpse, end, 0);
        }
        // What is reported is what was replayed.
        self.found.bytes = 0;
        if let Some(header) = start.first_group() {
            self.found.last = Lsn(header.first.0 - 1);
        }
    }
}
