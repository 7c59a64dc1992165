//! Catching up by chosen slots of peers that hold them.

use crate::fetching::Question;
use crate::ids::{Slot, Time};
use crate::message::{Chosen, Fetch, Message, Record, Value};
use crate::output::Output;

use super::following::unpinned;
use super::{Replica, Role};

impl Replica {
    pub(super) fn on_chosen(&mut self, now: Time, chosen: Chosen, out: &mut Output) {
        if self.leads() {
            return;
        }
        let before = self.slots.commit_index();
        let bytes_max = self.config.limits.fetch_bytes_max;
        let asked = match self.fetches.answered(chosen.from, chosen.values, bytes_max) {
            Ok(()) => true,
            Err(values) => {
                self.learn(now, chosen.from, values, out);
                false
            }
        };
        self.take_answers(now, before, out);
        let commit_index = self.slots.commit_index();
        // Still behind: the next part at once, not after a pause.
        if asked {
            self.catch_up(now, 0, out);
        }
        if commit_index > before {
            self.continue_phase1(now, out);
        }
    }

    /// Learns what was answered and goes on behind the commit index, which was `before` when this turn of things began.
    fn take_answers(&mut self, now: Time, before: Slot, out: &mut Output) {
        while let Some((from, values)) = self.fetches.take(self.slots.commit_index()) {
            self.learn(now, from, values, out);
        }
        self.advance_by_leader(now, out);
        let commit_index = self.slots.commit_index();
        if commit_index > before {
            self.learner.progressed(now, commit_index);
            self.end_mending();
        }
    }

    fn learn(&mut self, now: Time, from: Slot, values: Vec<Value>, out: &mut Output) {
        let mut slot = from;
        for value in values.into_iter().map(unpinned) {
            if !self.persist.has_room() {
                self.counters.chosen_without_room += 1;
                break;
            }
            if slot == self.slots.commit_index().next() {
                let record = Record::Chosen {
                    slot,
                    value: value.clone(),
                };
                let lsn = self.persist.append(now, record, out);
                self.slots.choose(slot, value, lsn, out);
                self.acceptor.caught_up(slot, lsn);
                self.counters.slots_fetched += 1;
            }
            slot = slot.next();
        }
    }

    /// Asks peers for chosen slots up to `through` that did not come by themselves for `patience_ns`.
    pub(super) fn fetch_if_behind(
        &mut self,
        now: Time,
        patience_ns: u64,
        through: Slot,
        out: &mut Output,
    ) {
        if self.download.is_some() {
            return self.continue_download(now, out);
        }
        let held = self.slots.commit_index();
        if held >= self.learner.known() || !self.learner.is_impatient(now, patience_ns) {
            return;
        }
        let own = self.config.replica;
        let look_again_at = now.plus(self.config.timers.heartbeat_ns);
        if !self.persist.has_room() {
            // The disk has to catch up first.
            return self.fetches.pause(own, look_again_at);
        }
        // The stream may have brought what answers that are here were waiting for.
        self.take_answers(now, held, out);
        let held = self.slots.commit_index();
        let goal = through.min(self.learner.known());
        let ranges_max = self.config.limits.fetches_max;
        // However short the timers are: so many questions at a time and no more.
        for _ in 0..ranges_max {
            let Some(question) = self.fetches.next(now, held, goal, ranges_max) else {
                break;
            };
            if self.ask(now, question, out) {
                continue;
            }
            if question.from > held.next() {
                // What comes before is on its way.
                return;
            }
            let source = self
                .election
                .snapshot_source(now, &self.config, held, question.except);
            if let Some(source) = source {
                self.fetches.clear();
                return self.begin_download(now, source, out);
            }
            if matches!(self.role, Role::Follower) {
                let known = self.election.highest_commit_index(now, &self.config);
                self.learner.lower(known, held);
            }
            return self.fetches.pause(own, look_again_at);
        }
        if !self.fetches.waits() {
            // Nothing is asked for and nothing will come: it must not wake for that without end.
            self.fetches.pause(own, look_again_at);
        }
    }

    /// Sends a question to whoever can best answer it; false if nobody can, or if only somebody could who does not hear
    /// it while another one that does has a snapshot of what is missing.
    fn ask(&mut self, now: Time, question: Question, out: &mut Output) -> bool {
        let Question {
            from,
            through,
            except,
        } = question;
        let best = |except| {
            self.election
                .best_source(now, &self.config, from.previous(), through, except)
        };
        let Some(source) = best(except).or_else(|| best(None)) else {
            return false;
        };
        if from == self.slots.commit_index().next()
            && !self.election.is_heard_by(now, &self.config, source)
        {
            let snapshot = self
                .election
                .snapshot_source(now, &self.config, from.previous(), None);
            if snapshot.is_some_and(|peer| self.election.is_heard_by(now, &self.config, peer)) {
                return false;
            }
        }
        let until = now.plus(self.config.timers.retransmit_ns);
        self.fetches.asked(question, source, until);
        self.counters.fetches_sent += 1;
        out.send(source, Message::Fetch(Fetch { from, through }));
        true
    }
}
