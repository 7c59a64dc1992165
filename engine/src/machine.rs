//! Replicated applications: `log`, for the pure cost of replication, and `kv`.

pub mod kv;
mod log;

pub use kv::KvMachine;
pub use log::LogMachine;
