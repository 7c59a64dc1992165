//! A cluster made by hand, as an operator does it: certificates, configuration, replicas, client, WAL tools.

mod common;

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use common::{Files, directory, one_at_a_time, run, run_with_input};

#[test]
fn the_store_keeps_what_it_was_given_over_a_restart() {
    let _turn = one_at_a_time();
    let directory = directory();
    let files = Files::make(directory.path(), 1);
    let replica = files.start(1, true);

    assert_eq!(files.client(&["put", "colour", "blue"]).code, Some(0));
    assert_eq!(files.client(&["get", "colour"]).stdout, "blue\n");
    let mismatch = files.client(&["cas", "colour", "red", "green"]);
    assert_eq!(mismatch.code, Some(1));
    assert_eq!(mismatch.complaint(), "synod: not set: the value is blue");
    assert_eq!(
        files.client(&["cas", "colour", "blue", "green"]).code,
        Some(0)
    );
    assert_eq!(
        files.client(&["get", "nothing"]).complaint(),
        "synod: no such key"
    );
    assert_eq!(replica.stop(), Some(0), "SIGTERM is graceful");

    let replica = files.start(1, false);
    assert_eq!(files.client(&["get", "colour"]).stdout, "green\n");
    assert_eq!(files.client(&["delete", "colour"]).code, Some(0));
    assert_eq!(files.client(&["get", "colour"]).code, Some(1));
    let status = files.client(&["status"]);
    assert!(
        status.stdout.contains("replica 1 leading 1"),
        "{}",
        status.stdout
    );
    drop(replica);

    let data = files.data(1);
    let data = data.to_str().expect("utf-8");
    let verified = run(&["wal", "verify", data]);
    assert_eq!(verified.code, Some(0), "{}", verified.stderr);
    let inspected = run(&["wal", "inspect", data, "--json"]).json();
    assert_eq!(inspected["replica"], 1);
    assert_eq!(inspected["cluster"], files.cluster);
}

#[test]
fn the_repl_goes_on_after_a_mistake_and_a_command_over_the_limit() {
    let _turn = one_at_a_time();
    let directory = directory();
    let files = Files::make(directory.path(), 1);
    let _replica = files.start(1, true);
    let config = files.client_config();
    let large = "x".repeat(300 * 1024);
    let input = format!("put a 1\nfrob\nput a {large}\ncreate a 2\nget a\nquit\n");
    let finished = run_with_input(
        &[
            "client",
            "--config",
            config.to_str().expect("utf-8"),
            "repl",
        ],
        &input,
    );
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    let lines: Vec<&str> = finished.stdout.lines().collect();
    assert_eq!(lines.len(), 5, "{lines:?}");
    assert_eq!(lines[0], "ok");
    assert!(lines[1].starts_with("unknown command"));
    assert!(lines[2].starts_with("failed: "), "{}", lines[2]);
    assert_eq!(lines[4], "1", "what was there before is still there");
}

#[test]
fn damage_in_the_wal_is_named_by_file_and_offset_and_refused_where_it_is_at_the_end() {
    let _turn = one_at_a_time();
    let directory = directory();
    let files = Files::make(directory.path(), 1);
    let replica = files.start(1, true);
    for value in ["1", "2", "3"] {
        assert_eq!(files.client(&["put", "a", value]).code, Some(0));
    }
    assert_eq!(replica.stop(), Some(0));
    let data = files.data(1);
    let segment = data.join("wal-0000000000000001.seg");
    let mut bytes = std::fs::read(&segment).expect("the first segment");
    let verify = || run(&["wal", "verify", data.to_str().expect("utf-8")]);
    // In the first group, which others follow: no torn write looks like that, and the peers know what it held.
    bytes[4096 + 70] ^= 1;
    std::fs::write(&segment, &bytes).expect("written");
    let verified = verify();
    assert_eq!(verified.code, Some(1));
    let names_the_place = |complaint: &str| {
        complaint.contains("wal-0000000000000001.seg") && complaint.contains("offset 4096")
    };
    assert!(names_the_place(verified.complaint()), "{}", verified.stderr);

    // In all of them: nothing intact is left behind that could tell what was promised.
    for group in bytes[8192..].chunks_mut(4096) {
        group[70] ^= u8::from(group[0] != 0);
    }
    std::fs::write(&segment, &bytes).expect("written");
    assert_eq!(verify().code, Some(1));
    let config = files.config(1);
    let started = run(&["replica", "--config", config.to_str().expect("utf-8")]);
    assert_ne!(started.code, Some(0));
    assert!(names_the_place(started.complaint()), "{}", started.stderr);
    assert!(started.complaint().contains("--readmit"));
}

#[test]
fn visitors_leave_no_sessions_behind_and_a_quiet_one_goes_on() {
    const VISITORS: u64 = 20;
    let _turn = one_at_a_time();
    let directory = directory();
    let files = Files::make(directory.path(), 1);
    let _replica = files.start(1, true);
    let config = files.client_config();
    let mut quiet = Command::new(env!("CARGO_BIN_EXE_synod"))
        .arg("client")
        .arg("--config")
        .arg(&config)
        .arg("repl")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut input = quiet.stdin.take().expect("a pipe");
    let mut output = BufReader::new(quiet.stdout.take().expect("a pipe")).lines();
    let mut ask = |line: &str| {
        writeln!(input, "{line}").expect("it reads");
        output.next().expect("an answer").expect("utf-8")
    };
    assert_eq!(ask("put a 1"), "ok");
    for _ in 0..VISITORS {
        assert_eq!(files.client(&["get", "a"]).stdout, "1\n");
    }
    let status = files.client(&["status"]).stdout;
    let counter = |name: &str| -> u64 {
        let line = status.lines().find_map(|line| {
            let (found, value) = line.strip_prefix("replica 1 ")?.split_once(' ')?;
            (found == name).then(|| value.parse().expect("a number"))
        });
        line.unwrap_or_else(|| panic!("no {name} in {status}"))
    };
    assert_eq!(counter("sessions_opened"), VISITORS + 1);
    assert_eq!(counter("sessions_closed"), VISITORS);
    assert_eq!(counter("sessions"), 1);
    assert_eq!(ask("get a"), "1");
    drop(input);
    assert!(quiet.wait().expect("it ends").success());
}
