//! `synod run`: a whole experiment. Starts a cluster and a load, does the faults, measures, checks, reports.

pub mod cluster;
pub mod counters;
mod faults;
pub mod layout;
mod load_process;
mod outcome;
pub mod plan;
pub mod process;
pub mod progress;
pub mod table;

use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use synod_engine::ids::{ReplicaId, Slot};
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::RunArguments;
use crate::environment::Environment;
use crate::load::event::LoadResult;
use crate::output::say;
use crate::verify::{self, Evidence, ReplicaEvidence, Verdict};
use cluster::Cluster;
use counters::{Status, WindowCounters};
use faults::FaultReport;
use layout::Layout;
use load_process::LoadProcess;
use outcome::{Measured, Outcome};
use plan::Plan;
use progress::{Progress, thousands};

pub fn run(arguments: &RunArguments) -> anyhow::Result<()> {
    let plan = Plan::new(arguments)?;
    let progress = Arc::new(Progress::new());
    let layout = Layout::create(&plan)?;
    let environment = Environment::look(&layout.data);
    for spoiler in environment.spoilers() {
        progress.step(&format!("warning: {spoiler}"));
    }
    write_json(&layout, "environment.json", &environment)?;
    progress.step("letting the disk finish what others left it");
    layout.settle_disk()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no runtime")?;
    let measured = runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            result = experiment(&plan, &layout, &progress) => result,
            _ = interrupt.recv() => anyhow::bail!("interrupted: the replicas and the load were killed"),
            _ = terminate.recv() => anyhow::bail!("terminated: the replicas and the load were killed"),
        }
    });
    // A check that still reads gigabytes must not hold up an interrupted run.
    runtime.shutdown_background();
    progress.clear();
    let outcome = Outcome::new(&plan, environment, measured?);
    write_json(&layout, "result.json", &outcome)?;
    if arguments.json {
        say!("{}", serde_json::to_string_pretty(&outcome)?)?;
    } else {
        say!("{}", table::table(&plan, &outcome))?;
    }
    progress.step(&format!("results: {}", layout.results.display()));
    anyhow::ensure!(outcome.ok, "{}", outcome.problems.join("; "));
    Ok(())
}

async fn experiment(
    plan: &Plan,
    layout: &Layout,
    progress: &Arc<Progress>,
) -> anyhow::Result<Measured> {
    progress.step(&format!("starting {} replicas", plan.replicas));
    let mut cluster = Cluster::start(layout, plan.replica_program.as_ref()).await?;
    let leader = cluster.wait_for_leader().await?;
    progress.step(&format!(
        "replica {} leads; {}",
        leader.0,
        plan.load.label()
    ));
    let backend = cluster.backend.clone();
    let (load, counters, faults) = measure(plan, layout, &mut cluster, progress).await?;
    progress.step("load done; waiting until all replicas have applied the same slots");
    let (commit_index, hashes) = cluster.settle().await?;
    let complaints = cluster.stop().await?;
    let evidence = Evidence {
        machine: plan.state_machine,
        commit_index,
        replicas: evidence_of(layout, hashes),
        holes: false,
        clients: load.accounts.clone(),
    };
    let started = Instant::now();
    let verdict = check(evidence, progress).await?;
    let verify_seconds = started.elapsed().as_secs_f64();
    progress.step(&format!(
        "checked {} commands in {verify_seconds:.1} s",
        thousands(verdict.executed)
    ));
    Ok(Measured {
        backend,
        load,
        counters,
        faults,
        verdict,
        verify_seconds,
        complaints,
    })
}

/// From the first command of the load to its last reply.
async fn measure(
    plan: &Plan,
    layout: &Layout,
    cluster: &mut Cluster<'_>,
    progress: &Arc<Progress>,
) -> anyhow::Result<(LoadResult, Status, Vec<FaultReport>)> {
    let mut load = LoadProcess::start(layout, Arc::clone(progress))?;
    load.window_start().await?;
    let window_start = tokio::time::Instant::now();
    let mut window = WindowCounters::default();
    window.begin(&cluster.statuses().await?);
    let mut faults = Vec::new();
    if let Some(fault) = plan.fault {
        faults.push(faults::inject(fault, window_start, cluster, &mut window, progress).await?);
    }
    load.window_end().await?;
    cluster.check().await?;
    let counters = window.end(&cluster.statuses().await?);
    Ok((load.result().await?, counters, faults))
}

pub fn evidence_of(
    layout: &Layout,
    hashes: std::collections::BTreeMap<ReplicaId, u64>,
) -> Vec<ReplicaEvidence> {
    hashes
        .into_iter()
        .map(|(replica, state_hash)| ReplicaEvidence {
            replica,
            directory: layout.replica_data(replica),
            state_hash,
        })
        .collect()
}

/// On a thread of its own, so that ctrl-C is still heard.
pub async fn check(evidence: Evidence, progress: &Arc<Progress>) -> anyhow::Result<Verdict> {
    let progress = Arc::clone(progress);
    let Slot(slots) = evidence.commit_index;
    progress.step(&format!(
        "checking {} slots on every disk",
        thousands(slots)
    ));
    tokio::task::spawn_blocking(move || {
        verify::check(&evidence, &mut |text| progress.live(&format!("  {text}")))
    })
    .await
    .context("the check panicked")?
}

pub fn write_json<T: serde::Serialize>(
    layout: &Layout,
    name: &str,
    value: &T,
) -> anyhow::Result<()> {
    let path = layout.results.join(name);
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    std::fs::write(&path, text).with_context(|| format!("{}: not written", path.display()))
}
