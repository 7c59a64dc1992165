//! Machines of a test: network namespaces on a bridge, each with a real `sshd`; keys made for the test.
//!
//! They share this machine's disks and processes, and have networks and packet filters of their own.

pub mod bed;

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Where each sshd listens. Only the user's own configuration of ssh says so.
const SSH_PORT: u16 = 2222;
/// Far beyond what a server needs to come up, also on a loaded machine.
const LISTENS_GUARD: Duration = Duration::from_secs(60);
const CONNECT_MAX: Duration = Duration::from_secs(1);

pub struct Machines {
    directory: PathBuf,
    prefix: String,
    subnet: String,
    pub names: Vec<String>,
    /// The `sshd` of each, in the order of the names.
    servers: Vec<Child>,
}

/// Why machines cannot be made here; `None` if they can.
pub fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("network namespaces need root".into());
    }
    for (program, package) in [
        ("/usr/sbin/sshd", "openssh-server"),
        ("/usr/bin/ssh-keygen", "openssh-client"),
        ("/usr/sbin/nft", "nftables"),
        ("/usr/sbin/ip", "iproute2"),
    ] {
        if !Path::new(program).exists() {
            return Some(format!("{program} is missing: install {package}"));
        }
    }
    let probe = format!("synod-probe-{}", std::process::id());
    let made = run("ip", &["netns", "add", &probe]);
    if !made.status.success() {
        return Some(format!(
            "no network namespaces: {}",
            String::from_utf8_lossy(&made.stderr).trim()
        ));
    }
    must("ip", &["netns", "delete", &probe]);
    None
}

pub fn run(program: &str, arguments: &[&str]) -> Output {
    Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"))
}

pub fn must(program: &str, arguments: &[&str]) -> String {
    let output = run(program, arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

impl Machines {
    /// One per name, with addresses in a subnet that no other test process uses. Files go below `directory`.
    pub fn make(directory: &Path, names: &[&str]) -> Machines {
        // What was removed may take a moment to be gone: nothing is named twice.
        static MADE: AtomicU32 = AtomicU32::new(0);
        let made = MADE.fetch_add(1, Ordering::Relaxed);
        let id = std::process::id();
        let mut machines = Machines {
            directory: directory.to_owned(),
            prefix: format!("sy{id}{made}"),
            subnet: format!("10.{}.{}", 200 + id / 50 % 50, id % 50 * 5 + made % 5),
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            servers: Vec::new(),
        };
        let bridge = machines.prefix.clone();
        must("ip", &["link", "add", &bridge, "type", "bridge"]);
        must(
            "ip",
            &[
                "address",
                "add",
                &format!("{}.1/24", machines.subnet),
                "dev",
                &bridge,
            ],
        );
        must("ip", &["link", "set", &bridge, "up"]);
        machines.make_keys();
        for name in names {
            machines.make_namespace(name);
            machines.start_sshd(name);
        }
        for (index, name) in names.iter().enumerate() {
            machines.wait_for_sshd(index, name);
        }
        machines
    }

    pub fn address(&self, name: &str) -> String {
        let index = self
            .names
            .iter()
            .position(|other| other == name)
            .expect("a machine of ours");
        format!("{}.{}", self.subnet, index + 11)
    }

    /// An address of the subnet that nobody has.
    pub fn nobody(&self) -> String {
        format!("{}.200", self.subnet)
    }

    /// The data directory of a machine.
    pub fn data(&self, name: &str) -> PathBuf {
        self.directory.join(format!("data-{name}"))
    }

    pub fn key(&self) -> PathBuf {
        self.directory.join("key")
    }

    pub fn stranger(&self) -> PathBuf {
        self.directory.join("stranger")
    }

    /// What an inventory says of a machine.
    pub fn entry(&self, name: &str, roles: &str) -> String {
        format!(
            "[[host]]\nname = \"{name}\"\naddress = \"{}\"\nssh = {{ user = \"root\", identity = \"{}\" }}\n\
             roles = [{roles}]\ndata = \"{}\"\n",
            self.address(name),
            self.key().display(),
            self.data(name).display()
        )
    }

    /// Runs a command inside of a machine.
    pub fn inside(&self, name: &str, words: &[&str]) -> Output {
        let namespace = self.namespace(name);
        let mut all = vec!["netns", "exec", &namespace];
        all.extend_from_slice(words);
        run("ip", &all)
    }

    /// Whether packets get from one machine to another and back: a port where nobody listens is refused at once, by
    /// a machine that is reached.
    pub fn reaches(&self, from: &str, to: &str) -> bool {
        let knock = format!("exec 3<>/dev/tcp/{}/9", self.address(to));
        let output = self.inside(from, &["timeout", "1", "bash", "-c", &knock]);
        const TIMED_OUT: i32 = 124;
        output.status.code() != Some(TIMED_OUT)
    }

    /// Takes the machine off the network at once, as a power cut looks to the others, and kills what runs there.
    pub fn cut_power(&mut self, name: &str) {
        let namespace = self.namespace(name);
        must("ip", &["-n", &namespace, "link", "set", "eth0", "down"]);
        for pid in must("ip", &["netns", "pids", &namespace]).split_whitespace() {
            run("kill", &["-KILL", pid]);
        }
    }

    fn namespace(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    fn make_namespace(&self, name: &str) {
        let (namespace, link) = (self.namespace(name), format!("{}{name}", self.prefix));
        must("ip", &["netns", "add", &namespace]);
        must(
            "ip",
            &[
                "link", "add", &link, "type", "veth", "peer", "name", "eth0", "netns", &namespace,
            ],
        );
        must("ip", &["link", "set", &link, "master", &self.prefix, "up"]);
        must(
            "ip",
            &[
                "-n",
                &namespace,
                "address",
                "add",
                &format!("{}/24", self.address(name)),
                "dev",
                "eth0",
            ],
        );
        must("ip", &["-n", &namespace, "link", "set", "eth0", "up"]);
        must("ip", &["-n", &namespace, "link", "set", "lo", "up"]);
        std::fs::create_dir(self.data(name)).expect("a directory of the test");
    }

    fn make_keys(&self) {
        for key in ["key", "stranger", "host-key"] {
            let path = self.directory.join(key);
            must(
                "ssh-keygen",
                &[
                    "-q",
                    "-t",
                    "ed25519",
                    "-N",
                    "",
                    "-f",
                    path.to_str().expect("utf-8"),
                ],
            );
        }
        let text =
            |name: &str| std::fs::read_to_string(self.directory.join(name)).expect("just made");
        std::fs::write(self.directory.join("authorized"), text("key.pub")).expect("written");
        let host_key = text("host-key.pub");
        let known: String = self
            .names
            .iter()
            .map(|name| format!("[{}]:{SSH_PORT} {host_key}", self.address(name)))
            .collect();
        std::fs::write(self.directory.join("known_hosts"), known).expect("written");
        let directory = self.directory.display();
        let client = format!(
            "Host *\n  UserKnownHostsFile {directory}/known_hosts\n  StrictHostKeyChecking yes\n  Port {SSH_PORT}\n  \
             LocalForward {SSH_PORT} localhost:1\n"
        );
        std::fs::write(self.directory.join("ssh_config"), client).expect("written");
        let server = format!(
            // A deep shell reads no start files of bash: those of whoever runs the tests may do anything, for minutes.
            "Port {SSH_PORT}\nSetEnv SHLVL=5\nHostKey {directory}/host-key\nAuthorizedKeysFile {directory}/authorized\nPidFile none\nUsePAM no\n\
             StrictModes no\nPermitRootLogin prohibit-password\nPasswordAuthentication no\n\
             Match LocalAddress {noisy}\n  ForceCommand printf 'Welcome!\\nno end of line'; exec sh -c \"$SSH_ORIGINAL_COMMAND\"\n",
            // As the start file of a shell that greets; on one machine, so that both kinds are met.
            noisy = self.address(&self.names[0])
        );
        std::fs::write(self.directory.join("sshd_config"), server).expect("written");
        std::fs::create_dir_all("/run/sshd").expect("sshd separates its privileges there");
    }

    fn start_sshd(&mut self, name: &str) {
        let log = std::fs::File::create(self.directory.join(format!("sshd-{name}.log")))
            .expect("written");
        let server = Command::new("ip")
            .args([
                "netns",
                "exec",
                &self.namespace(name),
                "/usr/sbin/sshd",
                "-D",
                "-e",
                "-f",
            ])
            .arg(self.directory.join("sshd_config"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("ip starts");
        self.servers.push(server);
    }

    /// A server takes connections some time after its start only.
    fn wait_for_sshd(&mut self, index: usize, name: &str) {
        let address = self.address(name).parse().expect("an IP address");
        let at = SocketAddr::new(address, SSH_PORT);
        let started = Instant::now();
        while TcpStream::connect_timeout(&at, CONNECT_MAX).is_err() {
            let ended = self.servers[index].try_wait().expect("our child");
            if ended.is_some() || started.elapsed() > LISTENS_GUARD {
                let log = self.directory.join(format!("sshd-{name}.log"));
                let said = std::fs::read_to_string(log).unwrap_or_default();
                panic!("sshd does not listen on {at} (ended: {ended:?}): {said}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Whatever became of the test, its machines go.
impl Drop for Machines {
    fn drop(&mut self) {
        for server in &mut self.servers {
            let _ = server.kill();
            let _ = server.wait();
        }
        for name in &self.names {
            let namespace = self.namespace(name);
            let pids = run("ip", &["netns", "pids", &namespace]);
            for pid in String::from_utf8_lossy(&pids.stdout).split_whitespace() {
                run("kill", &["-KILL", pid]);
            }
            run("ip", &["netns", "delete", &namespace]);
        }
        run("ip", &["link", "delete", &self.prefix]);
    }
}
