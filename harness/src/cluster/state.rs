//! What is remembered of a started cluster between two commands: a folder next to the inventory.
//!
//! ```text
//! NAME.state/  state.json  client.toml  certificates/
//! ```

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};
use synod_engine::ids::ClusterId;
use synod_transport::AuthorityKey;

use crate::client_file::{Certificates, ClientFile};
use crate::cluster::inventory::Inventory;
use crate::failure::usage;
use crate::toml_file;

/// Where the state of a cluster is, if there is any.
pub struct State {
    folder: PathBuf,
}

/// `state.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Started {
    pub name: String,
    pub cluster: String,
    pub replicas: BTreeMap<String, SocketAddr>,
}

impl State {
    pub fn place(inventory: &Inventory, given: Option<&Path>) -> State {
        let name = format!("{}.state", inventory.name);
        let default = || inventory.path.parent().unwrap_or(Path::new("")).join(name);
        State {
            folder: given.map_or_else(default, Path::to_owned),
        }
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// `None` if the cluster is not up.
    pub fn read(&self) -> anyhow::Result<Option<Started>> {
        let path = self.folder.join("state.json");
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| path.display().to_string()),
        };
        let started = serde_json::from_str(&text)
            .map_err(|error| usage(format!("{}: is not ours: {error}", path.display())))?;
        Ok(Some(started))
    }

    /// Makes the folder with the certificates and the configuration of a client.
    pub fn make(
        &self,
        inventory: &Inventory,
        cluster: ClusterId,
        authority_key: AuthorityKey,
    ) -> anyhow::Result<Started> {
        std::fs::create_dir(&self.folder).map_err(|error| {
            let folder = self.folder.display();
            let remedy = "`synod cluster down` removes what is left of an earlier cluster, or choose another --state";
            usage(format!("{folder}: cannot be made: {error}; {remedy}"))
        })?;
        let ids: Vec<_> = inventory.replicas.iter().map(|place| place.id).collect();
        synod_transport::make_certificates(&self.certificates(), cluster, &ids, authority_key)?;
        let replicas = replica_table(inventory);
        let client = ClientFile {
            cluster: cluster.to_string(),
            deadline_ms: None,
            replicas: replicas.clone(),
            certificates: Certificates {
                ca: "certificates/ca.pem".into(),
                cert: "certificates/client.pem".into(),
                key: "certificates/client.key".into(),
                revoked: None,
            },
        };
        toml_file::write(&self.folder.join("client.toml"), &client)?;
        Ok(Started {
            name: inventory.name.clone(),
            cluster: cluster.to_string(),
            replicas,
        })
    }

    /// From now on the cluster is up.
    pub fn write(&self, started: &Started) -> anyhow::Result<()> {
        let path = self.folder.join("state.json");
        std::fs::write(&path, serde_json::to_string_pretty(started)?)
            .with_context(|| format!("{}: cannot be written", path.display()))
    }

    pub fn certificates(&self) -> PathBuf {
        self.folder.join("certificates")
    }

    /// Removes what [`State::make`] and [`State::write`] made, and nothing else that somebody put there.
    pub fn remove(&self) -> anyhow::Result<()> {
        if !self.folder.exists() {
            return Ok(());
        }
        let gone = |result: std::io::Result<()>| match result {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        };
        let remove = || {
            gone(std::fs::remove_file(self.folder.join("state.json")))?;
            gone(std::fs::remove_file(self.folder.join("client.toml")))?;
            gone(std::fs::remove_dir_all(self.certificates()))?;
            std::fs::remove_dir(&self.folder)
        };
        remove().with_context(|| format!("{}: cannot be removed", self.folder.display()))
    }
}

/// Every replica's address, by its id.
pub fn replica_table(inventory: &Inventory) -> BTreeMap<String, SocketAddr> {
    let places = inventory.replicas.iter();
    places
        .map(|place| (place.id.0.to_string(), place.address))
        .collect()
}
