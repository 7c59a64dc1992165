//! What the event loop did, in numbers: watermarks and counters by their names, and the work of the last turn.

use crate::seams::{Network, SnapshotStore, StateMachine, Wal};
use crate::work::Work;

use super::Driver;

impl<W: Wal, N: Network, M: StateMachine, S: SnapshotStore> Driver<W, N, M, S> {
    /// What the last turn did.
    pub fn work(&self) -> Work {
        self.done().since(&self.before)
    }

    /// What was done since the start. Kept as counters anyway: nothing is counted per command for this.
    pub(super) fn done(&self) -> Work {
        let sessions = &self.state.sessions.counters;
        Work {
            messages: self.counters.messages,
            commands: sessions.commands_applied
                + sessions.duplicates_skipped
                + sessions.gaps_skipped
                + sessions.unknown_skipped,
            sessions: sessions.sessions_opened
                + sessions.sessions_evicted
                + sessions.sessions_emptied,
            bytes: self.counters.applied_bytes + self.state.scratch.bytes_written,
        }
    }

    /// Takes in what the process around this loop counted so far, for [`Driver::report`].
    pub fn note_counter(&mut self, name: &'static str, value: u64) {
        let mut known = self.counted_outside.iter_mut();
        match known.find(|(other, _)| *other == name) {
            Some((_, known)) => *known = value,
            None => self.counted_outside.push((name, value)),
        }
    }

    /// Every watermark and counter by its name.
    pub fn report(&self, report: &mut dyn FnMut(&'static str, u64)) {
        self.replica.report(report);
        let sessions = &self.state.sessions.counters;
        let door = &self.door.counters;
        report("applied", self.state.applied().0);
        report("state_hash", self.state.machine.hash());
        self.report_comparison(report);
        report("applied_commands", sessions.commands_applied);
        report("duplicates_skipped", sessions.duplicates_skipped);
        report("gaps_skipped", sessions.gaps_skipped);
        report("unknown_skipped", sessions.unknown_skipped);
        report("sessions", self.state.sessions.len() as u64);
        report("sessions_opened", sessions.sessions_opened);
        report("sessions_evicted", sessions.sessions_evicted);
        report("sessions_refused", sessions.sessions_refused);
        report("sessions_closed", sessions.sessions_closed);
        report("requests_admitted", door.requests_admitted);
        report("requests_repeated", door.requests_repeated);
        report("replies_repeated", door.replies_repeated);
        report("refused_busy", door.refused_busy);
        report("refused_gap", door.refused_gap);
        report("refused_not_leader", door.refused_not_leader);
        report("refused_unknown_session", door.refused_unknown_session);
        report("refused_not_attached", door.refused_not_attached);
        report("refused_over_limit", door.refused_over_limit);
        report("values_malformed", self.state.values_malformed);
        report("replies_dropped", self.state.scratch.replies_dropped);
        report("sessions_emptied", sessions.sessions_emptied);
        report("turns", self.counters.turns);
        report("frames_malformed", self.counters.frames_malformed);
        report("clients_expelled", self.counters.clients_expelled);
        report("status_built", self.status.built);
        report("status_coalesced", self.status.coalesced);
        report("reads_dropped", self.counters.reads_dropped);
        self.report_snapshots(report);
        self.wal.counters(report);
        self.network.counters(report);
        for (name, value) in &self.counted_outside {
            report(name, *value);
        }
    }
}
