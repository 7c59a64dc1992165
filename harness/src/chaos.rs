//! `synod chaos`: real replicas under a real load, with their processes killed and stopped, their disks full and the
//! network between them cut, slow and lossy; and then the proof that nobody noticed more than a wait.
//!
//! Everything random comes from the seed: the schedule of faults and what the clients ask for. The times at which real
//! processes react do not.

pub mod arguments;
mod battle;
mod client;
mod damage;
mod disks;
pub mod fault;
mod flood;
mod history;
mod hosts;
mod judge;
mod monitor;
mod network;
mod outcome;
mod plan;
mod processes;
pub mod random;
mod schedule;
mod shared;
mod stalls;
mod table;
mod timeline;
mod victims;
mod wire;

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use synod_simulator::linearizability;
use tokio::task::LocalSet;

use crate::environment::Environment;
use crate::interrupt::{self, Interrupted, unless_interrupted};
use crate::links::proxy::Proxy;
use crate::output::say;
use crate::run::cluster::Cluster;
use crate::run::hosts::HostRecord;
use crate::run::layout::Layout;
use crate::run::progress::{Progress, counted, thousands};
use crate::run::write_json;
use crate::toml_file;
use arguments::ChaosArguments;
use battle::{Field, bombard};
use disks::Disks;
use judge::judge;
use outcome::{Measured, Outcome};
use plan::ChaosPlan;
use timeline::Timeline;
use wire::ProxyWire;

/// What came of a run, wherever it was.
struct Found {
    measured: Measured,
    timeline: Timeline,
    machine: Environment,
    /// Of a run on several machines, each of them.
    hosts: Vec<HostRecord>,
}

pub fn run(arguments: &ChaosArguments) -> anyhow::Result<()> {
    if let Some(path) = &arguments.check {
        return check_file(path);
    }
    let progress = Arc::new(Progress::new());
    let plan = ChaosPlan::new(arguments)?;
    interrupt::listen()?;
    let mut layout = match &plan.inventory {
        None => {
            for left_out in plan.left_out_here() {
                progress.step(&format!("left out: {left_out}"));
            }
            Layout::prepare(&plan.place())?
        }
        Some(path) => {
            let left_out = plan.left_out();
            if !left_out.is_empty() {
                progress.step(&format!("left out on an inventory: {left_out}"));
            }
            Layout::prepare_at(&plan.place(), plan.addresses(path)?)?
        }
    };
    toml_file::write(&layout.results.join("config.toml"), &plan)?;
    progress.step(&format!(
        "seed {} (repeat the schedule with --seed)",
        plan.seed
    ));
    let found = match &plan.inventory {
        None => here(&plan, &layout, &progress),
        Some(inventory) => hosts::perform(&plan, &layout, inventory, &progress),
    };
    progress.clear();
    let found = match found {
        Ok(found) => found,
        Err(error) if error.is::<Interrupted>() => {
            anyhow::bail!("{error:#}: the replicas were killed")
        }
        Err(error) => {
            keep_evidence(&plan, &mut layout, &progress);
            return Err(error);
        }
    };
    let timeline = found.timeline;
    let mut outcome = Outcome::new(&plan, found.machine, &timeline, found.measured);
    outcome.hosts = found.hosts;
    write_json(&layout, "result.json", &outcome)?;
    let said = if arguments.json {
        say!("{}", serde_json::to_string_pretty(&outcome)?)
    } else {
        say!("{}", table::table(&outcome, &timeline))
    };
    if !outcome.ok {
        keep_evidence(&plan, &mut layout, &progress);
        anyhow::bail!("{}", outcome.problems.join("; "));
    }
    progress.step(&format!("results: {}", layout.results.display()));
    said
}

/// On this machine alone.
fn here(plan: &ChaosPlan, layout: &Layout, progress: &Arc<Progress>) -> anyhow::Result<Found> {
    let machine = Environment::look(&layout.data);
    for spoiler in machine.spoilers() {
        progress.step(&format!("warning: {spoiler}"));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no runtime")?;
    let local = LocalSet::new();
    let fighting = experiment(plan, layout, progress);
    let found = local.block_on(&runtime, unless_interrupted(fighting));
    drop(local);
    // A check that still reads must not hold up an interrupted run.
    runtime.shutdown_background();
    let (measured, timeline) = found?;
    Ok(Found {
        measured,
        timeline,
        machine,
        hosts: Vec::new(),
    })
}

async fn experiment(
    plan: &ChaosPlan,
    layout: &Layout,
    progress: &Arc<Progress>,
) -> anyhow::Result<(Measured, Timeline)> {
    // First, so that they go last, after every process that writes there.
    let _disks = Disks::make(layout, &plan.faults, progress)?;
    let proxy = Proxy::bind(&layout.addresses, plan.seed)?;
    for (id, _) in &layout.addresses {
        let file = plan.replica_file(layout, *id, |peer| proxy.address(*id, peer));
        toml_file::write(&layout.replica_config(*id), &file)?;
    }
    let field = Field::new(plan, layout, progress);
    let wire = ProxyWire::new(&proxy);
    let fight = async {
        let replicas = counted(u64::from(plan.replicas), "replica");
        progress.step(&format!("starting {replicas}"));
        let mut cluster = Cluster::start(layout, None).await?;
        let survived = bombard(&field, &mut cluster, &wire).await?;
        Ok((survived, cluster.stop().await?))
    };
    let done = tokio::select! {
        done = fight => done,
        ended = proxy.run() => Err(ended.err().context("the fault proxy ended")?),
    };
    judge(&field, done).await
}

/// Says where to look after a failure. The replicas' disks stay for that.
fn keep_evidence(plan: &ChaosPlan, layout: &mut Layout, progress: &Progress) {
    layout.keep_data();
    progress.step(&format!(
        "seed {} failed; its results: {}; the replicas' data: {}",
        plan.seed,
        layout.results.display(),
        layout.data.display()
    ));
}

/// Checks a history that was recorded before.
fn check_file(path: &Path) -> anyhow::Result<()> {
    let history = history::read(path)?;
    let checked = linearizability::check(&history)
        .map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))?;
    say!(
        "linearizable: {} operations on {} keys, {} of unknown outcome",
        thousands(checked.operations),
        checked.keys,
        checked.open
    )
}
