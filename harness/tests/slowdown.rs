//! `synod diff` on real runs: two results of one build are the same, and a build that is 20 % slower is found.
//!
//! Takes five minutes, and a machine on which nothing else runs:
//! `cargo test --release -p synod-harness --features slowdown --test slowdown -- --ignored --nocapture`

#![cfg(feature = "slowdown")]

mod common;

use std::path::Path;

use common::{directory, run, synod};

const REPEAT: usize = 5;
/// A replica then waits for this share of the time that each turn took.
const PERCENT: &str = "25";

fn measure(out: &Path, name: &str, slowdown: &str) {
    let status = synod()
        .args(["run", "--seconds", "4", "--warmup", "1", "--out"])
        .arg(out)
        .args(["--name", name])
        .env("SYNOD_SLOWDOWN_PERCENT", slowdown)
        .status();
    assert!(status.expect("it starts").success());
}

/// What `synod diff` says about the throughput.
fn verdict(before: &Path, after: &Path) -> String {
    let (before, after) = (
        before.to_str().expect("utf-8"),
        after.to_str().expect("utf-8"),
    );
    let finished = run(&["diff", before, after, "--json"]);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    let diff = finished.json();
    let figures = diff["cells"][0]["figures"]
        .as_array()
        .expect("figures")
        .clone();
    let throughput = figures
        .iter()
        .find(|figure| figure["figure"] == "throughput_per_s");
    let throughput = throughput.expect("every run has one");
    println!(
        "{} → {}: {}",
        throughput["before"], throughput["after"], throughput["words"]
    );
    throughput["verdict"]
        .as_str()
        .expect("a verdict")
        .to_owned()
}

#[test]
#[ignore = "five minutes on a quiet machine; the command is above"]
fn a_slower_build_is_found_and_an_equal_one_is_not() {
    let root = directory();
    let folders = ["a", "b", "slow"].map(|name| root.path().join(name));
    for repeat in 0..REPEAT {
        for (folder, slowdown) in folders.iter().zip(["0", "0", PERCENT]) {
            measure(folder, &format!("run-{repeat}"), slowdown);
        }
    }
    let [a, b, slow] = &folders;
    assert_ne!(verdict(a, b), "worse");
    assert_ne!(verdict(b, a), "worse");
    assert_eq!(verdict(a, slow), "worse");
}
