//! `synod-baseline-raft-rs`: TiKV's Raft library inside Synod's shell. Settings and reasons: README.md.

mod codec;
mod raft_rs;
mod store;

use std::process::ExitCode;

fn main() -> ExitCode {
    synod_baseline_shell::main::<raft_rs::RaftRs>()
}
