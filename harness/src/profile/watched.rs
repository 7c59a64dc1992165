//! The replicas of a running cluster, asked from outside how far they are.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use synod_engine::ids::ReplicaId;
use synod_transport::Client;

use crate::certs::parse_cluster;
use crate::client_file::{client_config, replicas};
use crate::load::load_file::LoadFile;
use crate::run::cluster::leader_of;
use crate::run::counters::Status;
use crate::toml_file;

/// Statuses may be this late on a loaded machine.
const STATUS_MAX: Duration = Duration::from_secs(5);

pub struct Watched {
    client: Client,
    pub ids: Vec<ReplicaId>,
}

impl Watched {
    /// Goes by the configuration that the load was given. Needs the runtime that it is used on.
    pub fn of_load(load_file: &Path) -> anyhow::Result<Watched> {
        let file: LoadFile = toml_file::read(load_file)?;
        let cluster = parse_cluster(&file.cluster).map_err(anyhow::Error::msg)?;
        let addresses = replicas(&file.replicas)?;
        let ids = addresses.iter().map(|(id, _)| *id).collect();
        let mut config = client_config(cluster, addresses, file.certificates.load()?)?;
        config.deadline = STATUS_MAX;
        Ok(Watched {
            client: Client::observe(config)?,
            ids,
        })
    }

    pub async fn leader(&self) -> anyhow::Result<Option<ReplicaId>> {
        let mut statuses = BTreeMap::new();
        for id in &self.ids {
            statuses.insert(*id, self.status(*id).await?);
        }
        Ok(leader_of(&statuses))
    }

    /// Commands that `replica` has applied since it started.
    pub async fn applied(&self, replica: ReplicaId) -> anyhow::Result<u64> {
        let applied = self.status(replica).await?.get("applied_commands").copied();
        applied.context("the replica does not tell how many commands it applied")
    }

    pub async fn close(self) {
        self.client.close().await;
    }

    async fn status(&self, replica: ReplicaId) -> anyhow::Result<Status> {
        Ok(self.client.status(replica).await?.into_iter().collect())
    }
}
