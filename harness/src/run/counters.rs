//! What the replicas counted during the measured window, over restarts.

use std::collections::BTreeMap;

use synod_engine::ids::ReplicaId;

use crate::turn_watch::LONGEST_TURN_US;

/// One replica's counters and watermarks, by name.
pub type Status = BTreeMap<String, u64>;

/// Reported beside the counters, but no counts: a difference or a sum of them means nothing.
const NOT_COUNTERS: [&str; 33] = [
    "replica",
    "leading",
    "leader",
    "ballot_round",
    "commit_index",
    "applied",
    "state_hash",
    "trim_floor",
    "lsn_appended",
    "lsn_durable",
    "intake_bytes",
    "window_slots",
    "sessions",
    "wal_writes_in_flight",
    "wal_bytes_in_flight",
    "wal_pending_bytes",
    "wal_pending_bytes_peak",
    "wal_index_slots",
    "wal_index_runs",
    "wal_segments_live",
    "wal_segments_ready",
    "wal_disk_full",
    "voting",
    "slots_missing",
    "snapshot_slot",
    "snapshot_bytes",
    "snapshot_kept_bytes",
    "snapshot_files",
    "snapshot_backlog_bytes",
    "snapshot_backlog_bytes_peak",
    "wal_appended_lsn",
    "wal_sealed_lsn",
    "wal_durable_lsn",
];

/// A counter starts again from zero with its process: what a killed process counted is carried.
#[derive(Default)]
pub struct WindowCounters {
    /// Each living process's values when its part of the window began.
    base: BTreeMap<ReplicaId, Status>,
    carried: Status,
}

impl WindowCounters {
    pub fn begin(&mut self, statuses: &BTreeMap<ReplicaId, Status>) {
        self.base = statuses.clone();
    }

    /// The process of `replica` is about to be killed, and last reported `status`.
    pub fn killed(&mut self, replica: ReplicaId, status: &Status) {
        let base = self.base.remove(&replica).unwrap_or_default();
        add_difference(&mut self.carried, &base, status);
    }

    /// The sum over all replicas of what was counted inside the window.
    pub fn end(mut self, statuses: &BTreeMap<ReplicaId, Status>) -> Status {
        let nothing = Status::new();
        for (replica, status) in statuses {
            let base = self.base.get(replica).unwrap_or(&nothing);
            add_difference(&mut self.carried, base, status);
        }
        // Neither differences nor sums: those of the replica that had the longest turn of its life.
        let longest = |status: &&Status| status.get(LONGEST_TURN_US).copied();
        if let Some(status) = statuses.values().max_by_key(longest) {
            let turn = status.iter().filter(|(name, _)| is_longest(name));
            self.carried
                .extend(turn.map(|(name, value)| (name.clone(), *value)));
        }
        self.carried
    }
}

fn is_longest(name: &str) -> bool {
    name.starts_with("longest_")
}

fn add_difference(sum: &mut Status, base: &Status, status: &Status) {
    for (name, value) in status {
        if NOT_COUNTERS.contains(&name.as_str()) || is_longest(name) {
            continue;
        }
        let before = base.get(name).copied().unwrap_or(0);
        let counted = sum.entry(name.clone()).or_insert(0);
        *counted = counted.saturating_add(value.saturating_sub(before));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statuses(values: &[(u8, u64)]) -> BTreeMap<ReplicaId, Status> {
        values
            .iter()
            .map(|(id, syncs)| (ReplicaId(*id), Status::from([("syncs".to_owned(), *syncs)])))
            .collect()
    }

    #[test]
    fn the_longest_turn_is_that_of_one_replica_and_no_sum() {
        let status = |whole, apply| {
            let values = [("longest_turn_us", whole), ("longest_turn_apply_us", apply)];
            values.map(|(name, value)| (name.to_owned(), value)).into()
        };
        let statuses = BTreeMap::from([
            (ReplicaId(1), status(70, 60)),
            (ReplicaId(2), status(90, 5)),
            (ReplicaId(3), status(80, 75)),
        ]);
        let mut window = WindowCounters::default();
        window.begin(&statuses);
        assert_eq!(window.end(&statuses), status(90, 5));
    }

    #[test]
    fn a_restart_within_the_window_is_counted_once() {
        let mut window = WindowCounters::default();
        window.begin(&statuses(&[(1, 10), (2, 100)]));
        let last = Status::from([("syncs".to_owned(), 15)]);
        window.killed(ReplicaId(1), &last);
        let sum = window.end(&statuses(&[(1, 3), (2, 140)]));
        assert_eq!(sum["syncs"], 5 + 3 + 40);
    }
}
