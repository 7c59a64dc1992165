//! Experiments on machines of the test: systems of other projects, and chaos.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::process::Signal;

use crate::common::{one_at_a_time, run};
use crate::machines::bed::{Bed, text, wait_until};
use crate::{CLIENT, REPLICA};

/// The folder of the adapter `external`, if it was built: a test does not build it, which takes minutes.
fn adapter() -> Option<PathBuf> {
    let given = std::env::var_os("SYNOD_BASELINES").map(PathBuf::from);
    let sources = given.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("baselines"));
    let folder = sources.join("target/release");
    let installed = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|at| at.join("etcd").is_file()));
    let missing = match (folder.join("external").is_file(), installed) {
        (true, true) => return Some(folder),
        (false, _) => format!("{} has no adapter", folder.display()),
        (true, false) => "etcd is not on PATH".to_owned(),
    };
    eprintln!("skipped: {missing}");
    None
}

#[test]
fn etcd_runs_on_the_machines_and_loses_its_leader() {
    let _turn = one_at_a_time();
    let Some(programs) = adapter() else {
        return;
    };
    let Some(bed) = Bed::make(&[
        ("a", REPLICA),
        ("b", REPLICA),
        ("c", REPLICA),
        ("d", CLIENT),
        ("e", CLIENT),
    ]) else {
        return;
    };
    let out = bed.directory.path().join("results");
    let mut arguments = vec!["run", "--json", "--name", "test", "--out", text(&out)];
    arguments.extend(["--inventory", text(&bed.inventory), "--system", "etcd"]);
    arguments.extend(["--programs", text(&programs), "--outstanding", "16"]);
    arguments.extend([
        "--seconds",
        "3",
        "--warmup",
        "1",
        "--kill-leader-after",
        "1",
    ]);
    let finished = run(&arguments);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    let result = finished.json();
    assert_eq!(result["system"], "etcd");
    assert_eq!(result["lost"], 0);
    assert_eq!(result["faults"][0]["kind"], "kill-leader");
    assert_eq!(result["equality"][0]["what"], "durability");
    assert!(result["verification"]["commands_executed"].as_u64() > Some(0));
    assert!(result["replica_cpu_us_per_command"].as_f64() > Some(0.0));
    let results = out.join("test");
    let each = ["-d", "-e", ""]
        .map(|host| crate::acknowledged_in(&results.join(format!("timeline{host}.csv"))));
    assert!(each[0] > 0 && each[1] > 0, "{each:?}");
    assert_eq!(each[0] + each[1], each[2]);
    assert_eq!(result["acknowledged"], each[2]);
    assert_servers_gone(&bed);
    bed.assert_nothing_left();
}

/// Servers run from a path of the system, so they are known by what they were told.
fn assert_servers_gone(bed: &Bed) {
    wait_until("a server stays", || servers(bed).is_empty());
}

fn servers(bed: &Bed) -> Vec<String> {
    let directory = text(bed.directory.path());
    let entries = std::fs::read_dir("/proc").expect("proc is mounted");
    let lines = entries.filter_map(|entry| {
        let line = std::fs::read(entry.ok()?.path().join("cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        (line.contains("--data-dir=") && line.contains(directory)).then_some(line)
    });
    lines.collect()
}

/// Nobody is left to clean up after a run that was killed: the machines do it themselves.
#[test]
fn servers_end_with_the_run_that_was_killed() {
    let _turn = one_at_a_time();
    let Some(programs) = adapter() else {
        return;
    };
    let Some(bed) = Bed::make(&[("a", REPLICA), ("b", CLIENT)]) else {
        return;
    };
    let out = bed.directory.path().join("results");
    let mut arguments = vec!["run", "--replicas", "1", "--seconds", "300"];
    arguments.extend(["--system", "etcd", "--programs", text(&programs)]);
    arguments.extend(["--name", "test", "--out", text(&out)]);
    let mut child = crate::started(&bed, &arguments);
    wait_until("no server starts", || {
        let running = servers(&bed);
        running.iter().any(|line| !line.contains("/bin/synod-"))
    });
    child.kill().expect("our child");
    child.wait().expect("our child");
    assert_servers_gone(&bed);
}

/// An adapter that finds nothing installed, as on most machines.
#[test]
fn a_system_that_is_not_on_the_machines_is_one_line_and_in_a_comparison_a_skip() {
    let _turn = one_at_a_time();
    let Some(bed) = Bed::make(&[("a", REPLICA), ("b", CLIENT)]) else {
        return;
    };
    let programs = bed.directory.path().join("programs");
    std::fs::create_dir(&programs).expect("made");
    let script = "#!/bin/sh\necho 'external: etcd is not installed: apt-get install etcd-server' >&2\nexit 3\n";
    let adapter = programs.join("external");
    std::fs::write(&adapter, script).expect("written");
    std::fs::set_permissions(&adapter, std::fs::Permissions::from_mode(0o755)).expect("ours");
    let out = bed.directory.path().join("results");
    let with = |command: &[&str]| {
        let mut arguments = command.to_vec();
        arguments.extend(["--inventory", text(&bed.inventory), "--replicas", "1"]);
        arguments.extend(["--programs", text(&programs), "--out", text(&out)]);
        arguments.extend(["--outstanding", "4", "--seconds", "1", "--warmup", "0"]);
        run(&arguments)
    };
    let why = "host a: etcd is not installed: apt-get install etcd-server";
    let refused = with(&["run", "--system", "etcd"]);
    assert_eq!(refused.code, Some(1), "{}", refused.stderr);
    assert!(refused.complaint().contains(why), "{}", refused.stderr);
    assert!(!out.exists(), "nothing was begun");
    let compared = with(&["compare", "--systems", "etcd,synod", "--repeat", "1"]);
    assert_eq!(compared.code, Some(0), "{}", compared.stderr);
    let line = format!("skipped: etcd: {why}");
    assert_eq!(
        compared.stderr.matches(&line).count(),
        1,
        "{}",
        compared.stderr
    );
    bed.assert_nothing_left();
}

#[test]
fn links_are_cut_and_replicas_stopped_in_a_run() {
    let _turn = one_at_a_time();
    let machines = [
        ("a", REPLICA),
        ("b", REPLICA),
        ("c", REPLICA),
        ("d", CLIENT),
    ];
    let Some(bed) = Bed::make(&machines) else {
        return;
    };
    let out = bed.directory.path().join("results");
    let mut arguments = vec!["run", "--json", "--name", "test", "--out", text(&out)];
    arguments.extend(["--inventory", text(&bed.inventory), "--outstanding", "16"]);
    arguments.extend(["--seconds", "6", "--warmup", "1"]);
    arguments.extend(["--fault", "isolate leader at 1s for 2s"]);
    arguments.extend(["--fault", "stop follower at 4s for 1s"]);
    let finished = run(&arguments);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    let result = finished.json();
    assert_eq!(result["lost"], 0);
    assert_eq!(result["faults"][0]["kind"], "isolate-leader");
    assert_eq!(result["faults"][1]["kind"], "stop-follower");
    assert!(
        result["elections"].as_u64() > Some(0),
        "nobody missed the leader"
    );
    bed.assert_nothing_left();
}

#[test]
fn chaos_on_machines_is_survived() {
    let _turn = one_at_a_time();
    let Some(bed) = Bed::make(&[("a", REPLICA), ("b", REPLICA), ("c", REPLICA)]) else {
        return;
    };
    let out = bed.directory.path().join("results");
    let chaos = |faults: &str| {
        let mut arguments = vec!["chaos", "--json", "--name", "test", "--seed", "11"];
        arguments.extend(["--inventory", text(&bed.inventory), "--out", text(&out)]);
        arguments.extend(["--seconds", "10", "--faults", faults]);
        run(&arguments)
    };
    let refused = chaos("kill,disk-full");
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    for word in [
        "disk-full",
        "this machine only",
        "without --inventory",
        "partial",
    ] {
        assert!(refused.complaint().contains(word), "{}", refused.stderr);
    }
    assert!(!out.exists(), "nothing was begun");
    let finished = chaos("kill,stop,partition,loss");
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    let result = finished.json();
    assert_eq!(result["linearizability"]["linearizable"], true);
    assert_eq!(result["lost"], 0);
    assert_eq!(result["hosts"].as_array().map(Vec::len), Some(3));
    for fault in ["kill", "stop", "partition", "loss"] {
        assert!(
            result["strikes"][fault].as_u64() > Some(0),
            "{fault}: {result}"
        );
    }
    assert!(out.join("test/history.jsonl").is_file());
    assert!(!out.join("test/data").exists(), "the data stays");
    bed.assert_nothing_left();
}

#[test]
fn chaos_that_is_interrupted_leaves_no_link_cut() {
    let _turn = one_at_a_time();
    let Some(bed) = Bed::make(&[("a", REPLICA), ("b", REPLICA), ("c", REPLICA)]) else {
        return;
    };
    let out = bed.directory.path().join("results");
    let mut arguments = vec!["chaos", "--seconds", "60", "--faults", "partition"];
    arguments.extend(["--name", "test", "--out", text(&out)]);
    let is_cut = || {
        let rules = ["a", "b", "c"].map(|name| {
            let rules = bed.machines.inside(name, &["nft", "list", "ruleset"]);
            String::from_utf8_lossy(&rules.stdout).into_owned()
        });
        rules.iter().any(|rules| rules.contains("expires"))
    };
    assert!(
        crate::interrupted(&bed, &arguments, Signal::HUP, &is_cut),
        "it was quicker"
    );
    bed.assert_nothing_left();
}
