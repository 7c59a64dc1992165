//! Whole experiments with real processes: each is loaded, disturbed and checked by `synod run` itself.

mod common;

use common::{directory, one_at_a_time, run};

/// Runs an experiment that has to be clean, and returns its result.
fn clean(arguments: &[&str]) -> serde_json::Value {
    let _turn = one_at_a_time();
    let out = directory();
    let mut all = vec!["run", "--json", "--name", "test", "--out"];
    all.push(out.path().to_str().expect("utf-8"));
    all.extend_from_slice(arguments);
    let finished = run(&all);
    let result = finished.json();
    let problems = result["problems"].as_array().expect("a list");
    // A machine that others load may not keep up with a rate for a moment. That is told, and is not what is tested.
    let slow = |problem: &serde_json::Value| {
        let problem = problem.as_str().expect("text");
        problem.starts_with("the rate was not held") || problem.starts_with("the load process")
    };
    assert!(problems.iter().all(slow), "{}", finished.stderr);
    let code = i32::from(!problems.is_empty());
    assert_eq!(finished.code, Some(code), "{}", finished.stderr);
    for key in ["lost", "duplicated", "disordered", "diverged", "failed"] {
        assert_eq!(result[key], 0, "{key}: {}", finished.stderr);
    }
    assert!(result["acknowledged"].as_u64() > Some(0));
    let results = out.path().join("test");
    for file in [
        "result.json",
        "config.toml",
        "environment.json",
        "latency.hlog",
        "timeline.csv",
        "replica-1.log",
        "replica-1.toml",
    ] {
        assert!(results.join(file).is_file(), "{file} is missing");
    }
    assert!(!results.join("data").exists(), "the data stays");
    result
}

#[test]
fn a_killed_leader_loses_nothing_and_returns() {
    let result = clean(&[
        "--seconds",
        "3",
        "--warmup",
        "1",
        "--outstanding",
        "64",
        "--kill-leader-after",
        "1",
    ]);
    assert_eq!(result["faults"][0]["kind"], "kill-leader");
    assert_eq!(result["durability"], "sync");
    assert_eq!(result["load"]["kind"], "closed");
    assert!(result["elections"].as_u64() >= Some(1));
}

#[test]
fn a_crash_of_all_replicas_loses_nothing() {
    let result = clean(&[
        "--seconds",
        "3",
        "--warmup",
        "1",
        "--outstanding",
        "64",
        "--crash-all-after",
        "1",
    ]);
    assert_eq!(
        result["faults"][0]["replicas"].as_array().map(Vec::len),
        Some(3)
    );
}

#[test]
fn several_faults_are_done_in_order_and_each_is_told() {
    let result = clean(&[
        "--seconds",
        "6",
        "--warmup",
        "1",
        "--outstanding",
        "64",
        "--loss",
        "0.1",
        "--fault",
        "stop follower at 1s for 500ms",
        "--fault",
        "isolate leader at 2500ms for 1s",
        "--fault",
        "kill leader at 4500ms",
    ]);
    let faults = result["faults"].as_array().expect("a list");
    let kinds: Vec<&str> = faults
        .iter()
        .filter_map(|fault| fault["kind"].as_str())
        .collect();
    assert_eq!(kinds, ["stop-follower", "isolate-leader", "kill-leader"]);
    for (fault, at_ms, for_ms) in [
        (&faults[0], 1_000, 500),
        (&faults[1], 2_500, 1_000),
        (&faults[2], 4_500, 1_000),
    ] {
        let began_ms = fault["killed_at_ms"].as_u64().expect("a time");
        let over_ms = fault["ready_at_ms"].as_u64().expect("a time");
        assert!(began_ms >= at_ms && over_ms >= at_ms + for_ms, "{fault}");
    }
    let gap_ms = faults[1]["gap_ms"].as_f64().expect("nobody leads at first");
    assert!(gap_ms >= 5.0);
    assert!(
        result["elections"].as_u64() >= Some(1),
        "another one took over"
    );
    assert_eq!(result["links"], "0.1 % loss");
    let links = result["link_report"]["links"].as_array();
    assert_eq!(links.map(Vec::len), Some(6));
}

#[test]
fn far_replicas_are_far() {
    let result = clean(&[
        "--seconds",
        "2",
        "--warmup",
        "1",
        "--outstanding",
        "8",
        "--links",
        "3-az",
    ]);
    for link in result["link_report"]["links"].as_array().expect("a list") {
        let asked_us = link["delay_us"].as_u64().expect("a delay");
        assert!(
            link["least_us"].as_u64() >= Some(asked_us) || link["count"] == 0,
            "{link}"
        );
    }
    // A quorum is another replica, whose link takes 0.25 ms each way at least.
    assert!(result["latency_us"]["p50"].as_f64() >= Some(500.0));
}

#[test]
fn a_cluster_of_one() {
    clean(&[
        "--replicas",
        "1",
        "--seconds",
        "1",
        "--warmup",
        "0",
        "--outstanding",
        "16",
    ]);
}

#[test]
fn a_cluster_of_five() {
    clean(&[
        "--replicas",
        "5",
        "--seconds",
        "1",
        "--warmup",
        "1",
        "--outstanding",
        "64",
    ]);
}

#[test]
fn a_kv_store_without_io_uring() {
    let result = clean(&[
        "--state-machine",
        "kv",
        "--backend",
        "blocking",
        "--seconds",
        "1",
        "--warmup",
        "1",
        "--outstanding",
        "32",
        "--payload",
        "40",
    ]);
    assert!(
        result["backend"]
            .as_str()
            .is_some_and(|backend| backend.starts_with("blocking"))
    );
}

#[test]
fn an_open_loop_at_a_small_rate() {
    let result = clean(&[
        "--rate",
        "500",
        "--clients",
        "2",
        "--seconds",
        "2",
        "--warmup",
        "1",
    ]);
    assert_eq!(result["load"]["kind"], "open");
    let latencies = result["latency_us"]["count"].as_u64();
    assert_eq!(latencies, Some(1_000), "every intended start is measured");
}

#[test]
fn a_rate_that_cannot_be_held_fails_the_run() {
    let _turn = one_at_a_time();
    let out = directory();
    let finished = run(&[
        "run",
        "--rate",
        "50000000",
        "--seconds",
        "1",
        "--warmup",
        "0",
        "--json",
        "--out",
        out.path().to_str().expect("utf-8"),
    ]);
    assert_eq!(finished.code, Some(1), "{}", finished.stderr);
    assert!(finished.complaint().contains("the rate was not held"));
    assert_eq!(finished.json()["lost"], 0);
}

#[test]
fn a_surge_is_refused_and_passes() {
    let result = clean(&[
        "--rate",
        "1000",
        "--surge",
        "20000x@1s+1s",
        "--clients",
        "2",
        "--seconds",
        "5",
        "--warmup",
        "1",
    ]);
    let offer = &result["offer"];
    let count = |name: &str| offer[name].as_u64().expect("a count");
    assert_eq!(count("offered"), 4 * 1_000 + 20_000 * 1_000);
    assert_eq!(count("offered"), count("admitted") + count("refused"));
    assert!(count("refused") > 0, "{offer}");
    // Whoever was admitted was measured from the intended start, and nobody else.
    assert_eq!(result["latency_us"]["count"], count("admitted"));
    let surge = &result["surge"];
    assert!(surge["goodput_per_s"].as_f64() > Some(0.0), "{surge}");
    assert!(surge["p99_us"].as_f64() > Some(0.0), "{surge}");
}

#[test]
fn a_long_run_is_checked_from_its_snapshots_on() {
    let result = clean(&[
        "--rate",
        "2000",
        "--snapshot-distance",
        "65536",
        "--seconds",
        "4",
        "--warmup",
        "1",
    ]);
    assert!(result["verification"]["from_slot"].as_u64() > Some(1));
    assert!(result["verification"]["snapshots"].as_u64() >= Some(1));
    assert!(result["verification"]["commands_vouched"].as_u64() > Some(0));
    assert_eq!(
        result["minutes"][0]["replicas"].as_array().map(Vec::len),
        Some(3)
    );
}
