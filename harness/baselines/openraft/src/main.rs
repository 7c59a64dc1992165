//! `synod-baseline-openraft`: openraft inside Synod's shell. Settings and reasons: README.md.

mod codec;
mod log_store;
mod machine;
mod network;
mod protocol;
mod server;
mod shared;
mod types;

use std::process::ExitCode;

fn main() -> ExitCode {
    synod_baseline_shell::main::<protocol::OpenRaft>()
}
