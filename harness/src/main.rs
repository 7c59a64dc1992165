//! `synod`: replicas, clients and experiments of the Synod replication engine.

use std::process::ExitCode;

fn main() -> ExitCode {
    synod_harness::main()
}
