//! Handing out snapshots: which parts peers asked for, and when the next one may go.

use std::collections::VecDeque;

use crate::ids::{Slot, Time};
use crate::output::PartForPeer;

use super::{PART_BYTES_MAX, PARTS_AHEAD};

/// Parts that may wait to be read; what is asked for beyond is asked for again.
const WAITING_MAX: usize = 32;
/// Parts that the store reads at once.
pub const READING_MAX: usize = 8;

#[derive(Clone, Debug, Default)]
pub struct Serving {
    waiting: VecDeque<PartForPeer>,
    /// For whom the store reads which part.
    reading: Vec<PartForPeer>,
    /// Bytes that may go now; they come back with time.
    allowance: u64,
    allowed_at: Time,
}

impl Serving {
    /// Returns false if too much waits already.
    pub fn ask(&mut self, request: PartForPeer) -> bool {
        if self.waiting.contains(&request) {
            return true;
        }
        if self.waiting.len() >= WAITING_MAX {
            return false;
        }
        self.waiting.push_back(request);
        true
    }

    /// The next part to read, at most `bytes_per_s` of them.
    pub fn next(&mut self, now: Time, bytes_per_s: u64) -> Option<PartForPeer> {
        let bytes = self.waiting.front()?.bytes as u64;
        if self.reading.len() >= READING_MAX {
            return None;
        }
        let earned = u128::from(now.since(self.allowed_at)) * u128::from(bytes_per_s);
        let earned = u64::try_from(earned / 1_000_000_000).unwrap_or(u64::MAX);
        if earned > 0 {
            // A burst of what one peer may have on its way.
            let most = PARTS_AHEAD * PART_BYTES_MAX as u64;
            self.allowance = self.allowance.saturating_add(earned).min(most);
            self.allowed_at = now;
        }
        if self.allowance < bytes {
            return None;
        }
        self.allowance -= bytes;
        self.waiting.pop_front()
    }

    /// The store reads this part.
    pub fn reading(&mut self, part: PartForPeer) {
        self.reading.push(part);
    }

    /// Who waits for a part that was read.
    pub fn read(&mut self, slot: Slot, offset: u64) -> Option<PartForPeer> {
        let asked = |part: &PartForPeer| (part.snapshot.slot, part.offset) == (slot, offset);
        let place = self.reading.iter().position(asked)?;
        Some(self.reading.swap_remove(place))
    }

    /// A snapshot can't be read: whoever waits for it asks again, and gets another.
    pub fn forget(&mut self, slot: Slot) {
        self.reading.retain(|part| part.snapshot.slot != slot);
    }

    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.reading.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ReplicaId;
    use crate::seams::SnapshotInfo;

    fn part(to: u8, offset: u64) -> PartForPeer {
        PartForPeer {
            to: ReplicaId(to),
            snapshot: SnapshotInfo {
                slot: Slot(1),
                bytes: 1 << 40,
                checksum: 0,
            },
            offset,
            bytes: PART_BYTES_MAX,
        }
    }

    #[test]
    fn parts_go_out_at_the_rate_that_is_set_after_one_burst() {
        let mut serving = Serving::default();
        let mut sent = 0;
        let rate = 4 * PART_BYTES_MAX as u64;
        for ms in 0..3_000 {
            serving.ask(part(2, ms));
            while serving.next(Time(ms * 1_000_000), rate).is_some() {
                sent += 1;
            }
        }
        assert!((10..=16).contains(&sent), "{sent} parts in three seconds");
    }

    #[test]
    fn what_is_asked_for_twice_waits_once_and_the_queue_ends() {
        let mut serving = Serving::default();
        assert!(serving.ask(part(2, 0)));
        assert!(serving.ask(part(2, 0)));
        assert_eq!(serving.waiting.len(), 1);
        let taken = (1..100).filter(|i| serving.ask(part(3, *i))).count();
        assert_eq!(taken, WAITING_MAX - 1);
    }
}
