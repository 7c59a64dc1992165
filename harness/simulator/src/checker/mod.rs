//! What must hold whatever happens. Each checker is plain data: it is fed what was seen and says what is wrong.

mod agreement;
mod model;
mod shadow;
mod turns;

pub use agreement::Agreement;
pub use model::{Executed, Model};
pub use shadow::{Found, Seen, Shadow};
pub use turns::{TURN_WORK_MAX, check_work};

/// What a checker found: the property, and who and what broke it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{property}: {what}")]
pub struct Violation {
    pub property: &'static str,
    pub what: String,
}

impl Violation {
    pub fn new(property: &'static str, what: String) -> Violation {
        Violation { property, what }
    }
}

pub const AGREEMENT: &str = "agreement";
pub const DURABILITY: &str = "durable before it is said";
pub const MEMORY: &str = "promised and accepted never go back";
pub const EXACTLY_ONCE: &str = "exactly once, in slot order";
pub const EQUAL_STATE: &str = "equal state at equal slots";
pub const LINEARIZABLE: &str = "linearizable client history";
pub const LIVENESS: &str = "liveness";
pub const BOUNDED_TURNS: &str = "no turn without end";
pub const PANIC: &str = "no panic";
