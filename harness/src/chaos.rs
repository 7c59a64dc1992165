//! `synod chaos`: real replicas under a real load, with their processes killed and stopped, their disks full and the
//! network between them cut, slow and lossy; and then the proof that nobody noticed more than a wait.
//!
//! Everything random comes from the seed: the schedule of faults and what the clients ask for. The times at which real
//! processes react do not.

mod client;
mod damage;
pub mod fault;
mod history;
mod monitor;
mod network;
mod outcome;
mod plan;
mod processes;
mod proxy;
mod random;
mod schedule;
mod shared;
mod table;
mod timeline;

use std::path::Path;
use std::rc::Rc;
use std::time::Instant;

use anyhow::Context;
use synod_engine::ids::ReplicaId;
use synod_simulator::linearizability::{self, CheckError, Checked, Operation};
use synod_transport::Client;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::{JoinSet, LocalSet};

use crate::cli::{ChaosArguments, MachineChoice};
use crate::client_file::client_config;
use crate::environment::Environment;
use crate::output::say;
use crate::run::cluster::Cluster;
use crate::run::layout::Layout;
use crate::run::progress::{Progress, thousands};
use crate::run::target::Target;
use crate::run::{check, evidence_of, write_json};
use crate::toml_file;
use crate::verify::{ClientAccount, Evidence};
use client::{ClientEnd, LoadClient};
use fault::Fault;
use monitor::ANSWER_MAX;
use outcome::{Measured, Outcome};
use plan::ChaosPlan;
use processes::Processes;
use proxy::Proxy;
use shared::Shared;
use timeline::Timeline;

pub fn run(arguments: &ChaosArguments) -> anyhow::Result<()> {
    if let Some(path) = &arguments.check {
        return check_file(path);
    }
    let plan = ChaosPlan::new(arguments)?;
    let progress = std::sync::Arc::new(Progress::new());
    let mut layout = Layout::prepare(&plan.place())?;
    toml_file::write(&layout.results.join("config.toml"), &plan)?;
    let environment = Environment::look(&layout.data);
    for spoiler in environment.spoilers() {
        progress.step(&format!("warning: {spoiler}"));
    }
    progress.step(&format!(
        "seed {} (repeat the schedule with --seed)",
        plan.seed
    ));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no runtime")?;
    let local = LocalSet::new();
    let found = local.block_on(&runtime, async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            result = experiment(&plan, &layout, &progress) => {
                anyhow::Ok(Ended::Done(result.map(Box::new)))
            }
            _ = interrupt.recv() => Ok(Ended::Stopped("interrupted")),
            _ = terminate.recv() => Ok(Ended::Stopped("terminated")),
        }
    })?;
    drop(local);
    // A check that still reads must not hold up an interrupted run.
    runtime.shutdown_background();
    progress.clear();
    let (measured, timeline) = match found {
        Ended::Done(Ok(found)) => *found,
        Ended::Done(Err(error)) => {
            keep_evidence(&plan, &mut layout, &progress);
            return Err(error);
        }
        Ended::Stopped(how) => anyhow::bail!("{how}: the replicas were killed"),
    };
    let outcome = Outcome::new(&plan, environment, &timeline, measured);
    write_json(&layout, "result.json", &outcome)?;
    if arguments.json {
        say!("{}", serde_json::to_string_pretty(&outcome)?)?;
    } else {
        say!("{}", table::table(&outcome, &timeline))?;
    }
    if !outcome.ok {
        keep_evidence(&plan, &mut layout, &progress);
        anyhow::bail!("{}", outcome.problems.join("; "));
    }
    progress.step(&format!("results: {}", layout.results.display()));
    Ok(())
}

enum Ended {
    Done(anyhow::Result<Box<(Measured, Timeline)>>),
    Stopped(&'static str),
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

async fn experiment(
    plan: &ChaosPlan,
    layout: &Layout,
    progress: &std::sync::Arc<Progress>,
) -> anyhow::Result<(Measured, Timeline)> {
    let proxy = Proxy::bind(&layout.addresses, plan.seed)?;
    for (id, _) in &layout.addresses {
        let file = plan.replica_file(layout, &proxy, *id);
        toml_file::write(&layout.replica_config(*id), &file)?;
    }
    let shared = Rc::new(Shared::new(plan.seconds));
    let done = tokio::select! {
        done = bombard(plan, layout, &proxy, &shared, progress) => done,
        ended = proxy.run() => Err(ended.err().context("the fault proxy ended")?),
    };
    // What was seen is written down however it ended.
    let history = shared.history.take();
    history::write(&layout.results.join("history.jsonl"), &history)?;
    let mut faults = shared.reports.take();
    faults.sort_by_key(|report| report.from_ms);
    let timeline = Timeline::new(&history, shared.end_ms);
    let leaders = shared.leaders.take();
    let csv = timeline.csv(&faults, &leaders);
    let path = layout.results.join("timeline.csv");
    std::fs::write(&path, csv).with_context(|| format!("{}: not written", path.display()))?;
    let Bombarded {
        backend,
        evidence,
        complaints,
        clients,
    } = done?;
    let started = Instant::now();
    let verdict = check(evidence, progress).await?;
    let verify_seconds = started.elapsed().as_secs_f64();
    let (checked, check_seconds) = check_history(history, progress).await?;
    let measured = Measured {
        backend,
        faults,
        leader_changes: leader_changes(&leaders),
        clients,
        checked,
        check_seconds,
        verdict,
        verify_seconds,
        complaints,
    };
    Ok((measured, timeline))
}

/// What is left of a cluster when its load is over.
struct Bombarded {
    backend: String,
    evidence: Evidence,
    complaints: Vec<String>,
    clients: Vec<ClientEnd>,
}

/// From the start of the replicas to their end.
async fn bombard(
    plan: &ChaosPlan,
    layout: &Layout,
    proxy: &Proxy,
    shared: &Rc<Shared>,
    progress: &Progress,
) -> anyhow::Result<Bombarded> {
    progress.step(&format!("starting {} replicas", plan.replicas));
    let mut cluster = Cluster::start(layout, None).await?;
    let leader = cluster.wait_for_leader().await?;
    let backend = cluster.backend.clone();
    progress.step(&format!(
        "replica {} leads; {} clients, {} s, {} faults",
        leader.0,
        plan.clients,
        plan.seconds,
        plan.schedule.processes.len() + plan.schedule.network.len()
    ));
    shared.start(leader);
    let observer = Rc::new(observer(layout)?);
    let load = load(plan, layout, shared)?;
    let mut processes = Processes {
        cluster,
        layout,
        shared,
    };
    let calm_from_ms = plan.schedule.calm_from_ms;
    let clients = tokio::select! {
        // Both lanes end on their own; the clients may wait for a last reply after that.
        result = async {
            let network = network::run(&plan.schedule.network, calm_from_ms, proxy, plan.replicas, shared);
            let network = async {
                network.await;
                anyhow::Ok(())
            };
            let processes = processes.run(&plan.schedule.processes, calm_from_ms);
            let ((), (), clients) = tokio::try_join!(network, processes, ends(load))?;
            anyhow::Ok(clients)
        } => result?,
        () = monitor::follow(observer, plan.replicas, shared) => unreachable!("it follows for ever"),
        () = monitor::report(shared, progress) => unreachable!("it reports for ever"),
    };
    let mut cluster = processes.cluster;
    progress.step("load done; waiting until all replicas have applied the same slots");
    let (commit_index, hashes) = cluster.settle().await?;
    let complaints = cluster.stop().await?;
    let evidence = Evidence {
        machine: MachineChoice::Kv,
        commit_index,
        replicas: evidence_of(layout, hashes),
        holes: plan.faults.contains(&Fault::Corrupt),
        clients: accounts(&clients),
    };
    Ok(Bombarded {
        backend,
        evidence,
        complaints,
        clients,
    })
}

/// How often another replica led than before.
fn leader_changes(leaders: &[(u64, Option<ReplicaId>)]) -> u64 {
    let mut known: Vec<ReplicaId> = leaders.iter().filter_map(|(_, leader)| *leader).collect();
    known.dedup();
    known.len().saturating_sub(1) as u64
}

fn observer(layout: &Layout) -> anyhow::Result<Client> {
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

fn accounts(clients: &[ClientEnd]) -> Vec<ClientAccount> {
    let accounts = clients.iter().flat_map(|end| end.accounts.iter());
    accounts.copied().collect()
}

/// On a thread of its own, so that ctrl-C is still heard.
async fn check_history(
    history: Vec<Operation>,
    progress: &Progress,
) -> anyhow::Result<(Result<Checked, CheckError>, f64)> {
    progress.step(&format!(
        "checking whether {} operations are linearizable",
        thousands(history.len() as u64)
    ));
    let started = Instant::now();
    let checked = tokio::task::spawn_blocking(move || linearizability::check(&history))
        .await
        .context("the check panicked")?;
    Ok((checked, started.elapsed().as_secs_f64()))
}
