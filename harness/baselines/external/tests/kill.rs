//! Each system for real: a cluster, a load, SIGKILL of the leader, and everything acknowledged is there.
//!
//! Skipped, with a line that says so, where the system is not installed.

mod cluster;

use cluster::Cluster;

/// Of the measured window.
const SECONDS: u64 = 12;

fn leader_is_killed_under_load(system: &str) {
    let Some(mut cluster) = Cluster::start(system) else {
        return;
    };
    let mut load = cluster.load(&["--outstanding", "64", "--seconds", &SECONDS.to_string()]);
    load.until("window_start");
    let killed = cluster.kill_leader();
    let result = load.until("result");
    load.finish();
    let number = |name: &str| {
        let value = result[name].as_u64();
        value.unwrap_or_else(|| panic!("{system}: no `{name}` in {result}"))
    };
    assert_ne!(cluster.leader(), killed, "{system}: the dead one leads");
    assert_eq!(number("lost"), 0, "{system}: {result}");
    assert!(number("checked") > 0, "{system}: {result}");
    assert_eq!(number("failed"), 0, "{system}: {result}");
    let last = result["timeline"]["intervals"].as_u64();
    assert_eq!(last, Some(SECONDS * 10), "{system}: {result}");
    assert!(
        cluster.acknowledged_at_the_end() > 0,
        "{system}: nothing was acknowledged in the last second"
    );
    cluster.stop();
}

#[test]
fn etcd() {
    leader_is_killed_under_load("etcd");
}

#[test]
fn zookeeper() {
    leader_is_killed_under_load("zookeeper");
}

#[test]
fn nats() {
    leader_is_killed_under_load("nats");
}

#[test]
fn nats_default() {
    leader_is_killed_under_load("nats-default");
}

/// What makes a comparison skip a system and go on.
#[test]
fn a_missing_program_is_one_line_and_exit_code_3() {
    let scratch = cluster::scratch();
    let directory = scratch.path().join("cluster");
    let output = cluster::external()
        .args(["servers", "--system", "etcd", "--program", "/no/such/etcd"])
        .arg("--directory")
        .arg(&directory)
        .output()
        .expect("it runs");
    assert_eq!(output.status.code(), Some(3));
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(said, "external: /no/such/etcd: no such file\n");
    assert!(output.stdout.is_empty() && !directory.exists());
}
