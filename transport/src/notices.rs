//! Log lines about failing connections, at a bounded rate: an attempt fails several times per second.

use std::fmt::Display;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// The same text is repeated at most this often.
const REPEAT_AFTER: Duration = Duration::from_secs(10);
/// Any texts at all are written at most this often.
const LINE_AFTER: Duration = Duration::from_millis(200);
/// The same about strangers, who can make up a new text for each packet.
const STRANGERS_LINE_AFTER: Duration = Duration::from_secs(10);
/// Of what somebody else said, characters.
const WORDS_MAX: usize = 160;

/// The notices about one subject.
pub struct Notices {
    last: Mutex<Option<Last>>,
    line_after: Duration,
}

struct Last {
    at: Instant,
    text: String,
    suppressed: u64,
}

impl Default for Notices {
    fn default() -> Notices {
        Notices {
            last: Mutex::default(),
            line_after: LINE_AFTER,
        }
    }
}

impl Notices {
    /// About those whom nobody knows.
    pub fn rare() -> Notices {
        Notices {
            line_after: STRANGERS_LINE_AFTER,
            ..Notices::default()
        }
    }

    /// Warns, unless the same was said a moment ago.
    pub fn warn(&self, text: String) {
        let mut last = self.last.lock().expect("no holder of notices panics");
        let mut suppressed = 0;
        if let Some(last) = last.as_mut() {
            let after = if last.text == text {
                REPEAT_AFTER
            } else {
                self.line_after
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

/// An error whose text is in part the other side's, fit for a line of the log: it may hold anything, line ends among it.
pub fn words(said: &dyn Display) -> String {
    let said = said.to_string();
    let mut words = String::new();
    for (index, character) in said.chars().enumerate() {
        if index == WORDS_MAX {
            words.push('…');
            break;
        }
        match character.is_control() {
            true => words.extend(character.escape_default()),
            false => words.push(character),
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_say_is_one_short_line() {
        let forged = "no\r\n2026-01-01 WARN replica 2 is gone \u{1b}[2J\u{85}";
        let said = words(&forged);
        assert_eq!(
            said,
            "no\\r\\n2026-01-01 WARN replica 2 is gone \\u{1b}[2J\\u{85}"
        );
        assert_eq!(words(&"ü".repeat(500)).chars().count(), WORDS_MAX + 1);
        assert_eq!(words(&"plain \"words\""), "plain \"words\"");
    }

    #[test]
    fn strangers_get_a_line_in_ten_seconds_and_hide_nothing_about_peers() {
        let (peers, strangers) = (Notices::default(), Notices::rare());
        for number in 0..1_000 {
            strangers.warn(format!("stranger {number}"));
        }
        peers.warn("a peer".to_owned());
        let suppressed = |notices: &Notices| {
            let last = notices.last.lock().expect("nobody panics");
            last.as_ref().map(|last| last.suppressed)
        };
        assert_eq!(suppressed(&strangers), Some(999));
        assert_eq!(suppressed(&peers), Some(0));
    }
}
