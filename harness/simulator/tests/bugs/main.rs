//! Hand-made protocol bugs: the simulator has to find each of them.
//!
//! Each bug is a change of the product's source. The test makes it in a copy of the workspace, builds the simulator
//! there, and lets it run until a seed fails. It takes some 20 minutes, so it is not part of `cargo test`:
//!
//! ```text
//! cargo test --release -p synod-simulator --test bugs -- --ignored --nocapture
//! SYNOD_BUG=quorum cargo test …                       only those whose name contains `quorum`
//! ```
//! The test beside it, which runs always, checks that each change still finds its place in the source.

mod catalogue;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use catalogue::{BUGS, Bug};

/// Seeds that may pass before a bug is found.
const SEEDS_MAX: u64 = 10_000;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The changed text of each file that a bug changes.
fn changed(bug: &Bug) -> Vec<(&'static str, String)> {
    let mut files: Vec<(&'static str, String)> = Vec::new();
    for edit in bug.edits {
        let at = files.iter().position(|(file, _)| *file == edit.file);
        let at = at.unwrap_or_else(|| {
            let path = root().join(edit.file);
            let text = std::fs::read_to_string(&path);
            let text = text.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            files.push((edit.file, text));
            files.len() - 1
        });
        let text = &mut files[at].1;
        assert_eq!(
            text.matches(edit.find).count(),
            1,
            "bug `{}`: in {} there must be exactly one\n{}",
            bug.name,
            edit.file,
            edit.find
        );
        *text = text.replace(edit.find, edit.replace);
    }
    files
}

/// Copies the sources, without what was built or measured.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory for the copy");
    for item in std::fs::read_dir(from).expect("the workspace can be listed") {
        let item = item.expect("an item of the workspace");
        let name = item.file_name();
        let skipped = ["target", "results", ".git", "baselines"];
        if skipped.iter().any(|skipped| name == *skipped) {
            continue;
        }
        let kind = item.file_type().expect("its type");
        if kind.is_dir() {
            copy(&item.path(), &to.join(name));
        } else if kind.is_file() {
            std::fs::copy(item.path(), to.join(name)).expect("a copied file");
        }
    }
}

fn cargo(workspace: &Path, arguments: &[&str]) -> std::process::Output {
    Command::new(env!("CARGO"))
        .args(arguments)
        .current_dir(workspace)
        .env("CARGO_TARGET_DIR", workspace.join("target"))
        .output()
        .expect("cargo runs")
}

/// Builds the copy as it is and runs seeds until one fails. Returns the number of the seed and what was wrong.
fn hunt(workspace: &Path) -> Result<Option<String>, String> {
    let package = ["-p", "synod-simulator", "--example", "simulate"];
    let built = cargo(
        workspace,
        &[&["build", "--release", "--quiet"], &package[..]].concat(),
    );
    if !built.status.success() {
        return Err(String::from_utf8_lossy(&built.stderr).into_owned());
    }
    let seeds = SEEDS_MAX.to_string();
    let ran = Command::new(workspace.join("target/release/examples/simulate"))
        .args(["--seeds", &seeds, "--jobs", "2"])
        .output()
        .expect("the simulator runs");
    match ran.status.code() {
        Some(0) => Ok(None),
        Some(1) => Ok(Some(String::from_utf8_lossy(&ran.stdout).into_owned())),
        other => Err(format!(
            "exit {other:?}: {}",
            String::from_utf8_lossy(&ran.stderr)
        )),
    }
}

#[test]
fn every_bug_of_the_catalogue_still_has_its_place_in_the_source() {
    assert!(BUGS.len() >= 10);
    for bug in BUGS {
        assert!(
            !changed(bug).is_empty(),
            "bug `{}` changes nothing",
            bug.name
        );
    }
}

#[test]
#[ignore = "builds the workspace once per bug; see the head of this file"]
fn the_simulator_finds_every_bug_of_the_catalogue() {
    let wanted = std::env::var("SYNOD_BUG").unwrap_or_default();
    let workspace = std::env::temp_dir().join(format!("synod-bugs-{}", std::process::id()));
    copy(&root(), &workspace);
    let mut missed = Vec::new();
    for bug in BUGS.iter().filter(|bug| bug.name.contains(&wanted)) {
        let files = changed(bug);
        for (file, text) in &files {
            std::fs::write(workspace.join(file), text).expect("a changed file");
        }
        let begun = Instant::now();
        let found = hunt(&workspace);
        for (file, _) in &files {
            std::fs::copy(root().join(file), workspace.join(file)).expect("a restored file");
        }
        let seconds = begun.elapsed().as_secs();
        match found {
            Ok(Some(report)) => {
                let line = report.lines().find(|line| line.contains("seed"));
                println!("{:<34} {seconds:>4} s  {}", bug.name, line.unwrap_or(""));
            }
            Ok(None) => missed.push(bug.name),
            Err(why) => panic!("bug `{}`: {why}", bug.name),
        }
    }
    // Kept after a failure, to look at.
    assert!(
        missed.is_empty(),
        "not found within {SEEDS_MAX} seeds: {missed:?}"
    );
    let _ = std::fs::remove_dir_all(&workspace);
}
