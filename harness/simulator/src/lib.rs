//! Deterministic simulation of whole Synod clusters: the production event loop, WAL, recovery, sessions and client
//! session under simulated clocks, links, disks and clients. One seed is one history, on any machine.
//!
//! ```text
//!   seed ─► swarm::Plan ─► world::World ─► run::simulate ─► Outcome or Failure
//!                            │  members (driver, WAL, disk, clock), links, clients, faults
//!                            └─ checkers: agreement, shadow (what a replica said), model (what the log means)
//! ```

// Only `harness` speaks to people, and without waiting for them.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod checker;
pub mod client;
pub mod clock;
pub mod disk;
pub mod faults;
pub mod front;
pub mod isolation;
pub mod linearizability;
pub mod links;
pub mod member;
pub mod milestones;
pub mod outbox;
pub mod partitions;
pub mod production_client;
pub mod random;
pub mod run;
pub mod seams;
pub mod shrink;
pub mod snapshots;
pub mod swarm;
pub mod sweep;
pub mod trace;
pub mod wal;
pub mod witness;
pub mod world;
