//! A small deterministic simulation of a whole cluster, for the tests of this crate.
#![allow(dead_code)]

pub mod checker;
pub mod client;
pub mod cluster;
pub mod disk;
pub mod network;
pub mod random;
