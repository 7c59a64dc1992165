//! What a chaos run is going to do: the flags, checked and completed. Published as `config.toml`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Serialize;
use synod_engine::ids::ReplicaId;
use synod_transport::MTU_MAX_DEFAULT;

use super::arguments::ChaosArguments;
use super::fault::Fault;
use super::schedule::Schedule;
use crate::certs::random_u64;
use crate::cli::{BackendChoice, DurabilityChoice, MachineChoice};
use crate::cluster::inventory::Inventory;
use crate::failure::usage;
use crate::replica_file::{LimitsTable, ReplicaFile, StorageTable, TimersTable};
use crate::run::layout::{Layout, Place};
use crate::run::plan::name;

/// Small, so that a run goes through many segments and recycles none of the effort.
const SEGMENT_BYTES: u64 = 4 << 20;
/// Small for the same reason: a replica that is away for a second or two is beyond the trim floor.
const SNAPSHOT_DISTANCE_BYTES: u64 = 128 << 10;
/// Less than the commands of that distance, each a block of the WAL: what it lacks is no longer in memory either.
const CACHE_BYTES_MAX: usize = 8 << 10;

#[derive(Clone, Debug, Serialize)]
pub struct ChaosPlan {
    pub name: String,
    pub command_line: String,
    pub seconds: u32,
    pub replicas: u8,
    pub clients: u32,
    pub seed: u64,
    pub faults: Vec<Fault>,
    pub out: PathBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<PathBuf>,
    /// The machines to run on, if not this one alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inventory: Option<PathBuf>,
    pub keep_data: bool,
    /// Last, because it is made of tables.
    pub schedule: Schedule,
}

impl ChaosPlan {
    pub fn new(arguments: &ChaosArguments) -> anyhow::Result<ChaosPlan> {
        let seed = match arguments.seed {
            Some(seed) => seed,
            // Short enough to be typed again, and to be an integer in every JSON reader.
            None => random_u64()? % 1_000_000_000,
        };
        let on_hosts = arguments.inventory.is_some();
        let hindrance = |fault: Fault| match on_hosts {
            true => fault.not_on_hosts().map(str::to_owned),
            false => fault.not_here(),
        };
        let possible = |fault: &Fault| hindrance(*fault).is_none();
        let mut faults = match &arguments.faults[..] {
            [] => Fault::ALL.into_iter().filter(possible).collect(),
            chosen => chosen.to_vec(),
        };
        if let Some(refused) = faults.iter().find(|fault| !possible(fault)) {
            let why = hindrance(*refused).unwrap_or_default();
            if !on_hosts {
                return Err(usage(format!("--faults {}: {why}", refused.name())));
            }
            let instead: Vec<String> = Fault::ALL
                .iter()
                .filter(|fault| possible(fault))
                .map(|fault| fault.name())
                .collect();
            return Err(usage(format!(
                "--faults {}: {why}; ask for it without --inventory, or on the hosts for {}",
                refused.name(),
                instead.join(", ")
            )));
        }
        faults.sort_unstable();
        faults.dedup();
        Ok(ChaosPlan {
            name: name("chaos", &arguments.out, arguments.name.as_deref())?,
            command_line: std::env::args().collect::<Vec<_>>().join(" "),
            seconds: arguments.seconds,
            replicas: arguments.replicas,
            clients: arguments.clients,
            seed,
            schedule: Schedule::new(seed, arguments.seconds, &faults)?,
            faults,
            out: arguments.out.clone(),
            data: arguments.data.clone(),
            inventory: arguments.inventory.clone(),
            keep_data: arguments.keep_data,
        })
    }

    /// What is never done on an inventory, by name.
    pub fn left_out(&self) -> String {
        let all = Fault::ALL.iter();
        let names: Vec<String> = all
            .filter(|fault| fault.not_on_hosts().is_some() && !self.faults.contains(fault))
            .map(|fault| fault.name())
            .collect();
        names.join(", ")
    }

    /// What this machine cannot do, and why.
    pub fn left_out_here(&self) -> Vec<String> {
        let all = Fault::ALL.into_iter();
        all.filter_map(|fault| Some(format!("{}: {}", fault.name(), fault.not_here()?)))
            .collect()
    }

    /// Where the replicas of an inventory listen.
    pub fn addresses(&self, inventory: &Path) -> anyhow::Result<Vec<(ReplicaId, SocketAddr)>> {
        let mut inventory = Inventory::read(inventory)?;
        inventory.take_replicas(self.replicas)?;
        let places = inventory.replicas.iter();
        Ok(places.map(|place| (place.id, place.address)).collect())
    }

    pub fn place(&self) -> Place<'_> {
        Place {
            out: &self.out,
            name: &self.name,
            data: self.data.as_deref(),
            replicas: self.replicas,
            keep_data: self.keep_data,
        }
    }

    /// A replica finds each peer where `found_at` says.
    pub fn replica_file(
        &self,
        layout: &Layout,
        id: ReplicaId,
        found_at: impl Fn(ReplicaId) -> SocketAddr,
    ) -> ReplicaFile {
        let mut peers = BTreeMap::new();
        let mut listen = None;
        for (peer, address) in &layout.addresses {
            let at = match *peer == id {
                true => *listen.insert(*address),
                false => found_at(*peer),
            };
            peers.insert(peer.0.to_string(), at.into());
        }
        ReplicaFile {
            cluster: layout.cluster.to_string(),
            replica: id.0,
            listen: listen.expect("the replica is one of the layout's"),
            data: layout.replica_data(id),
            state_machine: MachineChoice::Kv,
            durability: DurabilityChoice::Sync,
            backend: BackendChoice::Auto,
            // The proxy between them carries as much as a network with jumbo frames.
            mtu_max: Some(MTU_MAX_DEFAULT),
            // The cores are needed for everything else.
            idle_spin_us: Some(0),
            seed: self.seed.wrapping_mul(64).wrapping_add(u64::from(id.0)),
            peers,
            certificates: layout.certificates(&format!("replica-{}", id.0)),
            timers: TimersTable::default(),
            limits: LimitsTable {
                snapshot_distance_bytes: Some(SNAPSHOT_DISTANCE_BYTES),
                cache_bytes_max: Some(CACHE_BYTES_MAX),
                ..LimitsTable::default()
            },
            storage: StorageTable {
                segment_bytes: Some(SEGMENT_BYTES),
                ..StorageTable::default()
            },
        }
    }
}
