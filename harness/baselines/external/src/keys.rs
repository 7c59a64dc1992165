//! Which key each write gets.

use std::collections::VecDeque;

/// The keys of one client.
pub enum Keys {
    /// A new one for each write: its number.
    Unique,
    /// Bounded, the longest unused first. A key in use is not given again, so that the order in which a key's writes
    /// were acknowledged is the order in which they happened.
    Bounded { free: VecDeque<u64> },
}

impl Keys {
    pub fn bounded(count: u64) -> Keys {
        Keys::Bounded {
            free: (0..count).collect(),
        }
    }

    /// How many writes may be in flight at once, if that is limited.
    pub fn in_flight_max(&self) -> Option<usize> {
        match self {
            Keys::Unique => None,
            // Half of them rest, so that a late repeat of an old attempt does not meet the next write.
            Keys::Bounded { free } => Some(free.len() / 2),
        }
    }

    /// The key for write `number`.
    pub fn take(&mut self, number: u64) -> u64 {
        match self {
            Keys::Unique => number,
            Keys::Bounded { free } => free.pop_front().expect("fewer writes in flight than keys"),
        }
    }

    pub fn give_back(&mut self, key: u64) {
        match self {
            Keys::Unique => {}
            Keys::Bounded { free } => free.push_back(key),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_in_use_is_not_given_again() {
        let mut keys = Keys::bounded(4);
        assert_eq!(keys.in_flight_max(), Some(2));
        assert_eq!((keys.take(1), keys.take(2)), (0, 1));
        keys.give_back(1);
        let next: Vec<u64> = (3..6).map(|number| keys.take(number)).collect();
        assert_eq!(next, [2, 3, 1], "0 is in use, 1 rested shortest");
    }

    #[test]
    fn unique_keys_are_the_numbers() {
        let mut keys = Keys::Unique;
        assert_eq!((keys.take(5), keys.in_flight_max()), (5, None));
    }
}
