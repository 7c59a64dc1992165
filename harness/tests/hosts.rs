//! `synod cluster` on machines of the test: checked, started, broken, collected and taken down.

mod common;
mod experiments;
mod machines;
mod ownership;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use common::{directory, one_at_a_time, run};
use machines::bed::{Bed, files, processes_of, text, wait_until};
use machines::missing;
use rustix::process::{Pid, Signal, kill_process};

const REPLICA: &str = "\"replica\"";
const CLIENT: &str = "\"client\"";

#[test]
fn a_cluster_on_four_machines_from_check_to_down() {
    let _turn = one_at_a_time();
    let Some(bed) = Bed::make(&[
        ("a", REPLICA),
        ("b", REPLICA),
        ("c", REPLICA),
        ("d", CLIENT),
    ]) else {
        return;
    };
    let checked = bed.done(&["check", "--json"]).json();
    assert_eq!(checked["hosts"].as_array().map(Vec::len), Some(4));
    let paths = checked["round_trips"].as_array().expect("a list");
    assert_eq!(paths.len(), 4 * 3);
    for path in paths {
        assert_eq!(path["received"], path["sent"], "{path}");
    }
    assert_eq!(checked["hosts"][0]["facts"]["interface"]["name"], "eth0");
    bed.assert_nothing_left();

    bed.done(&["up"]);
    let again = bed.cluster(&["up"]);
    assert_eq!(again.code, Some(2));
    assert!(again.complaint().contains("is up already"));
    // Nor is it taken for one's own by somebody who does not know of it: the replicas below go on.
    let stranger = bed.directory.path().join("stranger.state");
    let again = bed.cluster(&["--state", text(&stranger), "up"]);
    assert_eq!(again.code, Some(1));
    assert!(again.complaint().contains("is there already"));
    assert_eq!(bed.client(&["put", "colour", "blue"]).code, Some(0));
    kill_the_leader(&bed);
    partition(&bed);
    let out = bed.directory.path().join("collected");
    bed.done(&["collect", "--wal", "--out", text(&out)]);
    for (host, replica) in [("a", 1), ("b", 2), ("c", 3)] {
        let log = out.join(host).join(format!("replica-{replica}.log"));
        assert!(std::fs::metadata(log).expect("fetched").len() > 0);
        let wal = out.join(host).join(format!("replica-{replica}"));
        let verified = run(&["wal", "inspect", text(&wal)]);
        assert_eq!(verified.code, Some(0), "{}", verified.stderr);
        assert!(out.join(host).join("facts.json").is_file());
        assert!(
            !out.join(host)
                .join(format!("replica-{replica}.key"))
                .exists()
        );
    }
    assert!(
        bed.done(&["logs", "--lines", "3"])
            .stdout
            .contains("a replica-1: ")
    );
    bed.done(&["down"]);
    bed.assert_nothing_left();
}

fn kill_the_leader(bed: &Bed) {
    let status = bed.done(&["status", "--json"]).json();
    let leader = status["leader"].as_u64().expect("one leads");
    let host = ["a", "b", "c"][leader as usize - 1];
    let killed = bed.done(&["kill", "leader"]);
    assert!(
        killed
            .stdout
            .contains(&format!("on host {host} was killed")),
        "{}",
        killed.stdout
    );
    // The others go on, with what was acknowledged.
    assert_eq!(bed.client(&["get", "colour"]).stdout, "blue\n");
    let status = bed.cluster(&["status"]);
    assert_eq!(status.code, Some(1));
    assert!(
        status
            .complaint()
            .contains(&format!("replica {leader} on host {host} does not run"))
    );
    bed.done(&["restart", host]);
    wait_until("the restarted replica does not catch up", || {
        let status = bed.done(&["status", "--json"]).json();
        let rows = status["replicas"].as_array().expect("a list");
        let applied = |row: &serde_json::Value| row["state"]["counters"]["applied"].as_u64();
        rows.iter().all(|row| applied(row) == applied(&rows[0]))
    });
}

fn partition(bed: &Bed) {
    let machines = &bed.machines;
    assert!(machines.reaches("a", "b"));
    bed.done(&["partition", "a", "b"]);
    assert!(!machines.reaches("a", "b"));
    assert!(machines.reaches("a", "c"), "only the one link is cut");
    assert_eq!(bed.client(&["put", "colour", "green"]).code, Some(0));
    bed.done(&["heal"]);
    assert!(machines.reaches("a", "b"));
    bed.done(&["partition", "a", "b", "--for", "2s"]);
    wait_until("the link does not heal by itself", || {
        machines.reaches("a", "b")
    });
    let same = bed.cluster(&["partition", "a", "a"]);
    assert_eq!(same.code, Some(2));
    assert!(same.complaint().contains("are one machine"));
}

#[test]
fn what_is_wrong_with_a_host_is_one_line_and_the_rest_is_cleaned_up() {
    let _turn = one_at_a_time();
    let directory = directory();
    let full = directory.path();
    // Mounted before the machines are made: each has a view of the mounts of its own.
    let small = missing().is_none().then(|| Small::mount(full));
    let Some(bed) = Bed::make(&[("a", REPLICA), ("b", REPLICA), ("c", REPLICA)]) else {
        return;
    };
    let (machines, key) = (&bed.machines, bed.machines.key());
    let b = machines.address("b");
    let key = text(&key);
    let data = machines.data("c");
    let cases = [
        (
            "unreachable",
            b.as_str(),
            machines.nobody(),
            "host b: root@",
            "is it running",
        ),
        (
            "key",
            key,
            text(&machines.stranger()).to_owned(),
            "host a: root@",
            "ssh-copy-id",
        ),
        (
            "missing",
            text(&data),
            "/no/such/directory".to_owned(),
            "host c: /no/such/directory",
            "make it",
        ),
        (
            "full",
            text(&data),
            text(full).to_owned(),
            "host c: ",
            "free space",
        ),
    ];
    for (name, from, to, expected, remedy) in cases {
        let inventory = bed.changed(&format!("{name}.toml"), from, &to);
        let commands: &[&str] = match name {
            "key" => &["up", "check"],
            _ => &["up"],
        };
        for command in commands {
            let refused = bed.with(&inventory, &[command]);
            assert_eq!(refused.code, Some(1), "{name}: {}", refused.stderr);
            let complaint = refused.complaint();
            assert!(complaint.contains(expected), "{name}: {complaint}");
            assert!(complaint.contains(remedy), "{name}: {complaint}");
            assert!(!bed.directory.path().join(format!("{name}.state")).exists());
            assert_eq!(files(full), Vec::<String>::new());
            bed.assert_nothing_left();
        }
    }
    drop(small);
    let down = bed.cluster(&["down"]);
    assert_eq!(down.code, Some(0), "{}", down.stderr);
    let none = bed.cluster(&["status"]);
    assert_eq!(none.code, Some(2));
    assert!(none.complaint().contains("is not up"));
}

#[test]
fn a_run_with_clients_on_two_machines_is_one_result() {
    let _turn = one_at_a_time();
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
    let flags = [
        "--seconds",
        "3",
        "--warmup",
        "1",
        "--outstanding",
        "64",
        "--kill-leader-after",
        "1",
    ];
    let mut arguments = vec!["run", "--json", "--name", "test", "--out", text(&out)];
    arguments.extend(["--inventory", text(&bed.inventory)]);
    arguments.extend(flags);
    let finished = run(&arguments);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    let result = finished.json();
    for key in ["lost", "duplicated", "disordered", "diverged", "failed"] {
        assert_eq!(result[key], 0, "{key}: {}", finished.stderr);
    }
    let results = out.join("test");
    let clients: Vec<_> = result["hosts"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|host| &host["clients"])
        .collect();
    assert_eq!(clients, [0, 0, 0, 2, 2]);
    assert_eq!(result["faults"][0]["kind"], "kill-leader");
    // What the machines counted apart adds up to what is told of all of them.
    let acknowledged: Vec<u64> = ["-d", "-e", ""]
        .map(|host| acknowledged_in(&results.join(format!("timeline{host}.csv"))))
        .to_vec();
    assert!(acknowledged[0] > 0 && acknowledged[1] > 0);
    assert_eq!(acknowledged[0] + acknowledged[1], acknowledged[2]);
    assert_eq!(result["acknowledged"], acknowledged[2]);
    assert!(results.join("latency.hlog").is_file());
    assert!(!results.join("data").exists(), "the data stays");
    bed.assert_nothing_left();
}

fn acknowledged_in(timeline: &Path) -> u64 {
    let text = std::fs::read_to_string(timeline).expect("fetched");
    let counts = text
        .lines()
        .skip(1)
        .map(|line| line.split(',').nth(1).expect("a column"));
    counts
        .map(|count| count.parse::<u64>().expect("a number"))
        .sum()
}

#[test]
fn a_machine_that_dies_in_the_middle_of_a_run_leaves_what_was_measured() {
    let _turn = one_at_a_time();
    let Some(mut bed) = Bed::make(&[
        ("a", REPLICA),
        ("b", REPLICA),
        ("c", REPLICA),
        ("d", CLIENT),
    ]) else {
        return;
    };
    let out = bed.directory.path().join("results");
    let mut child = common::synod()
        .args([
            "run",
            "--seconds",
            "300",
            "--warmup",
            "0",
            "--outstanding",
            "8",
            "--name",
            "test",
        ])
        .args(["--inventory", text(&bed.inventory), "--out", text(&out)])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut lines = BufReader::new(child.stderr.take().expect("piped"))
        .lines()
        .map_while(Result::ok);
    let measuring = lines.by_ref().find(|line| line.contains("acknowledged"));
    assert!(measuring.is_some(), "the run does not come to its load");
    bed.machines.cut_power("c");
    let rest: Vec<String> = lines.collect();
    assert_eq!(child.wait().expect("our child").code(), Some(1));
    let complaints: Vec<&String> = rest
        .iter()
        .filter(|line| line.starts_with("synod: "))
        .collect();
    assert_eq!(complaints.len(), 1, "{rest:#?}");
    assert!(complaints[0].contains("host c"), "{}", complaints[0]);
    let result =
        std::fs::read_to_string(out.join("test/result.json")).expect("what was measured is kept");
    let result: serde_json::Value = serde_json::from_str(&result).expect("JSON");
    assert_eq!(result["ok"], false);
    assert!(
        result["incomplete"]
            .as_str()
            .expect("a reason")
            .contains("replica 3 on host c")
    );
    assert!(result["acknowledged"].as_u64() > Some(0));
    assert!(acknowledged_in(&out.join("test/timeline.csv")) > 0);
    for name in ["a", "b", "d"] {
        assert_eq!(
            files(&bed.machines.data(name)),
            Vec::<String>::new(),
            "on {name}"
        );
    }
    bed.assert_nothing_runs();
}

#[test]
fn interrupted_at_any_moment_it_leaves_nothing() {
    let _turn = one_at_a_time();
    let Some(bed) = Bed::make(&[("a", REPLICA), ("b", "\"replica\", \"client\"")]) else {
        return;
    };
    let data = bed.machines.data("a");
    let out = bed.directory.path().join("results");
    let mut load = vec!["run", "--replicas", "1", "--seconds", "300"];
    load.extend(["--outstanding", "1", "--name", "test", "--out", text(&out)]);
    let runs = |words: &str| {
        let lines = processes_of(bed.directory.path());
        lines.iter().any(|line| line.contains(words))
    };
    let replica_runs = || {
        let lines = processes_of(bed.directory.path());
        let replica =
            |line: &String| line.contains(" replica --config") && !line.contains(" probe ");
        lines.iter().any(replica)
    };
    let moments: [(&[&str], &dyn Fn() -> bool); 4] = [
        // The executable is being copied.
        (&["cluster", "up"], &|| !files(&data).is_empty()),
        (&["cluster", "up"], &|| runs(" probe start ")),
        (&["cluster", "up"], &replica_runs),
        (&load, &|| runs(" load --config ")),
    ];
    for (arguments, moment) in moments {
        for signal in [Signal::INT, Signal::HUP] {
            let in_time = (0..ATTEMPTS).any(|_| interrupted(&bed, arguments, signal, moment));
            assert!(in_time, "{arguments:?} is always quicker");
            bed.assert_nothing_left();
            let _ = std::fs::remove_dir_all(&out);
        }
    }
    // Killed, it can remove no file, but no process outlives it.
    load.extend(["--fault", "isolate follower at 290s for 5s"]);
    load[2] = "2";
    let mut child = started(&bed, &load);
    wait_until("the load does not begin", || runs(" load --config "));
    child.kill().expect("our child");
    child.wait().expect("our child");
    wait_until("a process stays", || {
        processes_of(bed.directory.path()).is_empty()
    });
    let rules = bed.machines.inside("a", &["nft", "list", "ruleset"]);
    let rules = String::from_utf8_lossy(&rules.stdout).into_owned();
    assert!(rules.contains("synod_run_lab_test"), "{rules}");
    // A run that goes on is not taken for one that was killed.
    let name = load
        .iter()
        .position(|word| *word == "test")
        .expect("its name");
    load[name] = "other";
    let mut other = started(&bed, &load);
    wait_until("the load does not begin", || runs(" load --config "));
    let down = bed.done(&["down"]);
    assert!(down.stderr.contains("run test left"), "{}", down.stderr);
    assert!(
        down.stderr
            .contains("synod-run-other is of a command that goes on"),
        "{}",
        down.stderr
    );
    assert_eq!(files(&data), ["synod-run-other"]);
    let rules = bed.machines.inside("a", &["nft", "list", "ruleset"]);
    let rules = String::from_utf8_lossy(&rules.stdout).into_owned();
    assert!(
        rules.contains("synod_run_lab_other") && !rules.contains("synod_run_lab_test"),
        "{rules}"
    );
    assert!(other.try_wait().expect("our child").is_none(), "it goes on");
    kill_process(Pid::from_child(&other), Signal::HUP).expect("our child");
    assert_eq!(other.wait().expect("our child").code(), Some(1));
    bed.assert_nothing_left();
}

/// How often a command is tried that came to its end before it was interrupted.
const ATTEMPTS: u32 = 10;

/// Starts a command and interrupts it at the moment; `false` if it was quicker and succeeded, which is undone.
fn interrupted(bed: &Bed, arguments: &[&str], signal: Signal, moment: &dyn Fn() -> bool) -> bool {
    let mut child = started(bed, arguments);
    let mut ended = false;
    wait_until("the moment does not come", || {
        ended = child.try_wait().expect("our child").is_some();
        ended || moment()
    });
    if !ended {
        kill_process(Pid::from_child(&child), signal).expect("our child");
    }
    let output = child.wait_with_output().expect("our child");
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        bed.done(&["down"]);
        return false;
    }
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
    let word = match signal {
        Signal::HUP => "the terminal was closed",
        _ => "interrupted",
    };
    assert!(said.contains(word), "{arguments:?}: {said}");
    true
}

fn started(bed: &Bed, arguments: &[&str]) -> Child {
    common::synod()
        .args(arguments)
        .args(["--inventory", text(&bed.inventory)])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts")
}

/// A file system that is too small for anything.
struct Small(PathBuf);

impl Small {
    fn mount(at: &Path) -> Small {
        machines::must(
            "mount",
            &["-t", "tmpfs", "-o", "size=2m", "synod-test", text(at)],
        );
        Small(at.to_owned())
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        machines::run("umount", &[text(&self.0)]);
    }
}
