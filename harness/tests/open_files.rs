//! The limit on open files: raised at the start, refused where it is too low, waited for where it is met later.

mod common;

use std::process::{Command, Stdio};

use common::{Files, directory, one_at_a_time, synod, wait_until};
use rustix::process::{Pid, Resource, Rlimit, prlimit};

/// Many segments soon, each of which takes a whole batch.
const SMALL: &str = "[storage]\nsegment_bytes = 65536\n[limits]\nbatch_bytes_max = 32768\n\
                     request_bytes_max = 32768\ncommand_bytes_max = 24576\n";

/// With both limits, or the soft one only, set by a shell.
fn below_limit(ulimit: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit {ulimit} && exec \"$0\" \"$@\"")]);
    command.arg(env!("CARGO_BIN_EXE_synod"));
    command
}

fn limit_of(process: Pid) -> Option<u64> {
    let limits = format!("/proc/{}/limits", process.as_raw_nonzero());
    let limits = std::fs::read_to_string(limits).expect("it runs");
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let soft = line
        .expect("every process has one")
        .split_whitespace()
        .nth(3);
    soft.and_then(|soft| soft.parse().ok())
}

fn set_limit(process: Pid, files: u64, hard: u64) {
    let limit = Rlimit {
        current: Some(files),
        maximum: Some(hard),
    };
    prlimit(Some(process), Resource::Nofile, limit).expect("our child");
}

#[test]
fn a_limit_that_is_too_low_is_refused_with_the_remedy_and_a_soft_one_is_raised() {
    let _turn = one_at_a_time();
    let directory = directory();
    let files = Files::make(directory.path(), 1);
    let refused = below_limit("-n 30")
        .args(["replica", "--init", "--config"])
        .arg(files.config(1))
        .stdin(Stdio::null())
        .output()
        .expect("a shell");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(2), "{said}");
    for part in ["30 files", "hard limit 30", "ulimit -n", "LimitNOFILE"] {
        assert!(said.contains(part), "{said}");
    }
    assert!(!files.data(1).exists(), "nothing was begun");
    let log = std::fs::File::create(files.log(1)).expect("a file");
    let replica = files.start_as(below_limit("-Sn 30"), 1, true, log, |_| {});
    assert!(limit_of(replica.id()) > Some(100));
    let finished = files.client(&["put", "key", "value"]);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert_eq!(replica.stop(), Some(0));
}

#[test]
fn a_replica_never_opens_more_files_than_its_start_asks_for() {
    let _turn = one_at_a_time();
    let directory = directory();
    let files = Files::make(directory.path(), 1);
    files.configure(&format!("{SMALL}snapshot_distance_bytes = 524288\n"));
    // As low as it is allowed: what it opens for segments, snapshots and a restart has to fit.
    let probe = below_limit("-n 20")
        .args(["replica", "--config"])
        .arg(files.config(1))
        .output();
    let said = String::from_utf8_lossy(&probe.expect("a shell").stderr).into_owned();
    let need = said
        .split("needs up to ")
        .nth(1)
        .and_then(|rest| rest.split(':').next());
    let need = need.unwrap_or_else(|| panic!("{said}")).to_owned();
    for init in [true, false] {
        let log = std::fs::File::create(files.log(1)).expect("a file");
        let limit = format!("-n {need}");
        let replica = files.start_as(below_limit(&limit), 1, init, log, |_| {});
        let value = "v".repeat(20_000);
        let puts: String = (0..200)
            .map(|key| format!("put key-{} {value}\n", key % 20))
            .collect();
        let done = files.repl(&puts);
        assert!(!done.stdout.contains("failed"), "{}", done.stdout);
        assert_eq!(files.counter(1, "wal_disk_full_tries"), Some(0));
        assert_eq!(replica.stop(), Some(0));
    }
}

#[test]
fn a_limit_that_is_met_when_a_segment_is_due_is_waited_for() {
    let _turn = one_at_a_time();
    let directory = directory();
    let files = Files::make(directory.path(), 1);
    files.configure(SMALL);
    let replica = files.start(1, true);
    let put = |key: &str| files.client(&["put", key, &"v".repeat(20_000)]);
    assert_eq!(put("first").code, Some(0));
    let hard = limit_of(replica.id()).expect("a number");
    // What it has it keeps; whatever it closes, it gets nothing new.
    set_limit(replica.id(), 3, hard);
    let value = "v".repeat(20_000);
    let puts: String = (0..60)
        .map(|key| format!("put key-{key} {value}\n"))
        .collect();
    let config = files.client_config();
    let during = std::thread::spawn(move || {
        let config = config.to_str().expect("utf-8");
        common::run_with_input(
            &[
                "client",
                "--deadline-ms",
                "100000",
                "--config",
                config,
                "repl",
            ],
            &puts,
        )
    });
    wait_until("no segment is refused", || {
        assert!(!during.is_finished(), "there were enough");
        files.counter(1, "wal_disk_full_tries") > Some(1)
    });
    set_limit(replica.id(), hard, hard);
    let during = during.join().expect("no panic");
    assert!(!during.stdout.contains("failed"), "{}", during.stdout);
    let said = std::fs::read_to_string(files.log(1)).expect("a log");
    assert!(
        said.contains("Too many open files") && said.contains("room for segments again"),
        "{said}"
    );
    assert_eq!(replica.stop(), Some(0));
    // Nothing of that was lost.
    let replica = files.start(1, false);
    let mut client = synod();
    client
        .args(["client", "--config"])
        .arg(files.client_config())
        .args(["get", "key-59"]);
    let found = client.output().expect("the binary starts");
    assert_eq!(String::from_utf8_lossy(&found.stdout).trim().len(), 20_000);
    assert_eq!(replica.stop(), Some(0));
}
