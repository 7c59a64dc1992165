//! The library's state machine: it hands entries to the shell, which applies them as it applies Synod's.

use std::io;
use std::sync::Arc;

use futures_util::{Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend, StoredMembership, alias};
use synod_engine::ids::{Ballot, Slot};
use synod_engine::message::Value;

use crate::shared::Shared;
use crate::types::{LogId, Types, log_id_of};

#[derive(Clone)]
pub struct Machine(pub Arc<Shared>);

type Snapshot = alias::SnapshotOf<Types, ()>;

impl RaftStateMachine<Types> for Machine {
    type SnapshotData = ();
    type SnapshotBuilder = Machine;

    async fn applied_state(
        &mut self,
    ) -> Result<(Option<LogId>, alias::StoredMembershipOf<Types>), io::Error> {
        let applied = self.0.lock().applied;
        let membership = match applied {
            Some(_) => {
                let first = log_id_of(Slot(1), Ballot::ZERO);
                StoredMembership::new(Some(first), self.0.members.clone())
            }
            None => StoredMembership::default(),
        };
        Ok((applied, membership))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some(entry) = entries.next().await {
            let (entry, responder) = entry?;
            let value = match entry.payload {
                EntryPayload::Normal(batch) => batch.value,
                EntryPayload::Blank | EntryPayload::Membership(_) => Value::new(),
            };
            {
                let mut state = self.0.lock();
                state.chosen.push(value);
                state.applied = Some(entry.log_id);
            }
            if let Some(responder) = responder {
                responder.send(());
            }
        }
        self.0.woken.notify_one();
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Machine {
        self.clone()
    }

    async fn install_snapshot(
        &mut self,
        _meta: &alias::SnapshotMetaOf<Types>,
        _snapshot: (),
    ) -> Result<(), io::Error> {
        Err(no_snapshots())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        Ok(None)
    }
}

impl RaftSnapshotBuilder<Types> for Machine {
    type SnapshotData = ();

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        Err(no_snapshots())
    }
}

fn no_snapshots() -> io::Error {
    io::Error::new(
        io::ErrorKind::Unsupported,
        "no baseline makes snapshots: the log is whole",
    )
}
