//! What is equal around every baseline: a replica process with the contract of `synod replica`, except that another
//! protocol decides what is chosen.
//!
//! ```text
//!   client ─QUIC→ gateway → inbox → door → intake ─┐            ┌→ WAL (Synod's)
//!                                                  v            │
//!                              Replica::turn → Protocol::flush ─┼→ peers (Synod's QUIC links, or plain TCP)
//!                                                               └→ sessions → state machine → reply
//! ```
//! Everything but [`Protocol`] is Synod's own code, so that a comparison shows the protocol and nothing else.

mod cli;
mod log;
mod network;
mod output;
mod protocol;
mod recovery;
mod replica;
mod tcp;

pub use cli::{main, main_of_synod};
pub use log::Log;
pub use output::Output;
pub use protocol::{Malformed, Protocol, Setting};
pub use recovery::Recovered;
