//! Where the newest durable record of each slot stands.

use std::collections::BTreeMap;

use synod_engine::ids::Slot;

use crate::format::{SegmentIdentity, Sequence};

/// The place of one slot's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Location {
    pub sequence: Sequence,
    pub identity: SegmentIdentity,
    /// Of the group in its segment.
    pub offset: u64,
    pub group_bytes: u32,
    /// Of the record in its group.
    pub at: u32,
    /// Of the value.
    pub bytes: u32,
}

/// Bounded by what the live segments hold: an item for each slot above the trim floor.
#[derive(Default)]
pub struct Index {
    slots: BTreeMap<Slot, Location>,
}

impl Index {
    /// A later record of a slot replaces the earlier one.
    pub fn insert(&mut self, slot: Slot, location: Location) {
        self.slots.insert(slot, location);
    }

    /// Consecutive slots from `from` on, until the first gap or `through`, or until values reach `bytes_max`;
    /// at least one if there is one.
    pub fn find(
        &self,
        from: Slot,
        through: Slot,
        slots_max: usize,
        bytes_max: usize,
    ) -> Vec<(Slot, Location)> {
        let mut found = Vec::new();
        if from > through {
            return found;
        }
        let mut expected = from;
        let mut bytes = 0;
        for (slot, location) in self.slots.range(from..=through).take(slots_max) {
            let enough = !found.is_empty() && bytes + location.bytes as usize > bytes_max;
            if *slot != expected || enough {
                break;
            }
            found.push((*slot, *location));
            bytes += location.bytes as usize;
            expected = slot.next();
        }
        found
    }

    pub fn forget_below(&mut self, floor: Slot) {
        while let Some(first) = self.slots.first_entry() {
            if *first.key() >= floor {
                return;
            }
            first.remove();
        }
    }

    pub fn len(&self) -> usize {
        self.slots.len()
    }
}
