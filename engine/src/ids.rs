//! One newtype per quantity, so that a slot can never be passed where a ballot round is meant.

use std::fmt;

/// Most replicas one cluster can have: a [`ReplicaSet`] is 16 bits wide and replica 0 does not exist.
pub const REPLICAS_MAX: u8 = 15;

/// A process of the cluster, numbered from 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ReplicaId(pub u8);

/// A set of replicas as a bit mask: bit `i` stands for replica `i`.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct ReplicaSet(pub u16);

/// A proposal number: ordered by round, then by replica, so that no two replicas ever share one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Ballot {
    pub round: u64,
    pub replica: ReplicaId,
}

/// A position in the replicated log. The first slot is 1; 0 means "none yet".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Slot(pub u64);

/// The sequence number of a record in one replica's WAL. The first is 1; 0 means "none yet".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(pub u64);

/// A client session, named by the log position that opened it. 0 is never a session.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SessionId(pub u64);

/// The number of a command within its session, from 1. A retry keeps its number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct CommandNumber(pub u64);

/// Which life of a replica's disk: 0 for a founding member, otherwise a number drawn at random for each new disk. It says
/// nothing about which came first: the log does, by the slot of each readmission.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Incarnation(pub u64);

/// One client connection of this process, as the transport numbers them. Never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub u64);

/// Who a client is, as its certificate says: a hash of the name there. 0 for one without a name of its own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Owner(pub u64);

/// The identity of a cluster, drawn at random when it is made.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClusterId(pub u128);

/// Nanoseconds on a monotonic clock with an arbitrary origin.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Time(pub u64);

impl Ballot {
    pub const ZERO: Ballot = Ballot {
        round: 0,
        replica: ReplicaId(0),
    };
}

impl Slot {
    pub const ZERO: Slot = Slot(0);
    /// No slot is above this one: the id of a session that a slot opens holds 48 bits of it, and one is left for
    /// [`SessionId::MEMBERS`]. A thousand slots in each millisecond come to it in nine years; what peers and disks say
    /// is held to it.
    pub const MAX: Slot = Slot((1 << 48) - 2);

    /// Saturates: a message may name any slot before it is checked.
    pub fn next(self) -> Slot {
        Slot(self.0.saturating_add(1))
    }

    /// The slot before this one; the slot before "none yet" is "none yet".
    pub fn previous(self) -> Slot {
        Slot(self.0.saturating_sub(1))
    }
}

impl Lsn {
    pub const ZERO: Lsn = Lsn(0);

    pub fn next(self) -> Lsn {
        Lsn(self.0 + 1)
    }
}

impl CommandNumber {
    /// Saturates: clients may claim any number.
    pub fn plus(self, count: u32) -> CommandNumber {
        CommandNumber(self.0.saturating_add(u64::from(count)))
    }
}

impl SessionId {
    /// Sessions that one slot can open: the low bits of an id.
    pub const OPENS_PER_SLOT_BITS: u32 = 16;

    /// The slot that opened it.
    pub fn opened_in(self) -> Slot {
        Slot(self.0 >> Self::OPENS_PER_SLOT_BITS)
    }

    pub const NONE: SessionId = SessionId(0);
    /// Marks what the log says about its members; no client ever has it.
    pub const MEMBERS: SessionId = SessionId(u64::MAX);
}

impl Owner {
    pub const UNNAMED: Owner = Owner(0);

    pub fn named(name: &str) -> Owner {
        Owner(xxhash_rust::xxh3::xxh3_64(name.as_bytes()))
    }
}

impl Incarnation {
    pub const FOUNDING: Incarnation = Incarnation(0);
}

impl Time {
    pub fn plus(self, nanos: u64) -> Time {
        Time(self.0.saturating_add(nanos))
    }

    /// Nanoseconds from `earlier` to `self`; 0 if `earlier` is not earlier.
    pub fn since(self, earlier: Time) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl ReplicaSet {
    pub const EMPTY: ReplicaSet = ReplicaSet(0);

    pub fn one(replica: ReplicaId) -> ReplicaSet {
        let mut set = ReplicaSet::EMPTY;
        set.insert(replica);
        set
    }

    /// Replicas 1 to `count`.
    pub fn first(count: u8) -> ReplicaSet {
        (1..=count).map(ReplicaId).collect()
    }

    pub fn insert(&mut self, replica: ReplicaId) {
        assert!(
            replica.0 >= 1 && replica.0 <= REPLICAS_MAX,
            "replica {replica} is out of range"
        );
        self.0 |= 1 << replica.0;
    }

    pub fn remove(&mut self, replica: ReplicaId) {
        self.0 &= !(1 << replica.0);
    }

    pub fn contains(self, replica: ReplicaId) -> bool {
        replica.0 <= REPLICAS_MAX && self.0 & (1 << replica.0) != 0
    }

    pub fn without(mut self, replica: ReplicaId) -> ReplicaSet {
        self.remove(replica);
        self
    }

    pub fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn iter(self) -> impl Iterator<Item = ReplicaId> {
        (1..=REPLICAS_MAX)
            .map(ReplicaId)
            .filter(move |r| self.contains(*r))
    }
}

impl FromIterator<ReplicaId> for ReplicaSet {
    fn from_iter<I: IntoIterator<Item = ReplicaId>>(replicas: I) -> ReplicaSet {
        let mut set = ReplicaSet::EMPTY;
        for replica in replicas {
            set.insert(replica);
        }
        set
    }
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r{}", self.0)
    }
}

impl fmt::Display for Ballot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.round, self.replica.0)
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s{}", self.0)
    }
}

impl fmt::Display for ReplicaSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> = self.iter().map(|r| r.to_string()).collect();
        write!(f, "{{{}}}", names.join(","))
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Debug output is what golden traces show, so it is the short display form.
macro_rules! debug_as_display {
    ($($name:ty),*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    )*};
}
debug_as_display!(ReplicaId, Ballot, Slot, ReplicaSet, ClusterId);

macro_rules! debug_as_number {
    ($($name:ident $prefix:literal),*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
    )*};
}
debug_as_number!(
    Lsn "lsn",
    SessionId "session",
    CommandNumber "#",
    ClientId "client",
    Owner "owner",
    Incarnation "incarnation",
    Time "t"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ballots_order_by_round_then_replica() {
        let ballot = |round, replica| Ballot {
            round,
            replica: ReplicaId(replica),
        };
        assert!(ballot(1, 3) < ballot(2, 1));
        assert!(ballot(2, 1) < ballot(2, 2));
        assert!(Ballot::ZERO < ballot(1, 1));
    }

    #[test]
    fn replica_sets_behave_like_sets() {
        let mut set = ReplicaSet::first(3);
        assert_eq!(set.len(), 3);
        set.remove(ReplicaId(2));
        assert_eq!(set.iter().collect::<Vec<_>>(), [ReplicaId(1), ReplicaId(3)]);
        assert!(!set.contains(ReplicaId(2)));
        assert_eq!(format!("{set}"), "{r1,r3}");
    }
}
