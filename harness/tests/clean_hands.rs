//! Nothing is removed that the command did not make, and all that it made.

mod common;

use std::path::Path;
use std::process::Stdio;

use common::{Finished, directory, one_at_a_time, run, synod, wait_until};

/// A short run with results in `out` and data in `data`.
fn short_run(out: &Path, data: &Path, name: &str) -> Finished {
    let (out, data) = (out.to_str().expect("utf-8"), data.to_str().expect("utf-8"));
    let mut arguments = vec!["run", "--seconds", "1", "--warmup", "0", "--out", out];
    arguments.extend(["--data", data, "--name", name]);
    run(&arguments)
}

#[test]
fn a_run_takes_no_folder_that_was_there_before() {
    let _turn = one_at_a_time();
    let place = directory();
    let (out, data) = (place.path().join("out"), place.path().join("data"));
    std::fs::create_dir_all(data.join("empty")).expect("made");
    // As another run's would be, keys included, and as anybody's.
    let precious = ["postgres/base", "run-1/certificates/ca.pem"];
    for path in precious.map(|path| data.join(path)) {
        std::fs::create_dir_all(path.parent().expect("it has one")).expect("made");
        std::fs::write(&path, "precious").expect("written");
    }
    for name in ["postgres", "run-1", "empty"] {
        let finished = short_run(&out, &data, name);
        assert_eq!(finished.code, Some(2), "{}", finished.stderr);
        let (complaint, folder) = (finished.complaint(), data.join(name));
        let shown = folder.to_str().expect("utf-8");
        assert!(complaint.contains(shown), "{complaint}");
        assert!(complaint.contains("choose another --name"), "{complaint}");
        assert!(folder.is_dir(), "{name} was removed");
        assert!(!out.join(name).exists(), "the name is not free any more");
    }
    for path in precious.map(|path| data.join(path)) {
        let text = std::fs::read_to_string(&path).expect("it stays");
        assert_eq!(text, "precious");
    }
    let finished = short_run(&out, &data, "new");
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert!(!data.join("new").exists(), "its own data stays");
    assert!(data.join("postgres/base").exists());
}

#[test]
fn kept_data_holds_no_key() {
    let _turn = one_at_a_time();
    let out = directory();
    let mut arguments = vec!["run", "--seconds", "1", "--warmup", "0", "--keep-data"];
    arguments.extend(["--name", "x", "--out", out.path().to_str().expect("utf-8")]);
    let finished = run(&arguments);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    let data = out.path().join("x/data");
    assert!(
        data.join("replica-1/identity").exists(),
        "it was asked to stay"
    );
    let certificates = std::fs::read_dir(data.join("certificates")).expect("they stay");
    let names: Vec<String> = certificates
        .map(|entry| {
            entry
                .expect("read")
                .file_name()
                .into_string()
                .expect("utf-8")
        })
        .collect();
    assert!(names.iter().any(|name| name == "ca.pem"), "{names:?}");
    assert!(
        names.iter().all(|name| !name.ends_with(".key")),
        "{names:?}"
    );
}

#[test]
fn a_sweep_that_was_killed_goes_on_at_once_and_leaves_what_is_not_its_own() {
    let _turn = one_at_a_time();
    let place = directory();
    let matrix = place.path().join("matrix.toml");
    let text = "systems = [\"synod\"]\noutstanding = [1, 2]\nrepeat = 1\nseconds = 1\nwarmup_s = 0\nclients = 1\n";
    std::fs::write(&matrix, text).expect("written");
    let at = |name: &str| place.path().join(name).to_str().expect("utf-8").to_owned();
    let (matrix, out, data) = (at("matrix.toml"), at("out"), at("data"));
    let arguments = [
        "sweep", &matrix, "--out", &out, "--data", &data, "--name", "s",
    ];
    let mut child = synod()
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary starts");
    let first = || {
        let mut runs = std::fs::read_dir(&data).ok()?;
        Some(runs.next()?.ok()?.path())
    };
    wait_until("no run begins", || {
        first().is_some_and(|run| run.join("replica-1/identity").exists())
    });
    child.kill().expect("our child");
    child.wait().expect("our child");
    let left = first().expect("SIGKILL leaves it");
    // A sweep elsewhere, of the same matrix and with the same `--data`, leaves it alone.
    let elsewhere = at("elsewhere");
    let finished = run(&[
        "sweep", &matrix, "--out", &elsewhere, "--data", &data, "--name", "s",
    ]);
    assert_eq!(finished.code, Some(1), "{}", finished.stderr);
    assert!(left.join("replica-1/identity").exists(), "of another sweep");
    let finished = run(&arguments);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert_eq!(first(), None, "data stay");
    // A folder in the place of a run that no run of ours made.
    let runs = Path::new(&out).join("s/runs");
    let victim = std::fs::read_dir(&runs)
        .expect("runs")
        .next()
        .expect("one")
        .expect("read")
        .path();
    std::fs::rename(&victim, place.path().join("aside")).expect("moved");
    std::fs::create_dir(&victim).expect("made");
    std::fs::write(victim.join("precious"), "1").expect("written");
    let finished = run(&arguments);
    assert_eq!(finished.code, Some(1), "{}", finished.stderr);
    assert!(
        finished.complaint().contains("move it away"),
        "{}",
        finished.stderr
    );
    assert!(victim.join("precious").exists());
}
