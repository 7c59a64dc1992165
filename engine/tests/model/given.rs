//! What a replica promised to the others.

use std::collections::BTreeMap;

use synod_engine::ids::{Ballot, Slot};
use synod_engine::message::Message;

/// What a replica's word was given for, whatever became of the messages: kept across crashes, to compare with.
#[derive(Clone, Debug, Default)]
pub struct Given {
    /// The highest ballot in a Promise that left.
    pub promise: Ballot,
    /// How far the Accepted messages of each ballot reached.
    pub accepted: BTreeMap<Ballot, Slot>,
    /// The highest ballot that this replica used as a proposer.
    pub used: Ballot,
}

impl Given {
    pub fn note(&mut self, message: &Message) {
        match message {
            Message::Promise(promise) => self.promise = self.promise.max(promise.ballot),
            Message::Accepted(accepted) => {
                let through = self.accepted.entry(accepted.ballot).or_default();
                *through = accepted.through.max(*through);
            }
            Message::Prepare(prepare) => self.used = self.used.max(prepare.ballot),
            Message::Accept(accept) => self.used = self.used.max(accept.ballot),
            Message::Reject(_)
            | Message::Known(_)
            | Message::Heartbeat(_)
            | Message::Fetch(_)
            | Message::Chosen(_)
            | Message::FetchSnapshot(_)
            | Message::SnapshotPart(_)
            | Message::StateHash(_) => {}
        }
    }
}
