//! What the event loop does about the states of the others each turn: it tells them its own, and compares.

use crate::codec;
use crate::divergence::Divergence;
use crate::ids::{ReplicaSet, Time};
use crate::message::{Message, StateHash};
use crate::seams::{Network, SnapshotStore, StateMachine, Wal, WalFailed};

use super::Driver;

/// Why a replica must not go on.
#[derive(Debug, thiserror::Error)]
pub enum Stopped {
    #[error(transparent)]
    Wal(#[from] WalFailed),
    #[error(transparent)]
    Diverged(#[from] Divergence),
}

impl<W: Wal, N: Network, M: StateMachine, S: SnapshotStore> Driver<W, N, M, S> {
    /// After everything chosen is applied. Nothing that this turn gave leaves any more if it fails.
    pub(super) fn compare(&mut self, now: Time) -> Result<(), Divergence> {
        let mut noted = std::mem::take(&mut self.noted);
        for hash in noted.drain(..) {
            self.tell(hash);
            self.comparison.note(now, hash)?;
        }
        self.noted = noted;
        for (from, hash) in self.out.hashes.drain(..) {
            self.comparison.hear(now, from, hash)?;
        }
        Ok(())
    }

    fn tell(&mut self, hash: StateHash) {
        let message = Message::StateHash(hash);
        let (lane, frame) = (codec::lane(&message), codec::encode(&message));
        let config = self.replica.config();
        for peer in ReplicaSet::first(config.replicas)
            .without(config.replica)
            .iter()
        {
            self.network.send(peer, lane, frame.clone());
        }
    }

    /// A difference between the states of replicas for which this one need not stop: whoever runs it shall know.
    pub fn take_divergence(&mut self) -> Option<Divergence> {
        self.comparison.take_report()
    }

    pub(super) fn report_comparison(&self, report: &mut dyn FnMut(&'static str, u64)) {
        let counters = &self.comparison.counters;
        report("state_hashes_equal", counters.equal);
        report("state_divergences", counters.different);
    }
}
