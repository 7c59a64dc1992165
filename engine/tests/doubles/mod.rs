//! What stands in for disk and network where a test plays one replica's surroundings.

pub mod disk;
pub mod outbox;
