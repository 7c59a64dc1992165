//! A founding member whose disk knows of no promise. It may be new. It may as well have been emptied and made anew as if it
//! were, with everything forgotten that it promised and accepted: then its vote would lose what was chosen. So it asks
//! the others with its heartbeats, and has no vote until enough of them answered:
//!
//! - One that knows that it took part before refuses it: then it ends, and comes back by [`crate::members`].
//! - Where nothing is chosen as far as those know that make a quorum, it votes after a while at the latest: that is how
//!   a cluster begins.
//! - Otherwise it needs the answers of so many that each accept quorum which it may have been part of has another
//!   member among them, and first holds all that those knew as chosen when they answered.
//!
//! That does not make an emptied disk safe: who restarted since may not know any more who took part, and the newest
//! values may be accepted and not known as chosen. It notices what can be noticed.

use crate::config::Config;
use crate::ids::{Lsn, REPLICAS_MAX, ReplicaId, Slot, Time};
use crate::message::Known;

#[derive(Clone, Debug)]
pub struct Newcomer {
    since: Time,
    /// What each other one knew as chosen when it answered first. What is chosen later is chosen without this replica.
    answers: [Option<Slot>; REPLICAS_MAX as usize + 1],
    disowned_by: Option<ReplicaId>,
    /// The record by which the disk knows that it has a vote. Nobody hears of the vote before it is durable.
    pub vote: Option<Lsn>,
}

impl Newcomer {
    pub fn new(now: Time) -> Newcomer {
        Newcomer {
            since: now,
            answers: [None; REPLICAS_MAX as usize + 1],
            disowned_by: None,
            vote: None,
        }
    }

    pub fn on_answer(&mut self, from: ReplicaId, known: Known) {
        self.answers[usize::from(from.0)].get_or_insert(known.commit_index);
        if known.took_part {
            self.disowned_by.get_or_insert(from);
        }
    }

    /// Who knows that this replica took part before.
    pub fn disowned_by(&self) -> Option<ReplicaId> {
        self.disowned_by
    }

    /// Whether it may vote, holding every chosen slot up to `held`.
    pub fn may_vote(&self, now: Time, config: &Config, held: Slot) -> bool {
        if self.disowned_by.is_some() {
            return false;
        }
        let quorums = &config.quorums;
        let answered = self.answers.iter().flatten().count();
        let chosen = self.answers.iter().flatten().max().copied();
        let chosen = chosen.unwrap_or(Slot::ZERO);
        let others = usize::from(config.replicas) - 1;
        let meets_all = usize::from(config.replicas - quorums.accept + 1).min(others);
        if answered >= meets_all && held >= chosen {
            return true;
        }
        let waited = now.since(self.since) >= config.timers.election_timeout_ns;
        waited && chosen == Slot::ZERO && answered + 1 >= quorums.connected()
    }
}
