//! The files of one run: results that stay, and data that is removed at the end.
//!
//! ```text
//! results/NAME/  config.toml  environment.json  result.json  latency.hlog  timeline.csv
//!                replica-N.toml  replica-N.log  load.toml  load.log
//! DATA/          owner  certificates/  replica-N/
//! ```

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use synod_engine::ids::{ClusterId, ReplicaId};
use synod_transport::AuthorityKey;

use crate::certs::draw_cluster;
use crate::client_file::{Certificates, addressed};
use crate::failure::usage;
use crate::interrupt;
use crate::links::Emulator;
use crate::load::load_file::{Load, LoadFile};
use crate::output::make_folder;
use crate::own_folder::OwnFolder;
use crate::ports;
use crate::replica_file::{LimitsTable, ReplicaFile, StorageTable};
use crate::run::plan::Plan;
use crate::toml_file;

pub struct Layout {
    pub results: PathBuf,
    pub data: PathBuf,
    pub cluster: ClusterId,
    pub addresses: Vec<(ReplicaId, SocketAddr)>,
    /// `data`. However a run ends, gigabytes of its data go.
    folder: OwnFolder,
}

/// Where a run puts its files.
pub struct Place<'a> {
    pub out: &'a Path,
    /// Of the directory in `out`.
    pub name: &'a str,
    pub data: Option<&'a Path>,
    pub replicas: u8,
    pub keep_data: bool,
}

/// The disk is calm when this many syncs in a row take less than [`CALM_SYNC_MAX`] each.
const CALM_SYNCS: u32 = 2_000;
const CALM_SYNC_MAX: Duration = Duration::from_millis(5);
/// A slow or busy disk is used as it is after this time.
const SETTLE_MAX: Duration = Duration::from_secs(4);

impl Layout {
    /// Makes the directories, certificates and configuration files.
    pub fn create(plan: &Plan) -> anyhow::Result<Layout> {
        let layout = Layout::prepare(&plan.place())?;
        toml_file::write(&layout.results.join("config.toml"), plan)?;
        toml_file::write(&layout.load_config(), &layout.load_file(plan))?;
        for (id, _) in &layout.addresses {
            toml_file::write(&layout.replica_config(*id), &layout.replica_file(plan, *id))?;
        }
        Ok(layout)
    }

    /// Makes the directories and certificates, and finds addresses.
    pub fn prepare(place: &Place<'_>) -> anyhow::Result<Layout> {
        Layout::prepare_at(place, free_addresses(place.replicas)?)
    }

    /// The same for replicas whose addresses are known.
    pub fn prepare_at(
        place: &Place<'_>,
        addresses: Vec<(ReplicaId, SocketAddr)>,
    ) -> anyhow::Result<Layout> {
        let cluster = draw_cluster()?;
        let results = make_results(place)?;
        let folder = make_data(place, &results).inspect_err(|_| {
            // It is empty: the name is free again.
            let _ = std::fs::remove_dir(&results);
        })?;
        let mut layout = Layout {
            data: folder.path().to_owned(),
            results,
            cluster,
            addresses,
            folder,
        };
        if place.keep_data {
            layout.keep_data();
        }
        let ids: Vec<ReplicaId> = layout.addresses.iter().map(|(id, _)| *id).collect();
        // Nobody is added to a run, so the key of its CA is not even written.
        synod_transport::make_certificates(
            &layout.data.join("certificates"),
            layout.cluster,
            &ids,
            AuthorityKey::Discarded,
        )?;
        Ok(layout)
    }

    /// Writes back what a build or an earlier run left in the page cache, so that it does not disturb this run: on
    /// this kind of disk it shows as stalls of 100 ms and more.
    pub fn settle_disk(&self) -> anyhow::Result<()> {
        let directory = std::fs::File::open(&self.data)
            .with_context(|| format!("{} cannot be opened", self.data.display()))?;
        let settle = || -> std::io::Result<()> {
            rustix::fs::syncfs(&directory)?;
            let probe = self.data.join("probe");
            let mut file = std::fs::File::create(&probe)?;
            let started = Instant::now();
            let mut calm = 0;
            // What a removal freed is discarded in the background: it is over when syncs are quick for a while.
            while calm < CALM_SYNCS && started.elapsed() < SETTLE_MAX && !interrupt::is_heard() {
                let before = Instant::now();
                file.write_all(&[0; 4096])?;
                file.sync_data()?;
                calm = if before.elapsed() < CALM_SYNC_MAX {
                    calm + 1
                } else {
                    0
                };
            }
            std::fs::remove_file(&probe)
        };
        settle().with_context(|| format!("{} cannot be synced", self.data.display()))
    }

    /// The data directories stay, as evidence.
    pub fn keep_data(&mut self) {
        self.folder.keep();
    }

    pub fn replica_config(&self, id: ReplicaId) -> PathBuf {
        self.results.join(format!("replica-{}.toml", id.0))
    }

    pub fn replica_log(&self, id: ReplicaId) -> PathBuf {
        self.results.join(format!("replica-{}.log", id.0))
    }

    pub fn replica_data(&self, id: ReplicaId) -> PathBuf {
        self.data.join(format!("replica-{}", id.0))
    }

    pub fn replica_directories(&self) -> Vec<(ReplicaId, PathBuf)> {
        let ids = self.addresses.iter().map(|(id, _)| *id);
        ids.map(|id| (id, self.replica_data(id))).collect()
    }

    pub fn load_config(&self) -> PathBuf {
        self.results.join("load.toml")
    }

    pub fn load_log(&self) -> PathBuf {
        self.results.join("load.log")
    }

    pub fn certificates(&self, name: &str) -> Certificates {
        let directory = self.data.join("certificates");
        Certificates {
            ca: directory.join("ca.pem"),
            cert: directory.join(format!("{name}.pem")),
            key: directory.join(format!("{name}.key")),
            revoked: None,
        }
    }

    pub fn table(&self) -> BTreeMap<String, SocketAddr> {
        self.addresses
            .iter()
            .map(|(id, address)| (id.0.to_string(), *address))
            .collect()
    }

    pub fn replica_file(&self, plan: &Plan, id: ReplicaId) -> ReplicaFile {
        let table = self.table();
        ReplicaFile {
            cluster: self.cluster.to_string(),
            replica: id.0,
            listen: table[&id.0.to_string()],
            data: self.replica_data(id),
            state_machine: plan.state_machine,
            durability: plan.durability,
            backend: plan.backend,
            mtu_max: plan.mtu_max,
            idle_spin_us: None,
            // Different for each replica, so that their back-offs are.
            seed: plan.seed.wrapping_mul(64).wrapping_add(u64::from(id.0)),
            peers: addressed(&table),
            certificates: self.certificates(&format!("replica-{}", id.0)),
            timers: plan.timers(),
            limits: LimitsTable {
                snapshot_distance_bytes: plan.snapshot_distance_bytes,
                ..LimitsTable::default()
            },
            storage: StorageTable::default(),
        }
    }

    /// The replicas find each other by way of `emulator`.
    pub fn route(&self, plan: &Plan, emulator: &Emulator) -> anyhow::Result<()> {
        for (id, _) in &self.addresses {
            let mut file = self.replica_file(plan, *id);
            for (peer, address) in &self.addresses {
                let address = emulator.address(*id, *peer).unwrap_or(*address);
                file.peers.insert(peer.0.to_string(), address.into());
            }
            toml_file::write(&self.replica_config(*id), &file)?;
        }
        Ok(())
    }

    pub fn load_file(&self, plan: &Plan) -> LoadFile {
        let (Load::Closed { clients, .. } | Load::Open { clients, .. }) = plan.load;
        LoadFile {
            cluster: self.cluster.to_string(),
            state_machine: plan.state_machine,
            clients,
            payload_bytes: plan.payload_bytes,
            warmup_s: plan.warmup_s,
            seconds: plan.seconds,
            seed: plan.seed,
            deadline_ms: plan.deadline_ms,
            mtu_max: plan.mtu_max,
            surge: plan.surge,
            out: self.results.clone(),
            load: plan.load,
            part: None,
            replicas: self.table(),
            certificates: self.certificates("client"),
        }
    }
}

/// Data that stays is evidence; the keys with it, the authority's among them, would be a way into nothing but trouble.
impl Drop for Layout {
    fn drop(&mut self) {
        if !self.folder.is_kept() {
            return;
        }
        let certificates = std::fs::read_dir(self.data.join("certificates"));
        let keys = certificates.into_iter().flatten().flatten();
        for key in keys.map(|entry| entry.path()) {
            if key.extension().is_some_and(|extension| extension == "key")
                && let Err(error) = std::fs::remove_file(&key)
            {
                tracing::warn!("{}: not removed: {error}", key.display());
            }
        }
    }
}

/// Results are new: a folder that is there already is never written into.
fn make_results(place: &Place<'_>) -> anyhow::Result<PathBuf> {
    let made = make_folder(place.out).and_then(|out| {
        let path = out.join(place.name);
        std::fs::create_dir(&path).with_context(|| path.display().to_string())?;
        Ok(path)
    });
    made.map_err(|error| usage(format!("--out: {error:#}; results are never overwritten")))
}

/// A folder of our own inside `--data`, so that removing it never removes anything else.
fn make_data(place: &Place<'_>, results: &Path) -> anyhow::Result<OwnFolder> {
    let path = data_folder(place, results);
    if let Some(data) = place.data {
        make_folder(data).map_err(|error| usage(format!("--data: {error:#}")))?;
    }
    OwnFolder::make(&path, &owner(results)).map_err(|error| {
        let remedy = match error.kind() {
            std::io::ErrorKind::AlreadyExists => {
                "; a run removes its data at its end and touches none that it did not make: choose another --name or \
                 --data, or remove it yourself if a killed run left it"
            }
            _ => "",
        };
        usage(format!("--data: {}: {error}{remedy}", path.display()))
    })
}

fn data_folder(place: &Place<'_>, results: &Path) -> PathBuf {
    match place.data {
        Some(data) => data.join(place.name),
        None => results.join("data"),
    }
}

/// Of the data: the run with these results.
fn owner(results: &Path) -> String {
    format!("synod run, results in {}", results.display())
}

/// Removes what a killed run with these results left in `--data`, or beside them.
pub fn reclaim_data(results: &Path, data: Option<&Path>) -> anyhow::Result<()> {
    let results = results
        .canonicalize()
        .with_context(|| results.display().to_string())?;
    let owner = owner(&results);
    if let (Some(data), Some(name)) = (data, results.file_name()) {
        OwnFolder::reclaim(&data.join(name), &owner)?;
    }
    OwnFolder::reclaim(&results.join("data"), &owner)
}

/// The last lines of a log that say why a process ended.
pub fn last_line(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().rev().find(|line| !line.trim().is_empty());
    line.map_or_else(|| "its log is empty".into(), |line| line.trim().to_owned())
}

fn free_addresses(replicas: u8) -> anyhow::Result<Vec<(ReplicaId, SocketAddr)>> {
    let ports = ports::free(usize::from(replicas))?;
    let ids = (1..).map(ReplicaId);
    Ok(ids
        .zip(
            ports
                .into_iter()
                .map(|port| (Ipv4Addr::LOCALHOST, port).into()),
        )
        .collect())
}
