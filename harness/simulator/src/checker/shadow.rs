//! What one replica must remember: a copy of its WAL in memory that no crash can touch, and what it told others.

use synod_engine::ids::{Ballot, Lsn, ReplicaId, Slot};
use synod_engine::message::{Message, Promise, Record};

use super::{Agreement, DURABILITY, MEMORY, Violation};

/// A record, its value shortened to a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    Promised {
        ballot: Ballot,
    },
    Accepted {
        slot: Slot,
        ballot: Ballot,
        hash: u64,
        commit_index: Slot,
    },
    Chosen {
        slot: Slot,
        hash: u64,
    },
    Trimmed {
        floor: Slot,
    },
}

pub struct Shadow {
    replica: ReplicaId,
    /// `records[i]` has lsn i + 1.
    records: Vec<Seen>,
    durable: Lsn,
    floor: Slot,
    /// The highest ballot in any durable record.
    promised: Ballot,
    /// The newest durable record of each slot: its ballot (zero if it was learned as chosen) and value.
    newest: Vec<Option<(Ballot, u64)>>,
    /// The newest appended record of each slot, durable or not.
    held: Vec<Option<u64>>,
    /// Every slot up to here holds the chosen value durably.
    settled: Slot,
    /// The highest ballot promised to anybody.
    promised_to_others: Ballot,
    /// How far was acknowledged at which ballot; neither is below another entry's in both.
    acknowledged: Vec<(Ballot, Slot)>,
    /// The ballot of the last acknowledgement, and up to where its slots were checked then.
    vouched: (Ballot, Slot),
    /// The highest ballot that was asked for, and in which life.
    prepared: (Ballot, u64),
}

/// What a recovery found.
#[derive(Clone, Debug, Default)]
pub struct Found {
    pub records: Vec<(Lsn, Seen)>,
    /// The first lost lsn, and the first one behind.
    pub holes: Vec<(Lsn, Lsn)>,
    /// Where the WAL ends.
    pub last: Lsn,
    /// The snapshot that it started from ends here.
    pub covers: Slot,
}

impl Found {
    /// The first record that was looked at, or where the first hole begins.
    fn first(&self) -> Lsn {
        let record = self.records.first().map(|(lsn, _)| *lsn);
        let hole = self.holes.first().map(|(first, _)| *first);
        let first = record.into_iter().chain(hole).min();
        first.unwrap_or(self.last.next())
    }
}

impl Seen {
    pub fn of(record: &Record) -> Seen {
        match record {
            Record::Promised { ballot } => Seen::Promised { ballot: *ballot },
            Record::Accepted(accept) => Seen::Accepted {
                slot: accept.slot,
                ballot: accept.ballot,
                hash: Agreement::hash_of(&accept.value),
                commit_index: accept.commit_index,
            },
            Record::Chosen { slot, value } => Seen::Chosen {
                slot: *slot,
                hash: Agreement::hash_of(value),
            },
            Record::Trimmed { floor } => Seen::Trimmed { floor: *floor },
        }
    }
}

impl Shadow {
    pub fn new(replica: ReplicaId) -> Shadow {
        Shadow {
            replica,
            records: Vec::new(),
            durable: Lsn::ZERO,
            floor: Slot(1),
            promised: Ballot::ZERO,
            newest: Vec::new(),
            held: Vec::new(),
            settled: Slot::ZERO,
            promised_to_others: Ballot::ZERO,
            acknowledged: Vec::new(),
            vouched: (Ballot::ZERO, Slot::ZERO),
            prepared: (Ballot::ZERO, 0),
        }
    }

    pub fn durable(&self) -> Lsn {
        self.durable
    }

    /// What this replica must not forget whatever happens to it.
    pub fn promised(&self) -> Ballot {
        self.promised.max(self.promised_to_others)
    }

    /// The value that the replica holds for `slot`, from its newest record.
    pub fn held(&self, slot: Slot) -> Option<u64> {
        self.held.get(slot.0 as usize - 1).copied().flatten()
    }

    pub fn append(&mut self, lsn: Lsn, seen: Seen) -> Result<(), Violation> {
        if lsn.0 != self.records.len() as u64 + 1 {
            let what = format!("{} appends {lsn:?} out of order", self.replica);
            return Err(Violation::new(MEMORY, what));
        }
        self.records.push(seen);
        if let Seen::Accepted { slot, hash, .. } | Seen::Chosen { slot, hash } = seen {
            *entry(&mut self.held, slot) = Some(hash);
        }
        Ok(())
    }

    /// The WAL says that everything up to `durable` is on disk; tells the checker of agreement.
    pub fn advance(&mut self, durable: Lsn, agreement: &mut Agreement) -> Result<(), Violation> {
        while self.durable < durable {
            let Some(seen) = self.records.get(self.durable.0 as usize).copied() else {
                let what = format!(
                    "{} claims {durable:?} durable, which is not written",
                    self.replica
                );
                return Err(Violation::new(DURABILITY, what));
            };
            self.durable = self.durable.next();
            match seen {
                Seen::Promised { ballot } => self.promised = self.promised.max(ballot),
                Seen::Accepted {
                    slot, ballot, hash, ..
                } => {
                    self.promised = self.promised.max(ballot);
                    *entry(&mut self.newest, slot) = Some((ballot, hash));
                    agreement.accepted(self.replica, slot, ballot, hash)?;
                }
                Seen::Chosen { slot, hash } => {
                    *entry(&mut self.newest, slot) = Some((Ballot::ZERO, hash));
                }
                Seen::Trimmed { floor } => self.floor = self.floor.max(floor),
            }
        }
        Ok(())
    }

    /// A restarted replica found this: all that was durable or a hole where it was, and nothing that was never written.
    pub fn recovered(&mut self, found: &Found, agreement: &mut Agreement) -> Result<(), Violation> {
        let wrong = |what: String| Err(Violation::new(MEMORY, what));
        for (lsn, seen) in &found.records {
            let written = self.records.get(lsn.0 as usize - 1);
            if written != Some(seen) {
                return wrong(format!(
                    "{} found {seen:?} at {lsn:?}, written was {written:?}",
                    self.replica
                ));
            }
        }
        let (first, last) = (found.first(), found.last);
        let lost: u64 = found
            .holes
            .iter()
            .map(|(first, next)| next.0 - first.0)
            .sum();
        if last < self.durable || found.records.len() as u64 + lost != last.next().0 - first.0 {
            return wrong(format!(
                "{} found {} records and {lost} lost ones up to {last:?}, durable were all up to {:?}",
                self.replica,
                found.records.len(),
                self.durable
            ));
        }
        self.check_passed_over(first, found.covers)?;
        self.records.truncate(last.0 as usize);
        self.held.clear();
        for seen in &self.records {
            if let Seen::Accepted { slot, hash, .. } | Seen::Chosen { slot, hash } = seen {
                *entry(&mut self.held, *slot) = Some(*hash);
            }
        }
        self.advance(last, agreement)?;
        if lost > 0 {
            self.newest_from(&found.records);
        }
        self.settled = Slot::ZERO;
        self.vouched = (Ballot::ZERO, Slot::ZERO);
        self.covered(found.covers);
        Ok(())
    }

    /// What a start did not read was trimmed, or is part of its snapshot.
    fn check_passed_over(&self, first: Lsn, covers: Slot) -> Result<(), Violation> {
        let passed_over = &self.records[..first.0 as usize - 1];
        let gone = self.floor.previous().max(covers);
        for seen in passed_over {
            if let Seen::Accepted { slot, .. } | Seen::Chosen { slot, .. } = seen
                && *slot > gone
            {
                let what = format!(
                    "{} passes over a record of {slot}, its snapshot covers {covers} and it trimmed to {gone}",
                    self.replica
                );
                return Err(Violation::new(MEMORY, what));
            }
        }
        Ok(())
    }

    /// A durable snapshot holds every slot up to here, and all of them are chosen.
    pub fn covered(&mut self, slot: Slot) {
        self.settled = self.settled.max(slot);
    }

    /// Nothing is trimmed before the record of the floor is durable, and a snapshot that holds what goes.
    pub fn check_trim(&self, floor: Slot, covers: Slot) -> Result<(), Violation> {
        let (replica, durable) = (self.replica, self.floor);
        if floor > durable {
            let what = format!("{replica} trims to {floor}, durable is the floor {durable} only");
            return Err(Violation::new(DURABILITY, what));
        }
        if floor.previous() > covers {
            let what = format!("{replica} trims to {floor}, its snapshots cover {covers} only");
            return Err(Violation::new(DURABILITY, what));
        }
        Ok(())
    }

    /// What was lost is durable no more, until it is written again.
    fn newest_from(&mut self, records: &[(Lsn, Seen)]) {
        self.settled = Slot::ZERO;
        self.vouched = (Ballot::ZERO, Slot::ZERO);
        self.newest.clear();
        for (_, seen) in records {
            match seen {
                Seen::Accepted {
                    slot, ballot, hash, ..
                } => {
                    *entry(&mut self.newest, *slot) = Some((*ballot, *hash));
                }
                Seen::Chosen { slot, hash } => {
                    *entry(&mut self.newest, *slot) = Some((Ballot::ZERO, *hash));
                }
                Seen::Promised { .. } | Seen::Trimmed { .. } => {}
            }
        }
    }

    /// Checks a message that leaves against what is durable, and remembers what it promises.
    pub fn check_sent(
        &mut self,
        message: &Message,
        life: u64,
        agreement: &Agreement,
    ) -> Result<(), Violation> {
        match message {
            Message::Prepare(prepare) => self.check_prepare(prepare.ballot, life),
            Message::Promise(promise) => self.check_promise(promise, agreement),
            Message::Accepted(accepted) => {
                self.check_accepted(accepted.ballot, accepted.through, agreement)
            }
            Message::Chosen(chosen) => self.check_chosen(chosen.from, &chosen.values, agreement),
            Message::Accept(accept) if accept.ballot.replica != self.replica => {
                let what = format!("{} proposes at {}", self.replica, accept.ballot);
                Err(Violation::new(AGREEMENT_OF_BALLOTS, what))
            }
            Message::SnapshotPart(part) if part.snapshot.slot > agreement.committed_through() => {
                let what = format!(
                    "{} hands out a snapshot of {}, which nobody committed",
                    self.replica, part.snapshot.slot
                );
                Err(Violation::new(super::AGREEMENT, what))
            }
            Message::Accept(_)
            | Message::Reject(_)
            | Message::Known(_)
            | Message::Heartbeat(_)
            | Message::Fetch(_)
            | Message::FetchSnapshot(_)
            | Message::SnapshotPart(_)
            | Message::StateHash(_) => Ok(()),
        }
    }

    fn check_prepare(&mut self, ballot: Ballot, life: u64) -> Result<(), Violation> {
        let (highest, of_life) = self.prepared;
        if ballot.replica != self.replica
            || ballot < highest
            || ballot == highest && life != of_life
        {
            let what = format!(
                "{} asks for {ballot} after {highest} in another life",
                self.replica
            );
            return Err(Violation::new(AGREEMENT_OF_BALLOTS, what));
        }
        self.prepared = (ballot, life);
        if self.promised < ballot {
            let what = format!("{} asks for {ballot} before it is durable", self.replica);
            return Err(Violation::new(DURABILITY, what));
        }
        Ok(())
    }

    fn check_promise(&mut self, promise: &Promise, agreement: &Agreement) -> Result<(), Violation> {
        let ballot = promise.ballot;
        if self.promised < ballot {
            let what = format!("{} promises {ballot} before it is durable", self.replica);
            return Err(Violation::new(DURABILITY, what));
        }
        if ballot < self.promised_to_others {
            let what = format!(
                "{} promises {ballot} after {}",
                self.replica, self.promised_to_others
            );
            return Err(Violation::new(MEMORY, what));
        }
        self.promised_to_others = ballot;
        for (acknowledged_at, through) in &self.acknowledged {
            for slot in promise.commit_index.0 + 1..=through.0 {
                let slot = Slot(slot);
                let listed = promise
                    .accepted
                    .iter()
                    .find(|accepted| accepted.slot == slot);
                let kept = listed.is_some_and(|listed| {
                    listed.ballot >= *acknowledged_at
                        || agreement.chosen(slot) == Some(Agreement::hash_of(&listed.value))
                });
                if !kept {
                    let what = format!(
                        "{} acknowledged {slot} at {acknowledged_at} and its promise of {ballot} does not say so",
                        self.replica
                    );
                    return Err(Violation::new(MEMORY, what));
                }
            }
        }
        Ok(())
    }

    fn check_accepted(
        &mut self,
        ballot: Ballot,
        through: Slot,
        agreement: &Agreement,
    ) -> Result<(), Violation> {
        if ballot < self.promised_to_others {
            let what = format!(
                "{} acknowledges at {ballot} after it promised {}",
                self.replica, self.promised_to_others
            );
            return Err(Violation::new(MEMORY, what));
        }
        while self.newest_is_chosen(self.settled.next(), agreement) {
            self.settled = self.settled.next();
        }
        let (at, said) = self.vouched;
        let checked = self
            .settled
            .max(if at == ballot { said } else { Slot::ZERO });
        for slot in (checked.0 + 1..=through.0).map(Slot) {
            let newest = self.newest.get(slot.0 as usize - 1).copied().flatten();
            let at_ballot = newest.is_some_and(|(at, _)| at == ballot);
            if !at_ballot && !self.newest_is_chosen(slot, agreement) {
                let what = format!(
                    "{} acknowledges {slot} at {ballot}, its disk has {newest:?}",
                    self.replica
                );
                return Err(Violation::new(DURABILITY, what));
            }
        }
        self.vouched = (ballot, through.max(checked));
        let news = (ballot, through);
        let covers = |a: &(Ballot, Slot), b: &(Ballot, Slot)| a.0 >= b.0 && a.1 >= b.1;
        if !self.acknowledged.iter().any(|known| covers(known, &news)) {
            self.acknowledged.retain(|known| !covers(&news, known));
            self.acknowledged.push(news);
        }
        Ok(())
    }

    fn newest_is_chosen(&self, slot: Slot, agreement: &Agreement) -> bool {
        let newest = self.newest.get(slot.0 as usize - 1).copied().flatten();
        newest.is_some_and(|(_, hash)| agreement.chosen(slot) == Some(hash))
    }

    fn check_chosen(
        &self,
        from: Slot,
        values: &[synod_engine::message::Value],
        agreement: &Agreement,
    ) -> Result<(), Violation> {
        for (slot, value) in (from.0..).map(Slot).zip(values) {
            if agreement.chosen(slot) != Some(Agreement::hash_of(value)) {
                let what = format!(
                    "{} hands out a value for {slot} that was never chosen",
                    self.replica
                );
                return Err(Violation::new(super::AGREEMENT, what));
            }
        }
        Ok(())
    }
}

const AGREEMENT_OF_BALLOTS: &str = "no ballot is used twice";

fn entry<T: Copy>(table: &mut Vec<Option<T>>, slot: Slot) -> &mut Option<T> {
    let index = slot.0 as usize - 1;
    if table.len() <= index {
        table.resize(index + 1, None);
    }
    &mut table[index]
}

#[cfg(test)]
mod tests;
