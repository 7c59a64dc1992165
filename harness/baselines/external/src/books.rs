//! What was acknowledged against what is there at the end.

use synod_harness::load::event::ReadBack;

/// The books of one client.
pub enum Books {
    /// Every write has its own key.
    Unique {
        acknowledged: Numbers,
        found: Numbers,
        found_again: u64,
    },
    /// Keys are written again. One write at a time per key, so numbers grow along each; 0 is none.
    Latest {
        acknowledged: Vec<u64>,
        found: Vec<u64>,
    },
}

impl Books {
    pub fn unique() -> Books {
        Books::Unique {
            acknowledged: Numbers::default(),
            found: Numbers::default(),
            found_again: 0,
        }
    }

    pub fn latest(keys: u64) -> Books {
        Books::Latest {
            acknowledged: vec![0; keys as usize],
            found: vec![0; keys as usize],
        }
    }

    /// Write `number` of `key` was acknowledged.
    pub fn acknowledged(&mut self, key: u64, number: u64) {
        match self {
            Books::Unique { acknowledged, .. } => {
                acknowledged.insert(number);
            }
            Books::Latest { acknowledged, .. } => acknowledged[key as usize] = number,
        }
    }

    /// The system has write `number` under `key`.
    pub fn found(&mut self, key: u64, number: u64) {
        match self {
            Books::Unique {
                found, found_again, ..
            } => *found_again += u64::from(!found.insert(number)),
            Books::Latest { found, .. } => {
                if let Some(newest) = found.get_mut(key as usize) {
                    *newest = number.max(*newest);
                }
            }
        }
    }

    pub fn balance(&self) -> ReadBack {
        match self {
            Books::Unique {
                acknowledged,
                found,
                found_again,
            } => ReadBack {
                checked: acknowledged.count(),
                lost: acknowledged.missing_in(found),
                repeated: *found_again,
            },
            // A newer one than acknowledged is fine: it was in flight at the end.
            Books::Latest {
                acknowledged,
                found,
            } => ReadBack {
                checked: acknowledged.iter().filter(|number| **number > 0).count() as u64,
                lost: acknowledged
                    .iter()
                    .zip(found)
                    .filter(|(acknowledged, found)| acknowledged > found)
                    .count() as u64,
                repeated: 0,
            },
        }
    }
}

/// A set of small numbers, one bit each.
#[derive(Default)]
pub struct Numbers(Vec<u64>);

/// 8 billion writes of one client, in 1 GiB.
const NUMBER_MAX: u64 = 1 << 33;

impl Numbers {
    /// Returns whether `number` was new.
    fn insert(&mut self, number: u64) -> bool {
        assert!(number < NUMBER_MAX, "no client writes {number} times");
        let (word, bit) = ((number / 64) as usize, 1 << (number % 64));
        if self.0.len() <= word {
            self.0.resize((word + 1).next_power_of_two(), 0);
        }
        let new = self.0[word] & bit == 0;
        self.0[word] |= bit;
        new
    }

    fn count(&self) -> u64 {
        self.0.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    fn missing_in(&self, other: &Numbers) -> u64 {
        let others = other.0.iter().copied().chain(std::iter::repeat(0));
        self.0
            .iter()
            .zip(others)
            .map(|(word, other)| u64::from((word & !other).count_ones()))
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_acknowledged_and_not_found_is_lost() {
        let mut books = Books::unique();
        for number in [1, 2, 3, 64, 1_000] {
            books.acknowledged(number, number);
        }
        for number in [1, 3, 3, 4, 64] {
            books.found(number, number);
        }
        let balance = ReadBack {
            checked: 5,
            lost: 2,
            repeated: 1,
        };
        assert_eq!(
            books.balance(),
            balance,
            "2 and 1,000 are lost, 3 is there twice"
        );
        books.found(2, 2);
        books.found(1_000, 1_000);
        assert_eq!(books.balance().lost, 0);
    }

    #[test]
    fn a_key_with_an_older_value_than_acknowledged_has_lost_one() {
        let mut books = Books::latest(4);
        for (key, number) in [(0, 1), (1, 2), (2, 3), (0, 4)] {
            books.acknowledged(key, number);
        }
        // Key 0 went back, 1 is as acknowledged, 2 has one that was in flight, 3 was never written.
        for (key, number) in [(0, 1), (1, 2), (2, 9), (99, 5)] {
            books.found(key, number);
        }
        let balance = ReadBack {
            checked: 3,
            lost: 1,
            repeated: 0,
        };
        assert_eq!(books.balance(), balance);
    }
}
