//! The processes of one system, each ended by its own handle.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Lines};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

pub struct Cluster {
    system: String,
    addresses: String,
    servers: BTreeMap<usize, Process>,
    directory: TempDir,
}

/// Ends with its handle, whatever panics.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The clients, and what they tell.
pub struct Load {
    process: Process,
    lines: Lines<BufReader<ChildStdout>>,
}

pub fn external() -> Command {
    Command::new(env!("CARGO_BIN_EXE_external"))
}

/// On the disk that the build is on: a temporary one in memory would sync nothing.
pub fn scratch() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder")
}

impl Cluster {
    /// `None`, and a line that says so, if the system cannot take part here.
    pub fn start(system: &str) -> Option<Cluster> {
        let directory = scratch();
        let output = external()
            .args(["servers", "--system", system, "--directory"])
            .arg(directory.path().join("cluster"))
            .output()
            .expect("it runs");
        if output.status.code() == Some(3) {
            eprintln!(
                "skipped: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            );
            return None;
        }
        assert!(output.status.success(), "{output:?}");
        let recipe: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let servers = recipe["servers"].as_array().expect("servers");
        let cluster = Cluster {
            system: system.to_owned(),
            addresses: recipe["addresses"].as_str().expect("text").to_owned(),
            servers: (1..).zip(servers.iter().map(start)).collect(),
            directory,
        };
        let output = cluster.ask("wait");
        assert!(output.0, "{system} does not serve: {}", output.1);
        Some(cluster)
    }

    /// The position of the leader's address, from 1.
    pub fn leader(&self) -> usize {
        let (ok, said) = self.ask("leader");
        assert!(ok, "{}: {said}", self.system);
        said.trim().parse().expect("a number")
    }

    /// SIGKILL.
    pub fn kill_leader(&mut self) -> usize {
        let leader = self.leader();
        self.servers.remove(&leader).expect("it runs");
        leader
    }

    pub fn load(&self, offer: &[&str]) -> Load {
        let mut child = external()
            .args([
                "load",
                "--system",
                &self.system,
                "--addresses",
                &self.addresses,
            ])
            .args(["--warmup", "1", "--out"])
            .arg(self.directory.path())
            .args(offer)
            .stdout(Stdio::piped())
            .spawn()
            .expect("it runs");
        let stdout = child.stdout.take().expect("piped");
        Load {
            process: Process(child),
            lines: BufReader::new(stdout).lines(),
        }
    }

    /// Acknowledged in the last second of the timeline, which has ten rows for each.
    pub fn acknowledged_at_the_end(&self) -> u64 {
        let timeline = self.directory.path().join("timeline.csv");
        let timeline = std::fs::read_to_string(timeline).expect("a timeline");
        let column = |row: &str| -> u64 {
            let cell = row.split(',').nth(1).expect("two columns");
            cell.parse().expect("a number")
        };
        timeline.lines().rev().take(10).map(column).sum()
    }

    pub fn stop(self) {
        drop(self.servers);
    }

    fn ask(&self, question: &str) -> (bool, String) {
        let output = external()
            .args([question, "--system", &self.system])
            .args(["--addresses", &self.addresses])
            .output()
            .expect("it runs");
        let text = [output.stdout, output.stderr].concat();
        (
            output.status.success(),
            String::from_utf8_lossy(&text).into_owned(),
        )
    }
}

impl Load {
    /// The next event of this name.
    pub fn until(&mut self, name: &str) -> Value {
        for line in self.lines.by_ref() {
            let event: Value = serde_json::from_str(&line.expect("a line")).expect("JSON");
            if event["event"] == name {
                return event;
            }
        }
        panic!("the load ended before `{name}`");
    }

    pub fn finish(mut self) {
        let status = self.process.0.wait().expect("it ends");
        assert!(status.success(), "the load: {status}");
    }
}

fn start(server: &Value) -> Process {
    let text = |name: &str| server[name].as_str().expect("text");
    let directory = Path::new(text("directory"));
    let log = std::fs::File::create(directory.join("log")).expect("a log");
    let arguments = server["arguments"].as_array().expect("arguments");
    let environment = server["environment"].as_object().expect("an object");
    let child = Command::new(text("program"))
        .args(
            arguments
                .iter()
                .map(|argument| argument.as_str().expect("text")),
        )
        .envs(
            environment
                .iter()
                .map(|(name, value)| (name, value.as_str().expect("text"))),
        )
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a second handle"))
        .stderr(log)
        .spawn()
        .expect("the server starts");
    Process(child)
}
