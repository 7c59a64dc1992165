//! What is done to a cluster while it is measured: one line of text each, on the command line and in files.
//!
//! ```text
//! FAULT = ACTION at TIME [for TIME]       times count from the start of the measured window
//! ACTION = kill WHO                       SIGKILL; restarted on its disk after `for`, or after a default
//!        | stop WHO                       SIGSTOP, and SIGCONT after `for`, which is needed
//!        | isolate WHO                    its links to all other replicas are cut, `for` is needed
//!        | crowd WHO                      strangers' first packets, 3,000/s, at its port, `for` is needed
//!        | partition SIDE|SIDE[|SIDE…]    the links between the sides are cut, `for` is needed
//! WHO = leader | follower | all | SIDE    found when the fault begins
//! SIDE = ID[,ID…]                         a replica that no side names keeps all its links
//! TIME = 500ms | 5s | 1.5s
//! ```

mod grammar;

use std::collections::BTreeSet;
use std::fmt::{self, Display, Formatter};

use serde::{Deserialize, Serialize};
use synod_engine::ids::ReplicaId;

use crate::failure::usage;

/// A killed leader returns after its successor is at work.
const KILLED_RETURNS_AFTER_MS: u64 = 1_000;
const ALL_RETURN_AFTER_MS: u64 = 200;
/// A run with more is a mistake of the script that wrote it.
pub const FAULTS_MAX: usize = 64;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Fault {
    pub action: Action,
    /// From the start of the measured window.
    pub at_ms: u64,
    /// `None`: as long as is usual for what is done.
    pub for_ms: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    Kill(Who),
    Stop(Who),
    Isolate(Who),
    Crowd(Who),
    /// Two sides or more, which have no replica in common.
    Partition(Vec<BTreeSet<ReplicaId>>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    Leader,
    /// The first replica that runs and does not lead.
    Follower,
    All,
    Replicas(BTreeSet<ReplicaId>),
}

impl Fault {
    pub fn kill_leader(after_s: u32) -> Fault {
        Fault {
            action: Action::Kill(Who::Leader),
            at_ms: u64::from(after_s) * 1_000,
            for_ms: None,
        }
    }

    pub fn crash_all(after_s: u32) -> Fault {
        Fault {
            action: Action::Kill(Who::All),
            at_ms: u64::from(after_s) * 1_000,
            for_ms: None,
        }
    }

    /// When it is taken back, from the start of the measured window.
    pub fn until_ms(&self) -> u64 {
        let usual = match &self.action {
            Action::Kill(Who::All) => ALL_RETURN_AFTER_MS,
            Action::Kill(_)
            | Action::Stop(_)
            | Action::Isolate(_)
            | Action::Crowd(_)
            | Action::Partition(_) => KILLED_RETURNS_AFTER_MS,
        };
        self.at_ms + self.for_ms.unwrap_or(usual)
    }

    /// Runs with faults of the same kinds are repeats of each other.
    pub fn kind(&self) -> String {
        let (action, who) = match &self.action {
            // As results named it before there were other faults.
            Action::Kill(Who::All) => return "crash-all".into(),
            Action::Partition(_) => return "partition".into(),
            Action::Kill(who) => ("kill", who),
            Action::Stop(who) => ("stop", who),
            Action::Isolate(who) => ("isolate", who),
            Action::Crowd(who) => ("crowd", who),
        };
        match who {
            Who::Leader => format!("{action}-leader"),
            Who::Follower => format!("{action}-follower"),
            Who::All => format!("{action}-all"),
            Who::Replicas(_) => action.into(),
        }
    }

    /// Whether it needs the link emulator.
    pub fn is_of_links(&self) -> bool {
        match self.action {
            Action::Isolate(_) | Action::Partition(_) => true,
            Action::Kill(_) | Action::Stop(_) | Action::Crowd(_) => false,
        }
    }

    /// Whether its victims do not run while it lasts.
    pub fn is_of_processes(&self) -> bool {
        match self.action {
            Action::Kill(_) | Action::Stop(_) => true,
            Action::Isolate(_) | Action::Partition(_) | Action::Crowd(_) => false,
        }
    }

    /// Whether it comes in at a QUIC port of a replica on this machine.
    pub fn is_of_doors(&self) -> bool {
        matches!(self.action, Action::Crowd(_))
    }

    /// Fails unless the fault fits a run of this size and length.
    pub fn check(&self, replicas: u8, seconds: u32) -> anyhow::Result<()> {
        let window_ms = u64::from(seconds) * 1_000;
        if self.at_ms >= window_ms {
            return Err(usage(format!(
                "--fault '{self}': the measured window is over after {seconds} seconds (--seconds)"
            )));
        }
        if self.for_ms.is_some() && self.until_ms() > window_ms {
            return Err(usage(format!(
                "--fault '{self}': it lasts longer than the measured window of {seconds} seconds (--seconds)"
            )));
        }
        if let Some(id) = self.named().find(|id| id.0 > replicas) {
            return Err(usage(format!(
                "--fault '{self}': there is no replica {}, they are 1 to {replicas} (--replicas)",
                id.0
            )));
        }
        let of_follower = matches!(
            self.action,
            Action::Kill(Who::Follower)
                | Action::Stop(Who::Follower)
                | Action::Crowd(Who::Follower)
        );
        if replicas == 1 && (of_follower || self.is_of_links()) {
            return Err(usage(format!(
                "--fault '{self}': a cluster of one has neither followers nor links"
            )));
        }
        Ok(())
    }

    fn named(&self) -> impl Iterator<Item = ReplicaId> {
        let sides: &[BTreeSet<ReplicaId>] = match &self.action {
            Action::Partition(sides) => sides,
            Action::Kill(who) | Action::Stop(who) | Action::Isolate(who) | Action::Crowd(who) => {
                match who {
                    Who::Replicas(ids) => std::slice::from_ref(ids),
                    Who::Leader | Who::Follower | Who::All => &[],
                }
            }
        };
        sides.iter().flatten().copied()
    }
}

/// Fails unless the faults of a run fit it.
pub fn check_all(faults: &[Fault], replicas: u8, seconds: u32) -> anyhow::Result<()> {
    if faults.len() > FAULTS_MAX {
        return Err(usage(format!(
            "{} faults are asked for, {FAULTS_MAX} are the limit",
            faults.len()
        )));
    }
    faults
        .iter()
        .try_for_each(|fault| fault.check(replicas, seconds))
}

impl Display for Fault {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.action {
            Action::Kill(who) => write!(f, "kill {who}")?,
            Action::Stop(who) => write!(f, "stop {who}")?,
            Action::Isolate(who) => write!(f, "isolate {who}")?,
            Action::Crowd(who) => write!(f, "crowd {who}")?,
            Action::Partition(sides) => {
                let sides: Vec<String> = sides.iter().map(list).collect();
                write!(f, "partition {}", sides.join("|"))?;
            }
        }
        write!(f, " at {}", time(self.at_ms))?;
        match self.for_ms {
            Some(for_ms) => write!(f, " for {}", time(for_ms)),
            None => Ok(()),
        }
    }
}

impl Display for Who {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Who::Leader => f.write_str("leader"),
            Who::Follower => f.write_str("follower"),
            Who::All => f.write_str("all"),
            Who::Replicas(ids) => f.write_str(&list(ids)),
        }
    }
}

impl From<Fault> for String {
    fn from(fault: Fault) -> String {
        fault.to_string()
    }
}

impl TryFrom<String> for Fault {
    type Error = String;

    fn try_from(text: String) -> Result<Fault, String> {
        text.parse()
    }
}

fn list(ids: &BTreeSet<ReplicaId>) -> String {
    let ids: Vec<String> = ids.iter().map(|id| id.0.to_string()).collect();
    ids.join(",")
}

fn time(ms: u64) -> String {
    match ms % 1_000 {
        0 => format!("{}s", ms / 1_000),
        _ => format!("{ms}ms"),
    }
}
