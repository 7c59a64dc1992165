//! `synod cluster`: a cluster on several machines, named in an inventory.

pub mod answer;
pub mod arguments;
mod check;
pub mod collect;
pub mod cpus;
mod down;
pub mod findings;
pub mod fleet;
pub mod folder;
pub mod host;
pub mod inventory;
pub mod network;
mod owner;
pub mod replicas;
pub mod server;
pub mod ssh;
mod state;
mod status;
pub mod table;
mod up;

use anyhow::Context;

use crate::failure::{describe, usage};
use crate::interrupt::{self, unless_interrupted};
use arguments::{ClusterArguments, ClusterCommand};
use fleet::Fleet;
use inventory::Inventory;
use state::State;

pub fn run(arguments: &ClusterArguments) -> anyhow::Result<()> {
    let inventory = Inventory::read(&arguments.inventory)?;
    let state = State::place(&inventory, arguments.state.as_deref());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no runtime")?;
    runtime.block_on(command(arguments, &inventory, &state))
}

async fn command(
    arguments: &ClusterArguments,
    inventory: &Inventory,
    state: &State,
) -> anyhow::Result<()> {
    let json = arguments.json;
    match &arguments.command {
        ClusterCommand::Check => check::run(inventory, json).await,
        ClusterCommand::Up(up) => up::up(inventory, state, up, json).await,
        ClusterCommand::Status => status::run(inventory, state, json).await,
        ClusterCommand::Kill { host } => up::kill(inventory, state, host).await,
        ClusterCommand::Restart { host } => up::restart(inventory, state, host).await,
        ClusterCommand::Partition {
            first,
            second,
            duration,
        } => network::partition(inventory, state, first, second, *duration).await,
        ClusterCommand::Heal => network::heal(inventory).await,
        ClusterCommand::Logs { host, lines } => {
            collect::logs(inventory, state, host.as_deref(), *lines).await
        }
        ClusterCommand::Collect { out, wal } => collect::run(inventory, state, out, *wal).await,
        ClusterCommand::Down { force } => down::down(inventory, state, *force).await,
    }
}

/// Connects to hosts, does `work` with all of them, and cleans up after it: also when it fails or is interrupted.
pub async fn with<T>(
    inventory: &Inventory,
    wanted: &[usize],
    work: impl AsyncFnOnce(&Fleet) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    with_reached(inventory, wanted, async |fleet, errors| {
        match errors.is_empty() {
            true => work(fleet).await,
            false => Err(fleet::all_of(errors)),
        }
    })
    .await
}

/// The same with those hosts that are reached; `work` is told why others were not.
pub async fn with_reached<T>(
    inventory: &Inventory,
    wanted: &[usize],
    work: impl AsyncFnOnce(&Fleet, Vec<anyhow::Error>) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    interrupt::listen()?;
    let (fleet, errors) = unless_interrupted(Fleet::reach(inventory, wanted)).await?;
    let done = unless_interrupted(work(&fleet, errors)).await;
    let left = fleet.finish().await;
    if left.is_empty() {
        return done;
    }
    let left: Vec<String> = left.iter().map(describe).collect();
    let left = format!("not everything was removed: {}", left.join("; "));
    match done {
        Ok(_) => Err(anyhow::anyhow!(left)),
        Err(error) => Err(error.context(left)),
    }
}

/// Every host that carries a replica.
fn replica_hosts(inventory: &Inventory) -> Vec<usize> {
    inventory.with_role(inventory::Role::Replica)
}

/// Every host.
fn all_hosts(inventory: &Inventory) -> Vec<usize> {
    (0..inventory.hosts.len()).collect()
}

fn not_up(inventory: &Inventory) -> anyhow::Error {
    usage(format!(
        "cluster `{}` is not up: `synod cluster up` starts it",
        inventory.name
    ))
}
