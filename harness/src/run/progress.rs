//! Shows how a run goes, on stderr: one live line on a terminal, plain lines elsewhere.

use std::io::IsTerminal;

use crate::log;

pub struct Progress {
    terminal: bool,
    /// Before each line; a run among many shows only what it is doing now, and that on terminals only.
    within: Option<String>,
}

const CLEAR_LINE: &str = "\r\x1b[2K";

impl Progress {
    pub fn new() -> Progress {
        Progress {
            terminal: std::io::stderr().is_terminal(),
            within: None,
        }
    }

    /// Of a part of something larger, which tells by itself what is done.
    pub fn within(what: String) -> Progress {
        Progress {
            within: Some(what),
            ..Progress::new()
        }
    }

    /// A step that stays on the screen.
    pub fn step(&self, text: &str) {
        if self.within.is_some() {
            return self.live(text);
        }
        let clear = if self.terminal { CLEAR_LINE } else { "" };
        self.write(&format!("{clear}{text}\n"));
    }

    /// Something that the next line may replace.
    pub fn live(&self, text: &str) {
        match (&self.within, self.terminal) {
            (Some(what), true) => self.write(&format!("{CLEAR_LINE}{what}  {}", text.trim())),
            (Some(_), false) => {}
            (None, true) => self.write(&format!("{CLEAR_LINE}{text}")),
            (None, false) => self.write(&format!("{text}\n")),
        }
    }

    /// Takes the live line away.
    pub fn clear(&self) {
        if self.terminal {
            self.write(CLEAR_LINE);
        }
    }

    /// Nobody listening is no reason to stop, nor to wait: the faults of a run have their times.
    fn write(&self, text: &str) {
        log::text(text);
    }
}

/// So many of something, whose plural is regular.
pub fn counted(count: u64, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        _ => format!("{} {what}s", thousands(count)),
    }
}

/// 1234567 as `1,234,567`.
pub fn thousands(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_come_in_threes() {
        assert_eq!(thousands(0), "0");
        assert_eq!(thousands(999), "999");
        assert_eq!(thousands(1_234_567), "1,234,567");
    }

    #[test]
    fn one_is_not_many() {
        assert_eq!(counted(1, "host"), "1 host");
        assert_eq!(counted(0, "host"), "0 hosts");
        assert_eq!(counted(1_000, "client"), "1,000 clients");
    }
}
