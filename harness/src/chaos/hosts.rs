//! `synod chaos --inventory`: the replicas run on hosts, the clients here. Packets are lost in the hosts' own filters.

use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use synod_engine::ids::ReplicaId;
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep};

use super::Found;
use super::battle::{Field, bombard, observer};
use super::fault::Fault;
use super::judge::judge;
use super::plan::ChaosPlan;
use super::schedule::Planned;
use super::victims::Victims;
use super::wire::Wire;
use crate::cluster::fleet::Fleet;
use crate::cluster::inventory::{Inventory, Role};
use crate::cluster::replicas::placed;
use crate::cluster::with;
use crate::failure::describe;
use crate::links::proxy::Weather;
use crate::probe::protocol::{Paused, Stopped};
use crate::run::hosts::filter::{Filter, LOSS_PPM, Strike};
use crate::run::hosts::remote::{Cuts, Programs, RemoteCluster};
use crate::run::hosts::{prepare, records, replica_parcels};
use crate::run::layout::Layout;
use crate::run::progress::{Progress, counted};

/// A replica that is ready answers within this time.
const REACHED_MAX: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(50);

/// Does a whole run on the machines of an inventory; the layout is here.
pub fn perform(
    plan: &ChaosPlan,
    layout: &Layout,
    inventory: &Path,
    progress: &Arc<Progress>,
) -> anyhow::Result<Found> {
    let mut inventory = Inventory::read(inventory)?;
    inventory.take_replicas(plan.replicas)?;
    let mut wanted = inventory.with_role(Role::Replica);
    wanted.retain(|index| inventory.replicas.iter().any(|place| place.host == *index));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no runtime")?;
    let local = LocalSet::new();
    let mut done = None;
    let field = Field::new(plan, layout, progress);
    let finished = local.block_on(
        &runtime,
        with(&inventory, &wanted, async |fleet| {
            done = Some(experiment(&field, &inventory, fleet).await?);
            Ok(())
        }),
    );
    drop(local);
    // A check that still reads must not hold up an interrupted run.
    runtime.shutdown_background();
    match (done, finished) {
        (Some(found), Ok(())) => Ok(found),
        // Whatever could not be cleaned up afterwards, what was found is kept.
        (Some(mut found), Err(error)) => {
            found.measured.complaints.push(describe(&error));
            Ok(found)
        }
        (None, Err(error)) => Err(error),
        (None, Ok(())) => anyhow::bail!("the run ended without a result"),
    }
}

async fn experiment(
    field: &Field<'_>,
    inventory: &Inventory,
    fleet: &Fleet,
) -> anyhow::Result<Found> {
    let Field {
        plan,
        layout,
        progress,
        ..
    } = field;
    let name = format!("synod-run-{}", plan.name);
    let replicas = placed(fleet, inventory, &name)?;
    let count = fleet.connected().len() as u64;
    progress.step(&format!("preparing {}", counted(count, "host")));
    let programs = Arc::new(Programs::own()?);
    let looked = prepare(fleet, &name, &programs).await?;
    let hosts = records(progress, fleet, looked, &replicas, &[])?;
    let table = layout.table();
    let found_at = |peer: ReplicaId| table[&peer.0.to_string()];
    let file_of = |id| plan.replica_file(layout, id, found_at);
    replica_parcels(layout, &replicas, file_of)?
        .deliver(layout)
        .await?;
    let filter = match plan.schedule.network.is_empty() {
        true => Filter::none(),
        false => Filter::make(fleet, inventory, &replicas, &plan.name).await?,
    };
    let starting = counted(u64::from(plan.replicas), "replica");
    progress.step(&format!("starting {starting}"));
    let wire = FilterWire {
        filter,
        before: Cell::new(0),
    };
    // The faults are ours to do, and not those of a run.
    let none = Cuts::none();
    let mut cluster = RemoteCluster::start(layout, &programs, replicas, Vec::new(), none).await?;
    let done = async {
        reach(layout).await?;
        let survived = bombard(field, &mut cluster, &wire).await?;
        let complaints = cluster.stop().await?;
        progress.step("fetching the WALs of all hosts");
        cluster.fetch().await?;
        Ok((survived, complaints))
    };
    let done = done.await;
    if done.is_err() {
        progress.step("fetching what the disks have");
        if let Err(error) = cluster.rescue().await {
            progress.step(&format!("warning: {}", describe(&error)));
        }
    }
    let (measured, timeline) = judge(field, done).await?;
    let first = hosts.first().context("there is a host")?;
    Ok(Found {
        measured,
        timeline,
        machine: first.facts.environment.clone(),
        hosts,
    })
}

/// The clients are in this process: fails unless every replica answers it.
async fn reach(layout: &Layout) -> anyhow::Result<()> {
    let client = observer(layout)?;
    for (id, address) in &layout.addresses {
        let since = Instant::now();
        while let Err(error) = client.status(*id).await {
            anyhow::ensure!(
                since.elapsed() < REACHED_MAX,
                "replica {} at {address} does not answer here ({error}): the clients of `synod chaos` run on this \
                 machine; start it where UDP gets to the hosts' addresses, such as on one of them",
                id.0
            );
            sleep(POLL).await;
        }
    }
    client.close().await;
    Ok(())
}

/// The packet filters of the hosts.
struct FilterWire {
    filter: Filter,
    /// What was dropped when the fault began.
    before: Cell<u64>,
}

impl Wire for FilterWire {
    async fn set(
        &self,
        links: &[(ReplicaId, ReplicaId)],
        weather: Weather,
        max: Duration,
    ) -> anyhow::Result<()> {
        let strike = match (weather.cut, weather.loss_ppm) {
            (true, _) => Strike::Cut,
            (false, LOSS_PPM) => Strike::Loss,
            (false, _) => anyhow::bail!("a packet filter cannot make {weather:?}"),
        };
        self.before.set(self.filter.dropped().await?);
        self.filter.strike(links, strike, max).await
    }

    async fn heal(&self) -> anyhow::Result<()> {
        self.filter.heal().await
    }

    async fn evidence(&self, _fault: Fault) -> anyhow::Result<(u64, String)> {
        let count = self.filter.dropped().await?;
        let count = count.saturating_sub(self.before.get());
        Ok((count, format!("{count} packets dropped")))
    }
}

impl Victims for RemoteCluster<'_> {
    async fn kill_and_see(&mut self, victims: &[ReplicaId]) -> anyhow::Result<(bool, String)> {
        let ends = self.kill_all(victims).await?;
        let killed = ends.iter().all(|end| *end == Stopped::Killed);
        let names: Vec<&str> = ends
            .iter()
            .map(|end| match end {
                Stopped::Killed => "SIGKILL",
                Stopped::ByItself => "itself",
                Stopped::NotRunning | Stopped::GoesOn => "something else",
            })
            .collect();
        Ok((killed, format!("ended by {}", names.join(", "))))
    }

    async fn stop_for(
        &mut self,
        victim: ReplicaId,
        lasts: Duration,
    ) -> anyhow::Result<(bool, String)> {
        let Paused { stopped, still } = self.pause_for(victim, lasts).await?;
        let evidence = format!(
            "seen stopped: {stopped}, and {} ms later: {still}",
            lasts.as_millis()
        );
        Ok((stopped && still, evidence))
    }

    async fn harm_disk(
        &mut self,
        planned: &Planned,
        _victim: ReplicaId,
    ) -> anyhow::Result<(bool, String)> {
        let why = planned
            .fault
            .not_on_hosts()
            .unwrap_or("it is no fault of a disk");
        anyhow::bail!("{}: {why}", planned.fault.name())
    }
}
