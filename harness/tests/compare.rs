//! `synod compare` and `synod sweep` on real clusters, small ones, and on what they refuse.

mod common;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use common::{Finished, directory, one_at_a_time, run};

const USAGE: Option<i32> = Some(2);

fn text(path: &Path) -> &str {
    path.to_str().expect("utf-8")
}

fn refused(finished: &Finished, expected: &[&str]) {
    let complaint = finished.complaint();
    assert_eq!(finished.code, USAGE, "{complaint}");
    for part in expected {
        assert!(complaint.contains(part), "`{complaint}` lacks `{part}`");
    }
}

fn json(path: &Path) -> serde_json::Value {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&bytes).expect("JSON")
}

fn write(path: &Path, content: &str) -> PathBuf {
    std::fs::write(path, content).expect("written");
    path.to_owned()
}

const MATRIX: &str =
    "outstanding = [4, 16]\nreplicas = [1]\nrepeat = 2\nseconds = 1\nwarmup_s = 0\n";

#[test]
fn a_comparison_has_runs_figures_and_a_report() {
    let _turn = one_at_a_time();
    let out = directory();
    let finished = run(&[
        "compare",
        "--systems",
        "synod,synod",
        "--outstanding",
        "8",
        "--replicas",
        "3",
        "--repeat",
        "2",
        "--seconds",
        "1",
        "--warmup",
        "0",
        "--name",
        "c",
        "--out",
        text(out.path()),
    ]);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert!(
        finished.stdout.contains("synod (quic)"),
        "{}",
        finished.stdout
    );
    let folder = out.path().join("c");
    let comparison = json(&folder.join("comparison.json"));
    assert_eq!(comparison["kind"], "comparison");
    // Named twice, run once.
    assert_eq!(comparison["cells"].as_array().map(Vec::len), Some(1));
    let cell = &comparison["cells"][0];
    assert_eq!(cell["summary"]["throughput_per_s"]["n"], 2);
    for name in cell["runs"].as_array().expect("runs") {
        let result = json(
            &folder
                .join(name.as_str().expect("a name"))
                .join("result.json"),
        );
        assert_eq!(result["lost"], 0);
        assert_eq!(result["ok"], true, "{result}");
        assert_eq!(result["system"], "synod");
    }
    let page = std::fs::read_to_string(folder.join("report.html")).expect("a report");
    assert!(page.contains("synod"));
}

#[test]
fn a_sweep_goes_on_where_it_was_interrupted() {
    let _turn = one_at_a_time();
    let out = directory();
    let matrix = write(&out.path().join("small.toml"), MATRIX);
    let sweep = || run(&["sweep", text(&matrix), "--out", text(out.path())]);
    let first = sweep();
    assert_eq!(first.code, Some(0), "{}", first.stderr);
    let runs = out.path().join("sweep-small/runs");
    let result = |name: &str| runs.join(name).join("result.json");
    let (kept, cut) = ("synod-quic-n1-128B-c4-1", "synod-quic-n1-128B-c16-2");
    let before = json(&result(kept));
    // As an interruption leaves it: begun, and without a result.
    std::fs::remove_file(result(cut)).expect("it was there");
    let second = sweep();
    assert_eq!(second.code, Some(0), "{}", second.stderr);
    assert_eq!(json(&result(kept)), before, "a finished run was done again");
    assert!(result(cut).exists());
    let again = second.stderr.matches("repeat").count();
    assert_eq!(
        again, 1,
        "more than the missing run was done: {}",
        second.stderr
    );

    std::fs::write(result(cut), "{\"schema_version\": 1, \"sys").expect("written");
    refused(&sweep(), &["result.json", "cut off"]);
    let other = result(cut);
    std::fs::write(&other, "{\"schema_version\": 99}").expect("written");
    refused(&sweep(), &["schema_version 99"]);

    write(&matrix, &MATRIX.replace("repeat = 2", "repeat = 1"));
    refused(&sweep(), &["sweep-small", "another matrix"]);
}

#[test]
fn what_can_not_be_compared_is_refused_before_anything_runs() {
    let out = directory();
    let compare = |flags: &[&str]| {
        let mut all = vec!["compare", "--out", text(out.path())];
        all.extend_from_slice(flags);
        run(&all)
    };
    refused(&compare(&["--systems", "raft"]), &["raft", "raft-rs"]);
    refused(&compare(&["--transport", "udp"]), &["udp"]);
    refused(
        &compare(&["--programs", "/nowhere"]),
        &["--programs", "/nowhere"],
    );
    refused(&compare(&["--outstanding", "0"]), &["--outstanding"]);
    refused(
        &compare(&["--repeat", "1000", "--outstanding", "1,2,3,4,5"]),
        &["4096"],
    );
    let scratch = directory();
    let empty = scratch.path().join("empty");
    std::fs::create_dir(&empty).expect("made");
    refused(
        &compare(&["--systems", "synod,raft-rs", "--programs", text(&empty)]),
        &["synod-baseline-raft-rs", "cargo build"],
    );
    let program = write(
        &empty.join("synod-baseline-raft-rs"),
        "#!/bin/sh\necho something else\n",
    );
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("ours");
    refused(
        &compare(&["--systems", "raft-rs", "--programs", text(&empty)]),
        &["synod-baseline-raft-rs", "not a baseline"],
    );
    let matrix = write(
        &scratch.path().join("m.toml"),
        "outstanding = [1]\nsystem = [\"synod\"]\n",
    );
    refused(&run(&["sweep", text(&matrix)]), &["m.toml:2", "system"]);
    write(&matrix, "systems = [\"synod\"]\n");
    refused(
        &run(&["sweep", text(&matrix)]),
        &["m.toml", "outstanding or rates"],
    );
    refused(&run(&["sweep", "nowhere.toml"]), &["nowhere.toml"]);
    let left = std::fs::read_dir(out.path()).expect("ours").count();
    assert_eq!(left, 0, "something was written although nothing ran");
}

/// The machine of the inventory is this one, so that no privilege is needed.
#[test]
fn a_sweep_runs_on_the_machines_of_an_inventory() {
    let _turn = one_at_a_time();
    let out = directory();
    let data = out.path().join("data");
    std::fs::create_dir(&data).expect("made");
    let host = format!(
        "[[host]]\nname = \"here\"\naddress = \"127.0.0.1\"\nconnection = \"local\"\n\
         roles = [\"replica\", \"client\"]\ndata = \"{}\"\n",
        data.display()
    );
    let port = std::net::UdpSocket::bind("127.0.0.1:0")
        .and_then(|socket| socket.local_addr())
        .expect("a free port")
        .port();
    let machines = write(
        &out.path().join("lab.toml"),
        &format!("port = {port}\n{host}"),
    );
    let few = write(
        &out.path().join("few.toml"),
        "systems = [\"synod\", \"etcd\"]\noutstanding = [4]\nreplicas = [1]\nrepeat = 1\nseconds = 1\nwarmup_s = 0\n",
    );
    let sweep = |matrix: &Path, more: &[&str]| {
        let mut all = vec![
            "sweep",
            text(matrix),
            "--name",
            "s",
            "--out",
            text(out.path()),
        ];
        all.extend_from_slice(more);
        run(&all)
    };
    let programs = nothing_installed(out.path());
    let mut on_machines = vec!["--inventory", text(&machines)];
    on_machines.extend(["--programs", text(&programs)]);
    let finished = sweep(&few, &on_machines);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert!(
        finished
            .stderr
            .contains("skipped: etcd: host here: etcd is not installed"),
        "{}",
        finished.stderr
    );
    let done = out
        .path()
        .join("s/runs/synod-quic-n1-128B-c4-1/result.json");
    assert_eq!(json(&done)["hosts"][0]["name"], "here");
    let left = std::fs::read_dir(&data).expect("there").count();
    assert_eq!(left, 0, "nothing of the runs stays");
    refused(&sweep(&few, &[]), &["other machines", "--name"]);
    let many = write(
        &out.path().join("many.toml"),
        "systems = [\"synod\"]\noutstanding = [4]\nreplicas = [1, 3]\n",
    );
    refused(&sweep(&many, &on_machines), &["lab.toml", "1 replica;"]);
}

/// The folder of an adapter that finds nothing installed, as on most machines.
fn nothing_installed(out: &Path) -> PathBuf {
    let programs = out.join("programs");
    std::fs::create_dir(&programs).expect("made");
    let script = "#!/bin/sh\necho 'external: etcd is not installed: apt-get install etcd-server' >&2\nexit 3\n";
    let adapter = write(&programs.join("external"), script);
    std::fs::set_permissions(&adapter, std::fs::Permissions::from_mode(0o755)).expect("ours");
    programs
}

#[test]
fn a_system_that_is_not_installed_is_skipped_with_one_line() {
    let _turn = one_at_a_time();
    let out = directory();
    let programs = nothing_installed(out.path());
    let finished = run(&[
        "compare",
        "--systems",
        "etcd,synod",
        "--outstanding",
        "4",
        "--replicas",
        "1",
        "--repeat",
        "1",
        "--seconds",
        "1",
        "--warmup",
        "0",
        "--programs",
        text(&programs),
        "--name",
        "c",
        "--out",
        text(out.path()),
    ]);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    let line = "skipped: etcd: etcd is not installed: apt-get install etcd-server";
    assert_eq!(
        finished.stderr.matches(line).count(),
        1,
        "{}",
        finished.stderr
    );
    let comparison = json(&out.path().join("c/comparison.json"));
    assert_eq!(comparison["skipped"][0]["system"], "etcd");
}
