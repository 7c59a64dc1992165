//! Log lines about failing connections, at a bounded rate: an attempt fails several times per second.

use std::sync::Mutex;
use std::time::{Duration, Instant};

/// The same text is repeated at most this often.
const REPEAT_AFTER: Duration = Duration::from_secs(10);
/// Any texts at all are written at most this often.
const LINE_AFTER: Duration = Duration::from_millis(200);

/// The notices about one subject.
#[derive(Default)]
pub struct Notices {
    last: Mutex<Option<Last>>,
}

struct Last {
    at: Instant,
    text: String,
    suppressed: u64,
}

impl Notices {
    /// Warns, unless the same was said a moment ago.
    pub fn warn(&self, text: String) {
        let mut last = self.last.lock().expect("no holder of notices panics");
        let mut suppressed = 0;
        if let Some(last) = last.as_mut() {
            let after = if last.text == text {
                REPEAT_AFTER
            } else {
                LINE_AFTER
            };
            if last.at.elapsed() < after {
                last.suppressed += 1;
                return;
            }
            suppressed = last.suppressed;
        }
        if suppressed > 0 {
            tracing::warn!("{text} ({suppressed} such lines were left out)");
        } else {
            tracing::warn!("{text}");
        }
        *last = Some(Last {
            at: Instant::now(),
            text,
            suppressed: 0,
        });
    }
}
