//! What a session tells its user, why it may not go on, and what it counts.

use synod_engine::client::Replies;
use synod_engine::ids::{CommandNumber, SessionId};

use super::session::{OUTSTANDING_BYTES_MAX, REQUEST_BYTES_MAX};

/// What the session has to tell its user, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Opened,
    /// Each number exactly once, in order, without a gap.
    Replies(Replies),
    /// No reply within the deadline; it may still come, as [`Event::Replies`].
    TimedOut {
        first: CommandNumber,
        count: u32,
    },
    /// These commands were executed, and their replies are lost: the replicas did not keep them until this client
    /// could take them.
    Gone {
        first: CommandNumber,
        count: u32,
    },
    /// The session is over, as [`Session::close`] asked.
    Closed,
    /// The end of the session; nothing follows.
    Failed(SessionFailed),
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionFailed {
    #[error(
        "the cluster does not know {0:?} any more: what was outstanding may or may not have been executed"
    )]
    Unknown(SessionId),
    #[error(
        "the replica refuses command {number:?} for good, it is over a limit of {limit}: send smaller commands or \
         fewer at once, or raise the limit; nothing from it on was executed"
    )]
    OverLimit { number: CommandNumber, limit: u32 },
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    #[error("no session is open")]
    NotOpen,
    #[error(
        "more than {commands_max} commands or {OUTSTANDING_BYTES_MAX} bytes would be outstanding"
    )]
    WouldExceed { commands_max: u32 },
    #[error("a run of {bytes} bytes is over the limit of {REQUEST_BYTES_MAX} bytes: split it")]
    TooLong { bytes: usize },
    #[error(transparent)]
    Failed(#[from] SessionFailed),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionCounters {
    /// Times that nothing came back for too long.
    pub retries: u64,
    /// Times that another replica became the target.
    pub redirects: u64,
    /// Commands sent more than once.
    pub resent: u64,
    pub busy: u64,
    pub timed_out: u64,
}
