//! `synod chaos` with real processes, and its verdict on histories that it did not record.

mod common;

use std::path::Path;

use common::{Finished, directory, one_at_a_time, run};

/// Every file of a result, and the history among them.
const FILES: [&str; 6] = [
    "result.json",
    "config.toml",
    "timeline.csv",
    "history.jsonl",
    "replica-1.log",
    "replica-1.toml",
];

fn chaos(out: &Path, arguments: &[&str]) -> Finished {
    let mut all = vec!["chaos", "--json", "--name", "test", "--out"];
    all.push(out.to_str().expect("utf-8"));
    all.extend_from_slice(arguments);
    run(&all)
}

fn check(history: &Path) -> Finished {
    run(&["chaos", "--check", history.to_str().expect("utf-8")])
}

#[test]
fn killed_stopped_and_cut_off_replicas_lose_nothing() {
    let _turn = one_at_a_time();
    let out = directory();
    let faults = ["--faults", "kill,stop,partition", "--seconds", "9"];
    let finished = chaos(out.path(), &[&faults[..], &["--seed", "1"]].concat());
    // The seed is in what it says.
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    let result = finished.json();
    assert_eq!(result["ok"], true);
    assert_eq!(result["linearizability"]["linearizable"], true);
    for key in ["lost", "duplicated", "disordered", "diverged"] {
        assert_eq!(result[key], 0, "{key}: {}", finished.stderr);
    }
    for fault in ["kill", "stop", "partition"] {
        assert!(result["strikes"][fault].as_u64() >= Some(1), "{fault}");
    }
    let results = out.path().join("test");
    for file in FILES {
        assert!(results.join(file).is_file(), "{file} is missing");
    }
    assert!(!results.join("data").exists(), "the data stays");
    let timeline = std::fs::read_to_string(results.join("timeline.csv")).expect("written");
    assert_eq!(
        timeline.lines().count(),
        91,
        "a header and a row per 100 ms"
    );
    assert!(timeline.contains("partition"), "faults are marked");

    let history = results.join("history.jsonl");
    let again = check(&history);
    assert_eq!(again.code, Some(0), "{}", again.stderr);
    assert!(
        again.stdout.starts_with("linearizable: "),
        "{}",
        again.stdout
    );
    doctor(&history);
    let doctored = check(&history);
    assert_eq!(doctored.code, Some(1), "{}", doctored.stderr);
    assert!(doctored.complaint().contains("is not linearizable"));
}

/// Standing still is no failure: the others go on, and whoever stood still is complete soon after.
#[test]
fn disks_and_log_readers_that_stand_still_cost_time_only() {
    let _turn = one_at_a_time();
    let out = directory();
    let mut faults = vec!["hung-log-reader", "frozen-disk", "slow-disk"];
    let refused = chaos(out.path(), &["--faults", "frozen-disk", "--seconds", "5"]);
    if !refused.stderr.contains("too short") {
        println!("skipped in part: {}", refused.stderr);
        faults.truncate(1);
    }
    let list = faults.join(",");
    let arguments = ["--faults", &list, "--seconds", "16", "--seed", "5"];
    let finished = chaos(out.path(), &arguments);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    let result = finished.json();
    assert_eq!(result["ok"], true);
    for fault in faults {
        assert!(result["strikes"][fault].as_u64() >= Some(1), "{fault}");
    }
    for key in ["lost", "duplicated", "disordered", "diverged"] {
        assert_eq!(result[key], 0, "{key}: {}", finished.stderr);
    }
    let mounts = std::fs::read_to_string("/proc/mounts").expect("proc is mounted");
    let out = out.path().to_str().expect("utf-8");
    assert!(!mounts.contains(out), "a disk stays mounted: {mounts}");
}

#[test]
fn who_stays_away_beyond_the_trim_floor_comes_back_by_a_snapshot() {
    let _turn = one_at_a_time();
    let out = directory();
    let faults = ["--faults", "away", "--seconds", "20", "--seed", "3"];
    let finished = chaos(out.path(), &faults);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    let result = finished.json();
    assert_eq!(result["ok"], true);
    assert!(result["strikes"]["away"].as_u64() >= Some(1));
    for key in ["lost", "duplicated", "disordered", "diverged"] {
        assert_eq!(result[key], 0, "{key}: {}", finished.stderr);
    }
}

/// Lets a get of the history find a value that was overwritten before the value that it found was written.
fn doctor(history: &Path) {
    let text = std::fs::read_to_string(history).expect("written");
    let mut lines: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let (get, stale) = (0..lines.len())
        .rev()
        .filter(|at| lines[*at]["op"] == "get" && lines[*at]["reply"] == "value")
        .find_map(|at| Some((at, overwritten(&lines, &lines[at])?)))
        .expect("a value was overwritten");
    lines[get]["found"] = stale;
    let text: Vec<String> = lines.iter().map(ToString::to_string).collect();
    std::fs::write(history, text.join("\n")).expect("written");
}

/// A value of the key that a get asked for, put before the one that it found.
fn overwritten(lines: &[serde_json::Value], get: &serde_json::Value) -> Option<serde_json::Value> {
    let write = lines.iter().find(|line| line["value"] == get["found"])?;
    let written_ns = write["invoked_ns"].as_u64()?;
    let before = |line: &&serde_json::Value| {
        let returned_ns = line["returned_ns"].as_u64();
        line["key"] == get["key"]
            && line["op"] == "put"
            && returned_ns.is_some_and(|at_ns| at_ns < written_ns)
    };
    Some(lines.iter().find(before)?["value"].clone())
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_starts() {
    let out = directory();
    for (arguments, complaint) in [
        (&["--faults", "meteor"][..], "invalid value 'meteor'"),
        (&["--seconds", "5"], "too short"),
        (&["--replicas", "2"], "2 is not in 3..=9"),
        (&["--name", "a/b"], "--name a/b"),
    ] {
        let all = [
            &["chaos", "--out", out.path().to_str().expect("utf-8")],
            arguments,
        ]
        .concat();
        let finished = run(&all);
        assert_eq!(finished.code, Some(2), "{arguments:?}: {}", finished.stderr);
        assert!(
            finished.complaint().contains(complaint),
            "{}",
            finished.stderr
        );
    }
    let nothing = check(&out.path().join("missing"));
    assert_eq!(nothing.code, Some(2), "{}", nothing.stderr);
}
