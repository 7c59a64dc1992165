//! What has to wait for the disk.
//!
//! The library counts a leader's own accept when the entry is appended, not when it is durable, and its storage is
//! synchronous. Syncing inside of it would put the leader's sync and the replication in series. So the gate holds
//! back what proves something: acknowledgements that come in, as far as they are ahead of the own disk, and promises,
//! prepares and acknowledgements that go out, until their records are on it. Entries leave at once.

use std::collections::{BTreeMap, VecDeque};

use omnipaxos::ballot_leader_election::Ballot;
use omnipaxos::messages::Message;
use omnipaxos::messages::sequence_paxos::{Accepted, PaxosMessage, PaxosMsg};
use omnipaxos::util::NodeId;
use synod_engine::ids::Lsn;

use crate::codec::Batch;

#[derive(Default)]
pub struct Gate {
    /// The newest acknowledgement of each peer.
    incoming: BTreeMap<NodeId, Incoming>,
    /// Each leaves when its record is durable.
    outgoing: VecDeque<(Lsn, Message<Batch>)>,
}

struct Incoming {
    ballot: Ballot,
    /// What the peer acknowledged, and how much of that the library was told.
    accepted_idx: usize,
    told: Option<usize>,
}

impl Gate {
    /// Keeps an acknowledgement. They are cumulative, so the newest counts.
    pub fn hold_incoming(&mut self, from: NodeId, accepted: &Accepted) {
        let held = self.incoming.get(&from);
        match held {
            Some(held) if held.ballot > accepted.n => {}
            Some(held)
                if held.ballot == accepted.n && held.accepted_idx >= accepted.accepted_idx => {}
            Some(_) | None => {
                let told = held.filter(|held| held.ballot == accepted.n);
                let told = told.and_then(|held| held.told);
                self.incoming.insert(
                    from,
                    Incoming {
                        ballot: accepted.n,
                        accepted_idx: accepted.accepted_idx,
                        told,
                    },
                );
            }
        }
    }

    /// The acknowledgements that the own disk covers now, where they are news.
    pub fn release_incoming(&mut self, to: NodeId, durable_idx: usize) -> Vec<Message<Batch>> {
        let news = self.incoming.iter_mut().filter_map(|(from, held)| {
            let accepted_idx = held.accepted_idx.min(durable_idx);
            if held.told.is_some_and(|told| told >= accepted_idx) {
                return None;
            }
            held.told = Some(accepted_idx);
            let msg = PaxosMsg::Accepted(Accepted {
                n: held.ballot,
                accepted_idx,
            });
            let from = *from;
            Some(Message::SequencePaxos(PaxosMessage { from, to, msg }))
        });
        news.collect()
    }

    /// Holds `message` until the record `lsn`, if it proves anything; gives it back otherwise.
    pub fn hold_outgoing(&mut self, lsn: Lsn, message: Message<Batch>) -> Option<Message<Batch>> {
        let proves = matches!(
            &message,
            Message::SequencePaxos(PaxosMessage {
                msg: PaxosMsg::Prepare(_) | PaxosMsg::Promise(_) | PaxosMsg::Accepted(_),
                ..
            })
        );
        if !proves {
            return Some(message);
        }
        self.outgoing.push_back((lsn, message));
        None
    }

    pub fn release_outgoing(&mut self, durable: Lsn) -> Option<Message<Batch>> {
        let (_, message) = self.outgoing.pop_front_if(|(lsn, _)| *lsn <= durable)?;
        Some(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted(round: u32, accepted_idx: usize) -> Accepted {
        Accepted {
            n: Ballot::with(1, round, 0, 1),
            accepted_idx,
        }
    }

    fn told(gate: &mut Gate, durable_idx: usize) -> Vec<usize> {
        let messages = gate.release_incoming(1, durable_idx);
        let idx = messages.iter().map(|message| match message {
            Message::SequencePaxos(PaxosMessage {
                msg: PaxosMsg::Accepted(accepted),
                ..
            }) => accepted.accepted_idx,
            other => panic!("{other:?}"),
        });
        idx.collect()
    }

    #[test]
    fn acknowledgements_never_get_ahead_of_the_own_disk() {
        let mut gate = Gate::default();
        gate.hold_incoming(2, &accepted(1, 5));
        gate.hold_incoming(3, &accepted(1, 2));
        assert_eq!(told(&mut gate, 3), [3, 2]);
        assert_eq!(told(&mut gate, 3), [0; 0]);
        assert_eq!(told(&mut gate, 9), [5]);
        // Of a new ballot everything is news again; what is old is not.
        gate.hold_incoming(2, &accepted(2, 4));
        gate.hold_incoming(2, &accepted(1, 8));
        assert_eq!(told(&mut gate, 9), [4]);
    }

    #[test]
    fn what_proves_something_waits_for_its_record() {
        let mut gate = Gate::default();
        let message = Message::SequencePaxos(PaxosMessage {
            from: 2,
            to: 1,
            msg: PaxosMsg::Accepted(accepted(1, 5)),
        });
        assert!(gate.hold_outgoing(Lsn(7), message).is_none());
        assert!(gate.release_outgoing(Lsn(6)).is_none());
        assert!(gate.release_outgoing(Lsn(7)).is_some());
        assert!(gate.release_outgoing(Lsn(7)).is_none());
    }
}
