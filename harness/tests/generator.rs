//! What the load process was late itself is not told of the system.

mod common;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use common::{Finished, directory, one_at_a_time, run, synod};
use rustix::process::{Pid, Signal, kill_process};

const STOPPED: Duration = Duration::from_millis(800);
const LINE: &str = "the load process did not run for ";

/// The load of the run with results in `out`.
fn load_of(out: &Path) -> Option<Pid> {
    let config = out.join("test/load.toml");
    let config = config.to_str().expect("utf-8");
    let mut processes = std::fs::read_dir("/proc").expect("proc is mounted");
    processes.find_map(|entry| {
        let entry = entry.ok()?;
        let id: i32 = entry.file_name().to_str()?.parse().ok()?;
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line);
        let words: Vec<&str> = line.split('\0').collect();
        (words.get(1) == Some(&"load") && words.contains(&config)).then_some(Pid::from_raw(id)?)
    })
}

fn arguments<'a>(load: &[&'a str], out: &'a str) -> Vec<&'a str> {
    let mut arguments = vec!["run", "--json", "--seconds", "4", "--warmup", "1"];
    arguments.extend(["--name", "test", "--out", out]);
    arguments.extend(load);
    arguments
}

/// A run in whose window the load is stopped for a while.
fn disturbed(load: &[&str]) -> Finished {
    let out = directory();
    let mut child = synod()
        .args(arguments(load, out.path().to_str().expect("utf-8")))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let lines = BufReader::new(child.stderr.take().expect("piped")).lines();
    let mut lines = lines.map_while(Result::ok);
    let mut stderr = String::new();
    // The first second of the window is over when it is told, and three are left.
    for line in lines.by_ref() {
        stderr.push_str(&format!("{line}\n"));
        if line.contains(" measured ") {
            break;
        }
    }
    let Some(load) = load_of(out.path()) else {
        panic!("no load runs: {stderr}");
    };
    kill_process(load, Signal::STOP).expect("it is of our run");
    std::thread::sleep(STOPPED);
    kill_process(load, Signal::CONT).expect("it is of our run");
    stderr.extend(lines.map(|line| format!("{line}\n")));
    let output = child.wait_with_output().expect("our child");
    assert!(out.path().join("test/result.json").exists(), "{stderr}");
    Finished {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).expect("utf-8"),
        stderr,
    }
}

#[test]
fn a_load_that_was_stopped_fails_its_run_and_says_so() {
    let _turn = one_at_a_time();
    for load in [["--outstanding", "8"], ["--rate", "500"]] {
        let finished = disturbed(&load);
        assert_eq!(finished.code, Some(1), "{}", finished.stderr);
        assert!(finished.complaint().contains(LINE), "{}", finished.stderr);
        let result = finished.json();
        let generator = &result["generator"];
        let pause_ms = generator["longest_pause_ms"].as_f64().expect("a number");
        let stopped_ms = STOPPED.as_secs_f64() * 1e3;
        assert!(pause_ms > 0.9 * stopped_ms, "{pause_ms}");
        assert!(generator["pauses"].is_null(), "{generator}");
        let late = &generator["lateness_us"]["max"];
        match load[0] {
            // Of the commands that were meant to leave meanwhile, the first ones waited longest.
            "--rate" => assert!(late.as_f64() > Some(0.9e3 * stopped_ms), "{generator}"),
            _ => assert!(
                late.is_null(),
                "a closed loop has no intended starts: {generator}"
            ),
        }
    }
}

#[test]
fn a_load_that_nobody_stopped_is_not_blamed() {
    let _turn = one_at_a_time();
    // On a machine that others load, a moment may be theirs: not three times in a row.
    let blamed = (0..3).all(|_| {
        let out = directory();
        let out = out.path().to_str().expect("utf-8");
        let finished = run(&arguments(&["--rate", "500"], out));
        let result = finished.json();
        let generator = &result["generator"];
        assert!(generator["busy_share"].as_f64() > Some(0.0), "{generator}");
        assert!(
            generator["lateness_us"]["p99"].as_f64() > Some(0.0),
            "{generator}"
        );
        finished.stderr.contains("the load process")
    });
    assert!(!blamed);
}
