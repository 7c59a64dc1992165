//! `synod run`: a whole experiment. Starts a cluster and a load, does the faults, measures, checks, reports.

pub mod cluster;
pub mod counters;
mod external;
pub mod fault;
mod faults;
pub mod hosts;
mod impact;
pub mod layout;
pub mod load_process;
pub mod minutes;
pub mod outcome;
pub mod plan;
pub mod process;
pub mod progress;
pub mod spoiled;
pub mod table;
pub mod target;
pub mod usage;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use synod_engine::ids::{ReplicaId, Slot};

use crate::cli::RunArguments;
use crate::environment::Environment;
use crate::failure::describe;
use crate::interrupt::{self, Interrupted, unless_interrupted};
use crate::links::Emulator;
use crate::load::event::LoadResult;
use crate::output::say;
use crate::results::Timeline;
use crate::system::Family;
use crate::verify::{self, Evidence, ReplicaEvidence, Verdict};
use cluster::{Cluster, Program};
use counters::{Status, WindowCounters};
use external::External;
use faults::FaultReport;
use layout::Layout;
use load_process::LoadProcess;
use minutes::{Minute, Watch};
use outcome::{Measured, Outcome};
use plan::Plan;
use progress::{Progress, counted, thousands};
use spoiled::Witness;
use target::{Conclusion, Target};

/// How soon the end of a process on another machine is noticed.
const WATCH_EVERY: Duration = Duration::from_millis(200);

pub fn run(arguments: &RunArguments) -> anyhow::Result<()> {
    let progress = Arc::new(Progress::new());
    let plan = Plan::find(arguments, &progress)?;
    let outcome = perform(&plan, &progress)?;
    let said = if arguments.json {
        say!("{}", serde_json::to_string_pretty(&outcome)?)
    } else {
        say!("{}", table::table(&plan, &outcome))
    };
    progress.step(&format!("results: {}", plan.out.join(&plan.name).display()));
    anyhow::ensure!(outcome.ok, "{}", outcome.problems.join("; "));
    // Whoever does not listen must not hide that the run failed.
    said
}

/// A signal ended the run.
#[derive(Debug, thiserror::Error)]
#[error("{0}: the replicas and the load were killed")]
pub struct Stopped(&'static str);

/// Does a whole run and writes its results.
pub fn perform(plan: &Plan, progress: &Arc<Progress>) -> anyhow::Result<Outcome> {
    if let Some(inventory) = &plan.inventory {
        return hosts::perform(plan, inventory, progress);
    }
    interrupt::listen()?;
    let layout = Layout::create(plan)?;
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
    let measuring = start_and_measure(plan, &layout, progress);
    let measured = runtime.block_on(unless_interrupted(measuring));
    // A check that still reads gigabytes must not hold up an interrupted run.
    runtime.shutdown_background();
    progress.clear();
    let outcome = Outcome::new(plan, environment, measured.map_err(stopped)?);
    write_json(&layout, "result.json", &outcome)?;
    Ok(outcome)
}

/// As the caller of a run expects an interruption.
fn stopped(error: anyhow::Error) -> anyhow::Error {
    match error.downcast_ref::<Interrupted>() {
        Some(Interrupted(word)) => Stopped(word).into(),
        None => error,
    }
}

async fn start_and_measure(
    plan: &Plan,
    layout: &Layout,
    progress: &Arc<Progress>,
) -> anyhow::Result<Measured> {
    let subject = &plan.subject;
    progress.step(&format!(
        "starting {} of {}",
        counted(u64::from(plan.replicas), "replica"),
        subject.label()
    ));
    let program = match (
        subject.system.family(subject.transport),
        subject.program.as_deref(),
    ) {
        (Family::External, Some(adapter)) => {
            let servers = External::start(layout, plan, adapter).await?;
            return experiment(plan, layout, servers, progress).await;
        }
        (Family::Product | Family::Baseline | Family::External, None) => None,
        (Family::Product | Family::Baseline, Some(path)) => Some(Program {
            path,
            transport: subject.transport,
        }),
    };
    let emulator = match plan.emulator_file(layout.table()) {
        Some(file) => Some(Emulator::start(&layout.results, &file).await?),
        None => None,
    };
    if let Some(emulator) = &emulator {
        layout.route(plan, emulator)?;
    }
    let cluster = Cluster::start(layout, program).await?;
    let cluster = cluster.with_links(emulator);
    experiment(plan, layout, cluster, progress).await
}

async fn experiment(
    plan: &Plan,
    layout: &Layout,
    mut target: impl Target,
    progress: &Arc<Progress>,
) -> anyhow::Result<Measured> {
    let leader = target.wait_for_leader().await?;
    progress.step(&format!(
        "replica {} leads; {}",
        leader.0,
        plan.load.label()
    ));
    let backend = target.backend();
    let Window {
        load,
        minutes,
        counters,
        mut faults,
    } = measure(plan, layout, &mut target, progress).await?;
    let timeline = layout.results.join("timeline.csv");
    if !faults.is_empty() && timeline.is_file() {
        let rows = Timeline::parse(&timeline, &std::fs::read(&timeline)?)?.acknowledged;
        match load.silences.is_empty() {
            true => impact::judge(&mut faults, &impact::silent_intervals(&rows), &rows),
            false => impact::judge(&mut faults, &load.silences, &rows),
        }
        // Adapters of other systems tell the longest gap only, and that exactly.
        if let ([fault], true) = (&mut faults[..], load.silences.is_empty()) {
            fault.gap_ms = Some(load.longest_gap_ms);
        }
    }
    let conclusion = match load.incomplete {
        None => target.conclude(plan, &load, progress).await?,
        Some(_) => Conclusion::unchecked(),
    };
    Ok(Measured {
        backend,
        load,
        minutes,
        counters,
        faults,
        conclusion,
    })
}

/// What was seen of a load.
struct Window {
    load: LoadResult,
    minutes: Vec<Minute>,
    counters: Status,
    faults: Vec<FaultReport>,
}

/// From the first command of the load to its last reply.
async fn measure(
    plan: &Plan,
    layout: &Layout,
    target: &mut impl Target,
    progress: &Arc<Progress>,
) -> anyhow::Result<Window> {
    // On other machines nobody of ours is idle beside the load.
    let witness = match plan.inventory {
        None => Some(Witness::start().context("no thread beside the load")?),
        Some(_) => None,
    };
    let mut load = target.start_load(progress)?;
    let mut faults = Vec::new();
    let mut watch = None;
    let found = window(
        plan,
        layout,
        target,
        &mut load,
        &mut faults,
        &mut watch,
        progress,
    )
    .await;
    let (mut load, counters) = match found {
        Ok(counters) => (load.result().await?, counters),
        // What was measured up to here is kept, if the load can tell.
        Err(error) => match load.stop(describe(&error)).await? {
            Some(result) => (result, Status::new()),
            None => return Err(error),
        },
    };
    if let (Some(generator), Some(witness)) = (&mut load.generator, witness) {
        let stood_ms = generator.without(&witness.end());
        if stood_ms > 0.0 {
            progress.step(&format!(
                "warning: the machine stood still for {stood_ms:.0} ms in all, the system under test with it"
            ));
        }
        // They are of a clock that means nothing to a reader.
        generator.pauses.clear();
    }
    let minutes = watch.map_or_else(Vec::new, |watch: Watch| watch.finish(&load.minutes));
    Ok(Window {
        load,
        minutes,
        counters,
        faults,
    })
}

/// The measured window, with what is done in it. Returns what the replicas counted.
async fn window(
    plan: &Plan,
    layout: &Layout,
    target: &mut impl Target,
    load: &mut LoadProcess,
    faults: &mut Vec<FaultReport>,
    watch: &mut Option<Watch>,
    progress: &Arc<Progress>,
) -> anyhow::Result<Status> {
    let watching = load.can_stop();
    unless_ended(load.window_start(), target, watching).await?;
    let window_start = tokio::time::Instant::now();
    // Other machines are not seen from here.
    let directories = match plan.inventory {
        None => layout.replica_directories(),
        Some(_) => Vec::new(),
    };
    *watch = Some(Watch::start(directories));
    let mut window = WindowCounters::default();
    window.begin(&target.statuses(&target.replicas()).await?);
    let asked = &plan.faults;
    faults::inject(asked, window_start, target, &mut window, faults, progress).await?;
    unless_ended(load.window_end(), target, watching).await?;
    target.check().await?;
    Ok(window.end(&target.statuses(&target.replicas()).await?))
}

/// Waits for `milestone`, and no longer if a replica ends meanwhile that nobody killed.
async fn unless_ended(
    milestone: impl Future<Output = anyhow::Result<()>>,
    target: &mut impl Target,
    watching: bool,
) -> anyhow::Result<()> {
    tokio::pin!(milestone);
    loop {
        tokio::select! {
            reached = &mut milestone => return reached,
            () = tokio::time::sleep(WATCH_EVERY), if watching => target.check().await?,
        }
    }
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
