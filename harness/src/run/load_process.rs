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
    follower: JoinHandle<anyhow::Result<()>>,
}

impl LoadProcess {
    /// Reads what `process` prints, to its end.
    pub fn follow(process: Process, progress: Arc<Progress>) -> LoadProcess {
        let (sender, milestones) = mpsc::unbounded_channel();
        LoadProcess {
            milestones,
            follower: tokio::spawn(follow(process, sender, progress)),
        }
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
        match self.milestones.recv().await {
            Some(event) => Ok(event),
            None => match (&mut self.follower).await {
                Ok(Err(error)) => Err(error),
                Ok(Ok(())) => anyhow::bail!("the load ended before its result"),
                Err(_) => anyhow::bail!("the load's follower panicked"),
            },
        }
    }
}

/// Dropping the follower's task drops the process with it, which kills it.
impl Drop for LoadProcess {
    fn drop(&mut self) {
        self.follower.abort();
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

fn show(event: &Event, progress: &Progress) {
    match event {
        Event::Connected => progress.step("the clients are connected, warming up"),
        Event::WindowStart => progress.step("measuring"),
        Event::WindowEnd | Event::Result(_) => {}
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
