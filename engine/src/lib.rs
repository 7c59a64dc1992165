//! The pure core of Synod: Multi-Paxos without IO, threads, clocks or randomness, and the event loop that drives it
//! over the traits in [`seams`].

pub mod client;
pub mod codec;
pub mod ids;
pub mod message;
pub mod seams;
