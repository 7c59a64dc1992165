//! `synod profile`: a short run under perf where perf may record, and what it says where something is wrong.

mod common;

use std::process::{Command, Stdio};

use common::{directory, one_at_a_time, run};

/// Whether perf can sample a process of ours here.
fn perf_may_record() -> bool {
    let folder = directory();
    let probe = Command::new("perf")
        .args(["record", "--event", "cpu-clock:u", "--output"])
        .arg(folder.path().join("probe"))
        .args(["--", "true"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    probe.is_ok_and(|status| status.success())
}

#[test]
fn a_short_profile_adds_up() {
    if !perf_may_record() {
        println!("skipped: perf is not installed or may not record here");
        return;
    }
    let _turn = one_at_a_time();
    let folder = directory();
    let out = folder.path().to_str().expect("UTF-8");
    let arguments = [
        "profile",
        "--seconds",
        "2",
        "--warmup",
        "1",
        "--out",
        out,
        "--name",
        "p",
        "--json",
    ];
    let finished = run(&arguments);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    let profile = finished.json();
    let processes = profile["processes"].as_array().expect("a list");
    let roles: Vec<&str> = processes
        .iter()
        .filter_map(|process| process["role"].as_str())
        .collect();
    assert_eq!(roles, ["leader", "follower", "client"]);
    for process in processes {
        let role = process["role"].as_str().expect("text");
        let stages = process["stages"].as_array().expect("a list");
        let sum: f64 = stages
            .iter()
            .filter_map(|stage| stage["cpu_us_per_command"].as_f64())
            .sum();
        let measured = process["cpu_us_per_command"].as_f64().expect("a figure");
        assert!(
            measured > 0.0 && (sum / measured - 1.0).abs() < 1e-6,
            "{role}: {sum} of {measured}"
        );
        let result = folder.path().join("p");
        let svg = std::fs::read_to_string(result.join(format!("flame-{role}.svg")))
            .expect("a flame graph");
        assert!(svg.contains("</svg>"));
        let stacks = std::fs::read_to_string(result.join(format!("stacks-{role}.collapsed")))
            .expect("stacks");
        assert!(!stacks.is_empty());
    }
    assert!(
        !folder.path().join("p/perf.data").exists(),
        "perf's own file is not kept"
    );
    let leader = &processes[0]["stages"];
    assert!(
        leader.as_array().expect("a list").len() > 3,
        "the stages are told apart: {leader}"
    );
    let report = run(&["report", folder.path().join("p").to_str().expect("UTF-8")]);
    assert_eq!(report.code, Some(0), "{}", report.stderr);
    let page = std::fs::read_to_string(folder.path().join("p/report.html")).expect("a report");
    assert!(page.contains("id=\"profile\"") && page.contains("flame graph of the leader"));
}

#[test]
fn what_cannot_be_profiled_is_said_in_one_line() {
    let folder = directory();
    let out = folder.path().to_str().expect("UTF-8");
    let cases: [(&[&str], &str); 4] = [
        (&["--kill-leader-after", "1"], "steady run"),
        (
            &["--record-seconds", "10", "--seconds", "10"],
            "must be less than --seconds 10",
        ),
        (&["--seconds", "1"], "2 seconds are the least"),
        (
            &["--instructions", "--baseline", "/nonexistent/b.json"],
            "--save-baseline",
        ),
    ];
    for (flags, expected) in cases {
        let finished = run(&[&["profile", "--out", out], flags].concat());
        assert_eq!(finished.code, Some(2), "{flags:?}: {}", finished.stderr);
        assert!(
            finished.complaint().contains(expected),
            "{flags:?}: {}",
            finished.stderr
        );
    }
}

#[test]
fn a_missing_tool_is_named_with_its_remedy() {
    let folder = directory();
    let out = folder.path().to_str().expect("UTF-8");
    for (flags, remedy) in [
        (vec!["profile", "--out", out], "apt install linux-perf"),
        (
            vec![
                "profile",
                "--instructions",
                "--save-baseline",
                "--baseline",
                "/nonexistent/b.json",
            ],
            "apt install valgrind",
        ),
    ] {
        let output = common::synod()
            .args(&flags)
            .env("PATH", "/nonexistent")
            .output()
            .expect("the binary starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(remedy), "{said}");
    }
}
