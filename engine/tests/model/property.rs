//! What must hold in every state, and how a breach of it is told.

use std::fmt;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Property {
    /// One value per slot: among what replicas learned, and among what quorums accepted durably.
    Agreement,
    /// What replicas take for chosen was accepted by a quorum, and was proposed by a client or is a no-op.
    Validity,
    /// A Promise or Accepted leaves after its record, and is kept across restarts.
    DurablePromise,
    /// Nobody has accepted above its promise.
    PromisedBelowAccepted,
    /// A ballot belongs to one candidacy, and proposes one value per slot.
    BallotReuse,
    /// The commit index moves forward, slot by slot, and nobody claims more than it knows.
    CommitIndex,
    /// An assertion of the product itself.
    Assertion,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub property: Property,
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.property, self.what)
    }
}

/// Fails with what the closure says unless `holds`.
pub fn check(
    holds: bool,
    property: Property,
    what: impl FnOnce() -> String,
) -> Result<(), Violation> {
    if holds {
        Ok(())
    } else {
        Err(Violation {
            property,
            what: what(),
        })
    }
}
