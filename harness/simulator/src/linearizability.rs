//! Whether a history of a key-value store is linearizable (Herlihy and Wing, TOPLAS 1990): whether each operation can
//! be given a moment between its invocation and its return so that, in the order of these moments, a plain map gives
//! the same replies.
//!
//! The search is that of Wing and Gong (JPDC 1993) in the just-in-time form with memoisation of Lowe ("Testing for
//! linearizability", CCPE 2017), see [`search`]. A map is a product of independent keys, so each key is checked by
//! itself (P-compositionality: Horn and Kroening, FORTE 2015).
//!
//! The model of the store is written here a second time, so that a mistake of the product is not repeated.

mod search;
mod violation;

use std::collections::BTreeMap;

pub use violation::Violation;

pub type Key = Vec<u8>;
pub type Value = Vec<u8>;

/// What one client asked for, and what it was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// For messages only. One client has at most one operation in flight.
    pub client: u64,
    pub key: Key,
    pub action: Action,
    /// Nanoseconds on the one clock of the history.
    pub invoked_ns: u64,
    /// `None`: nobody knows. It may have taken effect at any time after its invocation, or never.
    pub returned: Option<Returned>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Returned {
    /// On the same clock, not before the invocation.
    pub at_ns: u64,
    pub reply: Reply,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    Get,
    Put {
        value: Value,
    },
    Delete,
    /// Sets `value` if the present value is `expected`; `None` expects the key to be absent.
    Cas {
        expected: Option<Value>,
        value: Value,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    Done,
    Value(Value),
    NotFound,
    /// The compare failed; this is the present value, if any.
    Mismatch(Option<Value>),
}

/// What a check went through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    pub operations: u64,
    pub keys: u64,
    /// Operations whose outcome nobody knows.
    pub open: u64,
    /// The most configurations that had to be kept at once: how hard the history was.
    pub configurations_max: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckError {
    NotLinearizable(Box<Violation>),
    /// No verdict: too much of one key's history happens at once.
    TooHard {
        key: Key,
        operations: usize,
        why: Limit,
    },
}

/// Beyond these the search gives up, and says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// More operations of one key at once, with a reply.
    Concurrent,
    /// More operations of one key without a reply.
    Open,
    Configurations,
}

/// Operations of one key in flight at once that return later.
pub const CONCURRENT_MAX: usize = u64::BITS as usize;
/// Operations of one key without a reply that may still take effect.
pub const OPEN_MAX: usize = u128::BITS as usize;
/// Configurations kept at once, some 100 bytes each.
pub const CONFIGURATIONS_MAX: usize = 1 << 20;

/// Checks a whole history, in any order. Every key starts absent.
///
/// # Panics
/// If an operation returns before its invocation: that is no history.
pub fn check(history: &[Operation]) -> Result<Checked, CheckError> {
    let mut keys: BTreeMap<&[u8], Vec<&Operation>> = BTreeMap::new();
    for operation in history {
        keys.entry(&operation.key).or_default().push(operation);
    }
    let mut checked = Checked {
        operations: history.len() as u64,
        keys: keys.len() as u64,
        ..Checked::default()
    };
    for operations in keys.values() {
        let configurations = search::check_key(operations)?;
        checked.configurations_max = checked.configurations_max.max(configurations);
        let open = operations.iter().filter(|one| one.returned.is_none());
        checked.open += open.count() as u64;
    }
    Ok(checked)
}

impl std::fmt::Display for CheckError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            CheckError::NotLinearizable(violation) => violation.fmt(f),
            CheckError::TooHard {
                key,
                operations,
                why,
            } => {
                let (what, limit) = match why {
                    Limit::Concurrent => ("operations at once", CONCURRENT_MAX),
                    Limit::Open => ("operations of unknown outcome", OPEN_MAX),
                    Limit::Configurations => ("configurations", CONFIGURATIONS_MAX),
                };
                write!(
                    f,
                    "key {} cannot be decided: more than {limit} {what} within its first {operations} operations",
                    violation::quoted(key)
                )
            }
        }
    }
}

impl std::error::Error for CheckError {}
