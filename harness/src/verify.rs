//! Checks, from the disks and independently of the engine, that a run kept every promise.
//!
//! 1. Every slot up to the commit index is in every replica's WAL, with the same value ([`slots`]).
//! 2. The slots are replayed in order through a naive session rule ([`sessions`]); what it executes must be what
//!    the clients were told: each command once, in order, none missing ([`stamps`]).
//! 3. The replay through the state machine gives the hash that the live replicas reported ([`replay`]).

pub mod machine;
mod replay;
mod sessions;
mod slots;
mod stamps;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use synod_engine::ids::{ReplicaId, Slot};

use crate::cli::MachineChoice;
use slots::Slots;

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
    pub executed: u64,
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
    let tables = read_tables(evidence)?;
    slots::compare(&tables, &mut verdict);
    let (Some(first), Some(table)) = (evidence.replicas.first(), tables.first()) else {
        anyhow::bail!("there is no surviving replica to check");
    };
    progress(&format!(
        "replaying {} slots in order",
        evidence.commit_index.0
    ));
    let mut replay = replay::Replay::new(evidence.machine, &evidence.clients);
    replay
        .follow(&first.directory, table)
        .with_context(|| format!("replaying the WAL of replica {}", first.replica.0))?;
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

/// One thread per replica: the disk is idle by now, and hashing keeps a core busy.
fn read_tables(evidence: &Evidence) -> anyhow::Result<Vec<Slots>> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = evidence
            .replicas
            .iter()
            .map(|replica| {
                let (commit_index, holes) = (evidence.commit_index, evidence.holes);
                scope.spawn(move || {
                    Slots::read(replica.replica, &replica.directory, commit_index, holes)
                        .with_context(|| {
                            format!("checking the WAL of replica {}", replica.replica.0)
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
