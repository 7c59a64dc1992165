//! The leader is killed under load and returns, over both transports.

use std::path::Path;

use synod_baseline_testkit::leader_is_killed_and_returns;

#[test]
fn nothing_acknowledged_is_lost_when_the_leader_is_killed() {
    let binary = Path::new(env!("CARGO_BIN_EXE_synod-baseline-synod"));
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR"));
    // One after the other: on a small machine two clusters at once would starve each other.
    for transport in ["quic", "tcp"] {
        leader_is_killed_and_returns(binary, &["--transport", transport], scratch);
    }
}
