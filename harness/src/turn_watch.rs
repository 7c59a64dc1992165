//! How long the turns of a replica take, and which part of the longest one took how long. One reading of the clock for
//! each part of a turn, none per command.

use std::time::Instant;

use synod_engine::work::Stage;

/// Named as the counters are that tell of them.
const NAMES: [(Stage, &str); Stage::ALL.len()] = [
    (Stage::Store, "longest_turn_store_us"),
    (Stage::Arrivals, "longest_turn_arrivals_us"),
    (Stage::Core, "longest_turn_core_us"),
    (Stage::Persist, "longest_turn_persist_us"),
    (Stage::Replicate, "longest_turn_replicate_us"),
    (Stage::Apply, "longest_turn_apply_us"),
    (Stage::Serve, "longest_turn_serve_us"),
    (Stage::Flush, "longest_turn_flush_us"),
];

/// The whole of the longest turn.
pub const LONGEST_TURN_US: &str = "longest_turn_us";

#[derive(Debug)]
pub struct TurnWatch {
    began: Instant,
    last: Instant,
    /// Nanoseconds of each part of this turn.
    parts: [u64; NAMES.len()],
    longest_ns: u64,
}

impl TurnWatch {
    pub fn new() -> TurnWatch {
        let now = Instant::now();
        TurnWatch {
            began: now,
            last: now,
            parts: [0; NAMES.len()],
            longest_ns: 0,
        }
    }

    pub fn begin(&mut self) {
        self.begin_at(Instant::now());
    }

    /// This part of the turn is over.
    pub fn ended(&mut self, stage: Stage) {
        self.ended_at(stage, Instant::now());
    }

    /// The turn is over: if it was the longest so far, `note` is told of it and of its parts, in microseconds.
    pub fn end(&mut self, note: impl FnMut(&'static str, u64)) {
        self.end_at(Instant::now(), note);
    }

    fn begin_at(&mut self, now: Instant) {
        self.began = now;
        self.last = now;
        self.parts = [0; NAMES.len()];
    }

    fn ended_at(&mut self, stage: Stage, now: Instant) {
        self.parts[stage as usize] += nanos(self.last, now);
        self.last = now;
    }

    fn end_at(&mut self, now: Instant, mut note: impl FnMut(&'static str, u64)) {
        let whole = nanos(self.began, now);
        if whole <= self.longest_ns {
            return;
        }
        self.longest_ns = whole;
        note(LONGEST_TURN_US, whole / 1_000);
        for (stage, name) in NAMES {
            note(name, self.parts[stage as usize] / 1_000);
        }
    }
}

fn nanos(from: Instant, to: Instant) -> u64 {
    u64::try_from(to.saturating_duration_since(from).as_nanos()).unwrap_or(u64::MAX)
}

/// The part of a turn that took longest, by its word, of a replica's counters.
pub fn longest_part<'a>(counter: impl Fn(&str) -> Option<u64>) -> Option<(&'a str, u64)> {
    let parts = NAMES.iter().filter_map(|(_, name)| {
        let word = name.strip_prefix("longest_turn_")?.strip_suffix("_us")?;
        Some((word, counter(name)?))
    });
    parts.max_by_key(|(_, micros)| *micros)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;

    /// One turn with a long part, and what was noted of it.
    fn turn(watch: &mut TurnWatch, stage: Stage, millis: u64) -> BTreeMap<&'static str, u64> {
        let start = Instant::now();
        let mut noted = BTreeMap::new();
        watch.begin_at(start);
        let long = start + Duration::from_millis(millis);
        for part in Stage::ALL {
            let reached = part as usize >= stage as usize;
            watch.ended_at(part, if reached { long } else { start });
        }
        watch.end_at(long, |name, value| {
            noted.insert(name, value);
        });
        noted
    }

    #[test]
    fn the_longest_turn_is_told_with_the_part_that_took_it() {
        let mut watch = TurnWatch::new();
        for (name, stage) in NAMES.iter().map(|(stage, name)| (name, *stage)) {
            let millis = 10 + stage as u64;
            let noted = turn(&mut watch, stage, millis);
            assert_eq!(noted[LONGEST_TURN_US], millis * 1_000);
            assert_eq!(noted[name], millis * 1_000);
            let (word, micros) =
                longest_part(|name| noted.get(name).copied()).expect("it is known");
            assert_eq!(micros, millis * 1_000);
            assert!(name.contains(word), "{name} {word}");
        }
        assert!(turn(&mut watch, Stage::Apply, 5).is_empty());
    }
}
