//! The pure core of Synod: Multi-Paxos without IO, threads, clocks or randomness, and the event loop that drives it
//! over the traits in [`seams`].
//!
//! The path of a command: intake → batch → propose → persist ∥ replicate → accept → choose → apply → reply.

// Only `harness` speaks to people, and without waiting for them.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod acceptor;
pub mod admission;
pub mod batch;
pub mod budget;
pub mod candidate;
pub mod client;
pub mod codec;
pub mod config;
pub mod divergence;
pub mod download;
pub mod driver;
pub mod election;
pub mod fetching;
pub mod ids;
pub mod intake;
pub mod leader;
pub mod learner;
pub mod machine;
pub mod members;
pub mod mending;
pub mod message;
pub mod newcomer;
pub mod output;
pub mod pace;
pub mod persist;
pub mod quorum;
pub mod recovery;
pub mod replica;
pub mod reply;
pub mod retention;
pub mod seams;
pub mod sessions;
pub mod slots;
pub mod snapshot;
pub mod state;
pub mod status;
pub mod tenure;
pub mod work;
