//! Every fault by its name, sets of them, and how often each one struck.

use std::fmt;

/// What can go wrong in a simulation. A fault strikes when it changed what would have happened without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A frame between replicas is dropped.
    Loss,
    /// After a reconnect, the tail of a lane is delivered once more.
    Duplication,
    /// A frame takes far longer than usual.
    Delay,
    /// A frame overtakes an earlier one of another lane.
    Reordering,
    /// Some directed links fall silent.
    OneWay,
    /// The replicas part into groups that do not hear each other.
    Partition,
    /// Only one replica still hears all others; the leader is not that one.
    QuorumLoss,
    /// The leader is gone and only one replica hears a quorum.
    ConstrainedElection,
    /// A chain: neighbours hear each other, the ends do not.
    Chained,
    /// A link is many times slower for a while.
    SlowLink,
    /// A link goes up and down in quick succession.
    FlappingLink,
    /// A link stands still for seconds, then delivers everything.
    Clog,
    /// A process dies; what its disk had not finished survives in part.
    Crash,
    /// The power fails in the middle of a disk's work.
    PowerCut,
    /// A write that was under way at a crash reached the disk in some of its sectors.
    TornWrite,
    /// A replica dies again and again while it recovers.
    RestartStorm,
    /// A recycled segment full of valid groups of an earlier life comes into use.
    StaleSegment,
    /// A bit of synced data flips.
    BitRot,
    /// A sector of synced data holds what belongs elsewhere.
    MisdirectedWrite,
    /// A write that the disk acknowledged never arrived.
    LostWrite,
    /// A disk finishes nothing for a while.
    DiskStall,
    /// A write or sync fails.
    SyncError,
    /// The disk has no room for new files for a while.
    DiskFull,
    /// A replica loses its disk and returns with an empty one.
    Wipe,
    /// A process stands still while its clock goes on.
    Pause,
    /// A clock runs up to a tenth too fast or too slow.
    ClockDrift,
    /// A clock jumps ahead.
    ClockJump,
    /// A client sends again before a reply could have come.
    ClientRetry,
    /// A client's frame arrives once more, later, over another connection.
    ClientDuplicate,
    /// A client's frame arrives late over a former connection, behind what was sent after it.
    ClientReorder,
    /// A client loses its connections.
    ClientDisconnect,
    /// A client leaves its session behind, with commands under way.
    AbandonedSession,
    /// Somebody sends in the session of another client, whose token it does not know.
    SharedSession,
    /// Far more comes in than the replica can take.
    Overload,
    /// Bits of a snapshot flip, or of all that a replica has.
    SnapshotRot,
    /// A snapshot can't be written.
    SnapshotFailure,
    /// So many sessions are opened that those of idle clients are evicted.
    Eviction,
    /// A disk finishes nothing for so long that more comes in than may wait for it.
    DiskFreeze,
    /// A disk takes so many bytes in a second and no more: less than comes in.
    DiskLimp,
    /// What carries values does not get through some links, what carries none does.
    DataCut,
    /// A client asks for the status without end.
    StatusFlood,
    /// A client closes its session and opens another one.
    Visitors,
    /// A replica dies when a snapshot is durable that its WAL has not caught up with, and loses that snapshot later.
    SnapshotAhead,
}

const FAULTS: usize = 43;

impl Fault {
    pub const ALL: [Fault; FAULTS] = [
        Fault::Loss,
        Fault::Duplication,
        Fault::Delay,
        Fault::Reordering,
        Fault::OneWay,
        Fault::Partition,
        Fault::QuorumLoss,
        Fault::ConstrainedElection,
        Fault::Chained,
        Fault::SlowLink,
        Fault::FlappingLink,
        Fault::Clog,
        Fault::Crash,
        Fault::PowerCut,
        Fault::TornWrite,
        Fault::RestartStorm,
        Fault::StaleSegment,
        Fault::BitRot,
        Fault::MisdirectedWrite,
        Fault::LostWrite,
        Fault::DiskStall,
        Fault::SyncError,
        Fault::DiskFull,
        Fault::Wipe,
        Fault::Pause,
        Fault::ClockDrift,
        Fault::ClockJump,
        Fault::ClientRetry,
        Fault::ClientDuplicate,
        Fault::ClientReorder,
        Fault::ClientDisconnect,
        Fault::AbandonedSession,
        Fault::SharedSession,
        Fault::Overload,
        Fault::SnapshotRot,
        Fault::SnapshotFailure,
        Fault::Eviction,
        Fault::DiskFreeze,
        Fault::DiskLimp,
        Fault::DataCut,
        Fault::StatusFlood,
        Fault::Visitors,
        Fault::SnapshotAhead,
    ];

    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Fault::Loss => "loss",
            Fault::Duplication => "duplication",
            Fault::Delay => "delay",
            Fault::Reordering => "reordering",
            Fault::OneWay => "one-way",
            Fault::Partition => "partition",
            Fault::QuorumLoss => "quorum-loss",
            Fault::ConstrainedElection => "constrained-election",
            Fault::Chained => "chained",
            Fault::SlowLink => "slow-link",
            Fault::FlappingLink => "flapping-link",
            Fault::Clog => "clog",
            Fault::Crash => "crash",
            Fault::PowerCut => "power-cut",
            Fault::TornWrite => "torn-write",
            Fault::RestartStorm => "restart-storm",
            Fault::StaleSegment => "stale-segment",
            Fault::BitRot => "bit-rot",
            Fault::MisdirectedWrite => "misdirected-write",
            Fault::LostWrite => "lost-write",
            Fault::DiskStall => "disk-stall",
            Fault::SyncError => "sync-error",
            Fault::DiskFull => "disk-full",
            Fault::Wipe => "wipe",
            Fault::Pause => "pause",
            Fault::ClockDrift => "clock-drift",
            Fault::ClockJump => "clock-jump",
            Fault::ClientRetry => "client-retry",
            Fault::ClientDuplicate => "client-duplicate",
            Fault::ClientReorder => "client-reorder",
            Fault::ClientDisconnect => "client-disconnect",
            Fault::AbandonedSession => "abandoned-session",
            Fault::SharedSession => "shared-session",
            Fault::Overload => "overload",
            Fault::SnapshotRot => "snapshot-rot",
            Fault::SnapshotFailure => "snapshot-failure",
            Fault::Eviction => "eviction",
            Fault::DiskFreeze => "disk-freeze",
            Fault::DiskLimp => "disk-limp",
            Fault::DataCut => "data-cut",
            Fault::StatusFlood => "status-flood",
            Fault::Visitors => "visitors",
            Fault::SnapshotAhead => "snapshot-ahead",
        }
    }

    pub fn of_name(name: &str) -> Option<Fault> {
        Fault::ALL.into_iter().find(|fault| fault.name() == name)
    }

    fn bit(self) -> u64 {
        1 << self as u64
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Which faults may strike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultSet(u64);

/// A name on the command line that is no fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no fault is called `{name}`; known are: all, none, {}", known_names())]
pub struct UnknownFault {
    pub name: String,
}

fn known_names() -> String {
    FaultSet::ALL.to_string()
}

impl FaultSet {
    pub const NONE: FaultSet = FaultSet(0);
    pub const ALL: FaultSet = FaultSet((1 << FAULTS) - 1);

    /// `all`, `none`, or names separated by commas.
    pub fn parse(text: &str) -> Result<FaultSet, UnknownFault> {
        let mut set = FaultSet::NONE;
        for name in text.split(',').map(str::trim) {
            match name {
                "all" => set = FaultSet::ALL,
                "none" => {}
                name => match Fault::of_name(name) {
                    Some(fault) => set.insert(fault),
                    None => return Err(UnknownFault { name: name.into() }),
                },
            }
        }
        Ok(set)
    }

    pub fn contains(self, fault: Fault) -> bool {
        self.0 & fault.bit() != 0
    }

    pub fn insert(&mut self, fault: Fault) {
        self.0 |= fault.bit();
    }

    pub fn without(self, fault: Fault) -> FaultSet {
        FaultSet(self.0 & !fault.bit())
    }

    pub fn iter(self) -> impl Iterator<Item = Fault> {
        Fault::ALL.into_iter().filter(move |f| self.contains(*f))
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// Comma-separated, as [`FaultSet::parse`] takes it.
impl fmt::Display for FaultSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("none");
        }
        let names: Vec<&str> = self.iter().map(Fault::name).collect();
        f.write_str(&names.join(","))
    }
}

/// How often each fault struck.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Strikes([u64; FAULTS]);

impl Default for Strikes {
    fn default() -> Strikes {
        Strikes([0; FAULTS])
    }
}

impl Strikes {
    pub fn note(&mut self, fault: Fault) {
        self.add(fault, 1);
    }

    pub fn add(&mut self, fault: Fault, times: u64) {
        self.0[fault as usize] += times;
    }

    pub fn of(&self, fault: Fault) -> u64 {
        self.0[fault as usize]
    }

    pub fn merge(&mut self, other: &Strikes) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine += theirs;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_unknown_ones_list_the_known() {
        assert_eq!(FaultSet::parse("all"), Ok(FaultSet::ALL));
        assert_eq!(FaultSet::parse("none"), Ok(FaultSet::NONE));
        assert_eq!(
            FaultSet::parse(&FaultSet::ALL.to_string()),
            Ok(FaultSet::ALL)
        );
        let some = FaultSet::parse("loss, crash").expect("both exist");
        assert_eq!(some.iter().collect::<Vec<_>>(), [Fault::Loss, Fault::Crash]);
        let message = FaultSet::parse("loss,fire")
            .expect_err("no fire")
            .to_string();
        assert!(
            message.contains("`fire`") && message.contains("torn-write"),
            "{message}"
        );
    }
}
