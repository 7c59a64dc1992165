//! `cluster.toml`: the machines of a cluster, and what each is for.

mod families;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use synod_engine::ids::{REPLICAS_MAX, ReplicaId};
use synod_transport::{Address, Family};
use toml::Spanned;

use crate::cluster::cpus::Cpus;
use crate::failure::{one_line, usage};
use crate::run::progress::counted;

/// The first UDP port of the replicas of a host; a second replica of the same host takes the next one.
const PORT_DEFAULT: u16 = 7400;
/// More machines than any experiment here can use.
const HOSTS_MAX: usize = 64;
/// `synod cluster kill leader` names whoever leads.
pub const LEADER: &str = "leader";

/// A checked inventory.
#[derive(Clone, Debug)]
pub struct Inventory {
    pub path: PathBuf,
    /// Names the folder on the hosts and the nftables table, so that two clusters do not touch each other.
    pub name: String,
    /// Used by ssh instead of the user's own configuration.
    pub ssh_config: Option<PathBuf>,
    pub hosts: Vec<HostEntry>,
    pub replicas: Vec<ReplicaPlace>,
}

#[derive(Clone, Debug)]
pub struct HostEntry {
    pub name: String,
    /// Where replicas and clients reach the replicas of this host.
    pub address: IpAddr,
    /// What they listen on there: another address if the host does not have `address` itself.
    pub listen: IpAddr,
    pub connection: Connection,
    pub roles: Vec<Role>,
    /// An existing directory; everything of ours is in a folder of our own inside it.
    pub data: PathBuf,
    pub cpus: Option<Cpus>,
    pub interface: Option<String>,
    /// The UDP ports of its replicas; of a host without replicas the one that round trips are measured on.
    pub ports: Vec<u16>,
}

/// How commands get to a host.
#[derive(Clone, Debug)]
pub enum Connection {
    /// It is this machine.
    Local,
    Ssh {
        target: String,
        /// `None`: what the user's ssh configuration says.
        port: Option<u16>,
        user: Option<String>,
        identity: Option<PathBuf>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Replica,
    Client,
}

/// Which host a replica runs on, and where it is found.
#[derive(Clone, Debug)]
pub struct ReplicaPlace {
    pub id: ReplicaId,
    /// An index into [`Inventory::hosts`].
    pub host: usize,
    pub address: SocketAddr,
    /// The same by the name that the inventory gives, so that the host may move.
    pub advertised: Address,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InventoryFile {
    name: Option<String>,
    port: Option<u16>,
    ssh_config: Option<PathBuf>,
    #[serde(default)]
    host: Vec<Spanned<HostFile>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HostFile {
    name: String,
    address: String,
    listen: Option<IpAddr>,
    #[serde(default)]
    connection: ConnectionKind,
    ssh: Option<SshFile>,
    roles: Vec<Role>,
    replicas: Option<u8>,
    data: PathBuf,
    cpus: Option<String>,
    interface: Option<String>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ConnectionKind {
    Local,
    #[default]
    Ssh,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct SshFile {
    address: Option<String>,
    port: Option<u16>,
    user: Option<String>,
    identity: Option<PathBuf>,
}

impl Inventory {
    /// Every mistake names the file and, where it has one, its line.
    pub fn read(path: &Path) -> anyhow::Result<Inventory> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            let path = path.display();
            usage(format!(
                "{path}: cannot be read: {error}; `synod cluster --help` shows an inventory"
            ))
        })?;
        Inventory::parse(path, &text).map_err(|mistake| {
            let line = mistake.at.map_or(String::new(), |at| {
                let before = text.get(..at).unwrap_or("");
                format!(":{}", before.matches('\n').count() + 1)
            });
            usage(format!("{}{line}: {}", path.display(), mistake.text))
        })
    }

    fn parse(path: &Path, text: &str) -> Result<Inventory, Mistake> {
        let file: InventoryFile = toml::from_str(text).map_err(|error| Mistake {
            at: error.span().map(|span| span.start),
            text: one_line(error.message()),
        })?;
        let stem = path.file_stem().and_then(|stem| stem.to_str());
        let name = file.name.as_deref().or(stem).unwrap_or("cluster");
        check_name("name", name)?;
        let base = path.parent().unwrap_or(Path::new("."));
        let port = file.port.unwrap_or(PORT_DEFAULT);
        let mut inventory = Inventory {
            path: path.to_owned(),
            name: name.to_owned(),
            ssh_config: file.ssh_config.map(|config| base.join(home(&config))),
            hosts: Vec::new(),
            replicas: Vec::new(),
        };
        let addresses = families::resolve(&file.host)?;
        for (host, address) in file.host.into_iter().zip(addresses) {
            let at = host.span().start;
            let entry = host.into_inner();
            inventory
                .add(entry, address, base, port)
                .map_err(|mistake| mistake.at(at))?;
        }
        inventory.check()?;
        Ok(inventory)
    }

    fn add(
        &mut self,
        file: HostFile,
        address: IpAddr,
        base: &Path,
        port: u16,
    ) -> Result<(), Mistake> {
        check_name("name of a host", &file.name)?;
        let name = &file.name;
        if self.hosts.iter().any(|other| other.name == *name) {
            return Err(
                format!("there are two hosts named `{name}`: give each its own name").into(),
            );
        }
        let replicas = replica_count(&file)?;
        // Hosts that are one machine share its ports.
        let taken: usize = self
            .hosts
            .iter()
            .filter(|other| other.address == address)
            .map(|other| other.ports.len())
            .sum();
        let ports = (0..usize::from(replicas.max(1)))
            .map(|nth| u16::try_from(usize::from(port) + taken + nth))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| {
                Mistake::from(format!("port = {port} leaves no room: choose a lower one"))
            })?;
        for port in ports.iter().take(usize::from(replicas)) {
            let id = ReplicaId(u8::try_from(self.replicas.len() + 1).unwrap_or(u8::MAX));
            self.replicas.push(ReplicaPlace {
                id,
                host: self.hosts.len(),
                address: SocketAddr::new(address, *port),
                advertised: Address::of_host(&file.address, *port)?,
            });
        }
        if !file.data.is_absolute() {
            return Err(format!(
                "data = {:?}: must be an absolute path on host {name}",
                file.data
            )
            .into());
        }
        let listen = file.listen.unwrap_or(address);
        if !Family::of_listener(listen).reaches(SocketAddr::new(address, port)) {
            let remedy = "listen = \"::\" is for both";
            return Err(
                format!("listen = \"{listen}\" of host {name} is of another address family than {address}: {remedy}").into(),
            );
        }
        self.hosts.push(HostEntry {
            address,
            listen,
            connection: connection(&file, base)?,
            cpus: match &file.cpus {
                Some(text) => {
                    Some(Cpus::parse(text).map_err(|error| format!("cpus = \"{text}\": {error}"))?)
                }
                None => None,
            },
            name: file.name,
            roles: file.roles,
            data: file.data,
            interface: file.interface,
            ports,
        });
        Ok(())
    }

    fn check(&self) -> Result<(), Mistake> {
        if self.hosts.is_empty() {
            return Err("there is no host: add a [[host]] table for each machine"
                .to_owned()
                .into());
        }
        if self.hosts.len() > HOSTS_MAX {
            return Err(format!(
                "{} hosts are too many: at most {HOSTS_MAX}",
                self.hosts.len()
            )
            .into());
        }
        if self.replicas.is_empty() {
            let remedy = "give at least one host roles = [\"replica\"]";
            return Err(format!("no host carries a replica: {remedy}").into());
        }
        if self.replicas.len() > usize::from(REPLICAS_MAX) {
            let count = self.replicas.len();
            return Err(format!("{count} replicas are too many: at most {REPLICAS_MAX}").into());
        }
        Ok(())
    }

    /// The hosts of a role, in the order of the file.
    pub fn with_role(&self, role: Role) -> Vec<usize> {
        (0..self.hosts.len())
            .filter(|index| self.hosts[*index].roles.contains(&role))
            .collect()
    }

    /// Leaves the first `count` replicas.
    pub fn take_replicas(&mut self, count: u8) -> anyhow::Result<()> {
        let there = self.replicas.len();
        if there < usize::from(count) {
            let path = self.path.display();
            let there = counted(there as u64, "replica");
            return Err(usage(format!(
                "--replicas {count}: {path} has hosts for {there}; add hosts, or ask for fewer"
            )));
        }
        self.replicas.truncate(usize::from(count));
        Ok(())
    }

    /// The hosts that carry a replica or play clients.
    pub fn used_hosts(&self) -> Vec<usize> {
        let carries = |index: usize| self.replicas.iter().any(|place| place.host == index);
        let plays = |index: usize| self.hosts[index].roles.contains(&Role::Client);
        (0..self.hosts.len())
            .filter(|index| carries(*index) || plays(*index))
            .collect()
    }

    /// The index of the host named `name`.
    pub fn host(&self, name: &str) -> anyhow::Result<usize> {
        let found = self.hosts.iter().position(|host| host.name == name);
        found.ok_or_else(|| {
            let names: Vec<&str> = self.hosts.iter().map(|host| &*host.name).collect();
            let path = self.path.display();
            usage(format!(
                "there is no host `{name}` in {path}: it has {}",
                names.join(", ")
            ))
        })
    }
}

fn connection(file: &HostFile, base: &Path) -> Result<Connection, Mistake> {
    match (file.connection, &file.ssh) {
        (ConnectionKind::Local, None) => Ok(Connection::Local),
        (ConnectionKind::Local, Some(_)) => Err(
            "connection = \"local\" needs no ssh table: remove one of them"
                .to_owned()
                .into(),
        ),
        (ConnectionKind::Ssh, ssh) => {
            let nothing = SshFile::default();
            let ssh = ssh.as_ref().unwrap_or(&nothing);
            let target = ssh.address.as_ref().unwrap_or(&file.address);
            if target.starts_with('-') {
                return Err(format!("ssh address `{target}` looks like a flag").into());
            }
            Ok(Connection::Ssh {
                target: target.clone(),
                port: ssh.port,
                user: ssh.user.clone(),
                identity: ssh.identity.as_ref().map(|path| base.join(home(path))),
            })
        }
    }
}

fn replica_count(file: &HostFile) -> Result<u8, Mistake> {
    let name = &file.name;
    let distinct: BTreeSet<u8> = file.roles.iter().map(|role| *role as u8).collect();
    if file.roles.is_empty() || distinct.len() != file.roles.len() {
        return Err(
            format!("roles of host {name}: \"replica\", \"client\" or both, each once").into(),
        );
    }
    match (file.roles.contains(&Role::Replica), file.replicas) {
        (true, Some(0)) => {
            Err(format!("replicas = 0 of host {name}: drop the role instead").into())
        }
        (true, count) => Ok(count.unwrap_or(1)),
        (false, None) => Ok(0),
        (false, Some(_)) => {
            Err(format!("host {name} has replicas but not the role \"replica\"").into())
        }
    }
}

/// Names become parts of file names, unit names and shell words.
fn check_name(what: &str, name: &str) -> Result<(), Mistake> {
    let plain = name
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
    if name.is_empty() || name.len() > 32 || !plain || name.starts_with('-') {
        return Err(format!("{what} `{name}`: up to 32 letters, digits, `-` and `_`").into());
    }
    if name == LEADER {
        return Err(format!("{what} `{name}`: that word means whichever host leads").into());
    }
    Ok(())
}

/// `~/` as the shell reads it.
fn home(path: &Path) -> PathBuf {
    match (path.strip_prefix("~"), std::env::home_dir()) {
        (Ok(rest), Some(home)) => home.join(rest),
        (Ok(_), None) | (Err(_), _) => path.to_owned(),
    }
}

/// What is wrong with an inventory, and at which byte of the file.
#[derive(Debug)]
struct Mistake {
    at: Option<usize>,
    text: String,
}

impl Mistake {
    fn at(self, at: usize) -> Mistake {
        Mistake {
            at: Some(self.at.unwrap_or(at)),
            text: self.text,
        }
    }
}

impl From<String> for Mistake {
    fn from(text: String) -> Mistake {
        Mistake { at: None, text }
    }
}

#[cfg(test)]
mod tests;
