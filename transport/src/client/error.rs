//! What can go wrong for a client, in words for whoever runs it.

use synod_engine::ids::{CommandNumber, ReplicaId};

use super::session::{SessionFailed, SubmitError};
use crate::TransportError;

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The configuration cannot work.
    #[error(transparent)]
    Transport(#[from] TransportError),
    #[error("the system gives no random bytes")]
    NoRandomness,
    #[error("no replica is configured: give the address of at least one")]
    NoReplicas,
    /// No session within the deadline, or every replica turned the client down.
    #[error("no session with the cluster: {detail}")]
    Connect { detail: String },
    /// The commands may or may not be executed; the session goes on, and later commands come after them.
    #[error(
        "no reply to {count} command(s) from {first:?} on within the deadline: executed or not is unknown"
    )]
    Timeout { first: CommandNumber, count: u32 },
    /// The session goes on.
    #[error(
        "{count} command(s) from {first:?} on were executed, but the replies are gone: the cluster could not keep them until \
         a connection was there to take them"
    )]
    ReplyGone { first: CommandNumber, count: u32 },
    /// Wait for replies and submit again. Nothing was taken.
    #[error(
        "more than {commands_max} commands, or too many bytes, would be outstanding: take replies first"
    )]
    WouldExceed { commands_max: u32 },
    #[error(transparent)]
    Submit(SubmitError),
    /// The session is over: make a new client.
    #[error("the session is over: {0}")]
    Session(#[from] SessionFailed),
    #[error("replica {} is not connected: {detail}", .replica.0)]
    NotConnected { replica: ReplicaId, detail: String },
    #[error("replica {} is not among the configured ones", .0.0)]
    UnknownReplica(ReplicaId),
    #[error("one client either calls, or submits runs and takes their replies: use two clients")]
    Mode,
}

impl From<SubmitError> for ClientError {
    fn from(error: SubmitError) -> ClientError {
        match error {
            SubmitError::WouldExceed { commands_max } => ClientError::WouldExceed { commands_max },
            SubmitError::Failed(failure) => ClientError::Session(failure),
            SubmitError::NotOpen | SubmitError::TooLong { .. } => ClientError::Submit(error),
        }
    }
}
