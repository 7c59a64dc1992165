//! An exhaustive search through the states of a small cluster: three replicas, each the production `Replica` with a
//! disk, of which 1 and 2 may stand. Nothing of Paxos is written down here a second time: every local step is made by
//! `Replica::step` and `flush`, every restart by `Replay`.
//!
//! # What can happen
//!
//! - Any message that was ever sent arrives: late, out of order, again and again, or never. The network is the set of
//!   everything sent, as in Lamport's TLA+ specification of Paxos, so loss and duplication need no moves of their own.
//! - A disk finishes any number of records.
//! - A replica crashes and starts again by the real replay; of its records that are not durable any number is lost from
//!   the end. (A replica that stays down for a while is the same as one that nothing reaches for a while.)
//! - A proposer's time is over: it steps down if it leads or stands, and stands.
//! - A client's value arrives at an established leader. Values come in a fixed order, since which is called A makes no
//!   difference. Replicas can't be exchanged like that: ballots order them.
//!
//! # Time
//!
//! A replica's clock stands still, and all timers but the election's are zero: what may be sent again is due at once.
//! Only to stand (or to ask for what is missing) its clock jumps by more than any timer. At that moment the heartbeats
//! arrive that its peers sent before anything happened, so that it is connected and nobody vetoes. So no timing keeps an
//! interleaving away, and each one is possible in an asynchronous network.
//!
//! # What is left out
//!
//! What is lost on purpose, which is always allowed, so that every state found is a real one, but some are not found:
//! heartbeats other than those of established leaders, which carry the commit index, and the early ones; unless the
//! [`scope::Scope`] says otherwise, Rejects, second Promises of one ballot and Accepts sent again with a newer commit
//! index. WAL reads are answered at once, and there is neither trimming nor damage nor a session; the driver and the real WAL are the simulator's subject. The rest of the bounds are the numbers in the scope.
//!
//! # How it stays small
//!
//! Local steps are remembered ([`universe`]), local states that differ in nothing that matters are one
//! ([`fingerprint`]), and messages that can't matter any more are forgotten (`Universe::alive`).

pub mod agreement;
pub mod fingerprint;
pub mod intern;
pub mod node;
pub mod property;
pub mod scope;
pub mod search;
pub mod tampering;
pub mod universe;
pub mod words;
