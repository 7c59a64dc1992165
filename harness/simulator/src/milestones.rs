//! What happened that only a counter shows: a simulation in which nothing of it did proves little.

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Milestones {
    /// Snapshots that became durable.
    pub snapshots_durable: u64,
    /// Starts from a snapshot.
    pub starts_from_snapshot: u64,
    /// Starts whose snapshot ended below the trim floor, so that a peer had to help.
    pub starts_below_floor: u64,
    /// Snapshots of peers that became a replica's state.
    pub snapshots_installed: u64,
    /// Damaged snapshots that a start met.
    pub damaged_found: u64,
    /// Sessions that the agreed log evicted.
    pub sessions_evicted: u64,
    /// Tries of writes to the WAL that found no room.
    pub writes_without_room: u64,
    /// Starts without a snapshot that was ahead of the WAL when the replica died.
    pub snapshots_ahead_lost: u64,
    /// Of these, starts whose WAL held values that were never chosen, of slots that the snapshot covered.
    pub snapshots_ahead_lost_over_stale: u64,
    /// Times that a replica compared its state with a peer's, and found it equal.
    pub states_compared: u64,
}

impl Milestones {
    pub fn merge(&mut self, other: &Milestones) {
        self.snapshots_durable += other.snapshots_durable;
        self.starts_from_snapshot += other.starts_from_snapshot;
        self.starts_below_floor += other.starts_below_floor;
        self.snapshots_installed += other.snapshots_installed;
        self.damaged_found += other.damaged_found;
        self.sessions_evicted += other.sessions_evicted;
        self.writes_without_room += other.writes_without_room;
        self.snapshots_ahead_lost += other.snapshots_ahead_lost;
        self.snapshots_ahead_lost_over_stale += other.snapshots_ahead_lost_over_stale;
        self.states_compared += other.states_compared;
    }

    /// By name, as they are printed.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        [
            ("snapshots-durable", self.snapshots_durable),
            ("starts-from-snapshot", self.starts_from_snapshot),
            ("starts-below-floor", self.starts_below_floor),
            ("snapshots-installed", self.snapshots_installed),
            ("damaged-snapshots-found", self.damaged_found),
            ("sessions-evicted", self.sessions_evicted),
            ("writes-without-room", self.writes_without_room),
            ("snapshots-ahead-lost", self.snapshots_ahead_lost),
            (
                "snapshots-ahead-lost-over-stale",
                self.snapshots_ahead_lost_over_stale,
            ),
            ("states-compared", self.states_compared),
        ]
        .into_iter()
    }
}
