//! The write-ahead log of one replica: segments of zero-filled files, group commit beside the loop, and a recovery
//! that tells a torn tail from damage. The files are drawn in [`format`], the groups in [`group`].
//!
//! ```text
//!   append ─► pending ─► seal ─► Backend::start_write ─► take_written ─► durable
//!                          ▲                                  │
//!                 keeper: prepared segments            reader: values of slots
//! ```
//! Nothing on the upper row waits for the disk. Keeper and reader are threads with real files, and plain calls with
//! the memory disk, so that a simulation stays deterministic.

// Only `harness` speaks to people, and without waiting for them.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod backend;
pub mod buffer;
pub mod config;
pub mod disk;
pub mod error;
pub mod format;
pub mod group;
pub mod recovery;
pub mod snapshot;
pub mod wal;

mod data_directory;
mod directory;
mod file_system;
mod file_wal;
mod index;
mod keeper;
mod notes;
mod reader;
mod record;
mod scan;
mod segments;
mod signal;
mod worker;

pub use config::{BackendChoice, Config, Durability};
pub use data_directory::{DataDirectory, FileSnapshots, init, readmit};
pub use directory::{initialise, initialise_readmitted};
pub use error::OpenError;
pub use file_wal::{FileWal, OpenReport, open};
pub use notes::Notes;
pub use recovery::{Hole, RecordAt, Replayed};
pub use scan::{ScanReport, scan, scan_directory, scan_disk, scan_snapshots};
pub use snapshot::Snapshots;
pub use wal::{WalCore, value_bytes_max};
