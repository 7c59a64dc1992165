//! Machines with an inventory of them, and `synod cluster` on it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{Machines, missing};
use crate::common::{Finished, directory, run};

const GUARD: Duration = Duration::from_secs(60);

/// Machines and an inventory of them.
pub struct Bed {
    pub machines: Machines,
    pub inventory: PathBuf,
    pub directory: tempfile::TempDir,
}

impl Bed {
    /// `None`, with the reason on stderr, where machines cannot be made.
    pub fn make(names: &[(&str, &str)]) -> Option<Bed> {
        if let Some(reason) = missing() {
            eprintln!("SKIPPED: {reason}");
            return None;
        }
        let directory = directory();
        let machines: Vec<&str> = names.iter().map(|(name, _)| *name).collect();
        let machines = Machines::make(directory.path(), &machines);
        let mut text = "ssh_config = \"ssh_config\"\n".to_owned();
        for (name, roles) in names {
            text += &machines.entry(name, roles);
        }
        let bed = Bed {
            inventory: directory.path().join("lab.toml"),
            machines,
            directory,
        };
        std::fs::write(&bed.inventory, text).expect("written");
        Some(bed)
    }

    pub fn cluster(&self, arguments: &[&str]) -> Finished {
        self.with(&self.inventory, arguments)
    }

    pub fn with(&self, inventory: &Path, arguments: &[&str]) -> Finished {
        let mut all = vec!["cluster", "--inventory", text(inventory)];
        all.extend_from_slice(arguments);
        run(&all)
    }

    pub fn done(&self, arguments: &[&str]) -> Finished {
        let finished = self.cluster(arguments);
        assert_eq!(finished.code, Some(0), "{arguments:?}: {}", finished.stderr);
        finished
    }

    /// The inventory with a change, under another name.
    pub fn changed(&self, name: &str, from: &str, to: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        let text = std::fs::read_to_string(&self.inventory).expect("ours");
        assert!(text.contains(from), "{from} is not in the inventory");
        std::fs::write(&path, text.replacen(from, to, 1)).expect("written");
        path
    }

    pub fn client(&self, arguments: &[&str]) -> Finished {
        let config = self.directory.path().join("lab.state/client.toml");
        let mut all = vec![
            "client",
            "--deadline-ms",
            "30000",
            "--config",
            text(&config),
        ];
        all.extend_from_slice(arguments);
        run(&all)
    }

    /// Nothing of us runs on the machines.
    pub fn assert_nothing_runs(&self) {
        let directory = self.directory.path();
        assert_eq!(executed_from(directory), Vec::<String>::new());
        // A shell that waited for the rest of a file ends when it hears that none comes.
        wait_until("a shell stays", || processes_of(directory).is_empty());
    }

    /// Nothing of us runs on the machines or is in their data directories or packet filters.
    pub fn assert_nothing_left(&self) {
        for name in &self.machines.names {
            let data = self.machines.data(name);
            assert_eq!(files(&data), Vec::<String>::new(), "on {name}");
            let rules = self.machines.inside(name, &["nft", "list", "ruleset"]);
            assert_eq!(String::from_utf8_lossy(&rules.stdout), "", "on {name}");
        }
        self.assert_nothing_runs();
        assert!(!self.directory.path().join("lab.state").exists());
    }
}

pub fn text(path: &Path) -> &str {
    path.to_str().expect("utf-8")
}

pub fn files(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).expect("a directory of the test");
    entries
        .map(|entry| {
            entry
                .expect("readable")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect()
}

/// What processes execute of that which was copied below the directory, whether it is there still or not.
pub fn executed_from(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir("/proc").expect("proc is mounted");
    let files = entries.filter_map(|entry| {
        let file = std::fs::read_link(entry.ok()?.path().join("exe")).ok()?;
        file.starts_with(directory)
            .then(|| file.display().to_string())
    });
    files.collect()
}

/// Command lines of replicas, loads and probes that name the directory. What ended and waits for its parent has none.
pub fn processes_of(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir("/proc").expect("proc is mounted");
    let lines = entries.filter_map(|entry| {
        let line = std::fs::read(entry.ok()?.path().join("cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        (line.contains(text(directory)) && line.contains("/bin/synod-")).then_some(line)
    });
    lines.collect()
}

pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < GUARD, "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
