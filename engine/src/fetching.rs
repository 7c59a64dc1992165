//! Chosen slots that were asked of peers: several ranges on their way at once, put back into order as they arrive.

use std::collections::VecDeque;

use crate::ids::{ReplicaId, Slot, Time};
use crate::message::Value;

/// Slots of the first question, before an answer showed how many fit one.
const SLOTS_FIRST: u64 = 256;
/// No question names more.
const SLOTS_MAX: u64 = 4_096;

#[derive(Clone, Debug)]
pub struct Fetches {
    /// Lowest first, each above the one before.
    ranges: VecDeque<Range>,
    /// Slots that about fill an answer.
    slots: u64,
    /// Whether an answer showed that.
    is_measured: bool,
    /// Nothing is asked before, because of whom.
    pause: Option<(ReplicaId, Time)>,
}

#[derive(Clone, Debug)]
struct Range {
    from: Slot,
    through: Slot,
    source: ReplicaId,
    /// When to ask again if no answer came.
    until: Time,
    /// The answer, while one below is still missing.
    values: Option<Vec<Value>>,
}

/// What to ask for next, and who had better not be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    pub from: Slot,
    pub through: Slot,
    pub except: Option<ReplicaId>,
}

impl Fetches {
    pub fn new() -> Fetches {
        Fetches {
            ranges: VecDeque::new(),
            slots: SLOTS_FIRST,
            is_measured: false,
            pause: None,
        }
    }

    /// The next question, if one is due: what got no answer, or the lowest slots above `held` up to `goal` that nobody
    /// was asked for. At most `ranges_max` are under way or wait for one below; a single one until it is known how much
    /// fits an answer.
    pub fn next(
        &mut self,
        now: Time,
        held: Slot,
        goal: Slot,
        ranges_max: usize,
    ) -> Option<Question> {
        self.forget(held);
        let mut except = None;
        if let Some((source, until)) = self.pause {
            if now < until {
                return None;
            }
            except = Some(source);
        }
        let silent = |range: &Range| range.values.is_none() && now >= range.until;
        if let Some(at) = self.ranges.iter().position(silent) {
            let range = self.ranges.remove(at)?;
            return Some(Question {
                from: range.from,
                through: range.through.min(goal).max(range.from),
                except: Some(range.source),
            });
        }
        let ranges_max = if self.is_measured { ranges_max } else { 1 };
        let (from, below) = self.gap(held);
        // The first one is always asked for: what is there already waits for it.
        if self.ranges.len() >= ranges_max && from > held.next() {
            return None;
        }
        let through = goal.min(below).min(Slot(from.0 + self.slots - 1));
        (from <= through).then_some(Question {
            from,
            through,
            except,
        })
    }

    /// The lowest slot above `held` that is in no range, and the last one before the next range.
    fn gap(&self, held: Slot) -> (Slot, Slot) {
        let mut from = held.next();
        for range in &self.ranges {
            if range.from > from {
                return (from, range.from.previous());
            }
            from = range.through.next();
        }
        (from, Slot(u64::MAX))
    }

    pub fn asked(&mut self, question: Question, source: ReplicaId, until: Time) {
        self.pause = None;
        let at = self
            .ranges
            .partition_point(|range| range.from < question.from);
        self.ranges.insert(
            at,
            Range {
                from: question.from,
                through: question.through,
                source,
                until,
                values: None,
            },
        );
    }

    /// Nothing is asked before `until`, and then rather not of `source`.
    pub fn pause(&mut self, source: ReplicaId, until: Time) {
        self.pause = Some((source, until));
    }

    /// Takes an answer; gives it back if nobody waits for it. `bytes_max` is what an answer may hold.
    pub fn answered(
        &mut self,
        from: Slot,
        mut values: Vec<Value>,
        bytes_max: usize,
    ) -> Result<(), Vec<Value>> {
        let waits = |range: &&mut Range| range.from == from && range.values.is_none();
        let Some(range) = self.ranges.iter_mut().find(waits) else {
            return Err(values);
        };
        if values.is_empty() {
            return Err(values);
        }
        let asked = range.through.0 - from.0 + 1;
        values.truncate(asked as usize);
        let got = values.len() as u64;
        range.through = Slot(from.0 + got - 1);
        let bytes: usize = values.iter().map(Value::len).sum();
        range.values = Some(values);
        if bytes >= bytes_max / 2 {
            // About full. A little less is asked for, so that answers rarely end early.
            self.is_measured = true;
            if got < asked {
                self.slots = (got * 3 / 4).max(1);
            }
        } else if asked == self.slots && got == asked {
            self.is_measured = true;
            self.slots = (self.slots * 2).min(SLOTS_MAX);
        }
        Ok(())
    }

    /// The answer that goes on behind `held`, if it is there, and its first slot.
    pub fn take(&mut self, held: Slot) -> Option<(Slot, Vec<Value>)> {
        self.forget(held);
        let front = self.ranges.front()?;
        if front.from > held.next() || front.values.is_none() {
            return None;
        }
        let range = self.ranges.pop_front()?;
        Some((range.from, range.values?))
    }

    fn forget(&mut self, held: Slot) {
        let is_over = |range: &Range| range.through <= held;
        while self.ranges.front().is_some_and(is_over) {
            self.ranges.pop_front();
        }
    }

    /// Whatever comes now comes too late.
    pub fn clear(&mut self) {
        self.ranges.clear();
        self.pause = None;
    }

    /// Whether an answer is being waited for.
    pub fn waits(&self) -> bool {
        self.ranges.iter().any(|range| range.values.is_none())
    }

    /// When [`Fetches::next`] can next have a question that it has not now.
    pub fn deadline(&self) -> Time {
        let waiting = self.ranges.iter().filter(|range| range.values.is_none());
        let silent = waiting.map(|range| range.until).min();
        let pause = self.pause.map(|(_, until)| until);
        pause.max(silent).unwrap_or(Time(0))
    }
}

impl Default for Fetches {
    fn default() -> Fetches {
        Fetches::new()
    }
}
