//! The faults by name.

use clap::ValueEnum;
use serde::Serialize;

use super::disks;

/// What can be done to a cluster. Processes and network have one fault each at a time at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
#[value(rename_all = "kebab-case")]
pub enum Fault {
    /// SIGKILL to one replica, half of the time the leader, and a restart
    Kill,
    /// SIGKILL to all replicas at once, and a restart
    KillAll,
    /// SIGSTOP for 0.3 to 3 s, then SIGCONT
    Stop,
    /// One replica may not write any file beyond a limit: it has to stop with exit code 3; restarted without limit
    DiskFull,
    /// One stopped replica's WAL gets bytes flipped in its middle; it has to repair them from its peers
    Corrupt,
    /// SIGKILL to one replica, and a restart only when the others have trimmed what it lacks: it needs a snapshot
    Away,
    /// One stopped replica loses its data, and is restarted with --readmit
    Wipe,
    /// The disk of one replica stands still for 0.5 to 3 s; takes root, for a file system on a loop device
    FrozenDisk,
    /// The disk of one replica stands still again and again, for 60 ms each time; takes root as well
    SlowDisk,
    /// Nobody reads the log of one replica, whose pipe is full
    HungLogReader,
    /// One replica is cut off from the others both ways
    Partition,
    /// One replica, or one link, is cut in one direction
    OneWay,
    /// Links are cut so that no two sides arise: chained, and with 4 replicas and more quorum-loss and constrained
    Partial,
    /// A tenth of all packets is lost
    Loss,
    /// A tenth of all packets arrives twice
    Duplicate,
    /// Every packet takes 50 ms more, give or take 10
    Delay,
    /// Packets from and to one replica wait, and then arrive all at once
    Clog,
    /// Strangers send 3,000 first packets a second to one replica's port, and never go on
    Strangers,
}

/// Which of the two does it, each one fault after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Lane {
    Processes,
    Network,
}

impl Lane {
    pub fn name(self) -> &'static str {
        match self {
            Lane::Processes => "processes",
            Lane::Network => "network",
        }
    }
}

impl Fault {
    /// What happens if nothing else is asked for.
    pub const ALL: [Fault; 18] = [
        Fault::Kill,
        Fault::KillAll,
        Fault::Stop,
        Fault::DiskFull,
        Fault::Corrupt,
        Fault::Away,
        Fault::Wipe,
        Fault::FrozenDisk,
        Fault::SlowDisk,
        Fault::HungLogReader,
        Fault::Partition,
        Fault::OneWay,
        Fault::Partial,
        Fault::Loss,
        Fault::Duplicate,
        Fault::Delay,
        Fault::Clog,
        Fault::Strangers,
    ];

    pub fn lane(self) -> Lane {
        match self {
            Fault::Kill
            | Fault::KillAll
            | Fault::Stop
            | Fault::DiskFull
            | Fault::Corrupt
            | Fault::Away
            | Fault::Wipe
            | Fault::FrozenDisk
            | Fault::SlowDisk
            | Fault::HungLogReader => Lane::Processes,
            Fault::Partition
            | Fault::OneWay
            | Fault::Partial
            | Fault::Loss
            | Fault::Duplicate
            | Fault::Delay
            | Fault::Clog
            | Fault::Strangers => Lane::Network,
        }
    }

    /// Why it is not done on the hosts of an inventory, if it is not.
    pub fn not_on_hosts(self) -> Option<&'static str> {
        match self {
            Fault::Kill
            | Fault::KillAll
            | Fault::Stop
            | Fault::Partition
            | Fault::OneWay
            | Fault::Partial
            | Fault::Loss => None,
            Fault::DiskFull => Some("the limit is set on processes of this machine only"),
            Fault::Away => Some("it takes a look at the trim floors for which ssh is too slow"),
            Fault::Corrupt | Fault::Wipe => Some("only files of this machine are damaged"),
            Fault::Strangers => Some("strangers come only to doors of this machine"),
            Fault::FrozenDisk | Fault::SlowDisk => {
                Some("only file systems of this machine are made and frozen")
            }
            Fault::HungLogReader => Some("only logs of this machine are left unread"),
            Fault::Duplicate | Fault::Delay | Fault::Clog => {
                Some("the packet filter of a host drops packets, and does nothing else to them")
            }
        }
    }

    /// Whether the replicas must write to file systems that can be made to stand still.
    pub fn needs_loop_disks(self) -> bool {
        matches!(self, Fault::FrozenDisk | Fault::SlowDisk)
    }

    /// Why it is not done on this machine, if it is not.
    pub fn not_here(self) -> Option<String> {
        match self.needs_loop_disks() {
            true => disks::impossible(),
            false => None,
        }
    }

    /// How long it lasts: for a killed replica, how long it is gone.
    pub fn lasts_ms(self) -> std::ops::Range<u64> {
        match self {
            Fault::Kill => 50..1_500,
            Fault::KillAll => 50..800,
            Fault::Stop => 300..3_000,
            // At least so long, and until it is beyond the trim floor.
            Fault::Away => 300..900,
            Fault::DiskFull | Fault::Corrupt | Fault::Wipe => 100..800,
            Fault::FrozenDisk | Fault::SlowDisk | Fault::HungLogReader => 500..3_000,
            Fault::Partition | Fault::OneWay | Fault::Partial => 500..4_000,
            Fault::Loss | Fault::Duplicate | Fault::Delay | Fault::Strangers => 1_000..4_000,
            Fault::Clog => 200..1_500,
        }
    }

    /// As on the command line.
    pub fn name(self) -> String {
        let value = self.to_possible_value().expect("no fault is skipped");
        value.get_name().to_owned()
    }
}
