//! `synod load`: the clients of a run, in a process of their own, so that their cost is known apart.
//!
//! Tells the run how it goes by JSON lines on stdout, and writes `latency.hlog` and `timeline.csv` itself.

mod client_loop;
pub mod conductor;
pub mod event;
pub mod in_flight;
pub mod load_file;
pub mod offering;
pub mod pace;
pub mod publish;
pub mod punctuality;
pub mod recorder;
pub mod schedule;
pub mod surge;
mod surge_watch;
pub mod workload;

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;
use tokio::task::JoinHandle;

pub use crate::verify::ClientAccount;
pub use client_loop::ClientEnd;

use crate::cli::LoadArguments;
use crate::output::say;
use crate::{parent, toml_file};
use client_loop::ClientLoop;
use conductor::Conductor;
use event::{Event, LoadResult, Phase};
use load_file::LoadFile;
use punctuality::Punctuality;
use recorder::Recorder;

/// What all clients of the process share. One thread, so no locks.
pub struct Shared {
    origin: Instant,
    pub recorder: RefCell<Recorder>,
    /// How late this process itself is.
    pub punctuality: RefCell<Punctuality>,
    pub window_start_ns: u64,
    pub window_end_ns: u64,
    /// Set when the window is over: nothing new is submitted.
    pub stopping: Cell<bool>,
    pub stop: tokio::sync::Notify,
    pub outstanding: Cell<u64>,
}

impl Shared {
    /// `origin` is where the clock of the load starts.
    pub fn new(origin: Instant, warmup_s: u32, seconds: u32) -> anyhow::Result<Shared> {
        let window_start_ns = u64::from(warmup_s) * 1_000_000_000;
        let window_end_ns = window_start_ns + u64::from(seconds) * 1_000_000_000;
        Ok(Shared {
            origin,
            recorder: RefCell::new(Recorder::new(window_start_ns, window_end_ns)?),
            punctuality: RefCell::new(Punctuality::new()?),
            window_start_ns,
            window_end_ns,
            stopping: Cell::new(false),
            stop: tokio::sync::Notify::new(),
            outstanding: Cell::new(0),
        })
    }

    pub fn now_ns(&self) -> u64 {
        self.origin.elapsed().as_nanos() as u64
    }
}

pub fn run(arguments: &LoadArguments) -> anyhow::Result<()> {
    let mut file: LoadFile = toml_file::read(&arguments.config)?;
    file.certificates = file.certificates.relative_to(&arguments.config);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no runtime")?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        if file.part.is_some() {
            // The conductor notices by itself when the run is gone.
            return load(file, Some(Conductor::listen())).await;
        }
        tokio::select! {
            result = load(file, None) => result,
            () = parent::gone() => anyhow::bail!("the run that started this load is gone"),
        }
    })
}

async fn load(file: LoadFile, mut conductor: Option<Conductor>) -> anyhow::Result<()> {
    let indices = match file.part {
        Some(part) => part.first_client..part.first_client + part.clients,
        None => 0..file.clients,
    };
    let mut clients = Vec::new();
    for index in indices {
        clients.push(ClientLoop::connect(&file, index).await?);
    }
    tell(&Event::Connected)?;
    let origin = match &mut conductor {
        Some(conductor) => conductor.start().await?,
        None => Instant::now(),
    };
    // A start that is agreed on is a little ahead.
    tokio::time::sleep_until(origin.into()).await;
    let shared = Rc::new(Shared::new(origin, file.warmup_s, file.seconds)?);
    if let Some(surge) = file.surge {
        shared.recorder.borrow_mut().watch(surge);
    }
    let loops = clients
        .into_iter()
        .map(|client| tokio::task::spawn_local(client.run(Rc::clone(&shared))))
        .collect();
    let result = conduct(&shared, loops, &file.out, conductor.as_mut()).await?;
    tell(&Event::Result(Box::new(result)))
}

/// Leads running clients through the window, tells how it goes, writes the files, and adds the books up.
///
/// The clients of other systems (`harness/baselines/external`) come here as well, so that one clock, one recorder and
/// one definition of a gap hold for all. It needs a `LocalSet`, as its clients do.
pub async fn conduct(
    shared: &Rc<Shared>,
    loops: Vec<JoinHandle<ClientEnd>>,
    out: &Path,
    conductor: Option<&mut Conductor>,
) -> anyhow::Result<LoadResult> {
    let progress = tokio::task::spawn_local(report_progress(Rc::clone(shared)));
    let beats = tokio::task::spawn_local(beat(Rc::clone(shared)));
    let (cpu_us, unix_seconds) = measure(shared, conductor).await?;
    beats.abort();
    let mut ends = Vec::new();
    for task in loops {
        ends.push(task.await.context("a client task panicked")?);
    }
    progress.abort();
    shared.recorder.borrow_mut().finish()?;
    publish::write_files(out, &shared.recorder.borrow(), unix_seconds)?;
    let mut result = publish::result(&shared.recorder.borrow(), cpu_us, ends);
    result.silences = shared.recorder.borrow().silences();
    result.generator = shared.punctuality.borrow().generator();
    Ok(result)
}

/// Marks the window's ends in time, and returns the CPU that this process took inside it.
async fn measure(
    shared: &Shared,
    mut conductor: Option<&mut Conductor>,
) -> anyhow::Result<(u64, u64)> {
    sleep_or_stop(shared, shared.window_start_ns, &mut conductor).await?;
    tell(&Event::WindowStart)?;
    shared.punctuality.borrow_mut().begin();
    let unix_seconds = crate::utc::unix_seconds_now();
    let before_us = cpu_us();
    sleep_or_stop(shared, shared.window_end_ns, &mut conductor).await?;
    let cpu_us = cpu_us().saturating_sub(before_us);
    shared.punctuality.borrow_mut().end();
    shared.stopping.set(true);
    shared.stop.notify_waiters();
    tell(&Event::WindowEnd)?;
    Ok((cpu_us, unix_seconds))
}

/// A load that is stopped early has a shorter window, and waits for nothing any more.
async fn sleep_or_stop(
    shared: &Shared,
    at_ns: u64,
    conductor: &mut Option<&mut Conductor>,
) -> anyhow::Result<()> {
    let Some(conducting) = conductor else {
        sleep_until(shared, at_ns).await;
        return Ok(());
    };
    if shared.stopping.get() {
        return Ok(());
    }
    tokio::select! {
        () = sleep_until(shared, at_ns) => return Ok(()),
        stop = conducting.stop() => stop?,
    }
    shared.stopping.set(true);
    shared.recorder.borrow_mut().end_at(shared.now_ns());
    Ok(())
}

async fn sleep_until(shared: &Shared, at_ns: u64) {
    let at = shared.origin + Duration::from_nanos(at_ns);
    tokio::time::sleep_until(at.into()).await;
}

/// Beside the clients, so that it is late when they are.
async fn beat(shared: Rc<Shared>) {
    loop {
        tokio::time::sleep(punctuality::BEAT).await;
        shared.punctuality.borrow_mut().beat();
    }
}

async fn report_progress(shared: Rc<Shared>) {
    let mut before = 0;
    for second in 1.. {
        sleep_until(&shared, second * 1_000_000_000).await;
        let total = shared.recorder.borrow().count_total();
        let second_end_ns = second * 1_000_000_000;
        let event = Event::Progress {
            phase: if second_end_ns <= shared.window_start_ns {
                Phase::Warmup
            } else if second_end_ns <= shared.window_end_ns {
                Phase::Measured
            } else {
                Phase::Draining
            },
            second,
            acknowledged: total - before,
            outstanding: shared.outstanding.get(),
        };
        before = total;
        if tell(&event).is_err() {
            return;
        }
    }
}

/// User and system time of this process.
fn cpu_us() -> u64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1_000
}

/// One line of JSON for whoever started this load.
pub fn tell(event: &impl Serialize) -> anyhow::Result<()> {
    say!("{}", serde_json::to_string(event)?)
        .context("the run that started this load does not listen")
}
