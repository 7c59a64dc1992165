//! The load and the faults at the same time, from the first operation to the calm at the end.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use anyhow::Context;
use synod_engine::ids::{ReplicaId, Slot};
use synod_transport::Client;
use tokio::task::JoinSet;

use super::client::{ClientEnd, LoadClient};
use super::flood;
use super::monitor::{self, ANSWER_MAX};
use super::network;
use super::plan::ChaosPlan;
use super::processes::Processes;
use super::shared::Shared;
use super::victims::Victims;
use super::wire::Wire;
use crate::client_file::client_config;
use crate::run::cluster::settle;
use crate::run::layout::Layout;
use crate::run::progress::Progress;

/// What everybody on it knows.
pub struct Field<'a> {
    pub plan: &'a ChaosPlan,
    pub layout: &'a Layout,
    pub progress: &'a Arc<Progress>,
    pub shared: Rc<Shared>,
}

impl<'a> Field<'a> {
    pub fn new(plan: &'a ChaosPlan, layout: &'a Layout, progress: &'a Arc<Progress>) -> Field<'a> {
        Field {
            plan,
            layout,
            progress,
            shared: Rc::new(Shared::new(plan.seconds)),
        }
    }
}

/// A cluster whose load is over, and in which all replicas have applied the same.
pub struct Survived {
    pub backend: String,
    pub commit_index: Slot,
    /// Each replica's hash of its state at the commit index.
    pub hashes: BTreeMap<ReplicaId, u64>,
    pub clients: Vec<ClientEnd>,
}

/// Needs a `LocalSet`, because the clients share one book.
pub async fn bombard(
    field: &Field<'_>,
    cluster: &mut impl Victims,
    wire: &impl Wire,
) -> anyhow::Result<Survived> {
    let Field {
        plan,
        layout,
        progress,
        shared,
    } = field;
    let leader = cluster.wait_for_leader().await?;
    let backend = cluster.backend();
    progress.step(&format!(
        "replica {} leads; {} clients, {} s, {} faults",
        leader.0,
        plan.clients,
        plan.seconds,
        plan.schedule.processes.len() + plan.schedule.network.len()
    ));
    let observer = Rc::new(observer(layout)?);
    shared.start(leader);
    let load = load(plan, layout, shared)?;
    let identity = layout.certificates("client").load()?;
    let flooding = client_config(layout.cluster, layout.addresses.clone(), identity)?;
    let calm_from_ms = plan.schedule.calm_from_ms;
    let mut processes = Processes {
        cluster: &mut *cluster,
        layout,
        shared,
    };
    let (clients, questions) = tokio::select! {
        // Both lanes end on their own; the clients may wait for a last reply after that.
        result = async {
            let network = network::run(&plan.schedule.network, calm_from_ms, wire, &layout.addresses, shared);
            let processes = processes.run(&plan.schedule.processes, calm_from_ms);
            let flood = async { anyhow::Ok(flood::run(flooding, shared).await) };
            let ((), (), clients, questions) =
                tokio::try_join!(network, processes, ends(load), flood)?;
            anyhow::Ok((clients, questions))
        } => result?,
        () = monitor::follow(observer, plan.replicas, shared) => unreachable!("it follows for ever"),
        () = monitor::report(shared, progress) => unreachable!("it reports for ever"),
    };
    anyhow::ensure!(questions > 0, "no replica took a question for its status");
    progress.step(&format!(
        "{questions} questions for the status beside the load"
    ));
    progress.step("load done; waiting until all replicas have applied the same slots");
    let (commit_index, hashes) = settle(cluster).await?;
    Ok(Survived {
        backend,
        commit_index,
        hashes,
        clients,
    })
}

/// A client that only asks how replicas are.
pub fn observer(layout: &Layout) -> anyhow::Result<Client> {
    let identity = layout.certificates("client").load()?;
    let mut config = client_config(layout.cluster, layout.addresses.clone(), identity)?;
    config.deadline = ANSWER_MAX;
    Ok(Client::observe(config)?)
}

fn load(
    plan: &ChaosPlan,
    layout: &Layout,
    shared: &Rc<Shared>,
) -> anyhow::Result<JoinSet<anyhow::Result<ClientEnd>>> {
    let identity = layout.certificates("client").load()?;
    let mut clients = JoinSet::new();
    for index in 0..plan.clients {
        let config = client_config(layout.cluster, layout.addresses.clone(), identity.clone())?;
        let client = LoadClient::new(index, config, plan.seed, Rc::clone(shared));
        clients.spawn_local(client.run());
    }
    Ok(clients)
}

async fn ends(mut load: JoinSet<anyhow::Result<ClientEnd>>) -> anyhow::Result<Vec<ClientEnd>> {
    let mut ends = Vec::new();
    while let Some(end) = load.join_next().await {
        ends.push(end.context("a client panicked")??);
    }
    Ok(ends)
}
