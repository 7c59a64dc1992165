//! Which life of each replica's disk may vote.
//!
//! A replica that lost its disk forgot what it promised and accepted. It takes part again only after the cluster has
//! readmitted it under a new incarnation, by a value in the log that was proposed after the loss.
//!
//! An incarnation is a random number, drawn when the disk is made. No clock orders them and nothing compares two of them
//! but for being the same: later is what the log says in a later slot. A leader never goes back to an earlier life, whose
//! last question may come late:
//!
//! - It readmits only who holds the slot of the last readmission of that replica. An earlier life stopped asking before
//!   the present one began to, so before that slot was proposed, and can't have held it.
//! - It proposes nothing while another readmission of that replica is open, and only once all that former leaders may
//!   have chosen is applied. (One that a deposed leader proposed in vain may still be chosen after a later one. Its disk
//!   is gone and gets no vote, nobody else is counted in its name, and the present disk asks again, or says that it was
//!   superseded.)
//! - A disk that had a vote never asks: it ends as superseded once the log names another.
//!
//! Why a readmission is safe:
//!
//! - Once that value is chosen and the replica holds every slot up to it, whatever it may have accepted before is
//!   chosen and held here, or can't be chosen any more: acceptors take slots in order, so the value's own quorum (of the
//!   others) settled all slots before it, by whichever leader it was proposed first or again, and slots after it had not
//!   been proposed by that leader when the disk was lost. The leader that says that it is chosen is established, so that
//!   nothing of former leaders is open behind it.
//! - A promise from before the loss may still be under way, or in a candidate's hands. Every prepare quorum that it
//!   helps to complete has another member that accepted the value first, because the value's quorum is one of the
//!   others. So the candidate knows of the value, and counts no promise of an earlier incarnation
//!   ([`crate::candidate`]).
//! - The replica starts with the ballot of a leader that says the value is chosen, so it accepts nothing below.
//!
//! The crash vectors of Michael, Ports, Sharma and Szekeres ("Recovering Shared Objects Without Stable Storage",
//! DISC 2017) do the same with a number in every message; here the log carries it.

use bytes::{Bytes, BytesMut};

use crate::client::Request;
use crate::ids::{CommandNumber, Incarnation, REPLICAS_MAX, ReplicaId, SessionId, Slot};
use crate::message::Value;

/// The incarnations that the chosen part of the log knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    current: [Member; REPLICAS_MAX as usize + 1],
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Member {
    incarnation: Incarnation,
    /// The slot that readmitted it; zero for a founding member.
    since: Slot,
}

/// A value of the log: from here on `replica` takes part as `incarnation`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Readmission {
    pub replica: ReplicaId,
    pub incarnation: Incarnation,
}

impl Members {
    /// Takes note of the value that is chosen for `slot`; slots come in order.
    pub fn note(&mut self, slot: Slot, value: &Value) {
        if let Some(readmission) = Readmission::decode(value) {
            self.current[usize::from(readmission.replica.0)] = Member {
                incarnation: readmission.incarnation,
                since: slot,
            };
        }
    }

    /// For a snapshot: of each replica from 1 on, its incarnation and since when.
    pub fn iter(&self) -> impl Iterator<Item = (Incarnation, Slot)> + '_ {
        self.current[1..]
            .iter()
            .map(|member| (member.incarnation, member.since))
    }

    /// From a snapshot. `None` if these are more replicas than there can be.
    pub fn restored(known: impl Iterator<Item = (Incarnation, Slot)>) -> Option<Members> {
        let mut members = Members::default();
        let mut places = members.current[1..].iter_mut();
        for (incarnation, since) in known {
            *places.next()? = Member { incarnation, since };
        }
        Some(members)
    }

    pub fn incarnation(&self, replica: ReplicaId) -> Incarnation {
        self.current[usize::from(replica.0)].incarnation
    }

    /// The slot since which a replica takes part as what it is.
    pub fn since(&self, replica: ReplicaId) -> Slot {
        self.current[usize::from(replica.0)].since
    }
}

impl Readmission {
    /// A request of a session that no client can have, alone in its slot: state machine and sessions skip it.
    pub fn encode(&self) -> Value {
        let request = Request {
            session: SessionId::MEMBERS,
            first: CommandNumber(self.incarnation.0),
            acknowledged: CommandNumber(u64::from(self.replica.0)),
            count: 0,
            commands: Bytes::new(),
        };
        let mut value = BytesMut::new();
        request.put(&mut value);
        value.freeze()
    }

    /// Any other value costs one comparison.
    pub fn decode(value: &Value) -> Option<Readmission> {
        if !value.starts_with(&SessionId::MEMBERS.0.to_le_bytes()) {
            return None;
        }
        let mut rest = value.clone();
        let request = Request::take(&mut rest).ok()?;
        if !rest.is_empty() || request.count > 0 {
            return None;
        }
        let replica = u8::try_from(request.acknowledged.0).ok()?;
        (1..=REPLICAS_MAX)
            .contains(&replica)
            .then_some(Readmission {
                replica: ReplicaId(replica),
                incarnation: Incarnation(request.first.0),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_readmission_survives_its_encoding_and_nothing_else_passes_for_one() {
        let readmission = Readmission {
            replica: ReplicaId(3),
            incarnation: Incarnation(77),
        };
        let value = readmission.encode();
        assert_eq!(Readmission::decode(&value), Some(readmission));
        assert_eq!(Readmission::decode(&Value::new()), None);
        assert_eq!(Readmission::decode(&value.slice(..9)), None);
        let stranger = Readmission {
            replica: ReplicaId(200),
            incarnation: Incarnation(1),
        };
        assert_eq!(Readmission::decode(&stranger.encode()), None);
    }

    #[test]
    fn the_latest_readmission_counts() {
        let mut members = Members::default();
        assert_eq!(members.incarnation(ReplicaId(2)), Incarnation::FOUNDING);
        for (slot, incarnation) in [(5, 11), (9, 12)] {
            let readmission = Readmission {
                replica: ReplicaId(2),
                incarnation: Incarnation(incarnation),
            };
            members.note(Slot(slot), &readmission.encode());
        }
        assert_eq!(members.incarnation(ReplicaId(2)), Incarnation(12));
        assert_eq!(members.since(ReplicaId(2)), Slot(9));
        assert_eq!(members.incarnation(ReplicaId(1)), Incarnation::FOUNDING);
    }
}
