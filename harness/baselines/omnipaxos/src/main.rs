//! `synod-baseline-omnipaxos`: the OmniPaxos library inside Synod's shell. Settings and reasons: README.md.

mod codec;
mod gate;
mod omni;
mod store;

use std::process::ExitCode;

fn main() -> ExitCode {
    synod_baseline_shell::main::<omni::Omni>()
}
