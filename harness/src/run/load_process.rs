//! The process that plays the clients, and what it tells.

use std::sync::Arc;

use anyhow::Context;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::load::event::{Event, LoadResult, Phase};
use crate::run::process::Process;
use crate::run::progress::{Progress, thousands};

pub struct LoadProcess {
    milestones: mpsc::UnboundedReceiver<Event>,
    /// Follows the process to its end; the error says why it ended early.
    /// Gone once its end was told.
    follower: Option<JoinHandle<anyhow::Result<()>>>,
    /// Ends a load early that can report what it has: the reason goes there.
    stop: Option<mpsc::UnboundedSender<String>>,
}

impl LoadProcess {
    /// Reads what `process` prints, to its end.
    pub fn follow(process: Process, progress: Arc<Progress>) -> LoadProcess {
        let (sender, milestones) = mpsc::unbounded_channel();
        LoadProcess {
            milestones,
            follower: Some(tokio::spawn(follow(process, sender, progress))),
            stop: None,
        }
    }

    /// A load of several processes, whose follower says what it is as a whole.
    pub fn several(
        milestones: mpsc::UnboundedReceiver<Event>,
        follower: JoinHandle<anyhow::Result<()>>,
        stop: mpsc::UnboundedSender<String>,
    ) -> LoadProcess {
        LoadProcess {
            milestones,
            follower: Some(follower),
            stop: Some(stop),
        }
    }

    /// Whether [`LoadProcess::stop`] yields what was measured so far.
    pub fn can_stop(&self) -> bool {
        self.stop.is_some()
    }

    /// Ends the load early. `None`: this load cannot be, and what it measured is gone.
    pub async fn stop(&mut self, reason: String) -> anyhow::Result<Option<LoadResult>> {
        match (&self.stop, &self.follower) {
            // If it ended by itself meanwhile, its result is on its way.
            (Some(stop), Some(_)) => drop(stop.send(reason)),
            // Or its end is the reason.
            (None, _) | (_, None) => return Ok(None),
        }
        self.result().await.map(Some)
    }

    pub async fn window_start(&mut self) -> anyhow::Result<()> {
        loop {
            if let Event::WindowStart = self.next().await? {
                return Ok(());
            }
        }
    }

    pub async fn window_end(&mut self) -> anyhow::Result<()> {
        loop {
            if let Event::WindowEnd = self.next().await? {
                return Ok(());
            }
        }
    }

    pub async fn result(&mut self) -> anyhow::Result<LoadResult> {
        loop {
            if let Event::Result(result) = self.next().await? {
                return Ok(*result);
            }
        }
    }

    async fn next(&mut self) -> anyhow::Result<Event> {
        if let Some(event) = self.milestones.recv().await {
            return Ok(event);
        }
        let follower = self.follower.as_mut().context("the load has ended")?;
        let ended = follower.await;
        self.follower = None;
        match ended {
            Ok(Err(error)) => Err(error),
            Ok(Ok(())) => anyhow::bail!("the load ended before its result"),
            Err(_) => anyhow::bail!("the load's follower panicked"),
        }
    }
}

/// Dropping the follower's task drops the process with it, which kills it.
impl Drop for LoadProcess {
    fn drop(&mut self) {
        if let Some(follower) = &self.follower {
            follower.abort();
        }
    }
}

async fn follow(
    mut process: Process,
    milestones: mpsc::UnboundedSender<Event>,
    progress: Arc<Progress>,
) -> anyhow::Result<()> {
    while let Some(line) = process.line().await? {
        let event: Event = serde_json::from_str(&line)
            .with_context(|| format!("the load said `{line}`, which is no event"))?;
        let last = matches!(event, Event::Result(_));
        show(&event, &progress);
        if milestones.send(event).is_err() || last {
            break;
        }
    }
    progress.clear();
    process.finish().await
}

pub fn show(event: &Event, progress: &Progress) {
    match event {
        Event::Connected => progress.step("the clients are connected, warming up"),
        Event::WindowStart => progress.step("measuring"),
        Event::WindowEnd | Event::Result(_) | Event::Clock { .. } => {}
        Event::Progress {
            phase,
            second,
            acknowledged,
            outstanding,
        } => {
            let phase = match phase {
                Phase::Warmup => "warm-up",
                Phase::Measured => "measured",
                Phase::Draining => "draining",
            };
            progress.live(&format!(
                "  {second:>3} s  {phase:<8}  {:>11}/s acknowledged  {:>7} outstanding",
                thousands(*acknowledged),
                thousands(*outstanding)
            ));
        }
    }
}
