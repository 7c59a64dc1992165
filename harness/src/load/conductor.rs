//! Tells a part of a load when to begin, so that all parts begin together, and when to end early.

use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::sync::mpsc;

use crate::input;
use crate::load::event::{Event, Order};
use crate::load::tell;

/// The run that conducts, at the other end of stdin.
pub struct Conductor {
    lines: mpsc::Receiver<String>,
    clock: Instant,
}

impl Conductor {
    pub fn listen() -> Conductor {
        Conductor {
            lines: input::lines(),
            clock: Instant::now(),
        }
    }

    /// Answers what the clock says until the start is set, and returns the start.
    pub async fn start(&mut self) -> anyhow::Result<Instant> {
        loop {
            match self.order().await? {
                Order::Clock => tell(&Event::Clock {
                    now_ns: self.clock.elapsed().as_nanos() as u64,
                })?,
                Order::Start { at_ns } => return Ok(self.clock + Duration::from_nanos(at_ns)),
                Order::Stop => anyhow::bail!("stopped before the start"),
            }
        }
    }

    /// Returns when the load is to stop early.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        while self.order().await? != Order::Stop {}
        Ok(())
    }

    async fn order(&mut self) -> anyhow::Result<Order> {
        let line = self.lines.recv().await;
        let line = line.context("the run that started this load is gone")?;
        serde_json::from_str(&line).with_context(|| format!("`{line}` is no order"))
    }
}
