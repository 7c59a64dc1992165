//! Snapshots: the replicated state at one slot as a stream of bytes, and how it is taken, restored and handed out.
//!
//! ```text
//! magic 8 | version u32 | slot u64 | members: count u8 × (incarnation u64 | since u64)
//! pieces:  kind u8 | length u32 | content       sessions (kind 1), then machine (kind 2)
//! end:     kind 255 | length 8 | checksum u64   xxh3 of every byte before this piece
//! ```
//!
//! The bytes verify themselves from end to end, whichever disk or network they came through. Two replicas write the
//! same state in different orders, so a snapshot is named by slot, length and checksum together.

mod body;
mod none;
mod restoring;
mod serving;
mod taking;

pub use body::PIECE_BYTES_MAX;
pub use none::NoSnapshots;
pub use restoring::{RestoreError, Restored, Restoring};
pub use serving::{READING_MAX, Serving};
pub use taking::{Step, Taking, kept_bytes};

/// Bytes of one part of a snapshot on its way to a peer, at most.
pub const PART_BYTES_MAX: usize = 1 << 20;
/// Parts that a replica has asked for and not received: what may be on the way to it.
pub const PARTS_AHEAD: u64 = 4;

#[cfg(test)]
mod tests;
