//! Clients on several machines as one load: they begin together, are watched together, and give one result.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;

use crate::cluster::folder::Folder;
use crate::failure::describe;
use crate::load::event::{Event, LoadResult, Order};
use crate::run::hosts::merge::{PartFiles, merge};
use crate::run::load_process::{LoadProcess, show};
use crate::run::process::Process;
use crate::run::progress::Progress;

/// The start is this far ahead when it is set: every machine has heard of it by then.
const START_AHEAD: Duration = Duration::from_millis(500);
const CLOCK_EXCHANGES: usize = 16;

/// One machine's clients.
pub struct Part {
    pub process: Process,
    pub folder: Folder,
}

/// What a part said, or why it ended.
type Said = (usize, anyhow::Result<Event>);

/// Follows all parts; the results go to `results`.
pub fn follow(parts: Vec<Part>, results: PathBuf, progress: Arc<Progress>) -> LoadProcess {
    let (milestones, receiver) = unbounded_channel();
    let (stop, stopped) = unbounded_channel();
    let follower = tokio::spawn(async move {
        let folders: Vec<Folder> = parts.iter().map(|part| part.folder.clone()).collect();
        let mut parts = parts;
        let uncertainty = begin_together(&mut parts).await?;
        progress.step("the clients are connected, warming up");
        let mut ensemble = Ensemble::new(parts, milestones, progress);
        ensemble.play(stopped).await?;
        let mut result = ensemble.result(&folders, &results).await?;
        result.start_uncertainty_us = Some(uncertainty.as_nanos() as f64 / 1e3);
        // Nobody listens any more if the run was given up.
        let _ = ensemble.milestones.send(Event::Result(Box::new(result)));
        Ok(())
    });
    LoadProcess::several(receiver, follower, stop)
}

async fn event(part: &mut Part) -> anyhow::Result<Event> {
    match part.process.line().await? {
        Some(line) => serde_json::from_str(&line)
            .with_context(|| format!("the load said `{line}`, which is no event")),
        None => Err(part.process.end().await),
    }
}

async fn order(part: &mut Part, order: Order) -> anyhow::Result<()> {
    part.process.tell(&serde_json::to_string(&order)?).await
}

/// Sets the same start on every machine's own clock. Returns how exactly that is known.
async fn begin_together(parts: &mut [Part]) -> anyhow::Result<Duration> {
    for part in &mut *parts {
        while !matches!(event(part).await?, Event::Connected) {}
    }
    let origin = Instant::now();
    let mut offsets = Vec::new();
    for part in &mut *parts {
        offsets.push(offset(part, origin).await?);
    }
    let start_ns = (origin.elapsed() + START_AHEAD).as_nanos() as i128;
    let mut uncertainty = Duration::ZERO;
    for (part, (offset_ns, uncertain)) in parts.iter_mut().zip(offsets) {
        let at_ns = u64::try_from(start_ns + offset_ns).unwrap_or(0);
        order(part, Order::Start { at_ns }).await?;
        uncertainty = uncertainty.max(uncertain);
    }
    Ok(uncertainty)
}

/// How far a machine's clock is ahead of ours, in nanoseconds, and give or take what: as NTP does it, the quickest
/// exchange counts.
async fn offset(part: &mut Part, origin: Instant) -> anyhow::Result<(i128, Duration)> {
    let mut best: Option<(i128, Duration)> = None;
    for _ in 0..CLOCK_EXCHANGES {
        let before = origin.elapsed();
        order(part, Order::Clock).await?;
        let now_ns = loop {
            if let Event::Clock { now_ns } = event(part).await? {
                break now_ns;
            }
        };
        let after = origin.elapsed();
        let half = (after - before) / 2;
        let offset_ns = i128::from(now_ns) - (before + half).as_nanos() as i128;
        if best.is_none_or(|(_, quickest)| half < quickest) {
            best = Some((offset_ns, half));
        }
    }
    best.context("no exchange")
}

/// The parts while they play.
struct Ensemble {
    said: UnboundedReceiver<Said>,
    orders: Vec<UnboundedSender<Order>>,
    states: Vec<State>,
    milestones: UnboundedSender<Event>,
    progress: Arc<Progress>,
    window_started: bool,
    window_ended: bool,
    /// Why the load ends early.
    incomplete: Option<String>,
    /// Dropping it kills the processes.
    _tasks: JoinSet<()>,
}

#[derive(Default)]
struct State {
    in_window: bool,
    behind_window: bool,
    /// Acknowledged, and outstanding, in the last second that it told of.
    second: Option<(u64, u64, u64)>,
    result: Option<Box<LoadResult>>,
    lost: bool,
}

impl State {
    fn is_done(&self) -> bool {
        self.lost || self.result.is_some()
    }
}

impl Ensemble {
    fn new(
        parts: Vec<Part>,
        milestones: UnboundedSender<Event>,
        progress: Arc<Progress>,
    ) -> Ensemble {
        let (sender, said) = unbounded_channel();
        let mut tasks = JoinSet::new();
        let (mut orders, mut states) = (Vec::new(), Vec::new());
        for (index, part) in parts.into_iter().enumerate() {
            let (to_part, receiver) = unbounded_channel();
            tasks.spawn(relay(index, part, receiver, sender.clone()));
            orders.push(to_part);
            states.push(State::default());
        }
        Ensemble {
            said,
            orders,
            states,
            milestones,
            progress,
            window_started: false,
            window_ended: false,
            incomplete: None,
            _tasks: tasks,
        }
    }

    /// Until every part has given its result or is lost.
    async fn play(&mut self, mut stopped: UnboundedReceiver<String>) -> anyhow::Result<()> {
        while !self.states.iter().all(State::is_done) {
            tokio::select! {
                Some(reason) = stopped.recv() => self.stop(reason),
                said = self.said.recv() => {
                    let (index, said) = said.context("the parts of the load are gone")?;
                    self.hear(index, said);
                }
            }
        }
        // Whoever waits for a milestone gets it, even of a window that never came.
        self.tell_milestones(true);
        Ok(())
    }

    fn stop(&mut self, reason: String) {
        if self.incomplete.is_none() {
            self.progress.step(&format!("ending early: {reason}"));
            self.incomplete = Some(reason);
        }
        for orders in &self.orders {
            // A part that ended needs no order.
            let _ = orders.send(Order::Stop);
        }
    }

    fn hear(&mut self, index: usize, said: anyhow::Result<Event>) {
        let state = &mut self.states[index];
        match said {
            Ok(Event::WindowStart) => state.in_window = true,
            Ok(Event::WindowEnd) => state.behind_window = true,
            Ok(Event::Progress {
                phase,
                second,
                acknowledged,
                outstanding,
            }) => {
                state.second = Some((second, acknowledged, outstanding));
                self.show_second(phase, second);
            }
            Ok(Event::Result(result)) => state.result = Some(result),
            Ok(Event::Connected | Event::Clock { .. }) => {}
            Err(_) if state.is_done() => {}
            Err(error) => {
                state.lost = true;
                self.stop(describe(&error));
            }
        }
        self.tell_milestones(false);
    }

    /// A milestone is reached when every part that is there has reached it.
    fn tell_milestones(&mut self, all: bool) {
        let reached =
            |of: fn(&State) -> bool| self.states.iter().all(|state| state.lost || of(state));
        let (started, ended) = (
            all || reached(|state| state.in_window),
            all || reached(|state| state.behind_window),
        );
        for (now, told, event) in [
            (started, &mut self.window_started, Event::WindowStart),
            (ended, &mut self.window_ended, Event::WindowEnd),
        ] {
            if now && !*told {
                *told = true;
                show(&event, &self.progress);
                // Nobody listens any more if the run was given up.
                let _ = self.milestones.send(event);
            }
        }
    }

    /// One line for all, when all have told of this second.
    fn show_second(&self, phase: crate::load::event::Phase, second: u64) {
        let told: Vec<_> = self
            .states
            .iter()
            .filter(|state| !state.lost)
            .filter_map(|state| state.second)
            .collect();
        let living = self.states.iter().filter(|state| !state.lost).count();
        if told.len() == living && told.iter().all(|(told, _, _)| *told == second) {
            let event = Event::Progress {
                phase,
                second,
                acknowledged: told.iter().map(|(_, acknowledged, _)| acknowledged).sum(),
                outstanding: told.iter().map(|(_, _, outstanding)| outstanding).sum(),
            };
            show(&event, &self.progress);
        }
    }

    /// Fetches what the parts wrote and merges it; each machine's own files stay beside.
    async fn result(&mut self, folders: &[Folder], results: &Path) -> anyhow::Result<LoadResult> {
        self.progress.clear();
        let mut parts = Vec::new();
        for (state, folder) in self.states.iter_mut().zip(folders) {
            let Some(result) = state.result.take() else {
                continue;
            };
            let host = folder.host.name();
            let (latencies, timeline) = (
                results.join(format!("latency-{host}.hlog")),
                results.join(format!("timeline-{host}.csv")),
            );
            folder
                .host
                .fetch(&folder.file("latency.hlog"), &latencies)
                .await?;
            folder
                .host
                .fetch(&folder.file("timeline.csv"), &timeline)
                .await?;
            parts.push((*result, PartFiles::read(&latencies, &timeline)?));
        }
        let reason = self.incomplete.take();
        if parts.is_empty() {
            anyhow::bail!(
                "{}",
                reason.unwrap_or_else(|| "no part of the load has a result".into())
            );
        }
        let mut merged = merge(&parts, results)?;
        merged.incomplete = reason;
        Ok(merged)
    }
}

/// Between one part and the ensemble.
async fn relay(
    index: usize,
    mut part: Part,
    mut orders: UnboundedReceiver<Order>,
    said: UnboundedSender<Said>,
) {
    loop {
        tokio::select! {
            event = event(&mut part) => {
                let last = matches!(event, Err(_) | Ok(Event::Result(_)));
                if said.send((index, event)).is_err() || last {
                    return;
                }
            }
            Some(next) = orders.recv() => {
                // If it ended, its end is about to be read.
                let _ = order(&mut part, next).await;
            }
        }
    }
}
