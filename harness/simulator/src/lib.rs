//! Checks of what a cluster did.

pub mod linearizability;
