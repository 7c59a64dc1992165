//! Checks, from the disks and independently of the engine, that a run kept every promise.
//!
//! 1. Every slot up to the commit index, from a replica's trim floor on, is in its WAL, with the same value as in the
//!    others' ([`slots`]).
//! 2. The slots are replayed in order through a naive session rule ([`sessions`]); what it executes must be what
//!    the clients were told: each command once, in order, none missing ([`stamps`]).
//! 3. The replay through the state machine gives the hash that the live replicas reported ([`replay`]), and at the slot
//!    of each snapshot on any disk the state hash and the session table of that snapshot ([`snapshots`]).
//!
//! As long as one replica has its whole WAL, the replay begins with slot 1 and proves everything. Once all have trimmed
//! theirs, it begins behind the oldest snapshot that still joins a WAL ([`Verdict::from_slot`]). Then
//! - *proven* is: what was executed from there on, as above; that no command of before was executed again after it; that
//!   every replica went the same way from there on.
//! - *proven by the hashes* is: that all replicas that executed the slots before themselves executed the same commands in
//!   the same order. Both state machines chain their hash over all commands, so the replay ends with the replicas'
//!   hash only if the snapshot's state had theirs.
//! - *taken from the snapshot* is: that the commands up to the number in its session table were executed, each once
//!   ([`Verdict::vouched`] counts them). A client's commands above that number must be in the replay. So a command that
//!   was lost before the snapshot and still counted by the session table of every replica would go unnoticed; a run
//!   shorter than the trim distance, and the simulator at any length, would show it.
//! - *not checked* are the values in a snapshot, but for the hash and for what later replies depend on.

pub mod machine;
mod replay;
mod sessions;
mod slots;
mod snapshots;
mod stamps;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use synod_engine::ids::{ReplicaId, Slot};

use crate::cli::MachineChoice;
use slots::Slots;
use snapshots::{Kept, Start};

pub use stamps::{ClientAccount, STAMP_BYTES};

/// What was promised, and where the evidence is.
pub struct Evidence {
    pub machine: MachineChoice,
    /// The commit index that all surviving replicas reported.
    pub commit_index: Slot,
    pub replicas: Vec<ReplicaEvidence>,
    /// Bytes of the WALs were damaged on purpose: holes are no findings, as long as they were repaired.
    pub holes: bool,
    /// What each client submitted, and what it was told.
    pub clients: Vec<ClientAccount>,
}

pub struct ReplicaEvidence {
    pub replica: ReplicaId,
    pub directory: PathBuf,
    /// The live state hash at the commit index.
    pub state_hash: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Acknowledged to a client and not executed.
    pub lost: u64,
    /// Executed more than once.
    pub duplicated: u64,
    /// Executed, but not in the order in which the client numbered them, or never submitted.
    pub disordered: u64,
    /// Slots missing or different on a replica, and state hashes that disagree.
    pub diverged: u64,
    /// Slots whose value is no batch, and so nothing.
    pub malformed: u64,
    /// By the replay, from `from_slot` on.
    pub executed: u64,
    /// Commands that only the session table of the replay's snapshot says were executed.
    pub vouched: u64,
    /// The first slot that was replayed: 1 is all of them.
    pub from_slot: u64,
    /// Snapshots that were compared with the replay.
    pub snapshots: u64,
    pub slots: u64,
    /// The first few findings, for people.
    pub findings: Vec<String>,
}

/// Findings beyond this many are only counted.
const FINDINGS_MAX: usize = 8;

impl Verdict {
    #[cfg(test)]
    pub fn is_clean(&self) -> bool {
        self.lost + self.duplicated + self.disordered + self.diverged == 0
    }

    pub fn finding(&mut self, text: impl FnOnce() -> String) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(text());
        }
    }
}

/// Reads every WAL once and one of them twice. `progress` is told what is being done.
pub fn check(evidence: &Evidence, progress: &mut dyn FnMut(&str)) -> anyhow::Result<Verdict> {
    let mut verdict = Verdict {
        slots: evidence.commit_index.0,
        ..Verdict::default()
    };
    progress(&format!(
        "reading the WALs of {} replicas",
        evidence.replicas.len()
    ));
    let (tables, kept) = read_disks(evidence)?;
    slots::compare(&tables, &mut verdict);
    anyhow::ensure!(!tables.is_empty(), "there is no surviving replica to check");
    let (place, slot) = snapshots::earliest_start(&tables, &kept)
        .context("no replica has a snapshot from which its WAL goes on without a gap")?;
    let replica = &evidence.replicas[place];
    let start = match slot {
        Slot::ZERO => Start::nothing(evidence.machine),
        slot => Start::read(evidence.machine, &replica.directory, slot)?,
    };
    verdict.from_slot = slot.0 + 1;
    verdict.snapshots = kept.iter().filter(|kept| kept.slot >= slot).count() as u64;
    progress(&format!(
        "replaying {} slots in order",
        evidence.commit_index.0 - slot.0
    ));
    let mut replay = replay::Replay::new(start, &evidence.clients, kept);
    replay
        .follow(&replica.directory, &tables[place])
        .with_context(|| format!("replaying the WAL of replica {}", replica.replica.0))?;
    let state_hash = replay.finish(&mut verdict);
    for replica in &evidence.replicas {
        if replica.state_hash != state_hash {
            verdict.diverged += 1;
            verdict.finding(|| {
                format!(
                    "replica {} reports state {:016x}, the replay of its slots gives {state_hash:016x}",
                    replica.replica.0, replica.state_hash
                )
            });
        }
    }
    Ok(verdict)
}

/// The slots that each WAL still has, and all snapshots.
fn read_disks(evidence: &Evidence) -> anyhow::Result<(Vec<Slots>, Vec<Kept>)> {
    let disks = read_each(evidence)?;
    let (tables, kept): (Vec<_>, Vec<_>) = disks.into_iter().unzip();
    Ok((tables, kept.into_iter().flatten().collect()))
}

/// One thread per replica: the disk is idle by now, and hashing keeps a core busy.
fn read_each(evidence: &Evidence) -> anyhow::Result<Vec<(Slots, Vec<Kept>)>> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = evidence
            .replicas
            .iter()
            .map(|replica| {
                scope.spawn(move || {
                    read_disk(evidence, replica).with_context(|| {
                        format!("checking the disk of replica {}", replica.replica.0)
                    })
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| match thread.join() {
                Ok(table) => table,
                Err(_) => anyhow::bail!("a checking thread panicked"),
            })
            .collect()
    })
}

fn read_disk(evidence: &Evidence, replica: &ReplicaEvidence) -> anyhow::Result<(Slots, Vec<Kept>)> {
    let (id, directory, holes) = (replica.replica, &replica.directory, evidence.holes);
    let kept = snapshots::read(evidence.machine, id, directory, holes)?;
    let covered = kept.last().map_or(Slot::ZERO, |newest| newest.slot);
    let slots = Slots::read(id, directory, evidence.commit_index, holes, covered)?;
    Ok((slots, kept))
}
