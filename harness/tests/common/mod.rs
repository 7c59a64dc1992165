//! What the tests of the binary share: running it with a guard against hanging, and a small cluster by hand.

#![allow(
    dead_code,
    reason = "each test binary compiles this module and uses its own part"
)]

pub mod mount;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, mpsc};
use std::time::{Duration, Instant};

/// Far beyond what any command here takes, also on a loaded machine.
const HANG_GUARD: Duration = Duration::from_secs(120);

/// Clusters run one after the other: on a small machine several at once would only measure each other.
pub fn one_at_a_time() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// A directory on the disk that the build is on, since /tmp may be in memory.
pub fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("the target directory takes files")
}

pub struct Finished {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Finished {
    /// The one line that explains a failure.
    pub fn complaint(&self) -> &str {
        let mut lines = self
            .stderr
            .lines()
            .filter(|line| line.starts_with("synod: "));
        let line = lines
            .next()
            .unwrap_or_else(|| panic!("no complaint: {}", self.stderr));
        assert_eq!(
            lines.next(),
            None,
            "more than one complaint: {}",
            self.stderr
        );
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        line
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}\n{}", self.stdout, self.stderr))
    }
}

pub fn synod() -> Command {
    Command::new(env!("CARGO_BIN_EXE_synod"))
}

pub fn run(arguments: &[&str]) -> Finished {
    run_with_input(arguments, "")
}

/// Runs to the end with `input` on stdin.
pub fn run_with_input(arguments: &[&str], input: &str) -> Finished {
    let mut child = synod()
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut stdin = child.stdin.take().expect("piped");
    let input = input.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let stdout = collect(child.stdout.take().expect("piped"));
    let stderr = collect(child.stderr.take().expect("piped"));
    let code = wait(&mut child, arguments);
    // A process that ends without reading its input is no error.
    let _ = writer.join();
    Finished {
        code,
        stdout: stdout.join().expect("read"),
        stderr: stderr.join().expect("read"),
    }
}

fn collect(mut from: impl Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut text = String::new();
        let _ = from.read_to_string(&mut text);
        text
    })
}

/// Waits for the end of a process; returns its exit code.
pub fn wait_for(child: &mut Child, what: &str) -> Option<i32> {
    wait(child, &[what])
}

fn wait(child: &mut Child, what: &[&str]) -> Option<i32> {
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("our child") {
            return status.code();
        }
        if started.elapsed() > HANG_GUARD {
            let _ = child.kill();
            panic!("{what:?} hangs");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Files of a cluster in a directory, ready to start.
pub struct Files {
    pub directory: PathBuf,
    pub cluster: String,
    pub ports: Vec<u16>,
}

impl Files {
    pub fn make(directory: &Path, replicas: u8) -> Files {
        let certificates = directory.join("certs");
        let finished = run(&[
            "certs",
            "--out",
            certificates.to_str().expect("utf-8"),
            "--replicas",
            &replicas.to_string(),
        ]);
        assert_eq!(finished.code, Some(0), "{}", finished.stderr);
        let cluster = finished.stdout.split('"').nth(1).expect("the id is quoted");
        let sockets: Vec<UdpSocket> = (0..replicas)
            .map(|_| UdpSocket::bind("127.0.0.1:0").expect("a free port"))
            .collect();
        let port = |socket: &UdpSocket| socket.local_addr().expect("bound").port();
        let files = Files {
            directory: directory.to_owned(),
            cluster: cluster.to_owned(),
            ports: sockets.iter().map(port).collect(),
        };
        drop(sockets);
        for id in 1..=replicas {
            std::fs::write(files.config(id), files.replica_toml(id)).expect("written");
        }
        std::fs::write(files.client_config(), files.client_toml()).expect("written");
        files
    }

    pub fn config(&self, id: u8) -> PathBuf {
        self.directory.join(format!("replica-{id}.toml"))
    }

    pub fn client_config(&self) -> PathBuf {
        self.directory.join("client.toml")
    }

    pub fn data(&self, id: u8) -> PathBuf {
        self.directory.join(format!("data-{id}"))
    }

    fn addresses(&self) -> String {
        let each = self.ports.iter().zip(1..);
        each.map(|(port, id)| format!("{id} = \"127.0.0.1:{port}\"\n"))
            .collect()
    }

    pub fn replica_toml(&self, id: u8) -> String {
        format!(
            "cluster = \"{}\"\nreplica = {id}\nlisten = \"127.0.0.1:{}\"\ndata = \"data-{id}\"\nstate_machine = \"kv\"\n\
             [peers]\n{}[certificates]\nca = \"certs/ca.pem\"\ncert = \"certs/replica-{id}.pem\"\nkey = \"certs/replica-{id}.key\"\n",
            self.cluster,
            self.ports[usize::from(id) - 1],
            self.addresses()
        )
    }

    pub fn client_toml(&self) -> String {
        format!(
            "cluster = \"{}\"\ndeadline_ms = 20000\n[replicas]\n{}[certificates]\nca = \"certs/ca.pem\"\ncert = \"certs/client.pem\"\nkey = \"certs/client.key\"\n",
            self.cluster,
            self.addresses()
        )
    }

    /// What the last start of a replica said on stderr.
    pub fn log(&self, id: u8) -> PathBuf {
        self.directory.join(format!("replica-{id}.log"))
    }

    /// Adds tables to the configuration of every replica.
    pub fn configure(&self, tables: &str) {
        for id in (1..).zip(&self.ports).map(|(id, _)| id) {
            let toml = format!("{}{tables}", self.replica_toml(id));
            std::fs::write(self.config(id), toml).expect("written");
        }
    }

    pub fn start(&self, id: u8, init: bool) -> Replica {
        let log = std::fs::File::create(self.log(id)).expect("a file");
        self.start_logging_to(id, init, log)
    }

    pub fn start_logging_to(&self, id: u8, init: bool, log: impl Into<Stdio>) -> Replica {
        self.start_with(id, init, log, |_| {})
    }

    /// `adapt` changes how it is started.
    pub fn start_with(
        &self,
        id: u8,
        init: bool,
        log: impl Into<Stdio>,
        adapt: impl FnOnce(&mut Command),
    ) -> Replica {
        self.start_as(synod(), id, init, log, adapt)
    }

    /// `command` runs the binary, maybe below something else.
    pub fn start_as(
        &self,
        mut command: Command,
        id: u8,
        init: bool,
        log: impl Into<Stdio>,
        adapt: impl FnOnce(&mut Command),
    ) -> Replica {
        let config = self.config(id);
        command.args(["replica", "--exit-with-parent", "--config"]);
        command.arg(config);
        if init {
            command.arg("--init");
        }
        adapt(&mut command);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("the binary starts");
        let stdout = child.stdout.take().expect("piped");
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            let _ = BufReader::new(stdout).read_line(&mut line);
            let _ = sender.send(line);
        });
        let line = receiver.recv_timeout(HANG_GUARD).expect("a ready line");
        assert!(line.starts_with("ready "), "{line}");
        Replica { child }
    }

    /// Runs `synod client` with commands on its stdin.
    pub fn repl(&self, input: &str) -> Finished {
        let config = self.client_config();
        let config = config.to_str().expect("utf-8");
        run_with_input(&["client", "--config", config, "repl"], input)
    }

    /// A counter of a replica; `None` if it does not answer.
    pub fn counter(&self, id: u8, name: &str) -> Option<u64> {
        self.status().counter(id, name)
    }

    /// What all replicas say about themselves; one that is down is waited for only shortly.
    pub fn status(&self) -> Status {
        Status(self.client(&["--deadline-ms", "500", "status"]).stdout)
    }

    /// Runs `synod client` on this cluster.
    pub fn client(&self, arguments: &[&str]) -> Finished {
        let config = self.client_config();
        let mut all = vec!["client", "--config", config.to_str().expect("utf-8")];
        all.extend_from_slice(arguments);
        run(&all)
    }
}

pub struct Status(String);

impl Status {
    pub fn counter(&self, id: u8, name: &str) -> Option<u64> {
        let prefix = format!("replica {id} {name} ");
        let line = self.0.lines().find_map(|line| line.strip_prefix(&prefix));
        line.and_then(|value| value.parse().ok())
    }
}

/// Waits for what comes in its own time.
pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < HANG_GUARD, "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A running replica; killed when dropped.
pub struct Replica {
    child: Child,
}

impl Replica {
    pub fn id(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(&self.child)
    }

    /// Waits until it ends by itself; returns the exit code.
    pub fn ended(mut self) -> Option<i32> {
        wait(&mut self.child, &["replica"])
    }

    /// SIGTERM; returns the exit code.
    pub fn stop(mut self) -> Option<i32> {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, rustix::process::Signal::TERM).expect("our child");
        wait(&mut self.child, &["replica"])
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
