//! A stream of numbers that a seed determines.

use crate::load::workload::splitmix;

#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Streams of different names are independent of each other.
    pub fn new(seed: u64, stream: u64) -> Random {
        let mut state = seed ^ stream.rotate_left(32);
        Random(splitmix(&mut state))
    }

    pub fn next(&mut self) -> u64 {
        splitmix(&mut self.0)
    }

    /// A number below `limit`, or 0 if that is 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next().checked_rem(limit).unwrap_or(0)
    }

    pub fn within(&mut self, range: std::ops::Range<u64>) -> u64 {
        range.start + self.below(range.end.saturating_sub(range.start))
    }

    pub fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for at in (1..items.len()).rev() {
            items.swap(at, self.below(at as u64 + 1) as usize);
        }
    }
}
