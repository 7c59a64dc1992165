//! Reads a fault; an error points at the word that is wrong and names what could stand there.

use std::collections::BTreeSet;
use std::str::FromStr;

use synod_engine::ids::{REPLICAS_MAX, ReplicaId};

use super::{Action, Fault, Who};

const ACTIONS: &str = "kill, stop, isolate, crowd or partition";
const WHO: &str = "leader, follower, all or replicas such as 1,2";
const SIDES: &str = "sides such as 1,2|3";
const TIME: &str = "a time such as 5s, 1.5s or 500ms";
/// A day: the longest window of a run.
const TIME_MS_MAX: u64 = 86_400_000;

/// The words of a fault, and how far it was read.
struct Words<'a> {
    text: &'a str,
    rest: &'a str,
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Fault, String> {
        let mut words = Words { text, rest: text };
        let action = match words.next(ACTIONS)? {
            "kill" => Action::Kill(words.who()?),
            "stop" => Action::Stop(words.who()?),
            "isolate" => Action::Isolate(words.who()?),
            "crowd" => Action::Crowd(words.who()?),
            "partition" => Action::Partition(words.sides()?),
            other => return Err(words.refuse(other, ACTIONS)),
        };
        words.keyword("at")?;
        let at_ms = words.time()?;
        let returns = matches!(action, Action::Kill(_));
        let for_ms = match words.rest.trim().is_empty() && returns {
            true => None,
            false => {
                words.keyword("for")?;
                Some(words.time()?)
            }
        };
        match words.rest.split_whitespace().next() {
            Some(word) => Err(words.refuse(word, "nothing more")),
            None => Ok(Fault {
                action,
                at_ms,
                for_ms,
            }),
        }
    }
}

impl<'a> Words<'a> {
    fn next(&mut self, wanted: &str) -> Result<&'a str, String> {
        let rest = self.rest.trim_start();
        let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
        let (word, rest) = rest.split_at(end);
        if word.is_empty() {
            return Err(format!("`{}` ends where {wanted} should follow", self.text));
        }
        self.rest = rest;
        Ok(word)
    }

    fn keyword(&mut self, wanted: &str) -> Result<(), String> {
        match self.next(&format!("`{wanted}`"))? {
            word if word == wanted => Ok(()),
            other => Err(self.refuse(other, &format!("`{wanted}`"))),
        }
    }

    fn who(&mut self) -> Result<Who, String> {
        match self.next(WHO)? {
            "leader" => Ok(Who::Leader),
            "follower" => Ok(Who::Follower),
            "all" => Ok(Who::All),
            word => match replicas(word) {
                Some(ids) => Ok(Who::Replicas(ids)),
                None => Err(self.refuse(word, WHO)),
            },
        }
    }

    fn sides(&mut self) -> Result<Vec<BTreeSet<ReplicaId>>, String> {
        let word = self.next(SIDES)?;
        let sides: Option<Vec<_>> = word.split('|').map(replicas).collect();
        let sides = match sides {
            Some(sides) if sides.len() >= 2 => sides,
            Some(_) | None => return Err(self.refuse(word, SIDES)),
        };
        let mut seen = BTreeSet::new();
        match sides.iter().flatten().find(|id| !seen.insert(**id)) {
            Some(twice) => {
                let wanted = format!("each replica on one side only; {} is on two", twice.0);
                Err(self.refuse(word, &wanted))
            }
            None => Ok(sides),
        }
    }

    fn time(&mut self) -> Result<u64, String> {
        let word = self.next(TIME)?;
        milliseconds(word).ok_or_else(|| self.refuse(word, TIME))
    }

    /// Points at `word`, which is a part of the text.
    fn refuse(&self, word: &str, wanted: &str) -> String {
        let at = word.as_ptr() as usize - self.text.as_ptr() as usize;
        let column = self.text[..at].chars().count();
        format!(
            "`{word}` where {wanted} should be\n  {}\n  {}{}",
            self.text,
            " ".repeat(column),
            "^".repeat(word.chars().count())
        )
    }
}

/// `1,2,5`, each once.
fn replicas(text: &str) -> Option<BTreeSet<ReplicaId>> {
    let mut ids = BTreeSet::new();
    for id in text.split(',') {
        let id: u8 = id.parse().ok()?;
        if !(1..=REPLICAS_MAX).contains(&id) || !ids.insert(ReplicaId(id)) {
            return None;
        }
    }
    Some(ids)
}

fn milliseconds(text: &str) -> Option<u64> {
    let (number, scale) = match text.strip_suffix("ms") {
        Some(number) => (number, 1.0),
        None => (text.strip_suffix('s')?, 1_000.0),
    };
    let plain = number.chars().all(|c| c.is_ascii_digit() || c == '.');
    let ms = number.parse::<f64>().ok().filter(|_| plain)? * scale;
    // What is finer than a millisecond is refused; what a decimal fraction is off by is not.
    let whole = (ms - ms.round()).abs() < 1e-6;
    (whole && ms <= TIME_MS_MAX as f64).then_some(ms.round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_written_the_same() {
        for (text, kind, at_ms, until_ms) in [
            ("kill leader at 5s", "kill-leader", 5_000, 6_000),
            ("kill all at 2s", "crash-all", 2_000, 2_200),
            ("kill follower at 1s for 3s", "kill-follower", 1_000, 4_000),
            ("kill 1,3 at 0s for 250ms", "kill", 0, 250),
            ("stop leader at 1500ms for 2s", "stop-leader", 1_500, 3_500),
            ("isolate 2 at 3s for 1s", "isolate", 3_000, 4_000),
            ("crowd all at 1s for 20s", "crowd-all", 1_000, 21_000),
            ("partition 1,2|3 at 10s for 5s", "partition", 10_000, 15_000),
            ("partition 1|2|3,4 at 1s for 1s", "partition", 1_000, 2_000),
        ] {
            let fault: Fault = text.parse().unwrap();
            assert_eq!(fault.to_string(), text);
            assert_eq!((&*fault.kind(), fault.at_ms), (kind, at_ms), "{text}");
            assert_eq!(fault.until_ms(), until_ms, "{text}");
        }
        let fractions: Fault = "  stop   2  at 4.35s for 0.25s ".parse().unwrap();
        assert_eq!(fractions.to_string(), "stop 2 at 4350ms for 250ms");
    }

    #[test]
    fn an_error_points_at_its_word_and_names_the_alternatives() {
        for (text, word, column, wanted) in [
            ("burn leader at 5s", "burn", 0, ACTIONS),
            ("kill boss at 5s", "boss", 5, WHO),
            ("kill 1,1 at 5s", "1,1", 5, WHO),
            ("kill 0 at 5s", "0", 5, WHO),
            ("kill leader in 5s", "in", 12, "`at`"),
            ("kill leader at 5", "5", 15, TIME),
            ("kill leader at -5s", "-5s", 15, TIME),
            ("kill leader at 0.0001s", "0.0001s", 15, TIME),
            ("kill leader at 5s until 6s", "until", 18, "`for`"),
            ("stop 1 at 5s for 6s more", "more", 20, "nothing more"),
            ("partition 1,2 at 5s for 1s", "1,2", 10, SIDES),
            (
                "partition 1,2|2 at 5s for 1s",
                "1,2|2",
                10,
                "each replica on one side only; 2 is on two",
            ),
        ] {
            let error = text.parse::<Fault>().unwrap_err();
            let mark = format!("  {}{}", " ".repeat(column), "^".repeat(word.len()));
            let expected = format!("`{word}` where {wanted} should be\n  {text}\n{mark}");
            assert_eq!(error, expected);
        }
        for (text, wanted) in [
            ("", ACTIONS),
            ("kill", WHO),
            ("kill leader at", TIME),
            ("stop leader at 5s", "`for`"),
            ("partition 1|2 at 5s", "`for`"),
        ] {
            let error = text.parse::<Fault>().unwrap_err();
            assert_eq!(error, format!("`{text}` ends where {wanted} should follow"));
        }
    }

    #[test]
    fn a_fault_has_to_fit_its_run() {
        for (text, complaint) in [
            ("kill leader at 10s", "window is over"),
            ("stop 1 at 9s for 2s", "longer than the measured window"),
            ("kill 4 at 1s", "no replica 4"),
            ("partition 1|7 at 1s for 1s", "no replica 7"),
        ] {
            let fault: Fault = text.parse().unwrap();
            let error = fault.check(3, 10).unwrap_err().to_string();
            assert!(error.contains(complaint), "{error}");
        }
        let fault: Fault = "kill leader at 9s".parse().unwrap();
        assert!(fault.check(3, 10).is_ok(), "it may return after the window");
    }
}
