//! `synod-baseline-synod`: Synod's own engine over the baselines' plaintext TCP, so that the protocols can be compared
//! without encryption as well. The product itself speaks QUIC only.

use std::process::ExitCode;

fn main() -> ExitCode {
    synod_baseline_shell::main_of_synod()
}
