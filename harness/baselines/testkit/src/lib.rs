//! The test that every baseline has to pass: three processes, the real client, SIGKILL of the leader, its return.

mod cluster;

use std::path::Path;
use std::process::Command;

use bytes::Bytes;

use cluster::{Cluster, Status};

/// Commands before the kill, while the leader is gone, and after its return.
const COMMANDS: u64 = 300;

/// Runs a cluster of `binary` with `flags` in a directory below `scratch`.
///
/// # Panics
/// If anything acknowledged is lost or executed twice, or the replicas disagree at the end.
pub fn leader_is_killed_and_returns(binary: &Path, flags: &[&str], scratch: &Path) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let mut cluster = Cluster::start(binary, flags, scratch);
        let client = cluster.connect().await;
        let mut acknowledged = 0;
        let mut load = async || {
            for _ in 0..COMMANDS {
                let command = Bytes::from(format!("command {acknowledged}"));
                client.call(command).await.expect("a command is executed");
                acknowledged += 1;
            }
        };
        load().await;
        let leader = client.leader().expect("somebody led");
        cluster.kill(leader);
        load().await;
        cluster.restart(leader);
        load().await;
        let statuses = cluster.settle(&client).await;
        let value = |status: &Status, name: &str| status[name];
        for status in &statuses {
            let replica = value(status, "replica");
            assert_eq!(
                value(status, "applied_commands"),
                acknowledged,
                "replica {replica} did not execute each acknowledged command once"
            );
            assert_eq!(
                value(status, "state_hash"),
                value(&statuses[0], "state_hash"),
                "replica {replica} holds another state"
            );
        }
        client.close().await;
        cluster.stop();
    });
}

/// Asks a baseline which library it is: a result must not name another version than was built.
///
/// # Panics
/// If `Cargo.lock` has another version of `package`.
pub fn description_names_the_version_that_was_built(binary: &Path, package: &str) {
    let output = Command::new(binary).arg("--describe").output();
    let output = String::from_utf8(output.expect("it runs").stdout).expect("it prints text");
    let lock = include_str!("../../Cargo.lock");
    let (_, after) = lock
        .split_once(&format!("name = \"{package}\"\nversion = \""))
        .expect("the package is locked");
    let (version, _) = after.split_once('"').expect("a version ends");
    let expected = format!("{{\"library\": \"{package} {version}\", ");
    assert!(output.starts_with(&expected), "{output} is not {expected}…");
}
