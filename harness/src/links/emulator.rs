//! The run's hold on the process that emulates the links.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;

use anyhow::Context;
use serde::Serialize;
use synod_engine::ids::ReplicaId;

use super::EmulatorFile;
use super::serve::{Event, Order, Passed};
use crate::run::process::Process;
use crate::toml_file;

pub struct Emulator {
    process: Process,
    addresses: BTreeMap<(ReplicaId, ReplicaId), SocketAddr>,
}

/// What the links did in a run, warm-up included.
#[derive(Clone, Debug, Serialize)]
pub struct LinksReport {
    pub links: Vec<Passed>,
    /// Of the emulator, which belongs to nobody's figures.
    pub cpu_us: u64,
}

impl Emulator {
    /// Writes its file and starts it; what it logs goes beside that.
    pub async fn start(results: &Path, file: &EmulatorFile) -> anyhow::Result<Emulator> {
        let config = results.join("links.toml");
        toml_file::write(&config, file)?;
        let config = config.to_str().context("--out is not valid UTF-8")?;
        let arguments = ["links", "--config", config];
        let log = results.join("links.log");
        let mut process = Process::start("the link emulator", &arguments, &log)?;
        match event(&mut process).await? {
            Event::Ready { addresses } => Ok(Emulator {
                process,
                addresses: addresses
                    .into_iter()
                    .map(|(from, to, at)| ((ReplicaId(from), ReplicaId(to)), at))
                    .collect(),
            }),
            other => anyhow::bail!("the link emulator began with {other:?}"),
        }
    }

    /// Where `from` finds `to`; `None`: where it really is.
    pub fn address(&self, from: ReplicaId, to: ReplicaId) -> Option<SocketAddr> {
        self.addresses.get(&(from, to)).copied()
    }

    /// From now on exactly these links are cut.
    pub async fn cut(&mut self, links: &BTreeSet<(ReplicaId, ReplicaId)>) -> anyhow::Result<()> {
        let links = links.iter().map(|(from, to)| (from.0, to.0)).collect();
        match self.ask(&Order::Cut { links }).await? {
            Event::Done => Ok(()),
            other => anyhow::bail!("the link emulator answered {other:?}"),
        }
    }

    pub async fn report(&mut self) -> anyhow::Result<LinksReport> {
        match self.ask(&Order::Report).await? {
            Event::Report { links, cpu_us } => Ok(LinksReport { links, cpu_us }),
            other => anyhow::bail!("the link emulator answered {other:?}"),
        }
    }

    async fn ask(&mut self, order: &Order) -> anyhow::Result<Event> {
        self.process.tell(&serde_json::to_string(order)?).await?;
        event(&mut self.process).await
    }
}

async fn event(process: &mut Process) -> anyhow::Result<Event> {
    let Some(line) = process.line().await? else {
        return Err(process.end().await);
    };
    serde_json::from_str(&line).with_context(|| format!("the link emulator said `{line}`"))
}
