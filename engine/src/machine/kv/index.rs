//! Where each key stands: a hash table that never stops the world to grow.
//!
//! It is many small tables, and each grows by itself: what has to be moved at once is a few thousand small entries, not
//! millions. An entry keeps its key's whole hash, so that growing looks at no key. The order of the entries depends on
//! the hashes and is never shown to anyone.

use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Tables: a power of two.
const SHARDS: usize = 256;
/// Which bits of a hash choose the table: neither those that choose the bucket in it (the lowest) nor those that tell
/// entries of a bucket apart (the highest).
const SHARD_SHIFT: u32 = 40;

#[derive(Clone, Debug)]
pub struct Index {
    shards: Box<[HashTable<Entry>]>,
    /// Drawn at random for each table: keys come from clients, who must not know beforehand which ones collide. Nothing
    /// that leaves this table depends on it.
    seed: u64,
    len: usize,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    hash: u64,
    place: u32,
}

impl Index {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn hash(&self, key: &[u8]) -> u64 {
        xxh3_64_with_seed(key, self.seed)
    }

    /// The place of the key with this hash; `is_it` tells whether the key stands at a place.
    pub fn get(&self, hash: u64, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        let found =
            self.shards[shard(hash)].find(hash, |entry| entry.hash == hash && is_it(entry.place));
        found.map(|entry| entry.place)
    }

    /// Notes the place of a key that is not there yet.
    pub fn insert(&mut self, hash: u64, place: u32) {
        let entry = Entry { hash, place };
        self.shards[shard(hash)].insert_unique(hash, entry, |entry| entry.hash);
        self.len += 1;
    }

    pub fn remove(&mut self, hash: u64, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        let table = &mut self.shards[shard(hash)];
        let found = table
            .find_entry(hash, |entry| entry.hash == hash && is_it(entry.place))
            .ok()?;
        self.len -= 1;
        Some(found.remove().0.place)
    }
}

impl Default for Index {
    fn default() -> Index {
        Index {
            shards: (0..SHARDS).map(|_| HashTable::new()).collect(),
            seed: RandomState::new().hash_one(0),
            len: 0,
        }
    }
}

fn shard(hash: u64) -> usize {
    (hash >> SHARD_SHIFT) as usize % SHARDS
}
