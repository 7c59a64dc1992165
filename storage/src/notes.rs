//! Lines for the operator about what happens while the WAL runs.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

/// Lines kept until somebody takes them; beyond that the oldest go, since each was counted where it arose.
const NOTES_MAX: usize = 64;

/// A handle: clones share the lines.
#[derive(Clone, Default)]
pub struct Notes(Arc<Mutex<VecDeque<String>>>);

impl Notes {
    pub(crate) fn add(&self, line: String) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() >= NOTES_MAX {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    /// The lines since the last call, oldest first.
    pub fn take(&self) -> Vec<String> {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.drain(..).collect()
    }
}
