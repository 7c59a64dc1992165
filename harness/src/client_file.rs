//! Where a cluster is and who we are: `client.toml`, or the same by flags.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use synod_engine::ids::{ClusterId, ReplicaId};
use synod_transport::{Address, ClientConfig, Identity, Resolver, Revoked, mtu_of_paths};

use crate::certs::{parse_cluster, random_u64};
use crate::client::arguments::ClientArguments;
use crate::failure::usage;
use crate::toml_file;

const DEADLINE_MS_DEFAULT: u64 = 10_000;
/// Commands in flight of a client that says nothing about it.
const OUTSTANDING_MAX_DEFAULT: u32 = 1_024;

/// Paths of PEM files; relative ones count from the directory of the file that names them.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certificates {
    pub ca: PathBuf,
    pub cert: PathBuf,
    pub key: PathBuf,
    /// Fingerprints of certificates that are not trusted any more; `revoked.txt` beside `ca` if nothing is said, and
    /// then it need not be there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<PathBuf>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientFile {
    pub cluster: String,
    pub deadline_ms: Option<u64>,
    pub replicas: BTreeMap<String, Address>,
    pub certificates: Certificates,
}

impl Certificates {
    pub fn relative_to(&self, file: &Path) -> Certificates {
        let directory = file.parent().unwrap_or(Path::new("."));
        Certificates {
            ca: directory.join(&self.ca),
            cert: directory.join(&self.cert),
            key: directory.join(&self.key),
            revoked: self.revoked.as_ref().map(|path| directory.join(path)),
        }
    }

    pub fn load(&self) -> anyhow::Result<Identity> {
        let identity = Identity::load(&self.ca, &self.cert, &self.key).map_err(usage)?;
        let revoked = match (&self.revoked, self.revoked_file()) {
            (None, path) if !path.exists() => Revoked::default(),
            (_, path) => Revoked::read(&path).map_err(usage)?,
        };
        Ok(identity.with_revoked(revoked))
    }

    pub fn revoked_file(&self) -> PathBuf {
        let beside = || self.ca.with_file_name("revoked.txt");
        self.revoked.clone().unwrap_or_else(beside)
    }
}

/// `{"1" = "127.0.0.1:7001", …}` as ids and addresses, in order.
pub fn replicas<A: Clone + Into<Address>>(
    table: &BTreeMap<String, A>,
) -> anyhow::Result<Vec<(ReplicaId, Address)>> {
    let mut replicas = Vec::new();
    for (id, address) in table {
        replicas.push((replica_id(id)?, address.clone().into()));
    }
    replicas.sort_by_key(|(id, _)| *id);
    Ok(replicas)
}

/// For a file of those that may name hosts.
pub fn addressed(table: &BTreeMap<String, SocketAddr>) -> BTreeMap<String, Address> {
    let each = table.iter();
    each.map(|(id, address)| (id.clone(), (*address).into()))
        .collect()
}

pub fn replica_id(text: &str) -> anyhow::Result<ReplicaId> {
    match text.parse::<u8>() {
        Ok(id) if (1..=synod_engine::ids::REPLICAS_MAX).contains(&id) => Ok(ReplicaId(id)),
        Ok(_) | Err(_) => Err(usage(format!(
            "`{text}` is not a replica id: 1 to {}",
            synod_engine::ids::REPLICAS_MAX
        ))),
    }
}

/// Puts file and flags together; a flag wins.
pub fn resolve(arguments: &ClientArguments) -> anyhow::Result<ClientConfig> {
    let file: Option<ClientFile> = match &arguments.config {
        Some(path) => {
            let mut file: ClientFile = toml_file::read(path)?;
            file.certificates = file.certificates.relative_to(path);
            Some(file)
        }
        None => None,
    };
    let certificates = file.as_ref().map(|file| &file.certificates);
    let path = |flag: &Option<PathBuf>, name: &str, of_file: Option<&PathBuf>| {
        flag.clone()
            .or_else(|| of_file.cloned())
            .ok_or_else(|| usage(format!("--{name} is missing (or --config with it)")))
    };
    let certificates = Certificates {
        ca: path(&arguments.ca, "ca", certificates.map(|c| &c.ca))?,
        cert: path(&arguments.cert, "cert", certificates.map(|c| &c.cert))?,
        key: path(&arguments.key, "key", certificates.map(|c| &c.key))?,
        revoked: certificates.and_then(|c| c.revoked.clone()),
    };
    let cluster = arguments
        .cluster
        .as_ref()
        .or(file.as_ref().map(|file| &file.cluster))
        .ok_or_else(|| usage("--cluster is missing (or --config with it)"))?;
    let replicas = if arguments.replicas.is_empty() {
        replicas(
            &file
                .as_ref()
                .map(|file| file.replicas.clone())
                .unwrap_or_default(),
        )?
    } else {
        arguments
            .replicas
            .iter()
            .map(|text| replica_flag(text))
            .collect::<anyhow::Result<_>>()?
    };
    if replicas.is_empty() {
        return Err(usage(
            "--replica ID=HOST:PORT is missing (or --config with it)",
        ));
    }
    let deadline_ms = arguments
        .deadline_ms
        .or(file.as_ref().and_then(|file| file.deadline_ms))
        .unwrap_or(DEADLINE_MS_DEFAULT);
    let cluster = parse_cluster(cluster).map_err(usage)?;
    let mut config = client_config(cluster, replicas, certificates.load()?)?;
    config.deadline = Duration::from_millis(deadline_ms);
    Ok(config)
}

/// A client of its own: its token is random, because no two clients may share one.
pub fn client_config<A: Into<Address>>(
    cluster: ClusterId,
    replicas: Vec<(ReplicaId, A)>,
    identity: Identity,
) -> anyhow::Result<ClientConfig> {
    let each = replicas.into_iter();
    let replicas: Vec<_> = each.map(|(id, at)| (id, at.into())).collect();
    // Where a name leads is not known yet.
    let known = replicas.iter().filter_map(|(_, at)| at.socket());
    Ok(ClientConfig {
        cluster,
        mtu_max: mtu_of_paths(known),
        replicas,
        resolver: Resolver::default(),
        identity,
        deadline: Duration::from_millis(DEADLINE_MS_DEFAULT),
        outstanding_max: OUTSTANDING_MAX_DEFAULT,
        seed: random_u64()?,
    })
}

fn replica_flag(text: &str) -> anyhow::Result<(ReplicaId, Address)> {
    let (id, address) = text
        .split_once('=')
        .ok_or_else(|| usage(format!("--replica {text}: expected ID=HOST:PORT")))?;
    let address = address
        .parse()
        .map_err(|error| usage(format!("--replica {text}: {error}")))?;
    Ok((replica_id(id)?, address))
}
