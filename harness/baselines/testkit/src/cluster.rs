//! Three processes of a baseline, each ended by its own handle.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use synod_engine::ids::{ClusterId, ReplicaId};
use synod_transport::{AuthorityKey, Client, ClientConfig, Identity, make_certificates};

pub type Status = BTreeMap<String, u64>;

const CLUSTER: ClusterId = ClusterId(0x5e7);
const REPLICAS: u8 = 3;
/// Far beyond what anything here takes, also on a loaded machine.
const HANG_GUARD: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

pub struct Cluster {
    binary: PathBuf,
    flags: Vec<String>,
    directory: tempfile::TempDir,
    addresses: Vec<(ReplicaId, SocketAddr)>,
    replicas: BTreeMap<ReplicaId, Process>,
}

struct Process {
    child: Child,
    /// Kept open: nobody reads it after the ready line, and nothing more is printed.
    _stdout: BufReader<ChildStdout>,
}

impl Cluster {
    pub fn start(binary: &Path, flags: &[&str], scratch: &Path) -> Cluster {
        let directory = tempfile::tempdir_in(scratch).expect("the scratch directory takes files");
        // All are bound at once, so that none is given twice.
        let sockets: Vec<UdpSocket> = (0..REPLICAS)
            .map(|_| UdpSocket::bind("127.0.0.1:0").expect("a free port"))
            .collect();
        let addresses: Vec<_> = (1..=REPLICAS)
            .map(ReplicaId)
            .zip(
                sockets
                    .iter()
                    .map(|socket| socket.local_addr().expect("bound")),
            )
            .collect();
        drop(sockets);
        let ids: Vec<ReplicaId> = addresses.iter().map(|(id, _)| *id).collect();
        let certificates = directory.path().join("certificates");
        make_certificates(&certificates, CLUSTER, &ids, AuthorityKey::Discarded)
            .expect("certificates");
        let mut cluster = Cluster {
            binary: binary.to_owned(),
            flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
            directory,
            addresses,
            replicas: BTreeMap::new(),
        };
        for id in ids {
            std::fs::write(cluster.config(id), cluster.file(id)).expect("a configuration");
            cluster.launch(id, true);
        }
        cluster
    }

    pub async fn connect(&self) -> Client {
        let certificates = self.directory.path().join("certificates");
        let file = |name: &str| certificates.join(name);
        let identity = Identity::load(&file("ca.pem"), &file("client.pem"), &file("client.key"));
        let config = ClientConfig {
            cluster: CLUSTER,
            replicas: self
                .addresses
                .iter()
                .map(|(id, at)| (*id, (*at).into()))
                .collect(),
            resolver: synod_transport::Resolver::default(),
            identity: identity.expect("the client's certificate"),
            deadline: HANG_GUARD,
            outstanding_max: 64,
            mtu_max: 8_952,
            seed: 7,
        };
        Client::connect(config).await.expect("a session")
    }

    /// SIGKILL.
    pub fn kill(&mut self, id: ReplicaId) {
        let mut process = self.replicas.remove(&id).expect("it runs");
        process.child.kill().expect("killed");
        process.child.wait().expect("reaped");
    }

    pub fn restart(&mut self, id: ReplicaId) {
        self.launch(id, false);
    }

    /// Every replica's counters, once all have applied the same slots.
    pub async fn settle(&self, client: &Client) -> Vec<Status> {
        let started = Instant::now();
        loop {
            let mut statuses: Vec<Status> = Vec::new();
            for (id, _) in &self.addresses {
                let status = client.status(*id).await.unwrap_or_default();
                statuses.push(status.into_iter().collect());
            }
            let applied = |status: &Status| status.get("applied").copied();
            let first = applied(&statuses[0]);
            if first.is_some() && statuses.iter().all(|status| applied(status) == first) {
                return statuses;
            }
            assert!(
                started.elapsed() < HANG_GUARD,
                "the replicas never applied the same: {statuses:?}"
            );
            tokio::time::sleep(POLL).await;
        }
    }

    pub fn stop(mut self) {
        let ids: Vec<ReplicaId> = self.replicas.keys().copied().collect();
        ids.into_iter().for_each(|id| self.kill(id));
    }

    fn launch(&mut self, id: ReplicaId, init: bool) {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.directory.path().join(format!("replica-{}.log", id.0)))
            .expect("a log");
        let mut child = Command::new(&self.binary)
            .arg("--config")
            .arg(self.config(id))
            .arg("--exit-with-parent")
            .args(init.then_some("--init"))
            .args(&self.flags)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("the baseline starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("a line");
        assert!(line.starts_with("ready "), "replica {} said `{line}`", id.0);
        let process = Process {
            child,
            _stdout: stdout,
        };
        self.replicas.insert(id, process);
    }

    fn config(&self, id: ReplicaId) -> PathBuf {
        self.directory.path().join(format!("replica-{}.toml", id.0))
    }

    fn file(&self, id: ReplicaId) -> String {
        let n = id.0;
        let (_, listen) = self.addresses[usize::from(n) - 1];
        let peers: String = self
            .addresses
            .iter()
            .map(|(id, address)| format!("{} = \"{address}\"\n", id.0))
            .collect();
        format!(
            "cluster = \"{CLUSTER}\"\nreplica = {n}\nlisten = \"{listen}\"\ndata = \"replica-{n}\"\nseed = {n}\n\
             [peers]\n{peers}\
             [certificates]\nca = \"certificates/ca.pem\"\ncert = \"certificates/replica-{n}.pem\"\n\
             key = \"certificates/replica-{n}.key\"\n"
        )
    }
}

/// Whatever panics, no process stays.
impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
