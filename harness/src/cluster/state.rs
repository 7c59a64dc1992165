//! What is remembered of a started cluster between two commands: a folder next to the inventory.
//!
//! ```text
//! NAME.state/  owner  state.json  client.toml  certificates/
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};
use synod_engine::ids::ClusterId;
use synod_transport::{Address, AuthorityKey};

use crate::client_file::{Certificates, ClientFile};
use crate::cluster::inventory::Inventory;
use crate::cluster::owner::whoami;
use crate::failure::usage;
use crate::log::note;
use crate::toml_file;

/// In the folder, from the first moment on: it is one of ours.
const OWNER: &str = "owner";

/// Where the state of a cluster is, if there is any.
pub struct State {
    folder: PathBuf,
    /// Who would make it.
    who: String,
}

/// `state.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Started {
    pub name: String,
    pub cluster: String,
    pub replicas: BTreeMap<String, Address>,
}

impl State {
    pub fn place(inventory: &Inventory, given: Option<&Path>) -> State {
        let name = format!("{}.state", inventory.name);
        let default = || inventory.path.parent().unwrap_or(Path::new("")).join(name);
        State {
            folder: given.map_or_else(default, Path::to_owned),
            who: whoami(inventory),
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
        let owner = self.folder.join(OWNER);
        std::fs::write(&owner, format!("{}\n", self.who))
            .with_context(|| format!("{}: cannot be written", owner.display()))?;
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

    /// Removes what [`State::make`] and [`State::write`] made, and nothing else that somebody put there: a folder that
    /// does not say that it is ours is left as it is.
    pub fn remove(&self) -> anyhow::Result<()> {
        if !self.folder.exists() {
            return Ok(());
        }
        // Those of earlier versions have no such file, but a state.
        if !self.folder.join(OWNER).is_file() && self.read().ok().flatten().is_none() {
            note!(
                "{}: is no state of ours and was left alone",
                self.folder.display()
            );
            return Ok(());
        }
        self.remove_ours().with_context(|| {
            let folder = self.folder.display();
            format!("{folder}: cannot be removed; if it holds files of yours, move them away")
        })
    }

    fn remove_ours(&self) -> std::io::Result<()> {
        let certificates = self.certificates();
        if certificates.is_dir() {
            for entry in std::fs::read_dir(&certificates)? {
                let path = entry?.path();
                let ours = path
                    .extension()
                    .is_some_and(|end| end == "pem" || end == "key");
                if ours {
                    gone(std::fs::remove_file(path))?;
                }
            }
            gone(std::fs::remove_dir(&certificates))?;
        }
        // The last one goes last: until then the rest can be removed by another attempt.
        for name in ["client.toml", "state.json", OWNER] {
            gone(std::fs::remove_file(self.folder.join(name)))?;
        }
        std::fs::remove_dir(&self.folder)
    }
}

/// What is not there need not be removed.
fn gone(result: std::io::Result<()>) -> std::io::Result<()> {
    match result {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Every replica's address, by its id.
pub fn replica_table(inventory: &Inventory) -> BTreeMap<String, Address> {
    let places = inventory.replicas.iter();
    places
        .map(|place| (place.id.0.to_string(), place.advertised.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_not_ours_is_left_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let state = State {
            folder: directory.path().join("x"),
            who: "me".into(),
        };
        let certificates = state.certificates();
        std::fs::create_dir_all(&certificates).unwrap();
        let key = certificates.join("ca.key");
        std::fs::write(&key, "precious").unwrap();
        // Whatever lies in the place of the state.
        for text in [None, Some("{}"), Some("not even JSON")] {
            if let Some(text) = text {
                std::fs::write(state.folder.join("state.json"), text).unwrap();
            }
            state.remove().unwrap();
            assert!(key.exists(), "{text:?}");
        }
        std::fs::write(state.folder.join(OWNER), "me\n").unwrap();
        std::fs::write(certificates.join("notes.txt"), "mine").unwrap();
        assert!(state.remove().is_err());
        assert!(certificates.join("notes.txt").exists() && !key.exists());
        std::fs::remove_file(certificates.join("notes.txt")).unwrap();
        state.remove().unwrap();
        assert!(!state.folder.exists());
    }
}
