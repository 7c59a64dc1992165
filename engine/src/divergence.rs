//! Whether the replicas still hold the same state. Each one notes the hashes of its state at every so many slots and
//! tells the others; what is said about the same slot is compared. Where states differ, some replica answers its clients
//! wrongly: a bit of its memory flipped, its disk gave back something else, or a command does not do the same
//! everywhere.
//!
//! A replica that a majority of the cluster contradicts stops. Without a majority nobody can tell who is wrong, so all
//! that see it say so and go on.

use std::collections::VecDeque;
use std::fmt;

use crate::config::Config;
use crate::ids::{ReplicaId, Slot, Time};
use crate::message::StateHash;

/// A replica's hashes are noted and told at the multiples of so many slots.
pub const STATE_HASH_SLOTS: u64 = 1_024;
/// Notes kept of each replica, this one included; the oldest go first. A replica that lags further behind compares the
/// next ones.
pub const NOTES_MAX: usize = 64;
/// The same kind of report is not repeated before.
pub const REPORT_EVERY_NS: u64 = 10_000_000_000;

#[derive(Clone, Debug)]
pub struct Comparison {
    own: ReplicaId,
    /// What each replica said, the earliest first; that of replica 1 comes first.
    notes: Vec<VecDeque<StateHash>>,
    /// What is to be reported and was not taken yet.
    report: Option<Divergence>,
    reported_at: [Option<Time>; 2],
    pub counters: Counters,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Hashes of peers that are those of this replica.
    pub equal: u64,
    /// Hashes of peers that are not.
    pub different: u64,
}

/// What the replicas said about one slot, and not all of them the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Divergence {
    pub own: ReplicaId,
    pub slot: Slot,
    pub said: Vec<(ReplicaId, StateHash)>,
    pub verdict: Verdict,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A majority of the cluster agrees on another state than this replica's: it must stop.
    OwnIsWrong,
    /// A majority of the cluster agrees with this replica.
    OthersAreWrong,
    /// Nobody can tell.
    Undecided,
}

impl Comparison {
    pub fn new(config: &Config) -> Comparison {
        Comparison {
            own: config.replica,
            notes: vec![VecDeque::new(); usize::from(config.replicas)],
            report: None,
            reported_at: [None; 2],
            counters: Counters::default(),
        }
    }

    /// This replica applied a slot at which states are compared. Fails if it must stop.
    pub fn note(&mut self, now: Time, hash: StateHash) -> Result<(), Divergence> {
        self.keep(self.own, hash);
        let said = self.said_of(hash.slot);
        let others = said.iter().filter(|(replica, _)| *replica != self.own);
        let equal = others.clone().filter(|(_, other)| *other == hash).count();
        self.counters.equal += equal as u64;
        self.counters.different += (others.count() - equal) as u64;
        self.judge(now, hash, said)
    }

    /// A peer said what its state was. Fails if this replica must stop.
    pub fn hear(&mut self, now: Time, from: ReplicaId, hash: StateHash) -> Result<(), Divergence> {
        if from == self.own || self.notes_of(from).is_none() {
            return Ok(());
        }
        self.keep(from, hash);
        let Some(own) = self.said_by(self.own, hash.slot) else {
            // This replica was not there, or is not yet.
            return Ok(());
        };
        match own == hash {
            true => self.counters.equal += 1,
            false => self.counters.different += 1,
        }
        self.judge(now, own, self.said_of(hash.slot))
    }

    /// The state of a peer took the place of the own one: what was noted before says nothing about it.
    pub fn replaced(&mut self) {
        let own = self.own;
        self.notes_of(own)
            .expect("this replica is one of the cluster")
            .clear();
    }

    /// What the operator has to be told, once.
    pub fn take_report(&mut self) -> Option<Divergence> {
        self.report.take()
    }

    /// Notes that are kept, of all replicas.
    pub fn kept(&self) -> usize {
        self.notes.iter().map(VecDeque::len).sum()
    }

    fn notes_of(&mut self, replica: ReplicaId) -> Option<&mut VecDeque<StateHash>> {
        let index = usize::from(replica.0).checked_sub(1)?;
        self.notes.get_mut(index)
    }

    /// One who says something else about the same slot later (it was restored meanwhile) means that.
    fn keep(&mut self, replica: ReplicaId, hash: StateHash) {
        let notes = self.notes_of(replica).expect("a replica of the cluster");
        if let Some(known) = notes.iter_mut().find(|known| known.slot == hash.slot) {
            *known = hash;
            return;
        }
        if notes.len() == NOTES_MAX {
            notes.pop_front();
        }
        notes.push_back(hash);
    }

    fn said_by(&self, replica: ReplicaId, slot: Slot) -> Option<StateHash> {
        let index = usize::from(replica.0).checked_sub(1)?;
        let notes = self.notes.get(index)?;
        notes.iter().rev().find(|note| note.slot == slot).copied()
    }

    fn said_of(&self, slot: Slot) -> Vec<(ReplicaId, StateHash)> {
        let replicas = (1..=self.notes.len() as u8).map(ReplicaId);
        replicas
            .filter_map(|replica| Some((replica, self.said_by(replica, slot)?)))
            .collect()
    }

    /// A majority is one of the whole cluster: those who did not say anything yet could turn any other.
    fn judge(
        &mut self,
        now: Time,
        own: StateHash,
        said: Vec<(ReplicaId, StateHash)>,
    ) -> Result<(), Divergence> {
        if said.iter().all(|(_, hash)| *hash == own) {
            return Ok(());
        }
        let majority = self.notes.len() / 2 + 1;
        let agree = |with: &StateHash| said.iter().filter(|(_, hash)| hash == with).count();
        let verdict = if agree(&own) >= majority {
            Verdict::OthersAreWrong
        } else if said.iter().any(|(_, hash)| agree(hash) >= majority) {
            Verdict::OwnIsWrong
        } else {
            Verdict::Undecided
        };
        let divergence = Divergence {
            own: self.own,
            slot: own.slot,
            said,
            verdict,
        };
        let reported_at = match verdict {
            Verdict::OwnIsWrong => return Err(divergence),
            Verdict::OthersAreWrong => &mut self.reported_at[0],
            Verdict::Undecided => &mut self.reported_at[1],
        };
        if reported_at.is_none_or(|at| now.since(at) >= REPORT_EVERY_NS) {
            *reported_at = Some(now);
            self.report = Some(divergence);
        }
        Ok(())
    }
}

impl std::error::Error for Divergence {}

impl fmt::Display for Divergence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (own, slot) = (self.own.0, self.slot.0);
        match self.verdict {
            Verdict::OwnIsWrong => write!(
                f,
                "the state of replica {own} (this one) after slot {slot} is not the one that a majority agrees on, and \
                 it must stop"
            )?,
            Verdict::OthersAreWrong => write!(
                f,
                "replica {own} (this one) and others, a majority, agree on the state after slot {slot}, but not all \
                 replicas do"
            )?,
            Verdict::Undecided => write!(
                f,
                "the states of replicas after slot {slot} differ, and no majority is known to agree on one"
            )?,
        }
        for (index, (replica, hash)) in self.said.iter().enumerate() {
            let before = if index == 0 { ": " } else { ", " };
            let StateHash {
                machine, sessions, ..
            } = hash;
            write!(
                f,
                "{before}replica {} has machine {machine:016x} and sessions {sessions:016x}",
                replica.0
            )?;
        }
        f.write_str(match self.verdict {
            Verdict::OwnIsWrong => {
                ". What its WAL and its snapshots hold is suspect: check its memory and its disk, remove its data \
                 directory, and start it with --readmit"
            }
            Verdict::OthersAreWrong => {
                ". The one that differs stops when it hears of it; if it does not, stop it, remove its data \
                 directory, and start it with --readmit"
            }
            Verdict::Undecided => {
                ". Some of them answer their clients wrongly: find out which by memory tests and their disks' errors, \
                 stop those, remove their data directories, and start them with --readmit, one after the other"
            }
        })
    }
}
