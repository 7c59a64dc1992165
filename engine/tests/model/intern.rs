//! Equal things get one number, so that states are compared and kept as a few integers.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};

/// A multiplicative hash for short keys of integers: these maps are what a search spends its time in.
#[derive(Clone, Copy, Default)]
pub struct Quick(u64);

impl Hasher for Quick {
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 29)
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.write_u64(u64::from(value));
    }

    fn write_u32(&mut self, value: u32) {
        self.write_u64(u64::from(value));
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0.rotate_left(23) ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn write_usize(&mut self, value: usize) {
        self.write_u64(value as u64);
    }
}

pub type QuickMap<K, V> = HashMap<K, V, BuildHasherDefault<Quick>>;

/// Items by number and numbers by key.
pub struct Interner<K, T> {
    numbers: QuickMap<K, u32>,
    items: Vec<T>,
}

impl<K: Hash + Eq, T> Interner<K, T> {
    pub fn new() -> Interner<K, T> {
        Interner {
            numbers: QuickMap::default(),
            items: Vec::new(),
        }
    }

    /// The number of the item with this key, which `make` builds if it is new.
    pub fn number(&mut self, key: K, make: impl FnOnce(&K) -> T) -> u32 {
        if let Some(number) = self.numbers.get(&key) {
            return *number;
        }
        let number = self.items.len() as u32;
        self.items.push(make(&key));
        self.numbers.insert(key, number);
        number
    }

    pub fn get(&self, number: u32) -> &T {
        &self.items[number as usize]
    }

    pub fn len(&self) -> usize {
        self.items.len()
    }
}
