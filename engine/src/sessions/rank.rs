//! In which order sessions go where there are too many.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::{CommandNumber, Owner, SessionId, Slot};

/// A session that executed fewer commands was used little: that is what a call on the command line leaves behind.
pub const LITTLE_COMMANDS: u64 = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Use {
    Never,
    Little,
    Much,
}

/// The place of a session among those that could go: the fields in the order in which they count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    owner: Owner,
    used: Use,
    /// The slot that last did anything for it.
    pub active: Slot,
    pub session: SessionId,
}

impl Rank {
    pub fn new(owner: Owner, last: CommandNumber, active: Slot, session: SessionId) -> Rank {
        let used = match last.0 {
            0 => Use::Never,
            1..LITTLE_COMMANDS => Use::Little,
            _ => Use::Much,
        };
        Rank {
            owner,
            used,
            active,
            session,
        }
    }
}

/// Every session once.
#[derive(Clone, Debug, Default)]
pub struct Ranks {
    ranks: BTreeSet<Rank>,
    /// How many sessions each owner has that has any. Owners are as many as a person made certificates.
    owners: BTreeMap<Owner, usize>,
}

impl Ranks {
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.ranks.len()
    }

    #[cfg(test)]
    pub fn contains(&self, rank: &Rank) -> bool {
        self.ranks.contains(rank)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Rank> {
        self.ranks.iter()
    }

    pub fn insert(&mut self, rank: Rank) {
        if self.ranks.insert(rank) {
            *self.owners.entry(rank.owner).or_insert(0) += 1;
        }
    }

    pub fn remove(&mut self, rank: Rank) {
        if !self.ranks.remove(&rank) {
            return;
        }
        if let Some(count) = self.owners.get_mut(&rank.owner) {
            *count -= 1;
            if *count == 0 {
                self.owners.remove(&rank.owner);
            }
        }
    }

    /// A session moves; its owner stays.
    pub fn replace(&mut self, before: Rank, after: Rank) {
        if before != after {
            self.ranks.remove(&before);
            self.ranks.insert(after);
        }
    }

    /// Who has most sessions, if one more is opened for `opener`.
    pub fn greediest(&self, opener: Owner) -> Owner {
        let count = |owner: &Owner| self.owners.get(owner).copied().unwrap_or(0);
        let most = self.owners.keys().max_by_key(|owner| count(owner));
        match most {
            Some(owner) if count(owner) > count(&opener) + 1 => *owner,
            _ => opener,
        }
    }

    /// The sessions of one owner, those that go first of all first.
    pub fn of(&self, owner: Owner) -> impl Iterator<Item = Rank> {
        let first = Rank {
            owner,
            used: Use::Never,
            active: Slot::ZERO,
            session: SessionId::NONE,
        };
        let ranks = self.ranks.range(first..).copied();
        ranks.take_while(move |rank| rank.owner == owner)
    }
}
