//! `external servers`: the processes that make a fresh cluster, as data.
//!
//! Nothing is started here: whoever measures starts the processes itself, so that it knows their ids, can count their
//! CPU and can kill any of them.

mod etcd;
mod nats;
mod zookeeper;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Serialize;
use synod_harness::failure::usage;
use synod_harness::ports;

use crate::cli::{PortsFrom, ServersArguments};
use crate::program::Version;
use crate::system::System;

/// Raised when a key changes its meaning or goes away.
const SCHEMA_VERSION: u32 = 1;

/// What `external servers` prints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Recipe {
    pub schema_version: u32,
    pub system: System,
    /// Of the server.
    pub version: String,
    /// The client library of `external load`.
    pub client: &'static str,
    /// Whether an acknowledgement means that a quorum has synced.
    pub durable: bool,
    pub transport: &'static str,
    pub durability: &'static str,
    pub state_machine: &'static str,
    /// How the system is set up, in one line.
    pub settings: &'static str,
    /// Each condition of a comparison with Synod.
    pub equality: Vec<Equality>,
    /// For `wait`, `leader` and `load`.
    pub addresses: String,
    pub servers: Vec<Server>,
}

/// One condition, and whether it is the same as for Synod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Equality {
    pub what: &'static str,
    pub value: &'static str,
    pub equal: bool,
}

/// One process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Server {
    /// From 1.
    pub id: u8,
    pub program: PathBuf,
    pub arguments: Vec<String>,
    /// On top of what the starter has.
    pub environment: BTreeMap<&'static str, String>,
    /// The process starts in here, and everything it writes is below.
    pub directory: PathBuf,
    pub data_directory: PathBuf,
    pub client_address: SocketAddr,
    /// What was written for it.
    pub files: Vec<PathBuf>,
    #[serde(skip)]
    contents: Vec<(PathBuf, String)>,
}

/// Where the servers of a recipe live.
#[derive(Clone, Debug)]
struct Site {
    directory: PathBuf,
    replicas: u8,
    /// [`PORTS_PER_SERVER`] for each.
    ports: Vec<u16>,
}

/// Before the id in a server's name, where a system has names.
pub const SERVER_NAME: &str = "server-";
/// What a server's clients use, its peers, and (ZooKeeper) elections.
const PORTS_PER_SERVER: usize = 3;

#[derive(Clone, Copy)]
enum Port {
    Client,
    Peer,
    Election,
}

impl Site {
    fn ids(&self) -> impl Iterator<Item = u8> {
        1..=self.replicas
    }

    fn address(&self, id: u8, port: Port) -> SocketAddr {
        let offset = match port {
            Port::Client => 0,
            Port::Peer => 1,
            Port::Election => 2,
        };
        let port = self.ports[(usize::from(id) - 1) * PORTS_PER_SERVER + offset];
        (Ipv4Addr::LOCALHOST, port).into()
    }

    fn home(&self, id: u8) -> PathBuf {
        self.directory.join(id.to_string())
    }

    fn server(&self, id: u8, program: &Path, arguments: Vec<String>) -> Server {
        Server {
            id,
            program: program.to_owned(),
            arguments,
            environment: BTreeMap::new(),
            directory: self.home(id),
            data_directory: self.home(id).join("data"),
            client_address: self.address(id, Port::Client),
            files: Vec::new(),
            contents: Vec::new(),
        }
    }
}

impl Server {
    fn with_file(mut self, path: PathBuf, content: String) -> Server {
        self.files.push(path.clone());
        self.contents.push((path, content));
        self
    }

    fn write(&self) -> anyhow::Result<()> {
        std::fs::create_dir_all(&self.data_directory)
            .with_context(|| format!("{}: cannot be made", self.data_directory.display()))?;
        for (path, content) in &self.contents {
            std::fs::write(path, content)
                .with_context(|| format!("{}: not written", path.display()))?;
        }
        Ok(())
    }
}

pub fn run(arguments: &ServersArguments) -> anyhow::Result<()> {
    // The program first: a system that is missing leaves no trace.
    let recipe = recipe(arguments)?;
    for server in &recipe.servers {
        server.write()?;
    }
    println_json(&recipe)
}

fn recipe(arguments: &ServersArguments) -> anyhow::Result<Recipe> {
    let given = arguments.program.as_deref();
    let directory = std::path::absolute(&arguments.directory).context("no such directory")?;
    let used = std::fs::read_dir(&directory).is_ok_and(|mut entries| entries.next().is_some());
    if used {
        return Err(usage(format!("{} is not empty", directory.display())));
    }
    let site = |ports| Site {
        directory: directory.clone(),
        replicas: arguments.replicas,
        ports,
    };
    let ports = || take_ports(arguments.ports_from, arguments.replicas);
    match arguments.system {
        #[cfg(not(feature = "etcd"))]
        System::Etcd => Err(crate::target::without_etcd()),
        #[cfg(feature = "etcd")]
        System::Etcd => {
            let found = etcd::find(given)?;
            Ok(etcd::recipe(&found, &site(ports()?)))
        }
        System::Zookeeper => {
            let found = zookeeper::find(given)?;
            Ok(zookeeper::recipe(&found, &site(ports()?)))
        }
        System::Nats | System::NatsDefault => {
            let found = nats::find(arguments.system, given)?;
            Ok(nats::recipe(arguments.system, &found, &site(ports()?)))
        }
    }
}

/// An installed server.
struct Found {
    program: PathBuf,
    version: Version,
}

fn assemble(system: System, version: Version, servers: Vec<Server>) -> Recipe {
    let (settings, equality) = match system {
        System::Etcd => (etcd::SETTINGS, etcd::EQUALITY),
        System::Zookeeper => (zookeeper::SETTINGS, zookeeper::EQUALITY),
        System::Nats => (nats::SETTINGS, nats::EQUALITY),
        System::NatsDefault => (nats::SETTINGS_DEFAULT, nats::EQUALITY_DEFAULT),
    };
    let value = |what| {
        let condition = equality.iter().find(|condition| condition.0 == what);
        condition.expect("every system says this").1
    };
    let addresses: Vec<String> = servers
        .iter()
        .map(|server| server.client_address.to_string())
        .collect();
    Recipe {
        schema_version: SCHEMA_VERSION,
        system,
        version: version.to_string(),
        client: system.client(),
        durable: system.durable(),
        transport: "own client",
        durability: value(DURABILITY),
        state_machine: value(STATE_MACHINE),
        settings,
        equality: equality
            .iter()
            .map(|(what, value, equal)| Equality {
                what,
                value,
                equal: *equal,
            })
            .collect(),
        addresses: addresses.join(","),
        servers,
    }
}

/// What, how, and whether it is as with Synod.
type Condition = (&'static str, &'static str, bool);
const DURABILITY: &str = "durability";
const TRANSPORT: &str = "transport and encryption";
const CLIENT_PATH: &str = "client path";
const BATCHING: &str = "batching";
const STATE_MACHINE: &str = "state machine";

/// Ports that nobody has.
fn take_ports(from: PortsFrom, replicas: u8) -> anyhow::Result<Vec<u16>> {
    let count = usize::from(replicas) * PORTS_PER_SERVER;
    let first = match from {
        PortsFrom::Auto => return ports::free(count),
        PortsFrom::First(first) => first.get(),
    };
    let last = usize::from(first) + count - 1;
    let last = u16::try_from(last).map_err(|_| usage("there are not so many ports"))?;
    for port in first..=last {
        TcpListener::bind((Ipv4Addr::LOCALHOST, port))
            .map_err(|error| usage(format!("port {port}: {error}")))?;
    }
    Ok((first..=last).collect())
}

fn println_json(value: &impl Serialize) -> anyhow::Result<()> {
    use std::io::Write;
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    std::io::stdout()
        .lock()
        .write_all(text.as_bytes())
        .context("stdout cannot be written")
}

#[cfg(test)]
mod tests;
