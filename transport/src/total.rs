//! What several holders hold together, in bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Shared by all that count into it.
#[derive(Clone, Default)]
pub struct Total(Arc<AtomicUsize>);

/// A part of a total, given back when it is dropped.
pub struct Held {
    total: Total,
    bytes: usize,
}

impl Total {
    pub fn bytes(&self) -> usize {
        self.0.load(Relaxed)
    }

    pub fn add(&self, bytes: usize) {
        self.0.fetch_add(bytes, Relaxed);
    }

    /// # Panics
    /// If it gives back what was never added.
    pub fn sub(&self, bytes: usize) {
        let before = self.0.fetch_sub(bytes, Relaxed);
        assert!(before >= bytes, "more was given back than was ever taken");
    }

    /// Takes a part, unless the total would be over the limit. An empty total takes anything, so that nothing is refused
    /// for ever.
    pub fn hold(&self, bytes: usize, bytes_max: usize) -> Option<Held> {
        let before = self.bytes();
        if before > 0 && before + bytes > bytes_max {
            return None;
        }
        self.add(bytes);
        Some(Held {
            total: self.clone(),
            bytes,
        })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.total.sub(self.bytes);
    }
}
